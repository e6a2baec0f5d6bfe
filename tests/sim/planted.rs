//! Bugs to plant, each at a seam, so that what is under test stays as it is. Each must be found within so many seeds.

mod cql;
mod store;

use crate::stage::Stage;
use starling_store::SharedStore;
use starling_store_scylla::model::Connection;
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
    /// Rows are written again without their end.
    NoEnd,
}

impl Planted {
    /// All, each with a seed that found it when this was written, and the number of seeds within which one must.
    pub(crate) const ALL: [(Self, u64, u64); 12] = [
        (Self::AcknowledgeEarly, 20, 100),
        (Self::DeliverEarly, 1, 100),
        (Self::CursorTooFar, 31, 200),
        (Self::NewPosition, 175, 500),
        (Self::NoTombstones, 143, 500),
        (Self::NoRewrite, 1, 100),
        (Self::KeepListings, 803, 2_000),
        (Self::WallClock, 1, 100),
        (Self::ListingEarly, 118, 500),
        (Self::IndexEarly, 11, 100),
        (Self::MarkEarly, 1_451, 4_000),
        (Self::NoEnd, 1, 100),
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
