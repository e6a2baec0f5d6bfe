//! Bugs to plant between homes, edges and locations, each at a seam.

use crate::plan::Accent;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// Edges take what homes of any reign say.
    AcceptOldEpoch,
    /// Homes take what was meant for another reign.
    TakeOldEpoch,
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
            Self::DropRetry | Self::TakeOldEpoch => Accent::Moves,
            Self::AcceptOldEpoch | Self::NewIdOnRetry | Self::ZombieWrites => Accent::Reigns,
            Self::AcceptOldReign | Self::RecordEarly => Accent::Entries,
            Self::ForgetReleased | Self::DeleteWithoutToken => Accent::Sessions,
        }
    }

    /// All, each with seeds that found it when this was written, and the number of seeds within which one must.
    pub(crate) const ALL: [(Self, &'static [u64], u64); 9] = [
        (Self::AcceptOldEpoch, &[3, 6, 13, 24], 2_000),
        (Self::TakeOldEpoch, &[4, 6, 7, 8], 2_000),
        (Self::NewIdOnRetry, &[1, 2, 7], 2_000),
        (Self::DropRetry, &[2, 3, 4], 2_000),
        (Self::ForgetReleased, &[1, 2], 2_000),
        (Self::ZombieWrites, &[3, 2, 37, 102], 2_000),
        (Self::DeleteWithoutToken, &[10, 13, 15, 17], 2_000),
        (Self::AcceptOldReign, &[10, 20, 29, 38], 2_000),
        (Self::RecordEarly, &[6, 21, 24, 53], 2_000),
    ];
}
