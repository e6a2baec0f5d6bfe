//! What it takes to record who is where: binds in the Raft groups of three routers, each with a disk directory of its own.
//!
//! The routers are in this process and call each other directly: it is the groups, their log and the disk that are measured.
//! What links and edges add is part of `cluster`.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_locations::disk::{Directory, Disk, DiskFile, SharedDisk};
use starling_locations::era::OneEra;
use starling_locations::peers::{Links, PeerError, Peers};
use starling_locations::places::Places;
use starling_locations::types::Member;
use starling_locations::{Group, Locations, Op, Opened, Options, Outcome, Times};
use starling_node::clock::{SharedClock, SystemClock};
use starling_wire::{EdgeId, Epoch, Incarnation, RouterId, Shards, Token};
use starling_xmpp::FullJid;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::histogram::Histogram;
use crate::usage;

/// How binds are recorded.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BindsArguments {
    /// The disk to measure: an existing folder (default: the one for temporary files)
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
    /// Shards, each a Raft group
    #[arg(long, default_value_t = 16)]
    pub(crate) shards: u16,
    /// Binds a second, evenly over the shards (0: as fast as they go)
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rate: u32,
    /// How many are under way at once when they go as fast as they go
    #[arg(long, default_value_t = 4_096)]
    pub(crate) outstanding: u32,
    /// Milliseconds that each sync of a disk takes longer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) sync_delay: u64,
    /// Seconds
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
}

/// What it took.
#[derive(Debug)]
pub(crate) struct BindsReport {
    /// From when a bind was due until a majority had it.
    pub(crate) latency: Histogram,
    pub(crate) per_second: f64,
    /// How many were refused.
    pub(crate) failures: u64,
    /// Elections while it lasted: there should be none.
    pub(crate) elections: u64,
    cpu: Duration,
    sync: Duration,
}

impl BindsReport {
    pub(crate) fn p99(&self) -> Duration {
        self.latency.quantile(0.99)
    }
}

impl Display for BindsReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let count = self.latency.count().max(1) as f64;
        writeln!(f, "binds/s             {:.0}, {} refused", self.per_second, self.failures)?;
        writeln!(
            f,
            "latency, ms         {:.2} p50, {:.2} p99, {:.2} longest",
            millis(self.latency.quantile(0.5)),
            millis(self.p99()),
            millis(self.latency.longest())
        )?;
        writeln!(
            f,
            "CPU, us a bind      {:.1}, of three routers and this load",
            self.cpu.as_secs_f64() * 1e6 / count
        )?;
        writeln!(
            f,
            "one sync, ms        {:.2} on an idle disk, with the delay asked for",
            millis(self.sync)
        )?;
        writeln!(f, "elections           {}", self.elections)
    }
}

/// So many names take turns: rows are replaced, and memory does not grow.
const NAMES: u64 = 100_000;
const ROUTERS: u64 = 3;

pub(crate) async fn run(arguments: &BindsArguments) -> Result<BindsReport> {
    let arguments = arguments.clone();
    // Routers have threads, which this program's own runtime has not.
    let runtime: Runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.spawn(async move { measure(&arguments).await }).await;
    runtime.shutdown_background();
    measured.context("the measurement has panicked")?
}

async fn measure(arguments: &BindsArguments) -> Result<BindsReport> {
    let folder = match &arguments.folder {
        Some(folder) => TempDir::with_prefix_in("starling-bench-", folder)?,
        None => TempDir::with_prefix("starling-bench-")?,
    };
    let delay = Duration::from_millis(arguments.sync_delay);
    let sync = sync_time(&folder.path().join("probe"), delay)?;
    let site = Site::start(folder.path(), arguments.shards, delay).await?;
    let homes = Arc::new(site.homes()?);
    let (elected, before) = (site.terms(), usage::cpu(std::process::id())?);
    let begin = Instant::now();
    let end = begin + Duration::from_secs(arguments.seconds);
    let (latency, failures) = match arguments.rate {
        0 => as_they_go(&homes, arguments.outstanding, end).await?,
        rate => at_rate(&homes, rate, end).await?,
    };
    let took = begin.elapsed();
    let cpu = usage::cpu(std::process::id())?.saturating_sub(before);
    let elections = site.terms() - elected;
    site.stop().await;
    ensure!(latency.count() > 0, "nothing could be bound");
    let per_second = latency.count() as f64 / took.as_secs_f64();
    Ok(BindsReport { latency, per_second, failures, elections, cpu, sync })
}

/// A shard's group at the router that reigns over it.
struct Home {
    group: Group,
    epoch: Epoch,
}

impl Home {
    async fn bind(&self, number: u64) -> bool {
        let Ok(jid) = FullJid::parse(&format!("user{}@bench.example/phone", number % NAMES)) else {
            return false;
        };
        let (token, edge) = (Token(number.into()), EdgeId(1));
        let done = self.group.record(vec![Op::Bind { epoch: self.epoch, jid, token, edge }]).await;
        matches!(done.as_deref(), Ok([Outcome::Bound { .. }]))
    }
}

async fn as_they_go(homes: &Arc<Vec<Home>>, outstanding: u32, end: Instant) -> Result<(Histogram, u64)> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..outstanding {
        let (homes, next) = (Arc::clone(homes), Arc::clone(&next));
        tasks.spawn(async move {
            let (mut latency, mut failures) = (Histogram::new(), 0u64);
            loop {
                let begin = Instant::now();
                if begin >= end {
                    return (latency, failures);
                }
                let number = next.fetch_add(1, Ordering::Relaxed);
                if homes[number as usize % homes.len()].bind(number).await {
                    latency.record(begin.elapsed());
                } else {
                    failures += 1;
                }
            }
        });
    }
    let (mut latency, mut failures) = (Histogram::new(), 0);
    while let Some(one) = tasks.join_next().await {
        let (counted, refused) = one?;
        latency.add(&counted);
        failures += refused;
    }
    Ok((latency, failures))
}

async fn at_rate(homes: &Arc<Vec<Home>>, rate: u32, end: Instant) -> Result<(Histogram, u64)> {
    let mut tasks = JoinSet::new();
    let (mut latency, mut failures) = (Histogram::new(), 0);
    let mut count = |one: Result<Option<Duration>, tokio::task::JoinError>| -> Result<()> {
        match one? {
            Some(took) => latency.record(took),
            None => failures += 1,
        }
        Ok(())
    };
    let (begin, mut number) = (Instant::now(), 0u64);
    let mut tick = interval(Duration::from_millis(1));
    while Instant::now() < end {
        tick.tick().await;
        let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while number < due {
            let (homes, this) = (Arc::clone(homes), number);
            let due = begin + Duration::from_secs_f64(this as f64 / f64::from(rate));
            tasks.spawn(
                async move { homes[this as usize % homes.len()].bind(this).await.then(|| due.elapsed()) },
            );
            number += 1;
        }
        while let Some(one) = tasks.try_join_next() {
            count(one)?;
        }
    }
    while let Some(one) = tasks.join_next().await {
        count(one)?;
    }
    Ok((latency, failures))
}

/// Three routers.
struct Site {
    all: Arc<All>,
}

type All = OnceLock<BTreeMap<RouterId, Locations>>;

/// The ways from one router to the others: calls.
struct Direct {
    own: RouterId,
    name: String,
    all: Arc<All>,
    links: watch::Receiver<Links>,
}

impl Peers for Direct {
    fn call(
        &self,
        to: RouterId,
        group: u16,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (own, name, all) = (self.own, self.name.clone(), Arc::clone(&self.all));
        async move {
            let Some(other) = all.get().and_then(|all| all.get(&to)).cloned() else {
                return Err(PeerError::NotLinked);
            };
            // As over a link: the answer is worked out whether or not it is still awaited.
            let answer = tokio::spawn(async move { other.answer(own, &name, group, body).await });
            match timeout(within, answer).await {
                Ok(answer) => answer.map_err(|_| PeerError::Lost),
                Err(_) => Err(PeerError::Late),
            }
        }
        .boxed()
    }

    fn links(&self) -> watch::Receiver<Links> {
        self.links.clone()
    }

    fn members(&self, _members: &BTreeMap<RouterId, Member>) {}
}

impl Site {
    async fn start(folder: &Path, shards: u16, delay: Duration) -> Result<Self> {
        let shards = Shards::new(shards).context("no such number of shards")?;
        let clock: SharedClock = SystemClock::shared();
        let all: Arc<All> = Arc::default();
        let mut opened = Vec::new();
        for number in 0..ROUTERS {
            let (places, clock) = (places(&folder.join(number.to_string()), delay)?, Arc::clone(&clock));
            opened.push(tokio::task::spawn_blocking(move || Opened::open(&places, shards, clock)).await??);
        }
        let member = |number: usize| Member::new(format!("router-{number}"), format!("router-{number}:5270"));
        let ids: BTreeMap<RouterId, Member> =
            opened.iter().enumerate().map(|(number, one)| (one.id(), member(number))).collect();
        let (mut started, mut senders) = (BTreeMap::new(), Vec::new());
        for (number, one) in opened.into_iter().enumerate() {
            let own = one.id();
            let others = ids.iter().filter(|(id, _)| **id != own).map(|(id, member)| (*id, member.clone()));
            let (told, links) = watch::channel(Links::default());
            senders.push((told, Links::new(others.collect())));
            let options = Options {
                member: member(number),
                incarnation: Incarnation(number as u64 + 1),
                found_with: Some(ids.len()),
                eras: Arc::new(OneEra),
                drain: None,
                spread: false,
                times: Times::default(),
            };
            let peers = Arc::new(Direct { own, name: member(number).name, all: Arc::clone(&all), links });
            started.insert(own, Locations::start(one, options, peers, Arc::clone(&clock)).await?);
        }
        ensure!(all.set(started).is_ok(), "started twice");
        for (told, links) in &senders {
            told.send_replace(Arc::clone(links));
        }
        let site = Self { all };
        // Kept for as long as the routers run.
        tokio::spawn(async move {
            let _senders = senders;
            std::future::pending::<()>().await;
        });
        site.settled(Duration::from_secs(30)).await?;
        site.spread().await?;
        Ok(site)
    }

    fn routers(&self) -> impl Iterator<Item = (&RouterId, &Locations)> {
        self.all.get().into_iter().flatten()
    }

    /// Waits until all shards have homes with leases and positions.
    async fn settled(&self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        while self.homes().is_err() {
            ensure!(Instant::now() < end, "the shards have no homes");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Who founds leads all: each router is to lead a third.
    async fn spread(&self) -> Result<()> {
        let ids: Vec<RouterId> = self.routers().map(|(id, _)| *id).collect();
        for (own, locations) in self.routers() {
            for group in locations.groups() {
                let to = ids[usize::from(group.shard().0) % ids.len()];
                let mut tries = 0;
                while to != *own && group.reign().borrow().is_some() {
                    match locations.give(group.shard(), to).await {
                        Ok(_) => break,
                        // Just founded: the others may not have caught up.
                        Err(error) if tries >= 50 => return Err(error.into()),
                        Err(_) => {}
                    }
                    tries += 1;
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        self.settled(Duration::from_secs(10)).await
    }

    fn homes(&self) -> Result<Vec<Home>> {
        let shards = self.routers().next().map_or(0, |(_, one)| one.groups().len());
        let home = |shard: usize| {
            self.routers().find_map(|(_, locations)| {
                let group = locations.groups().get(shard)?;
                let reign = group.reign().borrow().clone()?;
                (reign.until.load(Ordering::Acquire) > 0)
                    .then(|| Home { group: group.clone(), epoch: reign.epoch })
            })
        };
        (0..shards).map(|shard| home(shard).context("a shard without a home")).collect()
    }

    /// The terms of all shards, added up: each election raises it.
    fn terms(&self) -> u64 {
        let Some((_, one)) = self.routers().next() else { return 0 };
        one.groups().iter().map(|group| group.standing().term).sum()
    }

    async fn stop(self) {
        for (_, locations) in self.routers() {
            locations.stop().await;
        }
    }
}

/// The directories of a router, on a disk that is slower than it is.
fn places(folder: &Path, delay: Duration) -> Result<Places> {
    std::fs::create_dir_all(folder)?;
    let places = Places::open(folder)?;
    let slow = |disk: SharedDisk| Arc::new(Slow { disk, delay }) as SharedDisk;
    Ok(Places { home: places.home, log: slow(places.log), snapshots: places.snapshots })
}

/// How long one sync of a small write takes.
fn sync_time(folder: &Path, delay: Duration) -> Result<Duration> {
    const TIMES: u32 = 50;
    std::fs::create_dir_all(folder)?;
    let disk = Slow { disk: Arc::new(Directory::open(folder)?), delay };
    let mut file = disk.create("probe")?;
    file.reserve(1 << 20)?;
    file.sync()?;
    let begin = Instant::now();
    for number in 0..TIMES {
        file.write_at(&[7; 256], u64::from(number) * 256)?;
        file.sync()?;
    }
    Ok(begin.elapsed() / TIMES)
}

/// A disk each of whose syncs takes longer.
#[derive(Debug)]
struct Slow {
    disk: SharedDisk,
    delay: Duration,
}

#[derive(Debug)]
struct SlowFile {
    file: Box<dyn DiskFile>,
    delay: Duration,
}

impl Slow {
    fn slow(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(SlowFile { file, delay: self.delay })
    }
}

impl Disk for Slow {
    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.slow(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.slow(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

impl DiskFile for SlowFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(into, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn reserve(&mut self, size: u64) -> io::Result<()> {
        self.file.reserve(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        std::thread::sleep(self.delay);
        Ok(())
    }
}
