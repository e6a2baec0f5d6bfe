//! Pairs of accounts, one of which writes to the other.
//!
//! In a closed loop each message that arrives makes its sender send the next, so that a fixed number is in flight: that
//! finds out how much a server can do. In an open loop messages are due at a fixed rate whatever the server does, and
//! the latency is counted from the moment a message was due, not from when it could be sent: a server that stalls
//! cannot hide it by slowing the generator down.

mod pair;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::histogram::Histogram;
use crate::target::Target;
use crate::usage::{Spent, Stopwatch};
use pair::Pair;

/// How many pairs, and how they talk.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ChatArguments {
    /// Pairs of accounts
    #[arg(long, default_value_t = 100)]
    pub(crate) pairs: usize,
    /// Messages in flight in all (closed loop)
    #[arg(long, default_value_t = 500)]
    pub(crate) in_flight: usize,
    /// Messages per second in all (open loop)
    #[arg(long, value_name = "RATE")]
    pub(crate) open: Option<f64>,
    /// Who uses stream management
    #[arg(long, value_enum, default_value_t = Managed::Both)]
    pub(crate) managed: Managed,
    /// Write to the full JID instead of the bare one
    #[arg(long)]
    pub(crate) full: bool,
    /// Ask the server to keep nothing of it (XEP-0334): what is left is the way itself
    #[arg(long)]
    pub(crate) unstored: bool,
    /// Seconds before measuring
    #[arg(long, default_value_t = 2)]
    pub(crate) warm_up: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 8)]
    pub(crate) seconds: u64,
}

/// Which side has stream management (XEP-0198) on. A sender asks for an acknowledgement every ten messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Managed {
    None,
    Sender,
    Both,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct ChatReport {
    /// Messages that arrived while it was measured.
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    pub(crate) spent: Spent,
    /// From when a message was due (open loop) or sent (closed loop) to its arrival.
    pub(crate) latency: Histogram,
    /// Messages that came back as errors, from the beginning to the end.
    pub(crate) errors: u64,
    /// Messages that never arrived, from the beginning to the end.
    pub(crate) missing: u64,
    /// Messages that came twice or not in the order in which they were sent.
    pub(crate) misplaced: u64,
    /// Stanzas of senders with stream management that the server never acknowledged.
    pub(crate) unacknowledged: u64,
}

impl ChatReport {
    pub(crate) fn per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Messages per second of server CPU.
    pub(crate) fn per_cpu_second(&self) -> Option<f64> {
        self.spent.server.map(|cpu| self.messages as f64 / cpu.as_secs_f64())
    }

    /// CPU milliseconds for each 1,000 messages.
    pub(crate) fn cpu_ms_per_thousand(&self) -> Option<f64> {
        self.spent.server.map(|cpu| cpu.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// The same of its database.
    pub(crate) fn store_ms_per_thousand(&self) -> Option<f64> {
        self.spent.store.map(|cpu| cpu.as_secs_f64() * 1e6 / self.messages as f64)
    }

    /// What went wrong, if anything did: then the figures say little.
    pub(crate) fn faults(&self) -> Option<String> {
        let Self { errors, missing, misplaced, unacknowledged, .. } = *self;
        (errors + missing + misplaced + unacknowledged > 0).then(|| {
            format!(
                "{errors} came back as errors, {missing} missing, {misplaced} double or out of order, \
                 {unacknowledged} not acknowledged"
            )
        })
    }
}

/// What all pairs have in common.
pub(crate) struct Round {
    /// Marks the messages of this run: an older one may still be in an archive.
    tag: String,
    start: Instant,
    /// Stamps from here to there count for the latency.
    measured: Cell<(Duration, Duration)>,
    latency: RefCell<Histogram>,
    /// Whether an arrival makes the next message.
    refill: Cell<bool>,
    sent: Cell<u64>,
    received: Cell<u64>,
    errors: Cell<u64>,
    misplaced: Cell<u64>,
}

impl Round {
    fn in_flight(&self) -> u64 {
        self.sent.get() - self.received.get().min(self.sent.get())
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Sets the pairs up, lets them talk, and waits until all has arrived.
pub(crate) async fn run(target: Rc<Target>, arguments: &ChatArguments) -> Result<ChatReport> {
    across(&[target], arguments).await
}

/// The same through several doors of one server, so that no pair comes in by one and the same.
pub(crate) async fn across(doors: &[Rc<Target>], arguments: &ChatArguments) -> Result<ChatReport> {
    let target = doors.first().context("no door")?;
    ensure!(
        arguments.pairs > 0 && arguments.in_flight >= arguments.pairs,
        "each pair needs a message in flight"
    );
    let since_epoch = std::time::UNIX_EPOCH.elapsed()?;
    let round = Rc::new(Round {
        tag: format!("{:016x}", since_epoch.as_nanos() as u64),
        start: Instant::now(),
        measured: Cell::new((Duration::MAX, Duration::MAX)),
        latency: RefCell::new(Histogram::new()),
        refill: Cell::new(arguments.open.is_none()),
        sent: Cell::new(0),
        received: Cell::new(0),
        errors: Cell::new(0),
        misplaced: Cell::new(0),
    });
    let mut tasks = JoinSet::new();
    let opened: Vec<_> = stream::iter(0..arguments.pairs)
        .map(|number| {
            pair::open([0, 1].map(|side| &*doors[(number + side) % doors.len()]), number, arguments)
        })
        .buffer_unordered(16)
        .try_collect()
        .await?;
    let pairs: Vec<Rc<Pair>> =
        opened.into_iter().map(|sessions| sessions.start(&round, &mut tasks)).collect();

    let measured = tokio::select! {
        measured = measure(target, arguments, &round, &pairs) => measured?,
        Some(ended) = tasks.join_next() => {
            ended??;
            return Err(anyhow!("a session ended before its time"));
        }
    };
    // Whatever has not arrived long after the end never will.
    let _ = timeout(PATIENCE, async {
        while round.in_flight() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let missing = round.in_flight();
    pairs.iter().for_each(|pair| pair.end());
    let mut unacknowledged = 0;
    while let Some(ended) = tasks.join_next().await {
        unacknowledged += ended??;
    }
    let (messages, elapsed, spent) = measured;
    let latency = round.latency.borrow().clone();
    Ok(ChatReport {
        messages,
        elapsed,
        spent,
        latency,
        errors: round.errors.get(),
        missing,
        misplaced: round.misplaced.get(),
        unacknowledged,
    })
}

/// Sends, and counts what arrives after the warm-up.
async fn measure(
    target: &Target,
    arguments: &ChatArguments,
    round: &Round,
    pairs: &[Rc<Pair>],
) -> Result<(u64, Duration, Spent)> {
    let warm_up = Duration::from_secs(arguments.warm_up);
    let seconds = Duration::from_secs(arguments.seconds);
    let begin = round.now();
    round.measured.set((begin + warm_up, begin + warm_up + seconds));
    let clock = async {
        sleep(warm_up).await;
        let (watch, start, received) =
            (Stopwatch::start(&target.watched)?, Instant::now(), round.received.get());
        sleep(seconds).await;
        let measured = (round.received.get() - received, start.elapsed(), watch.spent()?);
        round.refill.set(false);
        anyhow::Ok(measured)
    };
    match arguments.open {
        None => {
            for number in 0..arguments.in_flight {
                pairs[number % pairs.len()].send(round, round.now());
            }
            clock.await
        }
        Some(rate) => {
            let (measured, sent) = tokio::join!(clock, send_when_due(rate, warm_up + seconds, round, pairs));
            sent?;
            measured
        }
    }
}

/// Sends at a fixed rate.
async fn send_when_due(rate: f64, length: Duration, round: &Round, pairs: &[Rc<Pair>]) -> Result<()> {
    // First the time, then the timer: a tick must not come just before what it is for is due.
    let begin = round.now();
    let ticker = Ticker::start(Duration::from_secs_f64(1.0 / rate))?;
    for number in 0.. {
        let due = Duration::from_secs_f64(number as f64 / rate);
        if due > length {
            break;
        }
        while round.now() < begin + due {
            ticker.tick.notified().await;
        }
        ensure!(
            round.in_flight() < HOPELESS,
            "{HOPELESS} messages are in flight: {rate} per second is too much"
        );
        pairs[number % pairs.len()].send(round, begin + due);
    }
    Ok(())
}

/// Ticks by a timer of the kernel, from a thread that does nothing else: the runtime's own timer is no finer than a
/// millisecond. Dropping it ends the thread.
struct Ticker {
    tick: Arc<Notify>,
    over: Arc<AtomicBool>,
}

impl Ticker {
    fn start(interval: Duration) -> Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty())?;
        timer.set(Expiration::Interval(interval.into()), TimerSetTimeFlags::empty())?;
        let ticker = Self { tick: Arc::default(), over: Arc::default() };
        let (tick, over) = (ticker.tick.clone(), ticker.over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) && timer.wait().is_ok() {
                tick.notify_one();
            }
        });
        Ok(ticker)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// How long messages may be on their way after the last was sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than so many in flight in an open loop means that the rate is out of reach.
const HOPELESS: u64 = 100_000;
