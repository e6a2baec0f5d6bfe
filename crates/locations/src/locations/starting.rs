//! Starting one group.

use super::StartError;
use crate::era::Limits;
use crate::group::{Core, Driver, Group, queue};
use crate::lease::GRANTED_MS;
use crate::network::Network;
use crate::snapshots::Snapshots;
use crate::state::StateMachine;
use crate::types::{Raft, StorageError, Types};
use openraft::storage::RaftLogStorage;
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use starling_wire::{Incarnation, RouterId, Shard};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What a group is started with.
pub(super) struct Start<'a> {
    pub(super) shard: Shard,
    pub(super) own: RouterId,
    pub(super) incarnation: Incarnation,
    pub(super) snapshots: &'a Snapshots,
    pub(super) limits: &'a Arc<Limits>,
}

impl Start<'_> {
    /// Starts it; what has to run beside it is not run yet.
    ///
    /// # Errors
    /// When Raft cannot start with what is on the disk.
    pub(super) async fn group<L: RaftLogStorage<Types>>(
        self,
        machine: StateMachine,
        mut log: L,
        network: Network,
    ) -> Result<(Group, Driver), StartError> {
        let Self { shard, own, incarnation, snapshots, limits } = self;
        let written = async {
            let last = log.get_log_state().await?.last_log_id;
            Ok::<_, StorageError>(last.is_some() || log.read_vote().await?.is_some())
        };
        let written = written.await.map_err(|error| StartError::Raft(error.to_string()))?;
        let fresh = !written && machine.applied().is_none();
        let state = machine.state();
        let config = config().map_err(|error| StartError::Raft(error.to_string()))?;
        let (lease, promise) = (Arc::clone(&network.lease), Arc::clone(&network.promise));
        let (clock, peers) = (Arc::clone(&network.clock), Arc::clone(&network.peers));
        let raft: Raft = Raft::new(own.0, Arc::new(config), network, log, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let (queue, waiting) = queue();
        let (control, controls) = mpsc::channel(4);
        let core = Arc::new(Core {
            shard,
            own,
            server: raft.server_metrics(),
            figures: raft.metrics(),
            raft,
            state,
            lease,
            began: clock.monotonic(),
            clock,
            snapshots: snapshots.clone(),
            fresh: fresh.into(),
            promise,
            confirmed: Mutex::default(),
            led: 0.into(),
            probed: Arc::default(),
            inherits: Mutex::default(),
            giving: tokio::sync::Mutex::default(),
            quiet: false.into(),
            heir: 0.into(),
            stopped: false.into(),
            reign: watch::Sender::new(None),
            queue,
            control,
            incoming: tokio::sync::Mutex::new(None),
        });
        let driver =
            Driver::new(Arc::clone(&core), peers, Arc::clone(limits), incarnation, waiting, controls);
        Ok((Group::new(core), driver))
    }
}

/// openraft's own timers are the fallback: heartbeats go as often as they help, all groups' together (`sentry.rs`), and who is
/// dead is found by the links. The heartbeat interval is also how long an answer to entries may take; slower ones count
/// for nothing, so on a busy machine a short one stops a group.
fn config() -> Result<Config, Box<openraft::ConfigError>> {
    Config {
        cluster_name: "starling".to_owned(),
        heartbeat_interval: 150,
        enable_heartbeat: false,
        election_timeout_min: 200,
        // Voters refuse others for so long: leases rest upon it.
        election_timeout_max: GRANTED_MS,
        // Until the links have been judged.
        enable_elect: false,
        install_snapshot_timeout: 2_000,
        max_payload_entries: 300,
        // In entries, which are large: a new voter must really have caught up.
        replication_lag_threshold: 10,
        // By size, and told by us.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 100,
        purge_batch_size: 1,
        ..Config::default()
    }
    .validate()
    .map_err(Box::new)
}
