//! Bugs to plant between homes, edges and locations, each at a seam.

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
    /// All, each with a seed that found it when this was written, and the number of seeds within which one must.
    pub(crate) const ALL: [(Self, u64, u64); 8] = [
        (Self::AcceptOldEpoch, 1, 2_000),
        (Self::AcceptOldReign, 1, 2_000),
        (Self::NewIdOnRetry, 1, 2_000),
        (Self::DropRetry, 1, 2_000),
        (Self::ForgetReleased, 1, 2_000),
        (Self::ZombieWrites, 1, 2_000),
        (Self::DeleteWithoutToken, 1, 2_000),
        (Self::RecordEarly, 1, 2_000),
    ];
}
