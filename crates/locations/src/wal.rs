//! One write-ahead log for all Raft groups of a router.
//!
//! **One thread writes.** Groups queue what they have; the thread takes all that is ready, writes it with one call, syncs
//! once, and tells everybody. So votes, appends, truncations and purges of a group are on the disk in the order in
//! which openraft asked for them, and a hundred groups share a sync. After the first error nothing is acknowledged any
//! more: what the disk holds is not known then, and a second sync would lie.
//!
//! **Memory answers.** Each group's live entries, vote and purge point are in memory; the disk is read at start only.
//!
//! **Files** are segments of a fixed size, used again when no group needs them; a quiet group's records are written
//! again when they keep too many. Records are checksummed with a seed of disk and segment, and batches are counted. So
//! at start a torn end (nobody was told of that batch) is told from damage (somebody was: the disk is lost).

mod coding;
mod error;
mod group;
mod live;
mod memory;
mod metrics;
mod opening;
mod places;
mod queue;
mod record;
mod replay;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use starling_node::clock::SharedClock;
use tokio::sync::watch;

pub use self::{coding::Typed, error::WalError, group::GroupLog, metrics::WalMetrics};
use self::{live::Live, opening::Opened, queue::Queue, writer::Writer};
use crate::disk::SharedDisk;

/// Term, leader and index of an entry.
pub(crate) type LogId = openraft::LogId<u64>;

/// All groups that the writer can ask for their content.
/// The size of a segment in bytes, if nothing else is said.
pub(crate) const SEGMENT: usize = 64 << 20;

pub(crate) type Groups = BTreeMap<u16, Arc<dyn Live>>;

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// The size of a segment in bytes; no entry can be larger. At least 4 KiB.
    pub segment_bytes: usize,
    /// The most that is written with one call, in bytes.
    pub batch_bytes: usize,
    /// The most that may wait for the writer, in bytes; beyond it, groups wait.
    pub queue_bytes: usize,
    /// After how long without work the end of the log is marked as durable.
    pub calm_after: Duration,
    /// How long a purge waits for the snapshot that covers it.
    pub snapshot_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT,
            batch_bytes: 4 << 20,
            queue_bytes: 64 << 20,
            calm_after: Duration::from_millis(20),
            snapshot_patience: Duration::from_secs(30),
        }
    }
}

/// The log of a router. Ends with its last handle's [`Wal::close`] or drop; the groups' logs then refuse everything.
pub struct Wal {
    queue: Arc<Queue>,
    groups: Arc<Mutex<Groups>>,
    /// What was read at start of groups that nobody has asked for yet.
    found: Mutex<Found>,
    failed: watch::Receiver<Option<WalError>>,
    metrics: WalMetrics,
    options: Options,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Found {
    groups: BTreeMap<u16, Arc<replay::Group>>,
    taken: std::collections::BTreeSet<u16>,
}

impl Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("failed", &*self.failed.borrow()).finish_non_exhaustive()
    }
}

impl Wal {
    /// Makes an empty log for a disk of a new identity. A log that is there is taken away: only for a directory whose
    /// identity is not known. The identity is to be written after this has returned.
    pub fn create(
        disk: SharedDisk,
        identity: u64,
        options: Options,
        clock: SharedClock,
    ) -> Result<Self, WalError> {
        let opened = opening::create(&*disk, identity, &options)?;
        Self::start(disk, identity, options, clock, opened)
    }

    /// Opens the log of the disk with that identity. When [`WalError::is_lost`], the router must not take part with
    /// this identity any more: it has forgotten votes or entries that others count on.
    pub fn open(
        disk: SharedDisk,
        identity: u64,
        options: Options,
        clock: SharedClock,
    ) -> Result<Self, WalError> {
        let opened = opening::open(&*disk, identity, &options)?;
        Self::start(disk, identity, options, clock, opened)
    }

    fn start(
        disk: SharedDisk,
        identity: u64,
        options: Options,
        clock: SharedClock,
        opened: Opened,
    ) -> Result<Self, WalError> {
        let Opened { mut replayed, current, next } = opened;
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let metrics = WalMetrics::default();
        let (failed_tx, failed) = watch::channel(None);
        let places =
            replayed.groups.iter_mut().map(|(&number, group)| (number, std::mem::take(&mut group.places)));
        let places = places.collect();
        let found: BTreeMap<_, _> =
            replayed.groups.into_iter().map(|(number, group)| (number, Arc::new(group))).collect();
        let live = found.iter().map(|(&number, group)| (number, Arc::clone(group) as Arc<dyn Live>));
        let groups = Arc::new(Mutex::new(live.collect::<Groups>()));
        metrics.segments.set(i64::try_from(replayed.segments.len()).unwrap_or(i64::MAX));
        let writer = Writer {
            disk,
            identity,
            size: options.segment_bytes,
            batch_bytes: options.batch_bytes,
            calm_after: options.calm_after,
            clock,
            metrics: metrics.clone(),
            queue: Arc::clone(&queue),
            groups: Arc::clone(&groups),
            places,
            segments: replayed.segments,
            spares: Vec::new(),
            current,
            next,
            left: VecDeque::new(),
            copying: VecDeque::new(),
            buffer: Vec::new(),
        };
        let end =
            Ending { queue: Arc::clone(&queue), failed: failed_tx, metrics: metrics.clone(), error: None };
        let thread = thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || {
                // All of it, not the one field that is named.
                let mut end = end;
                end.error = Some(Ending::panicked());
                end.error = writer.run().err();
            })
            .map_err(WalError::io("start its thread"))?;
        let found = Mutex::new(Found { groups: found, ..Found::default() });
        Ok(Self { queue, groups, found, failed, metrics, options, thread: Some(thread) })
    }

    /// The log of a group; each can be had once. `snapshot` is the last log id of the newest snapshot that was found whole
    /// on the disk: a log that begins behind it is no state any more ([`WalError::SnapshotLost`]).
    pub fn group<C: Typed>(&self, number: u16, snapshot: Option<LogId>) -> Result<GroupLog<C>, WalError> {
        let mut found = self.found.lock();
        if number == record::NO_GROUP || !found.taken.insert(number) {
            return Err(WalError::InUse { group: number });
        }
        let content = found.groups.remove(&number).unwrap_or_default();
        let most = writer::longest(self.options.segment_bytes);
        let patience = self.options.snapshot_patience;
        let log = GroupLog::restore(number, Arc::clone(&self.queue), &content, snapshot, most, patience)?;
        self.groups.lock().insert(number, log.live());
        Ok(log)
    }

    /// Becomes `Some` when the log has stopped for good. The process cannot take part in Raft then and should end.
    pub fn failed(&self) -> watch::Receiver<Option<WalError>> {
        self.failed.clone()
    }

    /// Its figures.
    pub fn metrics(&self) -> &WalMetrics {
        &self.metrics
    }

    /// Writes what is queued and ends. Blocks for a write and a sync.
    pub fn close(mut self) -> Result<(), WalError> {
        self.end();
        match &*self.failed.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        self.queue.close(WalError::Closed);
        if let Some(thread) = self.thread.take() {
            // A panic has been told to all who asked.
            let _ = thread.join();
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells everybody when the thread ends, however it ends.
struct Ending {
    queue: Arc<Queue>,
    failed: watch::Sender<Option<WalError>>,
    metrics: WalMetrics,
    error: Option<WalError>,
}

impl Ending {
    fn panicked() -> WalError {
        WalError::io("go on")(std::io::Error::other("its thread has panicked"))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(error) = &self.error {
            tracing::error!(event = "raft_log_failed", %error, "the raft log has stopped");
            self.metrics.failed.set(1);
            self.queue.fail(error);
            self.failed.send_replace(Some(error.clone()));
        } else {
            self.queue.fail(&WalError::Closed);
        }
    }
}
