//! What a hook may read, and the list it may add to.

use crate::account::{Account, Session};
use crate::archive_id::ArchiveIds;
use crate::domains::Domains;
use crate::effect::{Change, Effect};
use crate::passwords::Passwords;
use crate::table::Features;
use compact_str::{CompactString, format_compact};
use starling_store::SharedStore;
use starling_xmpp::{Jid, Stanza, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// The context of one decision.
pub struct Cx<'a> {
    /// The account whose home decides. Effects do not change it before the decision is over.
    pub account: &'a Account,
    /// The session of this account that the stanza came from, if it did.
    pub session: Option<&'a Session>,
    /// When it is decided.
    pub now: Timestamp,
    /// What is the same for all accounts.
    pub server: &'a Arc<Server>,
    /// What shall be done, in order.
    pub effects: &'a mut Vec<Effect>,
    /// Why the last hook decided as it did: a word for the trace.
    pub because: &'static str,
    /// Source of fresh stanza ids: unique in this process, handed in so that decisions can be replayed.
    pub next_id: &'a mut u64,
}

impl Cx<'_> {
    /// A fresh stanza id.
    pub fn fresh_id(&mut self) -> CompactString {
        *self.next_id += 1;
        format_compact!("s{:x}", *self.next_id)
    }

    /// Pushes an effect.
    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Pushes a stanza to be routed by its `to`.
    pub fn route(&mut self, stanza: Stanza) {
        self.effects.push(Effect::Route(stanza));
    }

    /// Pushes a change of the account.
    pub fn change(&mut self, change: Change) {
        self.effects.push(Effect::Change(change));
    }
}

/// What is the same for every account of a server.
pub struct Server {
    /// The domains served, the default one first.
    pub domains: Domains,
    /// Name and version told by XEP-0092.
    pub software: (&'static str, &'static str),
    /// The store, for answers that come later.
    pub store: SharedStore,
    /// Turns positions into the ids that clients see.
    pub archive_ids: ArchiveIds,
    /// What is advertised.
    pub features: Features,
    /// Bounds that hooks keep.
    pub limits: Limits,
    /// Whether in-band registration of new accounts is on.
    pub registration: bool,
    /// PBKDF2 iterations for new passwords.
    pub iterations: u32,
    /// The archive preference of accounts that have not set one.
    pub archive_default: crate::account::ArchiveDefault,
    /// Turns new passwords into keys.
    pub passwords: Arc<dyn Passwords>,
}

impl Server {
    /// Whether an address is on this server.
    pub fn is_local(&self, jid: &Jid) -> bool {
        self.domains.contains(jid.domain())
    }
}

/// Bounds that hooks keep; keys of the same name under `limits.` in the configuration.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `limits.roster.max_items`
    pub roster_items: usize,
    /// `limits.roster.max_groups`, of one item
    pub roster_groups: usize,
    /// `limits.roster.name_len`, bytes of a name or a group
    pub roster_name: usize,
    /// `limits.roster.pending_in`: subscription requests waiting for an answer
    pub pending_in: usize,
    /// `limits.blocking.max_items`
    pub blocked_items: usize,
    /// `limits.session.directed_presence`: addresses a session has sent directed presence to
    pub directed: usize,
    /// `limits.session.directed_presence_bytes`: what these take together
    pub directed_bytes: usize,
    /// `limits.session.presence_bytes`: of one presence stanza
    pub presence_bytes: usize,
    /// `limits.offline.lifetime`: how long a message waits for a device where the archive does not keep it anyway
    pub offline_lifetime: Duration,
    /// `limits.mam.page_max`, rows of one archive page
    pub mam_page: usize,
    /// `limits.mam.preferences`: addresses in the always and never lists together
    pub mam_preferences: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            roster_items: 2_000,
            roster_groups: 32,
            roster_name: 1_023,
            pending_in: 1_000,
            blocked_items: 1_000,
            directed: 1_000,
            directed_bytes: 65_536,
            presence_bytes: 32_768,
            offline_lifetime: Duration::from_secs(90 * 86_400),
            mam_page: 250,
            mam_preferences: 1_000,
        }
    }
}
