//! Presence that came too late.
//!
//! When a shard moves, what other homes had sent to the last reign is passed on to the next one: at once, or much later,
//! where the last home's process stood still. By then its senders may have said something newer to the new home directly,
//! and presence that comes behind that would leave contacts with an old word for good. So a home remembers for a while
//! who has spoken to it directly. What waits for a receipt is in order without that, and answers need no order.

use parking_lot::Mutex;
use starling_xmpp::{Jid, Kind, PresenceType, Stanza};
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Other homes know of a new reign by then: later, nothing that is passed on can be the newest.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
/// Pairs that are remembered; 16 bytes each. Of more none is passed on.
const MOST: usize = 65_536;

/// Who has said something to this reign, and to whom, in its first minute.
#[derive(Debug)]
pub(crate) struct Overtaken {
    began: Duration,
    early: AtomicBool,
    spoken: Mutex<HashSet<u64>>,
}

impl Overtaken {
    /// Of a reign that begins at this moment (monotonic).
    pub(crate) fn new(began: Duration) -> Self {
        Self { began, early: AtomicBool::new(true), spoken: Mutex::default() }
    }

    /// Whether this is presence that a home before this one has passed on, and not the newest of its sender.
    pub(crate) fn is(&self, stanza: &Stanza, passed: bool, now: Duration) -> bool {
        let Kind::Presence(PresenceType::Available | PresenceType::Unavailable) = stanza.kind else {
            return false;
        };
        if !self.early.load(Relaxed) {
            return passed;
        }
        if now >= self.began + KNOWN_WITHIN {
            self.early.store(false, Relaxed);
            *self.spoken.lock() = HashSet::new();
            return passed;
        }
        let Some(to) = &stanza.to else { return false };
        let pair = |to: &str| {
            let from = stanza.from.as_ref().map(Jid::as_str);
            BuildHasherDefault::<DefaultHasher>::default().hash_one((from, to))
        };
        let mut spoken = self.spoken.lock();
        if passed {
            // What is said to all of an account's devices is said to each.
            let newer = |to: &str| spoken.contains(&pair(to));
            return spoken.len() >= MOST || newer(to.as_str()) || newer(to.to_bare().as_str());
        }
        if spoken.len() < MOST {
            spoken.insert(pair(to.as_str()));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(kind: PresenceType, from: &str) -> Stanza {
        let mut stanza = Stanza::presence(kind).to(Jid::parse("bob@localhost").unwrap());
        stanza.from = Some(Jid::parse(from).unwrap());
        stanza
    }

    #[test]
    fn an_older_word_is_not_the_last_one() {
        use PresenceType::{Available, Subscribe, Unavailable};
        let secs = Duration::from_secs;
        let overtaken = Overtaken::new(secs(100));
        let mut directed = presence(Available, "alice@localhost/phone");
        directed.to = Some(Jid::parse("bob@localhost/desk").unwrap());
        let is = |kind, from, passed, at| overtaken.is(&presence(kind, from), passed, secs(at));
        assert!(!is(Available, "alice@localhost/phone", true, 101), "nothing newer is known");
        assert!(!is(Unavailable, "alice@localhost/phone", false, 101));
        assert!(is(Available, "alice@localhost/phone", true, 102));
        assert!(overtaken.is(&directed, true, secs(102)), "she has left, for that device too");
        assert!(!is(Available, "alice@localhost/tablet", true, 102), "of another resource");
        assert!(!is(Subscribe, "alice@localhost/phone", true, 102));
        assert!(is(Available, "alice@localhost/tablet", true, 161), "its home knows this one since long");
        assert!(!is(Available, "alice@localhost/phone", false, 161));
    }
}
