//! The roles of a cluster as processes: `starling router` and `starling edge`.
//!
//! Wiring, as in `starling-all-in-one`: what homes and edges do is the same code there and here. Here they meet over
//! links between processes (`starling_wire::net`), a home reigns over a shard as `starling-locations` says, and the
//! store is one that all routers share.

#![forbid(unsafe_code)]

mod edge;
mod identity;
mod leaving;
mod refusals;
mod router;

/// A count as a gauge takes it.
fn level(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

pub use edge::EdgeNode;
pub use identity::{files as certificate_files, load as certificate};

pub use router::RouterNode;
