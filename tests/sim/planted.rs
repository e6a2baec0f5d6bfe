//! Bugs to plant, each at a seam, so that what is under test stays as it is. Each must be found within so many seeds.

mod cql;
mod store;

use crate::clock::SimClock;
use crate::plan::Focus;
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
    /// A conditional write without an answer is taken for one that was refused.
    RefusedInstead,
    /// A write without an answer is taken for one that was not made.
    UncertainForgotten,
    /// The clock by which a process judges its lease stands still while it sleeps.
    NoLease,
}

impl Planted {
    /// What a run is to have much of, to find it.
    pub(crate) fn focus(self) -> Focus {
        match self {
            Self::AcknowledgeEarly | Self::DeliverEarly | Self::CursorTooFar => Focus::Crash,
            Self::NoTombstones
            | Self::KeepListings
            | Self::ListingEarly
            | Self::IndexEarly
            | Self::MarkEarly => Focus::Late,
            Self::NewPosition | Self::RefusedInstead | Self::UncertainForgotten => Focus::Answers,
            Self::NoLease => Focus::Sleep,
            Self::NoRewrite | Self::WallClock | Self::NoEnd => Focus::All,
        }
    }

    /// All, each with seeds that found it when this was written, and the number of seeds within which one must.
    pub(crate) const ALL: [(Self, &'static [u64], u64); 15] = [
        (Self::AcknowledgeEarly, &[2, 4, 6], 500),
        (Self::DeliverEarly, &[2, 4, 6], 500),
        (Self::CursorTooFar, &[10, 15, 29], 1_000),
        (Self::NewPosition, &[6, 12, 15], 200),
        (Self::NoTombstones, &[4, 13, 23], 500),
        (Self::NoRewrite, &[1, 2], 100),
        (Self::KeepListings, &[7, 9, 13], 1_000),
        (Self::WallClock, &[1, 2], 100),
        (Self::ListingEarly, &[40, 72], 1_000),
        (Self::IndexEarly, &[17, 23, 49], 1_000),
        (Self::MarkEarly, &[234, 255, 272], 1_000),
        (Self::NoEnd, &[1, 2], 100),
        (Self::RefusedInstead, &[53], 1_000),
        (Self::UncertainForgotten, &[53, 11, 92], 1_000),
        (Self::NoLease, &[13, 27, 28], 500),
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
pub(crate) fn cql(stage: &Arc<Stage>, connection: Connection, clock: &SimClock) -> cql::WrongCql {
    cql::WrongCql::new(stage, connection, clock.clone())
}

/// A process' clock, with the bug that is planted in it.
pub(crate) fn clock(stage: &Stage, clock: SimClock) -> SimClock {
    if stage.plan.planted == Some(Planted::NoLease) { clock.sleeping() } else { clock }
}
