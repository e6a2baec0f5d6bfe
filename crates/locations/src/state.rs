//! A shard's state machine as openraft wants it: applying, snapshots, and what else must not be forgotten.

use crate::image::{self, Image, ImageError, Meta};
use crate::machine::{Batch, Machine, Outcome, View};
use crate::snapshots::{SnapshotFile, Snapshots};
use crate::types::{Applied, Entry, LogId, StorageError, StoredMembership, Types};
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::spawn_blocking;

/// How many routers that were members once are remembered.
const REMEMBERED: usize = 256;

/// What an entry costs beyond its bytes: a log is in memory, too, and one of very many small entries, as an idle shard writes
/// them, takes long to be read and sent.
pub const ENTRY: u64 = 768;

/// Called when a snapshot up to this entry is durable.
pub type Durable = Arc<dyn Fn(LogId) + Send + Sync>;

/// What others than openraft may see of a group's state.
#[derive(Debug, Default)]
pub struct State {
    /// Who is where.
    pub machine: Mutex<Machine>,
    /// Routers that were members of this group and are none any more. They do not know, and would campaign for ever.
    pub removed: Mutex<BTreeSet<u64>>,
    /// About how many bytes of entries were applied since the last snapshot.
    pub since_snapshot: AtomicU64,
    /// How large the last snapshot is.
    pub snapshot_size: AtomicU64,
}

/// openraft's half of it.
pub struct StateMachine {
    state: Arc<State>,
    snapshots: Snapshots,
    group: u16,
    durable: Durable,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Why a group's state cannot be had at start.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot cannot be read: {0}")]
pub struct StateError(#[from] ImageError);

impl StateMachine {
    /// The state as a group's newest snapshot has it. Blocks.
    ///
    /// # Errors
    /// When there is a snapshot and it cannot be read. An older one will not do: the log may begin behind it.
    pub fn open(snapshots: &Snapshots, group: u16) -> Result<Self, StateError> {
        let durable: Durable = Arc::new(|_| ());
        let state = State::default();
        let (mut applied, mut membership) = (None, StoredMembership::default());
        if let Some(file) = snapshots.files(group).first() {
            let (content, size) = image::read(file)?;
            (applied, membership) = (content.meta.last_log_id, content.meta.last_membership);
            *state.machine.lock() = content.machine;
            *state.removed.lock() = content.removed;
            state.snapshot_size.store(size, Ordering::Relaxed);
        }
        let snapshots = snapshots.clone();
        Ok(Self { state: Arc::new(state), snapshots, group, durable, applied, membership })
    }

    /// From now on this is called when a snapshot is durable.
    pub fn when_durable(&mut self, durable: Durable) {
        self.durable = durable;
    }

    /// What others may see.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// The last entry that it has applied.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    fn apply_one(&mut self, entry: Entry) -> Applied {
        let index = entry.log_id.index;
        self.applied = Some(entry.log_id);
        let outcomes = match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Normal(command) => {
                self.state.since_snapshot.fetch_add(command.0.len() as u64 + ENTRY, Ordering::Relaxed);
                match Batch::decode(&command.0) {
                    Ok(ops) => self.state.machine.lock().apply(index, &ops),
                    Err(error) => {
                        // The same at every router, so all stay the same.
                        tracing::error!(event = "entry_unreadable", index, %error, "an entry cannot be read and is passed over");
                        Vec::<Outcome>::new()
                    }
                }
            }
            EntryPayload::Membership(membership) => {
                let mut removed = self.state.removed.lock();
                for (id, _) in self.membership.nodes() {
                    if membership.get_node(id).is_none() {
                        removed.insert(*id);
                    }
                }
                // One that was removed by mistake and is taken in again.
                removed.retain(|id| membership.get_node(id).is_none());
                while removed.len() > REMEMBERED {
                    removed.pop_first();
                }
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Vec::new()
            }
        };
        Applied { index, outcomes }
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        Ok(entries.into_iter().map(|entry| self.apply_one(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let id =
            self.applied.map_or_else(String::new, |last| format!("{last}-{:08x}", rand::random::<u32>()));
        let last_membership = self.membership.clone();
        Builder {
            state: Arc::clone(&self.state),
            snapshots: self.snapshots.clone(),
            group: self.group,
            durable: Arc::clone(&self.durable),
            meta: Meta { last_log_id: self.applied, last_membership, snapshot_id: id },
            removed: self.state.removed.lock().clone(),
            view: self.state.machine.lock().view(),
            before: self.state.since_snapshot.load(Ordering::Relaxed),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Image>, StorageError> {
        // Only asked for when openraft assembles chunks itself, which it does not do here.
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Image>) -> Result<(), StorageError> {
        let (snapshots, group) = (self.snapshots.clone(), self.group);
        let read = spawn_blocking(move || {
            let file = snapshot.file()?;
            let (content, size) = image::read(file)?;
            // It is kept here already, unless it was put together elsewhere.
            if !snapshots.files(group).contains(file) {
                image::write(&snapshots, group, &content.meta, &content.removed, &content.machine.view())?;
            }
            Ok((content, size))
        });
        let (content, size) = flat(read.await).map_err(|error| on_snapshot(meta, true, &error))?;
        *self.state.machine.lock() = content.machine;
        *self.state.removed.lock() = content.removed;
        self.state.snapshot_size.store(size, Ordering::Relaxed);
        self.state.since_snapshot.store(0, Ordering::Relaxed);
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        if let Some(last) = meta.last_log_id {
            (self.durable)(last);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let newest = self.snapshots.files(self.group).into_iter().next();
        let newest = spawn_blocking(move || newest.map(|file| Ok((image::meta(&file)?, file))).transpose());
        let newest = flat(newest.await)
            .map_err(|error| StorageIOError::read_snapshot(None, AnyError::error(error.to_string())))?;
        Ok(newest.map(snapshot))
    }
}

/// Writes a snapshot of one moment.
pub struct Builder {
    state: Arc<State>,
    snapshots: Snapshots,
    group: u16,
    durable: Durable,
    meta: Meta,
    removed: BTreeSet<u64>,
    view: View,
    before: u64,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (snapshots, group) = (self.snapshots.clone(), self.group);
        let (meta, removed, view) = (self.meta.clone(), self.removed.clone(), self.view.clone());
        let written = spawn_blocking(move || image::write(&snapshots, group, &meta, &removed, &view));
        let (file, size) = flat(written.await).map_err(|error| on_snapshot(&self.meta, false, &error))?;
        // What it covers does not count for the next one.
        let more = self.state.since_snapshot.load(Ordering::Relaxed).saturating_sub(self.before);
        self.state.since_snapshot.store(more, Ordering::Relaxed);
        self.state.snapshot_size.store(size, Ordering::Relaxed);
        if let Some(last) = self.meta.last_log_id {
            (self.durable)(last);
        }
        Ok(snapshot((self.meta.clone(), file)))
    }
}

fn snapshot((meta, file): (Meta, SnapshotFile)) -> Snapshot<Types> {
    Snapshot { meta, snapshot: Box::new(Image(Some(file))) }
}

fn flat<T>(result: Result<Result<T, ImageError>, tokio::task::JoinError>) -> Result<T, ImageError> {
    result.unwrap_or(Err(ImageError::GivenUp))
}

fn on_snapshot(meta: &Meta, reading: bool, error: &ImageError) -> StorageError {
    let (signature, error) = (Some(meta.signature()), AnyError::error(error.to_string()));
    if reading {
        StorageIOError::read_snapshot(signature, error).into()
    } else {
        StorageIOError::write_snapshot(signature, error).into()
    }
}
