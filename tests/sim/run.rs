//! A run: accounts, clients and a server; blows to all of them; healing; and then everything is looked at.

use crate::audit::{self, Care};
use crate::back_end;
use crate::client::PEST;
use crate::client::{Client, account};
use crate::clock::SimClock;
use crate::invariants;
use crate::plan::{Blow, Cast, Device, Focus, Plan};
use crate::server::Server;
use crate::stage::{Phase, Stage, Wrong};
use futures::FutureExt;
use starling_store::{AccountRow, Reign};
use starling_store_scylla::model::{Faults, Model, Reach, World};
use starling_tests::history::History;
use starling_xmpp::Timestamp;
use starling_xmpp::sasl::Credentials;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// What is left of a run.
pub(crate) struct Outcome {
    pub(crate) wrong: Vec<Wrong>,
    pub(crate) story: Vec<(Duration, String)>,
    /// Of all that happened: the same for the same seed.
    pub(crate) hash: u64,
}

static KEYS: LazyLock<Vec<Credentials>> = LazyLock::new(|| {
    let keys = |number: u8| match Credentials::derive(&format!("secret {number}"), [number; 16], 1) {
        Ok(keys) => keys,
        Err(error) => panic!("{error:?}"),
    };
    (0..=u8::MAX).map(keys).collect()
});

/// Keys of some passwords, derived once.
pub(crate) fn keys(number: u8) -> Credentials {
    KEYS[usize::from(number)].clone()
}

fn row(generation: u64) -> AccountRow {
    AccountRow { generation, credentials: keys(0), created: Timestamp(0), disabled: false }
}

/// No run lasts longer, in its own time.
const END: Duration = Duration::from_secs(3_600);

/// An account that is removed and made again.
pub(crate) const MAYFLY: &str = "may";

/// Runs a plan.
pub(crate) fn run(plan: Plan) -> Outcome {
    let world = World::new(plan.seed);
    let clock = SimClock::new(&world, 0);
    let model = Model::seeded(&world, clock.now());
    let stage = Stage::new(plan, world.clone(), model);
    let direction = match stage.plan.shape {
        Some(shape) => crate::cluster::direct(stage.clone(), shape).boxed(),
        None => direct(stage.clone()).boxed(),
    };
    let done = Arc::new(parking_lot::Mutex::new(None));
    let result = done.clone();
    stage.crowd.spawn(direction.map(move |history| *result.lock() = Some(history)).boxed());
    while done.lock().is_none() {
        if world.now() > END || !world.step() {
            stage.wrong("liveness", None, "the run does not come to its end");
            break;
        }
    }
    let history = done.lock().take();
    stage.serve(None);
    stage.set_hosts(Vec::new());
    world.end();
    let (wrong, story, hash) = stage.take();
    let wrong = match history {
        Some(found) => wrong.into_iter().chain(found).collect(),
        None => wrong,
    };
    Outcome { wrong, story, hash }
}

async fn direct(stage: Arc<Stage>) -> Vec<Wrong> {
    let pest = Cast { name: "eve", devices: vec![Device::Phone], plain: false };
    let mayfly = Cast { name: MAYFLY, devices: vec![Device::Phone], plain: false };
    let casts: Vec<Cast> = stage.plan.accounts.iter().cloned().chain([pest]).chain([mayfly]).collect();
    debug_assert_eq!(account("eve").as_str(), PEST);
    found(&stage, &casts).await;
    let mut director = Director { stage: stage.clone(), life: 0, instance: 1, server: None, unmade: false };
    director.launch();
    gather(&stage, &casts);
    director.storm().await;
    director.heal().await;
    director.quiet(Duration::from_secs(5), Duration::from_secs(120)).await;
    stage.enter(Phase::Settled);
    director.sleep(Duration::from_secs(4)).await;

    // What is in memory and what is stored are the same, now, after a restart, and when everything late has come.
    let read = audit::read_rows(&stage, &casts, false).await;
    let most = read.values().map(Vec::len).max().unwrap_or(0);
    let before = audit::read_all(&stage, &casts, Care::Full(most)).await;
    let mut rows = vec![("before".to_owned(), read)];
    let mut later = Vec::new();
    director.restart().await;
    director.quiet(Duration::from_secs(2), Duration::from_secs(60)).await;
    let pairs = [[0, 1], [1, 2], [0, 2]];
    let pair = pairs[stage.dice().place(3)];
    stage.model.pin(Some(pair));
    let when = "after a restart";
    rows.push((format!("{when}, from replicas {pair:?}"), audit::read_rows(&stage, &casts, false).await));
    later.push((when.to_owned(), audit::read_all(&stage, &casts, Care::Quick).await));
    director.sleep(stage.latest() + Duration::from_secs(5)).await;
    let when = "at last";
    for pair in pairs {
        stage.model.pin(Some(pair));
        let read = audit::read_rows(&stage, &casts, pair == [1, 2]).await;
        rows.push((format!("{when}, from replicas {pair:?}"), read));
    }
    let care = if stage.dice().permille(100) { Care::Full(most) } else { Care::Quick };
    later.push((when.to_owned(), audit::read_all(&stage, &casts, care).await));
    stage.model.pin(None);
    stage.enter(Phase::Over);
    let history = History { logs: stage.logs(), archives: before.archives() };
    invariants::judge(&stage, &history, &before, &later, &rows)
}

/// Makes the accounts, while nothing goes wrong.
pub(crate) async fn found(stage: &Arc<Stage>, casts: &[Cast]) {
    let process = stage.world.process();
    let store = back_end::open(stage, &process, &SimClock::new(&stage.world, 0));
    for (number, cast) in casts.iter().enumerate() {
        if let Err(error) =
            store.create_account(&account(cast.name), row(number as u64 + 1), Reign::NONE).await
        {
            stage.wrong("run", None, format!("{}: {error}", cast.name));
        }
    }
    process.kill();
}

/// Sets the clients going.
pub(crate) fn gather(stage: &Arc<Stage>, casts: &[Cast]) {
    let mut addresses: Vec<String> = Vec::new();
    for cast in casts.iter().filter(|cast| cast.name != "eve") {
        let bare = account(cast.name).as_str().to_owned();
        addresses.push(bare.clone());
        if cast.name == MAYFLY {
            continue;
        }
        addresses.extend([bare.clone(), bare.clone()]);
        if !cast.plain {
            addresses.push(format!("{bare}/{}", Device::Phone.resource()));
        }
    }
    for cast in casts {
        for device in &cast.devices {
            let client = Client::new(stage, cast, *device, &addresses);
            stage.crowd.spawn(client.live().boxed());
        }
    }
    stage.crowd.spawn(crate::peek::peek(stage.clone(), casts.to_vec()).boxed());
}

/// Within this one request has its answer, or another one follows.
const ONE_REQUEST: Duration = Duration::from_millis(1_500);

struct Director {
    stage: Arc<Stage>,
    life: u64,
    instance: u128,
    /// The newest process; it may be dead.
    server: Option<Arc<Server>>,
    /// There was a request to make an account that had no answer, and may be carried out at any time: before a removal that found
    /// none, or after one that took place. Whoever loads it then ends the removal.
    unmade: bool,
}

impl Director {
    fn launch(&mut self) {
        self.life += 1;
        self.server = Some(Server::launch(&self.stage, self.life, self.instance));
    }

    async fn sleep(&self, time: Duration) {
        self.stage.crowd.sleep(time).await;
    }

    async fn pause(&self, most: Duration) {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(self.stage.dice().within(0..micros.max(1)));
        self.sleep(pause).await;
    }

    /// One blow after the other.
    async fn storm(&mut self) {
        let stage = self.stage.clone();
        self.up(Duration::from_secs(30)).await;
        if stage.plan.steady {
            stage.set_faults(stage.plan.faults);
        }
        for _ in 0..stage.plan.blows {
            self.pause(stage.plan.calm).await;
            if !stage.plan.steady {
                stage.set_faults(if stage.dice().permille(500) { stage.plan.faults } else { Faults::NONE });
            }
            self.blow().await;
            self.up(Duration::from_secs(40)).await;
        }
        self.pause(stage.plan.calm).await;
    }

    async fn blow(&mut self) {
        let stage = self.stage.clone();
        let mut dice = stage.dice();
        match stage.plan.kinds[dice.place(stage.plan.kinds.len())] {
            Blow::Restart => self.restart().await,
            Blow::Another => self.another_instance().await,
            Blow::Zombie => self.zombie().await,
            Blow::Nap => self.nap().await,
            Blow::Away => {
                let reach = if dice.permille(500) { Reach::Refusing } else { Reach::Silent };
                stage.set_reach(reach);
                self.pause(Duration::from_secs(15)).await;
                stage.set_reach(Reach::Up);
            }
            Blow::Replica => {
                let down = dice.place(3);
                stage.set_replica(down, false);
                if dice.permille(200) {
                    let second = (down + 1) % 3;
                    stage.set_replica(second, false);
                    self.pause(Duration::from_secs(8)).await;
                    stage.set_replica(second, true);
                }
                self.pause(Duration::from_secs(20)).await;
                stage.set_replica(down, true);
            }
            Blow::Clock => {
                if let Some(server) = &self.server {
                    let micros = i64::try_from(dice.within(0..7_200_000_000)).unwrap_or(0) - 3_600_000_000;
                    stage.tell("server", format!("clock set by {micros} us"));
                    server.clock.step(micros);
                }
            }
            Blow::Stop => {
                if let Some(server) = self.server.clone() {
                    server.stop(&stage, Duration::from_secs(5)).await;
                }
            }
            Blow::Keys => self.change_keys().await,
            Blow::Belate => self.belate().await,
            Blow::Remake => self.remake().await,
        }
    }

    /// For a while most of what is written comes late.
    async fn belate(&mut self) {
        let stage = self.stage.clone();
        let usual = stage.faults();
        if stage.plan.focus == Focus::Late {
            return self.stall(usual).await;
        }
        let late_by = Duration::from_millis(stage.dice().within(1_000..120_000));
        stage.set_faults(Faults { late: 700, late_by, ..usual });
        self.pause(Duration::from_secs(8)).await;
        if stage.dice().permille(500) {
            self.restart().await;
        }
        stage.set_faults(usual);
    }

    /// A server is killed, and begun again, and each time what it wrote last comes late.
    async fn stall(&mut self, usual: Faults) {
        let stage = self.stage.clone();
        let mut dice = stage.dice();
        for _ in 0..1 + dice.place(3) {
            let late_by = Duration::from_millis(dice.within(1_000..20_000));
            let late = [300, 600, 950][dice.place(3)];
            let (share, salt) = ([200, 500, 1_000][dice.place(3)], dice.next());
            // Some never come.
            let dropped = [0, late / 2][dice.place(2)];
            self.pause(Duration::from_millis([100, 600][dice.place(2)])).await;
            stage.set_faults(Faults { late, late_by, dropped, share, salt, ..usual });
            self.pause(Duration::from_millis([400, 1_500, 4_000][dice.place(3)])).await;
            if let Some(server) = self.server.take() {
                server.kill(&stage);
            }
            stage.set_faults(usual);
            self.launch();
            self.up(Duration::from_secs(40)).await;
        }
    }

    /// Somebody gets a new password.
    async fn change_keys(&mut self) {
        let Some(server) = self.server.clone() else { return };
        for _ in 0..2 {
            let number = u8::try_from(self.stage.number() % 255 + 1).unwrap_or(1);
            let owner = account("ann");
            let place = self.stage.promises().keys(&owner, number);
            let done = server.change_keys(&self.stage, &owner, keys(number)).await;
            self.stage.tell("server", format!("new keys {number} of ann: {done:?}"));
            if done == Some(true) {
                let now = self.stage.world.now();
                self.stage.promises().confirm(place, now);
            }
        }
    }

    /// An account is removed and made again.
    async fn remake(&mut self) {
        let Some(server) = self.server.clone() else { return };
        let owner = account(MAYFLY);
        let asked = self.stage.world.now();
        self.stage.remake();
        let removed = server.remove(&self.stage, &owner).await;
        self.stage.tell("server", format!("removal of {owner}: {removed:?}"));
        if removed.is_some() {
            self.stage.removed(asked);
            // Nobody else makes it.
            if !self.unmade
                && let Some(row) = server.account(&self.stage, &owner).await
            {
                let text = format!("{owner} is there as {} after its removal", row.generation);
                self.stage.wrong("removal", None, text);
            }
        }
        self.pause(Duration::from_millis(500)).await;
        let generation = 1_000 + self.stage.number();
        let begun = self.stage.world.now();
        let made = server.create(&self.stage, &owner, row(generation)).await;
        self.stage.tell("server", format!("making of {owner}: {made:?}"));
        self.unmade |= made.is_none() || self.stage.world.now() - begun >= ONE_REQUEST;
    }

    /// Killed and started again where it was.
    async fn restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill(&self.stage);
        }
        self.pause(Duration::from_millis(300)).await;
        while self.stage.phase() == Phase::Storm && self.stage.dice().permille(150) {
            // Killed again while it starts.
            self.launch();
            self.pause(Duration::from_millis(50)).await;
            if let Some(server) = self.server.take() {
                server.kill(&self.stage);
            }
        }
        self.launch();
        self.up(Duration::from_secs(40)).await;
    }

    /// Killed and started on another machine.
    async fn another_instance(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill(&self.stage);
        }
        self.instance += 1;
        self.launch();
        self.up(Duration::from_secs(40)).await;
    }

    /// Another machine is told to serve while the first one is stopped, and goes on later.
    async fn zombie(&mut self) {
        let Some(old) = self.server.take() else { return };
        self.stage.serve(None);
        self.instance += 1;
        let mut dice = self.stage.dice();
        // Nobody takes over before the lease is over.
        let least = if self.stage.plan.focus == Focus::Sleep { 11_000 } else { 0 };
        let nap = Duration::from_millis(dice.within(least..20_000));
        let stage = self.stage.clone();
        let asleep = old.nap(&stage, nap);
        self.launch();
        asleep.await;
        // Back in time: the other one is told that the store is in use. Otherwise it takes over.
        while self.server.as_ref().is_some_and(|new| !new.is_over() && !new.serves()) {
            self.sleep(Duration::from_millis(50)).await;
        }
        let took_over = self.server.as_ref().is_some_and(|new| new.serves());
        if old.serves() && !took_over {
            self.stage.serve(Some(old.clone()));
            self.server = Some(old);
        } else {
            self.pause(Duration::from_secs(15)).await;
            old.kill(&self.stage);
        }
    }

    /// The process sleeps for a while, and nobody takes over.
    async fn nap(&self) {
        let Some(server) = self.server.clone() else { return };
        let nap = Duration::from_millis(self.stage.dice().within(0..14_000));
        server.nap(&self.stage, nap).await;
    }

    /// Sees to it that a server serves; gives up after this time.
    async fn up(&mut self, within: Duration) {
        let end = self.stage.world.now() + within;
        while self.stage.world.now() < end {
            match &self.server {
                Some(server) if server.serves() => return,
                Some(server) if !server.is_over() => self.sleep(Duration::from_millis(20)).await,
                _ => {
                    self.sleep(Duration::from_millis(200)).await;
                    self.launch();
                }
            }
        }
    }

    /// Nothing goes wrong any more.
    async fn heal(&mut self) {
        let stage = self.stage.clone();
        stage.set_faults(Faults::NONE);
        stage.set_reach(Reach::Up);
        for replica in 0..3 {
            stage.set_replica(replica, true);
        }
        self.up(Duration::from_secs(60)).await;
        // One that was followed and has not been told finds out when it asks for positions.
        self.sleep(Duration::from_secs(3)).await;
        self.up(Duration::from_secs(60)).await;
        if let Some(server) = &self.server {
            // It may be gone; now it can be made.
            let made = server.create(&stage, &account(MAYFLY), row(10_000)).await;
            stage.tell("server", format!("making of {MAYFLY}: {made:?}"));
        }
        stage.heal();
        // They go on writing for a while, now that they can.
        self.sleep(Duration::from_secs(6)).await;
        stage.enter(Phase::Calm);
    }

    /// Waits until clients have seen nothing new for so long.
    async fn quiet(&self, still: Duration, within: Duration) {
        quiet(&self.stage, still, within).await;
    }
}

/// Waits until clients have seen nothing new for so long.
pub(crate) async fn quiet(stage: &Stage, still: Duration, within: Duration) {
    let end = stage.world.now() + within;
    let begin = stage.world.now();
    loop {
        let now = stage.world.now();
        if now >= stage.stirred().max(begin) + still {
            return;
        }
        if now >= end {
            return stage.wrong("liveness", None, "clients do not come to rest");
        }
        stage.crowd.sleep(Duration::from_millis(100)).await;
    }
}
