//! Which accounts have a commit whose outcome nobody knows, and what of that is still under way.

use super::Change;
use crate::log::Position;
use crate::rows::Batch;
use starling_xmpp::BareJid;
use std::collections::{HashMap, HashSet};
use std::mem;

#[derive(Default)]
pub(super) struct Doubts {
    accounts: HashSet<BareJid>,
    /// The highest position each account was given.
    given: HashMap<BareJid, Position>,
    late: Vec<Batch>,
}

impl Doubts {
    /// Takes note of a commit; whether one of its accounts is in doubt.
    pub(super) fn refuses(&mut self, batch: &Batch) -> bool {
        let mut refused = false;
        for write in &batch.writes {
            let given = self.given.entry(write.owner().clone()).or_default();
            *given = batch.at.max(*given);
            refused |= self.accounts.contains(write.owner());
        }
        refused
    }

    /// The outcome of this is not known.
    pub(super) fn begin(&mut self, change: &Change) {
        if let Change::Commit(batch) = change {
            self.accounts.extend(batch.writes.iter().map(|write| write.owner().clone()));
        }
    }

    /// This may come later.
    pub(super) fn delay(&mut self, change: Change) {
        if let Change::Commit(batch) = change {
            self.late.push(batch);
        }
    }

    /// What comes now.
    pub(super) fn arrive(&mut self) -> Vec<Batch> {
        mem::take(&mut self.late)
    }

    /// An account is loaded: if the floor is high enough, nothing that is late comes any more.
    pub(super) fn close(&mut self, jid: &BareJid, floor: Position) {
        if self.given.get(jid).is_some_and(|given| floor <= *given) {
            return;
        }
        self.accounts.remove(jid);
        for batch in &mut self.late {
            batch.writes.retain(|write| write.owner() != jid);
        }
    }
}
