//! A cluster without a network: homes of several shards, edges as they keep their sessions, a clock that stands still. Links
//! can be cut, homes can crash, what is on its way can be lost.

mod book;
mod clients;
mod edges;
mod leases;
mod numbers;
mod planned;

pub(crate) use self::book::{Book, Mood};
use self::numbers::Numbers;
use crate::bench::{account, jid, parts};
use crate::stage::now;
use parking_lot::Mutex;
use starling_node::{Clock, ManualClock};
use starling_router::{Door, Edges, Homes, Post, Reigning, RouterConfig, RouterParts, ShardParts};
use starling_store::testing::FaultyStore;
use starling_store::{Position, Reign, SharedStore, Store};
use starling_wire::frame::{EdgeItem, PeerItem, UpBatch};
use starling_wire::uplink::{LinkId, Output, Patience, Seat};
use starling_wire::{
    ConnId, Down, EdgeId, EdgeLink, Epoch, Leave, RouterId, Shard, Shards, ToEdge, ToHome, Token, Up,
};
use starling_xmpp::{BareJid, Jid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

const START: u64 = 1_700_000_000_000_000;
const ROUTER: RouterId = RouterId(1);

/// To an edge over the link of this number, of a shard's home in its reign.
type OnItsWay = (EdgeId, u64, Shard, Epoch, ToEdge);

/// What is on its way.
#[derive(Default)]
struct Wires {
    /// The number of each edge's link, for edges that have one.
    links: Mutex<BTreeMap<EdgeId, u64>>,
    downs: Mutex<VecDeque<OnItsWay>>,
    mail: Mutex<VecDeque<(Shard, PeerItem)>>,
    /// Shards to which nothing goes.
    closed: Mutex<Vec<Shard>>,
    /// Shards that are being moved on purpose.
    leaving: Mutex<Vec<Shard>>,
    /// Bytes that edges were to remember.
    remembered: AtomicUsize,
    stanzas: AtomicUsize,
    /// The links to edges take nothing that can wait.
    pressed: AtomicBool,
}

impl Post for Wires {
    fn send(&self, to: Shard, item: PeerItem) -> bool {
        if self.closed.lock().contains(&to) {
            return false;
        }
        self.mail.lock().push_back((to, item));
        true
    }
}

/// One reign's way to edges.
struct Tagged {
    wires: Arc<Wires>,
    shard: Shard,
    epoch: Epoch,
    open: Mutex<BTreeMap<EdgeId, u64>>,
}

impl EdgeLink for Tagged {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let open = self.open.lock();
        for message in batch.drain(..) {
            let edge = message.conn.edge;
            let notes = if let Down::Remember(notes) = &message.down { notes.len() } else { 0 };
            let stanzas = usize::from(matches!(message.down, Down::Stanza { .. }));
            self.wires.remembered.fetch_add(notes, Ordering::Relaxed);
            self.wires.stanzas.fetch_add(stanzas, Ordering::Relaxed);
            if let Some(link) = open.get(&edge) {
                self.wires.downs.lock().push_back((edge, *link, self.shard, self.epoch, message));
            }
        }
    }
}

impl Edges for Tagged {
    fn open(&self, edge: EdgeId, link: u64) {
        self.open.lock().insert(edge, link);
    }

    fn is_pressed(&self, _edge: EdgeId) -> bool {
        self.wires.pressed.load(Ordering::Relaxed)
    }
}

struct Home {
    homes: Homes,
    door: Door,
    epoch: Epoch,
    until: Arc<AtomicU64>,
    ceiling: Arc<AtomicU64>,
}

struct Edge {
    id: EdgeId,
    /// The process before.
    before: Option<EdgeId>,
    /// Since when it has no link.
    cut: Option<Duration>,
    seats: Vec<Seat>,
    link: Option<u64>,
    told: BTreeMap<u64, Vec<Down>>,
}

pub(crate) struct Site {
    pub(crate) store: FaultyStore,
    pub(crate) clock: ManualClock,
    shards: Shards,
    homes: Vec<Option<Home>>,
    /// Homes whose reign is over and who go on for a moment.
    zombies: Vec<Home>,
    usurped: Option<Duration>,
    config: RouterConfig,
    /// Edges that were killed, until homes take them for dead.
    killed: Vec<(EdgeId, Duration)>,
    /// Edges and those who have the links watch the time.
    pub(crate) lively: bool,
    pub(crate) books: Vec<Arc<Book>>,
    wires: Arc<Wires>,
    edges: Vec<Edge>,
    /// How often edges were told that what was acknowledged is kept.
    pub(crate) saved: usize,
    accounts: BTreeMap<ConnId, BareJid>,
    numbers: Numbers,
    epochs: u64,
    /// How old homes are when they begin.
    pub(crate) age: Duration,
    links: u64,
    conns: u64,
    /// What goes to and fro is told.
    pub(crate) aloud: bool,
    /// What edges say is lost with their links.
    pub(crate) deaf: bool,
    /// They hear that an edge begins to name its sessions, and nothing else of it.
    begins: bool,
    /// Of that, what clients have said.
    pub(crate) mute: bool,
}

/// A connection that has a session.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) account: BareJid,
    pub(crate) full: Jid,
    pub(crate) conn: ConnId,
    pub(crate) token: Token,
    pub(crate) sequence: u64,
}

impl Site {
    /// Homes of all shards, and so many edges. `alice` and `bob` are of different shards.
    pub(crate) fn new(edges: u64) -> Self {
        Self::with(edges, RouterConfig::default())
    }

    /// The same with this configuration.
    pub(crate) fn with(edges: u64, config: RouterConfig) -> Self {
        let (store, clock) = (FaultyStore::in_memory().apart(), ManualClock::at_micros(START));
        for name in ["alice", "bob", "carol"] {
            now(store.create_account(&jid(name), account(), Reign::NONE)).unwrap();
        }
        let shards = Shards::new(4).unwrap();
        assert_ne!(shards.of(&jid("alice")), shards.of(&jid("bob")));
        let edges = (1..=edges).map(|id| Edge {
            id: EdgeId(id),
            before: None,
            cut: None,
            seats: shards
                .all()
                .map(|shard| Seat::new(EdgeId(id), shard, Patience::default(), clock.monotonic()))
                .collect(),
            link: None,
            told: BTreeMap::new(),
        });
        let mut site = Self {
            store,
            shards,
            homes: shards.all().map(|_| None).collect(),
            zombies: Vec::new(),
            usurped: None,
            config,
            killed: Vec::new(),
            lively: false,
            books: shards.all().map(|_| Arc::default()).collect(),
            wires: Arc::default(),
            edges: edges.collect(),
            saved: 0,
            accounts: BTreeMap::new(),
            numbers: Numbers::default(),
            epochs: 0,
            age: Duration::ZERO,
            links: 0,
            conns: 0,
            aloud: false,
            deaf: false,
            begins: false,
            mute: false,
            clock,
        };
        for shard in shards.all() {
            site.begin(shard);
        }
        for edge in 0..site.edges.len() {
            site.link(edge);
        }
        site.run();
        site
    }

    pub(crate) fn shard(&self, account: &str) -> Shard {
        self.shards.of(&jid(account))
    }

    /// An account more.
    pub(crate) fn create(&self, account: &str) {
        now(self.store.create_account(&jid(account), self::account(), Reign::NONE)).unwrap();
    }

    /// This one goes.
    pub(crate) fn remove(&mut self, account: &str) {
        let home = self.homes[usize::from(self.shard(account).0)].as_ref().unwrap();
        let removed = home.homes.delete_account(&jid(account));
        self.run();
        assert!(now(removed).unwrap());
    }

    /// The last reign over this account's shard is over, and another begins.
    pub(crate) fn succeed(&mut self, account: &str) {
        let shard = self.shard(account);
        self.crash(account);
        self.begin(shard);
        self.run();
    }

    /// All routers are lost with their disks: a new era begins, whose table knows nobody.
    pub(crate) fn lose_table(&mut self) {
        self.lose_table_of(&[]);
    }

    /// The same, and the table begins for these shards by recording the first of the sessions in part.
    pub(crate) fn lose_table_of(&mut self, begun: &[Shard]) {
        self.epochs = (Epoch(self.epochs).era() + 1) << Epoch::INDEX_BITS;
        for shard in self.shards.all() {
            self.homes[usize::from(shard.0)] = None;
            self.books[usize::from(shard.0)].burn();
        }
        self.wires.mail.lock().clear();
        for shard in begun {
            self.books[usize::from(shard.0)].next(Mood::Begun);
        }
        for shard in self.shards.all() {
            self.begin(shard);
        }
        self.run();
    }

    /// The reign over this account's shard is over.
    pub(crate) fn crash(&mut self, account: &str) {
        let shard = self.shard(account);
        self.homes[usize::from(shard.0)] = None;
        self.wires.mail.lock().retain(|(to, _)| *to != shard);
    }

    /// The same, but the last home goes on for a moment, and these edges have not heard of the next one.
    pub(crate) fn usurp(&mut self, account: &str, deaf: &[usize]) {
        let shard = self.shard(account);
        if let Some(home) = self.homes[usize::from(shard.0)].take() {
            let now = u64::try_from(self.clock.monotonic().as_micros()).unwrap();
            home.until.store(now, Ordering::SeqCst);
            self.zombies.push(home);
            self.usurped.get_or_insert_with(|| self.clock.monotonic());
        }
        self.wires.mail.lock().retain(|(to, _)| *to != shard);
        self.begin_for(shard, deaf);
    }

    /// Whether homes go on whose reign is over.
    pub(crate) fn has_zombies(&self) -> bool {
        !self.zombies.is_empty()
    }

    /// Homes whose reign is over are gone, and all edges know it.
    pub(crate) fn bury(&mut self) {
        self.zombies.clear();
        self.usurped = None;
        for edge in 0..self.edges.len() {
            for shard in self.shards.all() {
                self.announce(edge, shard);
            }
        }
    }

    pub(crate) fn begin(&mut self, shard: Shard) {
        self.begin_for(shard, &[]);
    }

    fn begin_for(&mut self, shard: Shard, deaf: &[usize]) {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let shared: SharedStore = Arc::new(self.store.clone());
        let clock = Arc::new(self.clock.clone());
        let edges = Tagged { wires: Arc::clone(&self.wires), shard, epoch, open: Mutex::default() };
        let edges = Arc::new(edges);
        let parts = parts(shared, self.config.clone(), clock, edges.clone());
        let RouterParts { config, server, hooks, store, clock, metrics, tracer, .. } = parts;
        let micros = self.clock.now_micros();
        let until = Arc::new(AtomicU64::new(u64::MAX / 2));
        let ceiling = Arc::new(AtomicU64::new(u64::MAX / 2));
        let homes = Homes::of_shard(ShardParts {
            config,
            server,
            hooks: Arc::new(hooks),
            store,
            edges,
            register: Arc::new(self.books[usize::from(shard.0)].open(epoch)),
            post: self.wires.clone(),
            clock,
            metrics,
            tracer,
            shard,
            shards: self.shards,
            reign: Reigning {
                epoch,
                floor: Position(micros + epoch.index() * 1_000),
                ceiling: ceiling.clone(),
                until: until.clone(),
                age: self.age,
            },
        });
        let door = homes.door();
        self.homes[usize::from(shard.0)] = Some(Home { homes, door, epoch, until, ceiling });
        for edge in (0..self.edges.len()).filter(|edge| !deaf.contains(edge)) {
            self.announce(edge, shard);
        }
        for home in self.homes.iter().flatten() {
            home.door.moved(shard);
        }
    }

    fn announce(&mut self, edge: usize, shard: Shard) {
        let Some(home) = &self.homes[usize::from(shard.0)] else { return };
        let (epoch, now) = (home.epoch, self.clock.monotonic());
        let edge = &mut self.edges[edge];
        let Some(number) = edge.link else { return };
        let mut out = Vec::new();
        edge.seats[usize::from(shard.0)].announced(LinkId { router: ROUTER, number }, epoch, now, &mut out);
        let id = edge.id;
        self.carry_out(id, out);
    }

    fn carry_out(&mut self, edge: EdgeId, out: Vec<Output>) {
        let (mut gone, mut cut) = (Vec::new(), Vec::new());
        for output in out {
            match output {
                Output::Send(link, item) => {
                    if self.aloud {
                        eprintln!("    edge {} > {item:?}", edge.0);
                    }
                    let lost =
                        self.mute && matches!(&item, EdgeItem::Up(_, ToHome { up: Up::Stanza { .. }, .. }));
                    let lost = lost || (self.begins && !matches!(&item, EdgeItem::AttachBegin(_)));
                    if !self.deaf && !lost && self.wires.links.lock().get(&edge) == Some(&link.number) {
                        self.hand_over(edge, link.number, item);
                    }
                }
                Output::Deliver(ToEdge { conn, down }) => {
                    let down = self.numbers.told(conn, down);
                    let closed = matches!(down, Down::Close(_));
                    let Some(own) = self.edges.iter_mut().find(|own| own.id == edge) else { return };
                    own.told.entry(conn.number).or_default().push(down);
                    if closed {
                        gone.push(conn);
                    }
                }
                Output::Break(_) => panic!("edge {edge:?} breaks the link"),
                Output::Reading(_) => {}
                Output::Cut(conn) => cut.push(conn),
            }
        }
        for conn in &cut {
            if let Some(edge) = self.edges.iter_mut().find(|own| own.id == conn.edge) {
                edge.told.entry(conn.number).or_default().push(Down::Close(None));
            }
        }
        let gone = gone.into_iter().map(|conn| (conn, Leave::Closed));
        // An edge that has closed a socket says so.
        for (conn, leave) in gone.chain(cut.into_iter().map(|conn| (conn, Leave::Lost))) {
            let now = self.clock.monotonic();
            let Some(edge) = self.edges.iter_mut().find(|own| own.id == conn.edge) else { continue };
            let mut out = Vec::new();
            let account = self.accounts[&conn].clone();
            let message = ToHome { account: account.clone(), conn, up: Up::Gone(leave) };
            edge.seats[usize::from(self.shards.of(&account).0)].up(message, now, &mut out);
            let id = edge.id;
            self.carry_out(id, out);
        }
    }

    fn hand_over(&mut self, edge: EdgeId, link: u64, item: EdgeItem) {
        let batch = match item {
            EdgeItem::AttachBegin(home) => UpBatch { attach_begin: true, ..batch(home) },
            EdgeItem::AttachEnd(home) => UpBatch { attach_end: true, ..batch(home) },
            EdgeItem::Up(home, up) => UpBatch { ups: vec![up], ..batch(home) },
            // Of no home.
            _ => return,
        };
        self.knock(edge, link, batch);
    }

    fn knock(&mut self, edge: EdgeId, link: u64, batch: UpBatch) {
        if self.wires.leaving.lock().contains(&batch.home.shard) {
            return;
        }
        let present = self.homes[usize::from(batch.home.shard.0)].iter();
        if let Some(home) = present.chain(&self.zombies).find(|home| home.epoch == batch.home.epoch) {
            home.door.edge(edge, link, batch);
        }
    }

    /// Goes on until there is nothing to do.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            self.moment();
            let mut cx = Context::from_waker(futures::task::noop_waker_ref());
            let mut any = false;
            for home in self.homes.iter_mut().flatten().chain(&mut self.zombies) {
                // What waits for a moment only is there the second time.
                for _ in 0..2 {
                    while home.homes.turn(&mut cx).is_ready() {
                        any = true;
                    }
                }
            }
            any |= self.deliver();
            if !any {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    /// No two things happen at the same time.
    fn moment(&self) {
        if self.lively {
            self.clock.advance(Duration::from_micros(1));
        }
    }

    /// Lets homes decide; what they say stays on its way.
    pub(crate) fn decide(&mut self) {
        self.moment();
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        for home in self.homes.iter_mut().flatten().chain(&mut self.zombies) {
            for _ in 0..2 {
                while home.homes.turn(&mut cx).is_ready() {}
            }
        }
    }

    /// Whatever is on its way arrives.
    fn deliver(&mut self) -> bool {
        let mut any = false;
        loop {
            let Some((id, link, shard, epoch, message)) = self.wires.downs.lock().pop_front() else { break };
            any = true;
            if self.aloud {
                let lost = self.wires.links.lock().get(&id) != Some(&link);
                eprintln!(
                    "    edge {} < shard {} epoch {}{} {message:?}",
                    id.0,
                    shard.0,
                    epoch.0,
                    if lost { " LOST" } else { "" }
                );
            }
            if self.wires.links.lock().get(&id) != Some(&link) {
                continue;
            }
            self.saved += usize::from(matches!(message.down, Down::Saved { .. }));
            let Some(edge) = self.edges.iter_mut().find(|own| own.id == id) else { continue };
            let mut out = Vec::new();
            let link = LinkId { router: ROUTER, number: link };
            edge.seats[usize::from(shard.0)].down(link, epoch, message, &mut out);
            self.carry_out(id, out);
        }
        loop {
            let Some((shard, item)) = self.next_mail() else { break };
            any = true;
            if self.aloud {
                eprintln!("    mail to shard {} {item:?}", shard.0);
            }
            if let Some(home) = &self.homes[usize::from(shard.0)] {
                home.door.peer(item);
            }
        }
        any
    }

    /// What is for a shard that is being moved waits.
    fn next_mail(&self) -> Option<(Shard, PeerItem)> {
        let (leaving, mut mail) = (self.wires.leaving.lock(), self.wires.mail.lock());
        let index = mail.iter().position(|(shard, _)| !leaving.contains(shard))?;
        mail.remove(index)
    }

    /// What is on its way between homes is lost; returns how much that was.
    pub(crate) fn lose_mail(&mut self) -> usize {
        std::mem::take(&mut *self.wires.mail.lock()).len()
    }

    /// What is on its way between homes.
    pub(crate) fn mail(&self) -> parking_lot::MutexGuard<'_, VecDeque<(Shard, PeerItem)>> {
        self.wires.mail.lock()
    }

    /// One of them arrives.
    pub(crate) fn hand_mail(&self, shard: Shard, item: PeerItem) {
        if let Some(home) = &self.homes[usize::from(shard.0)] {
            home.door.peer(item);
        }
    }

    /// What is on its way to edges is lost.
    pub(crate) fn forget_downs(&mut self) {
        self.wires.downs.lock().clear();
    }

    /// So much of what is on its way to edges arrives; the rest is lost.
    pub(crate) fn deliver_only(&mut self, count: usize) {
        self.wires.downs.lock().truncate(count);
        self.deliver();
    }

    /// The links to edges take nothing that can wait, or they do again.
    pub(crate) fn press(&self, pressed: bool) {
        self.wires.pressed.store(pressed, Ordering::Relaxed);
    }

    /// Nothing goes to homes of this account's shard, or again.
    pub(crate) fn close_post(&mut self, account: &str, closed: bool) {
        let shard = self.shard(account);
        let mut all = self.wires.closed.lock();
        all.retain(|other| *other != shard);
        if closed {
            all.push(shard);
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            if self.lively {
                self.tick();
            }
            self.run();
            let at = self.clock.monotonic();
            if at >= end {
                return;
            }
            let next = self.homes.iter().flatten().filter_map(|home| home.homes.deadline()).min();
            let next = next.unwrap_or(end).clamp(at, end).min(at + Duration::from_secs(1));
            self.clock.advance((next - at).max(Duration::from_micros(1)));
        }
    }
}

fn batch(home: starling_wire::frame::Home) -> UpBatch {
    UpBatch { home, attach_begin: false, ups: Vec::new(), attach_end: false }
}
