//! What Starling keeps, and the seam behind which it is kept.
//!
//! One trait, [`Store`], with a small set of reads and a single way to write: [`Store::commit`] takes a
//! [`Batch`] and resolves when all of it is durable. Every write of an account goes through
//! the account's home, so a back end needs no locks, no transactions over accounts and no read-modify-write.
//! Homes pipeline commits; back ends are free to group them (the embedded store syncs once per group) but
//! keep the order of two commits that touch the same account.
//!
//! What an older reign has under way may not surface under a newer one: [`Store::load`] closes what it reads.
//!
//! [`memory::MemoryStore`] is the reference form; [`testing`] is the suite that every back end passes.

#![forbid(unsafe_code)]

pub mod codec;
pub mod log;
pub mod memory;
pub mod roster;
pub mod rows;
pub mod testing;

use futures::future::BoxFuture;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::time::Duration;

pub use log::{Cursor, Direction, LogFilter, LogPage, LogRow, Origin, Page, Position};
pub use roster::{Roster, RosterItem, Subscription};
pub use rows::{AccountRow, AccountState, Batch, Claim, DocKind, Reign, Write};

/// A store shared by everything in the process.
pub type SharedStore = Arc<dyn Store>;

/// Tells whether an account is one of those that are meant, say, of a shard.
pub type Accounts = Arc<dyn Fn(&BareJid) -> bool + Send + Sync>;

/// The time, handed to a store when it is opened: it decides what has expired.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why a store call failed. Nothing here holds user data.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or is shutting down; the write may or may not have happened.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The queue in front of the store is full; the write did not happen.
    #[error("store overloaded")]
    Overloaded,
    /// What is stored cannot be read back.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The account to be created exists.
    #[error("account exists")]
    Exists,
    /// A later reign has begun: this one may neither write nor answer any more.
    #[error("another server has taken over the store")]
    Fenced,
    /// Another instance reigns and is alive, as far as can be seen.
    #[error("the store is in use by {0}")]
    Held(String),
}

/// The result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Everything that outlives a process. Futures are `'static`: they may be awaited on any task.
///
/// Writes to an account that does not exist are ignored, so what is still under way when an account is removed
/// leaves nothing behind.
pub trait Store: Send + Sync + 'static {
    /// Makes a batch durable. Resolves after the commit (embedded: after the group's fsync; CQL: LOCAL_QUORUM).
    /// Commits that touch the same account take effect in the order of the calls and of their [`Batch::at`], whether or not the
    /// futures are polled. Appending a row whose (owner, position) exists replaces it: retries are idempotent.
    ///
    /// After `Ok` all of it is durable. After [`StoreError::Overloaded`] nothing was written. After
    /// [`StoreError::Unavailable`] any part of it may have been written, or may still be: from then on every commit to
    /// these accounts fails, until the account has been loaded again with a floor above all that it was given. That load
    /// decides what was written and what never will be.
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>>;

    /// Whether one commit for many accounts costs hardly more than one for a single account and fails or succeeds as
    /// one (a write-ahead log). Otherwise homes commit each on their own, and none waits for another's.
    fn commits_together(&self) -> bool;

    /// Creates an account, or fails with [`StoreError::Exists`]. The only conditional write. Takes effect in the order
    /// of the calls, as a commit does. The reign is as for [`Store::load`], of which this takes the place until the
    /// account's home is needed.
    fn create_account(&self, jid: &BareJid, row: AccountRow, reign: Reign) -> BoxFuture<'static, Result<()>>;

    /// The account's row, or `None` where there is no such account.
    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>>;

    /// Accounts of a domain in the (byte) order of their local parts, after the given one, at most `limit`.
    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>>;

    /// All that a home needs before it decides: row, roster, documents, cursor, position of the last log row.
    ///
    /// It closes what it reads: whatever was written to the account before this call with a position below
    /// `reign.floor`, by an older reign or by this one in a commit that was not confirmed, and is not seen by this call,
    /// is never seen by any. Commits of this reign to the account that are still under way are waited for first. Within
    /// a reign a home raises the floor it passes above every position that it has given to the account.
    /// Fails with [`StoreError::Fenced`] where a later reign has closed the account.
    ///
    /// Reigns are by account: one store serves homes of several reigns side by side, each over accounts of its own (the
    /// shards of a cluster), and forgets what it knew of an account under another reign.
    fn load(&self, jid: &BareJid, reign: Reign) -> BoxFuture<'static, Result<Option<AccountState>>>;

    /// One page of an account's log in the order and bounds of `page`, rows that match `filter` only.
    /// Costs what the page costs, at any size of the log. Expired rows do not appear.
    fn log_page(&self, owner: &BareJid, filter: LogFilter, page: Page)
    -> BoxFuture<'static, Result<LogPage>>;

    /// The rows at these positions (those that exist), in position order.
    fn log_rows(&self, owner: &BareJid, positions: Vec<Position>) -> BoxFuture<'static, Result<Vec<LogRow>>>;

    /// Begins a reign: returns the next epoch and a position floor above every position ever granted, both durable.
    /// Takes over at once from an earlier reign of the same instance, or one that was released. From another
    /// instance only after that has not been granted anything for [`Claim::lease`], which this call waits for; where it is
    /// alive, fails with [`StoreError::Held`].
    fn open_reign(&self, claim: Claim) -> BoxFuture<'static, Result<Reign>>;

    /// Grants positions below `ceiling` to a reign; durable before it resolves. It also holds the reign for [`Claim::lease`] from the
    /// moment of the call. Fails with [`StoreError::Fenced`] when a later reign has begun.
    fn grant(&self, epoch: u64, ceiling: Position) -> BoxFuture<'static, Result<()>>;

    /// Ends a reign in order: the next one need not wait. Nothing is written under it any more.
    fn release(&self, epoch: u64) -> BoxFuture<'static, Result<()>>;

    /// The reign with this epoch, or an earlier one, is over for these accounts as far as this process is concerned: nothing is
    /// called for them under it any more, and what still waits here fails with [`StoreError::Fenced`]. What is
    /// remembered of them is forgotten by and by. Nothing depends on it but memory.
    fn leave(&self, _epoch: u64, _accounts: Accounts) {}

    /// Whether several processes may have it open at once, as a cluster does.
    fn is_shared(&self) -> bool;

    /// A secret of the cluster, made on first use (32 random bytes), the same ever after.
    fn secret(&self, name: &'static str) -> BoxFuture<'static, Result<[u8; 32]>>;

    /// Removes rows that have expired or exceed the retention given; returns how many. Bounded work per call: a pass
    /// over a large store takes several, each going on where the last one stopped. Rows that wait for a device
    /// (offline and not acknowledged) go when they expire, never by age or count.
    fn sweep(&self, now: Timestamp, retention: Retention) -> BoxFuture<'static, Result<u64>>;
}

/// How long a reign holds after a grant. What a home commits under it counts only if it is confirmed within this time.
pub const LEASE: Duration = Duration::from_secs(10);

/// The same where a cluster reigns. No home's commits depend on it, they have leases of their own; it only keeps a second
/// cluster off while the first one lives, and is what a cluster that has lost all its disks waits for.
pub const CLUSTER_LEASE: Duration = Duration::from_secs(4);

/// How long the archive is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Archived rows, and rows without an end of their own, go when they are older than this many seconds; `None` keeps
    /// them for ever.
    pub max_age_secs: Option<u64>,
    /// At most this many archived rows per account, oldest go first; `None` is no bound.
    pub max_rows: Option<u64>,
}

impl Retention {
    /// The moment before which rows are too old, if there is one.
    pub fn cutoff(&self, now: Timestamp) -> Option<Timestamp> {
        self.max_age_secs.map(|age| Timestamp(now.0.saturating_sub(age.saturating_mul(1_000_000))))
    }
}

/// Re-exported so that back ends name one crate.
pub type StoredCredentials = Credentials;
