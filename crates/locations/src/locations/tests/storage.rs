//! openraft's own suite on log and state machine.

use crate::disk::faulty::FaultyDisk;
use crate::logs::Logs;
use crate::logs::memory::{MemoryLog, MemoryLogs};
use crate::snapshots::Snapshots;
use crate::state::StateMachine;
use crate::types::{StorageError, Types};
use crate::wal::{self, GroupLog, Wal};
use openraft::testing::{StoreBuilder, Suite};
use starling_node::clock::SystemClock;
use std::sync::Arc;

fn machine(snapshot_disk: FaultyDisk) -> StateMachine {
    let snapshots = Snapshots::open(Arc::new(snapshot_disk)).unwrap();
    StateMachine::open(&snapshots, 3).unwrap()
}

struct InMemory;

impl StoreBuilder<Types, MemoryLog, StateMachine> for InMemory {
    async fn build(&self) -> Result<((), MemoryLog, StateMachine), StorageError> {
        let (log, _) = MemoryLogs::default().open(3, None).unwrap();
        Ok(((), log, machine(FaultyDisk::default())))
    }
}

struct OnDisk;

impl StoreBuilder<Types, GroupLog<Types>, StateMachine, Wal> for OnDisk {
    async fn build(&self) -> Result<(Wal, GroupLog<Types>, StateMachine), StorageError> {
        let disk = Arc::new(FaultyDisk::default());
        let options = wal::Options { segment_bytes: 1 << 20, ..wal::Options::default() };
        let wal = Wal::create(disk, 1, options, SystemClock::shared()).unwrap();
        let (log, durable) = Logs::open(&wal, 3, None).unwrap();
        let mut machine = machine(FaultyDisk::default());
        machine.when_durable(durable);
        // The suite purges without a snapshot.
        log.snapshot_durable(openraft::LogId { index: 1 << 40, ..openraft::LogId::default() });
        Ok((wal, log, machine))
    }
}

#[test]
fn openraft_is_content_with_the_state_machine() {
    Suite::test_all(InMemory).unwrap();
}

#[test]
fn openraft_is_content_with_log_and_state_machine() {
    Suite::test_all(OnDisk).unwrap();
}
