//! The simulation of a cluster: the server's own homes of shards, charts, location state machine and edges' memory, on model
//! links, model groups and the model of a CQL server. Any process may be killed or sleep, any link break, any shard move at
//! any moment; then everything is healed, read and judged as ever.

mod blows;
mod links;
mod losses;
mod planted;
mod raft;
mod reigns;
mod router;
mod tip;

pub(crate) use planted::Break;

use crate::audit::{self, Care};
use crate::back_end;
use crate::client::PEST;
use crate::client::account;
use crate::clock::SimClock;
use crate::invariants;
use crate::plan::{Cast, Device, Shape};
use crate::run;
use crate::stage::{Host, Phase, Stage, Wrong};
use futures::FutureExt;
use links::{Fall, Links};
use losses::Losses;
use parking_lot::Mutex;
use raft::{Group, Term};
use router::Router;
use starling_store::SharedStore;
use starling_store_scylla::model::{Dice, Faults};
use starling_tests::history::History;
use starling_wire::frame::Home;
use starling_wire::{EdgeId, Shards};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tip::Tip;

/// A lease.
const LEASE: Duration = Duration::from_millis(300);
/// How often those who keep links and reigns look after them.
const KEEP: Duration = Duration::from_millis(50);

/// All processes, and what is between them.
pub(crate) struct Cluster {
    stage: Arc<Stage>,
    shards: Shards,
    groups: Vec<Arc<Group>>,
    links: Mutex<Links>,
    losses: Mutex<Losses>,
    /// For what befalls words on links.
    dice: Mutex<Dice>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    routers: Vec<Arc<Router>>,
    tips: Vec<Arc<Tip>>,
    /// Places of edges and routers between which nothing goes.
    apart: BTreeSet<(usize, usize)>,
    /// Routers that no other one hears.
    alone: BTreeSet<usize>,
    lives: u64,
}

impl Cluster {
    fn start(stage: &Arc<Stage>, shape: Shape) -> Arc<Self> {
        let Some(shards) = Shards::new(shape.shards) else { panic!("{shape:?}") };
        let groups = shards.all().map(|shard| Arc::new(Group::new(shard))).collect();
        let cluster = Arc::new(Self {
            stage: stage.clone(),
            shards,
            groups,
            links: Mutex::default(),
            losses: Mutex::default(),
            dice: Mutex::new(stage.dice()),
            state: Mutex::default(),
        });
        for index in 0..shape.routers {
            cluster.begin_router(index);
        }
        for index in 0..shape.edges {
            cluster.begin_tip(index);
        }
        cluster
    }

    fn begin_router(self: &Arc<Self>, index: usize) {
        let life = {
            let mut state = self.state.lock();
            state.lives += 1;
            state.lives
        };
        let router = Router::start(self, index, life);
        let mut state = self.state.lock();
        if index < state.routers.len() {
            state.routers[index] = router;
        } else {
            state.routers.push(router);
        }
    }

    fn begin_tip(self: &Arc<Self>, index: usize) {
        let tip = Tip::start(self, EdgeId(self.stage.number() + 1));
        let hosts = {
            let mut state = self.state.lock();
            if index < state.tips.len() {
                state.tips[index] = tip;
            } else {
                state.tips.push(tip);
            }
            state.tips.iter().map(|tip| tip.clone() as Arc<dyn Host>).collect()
        };
        self.stage.set_hosts(hosts);
    }

    fn routers(&self) -> Vec<Arc<Router>> {
        self.state.lock().routers.clone()
    }

    fn tips(&self) -> Vec<Arc<Tip>> {
        self.state.lock().tips.clone()
    }

    /// The store for who reads it beside homes: that of a router knows of buckets what it knew when it had the account.
    fn store(&self) -> SharedStore {
        let process = self.stage.world.process();
        back_end::open(&self.stage, &process, &SimClock::new(&self.stage.world, 0))
    }

    fn are_apart(&self, edge: usize, router: usize) -> bool {
        self.state.lock().apart.contains(&(edge, router))
    }

    fn hear_each_other(&self, one: usize, other: usize) -> bool {
        let state = self.state.lock();
        !state.alone.contains(&one) && !state.alone.contains(&other)
    }

    /// Whether this router and another one hear each other: with three of them that is a quorum.
    fn is_heard(&self, router: &Router) -> bool {
        let others = self.routers();
        router.runs()
            && others.iter().any(|other| {
                other.index != router.index && other.runs() && self.hear_each_other(router.index, other.index)
            })
    }

    /// Makes links that may be, and sees to it that every shard has a home.
    async fn keep(self: Arc<Self>) {
        let mut dice = self.stage.dice();
        while self.stage.phase() < Phase::Over {
            self.stage.crowd.sleep(KEEP).await;
            self.keep_links(&mut dice);
            self.keep_reigns(&mut dice);
            self.keep_losses();
            for router in self.routers().iter().filter(|router| router.runs()) {
                router.bury();
            }
        }
    }

    fn keep_reigns(self: &Arc<Self>, dice: &mut Dice) {
        let now = self.stage.world.now();
        let routers = self.routers();
        for group in &self.groups {
            group.exorcise(|ghost| {
                let router = &routers[ghost.router];
                router.life != ghost.life || self.is_heard(router) && dice.permille(500)
            });
            let leader = group.leader();
            if let Some(term) = &leader {
                let router = &routers[term.router];
                let heard = router.life == term.life && self.is_heard(router);
                group.renew(&self.stage, term, heard, micros(now + LEASE), now, router.now_micros());
                if heard || micros(now) < term.until.load(std::sync::atomic::Ordering::SeqCst) {
                    continue;
                }
            }
            let candidates: Vec<_> = routers.iter().filter(|router| self.is_heard(router)).collect();
            if !candidates.is_empty() && dice.permille(400) {
                self.elect(group, candidates[dice.place(candidates.len())], dice);
            }
        }
    }

    /// A router leads a shard from now on; it begins to reign when it has applied its opening.
    fn elect(self: &Arc<Self>, group: &Arc<Group>, router: &Arc<Router>, dice: &mut Dice) {
        let Some(term) = group.elect(&self.stage, router.index, router.life, router.now_micros(), dice)
        else {
            return;
        };
        self.losses.lock().opened(group.shard, router.index, self.stage.world.now());
        let applied = Duration::from_micros(dice.within(500..[5_000, 60_000][dice.clone().place(2)]));
        let (group, router) = (group.clone(), router.clone());
        let process = router.process.clone();
        process.spawn(
            async move {
                router.process.sleep(applied).await;
                if !term.is_over() {
                    router.reign(&group, &term);
                }
            }
            .boxed(),
        );
    }

    /// The leader of a shard gives it to another router, as it would to spread the load: unless the home alone has sessions.
    async fn hand_over(self: &Arc<Self>, shard: usize) {
        let (group, routers) = (self.groups[shard].clone(), self.routers());
        let Some(term) = group.leader() else { return };
        let from = routers[term.router].clone();
        let other = |other: &&Arc<Router>| other.index != from.index && self.is_heard(other);
        let Some(to) = routers.iter().rfind(other).cloned() else { return };
        if from.life != term.life || !self.is_heard(&from) || !self.is_calm(&group, term.router) {
            return;
        }
        self.stage.tell("cluster", format!("router {} gives shard {shard} to {}", from.index, to.index));
        let home = Home { shard: group.shard, epoch: term.epoch };
        from.drain(home).await;
        let mut dice = self.stage.dice();
        let is_leader = |own: &Arc<Term>| group.leader().is_some_and(|leader| Arc::ptr_eq(&leader, own));
        if !is_leader(&term) || !from.runs() {
            return;
        }
        if dice.permille(150) {
            return from.resume(home);
        }
        term.end();
        let heir = if dice.permille(150) { &from } else { &to };
        if self.is_heard(heir) {
            self.elect(&group, heir, &mut dice);
        }
    }

    /// Whether all sessions of a shard are at edges that its leader is linked to.
    fn is_calm(&self, group: &Group, leader: usize) -> bool {
        let links = self.links.lock();
        group.rows().iter().all(|(_, _, edge)| links.knows(*edge, leader))
    }

    async fn pause(&self, most: Duration) {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(self.stage.dice().within(0..micros.max(1)));
        self.stage.crowd.sleep(pause).await;
    }

    /// Every shard moves.
    async fn move_all(self: &Arc<Self>) {
        for shard in 0..self.groups.len() {
            self.hand_over(shard).await;
        }
        self.stage.crowd.sleep(Duration::from_secs(2)).await;
    }

    /// Takes apart what refers to itself.
    fn end(&self) {
        self.links.lock().clear();
        let State { routers, tips, .. } = std::mem::take(&mut *self.state.lock());
        for tip in &tips {
            tip.disconnect();
        }
        for router in &routers {
            router.kill();
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// From the first moment to the judgement.
pub(crate) async fn direct(stage: Arc<Stage>, shape: Shape) -> Vec<Wrong> {
    let pest = Cast { name: "eve", devices: vec![Device::Phone], plain: false };
    let casts: Vec<Cast> = stage.plan.accounts.iter().cloned().chain([pest]).collect();
    debug_assert_eq!(account("eve").as_str(), PEST);
    run::found(&stage, &casts).await;
    let cluster = Cluster::start(&stage, shape);
    stage.crowd.spawn(cluster.clone().keep().boxed());
    run::gather(&stage, &casts);
    cluster.storm().await;
    stage.set_faults(Faults::NONE);
    stage.crowd.sleep(Duration::from_secs(8)).await;
    stage.heal();
    stage.crowd.sleep(Duration::from_secs(6)).await;
    stage.enter(Phase::Calm);
    run::quiet(&stage, Duration::from_secs(5), Duration::from_secs(120)).await;
    stage.enter(Phase::Settled);
    stage.crowd.sleep(Duration::from_secs(4)).await;
    let locations = cluster.groups.iter().flat_map(|group| group.rows()).collect();
    stage.locate(locations, cluster.tips().iter().map(|tip| tip.keeps()).sum());

    let read = audit::read_rows(&stage, &casts, false).await;
    let most = read.values().map(Vec::len).max().unwrap_or(0);
    let before = audit::read_all(&stage, &casts, Care::Full(most)).await;
    let mut rows = vec![("before".to_owned(), read)];
    cluster.move_all().await;
    let when = "after a move".to_owned();
    rows.push((when.clone(), audit::read_rows(&stage, &casts, false).await));
    let mut later = vec![(when, audit::read_all(&stage, &casts, Care::Quick).await)];
    stage.crowd.sleep(stage.latest() + Duration::from_secs(5)).await;
    for pair in [[0, 1], [1, 2], [0, 2]] {
        stage.model.pin(Some(pair));
        let read = audit::read_rows(&stage, &casts, pair == [1, 2]).await;
        rows.push((format!("at last, from replicas {pair:?}"), read));
    }
    later.push(("at last".to_owned(), audit::read_all(&stage, &casts, Care::Quick).await));
    stage.model.pin(None);
    stage.enter(Phase::Over);
    cluster.end();
    let history = History { logs: stage.logs(), archives: before.archives() };
    invariants::judge(&stage, &history, &before, &later, &rows)
}
