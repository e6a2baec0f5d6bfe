//! What is written with a condition: one value each, changed as one, whatever becomes of the answer.

use crate::cql::{Level, ReignRow};
use bytes::Bytes;
use starling_store::AccountRow;
use starling_xmpp::BareJid;
use std::collections::HashMap;

/// A value that was decided, and what a plain read shows until the decision has got about.
#[derive(Debug, Clone, Default)]
pub(super) struct Register<T> {
    decided: T,
    shown: T,
}

/// All of them.
#[derive(Default)]
pub(super) struct Registers {
    pub(super) accounts: HashMap<BareJid, Register<Option<AccountRow>>>,
    pub(super) settings: HashMap<String, Register<Option<Bytes>>>,
    pub(super) reign: Register<Option<ReignRow>>,
}

impl<T: Clone> Register<T> {
    /// A read. One that sees what was decided brings it about.
    pub(super) fn read(&mut self, level: Level) -> T {
        if level == Level::Serial {
            self.spread();
        }
        self.shown.clone()
    }

    /// A conditional write: brings an earlier one about, then gives a new value if it is so decided.
    pub(super) fn change(&mut self, change: impl FnOnce(&T) -> Option<T>) -> bool {
        self.spread();
        let after = change(&self.decided);
        let applied = after.is_some();
        if let Some(after) = after {
            self.decided = after;
        }
        applied
    }

    /// What was decided is what every read shows.
    pub(super) fn spread(&mut self) {
        self.shown = self.decided.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_shows_once_somebody_asks_for_it() {
        let mut register = Register::<u8>::default();
        assert!(register.change(|old| (*old == 0).then_some(1)));
        assert!(!register.change(|old| (*old == 0).then_some(2)));
        assert_eq!(register.read(Level::Quorum), 1);
        assert!(register.change(|_| Some(3)));
        assert_eq!(register.read(Level::Quorum), 1);
        assert_eq!(register.read(Level::Serial), 3);
        assert_eq!(register.read(Level::Quorum), 3);
    }
}
