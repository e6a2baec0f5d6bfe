//! One fault after the other: what is broken, how long shards had no home and clients no answer, and that all is well
//! again soon after it was mended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_tests::crowd::{Awaited, Crowd, Manners, Moment, Phase, Run};
use starling_tests::history::{Archive, History, Log, What};
use starling_tests::sandbox::{Place, Sandbox, Tally, Weather};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::faults::{Fault, NotDone};
use crate::site::{EDGES, ROUTERS, Site, Which};
use crate::states::{SHARDS, Watch};
use crate::strain::{self, Strain};
use crate::whereabouts;

/// Accounts of many shards.
pub(crate) const ACCOUNTS: [&str; 8] = ["ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal"];
/// One of whom faults themselves make use.
pub(crate) const OWNER: &str = "ivy";
/// One whose clients are only there, and what they write is never read.
pub(crate) const IDLER: &str = "joe";
const DEVICES: [&str; 12] = [
    "ann/phone",
    "bob/phone",
    "cat/phone",
    "dan/phone",
    "eve/phone",
    "fay/phone",
    "gus/phone",
    "hal/phone",
    "ann/desk",
    "bob/desk",
    "cat/desk",
    "dan/desk",
];
/// What takes longer than it may is waited for this much longer, to see what else there is;
const PATIENCE: Duration = Duration::from_secs(40);
/// so long on a machine that has other work to do.
const PATIENCE_STARVED: Duration = Duration::from_secs(90);
/// Messages that are written so soon after a fault have felt all of it.
const JUST_AFTER: Duration = Duration::from_secs(1);
/// How many messages clients write in a second, in all.
const RATE: u32 = 60;
/// While so many of them wait for their acknowledgement, nobody writes more.
const OPEN: i64 = 150;
/// Where one router is lost at once, no shard is without a home for longer than this (promise 8):
const HOMELESS: Duration = Duration::from_secs(2);
/// these are such faults.
const ELECTED: [&str; 2] = ["the_leader_is_killed", "a_router_is_killed_at_a_moment"];
/// When all is mended, each shard has a home again within this,
const HOMES_BACK: Duration = Duration::from_secs(5);
/// or, if a new cluster has to be founded, within this,
const HOMES_FOUNDED: Duration = Duration::from_secs(10);
/// and each client an answer to what it wrote after that.
const CLIENTS_BACK: Duration = Duration::from_secs(15);
/// All routers and edges are ready then: the place of a router whose disk is lost is kept for ten seconds.
const READY_BACK: Duration = Duration::from_secs(25);

/// A cluster at work, to which things happen.
pub(crate) struct Drill {
    pub(crate) site: Site,
    pub(crate) run: Arc<Run>,
    pub(crate) rng: StdRng,
    pub(crate) watch: Watch,
    /// How long faults last: 1 is what rows of the catalogue are about.
    pub(crate) pace: f64,
    fates: Log,
    crowd: Crowd,
    load: Load,
    pub(crate) findings: Vec<Finding>,
    /// What took longer than it may.
    late: Vec<String>,
    /// Kinds that cannot be done here, and why.
    left_out: BTreeMap<&'static str, String>,
}

/// What a fault did.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) fault: &'static Fault,
    pub(crate) struck: Duration,
    pub(crate) mended: Duration,
    /// The longest that one or more shards had no home.
    pub(crate) homeless: Duration,
    /// How long after the mending all shards had homes.
    pub(crate) homes_back: Duration,
    /// How long after the mending all clients had an answer to what they wrote after it.
    pub(crate) clients_back: Duration,
    /// How late this program itself was in the meantime.
    pub(crate) lag: Duration,
    /// Which part of the machine others have used.
    pub(crate) others: f64,
    /// How long sessions took to go on that lost their connections, since their clients began to connect.
    pub(crate) resumed: Vec<Duration>,
    /// How long messages that were written within a second of the fault waited for their acknowledgement.
    pub(crate) answered: Vec<Duration>,
}

impl Finding {
    /// Whether its times say more about the machine than about the cluster.
    pub(crate) fn starved(&self) -> bool {
        strain::starved(self.others, self.lag)
    }
}

impl Drill {
    pub(crate) async fn begin(sandbox: Sandbox, seed: u64, pace: f64) -> Result<Self> {
        let site = Site::start(sandbox).await?;
        for user in ACCOUNTS.into_iter().chain([OWNER, IDLER]) {
            site.add_user(user).await?;
        }
        let run = Run::on_cluster(site.target.clone(), format!("{seed:x}"));
        // What is not up yet is no fault.
        run.trouble(true);
        let routers = (0..ROUTERS).map(|n| site.admin(Which::Router(n))).collect();
        let watch = Watch::start(run.clone(), routers);
        let crowd = Crowd::join(run.clone(), &DEVICES, seed, Manners::Rough)?;
        let load = Load(tokio::spawn(feed(run.clone())));
        let rng = StdRng::seed_from_u64(seed);
        let (fates, findings, late, left_out) = (Log::new("server"), Vec::new(), Vec::new(), BTreeMap::new());
        Ok(Self { site, run, rng, watch, pace, fates, crowd, load, findings, late, left_out })
    }

    /// Waits until everybody is at work.
    pub(crate) async fn warm_up(&mut self) -> Result<()> {
        let begin = self.remark("all is started");
        let before = Strain::now();
        self.back(begin, HOMES_BACK, &before).await.context("the cluster does not come to work").map(|_| ())
    }

    /// Writes into the log what is done now, and gives the time.
    pub(crate) fn remark(&mut self, what: impl Into<String>) -> Duration {
        let now = self.run.now();
        self.fates.note(now, What::Remark(what.into()));
        now
    }

    /// Lets a fault happen, mends it and waits until all is well again.
    pub(crate) async fn suffer(&mut self, fault: &'static Fault) -> Result<()> {
        let number = self.findings.len() + 1;
        let known = self.late.len();
        let struck = self.remark(format!("fault {number}, {} {}", fault.row, fault.name));
        let before = Strain::now();
        if fault.loses_an_edge() {
            self.watch.edge_is_lost(&self.run);
        }
        let deed = match (fault.strike)(self).await {
            Err(error) if error.is::<NotDone>() => {
                println!("  not done: {} {}: {error}", fault.row, fault.name);
                self.remark(format!("not done: {error}"));
                self.left_out.insert(fault.name, format!("{error}"));
                return Ok(());
            }
            deed => deed.with_context(|| format!("{} {}", fault.row, fault.name))?,
        };
        self.remark(format!("{deed}; it is mended now"));
        self.site.mend()?;
        self.watch.answers_are_slow(false);
        let mended = self.run.now();
        let within = if fault.row == "C06" { HOMES_FOUNDED } else { HOMES_BACK };
        let back = self.back(mended, within, &before).await;
        let now = self.run.now();
        let what = format!("fault {number}, {} {}: {deed}, at {struck:.1?}", fault.row, fault.name);
        let (homes_back, clients_back) = back.with_context(|| what.clone())?;
        for late in self.late.iter_mut().skip(known) {
            *late = format!("{what}: {late}");
        }
        self.watch.edges_are_back();
        let homeless = self.watch.homeless(struck, now);
        let moves = self.watch.moves(struck, now);
        let lag = self.watch.lag(struck, now);
        let others = Strain::now().since(&before);
        let resumed = self.run.waits_since(Awaited::Resumption, struck..now);
        let answered = self.run.waits_since(Awaited::Answer, struck..struck + JUST_AFTER);
        println!(
            "  {number:>3} {:<4} {:<34} no home {:>6.0?} ms, clients back {:>6.0?} ms, {moves} moves, \
             others {:.0} %; {deed}",
            fault.row,
            fault.name,
            homeless.as_millis(),
            clients_back.as_millis(),
            100.0 * others,
        );
        let starved = strain::starved(others, lag);
        if ELECTED.contains(&fault.name) && homeless > HOMELESS {
            self.note(format!("{what}: shards had no home for {homeless:.1?}"), starved);
        }
        let finding = Finding {
            fault,
            struck,
            mended,
            homeless,
            homes_back,
            clients_back,
            lag,
            others,
            resumed,
            answered,
        };
        self.findings.push(finding);
        Ok(())
    }

    /// Waits until all shards have homes and all clients are served: how long after this moment it was so.
    async fn back(
        &mut self,
        moment: Duration,
        within: Duration,
        before: &Strain,
    ) -> Result<(Duration, Duration)> {
        let mut told = false;
        let homes = loop {
            self.site.check_alive()?;
            let now = self.run.now();
            if let Some(at) = self.watch.complete_after(moment) {
                break at - moment;
            }
            let limit = within + 3 * self.watch.lag(moment, now);
            if now - moment > limit {
                let homes = self.watch.homes();
                let missing: Vec<usize> = (0..SHARDS).filter(|shard| !homes.contains_key(shard)).collect();
                let late = format!("shards {missing:?} have no home {limit:.1?} after all was mended");
                self.note_late(late, &mut told, now - moment, before)?;
            }
            sleep(Duration::from_millis(20)).await;
        };
        told = false;
        let clients = loop {
            self.site.check_alive()?;
            let now = self.run.now();
            let served = self.run.served_since(moment);
            if served.len() == DEVICES.len() {
                break now - moment;
            }
            let limit = CLIENTS_BACK + 3 * self.watch.lag(moment, now);
            if now - moment > limit {
                let all = DEVICES.iter().map(|device| device.replacen('/', "@localhost/", 1));
                let missing: Vec<String> = all.filter(|client| !served.contains(client)).collect();
                let late = format!("{missing:?} got no answer within {limit:.1?} after all was mended");
                self.note_late(late, &mut told, now - moment, before)?;
            }
            sleep(Duration::from_millis(20)).await;
        };
        told = false;
        while let Err(error) = self.site.ready(Duration::ZERO).await {
            self.site.check_alive()?;
            let waited = self.run.now() - moment;
            if waited > READY_BACK {
                self.note_late(format!("{error:#}"), &mut told, waited, before)?;
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok((homes, clients))
    }

    /// Notes once what takes too long; an error if it takes far too long.
    fn note_late(&mut self, late: String, told: &mut bool, waited: Duration, before: &Strain) -> Result<()> {
        if *told && waited <= PATIENCE {
            return Ok(());
        }
        let lag = self.watch.lag(self.run.now().saturating_sub(waited), self.run.now());
        let starved = strain::starved(Strain::now().since(before), lag);
        if waited > PATIENCE_STARVED || waited > PATIENCE && !starved {
            bail!("{late}, nor within {waited:.1?}");
        }
        if !std::mem::replace(told, true) {
            self.note(late, starved);
        }
        Ok(())
    }

    /// Notes what is not as it should be, and lets the run go on. What is late on a starved machine is only told.
    pub(crate) fn note(&mut self, late: String, starved: bool) {
        let why = if starved { " (the machine has other work to do: not judged)" } else { "" };
        println!("  late: {late}{why}");
        self.remark(format!("late: {late}{why}"));
        if !starved {
            self.late.push(late);
        }
    }

    /// Ends the writing, waits until everything is answered and seen, kills every router and edge a last time and shows
    /// that nothing comes again. Then the archives are read. Routers are asked where sessions are before clients end and
    /// after that.
    pub(crate) async fn end(mut self, so_far: Result<()>) -> Result<Ended> {
        let mut broken = so_far.err();
        if broken.is_none() {
            broken = self.come_to_rest().await.err();
        }
        let mut astray = Vec::new();
        if broken.is_none() {
            self.remark("routers are asked where sessions are");
            broken = whereabouts::check(&self.site, &self.run, "at rest", &mut astray).await.err();
        }
        self.load.0.abort();
        let mut history = History::default();
        match timeout(Duration::from_secs(60), self.crowd.disband()).await {
            Ok(logs) => history.logs = logs?,
            Err(_) => broken = broken.or(Some(anyhow::anyhow!("clients do not end"))),
        }
        if broken.is_none() {
            match read_archives(&self.run).await {
                Ok(archives) => history.archives = archives,
                Err(error) => broken = Some(error),
            }
        }
        if broken.is_none() {
            let looked = whereabouts::check(&self.site, &self.run, "after all clients' end", &mut astray);
            broken = looked.await.err();
        }
        history.logs.push(self.fates);
        let (silences, answered) = (self.run.silences(), self.run.answered());
        let Self { site, findings, late, left_out, .. } = self;
        Ok(Ended { history, site, findings, late, astray, left_out, silences, answered, broken })
    }

    async fn come_to_rest(&mut self) -> Result<()> {
        self.run.allow(0);
        self.load.0.abort();
        self.run.enter(Phase::Calm);
        ensure!(
            self.run.quiet(Duration::from_secs(3), Duration::from_secs(60)).await,
            "clients do not come to rest: something comes again and again, or is never answered"
        );
        // Everything seen is acknowledged now; it may take its time to be written down, but not for ever.
        self.run.enter(Phase::Settled);
        sleep(Duration::from_secs(4)).await;
        self.remark("all routers and edges are killed after all was settled");
        for which in (0..ROUTERS).map(Which::Router).chain((0..EDGES).map(Which::Edge)) {
            self.lose_sessions(which)?;
        }
        self.site.mend()?;
        self.site.ready(Duration::from_secs(30)).await?;
        let (end, all) = (self.run.now() + Duration::from_secs(40), DEVICES.len());
        while self.run.working() < all {
            ensure!(
                self.run.now() < end,
                "{} of {all} clients came back after all was started",
                self.run.working()
            );
            sleep(Duration::from_millis(50)).await;
        }
        ensure!(
            self.run.quiet(Duration::from_secs(3), Duration::from_secs(20)).await,
            "clients are told things all the time"
        );
        self.remark("all is quiet");
        self.run.trouble(false);
        self.site.check_alive()
    }

    // What faults are made of.

    /// Kills a process where what it alone knows may be lost: sessions need not be resumed.
    pub(crate) fn lose_sessions(&mut self, which: Which) -> Result<()> {
        self.run.turn();
        self.site.kill(which)?;
        // Who came in between has what the one before had.
        self.run.turn();
        Ok(())
    }

    /// Any of so many.
    pub(crate) fn any(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }

    pub(crate) fn any_router(&mut self) -> usize {
        self.any(ROUTERS)
    }

    pub(crate) fn any_edge(&mut self) -> usize {
        self.any(EDGES)
    }

    /// The router that is the home of most shards.
    pub(crate) fn leader(&self) -> usize {
        let homes = self.watch.homes();
        let count = |router: &usize| homes.values().filter(|home| *home == router).count();
        (0..ROUTERS).max_by_key(count).unwrap_or_default()
    }

    /// Lets time go by, some of this many seconds.
    pub(crate) async fn hold(&mut self, seconds: std::ops::Range<f64>) -> Duration {
        let time = Duration::from_secs_f64(self.rng.random_range(seconds) * self.pace);
        sleep(time).await;
        time
    }

    /// Kills a process just when a client does something.
    pub(crate) async fn kill_at_a_moment(&mut self, which: Which) -> Result<String> {
        let moment = Moment::ALL[self.any(Moment::ALL.len())];
        let (skip, delay) = match moment {
            Moment::Login => (self.rng.random_range(0..4), self.rng.random_range(0..40_000)),
            _ => (self.rng.random_range(0..40), self.rng.random_range(0..3_000)),
        };
        let delay = Duration::from_micros(delay);
        let pid = self.site.process(which).pid().context("it does not run")?;
        self.run.aim(pid)?;
        self.run.arm(moment, skip, delay);
        let came = self.run.killed(moment, Duration::from_secs(2)).await;
        self.site.kill(which)?;
        Ok(if came { format!("killed {delay:?} after {moment:?}") } else { "killed".to_owned() })
    }

    /// What the links that were cut or lose packets have kept back; an error if that is nothing.
    pub(crate) fn was_felt(&self) -> Result<String> {
        let stopped = self.site.stopped()?;
        ensure!(stopped > 0, "the links have kept nothing back");
        Ok(format!("{stopped} packets kept back"))
    }

    /// Makes a process's link slow until all is mended.
    pub(crate) async fn slow(&mut self, which: Which, weather: Weather) -> Result<()> {
        self.watch.answers_are_slow(true);
        let seed = self.rng.random();
        self.site.slow(which, weather, seed).await
    }

    /// What slow links did; an error if they were passed in order and in time.
    pub(crate) fn was_bad_weather(&mut self) -> Result<String> {
        let mut told = Vec::new();
        for tally in self.site.tallies()? {
            let Tally { came, lost, doubled, overtook } = tally;
            ensure!(came > 0 && overtook > 0 && doubled > 0, "the slow link did nothing: {tally:?}");
            told.push(format!("of {came} packets {overtook} overtook, {doubled} came twice, {lost} not"));
        }
        Ok(told.join("; "))
    }

    /// An error if a process was told no wrong time since it was so often.
    pub(crate) fn was_told_wrong(&self, which: Which, before: u64) -> Result<()> {
        let now = self.site.wrong_times(which)?;
        ensure!(now > before, "{which:?} was told no wrong time");
        Ok(())
    }

    pub(crate) fn places(&self, whose: &[Which]) -> Vec<Place> {
        whose.iter().map(|which| self.site.place(*which)).collect()
    }
}

/// Shards are spread over routers again while this goes on. A request that gets no answer for it is counted, and the
/// archives are read once more.
async fn read_archives(run: &Run) -> Result<Vec<Archive>> {
    const TRIES: usize = 3;
    let mut tries = 1;
    loop {
        match starling_tests::crowd::archives_of(&run.target, &ACCOUNTS).await {
            Err(error) if tries < TRIES => {
                println!("  archives are read again: {error:#}");
                // An error is an answer.
                if format!("{error:#}").contains("no page but <iq") {
                    run.answers(true);
                } else {
                    run.keeps_silent();
                }
                tries += 1;
            }
            done => return done,
        }
    }
}

/// Lets clients write, while it is kept.
struct Load(JoinHandle<()>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is left of a drill.
pub(crate) struct Ended {
    pub(crate) history: History,
    pub(crate) site: Site,
    pub(crate) findings: Vec<Finding>,
    pub(crate) late: Vec<String>,
    /// Sessions of which a router does not know what is so, and shards of which routers say different things.
    pub(crate) astray: Vec<String>,
    /// Kinds that cannot be done here, and why.
    pub(crate) left_out: BTreeMap<&'static str, String>,
    /// How many requests got no answer.
    pub(crate) silences: u32,
    /// How many were answered, and how many of them with an error.
    pub(crate) answered: [u32; 2],
    pub(crate) broken: Option<anyhow::Error>,
}

async fn feed(run: Arc<Run>) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        // A machine that is too slow for this many gets fewer, not a heap that grows from fault to fault.
        run.allow(if run.unanswered() < OPEN { RATE / 20 } else { 0 });
    }
}
