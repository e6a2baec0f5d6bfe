//! Every connection of an edge that homes can speak to.

use crate::mailbox::Mailbox;
use crate::wheel::{Tick, Wheel};
use parking_lot::RwLock;
use starling_wire::net::Sockets;
use starling_wire::{ConnId, EdgeId, EdgeLink, Shard, Shards, ToEdge};
use starling_xmpp::BareJid;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// The edge's end of the seam: made before the router, handed to it as its way to connections.
pub struct EdgeTable {
    edge: EdgeId,
    /// How accounts are sorted over the homes of a cluster.
    shards: Option<Shards>,
    /// For each shard why its sessions' sockets are not read now; 0 when they are.
    closed: Vec<AtomicU8>,
    parts: Vec<RwLock<Part>>,
    next: AtomicU64,
    queue_bytes: AtomicUsize,
    pub(crate) wheel: Wheel,
}

type Part = HashMap<u64, Arc<Mailbox>, BuildHasherDefault<Spread>>;

impl EdgeTable {
    /// An empty table, of the edge in the process of its homes.
    pub fn new() -> Arc<Self> {
        Self::make(EdgeId(0), None)
    }

    /// An empty table of one edge of a cluster. No shard has a home yet: it is for [`Sockets::reading`] to say.
    pub fn of_cluster(edge: EdgeId, shards: Shards) -> Arc<Self> {
        Self::make(edge, Some(shards))
    }

    fn make(edge: EdgeId, shards: Option<Shards>) -> Arc<Self> {
        let closed = match shards {
            Some(shards) => shards.all().map(|_| AtomicU8::new(HOMELESS)).collect(),
            None => vec![AtomicU8::new(0)],
        };
        Arc::new(Self {
            edge,
            shards,
            closed,
            parts: (0..PARTS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
            queue_bytes: AtomicUsize::new(QUEUE_BYTES),
            wheel: Wheel::default(),
        })
    }

    /// How many connections are registered (authenticated or beyond).
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a connection; `Registered` takes it out again when it is dropped.
    pub(crate) fn register(self: &Arc<Self>, account: &BareJid) -> Registered {
        let conn = ConnId { edge: self.edge, number: self.next.fetch_add(1, Ordering::Relaxed) };
        let shard = self.shards.map_or(Shard(0), |shards| shards.of(account));
        let mailbox = Arc::new(Mailbox::new(conn, shard));
        self.part(conn).write().insert(conn.number, Arc::clone(&mailbox));
        Registered { table: Arc::clone(self), mailbox }
    }

    /// Bytes that may wait for one connection before it counts as lost.
    pub(crate) fn set_queue_bytes(&self, bytes: usize) {
        self.queue_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether sessions go on without this edge.
    pub(crate) fn outlived(&self) -> bool {
        self.shards.is_some()
    }

    /// Whether sockets of this shard's sessions may be read.
    pub(crate) fn is_read(&self, shard: Shard) -> bool {
        self.closed.get(usize::from(shard.0)).is_none_or(|closed| closed.load(Ordering::Acquire) == 0)
    }

    /// Whether so much waits for the home of this shard that its sessions' sockets are better not read.
    pub fn press(&self, shard: Shard, on: bool) {
        self.close(shard, PRESSED, on);
    }

    fn close(&self, shard: Shard, why: u8, on: bool) {
        let Some(closed) = self.closed.get(usize::from(shard.0)) else { return };
        let before = if on {
            closed.fetch_or(why, Ordering::AcqRel)
        } else {
            closed.fetch_and(!why, Ordering::AcqRel)
        };
        // Nobody need be told to stop: each looks before it reads.
        if !on && before == why {
            self.each(|mailbox| {
                if mailbox.shard == shard {
                    mailbox.wake();
                }
            });
        }
    }

    /// The numbers of all connections.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.parts.iter().flat_map(|part| part.read().keys().copied().collect::<Vec<_>>()).collect()
    }

    /// Tells one connection that the edge is going down.
    pub(crate) fn stop(&self, number: u64) {
        self.with(number, Mailbox::stop);
    }

    /// Tells every connection that the edge is going down.
    pub(crate) fn stop_all(&self) {
        self.each(Mailbox::stop);
    }

    /// Tells every connection that there are new settings.
    pub(crate) fn reload_all(&self) {
        self.each(Mailbox::reload);
    }

    /// Moves the wheel to `now` and wakes what is due. `due` is scratch.
    pub(crate) fn advance(&self, now: Tick, due: &mut Vec<ConnId>) {
        self.wheel.advance(now, due);
        for conn in due.drain(..) {
            self.with(conn.number, Mailbox::fire);
        }
    }

    fn with(&self, number: u64, call: impl Fn(&Mailbox)) {
        if let Some(mailbox) = self.parts[number as usize % PARTS].read().get(&number) {
            call(mailbox);
        }
    }

    fn each(&self, call: impl Fn(&Mailbox)) {
        for part in &self.parts {
            part.read().values().for_each(|mailbox| call(mailbox));
        }
    }

    fn part(&self, conn: ConnId) -> &RwLock<Part> {
        &self.parts[conn.number as usize % PARTS]
    }
}

impl Sockets for EdgeTable {
    fn reading(&self, shard: Shard, on: bool) {
        self.close(shard, HOMELESS, !on);
    }

    fn cut(&self, conn: ConnId) {
        self.with(conn.number, Mailbox::cut);
    }
}

impl EdgeLink for EdgeTable {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let limit = self.queue_bytes.load(Ordering::Relaxed);
        for ToEdge { conn, down } in batch.drain(..) {
            let part = self.part(conn).read();
            let Some(mailbox) = part.get(&conn.number) else { continue };
            mailbox.deliver(down, limit);
        }
    }
}

impl std::fmt::Debug for EdgeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeTable").field("connections", &self.len()).finish_non_exhaustive()
    }
}

/// A connection's place in the table.
pub(crate) struct Registered {
    pub(crate) table: Arc<EdgeTable>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let conn = self.mailbox.conn;
        self.table.part(conn).write().remove(&conn.number);
    }
}

/// Connection numbers are our own and count up: spreading their bits is all the hashing they need.
#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 << 8 | u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
}

const PARTS: usize = 64;
/// The shard has no home.
const HOMELESS: u8 = 1;
/// Its home is behind.
const PRESSED: u8 = 2;
/// Before configuration says otherwise.
const QUEUE_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Next;
    use starling_wire::Down;
    use starling_xmpp::{MessageType, Stanza};
    use std::task::{Context, Poll, Waker};

    fn account() -> BareJid {
        BareJid::parse("a@example.org").unwrap()
    }

    fn message() -> Down {
        Down::Stanza {
            number: 0,
            position: None,
            waits: false,
            counts: false,
            stanza: Stanza::message(MessageType::Chat),
            answers: 0,
            trace: None,
        }
    }

    #[test]
    fn delivers_in_order_to_whom_it_is_for_and_forgets_the_gone() {
        let table = EdgeTable::new();
        let one = table.register(&account());
        let two = table.register(&account());
        let mut batch = vec![
            ToEdge { conn: two.mailbox.conn, down: Down::RequestAck },
            ToEdge { conn: ConnId::local(999), down: Down::RequestAck },
            ToEdge { conn: two.mailbox.conn, down: Down::SmFailed },
        ];
        table.deliver(&mut batch);
        assert!(batch.is_empty());
        assert!(one.mailbox.take(100).0.is_empty());
        let (items, more) = two.mailbox.take(100);
        assert!(!more);
        assert!(matches!(items.iter().collect::<Vec<_>>()[..], [Down::RequestAck, Down::SmFailed]));
        drop(one);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn handled_is_kept_beside_the_queue_and_never_falls() {
        let table = EdgeTable::new();
        let one = table.register(&account());
        let conn = one.mailbox.conn;
        table.deliver(&mut vec![
            ToEdge { conn, down: Down::Handled { sequence: 7 } },
            ToEdge { conn, down: Down::Handled { sequence: 3 } },
        ]);
        let flags = one.mailbox.look(&Context::from_waker(Waker::noop()), false);
        assert_eq!((flags.handled, flags.items), (7, false));
    }

    #[test]
    fn a_queue_beyond_its_bound_is_dropped_and_says_so() {
        let table = EdgeTable::new();
        table.set_queue_bytes(1);
        let one = table.register(&account());
        let mut batch = Vec::from([message(), message()].map(|down| ToEdge { conn: one.mailbox.conn, down }));
        table.deliver(&mut batch);
        let cx = Context::from_waker(Waker::noop());
        let flags = one.mailbox.look(&cx, false);
        assert!(flags.overflow && !flags.items);
        let next = one.mailbox.poll_next(&cx);
        assert!(matches!(next, Poll::Ready(Next::Cut)), "who waits for an answer waits in vain: {next:?}");
    }

    #[test]
    fn a_stopping_edge_ends_the_wait_for_the_home() {
        let table = EdgeTable::new();
        let one = table.register(&account());
        let cx = Context::from_waker(Waker::noop());
        assert!(one.mailbox.poll_next(&cx).is_pending());
        table.stop_all();
        assert!(matches!(one.mailbox.poll_next(&cx), Poll::Ready(Next::Stopping)));
    }

    #[test]
    fn sockets_are_read_only_while_there_is_a_home_that_is_not_behind() {
        let shards = Shards::new(4).unwrap();
        let table = EdgeTable::of_cluster(EdgeId(7), shards);
        let one = table.register(&account());
        let home = one.mailbox.shard;
        assert_eq!((one.mailbox.conn.edge, home), (EdgeId(7), shards.of(&account())));
        assert!(!table.is_read(home));
        table.press(home, true);
        table.reading(home, true);
        assert!(!table.is_read(home));
        table.press(home, false);
        assert!(table.is_read(home));
        table.reading(home, false);
        assert!(!table.is_read(home));
        // With homes in the same process there is no such thing.
        let local = EdgeTable::new();
        assert!(local.is_read(local.register(&account()).mailbox.shard));
    }

    #[test]
    fn whoever_is_cut_hears_of_it_at_once() {
        let table = EdgeTable::of_cluster(EdgeId(7), Shards::new(4).unwrap());
        let one = table.register(&account());
        let cx = Context::from_waker(Waker::noop());
        assert!(one.mailbox.poll_next(&cx).is_pending());
        table.cut(one.mailbox.conn);
        assert!(matches!(one.mailbox.poll_next(&cx), Poll::Ready(Next::Cut)));
        assert!(one.mailbox.look(&cx, false).cut);
    }
}
