//! Messages that a sender's other devices have copies of, and of which its own log has no row.
//!
//! A message that is said again is known by its row, and then nobody gets a copy a second time. Of one that its sender does not
//! keep only this tells, as long as the home is there.

use crate::recognise::Fingerprint;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// How many are remembered for an account.
const MOST: usize = 256;

/// The last ones of one account. Holds hashes, no texts.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    last: VecDeque<u64>,
}

impl Copied {
    /// Remembers one. Whether it was there already.
    pub(crate) fn has_or_adds(&mut self, message: &Fingerprint, hasher: &RandomState) -> bool {
        let hash = hasher.hash_one(message);
        if self.last.contains(&hash) {
            return true;
        }
        if self.last.len() >= MOST {
            self.last.pop_front();
        }
        self.last.push_back(hash);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_xmpp::{BareJid, Element, MessageType, Stanza, ns};

    #[test]
    fn the_last_ones_are_known() {
        let (mut copied, hasher) = (Copied::default(), RandomState::new());
        let jid = BareJid::parse("a@localhost").unwrap();
        let mut has = |n: usize| {
            let id = Element::new(ns::SID, "origin-id").attr("id", format!("o{n}"));
            let message = Fingerprint::of(&jid, &jid, &Stanza::message(MessageType::Chat).child(id));
            copied.has_or_adds(&message.unwrap(), &hasher)
        };
        assert!((0..MOST).all(|n| !has(n)) && (0..MOST).all(&mut has));
        assert!(!has(MOST) && has(1) && !has(0), "the oldest one is forgotten");
    }
}
