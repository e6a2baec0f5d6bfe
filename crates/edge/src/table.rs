//! Every connection of an edge that homes can speak to.

use crate::mailbox::{Delivered, Mailbox};
use crate::wheel::{Tick, Wheel};
use parking_lot::RwLock;
use starling_wire::{ConnId, EdgeLink, ToEdge};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The edge's end of the seam: made before the router, handed to it as its way to connections.
pub struct EdgeTable {
    shards: Vec<RwLock<Shard>>,
    next: AtomicU64,
    queue_bytes: AtomicUsize,
    pub(crate) wheel: Wheel,
}

type Shard = HashMap<u64, Arc<Mailbox>, BuildHasherDefault<Spread>>;

impl EdgeTable {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
            queue_bytes: AtomicUsize::new(QUEUE_BYTES),
            wheel: Wheel::default(),
        })
    }

    /// How many connections are registered (authenticated or beyond).
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a connection; `Registered` takes it out again when it is dropped.
    pub(crate) fn register(self: &Arc<Self>) -> Registered {
        let conn = ConnId::local(self.next.fetch_add(1, Ordering::Relaxed));
        let mailbox = Arc::new(Mailbox::new(conn));
        self.shard(conn).write().insert(conn.number, Arc::clone(&mailbox));
        Registered { table: Arc::clone(self), mailbox }
    }

    /// Bytes that may wait for one connection before it counts as lost.
    pub(crate) fn set_queue_bytes(&self, bytes: usize) {
        self.queue_bytes.store(bytes, Ordering::Relaxed);
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
            if let Some(mailbox) = self.shard(conn).read().get(&conn.number) {
                mailbox.fire();
            }
        }
    }

    fn each(&self, call: impl Fn(&Mailbox)) {
        for shard in &self.shards {
            shard.read().values().for_each(|mailbox| call(mailbox));
        }
    }

    fn shard(&self, conn: ConnId) -> &RwLock<Shard> {
        &self.shards[conn.number as usize % SHARDS]
    }
}

impl EdgeLink for EdgeTable {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let limit = self.queue_bytes.load(Ordering::Relaxed);
        for ToEdge { conn, down } in batch.drain(..) {
            let shard = self.shard(conn).read();
            let Some(mailbox) = shard.get(&conn.number) else { continue };
            if mailbox.deliver(down, limit) == Delivered::Lazy {
                self.wheel.arm(conn, self.wheel.now().after(LAZY));
            }
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
        self.table.shard(conn).write().remove(&conn.number);
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

const SHARDS: usize = 64;
/// What waits for others is written at the latest after this long.
const LAZY: Duration = Duration::from_millis(500);
/// Before configuration says otherwise.
const QUEUE_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::Down;
    use starling_xmpp::{MessageType, Stanza};
    use std::task::{Context, Poll, Waker};

    fn message(lazy: bool) -> Down {
        Down::Stanza {
            number: 0,
            position: None,
            waits: false,
            counts: false,
            stanza: Stanza::message(MessageType::Chat),
            lazy,
            trace: None,
        }
    }

    #[test]
    fn delivers_in_order_to_whom_it_is_for_and_forgets_the_gone() {
        let table = EdgeTable::new();
        let one = table.register();
        let two = table.register();
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
        let one = table.register();
        let conn = one.mailbox.conn;
        table.deliver(&mut vec![
            ToEdge { conn, down: Down::Handled { sequence: 7 } },
            ToEdge { conn, down: Down::Handled { sequence: 3 } },
        ]);
        let flags = one.mailbox.look(&Context::from_waker(Waker::noop()), false);
        assert_eq!((flags.handled, flags.items), (7, false));
    }

    #[test]
    fn what_is_lazy_fires_by_the_wheel() {
        let table = EdgeTable::new();
        let one = table.register();
        let conn = one.mailbox.conn;
        let cx = Context::from_waker(Waker::noop());
        table.deliver(&mut vec![ToEdge { conn, down: message(true) }]);
        assert!(!one.mailbox.look(&cx, false).fired);
        table.advance(Tick(100), &mut Vec::new());
        assert!(one.mailbox.look(&cx, false).fired);
    }

    #[test]
    fn a_queue_beyond_its_bound_is_dropped_and_says_so() {
        let table = EdgeTable::new();
        table.set_queue_bytes(1);
        let one = table.register();
        let mut batch =
            Vec::from([message(false), message(false)].map(|down| ToEdge { conn: one.mailbox.conn, down }));
        table.deliver(&mut batch);
        let flags = one.mailbox.look(&Context::from_waker(Waker::noop()), false);
        assert!(flags.overflow && !flags.items);
    }

    #[test]
    fn a_stopping_edge_ends_the_wait_for_the_home() {
        let table = EdgeTable::new();
        let one = table.register();
        let cx = Context::from_waker(Waker::noop());
        assert!(one.mailbox.poll_next(&cx).is_pending());
        table.stop_all();
        assert!(matches!(one.mailbox.poll_next(&cx), Poll::Ready(None)));
    }
}
