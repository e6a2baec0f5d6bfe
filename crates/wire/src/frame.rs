//! What goes over a link between processes, as the program sees it; [`codec`](crate::codec) makes messages of it.

use crate::{EdgeId, Epoch, Incarnation, RouterId, Shard, Shards, ToEdge, ToHome, Token, Trace, TraceRule};
use bytes::Bytes;
use starling_store::Origin;
use starling_xmpp::{BareJid, Stanza};
use std::time::Duration;

/// What must fit before two processes speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Changes when old and new cannot understand one another.
    pub major: u32,
    /// What is newer than both know is not used between them.
    pub minor: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// How many shards there are.
    pub shards: u32,
    /// How accounts are sorted into them.
    pub hash: String,
}

/// The major version that this build speaks.
pub const MAJOR: u32 = 1;
/// The newest minor version that this build knows.
pub const MINOR: u32 = 1;
/// The minor version from which on an edge answers [`RouterItem::Ask`].
const ANSWERS: u32 = 1;

impl Version {
    /// What this build speaks, in a cluster of this name with so many shards.
    pub fn own(cluster: &str, shards: Shards) -> Self {
        let shards = u32::from(shards.count());
        Self {
            major: MAJOR,
            minor: MINOR,
            cluster: cluster.to_owned(),
            shards,
            hash: Shards::HASH.to_owned(),
        }
    }

    /// Whether an edge of this version answers [`RouterItem::Ask`].
    pub fn answers(&self) -> bool {
        self.minor >= ANSWERS
    }

    /// Why this side, which calls itself `own`, must not speak to that one; `None` if it may.
    pub fn refuses(&self, own: &str, peer: &Self, other: &str) -> Option<String> {
        // Both sides read this, and each would take "here" for itself.
        let differ = |what: &str, this: &dyn std::fmt::Display, that: &dyn std::fmt::Display| {
            Some(format!("{what} differs: {this} at {own:?} and {that} at {other:?}"))
        };
        if self.major != peer.major {
            return differ("protocol version", &self.major, &peer.major);
        }
        if self.cluster != peer.cluster {
            return differ("cluster", &self.cluster, &peer.cluster);
        }
        if self.shards != peer.shards {
            return differ("number of shards", &self.shards, &peer.shards);
        }
        if self.hash != peer.hash {
            return differ("hash of shards", &self.hash, &peer.hash);
        }
        None
    }
}

/// How an edge begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeHello {
    /// Must fit.
    pub version: Version,
    /// One life of its process.
    pub edge: EdgeId,
    /// For people.
    pub name: String,
}

/// How a router answers an edge.
#[derive(Clone, PartialEq, Eq)]
pub struct RouterHello {
    /// Must fit.
    pub version: Version,
    /// Its disk.
    pub router: RouterId,
    /// For people.
    pub name: String,
    /// One life of its process.
    pub incarnation: Incarnation,
    /// The shards that it is the home of.
    pub homes: Vec<Home>,
    /// From which the keys of accounts that do not exist are made.
    pub decoy_secret: Bytes,
    /// Stream features of the homes' modules, each an element.
    pub features: Vec<Bytes>,
    /// Where all routers of the cluster are, as far as it knows, each `host:port`.
    pub routers: Vec<String>,
}

impl std::fmt::Debug for RouterHello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, router, name, incarnation, homes, .. } = self;
        f.debug_struct("RouterHello")
            .field("version", version)
            .field("router", router)
            .field("name", name)
            .field("incarnation", incarnation)
            .field("homes", homes)
            .finish_non_exhaustive()
    }
}

/// How routers begin and answer one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// Must fit.
    pub version: Version,
    /// Its disk.
    pub router: RouterId,
    /// For people.
    pub name: String,
    /// One life of its process.
    pub incarnation: Incarnation,
    /// The shards that it is the home of.
    pub homes: Vec<Home>,
    /// What the locations tell one another.
    pub notes: Bytes,
    /// In the answer to a link: how many forwards without a ticket have come of the process that begins it, over all its links.
    pub heard: Option<u64>,
}

/// The sender is the home of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Which.
    pub shard: Shard,
    /// In which reign.
    pub epoch: Epoch,
}

/// The sender is not the home of a shard, or not in the reign that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHome {
    /// Which.
    pub shard: Shard,
    /// The highest reign that it knows of.
    pub epoch: Epoch,
    /// Whom it believes to be the home.
    pub hint: Option<RouterId>,
}

/// What an edge says over a link, one by one.
#[allow(clippy::large_enum_variant)] // nearly all are of the large one
#[derive(Debug)]
pub enum EdgeItem {
    /// Records of all sessions of the shard follow.
    AttachBegin(Home),
    /// That was all of them.
    AttachEnd(Home),
    /// For the shard's home in this reign.
    Up(Home, ToHome),
    /// It is leaving, and so far with it.
    Leaving(Leaving),
    /// It has taken all that came before this [`RouterItem::Ask`].
    Heard(u64),
}

/// How far a process is with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaving {
    /// Which step it is at, from 1.
    pub phase: u32,
    /// What is still there.
    pub left: u64,
}

/// What came of an edge, as much as belongs together.
#[derive(Debug)]
pub struct UpBatch {
    /// Shard and reign that the edge means; others are answered by `NotHome`.
    pub home: Home,
    /// All sessions of the shard follow, up to `attach_end` of this or a later batch.
    pub attach_begin: bool,
    /// In order.
    pub ups: Vec<ToHome>,
    /// All sessions have been told.
    pub attach_end: bool,
}

/// What a router says to an edge, one by one.
#[allow(clippy::large_enum_variant)] // nearly all are of the large one
#[derive(Debug)]
pub enum RouterItem {
    /// A reign has begun.
    Home(Home),
    /// It is not the home.
    NotHome(NotHome),
    /// Of the shard's home in this reign.
    Down(Home, ToEdge),
    /// Where all routers of the cluster are now.
    Routers(Vec<String>),
    /// Accounts whose stanzas are traced for a while, or no longer.
    Traces(Vec<TraceRule>),
    /// Administration wants the edge to leave.
    Leave,
    /// The edge is to say when it has taken all that came before this; the number rises. Not for one that
    /// [answers nothing](Version::answers).
    Ask(u64),
}

/// What an edge says of the traces that it has begun by rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceReport {
    /// Which edge.
    pub edge: EdgeId,
    /// Whether it records spans at all.
    pub records: bool,
    /// Rules, and how many traces were begun by each.
    pub counts: Vec<(u64, u32)>,
}

/// What came of a router.
#[derive(Debug)]
pub enum RouterNews {
    /// A reign has begun.
    Home(Home),
    /// It is not the home.
    NotHome(NotHome),
    /// Of the shard's home in this reign, in order.
    Downs(Home, Vec<ToEdge>),
}

/// Homes that a stanza may pass: a reply to a reply is no loop, more is.
pub const MAX_HOPS: u8 = 8;

/// Without a link for so long, an edge is taken for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);

/// What routers say to one another.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerItem {
    /// A reign has begun.
    Home(Home),
    /// It is not the home.
    NotHome(NotHome),
    /// A stanza for the home of another account.
    Forward(Box<Forward>),
    /// A forward is decided.
    Receipt(Box<Receipt>),
    /// A forward came whose predecessor is not known: all of its pair after this one must come again.
    Missing(Box<Pair>, Option<u64>),
    /// A forward came for which there is no room: it and all of its pair after it must come again, later.
    Busy(Box<Pair>, u64),
    /// Of administration.
    Question {
        /// Comes back with the answer.
        id: u64,
        /// Not looked at here.
        body: Bytes,
    },
    /// The answer to a question.
    Answer {
        /// Of the question.
        id: u64,
        /// Not looked at here.
        body: Bytes,
    },
}

impl PeerItem {
    /// The same for a home, which a stanza names.
    #[must_use]
    pub fn addressed(mut self, home: Home) -> Self {
        if let Self::Forward(forward) = &mut self {
            forward.home = home;
        }
        self
    }
}

/// A stanza on its way from one home to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Shard of the recipient, and its reign as the sender knows it (0: it knows none).
    pub home: Home,
    /// Bare JID of the recipient.
    pub account: BareJid,
    /// With `to` and `from` set.
    pub stanza: Stanza,
    /// Where a receipt is awaited.
    pub ticket: Option<Ticket>,
    /// Homes that it has passed.
    pub hops: u8,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// A router that is not the recipient's home any more has passed it on: what was said later may have come before it.
    pub passed: bool,
}

/// The sender's side of a forward.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticket {
    /// The same on every retry.
    pub origin: Origin,
    /// The account whose session waits for a receipt.
    pub sender: BareJid,
    /// That session.
    pub token: Token,
    /// Its number of the stanza.
    pub sequence: u64,
    /// The last one before it of this session to this recipient that has no receipt yet.
    pub prev: Option<u64>,
    /// It may have been sent before, by this home or by one before it.
    pub again: bool,
    /// Its client may have sent it before, in a session that ended so long ago.
    pub resent: Option<Duration>,
    /// The last sequence of that session that went to a home before its present one; 0 where there was none.
    pub before: u64,
    /// Above the first of these and up to the second: what its client had said before and has not heard of. This may be among it.
    pub unheard: (u64, u64),
}

/// One session and one recipient: what has an order of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Shard of the sender, whose home is told.
    pub shard: Shard,
    /// The sending account.
    pub sender: BareJid,
    /// Its session.
    pub token: Token,
    /// Bare JID of the recipient.
    pub recipient: BareJid,
}

/// The recipient's home has done with a forward.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// Whose it was, and for whom.
    pub pair: Pair,
    /// Which one.
    pub sequence: u64,
    /// Absent: it is committed.
    pub refused: Option<Refusal>,
}

/// Why a forward was taken no further.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What its sender is told, where that is possible.
    pub answer: Option<Stanza>,
    /// It may be kept after all, under this origin.
    pub unsure: Option<Origin>,
}
