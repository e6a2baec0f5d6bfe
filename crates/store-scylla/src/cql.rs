//! The seam between what the store decides and the server it speaks to.
//!
//! Every statement there is stands here as a method or a [`Change`], typed, so that the same decisions run on a real
//! server ([`crate::driver`]) and on a model of one that is late, loses and doubles ([`crate::model`]). One call is one
//! attempt: waiting, trying again and giving up are decided above this seam ([`crate::retry`]).

use bytes::Bytes;
use futures::future::BoxFuture;
use starling_node::Trace;
use starling_store::{AccountRow, LogRow, Position};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::time::Duration;

/// An account as the owner of rows. A deleted account that is made again is another owner: what is late finds no reader.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Its address.
    pub jid: BareJid,
    /// [`AccountRow::generation`].
    pub generation: u64,
}

/// A stretch of an owner's log that is one partition, named by the position from which it begins. Rows at or above it and
/// below the next bucket's name are in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(pub Position);

/// A run of buckets that share a partition of the index by peer, named by its first bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Volume(pub Position);

/// A partition that is written without a condition. What is in one mutation takes effect as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Partition {
    /// `account_data`: everything of an account that is not its log.
    Data(Owner),
    /// `log_buckets`: which buckets the log has.
    Buckets(Owner),
    /// `log`: the rows of one bucket.
    Log(Owner, Bucket),
    /// `log_by_peer`: where the rows with this peer are, over a volume.
    Peer(Owner, BareJid, Volume),
    /// `account_names`: accounts of a domain whose local part hashes to this slice, for listing.
    Names(String, u16),
    /// `purges`: owners whose rows are to be removed, by the day (since the epoch) on which that was noted, and slice.
    Purges(u32, u16),
}

/// Changes to one partition under one write timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Where.
    pub partition: Partition,
    /// `USING TIMESTAMP`, in microseconds: a [`Position`], which the account's home gave or passed as a floor. No clock.
    pub at: Position,
    /// What. Of two changes to one row the later one holds: whoever makes a mutation sees to it that there is one.
    pub changes: Vec<Change>,
    /// The stanzas it belongs to, those of them that are traced.
    pub traces: Vec<Trace>,
    /// The how many-th try of it this is, from 1.
    pub attempt: u32,
}

/// One change; which partition it may be in is said with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// In `Data`: a row as a whole.
    PutData(DataRow),
    /// In `Data`: this row goes.
    DropData(DataKind, String),
    /// In `Data`: all rows of a kind go.
    DropKind(DataKind),
    /// In `Buckets`: a bucket is listed (written again: the same with other numbers).
    PutBucket(BucketRow),
    /// In `Buckets`: all within the bounds, both inclusive, go.
    DropBuckets(Bucket, Bucket),
    /// In `Log`: a row; it ends by itself after so many seconds.
    PutRow(Box<StoredRow>, Option<u32>),
    /// In `Log`: all within the bounds, both inclusive, go.
    DropRows(Position, Position),
    /// In `Peer`: there is a row at this position in this bucket; it ends by itself after so many seconds.
    PutPeer(Position, Bucket, Option<u32>),
    /// In `Peer`: all within the bounds, both inclusive, go.
    DropPeers(Position, Position),
    /// In `Names`: this local part is an account's.
    PutName(String),
    /// In `Names`: it is not.
    DropName(String),
    /// In `Purges`: this owner is to be removed.
    PutPurge(PurgeRow),
    /// Anywhere: the whole partition goes.
    DropAll,
}

/// What a row of `account_data` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataKind {
    /// `name` empty: what devices have acknowledged.
    Cursor,
    /// `name` is a [`starling_store::DocKind`]'s.
    Doc,
    /// `name` says what of, `number` the reign's epoch or a position: see `codec::Mark`.
    Mark,
    /// `name` is the contact; `number` the version at which it was removed.
    Removed,
    /// `name` empty; `number` is the roster's version, `body` the 8 bytes of `removed_since`.
    RosterVersion,
    /// `name` is the contact; `number` the item's version.
    Contact,
}

impl DataKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Cursor, Self::Doc, Self::Mark, Self::Removed, Self::RosterVersion, Self::Contact];

    /// As it is stored; never changed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cursor => "cursor",
            Self::Doc => "doc",
            Self::Mark => "mark",
            Self::Removed => "removed",
            Self::RosterVersion => "roster-version",
            Self::Contact => "contact",
        }
    }

    /// From what is stored.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A row of `account_data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRow {
    /// Which of the account's things.
    pub kind: DataKind,
    /// Which one of its kind.
    pub name: String,
    /// A number that its kind gives a meaning.
    pub number: u64,
    /// The rest, encoded.
    pub body: Bytes,
}

/// A row of `log_buckets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketRow {
    /// The bucket.
    pub bucket: Bucket,
    /// The volume it belongs to.
    pub volume: Volume,
    /// How many rows it has; 0 while it is the newest.
    pub rows: u32,
}

/// A row of `purges`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeRow {
    /// Whose rows are to be removed.
    pub owner: Owner,
    /// A position above all that was written to it, by which it is removed.
    pub since: u64,
    /// They were, and are looked for once more, when nothing is under way any more.
    pub removed: bool,
}

/// A row of `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// The row.
    pub row: LogRow,
    /// The how many-th of its bucket it was when it was decided, from 1.
    pub nth: u32,
    /// About how many bytes the rows of its bucket had then, this one included.
    pub filled: u32,
    /// When it was decided, every commit to its account up to this position had ended, confirmed or not written. So what a
    /// reign that ended had under way lies above the `safe` of the newest row that it got written.
    pub safe: Position,
}

/// A row of `log` as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // nearly all are rows
pub enum Found {
    /// The row.
    Row(StoredRow),
    /// There is one at this position that cannot be read, because of this column: it is passed over.
    Unreadable(Position, &'static str),
}

impl Found {
    /// Where it is.
    pub fn position(&self) -> Position {
        match self {
            Self::Row(stored) => stored.row.position,
            Self::Unreadable(position, _) => *position,
        }
    }

    /// The row, if it can be read.
    pub fn stored(&self) -> Option<&StoredRow> {
        match self {
            Self::Row(stored) => Some(stored),
            Self::Unreadable(..) => None,
        }
    }

    /// The row, if it can be read.
    pub fn into_stored(self) -> Option<StoredRow> {
        match self {
            Self::Row(stored) => Some(stored),
            Self::Unreadable(..) => None,
        }
    }
}

/// Positions within a partition, both bounds inclusive, and which end to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Lowest position.
    pub low: Position,
    /// Highest position.
    pub high: Position,
    /// The newest `limit` rows, newest first; otherwise the oldest, oldest first.
    pub newest: bool,
    /// At most so many.
    pub limit: usize,
}

/// The row of `cluster` that says who reigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReignRow {
    /// Of the last reign.
    pub epoch: u64,
    /// Positions below it were granted.
    pub ceiling: Position,
    /// Instance that reigns; 0 after it was released.
    pub instance: u128,
    /// Its name, for people.
    pub name: String,
    /// Rises with every grant, so that a watcher sees life in it.
    pub grants: u64,
}

/// How a read is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// LOCAL_QUORUM.
    Quorum,
    /// LOCAL_SERIAL: sees what a conditional write has decided and nobody has been told yet.
    Serial,
}

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CqlError {
    /// No answer in time, or too few replicas answered: it may have been done, or may be done later.
    #[error("timed out: {0}")]
    Unknown(String),
    /// It was certainly not done, and trying again soon may help: no connection, too few replicas alive.
    #[error("unavailable: {0}")]
    Refused(String),
    /// It was certainly not done: the server, or the queue in front of it, has too much to do.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// It will fail again: rejected by the server (schema, permission, size).
    #[error("rejected: {0}")]
    Invalid(String),
    /// The answer holds what cannot be read; it will again.
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
}

/// The answer to one attempt.
pub type Answer<T> = BoxFuture<'static, Result<T, CqlError>>;

/// A CQL server.
///
/// An attempt begins with the call: a future that is dropped does not take it back.
pub trait Cql: Send + Sync + 'static {
    /// Changes one partition as one, at LOCAL_QUORUM. Idempotent.
    fn write(&self, mutation: Mutation) -> Answer<()>;

    /// All rows of `account_data` of an owner. Pages on by itself.
    fn data(&self, owner: &Owner) -> Answer<Vec<DataRow>>;

    /// Buckets, newest first: those at or below `from` (all when `None`), at most `limit`.
    fn buckets(&self, owner: &Owner, from: Option<Bucket>, limit: usize) -> Answer<Vec<BucketRow>>;

    /// Rows of one bucket.
    fn rows(&self, owner: &Owner, bucket: Bucket, slice: Slice) -> Answer<Vec<Found>>;

    /// The rows at these positions of one bucket, those that exist, in any order. At most 100 positions.
    fn rows_at(&self, owner: &Owner, bucket: Bucket, positions: Vec<Position>) -> Answer<Vec<Found>>;

    /// Where rows with a peer are.
    fn peers(
        &self,
        owner: &Owner,
        peer: &BareJid,
        volume: Volume,
        slice: Slice,
    ) -> Answer<Vec<(Position, Bucket)>>;

    /// Local parts of one slice above `after`, rising, at most `limit`.
    fn names(&self, domain: &str, slice: u16, after: Option<&str>, limit: usize) -> Answer<Vec<String>>;

    /// Owners of one day and slice that are to be removed, in some order, those behind `after`, at most `limit`.
    fn purges(&self, day: u32, slice: u16, after: Option<&Owner>, limit: usize) -> Answer<Vec<PurgeRow>>;

    /// The account's row.
    fn account(&self, jid: &BareJid, level: Level) -> Answer<Option<AccountRow>>;

    /// Creates it where there is none (LWT); whether it did.
    fn create_account(&self, jid: &BareJid, row: AccountRow) -> Answer<bool>;

    /// Replaces its keys where it is of this generation and has the keys `before` (LWT); whether it was. So what is late
    /// does not bring older keys back.
    fn set_credentials(&self, owner: &Owner, before: Credentials, after: Credentials) -> Answer<bool>;

    /// Removes it where it is of this generation (LWT); whether it was.
    fn delete_account(&self, owner: &Owner) -> Answer<bool>;

    /// A value of the cluster, by name.
    fn setting(&self, name: &str, level: Level) -> Answer<Option<Bytes>>;

    /// Makes it where there is none (LWT); whether it did.
    fn create_setting(&self, name: &str, value: Bytes) -> Answer<bool>;

    /// Who reigns, read at LOCAL_SERIAL.
    fn reign(&self) -> Answer<Option<ReignRow>>;

    /// Replaces that row where it still has this epoch and these grants (`None`: where there is none) (LWT); whether it did.
    fn set_reign(&self, before: Option<(u64, u64)>, after: ReignRow) -> Answer<bool>;

    /// Time since some moment; never goes backwards.
    fn monotonic(&self) -> Duration;

    /// Resolves when so much time has passed.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task to its end.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}
