//! What an edge and a home say to each other, and the seam over which they say it.
//!
//! `edge` and `router` never see one another: they meet in two traits. An edge holds a [`RouterLink`] and
//! speaks [`Up`]; a router holds an [`EdgeLink`] and speaks [`Down`]. Both are one-way and never block: what
//! bounds them is [credit](credit::Credit), 64 stanzas or 256 KiB per session that its home has not taken yet.
//! Messages of one session arrive in the order they were sent. [`channel`] is the form inside one process; [`net`] is
//! the one between processes, with the messages of `proto/` ([`codec`]) under certificates of the cluster ([`tls`]).
//! What an edge keeps so that its sessions outlive a home is [`uplink`]; where homes are, as routers see it, [`chart`];
//! whom they listen to, [`gate`].

#![forbid(unsafe_code)]

pub mod channel;
pub mod chart;
pub mod codec;
pub mod credit;
pub mod down;
pub mod frame;
pub mod gate;
pub mod link;
pub mod net;
mod proto;
pub mod record;
pub mod shard;
pub mod tls;
pub mod up;
pub mod uplink;

pub use down::{Down, ToEdge};
pub use link::{EdgeLink, LinkError, Registration, RouterLink};
pub use record::{Counting, Queued, Record, refused};
pub use shard::{Shard, Shards};
pub use starling_node::Trace;
pub use starling_node::telemetry::TraceRule;
use std::fmt;
pub use up::{Leave, SessionInfo, ToHome, Up};

/// One connection of one edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The edge that has its socket.
    pub edge: EdgeId,
    /// The edge's own number for it; never used twice in the life of the edge.
    pub number: u64,
}

impl ConnId {
    /// A connection of the edge in one's own process, whose id is 0.
    pub const fn local(number: u64) -> Self {
        Self { edge: EdgeId(0), number }
    }
}

/// The identity of a router's disk: random, made when its data directory was empty. A new disk is a new router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u64);

impl fmt::Display for RouterId {
    /// As operators are shown it, and name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One life of an edge process: random, made at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeId(pub u64);

impl fmt::Display for EdgeId {
    /// As operators are shown it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One life of a router process: random, made at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// A reign over one shard; later reigns have higher ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Of its bits, how many count the entries of the shard's log within an era.
    pub const INDEX_BITS: u32 = 40;

    /// The era: with it begins a table of locations that knows nothing of those before.
    pub fn era(self) -> u64 {
        self.0 >> Self::INDEX_BITS
    }

    /// The place of the reign's first entry in the log of its era.
    pub fn index(self) -> u64 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }
}

/// A session's secret name: 128 random bits made by the edge that bound it. Part of every origin of that
/// session and of its XEP-0198 id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u128);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}
