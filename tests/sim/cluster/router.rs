//! A router: homes of the shards that it leads, and where what comes over links is handed on. Where to is decided by the
//! server's own chart; the rest is as in its switchboard.

use super::Cluster;
use super::links::Wire;
use super::planted::Break;
use super::raft::{Group, Ledger, Term};
use super::reigns::Heard;
use crate::clock::SimClock;
use crate::server::Server;
use crate::stage::Stage;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, poll_fn, select};
use parking_lot::Mutex;
use starling_node::clock::Clock;
use starling_router::{Door, Edges, Homes, Post, Reigning, RouterParts, ShardParts};
use starling_store::{Position, SharedStore};
use starling_store_scylla::model::Process;
use starling_wire::chart::{Chart, Way};
use starling_wire::frame::{DEAD_AFTER, EdgeItem, Home, PeerItem, RouterItem, UpBatch};
use starling_wire::gate::{Attachments, Listeners, Taken};
use starling_wire::{EdgeId, EdgeLink, RouterId, Shard, ToEdge};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// How often it is looked whether a lease holds, and how long without one edges go on reading.
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(1);
/// How long homes may take to write down what they have before their shard is moved, and to answer what they were asked.
const DRAINED_WITHIN: Duration = Duration::from_secs(3);
const QUESTIONS: Duration = Duration::from_millis(300);

/// A process.
pub(super) struct Router {
    pub(super) index: usize,
    pub(super) life: u64,
    pub(super) process: Process,
    pub(super) asleep: Arc<AtomicBool>,
    pub(super) store: SharedStore,
    clock: SimClock,
    cluster: Arc<Cluster>,
    chart: Chart<Gate>,
    /// Of each link of an edge.
    attached: Mutex<BTreeMap<u64, Attachments>>,
    /// For the judge.
    heard: Mutex<Heard>,
    /// Edges without a link, and since when.
    lost: Mutex<BTreeMap<EdgeId, Duration>>,
}

/// The way to the homes of a shard in a reign.
#[derive(Clone)]
struct Gate {
    door: Door,
    deliveries: Arc<Deliveries>,
}

/// A reign's way to edges.
struct Deliveries {
    stage: Arc<Stage>,
    home: Home,
    listeners: Listeners<Wire>,
}

impl EdgeLink for Deliveries {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        self.stage.records.told(batch, true);
        self.listeners.deliver(batch, |wire, items| {
            for item in items.drain(..) {
                wire.down.send(item);
            }
        });
    }
}

impl Edges for Deliveries {
    fn open(&self, edge: EdgeId, number: u64) {
        self.listeners.open(edge, number);
    }
}

/// To homes of other shards.
struct Mail(Arc<Router>);

impl Post for Mail {
    fn send(&self, to: Shard, mut item: PeerItem) -> bool {
        let router = &self.0;
        router.cluster.stage.records.passed(&item);
        if let PeerItem::Forward(forward) = &mut item
            && let Some(ticket) = forward.ticket.as_mut().filter(|ticket| ticket.again)
        {
            match router.cluster.stage.breaks() {
                Some(Break::NewIdOnRetry) => ticket.origin.sequence += 1 << 32,
                Some(Break::DropRetry) => return true,
                _ => {}
            }
        }
        match router.chart.way(to) {
            Way::Here(epoch, gate) => {
                gate.door.peer(item.addressed(Home { shard: to, epoch }));
                true
            }
            Way::There(epoch, other) => {
                let item = item.addressed(Home { shard: to, epoch });
                router.cluster.say(router.index, place_of(other), item)
            }
            Way::Nowhere => false,
        }
    }
}

pub(super) fn id_of(index: usize) -> RouterId {
    RouterId(index as u64 + 1)
}

pub(super) fn place_of(router: RouterId) -> usize {
    usize::try_from(router.0 - 1).unwrap_or(0)
}

impl Router {
    pub(super) fn start(cluster: &Arc<Cluster>, index: usize, life: u64) -> Arc<Self> {
        let stage = &cluster.stage;
        let process = stage.world.process();
        let most = u64::try_from(stage.plan.clocks).unwrap_or(0);
        let error = i64::try_from(stage.dice().within(0..most * 2 + 1)).unwrap_or(0) - stage.plan.clocks;
        let clock = SimClock::new(&stage.world, error);
        let store = Server::store(stage, &process, &clock);
        stage.tell("cluster", format!("router {index} begins, life {life}, clock {error} us off"));
        Arc::new(Self {
            index,
            life,
            process,
            asleep: Arc::default(),
            store,
            clock,
            cluster: cluster.clone(),
            chart: Chart::new(id_of(index), cluster.shards),
            attached: Mutex::default(),
            heard: Mutex::default(),
            lost: Mutex::default(),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// It is neither dead nor asleep.
    pub(super) fn runs(&self) -> bool {
        self.is_alive() && !self.asleep.load(Ordering::SeqCst)
    }

    pub(super) fn now_micros(&self) -> u64 {
        self.clock.now_micros()
    }

    /// All that it has is gone.
    pub(super) fn kill(&self) {
        self.process.kill();
        for gate in self.chart.doors() {
            self.chart.end(gate.deliveries.home);
        }
    }

    /// The shards that it serves.
    pub(super) fn homes(&self) -> Vec<Home> {
        self.chart.homes()
    }

    /// Its term as the leader of a shard has begun.
    pub(super) fn reign(self: &Arc<Self>, group: &Arc<Group>, term: &Arc<Term>) {
        let stage = self.cluster.stage.clone();
        let home = Home { shard: group.shard, epoch: term.epoch };
        stage.tell(
            "cluster",
            format!("router {} reigns over {} as {}", self.index, home.shard.0, home.epoch.0),
        );
        let deliveries = Arc::new(Deliveries { stage: stage.clone(), home, listeners: Listeners::new(home) });
        let edge: Arc<dyn EdgeLink> = deliveries.clone();
        let RouterParts { config, server, hooks, store, clock, metrics, tracer, .. } =
            Server::parts_of(&stage, self.store.clone(), edge, self.clock.clone(), 1, self.life);
        let until = match stage.breaks() {
            Some(Break::ZombieWrites) => Arc::new((u64::MAX / 2).into()),
            _ => term.until.clone(),
        };
        let ledger = Ledger {
            group: group.clone(),
            term: term.clone(),
            process: self.process.clone(),
            stage: stage.clone(),
            dice: Mutex::new(stage.dice()),
        };
        let homes = Homes::of_shard(ShardParts {
            config,
            server,
            hooks: Arc::new(hooks),
            store,
            edges: deliveries.clone(),
            register: Arc::new(ledger),
            post: Arc::new(Mail(self.clone())),
            clock,
            metrics,
            tracer,
            shard: home.shard,
            shards: self.cluster.shards,
            reign: Reigning {
                epoch: home.epoch,
                floor: Position(term.floor),
                ceiling: term.ceiling.clone(),
                until,
                age: Duration::ZERO,
            },
        });
        let gate = Gate { door: homes.door(), deliveries };
        self.chart.begin(home, gate.clone());
        self.heard.lock().spoken(home.shard, home.epoch);
        self.announce(home);
        let led = Led { router: self.clone(), home, term: term.clone(), gate, began: self.clock.monotonic() };
        self.process.spawn(led.serve(homes).boxed());
    }

    /// A reign has begun here, or takes again what comes.
    fn announce(&self, home: Home) {
        self.cluster.tell_edges(self.index, || RouterItem::Home(home));
        self.cluster.tell_routers(self.index, home);
        self.moved(&[home.shard]);
    }

    fn withdraw(&self, shard: Shard) {
        let not = self.chart.not_home(shard);
        self.cluster.tell_edges(self.index, || RouterItem::NotHome(not));
    }

    fn moved(&self, shards: &[Shard]) {
        for gate in self.chart.doors() {
            for shard in shards {
                gate.door.moved(*shard);
            }
        }
    }

    /// Something came of an edge.
    pub(super) fn hear(&self, edge: EdgeId, wire: &Wire, item: EdgeItem) {
        self.cluster.stage.whisper(|| format!("router {} < edge {} {item:?}", self.index, edge.0));
        let batch = |home| UpBatch { home, attach_begin: false, ups: Vec::new(), attach_end: false };
        let batch = match item {
            EdgeItem::AttachBegin(home) => UpBatch { attach_begin: true, ..batch(home) },
            EdgeItem::AttachEnd(home) => UpBatch { attach_end: true, ..batch(home) },
            EdgeItem::Up(home, up) => UpBatch { ups: vec![up], ..batch(home) },
            // What is not for homes.
            _ => return,
        };
        let home = batch.home;
        let taken = {
            let mut attached = self.attached.lock();
            let home = self.meant_for(home);
            attached.entry(wire.number).or_default().take(&self.chart, home, batch.attach_begin)
        };
        let (stage, mut heard) = (&self.cluster.stage, self.heard.lock());
        match &taken {
            Taken::By(gate, closings) => {
                Heard::takes(stage, home, gate.deliveries.home);
                heard.hears(stage, wire.number, (home, *closings), batch.attach_begin);
            }
            Taken::Dropped | Taken::Refused(_) => heard.refuses(wire.number, home.shard),
        }
        drop(heard);
        match taken {
            Taken::By(gate, closings) => {
                let mut number = wire.number;
                if batch.attach_begin {
                    number = self.cluster.stage.number();
                    gate.deliveries.listeners.name(edge, number, wire, closings);
                }
                gate.door.edge(edge, number, batch);
            }
            Taken::Dropped => {}
            Taken::Refused(not) => {
                wire.down.send(RouterItem::NotHome(not));
                if let Some(home) = self.chart.reign(not.shard) {
                    wire.down.send(RouterItem::Home(home));
                }
            }
        }
    }

    /// An edge has a link.
    pub(super) fn linked(&self, edge: EdgeId) {
        self.lost.lock().remove(&edge);
    }

    /// An edge has none any more.
    pub(super) fn unlinked(&self, edge: EdgeId, number: u64) {
        self.attached.lock().remove(&number);
        self.heard.lock().forgets(number);
        self.lost.lock().entry(edge).or_insert_with(|| self.clock.monotonic());
    }

    /// Edges that have been away for long are dead.
    pub(super) fn bury(&self) {
        let now = self.clock.monotonic();
        let mut dead = Vec::new();
        self.lost.lock().retain(|edge, since| {
            let over = now.saturating_sub(*since) >= DEAD_AFTER;
            dead.extend(over.then_some(*edge));
            !over
        });
        for edge in dead {
            for gate in self.chart.doors() {
                gate.deliveries.listeners.forget(edge);
                gate.door.dead(edge);
            }
        }
    }

    /// A link of another router has begun: it says of what it is the home. What was lost with a link before comes again.
    pub(super) fn greet(&self, peer: usize, homes: &[Home]) {
        for home in homes {
            self.announced(peer, *home);
        }
        self.moved(&self.chart.of(id_of(peer)));
    }

    /// Something came of another router.
    pub(super) fn receive(&self, from: usize, item: PeerItem) {
        self.cluster.stage.whisper(|| format!("router {} < router {from} {item:?}", self.index));
        match &item {
            PeerItem::Home(home) => {
                if self.announced(from, *home) {
                    self.moved(&[home.shard]);
                }
            }
            PeerItem::NotHome(not) => {
                self.heard.lock().spoken(not.shard, not.epoch);
                if self.chart.denied(id_of(from), *not) {
                    self.moved(&[not.shard]);
                }
            }
            PeerItem::Forward(forward) => {
                let home = forward.home;
                match self.chart.take(self.meant_for(home)) {
                    Ok((gate, _)) => {
                        Heard::takes(&self.cluster.stage, home, gate.deliveries.home);
                        gate.door.peer(item);
                    }
                    Err(_) => self.deny(from, home.shard),
                }
            }
            PeerItem::Receipt(receipt) => self.of_sender(from, receipt.pair.shard, item),
            PeerItem::Missing(pair, _) | PeerItem::Busy(pair, _) => self.of_sender(from, pair.shard, item),
            PeerItem::Question { .. } | PeerItem::Answer { .. } => {}
        }
    }

    /// The reign for which something was meant, unless a bug is planted.
    fn meant_for(&self, home: Home) -> Home {
        let broken = self.cluster.stage.breaks() == Some(Break::TakeOldEpoch);
        self.chart.reign(home.shard).filter(|_| broken).unwrap_or(home)
    }

    /// Another router says that it is the home; whether that is news.
    fn announced(&self, by: usize, home: Home) -> bool {
        let news = self.chart.announced(id_of(by), home);
        let mut heard = self.heard.lock();
        if news {
            heard.believes(&self.cluster.stage, home);
        }
        heard.spoken(home.shard, home.epoch);
        news
    }

    fn of_sender(&self, from: usize, shard: Shard, item: PeerItem) {
        match self.chart.here(shard) {
            Some(gate) => {
                gate.door.peer(item);
            }
            None => self.deny(from, shard),
        }
    }

    fn deny(&self, from: usize, shard: Shard) {
        self.cluster.say(self.index, from, PeerItem::NotHome(self.chart.not_home(shard)));
        if let Some(home) = self.chart.reign(shard) {
            self.cluster.say(self.index, from, PeerItem::Home(home));
        }
    }

    /// Lets the homes of a shard finish before it is moved.
    pub(super) async fn drain(&self, home: Home) {
        let Some((gate, closings)) = self.chart.leave(home) else { return };
        let drained = async {
            for _ in 0..2 {
                gate.door.flush().await;
            }
            let questions = self.process.sleep(QUESTIONS);
            match select(gate.door.quiet(), questions).await {
                Either::Left(_) | Either::Right(_) => {}
            }
            gate.door.leave().await;
            gate.deliveries.listeners.close(closings);
            self.withdraw(home.shard);
        };
        let timer = self.process.sleep(DRAINED_WITHIN);
        match select(drained.boxed(), timer).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    /// It was not moved after all. The drain may have been given up before its end.
    pub(super) fn resume(&self, home: Home) {
        if let Some((gate, closings)) = self.chart.leave(home) {
            gate.deliveries.listeners.close(closings);
            self.withdraw(home.shard);
        }
        if self.chart.stay(home, |gate| gate.door.stay()) {
            self.announce(home);
        }
    }
}

/// A reign that is served.
struct Led {
    router: Arc<Router>,
    home: Home,
    term: Arc<Term>,
    gate: Gate,
    began: Duration,
}

impl Led {
    /// Moves its homes until it is over.
    async fn serve(self, homes: Homes) {
        let router = &self.router;
        let mut homes = Some(homes);
        let mut timer: Option<(Duration, BoxFuture<'static, ()>)> = None;
        let mut look = router.process.sleep(LOOK);
        poll_fn(|cx| {
            loop {
                if self.term.is_over() && router.cluster.stage.breaks() != Some(Break::ZombieWrites) {
                    homes = None;
                    return Poll::Ready(());
                }
                let Some(own) = &mut homes else { return Poll::Ready(()) };
                if own.turn(cx).is_ready() {
                    continue;
                }
                if look.poll_unpin(cx).is_ready() {
                    if self.term.is_over() {
                        homes = None;
                        return Poll::Ready(());
                    }
                    self.look();
                    look = router.process.sleep(LOOK);
                    continue;
                }
                let Some(deadline) = own.deadline() else { return Poll::Pending };
                let now = router.clock.monotonic();
                let sleep = match &mut timer {
                    Some((set, sleep)) if *set == deadline => sleep,
                    timer => {
                        let sleep = router.process.sleep(deadline.saturating_sub(now));
                        &mut timer.insert((deadline, sleep)).1
                    }
                };
                if sleep.poll_unpin(cx).is_pending() {
                    return Poll::Pending;
                }
                timer = None;
            }
        })
        .await;
        router.chart.end(self.home);
        self.gate.deliveries.listeners.close(u64::MAX);
        router.withdraw(self.home.shard);
    }

    /// Looks whether it may go on taking what comes.
    fn look(&self) {
        let until = Duration::from_micros(self.term.until.load(Ordering::SeqCst));
        let router = &self.router;
        if router.clock.monotonic() < until.max(self.began) + PATIENCE {
            if router.chart.reopen(self.home) {
                router.announce(self.home);
            }
        } else if let Some((gate, closings)) = router.chart.close(self.home) {
            gate.deliveries.listeners.close(closings);
            router.withdraw(self.home.shard);
        }
    }
}
