//! What all workers of a reign share: of all accounts, or of one shard of a cluster.

use crate::behind::Behind;
use crate::cluster::{ShardParts, Tier};
use crate::config::RouterConfig;
use crate::fence::Fence;
use crate::mail;
use crate::msg::{Forward, Msg};
use crate::overtaken::Overtaken;
use crate::positions::Positions;
use crate::router::RouterParts;
use futures::future::BoxFuture;
use starling_hooks::{Hooks, Server};
use starling_node::{Metrics, SharedClock, Tracer};
use starling_store::{SharedStore, StoreError};
use starling_wire::channel::Inbox;
use starling_wire::{EdgeLink, Shard};
use starling_xmpp::{BareJid, Timestamp};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

/// Runs a task elsewhere.
pub(crate) type Spawn = fn(BoxFuture<'static, ()>);

pub(crate) struct Shared {
    pub(crate) config: RouterConfig,
    pub(crate) server: Arc<Server>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) store: SharedStore,
    pub(crate) edge: Arc<dyn EdgeLink>,
    pub(crate) inboxes: Vec<Arc<Inbox<Msg>>>,
    pub(crate) clock: SharedClock,
    pub(crate) positions: Positions,
    pub(crate) fence: Fence,
    /// What is not to be taken, for what was sent before it is not confirmed.
    pub(crate) behind: Behind,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Tracer,
    /// When this reign began (monotonic): every session of an earlier one ended unresumed then.
    pub(crate) began: Duration,
    /// For how long there had been homes of the shard before it.
    pub(crate) age: Duration,
    /// Presence that comes behind what its sender has said since.
    pub(crate) overtaken: Overtaken,
    /// Chooses workers and hides addresses; decides nothing.
    pub(crate) hasher: std::hash::RandomState,
    /// Where questions are worked out that may take long; `None` for in between.
    pub(crate) spawn: Option<Spawn>,
    /// The cluster, of which this is one shard.
    pub(crate) tier: Option<Tier>,
}

impl Shared {
    /// Begins a reign and gets its first grant.
    ///
    /// # Errors
    /// When the store cannot begin one.
    pub(crate) async fn begin(
        parts: RouterParts,
        workers: usize,
        spawn: Option<Spawn>,
    ) -> Result<Arc<Self>, StoreError> {
        let RouterParts { config, server, hooks, store, edge, clock, metrics, tracer, claim, .. } = parts;
        let positions = Positions::open(&store, claim, config.alone).await?;
        let began = clock.monotonic();
        if !positions.are_alone() {
            let ceiling = positions.wanted(Timestamp(clock.now_micros()));
            store.grant(positions.epoch(), ceiling).await?;
            positions.granted(ceiling, began);
        }
        Ok(Arc::new(Self {
            config,
            server,
            hooks: Arc::new(hooks),
            store,
            edge,
            inboxes: (0..workers.max(1)).map(|_| Arc::new(Inbox::default())).collect(),
            clock,
            positions,
            fence: Fence::default(),
            behind: Behind::default(),
            metrics,
            tracer,
            began,
            age: Duration::ZERO,
            overtaken: Overtaken::new(began),
            hasher: std::hash::RandomState::new(),
            spawn,
            tier: None,
        }))
    }

    /// A reign over one shard that others have begun and keep. It has one worker.
    pub(crate) fn of_shard(parts: ShardParts, spawn: Option<Spawn>) -> Arc<Self> {
        let ShardParts { config, server, hooks, store, edges, register, post, .. } = parts;
        let ShardParts { clock, metrics, tracer, shard, shards, reign, .. } = parts;
        let (began, age) = (clock.monotonic(), reign.age);
        Arc::new(Self {
            config,
            server,
            hooks,
            store,
            edge: Arc::clone(&edges) as Arc<dyn EdgeLink>,
            inboxes: vec![Arc::default()],
            clock,
            positions: Positions::of(reign),
            fence: Fence::default(),
            behind: Behind::default(),
            metrics,
            tracer,
            began,
            age,
            overtaken: Overtaken::new(began),
            hasher: std::hash::RandomState::new(),
            spawn,
            tier: Some(Tier { shard, shards, edges, register, post }),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_micros())
    }

    /// The worker that has an account's home.
    pub(crate) fn worker_of(&self, account: &BareJid) -> usize {
        let workers = self.inboxes.len() as u64;
        usize::try_from(self.hasher.hash_one(account.as_str()) % workers).unwrap_or(0)
    }

    /// The inbox of that worker.
    pub(crate) fn inbox_of(&self, account: &BareJid) -> &Arc<Inbox<Msg>> {
        &self.inboxes[self.worker_of(account)]
    }

    /// Hands a message to the home of its account.
    pub(crate) fn send(&self, account: &BareJid, msg: Msg) {
        self.inbox_of(account).push(msg);
    }

    /// The shard of an account whose home is not of this reign.
    pub(crate) fn elsewhere(&self, account: &BareJid) -> Option<Shard> {
        let tier = self.tier.as_ref()?;
        let shard = tier.shards.of(account);
        (shard != tier.shard).then_some(shard)
    }

    /// Hands a stanza to the home of its account, wherever that is. False: there is none now.
    pub(crate) fn forward(&self, forward: Forward) -> bool {
        match (self.elsewhere(&forward.account), &self.tier) {
            (Some(shard), Some(tier)) => tier.post.send(shard, mail::forward(self, shard, forward)),
            _ => {
                self.send(&forward.account.clone(), Msg::Forward(Box::new(forward)));
                true
            }
        }
    }

    /// What was looked up goes back to the home that asked.
    pub(crate) fn answer(&self, msg: Msg) {
        if let Some(account) = msg.account().cloned() {
            self.send(&account, msg);
        }
    }

    /// Another reign has begun: nothing is written, answered or taken any more.
    pub(crate) fn fence(&self) {
        if self.fence.raise() {
            tracing::error!(event = "fenced", "another server has taken over the store; all sessions end");
            self.positions.close();
            for inbox in &self.inboxes {
                inbox.push(Msg::Fenced);
            }
        }
    }
}
