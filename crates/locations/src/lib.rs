//! Who is where: the shards' Raft groups, their state machine, their log and their snapshots.
//!
//! One Raft group per shard over the routers (openraft). It keeps who reigns over the shard and at which edge each session
//! is: never a message, never a lease. [`machine`] decides, without clock or I/O. [`Group`] is what a home uses: it records
//! binds and is told of reigns. [`Locations`] is all groups of one router, with what makes a change of leader quick and
//! safe: a lease computed where answers come in ([`lease`]), a failure detector on the links ([`detector`]) that does not take
//! its own absence for another's ([`attention`]), planned moves, and joining. The links themselves are the router's ([`peers`]).

#![forbid(unsafe_code)]

pub mod attention;
pub mod call;
pub mod codec;
pub mod detector;
pub mod disk;
pub mod era;
pub mod group;
pub mod image;
pub mod lease;
mod locations;
pub mod logs;
pub mod machine;
mod network;
pub mod peers;
pub mod places;
pub mod snapshots;
pub mod state;
pub mod types;
pub mod wal;

pub use group::{GiveError, Group, NoSnapshot, RecordError, Reigning, Standing};
pub use locations::{
    Drain, Failure, Locations, MOST_VOTERS, Opened, Options, ReconcileError, Reconciled, RemoveError,
    RestoreError, StartError, Times, Votes,
};
pub use machine::{Op, Outcome, Row, View};
