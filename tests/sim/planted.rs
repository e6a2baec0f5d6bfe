//! Bugs to plant, each at a seam, so that what is under test stays as it is. Each must be found within so many seeds.

mod cql;
mod store;

use crate::clock::SimClock;
use crate::stage::Stage;
use starling_store::SharedStore;
use starling_store_scylla::model::{Connection, Process};
use std::sync::Arc;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A commit of what was sent is taken for done when it was begun.
    AcknowledgeEarly,
    /// The same for what was received.
    DeliverEarly,
    /// A cursor covers the newest row, whoever has acknowledged it.
    CursorTooFar,
    /// A row whose write was not confirmed is written once more at another position.
    NewPosition,
    /// The closing of a range leaves what may still come.
    NoTombstones,
    /// What a load has read is not written again.
    NoRewrite,
    /// Buckets of a dead reign stay listed.
    KeepListings,
    /// Deletes carry the clock's time.
    WallClock,
    /// A new bucket is used before its listing is confirmed.
    ListingEarly,
    /// A row counts before it is in the index of its peer.
    IndexEarly,
    /// Data is written before the mark for it is confirmed.
    MarkEarly,
    /// A conditional write without an answer is taken for refused.
    RefusedInstead,
    /// Rows are written again without their end.
    NoEnd,
    /// An account of which a commit was not confirmed goes on as if it had been refused.
    UncertainForgotten,
    /// A process that has slept does not see that its lease is over.
    NoLease,
}

impl Planted {
    /// All, with the number of seeds within which each is found.
    pub(crate) const ALL: [(Self, u64); 15] = [
        (Self::AcknowledgeEarly, 200),
        (Self::DeliverEarly, 200),
        (Self::CursorTooFar, 200),
        (Self::NewPosition, 200),
        (Self::NoTombstones, 1_000),
        (Self::NoRewrite, 1_000),
        (Self::KeepListings, 2_000),
        (Self::WallClock, 1_000),
        (Self::ListingEarly, 2_000),
        (Self::IndexEarly, 2_000),
        (Self::MarkEarly, 2_000),
        (Self::RefusedInstead, 2_000),
        (Self::NoEnd, 200),
        (Self::UncertainForgotten, 1_000),
        (Self::NoLease, 2_000),
    ];
}

/// The store with the bug that is planted in it, if there is one.
pub(crate) fn store(stage: &Stage, store: SharedStore) -> SharedStore {
    match stage.plan.planted {
        Some(planted) if store::WrongStore::can(planted) => Arc::new(store::WrongStore::new(store, planted)),
        _ => store,
    }
}

/// The way to the server, with the bug that is planted in it.
pub(crate) fn cql(stage: &Stage, connection: Connection) -> cql::WrongCql {
    cql::WrongCql::new(connection, stage.plan.planted)
}

/// A clock, with the bug that is planted in it.
pub(crate) fn clock(stage: &Stage, clock: SimClock, process: &Process) -> SimClock {
    if stage.plan.planted == Some(Planted::NoLease) { clock.sleeping(process) } else { clock }
}
