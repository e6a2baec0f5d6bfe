//! Row types other than the log and rosters, and the one list of writes.

use crate::log::{Cursor, LogRow, Position};
use crate::roster::{Roster, RosterItem};
use crate::{CLUSTER_LEASE, LEASE};
use bytes::Bytes;
use starling_node::Trace;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// An account as such.
#[derive(Debug, Clone)]
pub struct AccountRow {
    /// Made at random when the account is created: rows of an account that was deleted and made again never mix.
    pub generation: u64,
    /// SCRAM keys; never a password.
    pub credentials: Credentials,
    /// When it was created.
    pub created: Timestamp,
    /// Logins are refused with `account-disabled`.
    pub disabled: bool,
}

/// Small per-account documents that are read and written whole. The body's form is the business of whoever owns the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocKind {
    /// XEP-0191 block list.
    BlockList,
    /// XEP-0441 archive preferences.
    ArchivePreferences,
}

impl DocKind {
    /// Stable name, used as a key by back ends.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlockList => "block-list",
            Self::ArchivePreferences => "archive-preferences",
        }
    }

    /// All kinds.
    pub const ALL: [Self; 2] = [Self::BlockList, Self::ArchivePreferences];
}

/// What a home loads when it first touches an account.
#[derive(Debug, Clone)]
pub struct AccountState {
    /// The account.
    pub row: AccountRow,
    /// Its roster.
    pub roster: Roster,
    /// Its documents.
    pub docs: BTreeMap<DocKind, Bytes>,
    /// What its devices have acknowledged.
    pub cursor: Cursor,
    /// Position of its newest log row; `Position(0)` for an empty log.
    pub last: Position,
}

/// A reign's numbers (see the design, section 2): every start of a process or of leadership is a new one. A reign is over
/// all accounts of a store, or over those of one shard of a cluster: then epochs of different shards say nothing to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// Rises with each reign; never used twice.
    pub epoch: u64,
    /// Positions of this reign are at or above it.
    pub floor: Position,
}

impl Reign {
    /// None: for whoever has a store to itself and needs no homes, say, to fill it.
    pub const NONE: Self = Self { epoch: 0, floor: Position(0) };
}

/// Who asks for a reign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Of the installation, not of the process: kept in the data directory, which one process has to itself. Whoever
    /// holds it knows that its predecessor is dead.
    pub instance: u128,
    /// For people: host and process.
    pub name: String,
}

/// The upper half of the number of a claim that a cluster makes.
const OF_CLUSTER: u128 = 0x636c_7573_7465_7200 << 64;

impl Claim {
    /// That of a cluster, all of whose routers hold its era.
    pub fn of_cluster(cluster: u64) -> Self {
        Self { instance: OF_CLUSTER | u128::from(cluster), name: format!("cluster {cluster:016x}") }
    }

    /// How long a reign of this instance holds after a grant.
    pub fn lease(instance: u128) -> Duration {
        if instance >> 64 == OF_CLUSTER >> 64 { CLUSTER_LEASE } else { LEASE }
    }
}

/// What is committed together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Above every position given to these accounts so far, except those of the rows in it, which are not above it. In CQL
    /// the write timestamp.
    pub at: Position,
    /// In the order in which they take effect.
    pub writes: Vec<Write>,
    /// Traces of the sampled stanzas that are in it.
    pub traces: Vec<Trace>,
    /// Of the reign that has decided it; one that was followed by another fails with [`StoreError::Fenced`](crate::StoreError::Fenced).
    /// 0: of no reign, by whoever has the accounts to itself.
    pub epoch: u64,
    /// The first batch of these accounts whose answer was not known when this one was decided; `None` when all were. Should that
    /// one or one behind it have been refused, so is this: a store that commits accounts apart may not keep what was decided behind
    /// something that is missing.
    pub open: Option<Position>,
}

impl Batch {
    /// Writes without a trace, of no reign.
    pub fn of(at: Position, writes: Vec<Write>) -> Self {
        Self::under(0, at, writes)
    }

    /// Writes without a trace, of the reign with this epoch.
    pub fn under(epoch: u64, at: Position, writes: Vec<Write>) -> Self {
        Self { at, writes, traces: Vec::new(), epoch, open: None }
    }
}

/// One change. A batch of them is committed together.
#[derive(Debug, Clone)]
pub enum Write {
    /// New keys for an account that exists (password change); ignored where there is none.
    Credentials(BareJid, Box<Credentials>),
    /// Removes the account and every row of it: roster, log, documents, cursor.
    DeleteAccount(BareJid),
    /// One roster item changed; the roster's version becomes the item's.
    RosterItem(BareJid, Box<RosterItem>),
    /// A contact was removed at this roster version; the store keeps at most
    /// [`Write::MAX_REMOVED`] such marks and raises `removed_since` when it drops one.
    RosterRemove(BareJid, BareJid, u64),
    /// A document replaced; an empty body removes it.
    Doc(BareJid, DocKind, Bytes),
    /// A row appended (or the same row again).
    Append(Box<LogRow>),
    /// The cursor as it is now.
    Cursor(BareJid, Cursor),
}

impl Write {
    /// How many removal marks a roster keeps for versioning.
    pub const MAX_REMOVED: usize = 256;

    /// The account it belongs to.
    pub fn owner(&self) -> &BareJid {
        match self {
            Self::Credentials(jid, _)
            | Self::DeleteAccount(jid)
            | Self::RosterItem(jid, _)
            | Self::RosterRemove(jid, _, _)
            | Self::Doc(jid, _, _)
            | Self::Cursor(jid, _) => jid,
            Self::Append(row) => &row.owner,
        }
    }
}
