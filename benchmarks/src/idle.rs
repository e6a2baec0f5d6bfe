//! What a session costs that does nothing.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::session::{Session, Wish};
use crate::target::Target;
use crate::usage::{self, Spent, Stopwatch};

/// How many sessions, for how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct IdleArguments {
    /// Sessions, each of an account of its own; a process has a limit of open files
    #[arg(long, default_value_t = 5_000)]
    pub(crate) sessions: usize,
    /// Logins at a time
    #[arg(long, default_value_t = 32)]
    pub(crate) concurrency: usize,
    /// Seconds of quiet before memory is read
    #[arg(long, default_value_t = 15)]
    pub(crate) seconds: u64,
}

/// What was measured. Memory is Pss in bytes, if the server's process is known.
#[derive(Debug)]
pub(crate) struct IdleReport {
    pub(crate) sessions: usize,
    /// How long it took to open them all.
    pub(crate) opening: Duration,
    pub(crate) before: Option<u64>,
    pub(crate) during: Option<u64>,
    /// When all have left.
    pub(crate) after: Option<u64>,
    /// While all were idle.
    pub(crate) spent: Spent,
    pub(crate) seconds: u64,
}

impl IdleReport {
    /// KiB of Pss for each session.
    pub(crate) fn kib_each(&self) -> Option<f64> {
        let grown = self.during?.saturating_sub(self.before?);
        Some(grown as f64 / 1024.0 / self.sessions as f64)
    }
}

/// Opens the sessions, waits, reads the memory, and lets them leave.
pub(crate) async fn run(target: Rc<Target>, arguments: &IdleArguments) -> Result<IdleReport> {
    let IdleArguments { sessions, concurrency, seconds } = *arguments;
    let memory = || target.watched.server.first().copied().map(usage::pss).transpose();
    let before = memory()?;
    let start = Instant::now();
    let (leave, left) = watch::channel(());
    let mut holders: JoinSet<Result<()>> = stream::iter(0..sessions)
        .map(|number| {
            let target = target.clone();
            async move {
                let wish = Wish { managed: true, presence: true };
                Session::open(&target, &target.user(number), "idle", wish).await
            }
        })
        .buffer_unordered(concurrency)
        .try_fold(JoinSet::new(), |mut holders, session| {
            holders.spawn_local(hold(session, left.clone()));
            async { Ok(holders) }
        })
        .await?;
    let opening = start.elapsed();

    sleep(Duration::from_secs(seconds) / 3).await;
    let watch = Stopwatch::start(&target.watched)?;
    sleep(Duration::from_secs(seconds) * 2 / 3).await;
    let spent = watch.spent()?;
    let during = memory()?;
    if let Some(ended) = holders.try_join_next() {
        ended??;
        bail!("a session ended by itself");
    }
    drop(leave);
    spawn_local(timeout(
        Duration::from_secs(60),
        async move { while holders.join_next().await.is_some() {} },
    ))
    .await?
    .ok();
    sleep(Duration::from_secs(2)).await;
    let after = memory()?;
    Ok(IdleReport { sessions, opening, before, during, after, spent, seconds: seconds * 2 / 3 })
}

async fn hold(mut session: Session, mut leave: watch::Receiver<()>) -> Result<()> {
    tokio::select! {
        ended = session.idle() => return ended,
        // The sender is dropped when all shall leave.
        _ = leave.changed() => {}
    }
    session.close().await;
    Ok(())
}
