//! Where the groups' logs come from.

use crate::state::Durable;
use crate::types::{LogId, Types};
use crate::wal::{GroupLog, Wal, WalError};
use openraft::storage::RaftLogStorage;
use std::sync::Arc;
use tokio::sync::watch;

#[cfg(any(test, feature = "testing"))]
pub mod memory;

/// The logs of all groups of a router.
pub trait Logs: Send + Sync + 'static {
    /// One group's.
    type Log: RaftLogStorage<Types>;

    /// The log of a group, and what to call when a later snapshot of it is durable; each can be had once. `snapshot` is the
    /// last entry of its newest snapshot.
    ///
    /// # Errors
    /// When it is not whole.
    fn open(&self, group: u16, snapshot: Option<LogId>) -> Result<(Self::Log, Durable), WalError>;

    /// Becomes `Some` when nothing can be written any more.
    fn failed(&self) -> watch::Receiver<Option<WalError>>;
}

impl Logs for Wal {
    type Log = GroupLog<Types>;

    fn open(&self, group: u16, snapshot: Option<LogId>) -> Result<(Self::Log, Durable), WalError> {
        let log = self.group::<Types>(group, snapshot)?;
        let told = log.clone();
        Ok((log, Arc::new(move |last| told.snapshot_durable(last))))
    }

    fn failed(&self) -> watch::Receiver<Option<WalError>> {
        Self::failed(self)
    }
}
