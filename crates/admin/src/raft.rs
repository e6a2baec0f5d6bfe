//! What administration asks of a router of a cluster: how its groups stand, and who is where.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use starling_xmpp::BareJid;

use crate::control::ControlError;

/// The calls that only a router of a cluster answers.
pub trait Raft: Send + Sync {
    /// How all groups stand, as far as this router knows.
    fn standing(&self) -> Standing;

    /// Has a shard led by another router. Whoever leads it is asked.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a shard or a router that is not there, [`ControlError::Unavailable`].
    fn transfer(&self, shard: u16, to: String) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Has a router taken out of all groups. Its process ends, or should have ended.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Unavailable`] while it is still a member: to be asked again.
    fn remove(&self, router: String) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Makes snapshots of one shard, or of all, at this router.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a shard that is not there, [`ControlError::Unavailable`].
    fn snapshot(&self, shard: Option<u16>) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Brings the number of voters of every shard to this one. In steps, none of which costs a quorum.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] when it cannot be, [`ControlError::Unavailable`] when it is not done: to be asked again.
    fn reconcile(&self, voters: usize) -> BoxFuture<'_, Result<Reconciled, ControlError>>;

    /// What a cluster has to know that comes after this one.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`] while this router belongs to none.
    fn record(&self) -> Result<Record, ControlError>;

    /// Founds a cluster that comes after the one of `record`, with so many routers with empty disks at the least.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] when a cluster lives or too few routers are there, [`ControlError::Unavailable`].
    fn restore(&self, record: Record, routers: usize) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Where the sessions of an account are, as it is recorded.
    fn find(&self, account: BareJid) -> Vec<Place>;
}

/// `GET /v1/raft`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Number of the cluster, in hexadecimal digits; empty while this router belongs to none.
    pub cluster: String,
    /// Name of the router that says all this.
    pub router: String,
    /// All routers.
    pub routers: Vec<RouterRow>,
    /// All shards, in order.
    pub shards: Vec<ShardRow>,
}

/// A router of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouterRow {
    /// Identity of its disk, in hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is reached, `host:port`.
    pub address: String,
    /// It votes in all groups.
    pub votes: bool,
    /// There is a link to it, or it is the one that answers.
    pub linked: bool,
    /// How many shards it leads.
    pub leads: usize,
    /// Microseconds that a question to it and back took lately.
    pub round_trip: Option<u64>,
}

/// A shard's group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShardRow {
    /// Its number.
    pub shard: u16,
    /// Name of the router that leads it.
    pub leader: Option<String>,
    /// Term of the last vote.
    pub term: u64,
    /// The last reign.
    pub epoch: u64,
    /// Sessions that are recorded.
    pub sessions: u64,
    /// Index of the last entry in the log here.
    pub last: u64,
    /// Index of the last entry that is applied here.
    pub applied: u64,
    /// Index up to which there is a snapshot here.
    pub snapshot: u64,
    /// Milliseconds since a quorum last confirmed a leader, as far as the router that answers has heard since it was started.
    pub confirmed: u64,
    /// Names of routers that take part and do not vote yet.
    pub learners: Vec<String>,
    /// How far each router has the log, by name; only where the leader answers.
    pub replicated: Vec<(String, u64)>,
}

/// `POST /v1/raft/transfer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Which shard.
    pub shard: u16,
    /// Name or identity of the router that is to lead it.
    pub to: String,
}

/// `POST /v1/raft/remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Name or identity of the router.
    pub router: String,
}

/// `POST /v1/raft/snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Which shard; all when absent.
    pub shard: Option<u16>,
}

/// `POST /v1/raft/reconcile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// How many are to vote in every shard.
    pub voters: usize,
}

/// The answer to it: names of routers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reconciled {
    /// They vote.
    pub voters: Vec<String>,
    /// They take part without a vote.
    pub spare: Vec<String>,
    /// They were removed.
    pub removed: Vec<String>,
}

/// `GET /v1/raft/record`: all that outlives a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Number of the cluster, in hexadecimal digits.
    pub cluster: String,
    /// Into how many shards accounts are sorted.
    pub shards: u16,
    /// Its era: epochs of later clusters are above those of this one.
    pub era: u64,
    /// Above all positions that it can have given when this was written.
    pub ceiling: u64,
}

/// `POST /v1/raft/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Of the cluster that was lost.
    pub record: Record,
    /// How many routers have to be linked.
    pub routers: usize,
}

/// `GET /v1/places?jid`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Places {
    /// In the order of their addresses.
    pub places: Vec<Place>,
}

/// Where a session is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Its full JID.
    pub jid: String,
    /// The shard of its account.
    pub shard: u16,
    /// Name of the router that is its home.
    pub home: Option<String>,
    /// The reign of that.
    pub epoch: u64,
    /// Name of the edge that has its socket, or had it last; its number in hexadecimal digits where it is not linked.
    pub edge: String,
    /// That edge is linked to the router that answers.
    pub linked: bool,
    /// How often it was resumed elsewhere.
    pub moves: u64,
}
