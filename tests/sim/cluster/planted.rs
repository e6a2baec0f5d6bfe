//! Bugs to plant between homes, edges and locations, each at a seam.

use crate::plan::Accent;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Edges take what homes of any reign say.
    AcceptOldEpoch,
    /// Locations take what an older reign wants.
    AcceptOldReign,
    /// A stanza that is sent again to another shard has another origin.
    NewIdOnRetry,
    /// What is to be sent again is not.
    DropRetry,
    /// Nobody is told that its session is elsewhere.
    ForgetReleased,
    /// A lease never ends.
    ZombieWrites,
    /// A session's row is deleted whosever it is.
    DeleteWithoutToken,
    /// A change of the locations is taken for done before a quorum has it.
    RecordEarly,
}

impl Break {
    /// What a run is to have much of, to find it.
    pub(crate) fn accent(self) -> Accent {
        match self {
            Self::DropRetry => Accent::Moves,
            Self::AcceptOldEpoch
            | Self::AcceptOldReign
            | Self::NewIdOnRetry
            | Self::ZombieWrites
            | Self::RecordEarly => Accent::Reigns,
            Self::ForgetReleased | Self::DeleteWithoutToken => Accent::Sessions,
        }
    }

    /// All, each with a seed that found it when this was written, if one is known, and the number of seeds within which one
    /// must.
    pub(crate) const ALL: [(Self, Option<u64>, u64); 8] = [
        (Self::AcceptOldEpoch, Some(79), 2_000),
        (Self::NewIdOnRetry, Some(2), 2_000),
        (Self::DropRetry, Some(1), 2_000),
        (Self::ForgetReleased, Some(1), 2_000),
        (Self::ZombieWrites, Some(34), 2_000),
        (Self::DeleteWithoutToken, Some(4), 2_000),
        (Self::AcceptOldReign, None, 2_000),
        (Self::RecordEarly, None, 2_000),
    ];
}
