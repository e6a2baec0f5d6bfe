//! One account that comes back to thousands of messages, and what it does to the server's memory how the client takes
//! them: acknowledging, reading without ever acknowledging, or not even reading.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use futures::future::try_join_all;
use tokio::time::timeout;

use crate::offline::{is_ours, store};
use crate::session::{Session, Wish};
use crate::target::Target;
use crate::usage::{self, Spent, Stopwatch};

/// How many messages wait, and how long they are.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BacklogArguments {
    /// Messages that wait
    #[arg(long, default_value_t = 10_000)]
    pub(crate) messages: usize,
    /// Bytes of each body
    #[arg(long, default_value_t = 60)]
    pub(crate) body: usize,
    /// Accounts that have written them
    #[arg(long, default_value_t = 10)]
    pub(crate) senders: usize,
}

/// How a client takes what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Reads, and acknowledges when asked.
    Acknowledging,
    /// Reads, and never acknowledges.
    Silent,
    /// Does not even read.
    Deaf,
}

/// What was measured of one login.
#[derive(Debug)]
pub(crate) struct BacklogReport {
    pub(crate) manner: Manner,
    /// Messages that waited.
    pub(crate) messages: usize,
    /// Messages that came.
    pub(crate) arrived: usize,
    /// From connecting to the last of them.
    pub(crate) elapsed: Duration,
    pub(crate) spent: Spent,
    /// Resident bytes of the server before, and the most while it went on.
    pub(crate) memory: Option<(u64, u64)>,
}

impl BacklogReport {
    pub(crate) fn per_second(&self) -> f64 {
        self.arrived as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU microseconds of the server for each message, the login included.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        let cpu = self.spent.server.filter(|_| self.arrived > 0)?;
        Some(cpu.as_secs_f64() * 1e6 / self.arrived as f64)
    }

    /// How much memory grew, in MiB.
    pub(crate) fn grown_mib(&self) -> Option<f64> {
        self.memory.map(|(before, peak)| peak.saturating_sub(before) as f64 / f64::from(1 << 20))
    }
}

/// Writes the messages; the first account is the one that is away. Returns what marks them.
pub(crate) async fn fill(target: &Rc<Target>, arguments: &BacklogArguments) -> Result<String> {
    let &BacklogArguments { messages, body, senders } = arguments;
    ensure!(senders > 0, "somebody has to write something");
    let tag = format!("back{:016x}", std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64);
    let body = "x".repeat(body);
    let wish = Wish { managed: true, presence: true };
    try_join_all((0..senders).map(async |sender| {
        let session = Session::open(target, &target.user(1 + sender), "writer", wish).await?;
        let share = messages / senders + usize::from(sender < messages % senders);
        let to = std::iter::repeat_n(target.user(0), share);
        store(session, to, &target.domain, &tag, WINDOW, &body).await
    }))
    .await?;
    Ok(tag)
}

/// Logs in as the account that was away and takes what comes. Unless it acknowledges, all of it waits still.
pub(crate) async fn login(
    target: &Rc<Target>,
    tag: &str,
    messages: usize,
    manner: Manner,
) -> Result<BacklogReport> {
    let server = target.watched.server.first().copied();
    if let Some(pid) = server {
        usage::forget_peak(pid)?;
    }
    let before = server.map(usage::resident).transpose()?.map(|(now, _)| now);
    let watch = Stopwatch::start(&target.watched)?;
    let start = Instant::now();
    // Without presence at first: what comes then would be acknowledged before the session is open.
    let wish = Wish { managed: true, presence: false };
    let mut session = Session::open(target, &target.user(0), "back", wish).await?;
    session.write(b"<presence/>").await?;
    let (mut arrived, mut elapsed) = (0, Duration::ZERO);
    if manner == Manner::Deaf {
        tokio::time::sleep(QUIET).await;
        elapsed = start.elapsed();
    }
    let mut answers = Vec::new();
    while manner != Manner::Deaf && arrived < messages {
        let patience = if manner == Manner::Silent { QUIET } else { PATIENCE };
        match timeout(patience, session.read()).await {
            Ok(read) => read?,
            Err(_) if manner == Manner::Silent => break,
            Err(_) => return Err(anyhow!("{arrived} of {messages} waiting messages came")),
        }
        while let Some(stanza) = session.next(&mut answers)? {
            if is_ours(stanza, tag) {
                arrived += 1;
                elapsed = start.elapsed();
            }
        }
        if manner == Manner::Acknowledging && !answers.is_empty() {
            session.write(&answers).await?;
        }
        answers.clear();
    }
    let spent = watch.spent()?;
    let peak = server.map(usage::resident).transpose()?.map(|(_, peak)| peak);
    if manner == Manner::Acknowledging {
        session.acknowledge().await?;
        session.close().await;
    }
    Ok(BacklogReport { manner, messages, arrived, elapsed, spent, memory: before.zip(peak) })
}

/// Fills, then logs in.
pub(crate) async fn run(target: Rc<Target>, arguments: &BacklogArguments) -> Result<Vec<BacklogReport>> {
    let tag = fill(&target, arguments).await?;
    logins(&target, &tag, arguments).await
}

/// Logs in once in each manner; only the last one takes the messages away.
pub(crate) async fn logins(
    target: &Rc<Target>,
    tag: &str,
    arguments: &BacklogArguments,
) -> Result<Vec<BacklogReport>> {
    let mut reports = Vec::new();
    for manner in [Manner::Silent, Manner::Deaf, Manner::Acknowledging] {
        reports.push(login(target, tag, arguments.messages, manner).await?);
    }
    Ok(reports)
}

/// Messages of one sender that the server has not acknowledged yet.
const WINDOW: u32 = 50;
/// After so long without a message no more come.
const QUIET: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);
