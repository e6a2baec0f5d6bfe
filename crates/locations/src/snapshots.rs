//! Snapshot files: written in parts, whole or not there at all.
//!
//! A file is written under a name that counts for nothing, synced, and only then given its name; the previous one of the
//! group stays until [`Snapshots::retire`], which is called when the log knows that the new one is durable. Every part
//! has a checksum of its own, seeded with its number, so parts can be sent on as they are read. What the parts and the
//! description hold is the state machine's business. All calls block.

mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use openraft::CommittedLeaderId;
use parking_lot::Mutex;

pub use self::{reader::Parts, writer::SnapshotWriter};
use crate::disk::SharedDisk;

/// Term, leader and index of the last entry in a snapshot.
type LogId = openraft::LogId<u64>;

/// The largest part, in bytes.
pub const MAX_PART: usize = 4 << 20;
/// The largest description, in bytes.
pub const MAX_META: usize = 1 << 20;

/// How much room a snapshot needs beside its rows: what describes it, and the log's next segment, which is there before any
/// other one is free.
const SPARE: u64 = (4 << 20) + crate::wal::SEGMENT as u64;

/// Why a snapshot cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused something.
    #[error("the snapshot could not be {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the file system said.
        source: Arc<io::Error>,
    },
    /// It is not what was written.
    #[error("the snapshot {name} is damaged: {what}")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A part or the description is too large.
    #[error("{bytes} bytes are too many for a part of a snapshot")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
}

impl SnapshotError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source: Arc::new(source) }
    }
}

/// All snapshots of a router, in one directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    disk: SharedDisk,
    /// Files that somebody reads stay until he is done.
    files: Arc<Mutex<BTreeMap<(u16, LogId), SnapshotFile>>>,
}

/// A whole, durable snapshot. Clones are the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    group: u16,
    last: LogId,
    kept: Kept,
}

/// The file goes when it is retired and nobody has a [`SnapshotFile`] of it any more.
#[derive(Debug, Clone)]
struct Kept(Arc<File>);

#[derive(Debug)]
struct File {
    name: String,
    disk: SharedDisk,
    retired: AtomicBool,
}

impl Snapshots {
    /// Opens the directory. What was not finished is taken away.
    pub fn open(disk: SharedDisk) -> Result<Self, SnapshotError> {
        let open = || {
            let mut files = BTreeMap::new();
            for name in disk.names()? {
                if name.starts_with(format::UNFINISHED) {
                    disk.remove(&name)?;
                } else if let Some((group, last)) = format::parse_name(&name) {
                    files.insert((group, last), SnapshotFile::new(group, last, name, &disk));
                }
            }
            disk.sync()?;
            Ok(files)
        };
        let files = open().map_err(SnapshotError::io("listed"))?;
        Ok(Self { disk, files: Arc::new(Mutex::new(files)) })
    }

    /// Takes all snapshots away: the disk begins anew, under another identity.
    pub fn clear(&self) -> Result<(), SnapshotError> {
        let mut files = self.files.lock();
        for file in std::mem::take(&mut *files).into_values() {
            self.disk.remove(file.name()).map_err(SnapshotError::io("removed"))?;
        }
        self.disk.sync().map_err(SnapshotError::io("removed"))
    }

    /// Begins a snapshot of a group up to `last`, described by `meta`.
    pub fn begin(&self, group: u16, last: LogId, meta: &[u8]) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::begin(self.clone(), group, last, meta)
    }

    /// The snapshots of a group, newest first. Whether one is whole shows when it is read ([`SnapshotFile::verify`]).
    pub fn files(&self, group: u16) -> Vec<SnapshotFile> {
        let files = self.files.lock();
        let of_group = files.iter().filter(|((of, _), _)| *of == group);
        of_group.map(|(_, file)| file.clone()).rev().collect()
    }

    /// Whether a snapshot of a group of about so many bytes can be written now: those before stay until it is whole. Blocks.
    ///
    /// Where the file system reserves nothing, that is found out only when it is written.
    pub fn has_room(&self, group: u16, bytes: u64) -> bool {
        let name = format!("{}room-{group:05}", format::UNFINISHED);
        let reserve = || {
            let mut file = self.disk.create(&name)?;
            let reserved = file.reserve(bytes.saturating_add(bytes / 8).saturating_add(SPARE));
            drop(file);
            self.disk.remove(&name)?;
            reserved
        };
        // Any other error shows again where it counts.
        !reserve().is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
    }

    /// Takes the snapshots of a group that are older than the one up to `keep` away, each as soon as nobody reads it.
    pub fn retire(&self, group: u16, keep: LogId) {
        self.files.lock().retain(|&(of, last), file| {
            let keep = of != group || last >= keep;
            if !keep {
                file.kept.0.retired.store(true, Ordering::Release);
            }
            keep
        });
    }

    fn add(&self, file: SnapshotFile) {
        self.files.lock().insert((file.group, file.last), file);
    }
}

impl SnapshotFile {
    fn new(group: u16, last: LogId, name: String, disk: &SharedDisk) -> Self {
        let file = File { name, disk: Arc::clone(disk), retired: false.into() };
        Self { group, last, kept: Kept(Arc::new(file)) }
    }

    /// Whose it is.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// The last entry in it.
    pub fn last(&self) -> LogId {
        self.last
    }

    fn name(&self) -> &str {
        &self.kept.0.name
    }

    /// Reads its description, and then its parts.
    pub fn read(&self) -> Result<Parts, SnapshotError> {
        Parts::open(self)
    }

    /// Reads all of it, to see whether it is whole.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        let mut parts = self.read()?;
        while parts.next_part()?.is_some() {}
        Ok(())
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Kept {}

impl Drop for File {
    fn drop(&mut self) {
        if *self.retired.get_mut()
            && let Err(error) = self.disk.remove(&self.name)
        {
            // It is found and retired again after the next start.
            tracing::warn!(event = "snapshot_left", %error, "an old snapshot could not be removed");
        }
    }
}

/// The log id that a file's name tells.
fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, node), index)
}
