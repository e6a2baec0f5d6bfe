//! What the log must stand: see the files.

mod damage;
mod full;
mod kill;
mod model;
mod suite;

use std::{io::Cursor, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    BasicNode, CommittedLeaderId, Entry, EntryPayload, Membership, RaftLogReader, StorageError, Vote,
    storage::{RaftLogStorage, RaftLogStorageExt},
};
use starling_node::clock::SystemClock;

use super::{
    GroupLog, LogId, Options, Typed, Wal, WalError,
    record::{self, Fields, put_log_id},
};
use crate::disk::{SharedDisk, faulty::FaultyDisk};

openraft::declare_raft_types!(
    /// A log of texts.
    pub(super) Texts: D = String, R = (), NodeId = u64, Node = BasicNode, SnapshotData = Cursor<Vec<u8>>,
);

impl Typed for Texts {
    fn encode(entry: &Entry<Self>, out: &mut Vec<u8>) {
        put_log_id(out, &entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => out.push(0),
            EntryPayload::Normal(text) => {
                out.push(1);
                out.extend_from_slice(text.as_bytes());
            }
            EntryPayload::Membership(membership) => {
                out.push(2);
                for voters in membership.get_joint_config() {
                    out.push(u8::try_from(voters.len()).unwrap());
                    out.extend(voters.iter().map(|&voter| u8::try_from(voter).unwrap()));
                }
            }
        }
    }

    fn decode(bytes: Bytes) -> Option<Entry<Self>> {
        let mut fields = Fields(&bytes);
        let log_id = fields.log_id()?;
        let payload = match fields.u8()? {
            0 => EntryPayload::Blank,
            1 => EntryPayload::Normal(String::from_utf8(fields.0.to_vec()).ok()?),
            2 => {
                let mut configs = Vec::new();
                while let Some(voters) = fields.u8() {
                    configs.push(
                        fields.take(usize::from(voters))?.iter().map(|&voter| u64::from(voter)).collect(),
                    );
                }
                EntryPayload::Membership(Membership::new(configs, None))
            }
            _ => return None,
        };
        Some(Entry { log_id, payload })
    }
}

const DISK: u64 = 0x5eed;

/// Small segments, and no calm that would come whenever it likes.
fn small() -> Options {
    Options {
        segment_bytes: 4_096,
        batch_bytes: 1_024,
        queue_bytes: 64 << 10,
        calm_after: Duration::from_secs(3_600),
        snapshot_patience: Duration::from_millis(200),
    }
}

fn create(disk: &FaultyDisk, options: &Options) -> Result<Wal, WalError> {
    Wal::create(shared(disk), DISK, options.clone(), SystemClock::shared())
}

fn open(disk: &FaultyDisk, options: &Options) -> Result<Wal, WalError> {
    Wal::open(shared(disk), DISK, options.clone(), SystemClock::shared())
}

fn shared(disk: &FaultyDisk) -> SharedDisk {
    Arc::new(disk.clone())
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, term % 3), index)
}

fn entry(term: u64, index: u64, text: &str) -> Entry<Texts> {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(text.to_owned()) }
}

/// A snapshot that covers all there will ever be.
fn covered() -> Option<LogId> {
    Some(id(u64::MAX, u64::MAX))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// What a group has, as far as openraft can see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    vote: Option<Vote<u64>>,
    purged: Option<LogId>,
    entries: Vec<(LogId, String)>,
}

async fn seen(log: &mut GroupLog<Texts>) -> Seen {
    let entries = log.try_get_log_entries(..).await.unwrap();
    let text = |entry: &Entry<Texts>| match &entry.payload {
        EntryPayload::Normal(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let state = log.get_log_state().await.unwrap();
    let entries: Vec<_> = entries.iter().map(|entry| (entry.log_id, text(entry))).collect();
    assert_eq!(state.last_log_id, entries.last().map(|last| last.0).or(state.last_purged_log_id));
    Seen { vote: log.read_vote().await.unwrap(), purged: state.last_purged_log_id, entries }
}

/// Appends, and waits until it is durable.
async fn append(log: &mut GroupLog<Texts>, entries: Vec<Entry<Texts>>) -> Result<(), StorageError<u64>> {
    log.blocking_append(entries).await
}
