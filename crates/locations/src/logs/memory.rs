//! Logs in memory, for tests with a time of their own: every call is done at once, unless the disk stands still or fails.

use super::Logs;
use crate::state::Durable;
use crate::types::{Entry, LogId, StorageError, Types, Vote};
use crate::wal::WalError;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// The logs of a router. Clones share them, as a restarted process finds what the one before has written.
#[derive(Debug, Clone, Default)]
pub struct MemoryLogs {
    groups: Arc<Mutex<BTreeMap<u16, MemoryLog>>>,
    disk: Disk,
}

/// What all groups' logs are on.
#[derive(Debug, Clone, Default)]
struct Disk {
    still: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
    failed: watch::Sender<Option<WalError>>,
}

/// One group's.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
    disk: Disk,
}

impl MemoryLogs {
    /// The disk stands still, or runs again: nothing is durable meanwhile.
    pub fn stand_still(&self, still: bool) {
        self.disk.still.store(still, Ordering::Release);
    }

    /// Whatever is written from now on fails.
    pub fn break_down(&self) {
        self.disk.broken.store(true, Ordering::Release);
    }
}

impl MemoryLog {
    async fn turn(&self) -> Result<(), WalError> {
        while self.disk.still.load(Ordering::Acquire) {
            sleep(Duration::from_millis(1)).await;
        }
        if !self.disk.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let source = Arc::new(io::Error::from(io::ErrorKind::StorageFull));
        let error = WalError::Io { doing: "write", source };
        self.disk.failed.send_replace(Some(error.clone()));
        Err(error)
    }
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
}

impl Logs for MemoryLogs {
    type Log = MemoryLog;

    fn open(&self, group: u16, _snapshot: Option<LogId>) -> Result<(MemoryLog, Durable), WalError> {
        let mut groups = self.groups.lock();
        let fresh = || MemoryLog { disk: self.disk.clone(), ..MemoryLog::default() };
        Ok((groups.entry(group).or_insert_with(fresh).clone(), Arc::new(|_| ())))
    }

    fn failed(&self) -> watch::Receiver<Option<WalError>> {
        self.disk.failed.subscribe()
    }
}

impl RaftLogReader<Types> for MemoryLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.state.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for MemoryLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let state = self.state.lock();
        let last = state.entries.last_key_value().map(|(_, entry)| entry.log_id).or(state.purged);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.turn().await.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)))?;
        self.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.state.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.state.lock().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        // As the real one: whoever reads has it, and openraft waits for the disk.
        let turned = self.turn().await;
        callback.log_io_completed(turned.clone().map_err(io::Error::other));
        Ok(turned.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.state.lock().entries.split_off(&log_id.index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        state.purged = Some(log_id);
        state.entries = state.entries.split_off(&(log_id.index + 1));
        Ok(())
    }
}
