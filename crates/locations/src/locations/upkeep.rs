//! What has to be done from time to time: snapshots, the era's ceiling, and looking whether all still runs.

use super::{Failure, Inner};
use crate::group::NoSnapshot;
use crate::wal::WalError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A snapshot is made when so many bytes of entries have come since the last one, or twice its size.
const AT_LEAST: u64 = 16 << 20;
/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// How soon it is looked again where there was no room for one.
const NO_ROOM: Duration = Duration::from_secs(10);
/// How long one may take before another group has its turn.
const MADE_WITHIN: Duration = Duration::from_secs(60);

/// Whether it is time for a snapshot.
fn is_due(since: u64, last: u64) -> bool {
    since > AT_LEAST.max(last.saturating_mul(2))
}

/// Makes snapshots, one at a time, for ever.
pub(super) async fn snapshots(inner: Arc<Inner>) {
    let count = inner.groups.len().max(1);
    // Not all routers at once with the same group.
    let mut turn = rand::random::<u32>() as usize % count;
    let mut pause = EVERY;
    loop {
        sleep(pause).await;
        let mut short = false;
        for _ in 0..count {
            turn = (turn + 1) % count;
            let Some(group) = inner.groups.get(turn) else { continue };
            let (core, state) = (group.core(), &group.core().state);
            let since = state.since_snapshot.load(Ordering::Relaxed);
            if !is_due(since, state.snapshot_size.load(Ordering::Relaxed)) {
                continue;
            }
            let before = core.figures.borrow().snapshot;
            match core.snapshot().await {
                Ok(()) => {
                    let mut figures = core.raft.metrics();
                    let made = figures.wait_for(|figures| figures.snapshot > before);
                    let _ = timeout(MADE_WITHIN, made).await;
                }
                Err(NoSnapshot::NoRoom) => short = true,
                // That is noticed elsewhere.
                Err(NoSnapshot::Stopped) => {}
            }
        }
        pause = if short { NO_ROOM } else { EVERY };
        if inner.short_of_room.swap(short, Ordering::AcqRel) != short {
            match short {
                true => tracing::error!(
                    event = "snapshot_no_room",
                    "there is no room for a snapshot; until there is, the Raft log grows"
                ),
                false => tracing::info!(event = "snapshot_room", "there is room for snapshots again"),
            }
        }
    }
}

/// Looks whether all still runs, for ever.
pub(super) async fn failures(inner: Arc<Inner>, mut log: watch::Receiver<Option<WalError>>) {
    loop {
        let failure = inner.failure(&log);
        if let Some(failure) = failure {
            tracing::error!(event = "raft_failed", %failure, "this router cannot take part any more");
            // What it leads is led by others as soon as it does not hold them up.
            for group in &inner.groups {
                match failure {
                    Failure::Log(_) => group.core().cease(),
                    Failure::Raft(shard, _) if shard == group.shard().0 => group.core().cease(),
                    _ => {}
                }
            }
            inner.failed.send_replace(Some(failure));
            return;
        }
        tokio::select! {
            changed = log.changed() => if changed.is_err() { sleep(EVERY).await },
            () = sleep(Duration::from_millis(200)) => {}
        }
    }
}

/// Keeps the era's ceiling ahead, for ever.
pub(super) async fn era(inner: Arc<Inner>) {
    let (limits, eras, clock) =
        (Arc::clone(&inner.limits), Arc::clone(&inner.options.eras), Arc::clone(&inner.clock));
    let lives = || !inner.is_fresh();
    limits.keep(eras, clock, lives).await;
    inner.failed.send_replace(Some(Failure::Superseded));
}

impl Inner {
    fn failure(&self, log: &watch::Receiver<Option<WalError>>) -> Option<Failure> {
        if let Some(error) = &*log.borrow() {
            return Some(Failure::Log(error.to_string()));
        }
        if self.removed.load(Ordering::Acquire) {
            return Some(Failure::Removed);
        }
        self.groups.iter().find_map(|group| {
            let figures = group.core().figures.borrow();
            let stopped = figures.running_state.as_ref().err()?;
            Some(Failure::Raft(group.shard().0, stopped.to_string()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_shard_keeps_the_entries_of_about_a_day() {
        // A grant every four seconds.
        let (day, grant) = (24 * 60 * 60 / 4, crate::state::ENTRY + 20);
        assert!(is_due(day * grant, 100) && !is_due(day / 2 * grant, 100));
    }

    #[test]
    fn a_snapshot_is_due_by_size() {
        assert!(!is_due(AT_LEAST, 0) && is_due(AT_LEAST + 1, 0));
        assert!(!is_due(AT_LEAST + 1, AT_LEAST) && is_due(2 * AT_LEAST + 1, AT_LEAST));
    }
}
