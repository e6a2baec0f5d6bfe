//! openraft's own suite for stores, and what it leaves out.

use std::{collections::BTreeMap, io::Cursor};

use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StoredMembership,
    storage::RaftStateMachine,
    testing::{StoreBuilder, Suite},
};

use super::*;
use crate::disk::Directory;

/// A state machine that keeps nothing but what the suite looks at.
#[derive(Debug, Default, Clone)]
struct Machine {
    applied: Option<LogId>,
    membership: StoredMembership<u64, BasicNode>,
    snapshot: Option<(SnapshotMeta<u64, BasicNode>, Vec<u8>)>,
}

impl Machine {
    fn current(&self) -> Option<Snapshot<Texts>> {
        let (meta, bytes) = self.snapshot.clone()?;
        Some(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

#[derive(Debug, Clone, Default)]
struct SharedMachine(Arc<parking_lot::Mutex<Machine>>);

impl RaftSnapshotBuilder<Texts> for SharedMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Texts>, StorageError<u64>> {
        let mut machine = self.0.lock();
        let meta = SnapshotMeta {
            last_log_id: machine.applied,
            last_membership: machine.membership.clone(),
            snapshot_id: "one".to_owned(),
        };
        machine.snapshot = Some((meta, Vec::new()));
        Ok(machine.current().unwrap())
    }
}

impl RaftStateMachine<Texts> for SharedMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        let machine = self.0.lock();
        Ok((machine.applied, machine.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Texts>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut machine = self.0.lock();
        let applied = entries.into_iter().map(|entry| {
            machine.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                machine.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
        });
        Ok(applied.collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let mut machine = self.0.lock();
        machine.applied = meta.last_log_id;
        machine.membership = meta.last_membership.clone();
        machine.snapshot = Some((meta.clone(), snapshot.into_inner()));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Texts>>, StorageError<u64>> {
        Ok(self.0.lock().current())
    }
}

struct Builder;

impl StoreBuilder<Texts, GroupLog<Texts>, SharedMachine, (Wal, tempfile::TempDir)> for Builder {
    async fn build(
        &self,
    ) -> Result<((Wal, tempfile::TempDir), GroupLog<Texts>, SharedMachine), StorageError<u64>> {
        let place = tempfile::tempdir().unwrap();
        let disk = Arc::new(Directory::open(place.path()).unwrap());
        let options = Options { segment_bytes: 1 << 20, ..Options::default() };
        let wal = Wal::create(disk, DISK, options, SystemClock::shared()).unwrap();
        let log = wal.group(7, covered()).unwrap();
        Ok(((wal, place), log, SharedMachine::default()))
    }
}

#[test]
fn openraft_is_content() {
    Suite::test_all(Builder).unwrap();
}

#[test]
fn everything_is_there_after_a_restart_on_a_real_disk() {
    let place = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let on = || Arc::new(Directory::open(place.path()).unwrap());
    let mut before = BTreeMap::new();
    let wal = Wal::create(on(), DISK, options.clone(), SystemClock::shared()).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let tasks: Vec<_> = (0..16_u16)
        .map(|group| {
            let mut log = wal.group::<Texts>(group, covered()).unwrap();
            runtime.spawn(async move {
                log.save_vote(&Vote::new(1, u64::from(group))).await.unwrap();
                for index in 0..200 {
                    append(&mut log, vec![entry(1, index, &"x".repeat(usize::from(group) * 20))])
                        .await
                        .unwrap();
                    if index % 50 == 49 {
                        log.purge(id(1, index - 20)).await.unwrap();
                    }
                }
                (group, seen(&mut log).await)
            })
        })
        .collect();
    for task in tasks {
        let (group, seen) = runtime.block_on(task).unwrap();
        before.insert(group, seen);
    }
    wal.close().unwrap();
    let wal = Wal::open(on(), DISK, options, SystemClock::shared()).unwrap();
    for (group, before) in before {
        let mut log = wal.group::<Texts>(group, covered()).unwrap();
        assert_eq!(run(seen(&mut log)), before, "group {group}");
    }
}

#[test]
fn a_lagging_router_gets_a_part_that_fits() {
    let disk = FaultyDisk::new();
    let wal = create(&disk, &Options { segment_bytes: 4 << 20, ..Options::default() }).unwrap();
    let mut log = wal.group::<Texts>(1, None).unwrap();
    run(async {
        let text = "x".repeat(300 << 10);
        append(&mut log, (0..8).map(|index| entry(1, index, &text)).collect()).await.unwrap();
        assert_eq!(log.limited_get_log_entries(0, 8).await.unwrap().len(), 3);
        assert_eq!(log.limited_get_log_entries(7, 8).await.unwrap().len(), 1);
        assert_eq!(log.limited_get_log_entries(2, 4).await.unwrap().len(), 2);
        append(&mut log, vec![entry(1, 8, &"x".repeat(3 << 20))]).await.unwrap();
        // Never nothing, however large.
        assert_eq!(log.limited_get_log_entries(8, 9).await.unwrap().len(), 1);
        let error = append(&mut log, vec![entry(1, 9, &"x".repeat(4 << 20))]).await.unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
        assert!(log.bytes() > 5 << 20);
    });
}

#[test]
fn a_purge_waits_for_its_snapshot() {
    let disk = FaultyDisk::new();
    let options = small();
    let wal = create(&disk, &options).unwrap();
    let mut log = wal.group::<Texts>(1, None).unwrap();
    run(async {
        append(&mut log, (1..9).map(|index| entry(1, index, "x")).collect()).await.unwrap();
        let error = log.purge(id(1, 3)).await.unwrap_err();
        assert!(error.to_string().contains("no durable snapshot"), "{error}");
        assert_eq!(seen(&mut log).await.entries.len(), 8);
        let mut other = log.clone();
        let purge = tokio::time::timeout(Duration::from_secs(9), other.purge(id(1, 3)));
        let (purged, ()) = tokio::join!(purge, async { log.snapshot_durable(id(1, 4)) });
        purged.unwrap().unwrap();
        assert_eq!(seen(&mut log).await.purged, Some(id(1, 3)));
        // Never the fourth in place of the third.
        log.limited_get_log_entries(3, 6).await.unwrap_err();
        assert_eq!(log.limited_get_log_entries(4, 6).await.unwrap().len(), 2);
        assert!(log.limited_get_log_entries(3, 3).await.unwrap().is_empty());
    });
    wal.close().unwrap();
    let lost = open(&disk, &options).unwrap().group::<Texts>(1, Some(id(1, 2))).unwrap_err();
    assert!(matches!(lost, WalError::SnapshotLost { group: 1 }) && lost.is_lost(), "{lost}");
    open(&disk, &options).unwrap().group::<Texts>(1, Some(id(1, 3))).unwrap();
}

#[test]
fn a_group_is_had_once_and_no_hole_is_taken() {
    let disk = FaultyDisk::new();
    let wal = create(&disk, &small()).unwrap();
    let mut log = wal.group::<Texts>(1, None).unwrap();
    assert!(matches!(wal.group::<Texts>(1, None), Err(WalError::InUse { group: 1 })));
    assert!(matches!(wal.group::<Texts>(u16::MAX, None), Err(WalError::InUse { .. })));
    run(async {
        append(&mut log, vec![entry(1, 1, "x")]).await.unwrap();
        append(&mut log, vec![entry(1, 3, "x")]).await.unwrap_err();
        append(&mut log, vec![entry(1, 2, "x"), entry(1, 4, "x")]).await.unwrap_err();
        assert_eq!(seen(&mut log).await.entries.len(), 1);
    });
    wal.close().unwrap();
    run(async {
        append(&mut log, vec![entry(1, 2, "x")]).await.unwrap_err();
        log.save_vote(&Vote::new(1, 1)).await.unwrap_err();
    });
}

#[test]
fn a_group_is_not_written_again_while_memory_is_ahead_of_the_disk() {
    let disk = FaultyDisk::new();
    let wal = create(&disk, &small()).unwrap();
    let mut log = wal.group::<Texts>(1, None).unwrap();
    run(async {
        append(&mut log, (1..9).map(|index| entry(1, index, "x")).collect()).await.unwrap();
        let whole = log.live().copy(None, 1 << 20).unwrap();
        assert_eq!(whole.entries.as_ref().map(|(_, first, last)| (*first, *last)), Some((1, 8)));
        // Nobody waits for a truncation: it stays in the queue for a while, though the entries are gone from memory.
        log.truncate(id(1, 5)).await.unwrap();
        assert_eq!(log.live().copy(None, 1 << 20), None);
        log.save_vote(&Vote::new(2, 1)).await.unwrap();
        let part = log.live().copy(Some(2), 110).unwrap();
        assert_eq!((part.entries.map(|(_, first, last)| (first, last)), part.rest), (Some((2, 3)), Some(4)));
        assert_eq!(log.live().copy(None, 1 << 20).unwrap().vote, Some(Vote::new(2, 1)));
    });
}
