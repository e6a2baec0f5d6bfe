//! Rosters (RFC 6121 §2) as stored.

use bytes::Bytes;
use compact_str::CompactString;
use starling_xmpp::BareJid;
use std::collections::BTreeMap;

/// The four states of RFC 6121 §2.1.2.5 that a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Subscription {
    /// No subscription either way.
    #[default]
    None,
    /// The user is subscribed to the contact.
    To,
    /// The contact is subscribed to the user.
    From,
    /// Both.
    Both,
}

impl Subscription {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::To => "to",
            Self::From => "from",
            Self::Both => "both",
        }
    }

    /// The user sees the contact's presence.
    pub fn is_to(self) -> bool {
        matches!(self, Self::To | Self::Both)
    }

    /// The contact sees the user's presence.
    pub fn is_from(self) -> bool {
        matches!(self, Self::From | Self::Both)
    }

    /// The state with these two directions.
    pub fn of(to: bool, from: bool) -> Self {
        match (to, from) {
            (false, false) => Self::None,
            (true, false) => Self::To,
            (false, true) => Self::From,
            (true, true) => Self::Both,
        }
    }
}

/// One contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterItem {
    /// The contact.
    pub jid: BareJid,
    /// The user's name for it.
    pub name: Option<CompactString>,
    /// Groups, without doubles.
    pub groups: Vec<CompactString>,
    /// Who sees whom.
    pub subscription: Subscription,
    /// A subscription request of the user is waiting for the contact (`ask='subscribe'`).
    pub ask: bool,
    /// The user has approved the contact in advance (RFC 6121 §3.4).
    pub approved: bool,
    /// The contact's waiting subscription request: the whole stanza in `Stanza::encode` form. An item that is nothing
    /// but this is hidden from the client (RFC 6121 §3.1.3).
    pub pending_in: Option<Bytes>,
    /// Known to the user: set by a roster set or a subscription of theirs, not just by somebody's request.
    pub visible: bool,
    /// The roster's version when this item last changed.
    pub version: u64,
}

impl RosterItem {
    /// A contact of whom nothing is known yet.
    pub fn new(jid: BareJid) -> Self {
        Self {
            jid,
            name: None,
            groups: Vec::new(),
            subscription: Subscription::None,
            ask: false,
            approved: false,
            pending_in: None,
            visible: false,
            version: 0,
        }
    }
}

/// A whole roster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    /// Rises with each change a client can see; 0 is the empty roster that was never written.
    pub version: u64,
    /// Items by contact, hidden ones too.
    pub items: BTreeMap<BareJid, RosterItem>,
    /// Contacts removed since `removed_since`, with the version of their removal.
    pub removed: BTreeMap<BareJid, u64>,
    /// The oldest version from which `removed` is complete; a client with an older one gets the whole roster.
    pub removed_since: u64,
}

impl Roster {
    /// Takes a contact's new state. The roster's version never falls.
    pub fn put(&mut self, item: RosterItem) {
        self.version = self.version.max(item.version);
        self.removed.remove(&item.jid);
        self.items.insert(item.jid.clone(), item);
    }

    /// Takes a contact out and remembers the removal. Returns the contacts whose marks no longer fit in `keep`.
    pub fn remove(&mut self, contact: &BareJid, version: u64, keep: usize) -> Vec<BareJid> {
        self.version = self.version.max(version);
        self.items.remove(contact);
        self.removed.insert(contact.clone(), version);
        let mut forgotten = Vec::new();
        while self.removed.len() > keep {
            let oldest = self.removed.iter().min_by_key(|(_, version)| **version);
            let Some((jid, version)) = oldest.map(|(jid, version)| (jid.clone(), *version)) else { break };
            self.removed.remove(&jid);
            self.removed_since = self.removed_since.max(version);
            forgotten.push(jid);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(name: &str) -> BareJid {
        BareJid::parse(&format!("{name}@example.org")).unwrap()
    }

    #[test]
    fn drops_the_oldest_removal_and_says_from_where_the_rest_is_complete() {
        let mut roster = Roster::default();
        assert!(roster.remove(&jid("a"), 3, 2).is_empty());
        assert!(roster.remove(&jid("b"), 5, 2).is_empty());
        assert_eq!(roster.removed_since, 0);
        assert_eq!(roster.remove(&jid("c"), 6, 2), [jid("a")]);
        assert_eq!((roster.removed_since, roster.version), (3, 6));
    }

    #[test]
    fn a_contact_that_comes_back_is_no_longer_removed() {
        let mut roster = Roster::default();
        roster.remove(&jid("a"), 3, 2);
        roster.put(RosterItem { version: 4, ..RosterItem::new(jid("a")) });
        assert!(roster.removed.is_empty());
        assert_eq!(roster.version, 4);
    }
}
