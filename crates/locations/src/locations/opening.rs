//! A router's disk, opened: who it is, its log, and its shards as the snapshots have them.

use super::StartError;
use crate::logs::Logs;
use crate::places::Places;
use crate::snapshots::Snapshots;
use crate::state::StateMachine;
use crate::wal::{self, Wal};
use starling_node::clock::SharedClock;
use starling_wire::{RouterId, Shards};
use std::io;
use std::sync::Arc;

/// The disk of a router, with all that must be known before its links are made: first of all its identity.
pub struct Opened<L: Logs = Wal> {
    pub(super) id: RouterId,
    pub(super) shards: Shards,
    pub(super) places: Places,
    pub(super) snapshots: Snapshots,
    pub(super) logs: L,
    pub(super) groups: Vec<(StateMachine, L::Log)>,
}

impl Opened {
    /// Opens a disk. One that has no identity gets a new one: an empty disk is another router, whatever place it is in.
    /// Blocks.
    ///
    /// # Errors
    /// When the disk cannot be used. What is damaged is left as it is: who is to go on without it empties the directory.
    pub fn open(places: &Places, shards: Shards, clock: SharedClock) -> Result<Self, StartError> {
        let (disk, options) = (Arc::clone(&places.log), wal::Options::default());
        if let Some(id) = places.identity()? {
            let wal = Wal::open(disk, id.0, options, clock)?;
            return Self::with_logs(id, places.clone(), shards, wal);
        }
        // Never an old identity on an empty disk: it has forgotten its votes.
        places.forget()?;
        Snapshots::open(Arc::clone(&places.snapshots))?.clear()?;
        let id = RouterId(rand::random::<u64>().max(1));
        let wal = Wal::create(disk, id.0, options, clock)?;
        places.write_identity(id)?;
        Self::with_logs(id, places.clone(), shards, wal)
    }
}

impl Opened {
    /// What the log tells of itself.
    pub fn log_metrics(&self) -> &wal::WalMetrics {
        self.logs.metrics()
    }
}

impl<L: Logs> Opened<L> {
    /// The same with logs of any kind.
    ///
    /// # Errors
    /// When log or snapshots are not whole.
    pub fn with_logs(id: RouterId, places: Places, shards: Shards, logs: L) -> Result<Self, StartError> {
        if let Some(cluster) = places.cluster()?
            && cluster.shards != shards.count()
        {
            return Err(StartError::Shards { found: cluster.shards, wanted: shards.count() });
        }
        let snapshots = Snapshots::open(Arc::clone(&places.snapshots))?;
        let mut groups = Vec::new();
        for shard in shards.all() {
            let mut machine =
                StateMachine::open(&snapshots, shard.0).map_err(|error| StartError::State(shard.0, error))?;
            let (log, durable) = logs.open(shard.0, machine.applied())?;
            let kept = snapshots.clone();
            machine.when_durable(Arc::new(move |last| {
                durable(last);
                kept.retire(shard.0, last);
            }));
            groups.push((machine, log));
        }
        Ok(Self { id, shards, places, snapshots, logs, groups })
    }

    /// The identity of the disk.
    pub fn id(&self) -> RouterId {
        self.id
    }
}

impl<L: Logs> std::fmt::Debug for Opened<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("id", &self.id).finish_non_exhaustive()
    }
}

impl StartError {
    /// Whether this disk has lost what it promised.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Log(error) => error.is_lost(),
            Self::State(..) => true,
            Self::Io(_) | Self::Snapshots(_) | Self::Shards { .. } | Self::Raft(_) => false,
        }
    }
}

impl From<tokio::task::JoinError> for StartError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Io(io::Error::other(error))
    }
}
