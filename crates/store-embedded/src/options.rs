//! What can be set.

use std::path::{Path, PathBuf};

/// Where the store is and how much it may use. Sizes are bounds, not reservations.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; made if it does not exist. Nothing else may be kept in it.
    pub directory: PathBuf,
    /// Memory for blocks read from disk, in bytes.
    pub cache_bytes: u64,
    /// Bytes of rows that may wait in memory before they are written to their place on disk. While that goes on up to three
    /// times as many more may wait.
    pub write_buffer_bytes: u64,
    /// Disk space of the write-ahead journal, in bytes, at least 64 MiB. It is read back after a crash.
    pub journal_bytes: u64,
    /// Files kept open, at least 10.
    pub open_files: usize,
    /// Commits that wait for the writer before [`starling_store::StoreError::Overloaded`] is answered.
    pub queue_commits: usize,
    /// Bytes of rows that wait for the writer before the same is answered.
    pub queue_bytes: usize,
    /// The most bytes of rows in one group, that is, per sync.
    pub group_bytes: usize,
    /// Accounts whose number and last position the writer remembers.
    pub known_accounts: usize,
    /// Threads that read.
    pub readers: usize,
    /// Reads that wait for a thread before [`starling_store::StoreError::Overloaded`] is answered.
    pub queue_reads: usize,
}

impl Options {
    /// The defaults, in this directory.
    pub fn at(directory: impl AsRef<Path>) -> Self {
        Self {
            directory: directory.as_ref().to_owned(),
            cache_bytes: 16 << 20,
            write_buffer_bytes: 16 << 20,
            journal_bytes: 128 << 20,
            open_files: 256,
            queue_commits: 65_536,
            queue_bytes: 32 << 20,
            group_bytes: 4 << 20,
            known_accounts: 32_768,
            readers: 2,
            queue_reads: 16_384,
        }
    }
}
