//! Everything Starling keeps, in one local directory, for one process.
//!
//! A log-structured tree (fjall) holds the rows; this crate decides keys, encodings and when the disk is waited for.
//! The key decision: **one thread writes**. [`commit`](starling_store::Store::commit) queues a batch; the thread takes
//! all that is ready, turns it into one write batch, syncs once, and answers everything in order. So commits need no
//! locks, keep their order, and share their syncs: the busier, the cheaper. After a failed write or sync nothing is
//! acknowledged any more ([`EmbeddedStore::failed`]), since what the disk has is no longer known.
//!
//! An account's rows are keyed by a number that is never used twice, so removing an account is one small write;
//! its rows are then taken away in slices, and an account of the same name never sees them.
//! Reads run on a few threads of their own ([`Options::readers`]): no caller ever waits for the disk on its own thread.

#![forbid(unsafe_code)]

mod format;
mod keys;
mod lock;
mod options;
mod page;
mod queue;
mod read;
mod records;
mod store;
mod sweep;
mod tables;
mod writer;

pub use format::FORMAT;
pub use lock::{DirectoryLock, LockError};
pub use options::Options;
pub use store::{EmbeddedStore, Figures, OpenError};
