//! The routers, their disks and the network between them.
#![allow(clippy::disallowed_methods)] // tokio's time is the test's own

use crate::call::Call;
use crate::disk::faulty::FaultyDisk;
use crate::era::{Eras, OneEra};
use crate::group::{Group, Reigning};
use crate::logs::memory::MemoryLogs;
use crate::machine::{Op, Outcome};
use crate::peers::{Links, PeerError, Peers};
use crate::places::Places;
use crate::types::Member;
use crate::{Drain, Locations, Opened, Options, Times};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_node::clock::{Clock, SharedClock};
use starling_wire::{EdgeId, Incarnation, RouterId, Shard, Shards, Token};
use starling_xmpp::FullJid;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The time of the test's runtime.
#[derive(Debug)]
struct TestClock(Instant);

impl Clock for TestClock {
    fn now_micros(&self) -> u64 {
        1_700_000_000_000_000 + u64::try_from(self.monotonic().as_micros()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        // Nothing happens at 0: there it could not be told from never.
        self.0.elapsed() + ms(10_000)
    }
}

/// The links of all routers.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    random: StdRng,
    ends: BTreeMap<RouterId, End>,
    /// Pairs between which nothing passes and whose links are gone.
    cut: BTreeSet<(RouterId, RouterId)>,
    /// Routers that say nothing more though their links are up.
    silent: BTreeSet<RouterId>,
    /// Pairs between which nothing passes though their links are up.
    mute: BTreeSet<(RouterId, RouterId)>,
    delay: (Duration, Duration),
    loss: f64,
    /// Bytes that pass one way of a link in a millisecond, in order.
    width: Option<usize>,
    /// Until when the ways are taken.
    taken: BTreeMap<(RouterId, RouterId), Instant>,
    /// The longest that anything waited for its turn.
    waited: Duration,
    /// Calls that have come to a router.
    carried: BTreeMap<RouterId, u64>,
    /// How late an heir is told to campaign.
    late: Duration,
}

struct End {
    member: Member,
    links: watch::Sender<Links>,
    locations: Option<Locations>,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            silent: BTreeSet::new(),
            mute: BTreeSet::new(),
            delay: (Duration::from_micros(200), Duration::from_micros(600)),
            loss: 0.0,
            width: None,
            taken: BTreeMap::new(),
            waited: Duration::ZERO,
            carried: BTreeMap::new(),
            late: Duration::ZERO,
        })))
    }

    /// From now on so many bytes pass one way of a link in a millisecond.
    pub(super) fn narrow(&self, width: usize) {
        self.0.lock().width = Some(width);
    }

    /// The longest that anything waited for its turn on a link.
    pub(super) fn waited(&self) -> Duration {
        self.0.lock().waited
    }

    /// How many calls have come to this router.
    pub(super) fn carried(&self, to: RouterId) -> u64 {
        self.0.lock().carried.get(&to).copied().unwrap_or_default()
    }

    pub(super) fn weather(&self, delay: (Duration, Duration), loss: f64) {
        let mut state = self.0.lock();
        (state.delay, state.loss) = (delay, loss);
    }

    pub(super) fn random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().random)
    }

    pub(super) fn cut(&self, one: RouterId, other: RouterId) {
        let mut state = self.0.lock();
        state.cut.insert((one.min(other), one.max(other)));
        state.relink();
    }

    pub(super) fn mute(&self, one: RouterId, other: RouterId) {
        self.0.lock().mute.insert((one.min(other), one.max(other)));
    }

    /// From now on heirs are told to campaign so late, and all else is as before.
    pub(super) fn tell_heirs_late(&self, late: Duration) {
        self.0.lock().late = late;
    }

    pub(super) fn isolate(&self, one: RouterId) {
        let others: Vec<_> = self.0.lock().ends.keys().copied().filter(|id| *id != one).collect();
        for other in others {
            self.cut(one, other);
        }
    }

    pub(super) fn silence(&self, one: RouterId) {
        self.0.lock().silent.insert(one);
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.cut.clear();
        state.silent.clear();
        state.mute.clear();
        state.relink();
    }

    pub(super) fn plug(&self, id: RouterId, member: Member) -> Arc<dyn Peers> {
        let mut state = self.0.lock();
        let links = watch::Sender::default();
        state.ends.insert(id, End { member, links, locations: None });
        Arc::new(TestPeers { net: self.clone(), own: id })
    }

    pub(super) fn serve(&self, id: RouterId, locations: Locations) {
        let mut state = self.0.lock();
        state.ends.get_mut(&id).unwrap().locations = Some(locations);
        state.relink();
    }

    pub(super) fn unplug(&self, id: RouterId) -> Option<Locations> {
        let mut state = self.0.lock();
        let locations = state.ends.get_mut(&id).and_then(|end| end.locations.take());
        state.relink();
        locations
    }
}

impl State {
    /// How long something waits for what is before it, and takes itself.
    fn queue(&mut self, from: RouterId, to: RouterId, size: usize) -> Duration {
        let Some(width) = self.width else { return Duration::ZERO };
        let now = Instant::now();
        let taken = self.taken.entry((from, to)).or_insert(now);
        let begins = (*taken).max(now);
        *taken = begins + ms((size / width) as u64);
        self.waited = self.waited.max(begins - now);
        *taken - now
    }

    fn linked(&self, one: RouterId, other: RouterId) -> bool {
        let up = |id| self.ends.get(&id).is_some_and(|end: &End| end.locations.is_some());
        one != other && up(one) && up(other) && !self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn relink(&self) {
        for (id, end) in &self.ends {
            let links: BTreeMap<RouterId, Member> = self
                .ends
                .iter()
                .filter(|(other, _)| self.linked(*id, **other))
                .map(|(other, end)| (*other, end.member.clone()))
                .collect();
            end.links.send_if_modified(|before| {
                let changed = **before != links;
                *before = Arc::new(links);
                changed
            });
        }
    }
}

struct TestPeers {
    net: Net,
    own: RouterId,
}

impl Peers for TestPeers {
    fn call(
        &self,
        to: RouterId,
        group: u16,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (net, own) = (self.net.clone(), self.own);
        Box::pin(async move {
            let mut changes = links(&net, own);
            if !changes.borrow().contains_key(&to) {
                return Err(PeerError::NotLinked);
            }
            let gone = changes.wait_for(|links| !links.contains_key(&to));
            tokio::select! {
                _ = gone => Err(PeerError::Lost),
                answer = timeout(within, carry(net.clone(), own, to, group, body)) => answer.unwrap_or(Err(PeerError::Late)),
            }
        })
    }

    fn links(&self) -> watch::Receiver<Links> {
        links(&self.net, self.own)
    }

    fn members(&self, _members: &BTreeMap<RouterId, Member>) {}
}

fn links(net: &Net, own: RouterId) -> watch::Receiver<Links> {
    net.0.lock().ends[&own].links.subscribe()
}

async fn carry(net: Net, from: RouterId, to: RouterId, group: u16, body: Bytes) -> Result<Bytes, PeerError> {
    pass(&net, from, to, body.len()).await;
    let (locations, name) = {
        let mut state = net.0.lock();
        if !state.linked(from, to) {
            return Err(PeerError::Lost);
        }
        *state.carried.entry(to).or_default() += 1;
        (state.ends[&to].locations.clone(), state.ends[&from].member.name.clone())
    };
    let Some(locations) = locations else { return Err(PeerError::Lost) };
    let late = match Call::decode(body.clone()) {
        Ok((_, Call::Elect { .. })) => net.0.lock().late,
        _ => Duration::ZERO,
    };
    // Who answers goes on even when nobody awaits the answer any more.
    let answer = tokio::spawn(async move {
        sleep(late).await;
        locations.answer(from, &name, group, body).await
    });
    let answer = answer.await.map_err(|_| PeerError::Lost)?;
    pass(&net, to, from, answer.len()).await;
    Ok(answer)
}

/// The way of one message; of a lost one there is no end.
async fn pass(net: &Net, from: RouterId, to: RouterId, size: usize) {
    let (delay, lost) = {
        let mut state = net.0.lock();
        let (least, most) = state.delay;
        let delay = least + (most - least).mul_f64(state.random.random::<f64>());
        let loss = state.loss;
        let lost = state.random.random::<f64>() < loss;
        let mute = state.mute.contains(&(from.min(to), from.max(to)));
        let delay = delay + state.queue(from, to, size);
        (delay, lost || mute || state.silent.contains(&from) || state.silent.contains(&to))
    };
    if lost {
        futures::future::pending::<()>().await;
    }
    sleep(delay).await;
}

/// A router: what of it is on disks, and its process while it runs.
pub(super) struct Router {
    pub(super) id: RouterId,
    pub(super) member: Member,
    places: Places,
    /// The disk of its snapshots.
    pub(super) disk: FaultyDisk,
    logs: MemoryLogs,
    founds: Option<usize>,
}

pub(super) struct Cluster {
    pub(super) net: Net,
    pub(super) routers: Vec<Router>,
    pub(super) clock: SharedClock,
    pub(super) eras: Arc<dyn Eras>,
    pub(super) drain: Option<Arc<dyn Drain>>,
    shards: Shards,
    spread: bool,
    lives: AtomicU64,
}

impl Cluster {
    /// So many routers with empty disks; the first one founds.
    pub(super) async fn start(seed: u64, routers: usize, shards: u16, spread: bool) -> Self {
        Self::of_homes(seed, routers, shards, spread, None).await
    }

    /// The same with homes that are stopped before a shard moves.
    pub(super) async fn of_homes(
        seed: u64,
        routers: usize,
        shards: u16,
        spread: bool,
        homes: Option<Arc<dyn Drain>>,
    ) -> Self {
        let mut cluster = Self {
            net: Net::new(seed),
            routers: Vec::new(),
            clock: Arc::new(TestClock(Instant::now())),
            eras: Arc::new(OneEra),
            drain: homes,
            shards: Shards::new(shards).unwrap(),
            spread,
            lives: AtomicU64::new(1),
        };
        for number in 0..routers {
            let founds = (number == 0).then_some(routers);
            cluster.add(&format!("router-{number}"), 101 + number as u64, founds);
        }
        for number in 0..routers {
            cluster.run(number).await;
        }
        cluster
    }

    /// A router with an empty disk.
    pub(super) fn add(&mut self, name: &str, id: u64, founds: Option<usize>) -> usize {
        let disk = || Arc::new(FaultyDisk::default()) as crate::disk::SharedDisk;
        let snapshots = FaultyDisk::default();
        let places = Places { home: disk(), log: disk(), snapshots: Arc::new(snapshots.clone()) };
        let member = Member::new(name, format!("{name}:5270"));
        let logs = MemoryLogs::default();
        self.routers.push(Router { id: RouterId(id), member, places, disk: snapshots, logs, founds });
        self.routers.len() - 1
    }

    pub(super) async fn run(&self, number: usize) {
        let router = &self.routers[number];
        let peers = self.net.plug(router.id, router.member.clone());
        let options = Options {
            member: router.member.clone(),
            incarnation: Incarnation(self.lives.fetch_add(1, Ordering::Relaxed)),
            found_with: router.founds,
            eras: Arc::clone(&self.eras),
            drain: self.drain.clone(),
            spread: self.spread,
            times: Times::default(),
        };
        let (id, places, logs, shards) = (router.id, router.places.clone(), router.logs.clone(), self.shards);
        let opened = tokio::task::spawn_blocking(move || Opened::with_logs(id, places, shards, logs));
        let opened = opened.await.unwrap().unwrap();
        let locations = Locations::start(opened, options, peers, Arc::clone(&self.clock)).await.unwrap();
        self.net.serve(router.id, locations);
    }

    /// The disk of a router stands still, or runs again.
    pub(super) fn stand_still(&self, number: usize, still: bool) {
        self.routers[number].logs.stand_still(still);
    }

    /// Whatever a router writes from now on fails.
    pub(super) fn break_disk(&self, number: usize) {
        self.routers[number].logs.break_down();
    }

    /// Ends a process without a goodbye.
    pub(super) async fn kill(&self, number: usize) {
        self.stand_still(number, false);
        if let Some(locations) = self.net.unplug(self.routers[number].id) {
            locations.stop().await;
        }
    }

    pub(super) fn at(&self, number: usize) -> Locations {
        self.running(number).expect("it runs")
    }

    pub(super) fn failed(&self, number: usize) -> Option<crate::Failure> {
        self.at(number).failed().borrow().clone()
    }

    pub(super) fn running(&self, number: usize) -> Option<Locations> {
        self.net.0.lock().ends.get(&self.routers[number].id)?.locations.clone()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Who reigns over a shard with a lease now.
    pub(super) fn reigning(&self, shard: u16) -> Vec<(usize, Reigning)> {
        let now = u64::try_from(self.now().as_micros()).unwrap();
        (0..self.routers.len())
            .filter_map(|number| {
                let locations = self.running(number)?;
                let reign = locations.group(Shard(shard)).unwrap().reign().borrow().clone()?;
                (now < reign.until.load(Ordering::Acquire)).then_some((number, reign))
            })
            .collect()
    }

    pub(super) fn leads(&self, number: usize) -> usize {
        (0..self.shards.count())
            .filter(|shard| self.reigning(*shard).iter().any(|(one, _)| *one == number))
            .count()
    }

    /// Waits until every shard has a home; how long that took.
    pub(super) async fn settled(&self, within: Duration) -> Duration {
        self.until(within, "every shard has a home", |this| {
            (0..this.shards.count()).all(|shard| this.reigning(shard).len() == 1)
        })
        .await
    }

    pub(super) async fn until(&self, within: Duration, what: &str, done: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now();
        while !done(self) {
            assert!(self.now() < start + within, "not within {within:?}: {what}");
            sleep(ms(1)).await;
        }
        self.now() - start
    }

    pub(super) fn home(&self, shard: u16) -> (usize, Group, Reigning) {
        let (number, reign) = self.reigning(shard).pop().expect("a home");
        (number, self.at(number).group(Shard(shard)).unwrap().clone(), reign)
    }

    /// Binds a session of this number in a shard.
    pub(super) async fn bind(&self, shard: u16, number: u64) -> bool {
        let Some((at, reign)) = self.reigning(shard).pop() else { return false };
        let Some(locations) = self.running(at) else { return false };
        let ops = vec![bind(&reign, number)];
        let outcomes = locations.group(Shard(shard)).unwrap().record(ops).await;
        matches!(outcomes.as_deref(), Ok([Outcome::Bound { .. }]))
    }
}

pub(super) fn jid(number: u64) -> FullJid {
    FullJid::parse(&format!("user{number}@example.org/phone")).unwrap()
}

pub(super) fn bind(reign: &Reigning, number: u64) -> Op {
    Op::Bind { epoch: reign.epoch, jid: jid(number), token: Token(number.into()), edge: EdgeId(1) }
}
