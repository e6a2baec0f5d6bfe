//! Messages of an account that were refused although they may be kept: their client was told to send them again.
//!
//! When it does, with the same `origin-id` (XEP-0359), it is the same message: it keeps its origin, so that neither log
//! has it twice (promise 2 of the design).

use crate::recognise::{Fingerprint, GRACE};
use starling_store::Origin;
use starling_wire::credit;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How many are remembered for an account: what four sessions may have had under way when its store went away.
const MOST: usize = 4 * credit::MOST;

/// The messages of one account. Holds hashes, no texts.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    entries: VecDeque<(u64, Earlier)>,
}

/// What is known of such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// Under which it may be kept.
    pub(crate) origin: Origin,
    /// When it was refused (monotonic).
    pub(crate) at: Duration,
    /// Its row in the sender's own log is confirmed, if it is to have one.
    pub(crate) kept: bool,
}

impl Refused {
    /// Remembers one.
    pub(crate) fn add(&mut self, message: &Fingerprint, earlier: Earlier, hasher: &RandomState) {
        let hash = hasher.hash_one(message);
        self.entries.retain(|(other, _)| *other != hash);
        if self.entries.len() >= MOST {
            self.entries.pop_front();
        }
        self.entries.push_back((hash, earlier));
    }

    /// What is known of a message, which is asked for only when any were refused.
    pub(crate) fn find(
        &self,
        message: impl FnOnce() -> Option<Fingerprint>,
        now: Duration,
        hasher: &RandomState,
    ) -> Option<Earlier> {
        if self.entries.is_empty() {
            return None;
        }
        let hash = hasher.hash_one(message()?);
        let (_, earlier) = self.entries.iter().find(|(other, _)| *other == hash)?;
        (now < earlier.at + GRACE).then_some(*earlier)
    }

    /// When the last of them was refused. Whatever was refused by then had left for its recipient before anything that is sent
    /// again now: a tail that is read for one of them has the rows of all.
    pub(crate) fn latest(&self) -> Option<Duration> {
        self.entries.iter().map(|(_, earlier)| earlier.at).max()
    }

    /// It is tried again: what comes of that is remembered anew. It may have another origin by now, that of its row.
    pub(crate) fn forget(&mut self, message: impl FnOnce() -> Option<Fingerprint>, hasher: &RandomState) {
        if self.entries.is_empty() {
            return;
        }
        if let Some(message) = message() {
            let hash = hasher.hash_one(message);
            self.entries.retain(|(other, _)| *other != hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_xmpp::{BareJid, Element, MessageType, Stanza, ns};

    fn message(n: usize) -> Option<Fingerprint> {
        let id = Element::new(ns::SID, "origin-id").attr("id", format!("o{n}"));
        let jid = BareJid::parse("a@localhost").unwrap();
        Fingerprint::of(&jid, &jid, &Stanza::message(MessageType::Chat).child(id))
    }

    #[test]
    fn the_last_ones_are_known_for_some_time() {
        let (mut refused, hasher) = (Refused::default(), RandomState::new());
        let at = Duration::from_secs(9);
        let earlier = |n: u64| Earlier { origin: Origin { session: 1, sequence: n }, at, kept: n == 44 };
        let last = MOST as u64 + 43;
        let at_last = last as usize;
        for n in 0..=last {
            refused.add(&message(n as usize).unwrap(), earlier(n), &hasher);
            refused.add(&message(n as usize).unwrap(), earlier(n), &hasher);
        }
        let find = |n: usize, now: Duration| refused.find(|| message(n), now, &hasher);
        assert_eq!(find(43, at), None, "forgotten");
        assert_eq!(find(44, at), Some(earlier(44)));
        assert_eq!(find(at_last, at + GRACE / 2), Some(earlier(last)));
        assert_eq!(find(at_last, at + GRACE), None, "long ago");
        assert_eq!(find(at_last + 1, at), None);
        let before = refused.entries.len();
        refused.forget(|| message(at_last + 1), &hasher);
        assert_eq!(refused.entries.len(), before);
        refused.forget(|| message(at_last), &hasher);
        assert_eq!(refused.find(|| message(at_last), at, &hasher), None, "whatever its origin was");
        assert_eq!(refused.entries.len(), before - 1);
    }
}
