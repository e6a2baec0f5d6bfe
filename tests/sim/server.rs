//! A process of the server: homes on the store, an edge, clocks; begun, stopped, woken, killed.

use crate::clock::SimClock;
use crate::edge::{Edge, Inside};
use crate::line::{FromClient, Line, Pipe, ToClient};
use crate::planted;
use crate::stage::{Host, Life, Stage};
use futures::FutureExt;
use futures::channel::mpsc;
use futures::future::{BoxFuture, Either, poll_fn, select};
use parking_lot::Mutex;
use starling_hooks::{ArchiveDefault, ArchiveIds, Domains, Hooks, Limits, Passwords, Server as Facts};
use starling_node::{Metrics, SharedClock, Tracer};
use starling_router::{Homes, RouterConfig, RouterParts};
use starling_store::{AccountRow, Claim, Retention, SharedStore, StoreError};
use starling_store_scylla::model::{Dice, Process};
use starling_wire::{EdgeId, EdgeLink};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, StanzaCondition, StanzaError};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

pub(crate) struct Server {
    /// The how many-th life of the server it is.
    pub(crate) life: u64,
    pub(crate) instance: u128,
    pub(crate) process: Process,
    pub(crate) clock: SimClock,
    edge: Edge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    homes: Option<Homes>,
    store: Option<SharedStore>,
    /// It has ended by itself, or never begun; why.
    over: Option<String>,
    lines: Vec<(Pipe<FromClient>, Pipe<ToClient>, mpsc::UnboundedSender<ToClient>)>,
}

struct NoPasswords;

impl Passwords for NoPasswords {
    fn derive(&self, _: String) -> BoxFuture<'static, Result<Credentials, StanzaError>> {
        async { Err(StanzaError::new(StanzaCondition::NotAllowed)) }.boxed()
    }
}

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new()));

impl Host for Server {
    fn life(&self) -> u64 {
        self.life
    }

    fn keeps(&self, (life, _): Life, _: &BareJid) -> bool {
        self.life == life
    }

    fn line(&self, stage: &Stage, account: &BareJid) -> Line {
        self.connect(stage, account)
    }

    fn store(&self) -> Option<SharedStore> {
        self.own_store()
    }
}

impl Server {
    /// Starts a process. It serves once its homes have a reign.
    pub(crate) fn launch(stage: &Arc<Stage>, life: u64, instance: u128) -> Arc<Self> {
        let process = stage.world.process();
        // A machine's clock is as wrong after a restart as it was before.
        let most = stage.plan.clocks.unsigned_abs();
        let machine = u64::try_from(instance).unwrap_or(0);
        let off = Dice::new(stage.plan.seed ^ machine << 32).within(0..most * 2 + 1);
        let error = i64::try_from(off).unwrap_or(0) - stage.plan.clocks;
        let clock = planted::clock(stage, SimClock::new(&stage.world, error));
        let (edge, inside) = Edge::new(stage, &process, EdgeId(0), None);
        let server =
            Arc::new(Self { life, instance, process: process.clone(), clock, edge, state: Mutex::default() });
        stage.tell("server", format!("life {life} of instance {instance}, clock {error} us off"));
        let run = server.clone().run(stage.clone(), inside);
        process.spawn(run.boxed());
        server
    }

    /// The store as this process sees it.
    pub(crate) fn store(stage: &Arc<Stage>, process: &Process, clock: &SimClock) -> SharedStore {
        planted::store(stage, crate::back_end::open(stage, process, clock))
    }

    fn parts(&self, stage: &Arc<Stage>, store: SharedStore) -> RouterParts {
        Self::parts_of(
            stage,
            store,
            self.edge.told_by_homes(stage),
            self.clock.clone(),
            self.instance,
            self.life,
        )
    }

    /// What homes are made of.
    pub(crate) fn parts_of(
        stage: &Stage,
        store: SharedStore,
        edge: Arc<dyn EdgeLink>,
        clock: SimClock,
        instance: u128,
        life: u64,
    ) -> RouterParts {
        let hooks = Hooks::of(starling_xeps::all());
        let server = Arc::new(Facts {
            domains: Domains::new(vec![crate::client::DOMAIN.to_owned()]),
            software: ("Starling", "0"),
            store: store.clone(),
            archive_ids: ArchiveIds::new(&[7; 32]),
            features: hooks.features(),
            limits: Limits::default(),
            registration: false,
            iterations: 1,
            archive_default: ArchiveDefault::Always,
            passwords: Arc::new(NoPasswords),
        });
        let clock: SharedClock = Arc::new(clock);
        RouterParts {
            config: RouterConfig { resume_timeout: stage.plan.resume_timeout, ..RouterConfig::default() },
            claim: Claim { instance, name: format!("life {life}") },
            server,
            hooks,
            store,
            edge,
            clock,
            metrics: METRICS.clone(),
            tracer: Tracer::off(),
            retention: Retention::default(),
        }
    }

    /// From its start to its end.
    async fn run(self: Arc<Self>, stage: Arc<Stage>, inside: Inside) {
        let store = Self::store(&stage, &self.process, &self.clock);
        self.state.lock().store = Some(store.clone());
        let homes = match Homes::begin(self.parts(&stage, store)).await {
            Ok(homes) => homes,
            Err(error) => return self.end(&stage, format!("cannot begin: {error}")),
        };
        self.process.spawn(inside.serve(homes.link()).boxed());
        self.state.lock().homes = Some(homes);
        stage.tell("server", format!("life {} serves", self.life));
        stage.serve(Some(self.clone()));
        let mut timer: Option<(Duration, BoxFuture<'static, ()>)> = None;
        poll_fn(|cx| {
            let mut state = self.state.lock();
            let Some(homes) = &mut state.homes else { return Poll::Ready(()) };
            loop {
                if homes.is_fenced() {
                    return Poll::Ready(());
                }
                if homes.turn(cx).is_ready() {
                    continue;
                }
                let Some(deadline) = homes.deadline() else { return Poll::Pending };
                let now = starling_node::clock::Clock::monotonic(&self.clock);
                let sleep = match &mut timer {
                    Some((set, sleep)) if *set == deadline => sleep,
                    timer => {
                        let sleep = self.process.sleep(deadline.saturating_sub(now));
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
        // What was said before is still to be written.
        self.process.sleep(Duration::from_millis(50)).await;
        self.end(&stage, "fenced".to_owned());
    }

    /// It ends by itself.
    fn end(&self, stage: &Arc<Stage>, why: String) {
        stage.tell("server", format!("life {} ends: {why}", self.life));
        self.state.lock().over = Some(why);
        self.disconnect(stage);
        if stage.serving().is_some_and(|serving| serving.life == self.life) {
            stage.serve(None);
        }
        self.process.kill();
    }

    /// Sleeps for so long, as a machine does that was suspended.
    pub(crate) async fn nap(&self, stage: &Stage, time: Duration) {
        stage.tell("server", format!("life {} is stopped", self.life));
        stage.roughen();
        self.process.stop();
        stage.crowd.sleep(time).await;
        stage.tell("server", format!("life {} goes on", self.life));
        self.clock.slept(time);
        self.process.go_on();
    }

    /// Whether it has ended, by itself or not.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().over.is_some()
    }

    /// Whether its homes have a reign and have not lost it.
    pub(crate) fn serves(&self) -> bool {
        let state = self.state.lock();
        state.over.is_none() && state.homes.is_some()
    }

    /// Dies in the middle of whatever it does. What it has sent to the store is on its way.
    pub(crate) fn kill(&self, stage: &Arc<Stage>) {
        stage.tell("server", format!("life {} is killed", self.life));
        if stage.serving().is_some_and(|serving| serving.life == self.life) {
            stage.serve(None);
        }
        self.process.kill();
        let homes = {
            let mut state = self.state.lock();
            state.over = Some("killed".to_owned());
            state.homes.take()
        };
        drop(homes);
        self.disconnect(stage);
    }

    /// Writes down what is only in memory and gives the reign back, as when it is told to end; then dies.
    pub(crate) async fn stop(&self, stage: &Arc<Stage>, within: Duration) {
        let flush = self.state.lock().homes.as_ref().map(Homes::flush);
        if let Some(flush) = flush {
            let timer = stage.crowd.sleep(within);
            select(flush, timer).await;
        }
        let release = self.state.lock().homes.as_ref().map(Homes::release);
        if let Some(release) = release {
            let timer = stage.crowd.sleep(within);
            select(release, timer).await;
        }
        self.kill(stage);
    }

    /// Removes an account; `None` when that is not known.
    pub(crate) async fn remove(&self, stage: &Stage, account: &BareJid) -> Option<bool> {
        let removal = self.state.lock().homes.as_ref().map(|homes| homes.delete_account(account))?;
        self.within(stage, removal).await
    }

    /// Gives an account other keys; `None` when that is not known.
    pub(crate) async fn change_keys(&self, stage: &Stage, of: &BareJid, keys: Credentials) -> Option<bool> {
        let change = self.state.lock().homes.as_ref().map(|homes| homes.set_credentials(of, keys))?;
        self.within(stage, change).await
    }

    /// Makes an account, as its administration does; `None` when that is not known.
    pub(crate) async fn create(&self, stage: &Stage, account: &BareJid, row: AccountRow) -> Option<bool> {
        let creation = {
            let state = self.state.lock();
            let reign = state.homes.as_ref().map(Homes::reign)?;
            state.store.as_ref().map(|store| store.create_account(account, row, reign))?
        };
        self.within(
            stage,
            creation
                .map(|made| match made {
                    Err(StoreError::Exists) => Ok(false),
                    made => made.map(|()| true),
                })
                .boxed(),
        )
        .await
    }

    /// The store as it sees it.
    pub(crate) fn own_store(&self) -> Option<SharedStore> {
        self.state.lock().store.clone()
    }

    /// An account's row.
    pub(crate) async fn account(&self, stage: &Stage, account: &BareJid) -> Option<AccountRow> {
        let row = self.state.lock().store.as_ref().map(|store| store.account(account))?;
        self.within(stage, row).await?
    }

    async fn within<T>(&self, stage: &Stage, work: BoxFuture<'static, Result<T, StoreError>>) -> Option<T> {
        match select(work, stage.crowd.sleep(Duration::from_secs(15))).await {
            Either::Left((done, _)) => done.ok(),
            Either::Right(_) => None,
        }
    }

    /// A new connection of an account.
    pub(crate) fn connect(&self, stage: &Stage, account: &BareJid) -> Line {
        let (line, end) = self.edge.connect(stage, account);
        let mut state = self.state.lock();
        state.lines.retain(|(_, _, end)| !end.is_closed());
        state.lines.push((line.up.clone(), line.down.clone(), end));
        line
    }

    /// All connections break; their clients see it sooner or later.
    fn disconnect(&self, stage: &Arc<Stage>) {
        let lines = std::mem::take(&mut self.state.lock().lines);
        let mut dice = stage.dice();
        for (up, down, end) in lines {
            up.cut();
            down.cut();
            let after = Duration::from_micros(dice.within(0..100_000));
            stage.world.after(after, move || drop(end.unbounded_send(ToClient::Lost)));
        }
    }
}
