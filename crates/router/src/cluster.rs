//! What the homes of one shard need of the cluster around them: who says that they reign, where it is written down who is
//! where, the way to homes of other shards, and to edges.
//!
//! Homes know no link, no Raft group and no other process. They are handed what came ([`Door`](crate::Door)), and hand on what
//! is to go.

use crate::config::RouterConfig;
use futures::future::BoxFuture;
use starling_hooks::{Hooks, Server};
use starling_node::{Metrics, SharedClock, Tracer};
use starling_store::{Position, SharedStore};
use starling_wire::frame::PeerItem;
use starling_wire::{EdgeId, EdgeLink, Epoch, Shard, Shards, Token};
use starling_xmpp::{BareJid, FullJid};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A reign over one shard, as long as it lasts.
#[derive(Debug, Clone)]
pub struct Reigning {
    /// Which one.
    pub epoch: Epoch,
    /// All its positions are above.
    pub floor: Position,
    /// Positions below this one are granted. It rises.
    pub ceiling: Arc<AtomicU64>,
    /// When its lease ends, in microseconds of monotonic time. 0: the reign is over.
    pub until: Arc<AtomicU64>,
    /// For how long there have been homes of the shard before it, each moved on purpose to the next.
    pub age: Duration,
}

/// A change of who is where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocationOp {
    /// A session is bound, in place of whichever had its address.
    Bind {
        /// Its address.
        jid: FullJid,
        /// Its secret name.
        token: Token,
        /// The edge that has its socket.
        edge: EdgeId,
    },
    /// A session goes on at another edge.
    Move {
        /// Its address.
        jid: FullJid,
        /// Its secret name.
        token: Token,
        /// The edge that has its socket now.
        edge: EdgeId,
        /// Names the attempt; not 0. The same attempt twice is one.
        attempt: u64,
    },
    /// A session has ended.
    Unbind {
        /// Its address.
        jid: FullJid,
        /// Its secret name.
        token: Token,
    },
}

/// Why a change is not known to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It may be.
    #[error("it is not known whether it was recorded")]
    Unknown,
    /// It is not: somebody else reigns.
    #[error("another router leads the shard")]
    NotLeader,
    /// It is not: there is too much to do, or no more room.
    #[error("too much is being recorded")]
    Busy,
}

/// A session as the locations have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub jid: FullJid,
    /// Its secret name.
    pub token: Token,
    /// The attempt of the move that brought it there; 0 where it was bound there.
    pub attempt: u64,
    /// The edge that has its socket, or had it last.
    pub edge: EdgeId,
}

/// The shard's locations, for the reign that holds them.
pub trait Register: Send + Sync + 'static {
    /// Records changes; all or none of them. Resolves when a quorum has them.
    fn record(&self, ops: Vec<LocationOp>) -> BoxFuture<'static, Result<(), RecordError>>;

    /// An account's sessions, as recorded by now.
    fn places(&self, account: &BareJid) -> Vec<Place>;

    /// All sessions of the shard, as recorded by now, in no order.
    fn each(&self, visit: &mut dyn FnMut(&FullJid, Token, EdgeId));
}

/// The way to homes of other shards, in this process or another.
pub trait Post: Send + Sync + 'static {
    /// Hands something over to the home of that shard; what goes to one shard arrives in order, or not. Never blocks. False: no
    /// home of the shard is known, and nothing was sent. The reign that is named in a forward is for the post to fill in.
    fn send(&self, to: Shard, item: PeerItem) -> bool;
}

/// The way to edges, tagged with the shard and its reign.
pub trait Edges: EdgeLink {
    /// What is delivered to this edge from now on goes over this link, whose number came with
    /// [`Door::edge`](crate::Door::edge). What was for it since its last link ended is dropped: it comes again.
    fn open(&self, edge: EdgeId, link: u64);

    /// Whether so much waits to be sent to this edge that what can wait is to wait at its home.
    fn is_pressed(&self, _edge: EdgeId) -> bool {
        false
    }
}

/// What the homes of one shard are made of.
pub struct ShardParts {
    /// Bounds and policies.
    pub config: RouterConfig,
    /// What is the same for all accounts.
    pub server: Arc<Server>,
    /// The modules.
    pub hooks: Arc<Hooks>,
    /// Where everything is kept.
    pub store: SharedStore,
    /// Where sessions are.
    pub edges: Arc<dyn Edges>,
    /// Where it is written down.
    pub register: Arc<dyn Register>,
    /// The way to other shards.
    pub post: Arc<dyn Post>,
    /// The time.
    pub clock: SharedClock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is traced.
    pub tracer: Tracer,
    /// Which shard.
    pub shard: Shard,
    /// Of how many.
    pub shards: Shards,
    /// Its reign.
    pub reign: Reigning,
}

/// What a reign over one shard has beside what every reign has.
pub(crate) struct Tier {
    pub(crate) shard: Shard,
    pub(crate) shards: Shards,
    pub(crate) edges: Arc<dyn Edges>,
    pub(crate) register: Arc<dyn Register>,
    pub(crate) post: Arc<dyn Post>,
}
