//! What the writer remembers of accounts it has lately written to.

use crate::keys::Account;
use starling_store::Position;
use starling_xmpp::BareJid;
use std::collections::HashMap;
use std::mem;

/// An account's number and the position of its newest row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) account: Account,
    pub(super) last: Position,
}

/// Bounded: what was not used while half of the room filled up is forgotten.
pub(super) struct KnownAccounts {
    young: HashMap<BareJid, Known>,
    old: HashMap<BareJid, Known>,
    half: usize,
}

impl KnownAccounts {
    pub(super) fn new(room: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (room / 2).max(1) }
    }

    /// Makes room. Only between groups: within one, what the tree says lags behind what is known here.
    pub(super) fn age(&mut self) {
        if self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
    }

    pub(super) fn find(&mut self, jid: &BareJid) -> Option<&mut Known> {
        if !self.young.contains_key(jid) {
            let (jid, known) = self.old.remove_entry(jid)?;
            self.young.insert(jid, known);
        }
        self.young.get_mut(jid)
    }

    pub(super) fn insert(&mut self, jid: BareJid, known: Known) {
        self.young.insert(jid, known);
    }

    pub(super) fn remove(&mut self, jid: &BareJid) {
        self.young.remove(jid);
        self.old.remove(jid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::testing::jid;

    #[test]
    fn keeps_what_is_used_and_forgets_the_rest() {
        let mut known = KnownAccounts::new(8);
        let name = |n: u64| jid(&format!("user{n}@example.org"));
        for n in 0..100 {
            known.age();
            known.insert(name(n), Known { account: Account(n), last: Position(0) });
            assert!(known.find(&name(0)).is_some(), "used all the time");
            assert!(known.young.len() + known.old.len() <= 10);
        }
        assert!(known.find(&name(99)).is_some());
        assert!(known.find(&name(50)).is_none());
        known.remove(&name(0));
        assert!(known.find(&name(0)).is_none());
    }
}
