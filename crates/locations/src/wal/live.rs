//! What the writer must be able to ask of a group's log in memory: its live content, to write it again.

use openraft::Vote;

use super::LogId;

/// A group's log as the writer sees it.
pub(crate) trait Live: Send + Sync {
    /// The writer has taken one request of this group from the queue.
    fn taken(&self);

    /// The live content from an index on (`None`: from the start), about `bytes` of it. `None` while the queue holds
    /// requests of this group: memory is then ahead of the disk, and what is written again must be what is there.
    fn copy(&self, from: Option<u64>, bytes: usize) -> Option<Copied>;

    /// The bytes that all live entries take.
    fn live(&self) -> usize;
}

/// A part of a group's live content.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) vote: Option<Vote<u64>>,
    pub(crate) purged: Option<LogId>,
    pub(crate) mark: Option<LogId>,
    /// Entries, encoded, and the first and the last one's index.
    pub(crate) entries: Option<(Vec<u8>, u64, u64)>,
    /// The index that the next part begins with.
    pub(crate) rest: Option<u64>,
}
