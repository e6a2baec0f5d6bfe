//! How many addresses outside the roster an account writes to (`limits.rate.distinct_recipients`): a human writes to a
//! few, a spammer to many.

use starling_xmpp::BareJid;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The addresses of one account in the present window. Holds hashes, not addresses.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    since: Duration,
    seen: HashSet<u64>,
}

impl Strangers {
    /// Whether one more message may go there; `most` addresses per `window`.
    pub(crate) fn allow(
        &mut self,
        to: &BareJid,
        most: usize,
        window: Duration,
        now: Duration,
        hasher: &RandomState,
    ) -> bool {
        if now.saturating_sub(self.since) >= window {
            self.since = now;
            self.seen = HashSet::new();
        }
        let hash = hasher.hash_one(to.as_str());
        if self.seen.contains(&hash) {
            return true;
        }
        self.seen.len() < most && self.seen.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_addresses_are_counted_and_known_ones_are_free() {
        let (hasher, window) = (RandomState::new(), Duration::from_secs(60));
        let mut strangers = Strangers::default();
        let jid = |n: usize| BareJid::parse(&format!("u{n}@localhost")).unwrap();
        let mut at =
            |n: usize, secs: u64| strangers.allow(&jid(n), 3, window, Duration::from_secs(secs), &hasher);
        assert!(at(1, 100) && at(2, 100) && at(3, 100));
        assert!(!at(4, 101), "a fourth address in one window");
        assert!(at(2, 102), "a known one is free");
        assert!(at(4, 161), "the next window");
    }
}
