//! The store in CQL: ScyllaDB, or Apache Cassandra.
//!
//! Everything of an account lies in partitions of its own, keyed by address and generation: a deleted account that is made
//! again is another owner, and what is late finds no reader. The log is cut into buckets, so that no partition grows
//! without bound and a page begins in the right one. The key decision: **nothing on the path of a message is
//! conditional**. Writes carry the position that the account's home gave them as their timestamp, a message is two
//! mutations side by side, and whoever reigns next closes what an older reign may still have under way
//! ([`closing`]). What is not confirmed in time is in doubt, and its account takes no commit until it was loaded again.
//!
//! All of that is decided above a seam ([`cql::Cql`]), without a runtime: the simulation runs it on a model.

#![forbid(unsafe_code)]

pub mod check;
pub mod cql;
pub mod driver;
pub mod migrations;
#[cfg(feature = "model")]
pub mod model;
pub mod options;
pub mod schema;

mod accounts;
mod buckets;
mod closing;
mod codec;
mod commit;
mod data;
mod gate;
mod joint;
mod lane;
mod load;
mod log;
mod owners;
mod page;
mod purge;
mod reign;
mod retry;
mod settings;
mod store;

pub use settings::Settings;
pub use store::ScyllaStore;
