//! What all workers of a router share.

use crate::config::RouterConfig;
use crate::msg::Msg;
use crate::positions::Positions;
use starling_hooks::{Hooks, Server};
use starling_node::{Metrics, SharedClock, Tracer};
use starling_store::SharedStore;
use starling_wire::EdgeLink;
use starling_wire::channel::Inbox;
use starling_xmpp::{BareJid, Timestamp};
use std::hash::BuildHasher;
use std::sync::Arc;

pub(crate) struct Shared {
    pub(crate) config: RouterConfig,
    pub(crate) server: Arc<Server>,
    pub(crate) hooks: Hooks,
    pub(crate) store: SharedStore,
    pub(crate) edge: Arc<dyn EdgeLink>,
    pub(crate) inboxes: Vec<Arc<Inbox<Msg>>>,
    pub(crate) clock: SharedClock,
    pub(crate) positions: Positions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Tracer,
    /// When this reign began: every session of an earlier one ended unresumed then.
    pub(crate) began: Timestamp,
    pub(crate) hasher: std::hash::RandomState,
}

impl Shared {
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
}
