//! What a home knows of an account while it decides. Only facts that two or more hooks read on the hot path.

use compact_str::CompactString;
use starling_store::Roster;
use starling_wire::Token;
use starling_xmpp::{BareJid, FullJid, Jid, Stanza};
use std::collections::BTreeSet;

/// The facts on one account.
#[derive(Debug)]
pub struct Account {
    /// Who it is.
    pub jid: BareJid,
    /// Its roster, hidden items too.
    pub roster: Roster,
    /// Whom it blocks.
    pub blocked: BlockList,
    /// What it wants archived.
    pub archive: ArchivePreferences,
    /// Its bound sessions, detached ones too, in order of binding.
    pub sessions: Vec<Session>,
}

impl Account {
    /// The session with this name.
    pub fn session(&self, token: Token) -> Option<&Session> {
        self.sessions.iter().find(|session| session.token == token)
    }

    /// The session with this full JID.
    pub fn resource(&self, jid: &Jid) -> Option<&Session> {
        self.sessions.iter().find(|session| session.jid.as_str() == jid.as_str())
    }

    /// Sessions that are available.
    pub fn available(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter(|session| session.is_available())
    }
}

/// The facts on one session.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub token: Token,
    /// Its full JID.
    pub jid: FullJid,
    /// Its last broadcast presence, while it is available.
    pub presence: Option<Stanza>,
    /// Priority of that presence.
    pub priority: i8,
    /// Has asked for the roster: gets pushes (RFC 6121 §2.2).
    pub interested: bool,
    /// Has asked for the block list: gets pushes (XEP-0191 §3.4).
    pub watches_blocks: bool,
    /// Has switched carbons on (XEP-0280).
    pub carbons: bool,
    /// The user looks at it (XEP-0352); true unless the client says otherwise.
    pub active: bool,
    /// Where directed presence was sent and not taken back, exact addresses (RFC 6121 §4.6).
    pub directed: BTreeSet<Jid>,
}

impl Session {
    /// A session just bound.
    pub fn new(token: Token, jid: FullJid) -> Self {
        Self {
            token,
            jid,
            presence: None,
            priority: 0,
            interested: false,
            watches_blocks: false,
            carbons: false,
            active: true,
            directed: BTreeSet::new(),
        }
    }

    /// Has sent presence and not taken it back.
    pub fn is_available(&self) -> bool {
        self.presence.is_some()
    }

    /// Gets messages sent to the bare JID (RFC 6121 §8.5.2).
    pub fn takes_bare(&self) -> bool {
        self.is_available() && self.priority >= 0
    }
}

/// Whom an account blocks (XEP-0191): each item a full JID, bare JID, domain with resource or domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockList {
    items: BTreeSet<Jid>,
}

impl BlockList {
    /// Of these items.
    pub fn of(items: impl IntoIterator<Item = Jid>) -> Self {
        Self { items: items.into_iter().collect() }
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = &Jid> {
        self.items.iter()
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether this very item is on the list.
    pub fn contains(&self, item: &Jid) -> bool {
        self.items.contains(item)
    }

    /// Adds an item; false if it was there.
    pub fn insert(&mut self, item: Jid) -> bool {
        self.items.insert(item)
    }

    /// Removes an item; false if it was not there.
    pub fn remove(&mut self, item: &Jid) -> bool {
        self.items.remove(item)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// Whether stanzas from or to this address are blocked (XEP-0191 §3.1: user@domain/resource, user@domain,
    /// domain/resource, domain).
    pub fn blocks(&self, jid: &Jid) -> bool {
        if self.items.is_empty() {
            return false;
        }
        self.items.iter().any(|item| {
            if item.domain() != jid.domain() {
                return false;
            }
            match (item.local(), item.resource()) {
                (Some(_), Some(_)) => item.as_str() == jid.as_str(),
                (Some(local), None) => jid.local() == Some(local),
                (None, Some(resource)) => jid.resource() == Some(resource),
                (None, None) => true,
            }
        })
    }
}

/// XEP-0441 default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveDefault {
    /// Everything.
    #[default]
    Always,
    /// Nothing.
    Never,
    /// Contacts on the roster.
    Roster,
}

/// What an account wants archived (XEP-0441).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchivePreferences {
    /// For whoever is in neither list.
    pub default: ArchiveDefault,
    /// Always archived.
    pub always: BTreeSet<Jid>,
    /// Never archived.
    pub never: BTreeSet<Jid>,
}

/// A resource name a home makes up.
pub type ResourceName = CompactString;
