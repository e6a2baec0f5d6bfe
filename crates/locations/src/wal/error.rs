//! Why a log cannot be opened, or has stopped.

use std::{io, sync::Arc};

/// Why the log cannot be opened, or has stopped. All groups share it: after an error nothing is acknowledged any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// The file system refused something. When it did so while the log was in use, nobody knows what the disk holds.
    #[error("the log could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the file system said.
        source: Arc<io::Error>,
    },
    /// What was acknowledged cannot be read any more.
    #[error("the log is damaged in segment {segment} at byte {offset}: {what}")]
    Damaged {
        /// The number of the segment.
        segment: u64,
        /// Where in its file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// There is no log, or a segment of it is not there.
    #[error("segment {segment} of the log is missing")]
    Missing {
        /// Its number.
        segment: u64,
    },
    /// The log belongs to another disk.
    #[error("the log belongs to the disk {found:016x}")]
    Foreign {
        /// The identity that it was made for.
        found: u64,
    },
    /// What a group has in its log makes no whole.
    #[error("the log of group {group} is damaged: {what}")]
    BadGroup {
        /// The group's number.
        group: u16,
        /// What is wrong.
        what: &'static str,
    },
    /// The log of a group begins after the end of its last durable snapshot.
    #[error("the snapshot that the log of group {group} begins after is not there")]
    SnapshotLost {
        /// The group's number.
        group: u16,
    },
    /// One entry is larger than a segment.
    #[error("an entry of {bytes} bytes is too large for the log")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Entries would leave a hole in a group's log.
    #[error("entries from {first} on do not follow {last}")]
    Hole {
        /// The first one's index.
        first: u64,
        /// The index that the log ends with.
        last: u64,
    },
    /// A purge waited in vain for a snapshot that covers it.
    #[error("no durable snapshot covers the entries up to {upto}")]
    NoSnapshot {
        /// The index up to which entries were to be purged.
        upto: u64,
    },
    /// Somebody has the group's log already.
    #[error("the log of group {group} is in use")]
    InUse {
        /// The group's number.
        group: u16,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source: Arc::new(source) }
    }

    /// Whether this disk has lost what it promised, so that its router must join again, empty and under a new identity.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::BadGroup { .. }
            | Self::SnapshotLost { .. } => true,
            Self::Io { .. }
            | Self::TooLarge { .. }
            | Self::Hole { .. }
            | Self::NoSnapshot { .. }
            | Self::InUse { .. }
            | Self::Closed => false,
        }
    }
}
