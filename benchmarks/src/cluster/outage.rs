//! How long clients wait when the home of their account is killed: pairs talk all the time while one router after the
//! other is killed and started again.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::nodes::Cluster;
use crate::framer;
use crate::histogram::Histogram;
use crate::session::{Session, Wish};
use crate::target::Target;

/// What was measured.
pub(super) struct OutageReport {
    pub(super) kills: usize,
    /// Of each kill, the longest time without a message that any pair saw.
    pub(super) worst: Histogram,
    /// The same of each pair that noticed.
    pub(super) noticed: Histogram,
    pub(super) sent: u64,
    /// Messages that came back as errors.
    pub(super) errors: u64,
    pub(super) missing: u64,
    pub(super) double: u64,
    /// Sessions that ended.
    pub(super) ended: usize,
    /// How long a killed router took to be ready again.
    pub(super) ready: Histogram,
}

const PAIRS: u32 = 20;
/// How long after a kill is looked at.
const AFTER: Duration = Duration::from_secs(3);
/// A pair that waited longer has noticed.
const NOTICED: Duration = Duration::from_millis(100);

/// One that writes and one that reads.
#[derive(Default)]
struct Pair {
    sent: Cell<u64>,
    errors: Cell<u64>,
    seen: RefCell<HashSet<u64>>,
    double: Cell<u64>,
    /// When the last message came, and the longest time without one since this was last set to zero.
    last: Cell<Option<Instant>>,
    longest: Cell<Duration>,
    quiet: Cell<bool>,
}

impl Pair {
    fn arrived(&self, number: u64) {
        if !self.seen.borrow_mut().insert(number) {
            self.double.set(self.double.get() + 1);
            return;
        }
        let now = Instant::now();
        if let Some(last) = self.last.replace(Some(now)) {
            self.longest.set(self.longest.get().max(now - last));
        }
    }

    /// The longest time without a message, one that has not ended included; the next count begins.
    fn take_longest(&self) -> Duration {
        let since = self.last.get().map_or(Duration::ZERO, |last| last.elapsed());
        self.longest.replace(Duration::ZERO).max(since)
    }
}

/// Kills so many times whoever is home of most, while so many messages a second are sent.
pub(super) async fn run(cluster: &mut Cluster, kills: usize, rate: u32) -> Result<OutageReport> {
    let doors = cluster.doors()?;
    let every = Duration::from_secs(1) * PAIRS / rate;
    // Between two messages of a pair nobody can notice anything.
    let noticed = NOTICED.max(2 * every);
    let mut tasks = JoinSet::new();
    let mut pairs = Vec::new();
    for number in 0..PAIRS as usize {
        let pair = Rc::new(Pair::default());
        let sides = [0, 1].map(|side| &*doors[(number + side) % doors.len()]);
        start(sides, number, every, &pair, &mut tasks).await?;
        pairs.push(pair);
    }
    let mut report = OutageReport {
        kills: 0,
        worst: Histogram::new(),
        noticed: Histogram::new(),
        sent: 0,
        errors: 0,
        missing: 0,
        double: 0,
        ended: 0,
        ready: Histogram::new(),
    };
    for _ in 0..kills {
        let (router, homes) = cluster.busiest_router().await?;
        ensure!(homes > 0, "no router is home of anything");
        // Not always at the same moment of a heartbeat.
        sleep(Duration::from_secs(1) + Duration::from_millis(37 * report.kills as u64 % 100)).await;
        for pair in &pairs {
            pair.take_longest();
        }
        cluster.routers[router].kill()?;
        sleep(AFTER).await;
        let gaps: Vec<Duration> = pairs.iter().map(|pair| pair.take_longest()).collect();
        let worst = gaps.iter().copied().max().unwrap_or_default();
        report.worst.record(worst);
        gaps.iter().filter(|gap| **gap > noticed).for_each(|gap| report.noticed.record(*gap));
        report.kills += 1;
        let begin = Instant::now();
        cluster.restart_router(router).await?;
        report.ready.record(begin.elapsed());
        eprintln!(
            "kill {}: {} with {homes} shards, {} pairs noticed, the longest waited {:.0} ms; ready again after {:.1} s",
            report.kills,
            cluster.routers[router].name,
            gaps.iter().filter(|gap| **gap > noticed).count(),
            worst.as_secs_f64() * 1e3,
            begin.elapsed().as_secs_f64(),
        );
        while let Some(ended) = tasks.try_join_next() {
            report.ended += 1;
            if let Err(error) = ended? {
                eprintln!("a session ended: {error:#}");
            }
        }
    }
    pairs.iter().for_each(|pair| pair.quiet.set(true));
    sleep(Duration::from_secs(5)).await;
    for pair in &pairs {
        report.sent += pair.sent.get();
        report.errors += pair.errors.get();
        report.double += pair.double.get();
        report.missing +=
            (pair.sent.get() - pair.errors.get()).saturating_sub(pair.seen.borrow().len() as u64);
    }
    Ok(report)
}

async fn start(
    [outward, inward]: [&Target; 2],
    number: usize,
    every: Duration,
    pair: &Rc<Pair>,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let wish = Wish { managed: true, presence: true };
    let sender = Session::open(outward, &outward.user(2 * number), "outage", wish).await?;
    let receiver = Session::open(inward, &inward.user(2 * number + 1), "outage", wish).await?;
    let to = receiver.jid.split('/').next().unwrap_or_default().to_owned();
    tasks.spawn_local(send(sender, to, every, pair.clone()));
    tasks.spawn_local(receive(receiver, pair.clone()));
    Ok(())
}

async fn send(mut session: Session, to: String, every: Duration, pair: Rc<Pair>) -> Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut out = Vec::new();
    loop {
        tokio::select! {
            read = session.read() => read?,
            _ = ticks.tick(), if !pair.quiet.get() => {
                let number = pair.sent.get() + 1;
                pair.sent.set(number);
                let text = format!(
                    "<message to='{to}' type='chat' id='outage{number}'><body>Are you still there?</body></message>"
                );
                session.write(text.as_bytes()).await?;
            }
        }
        while let Some(stanza) = session.next(&mut out)? {
            if framer::name(stanza) == b"message" && framer::attribute(stanza, "type") == Some(b"error") {
                pair.errors.set(pair.errors.get() + 1);
            }
        }
        session.write(&out).await?;
        out.clear();
    }
}

async fn receive(mut session: Session, pair: Rc<Pair>) -> Result<()> {
    let mut out = Vec::new();
    loop {
        session.read().await?;
        while let Some(stanza) = session.next(&mut out)? {
            let id = framer::attribute(stanza, "id").and_then(|id| std::str::from_utf8(id).ok());
            if let Some(number) = id.and_then(|id| id.strip_prefix("outage")?.parse().ok()) {
                pair.arrived(number);
            }
        }
        if !out.is_empty() {
            session.write(&out).await?;
            out.clear();
        }
    }
}
