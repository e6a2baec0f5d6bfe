//! What came behind a message that was not confirmed, until its client may have heard of that.
//!
//! A client that gives up its session without having read such an error sends all of it again, in order. What had been taken
//! behind it would be recognised, and stay before it (promise 4 of the design). So the recipient's home takes nothing that was
//! sent before the sender's home knew of the refusal; from then on that home does the same itself ([`crate::link`]).

use crate::msg::Ticket;
use parking_lot::Mutex;
use smallvec::SmallVec;
use starling_wire::{Token, credit};
use starling_xmpp::BareJid;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Nothing is on its way for longer: its sender has been answered long before.
const KEPT: Duration = Duration::from_secs(30);
/// Sessions of which it is remembered, with one recipient each: a store that is away for a moment refuses what all senders of
/// a router have under way. Of more, what is sent again by a client that has given its session up may come out of order.
const MOST: usize = 32_768;
/// How often those of long ago are looked for, when there are so many.
const SWEEP: Duration = Duration::from_secs(1);
/// Stanzas of each: as many as may be under way.
const MOST_OF_ONE: usize = credit::MOST;

/// Of all recipients here. What one home is asked and told it is by one worker.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// There may be any: nobody waits for the lock otherwise.
    any: AtomicBool,
    pairs: Mutex<Pairs>,
}

#[derive(Debug, Default)]
struct Pairs {
    all: HashMap<(BareJid, Token), Known>,
    /// When those of long ago were taken out (monotonic).
    swept: Duration,
}

/// Of one session, for one account.
#[derive(Debug)]
struct Known {
    /// Those that were not confirmed, and those that came behind one and were not refused.
    all: SmallVec<[u64; 4]>,
    /// When the last of them came (monotonic).
    at: Duration,
}

impl Behind {
    /// This message is not confirmed, or comes behind one that is not.
    pub(crate) fn add(&self, recipient: &BareJid, ticket: &Ticket, now: Duration) {
        let mut pairs = self.pairs.lock();
        let pair = (recipient.clone(), ticket.token);
        if pairs.all.len() >= MOST && !pairs.all.contains_key(&pair) {
            if now >= pairs.swept + SWEEP {
                pairs.swept = now;
                pairs.all.retain(|_, known| now < known.at + KEPT);
            }
            if pairs.all.len() >= MOST {
                return;
            }
        }
        let known = pairs.all.entry(pair).or_insert_with(|| Known { all: SmallVec::new(), at: now });
        known.at = now;
        if !known.all.contains(&ticket.sequence) {
            if known.all.len() >= MOST_OF_ONE {
                known.all.remove(0);
            }
            known.all.push(ticket.sequence);
        }
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether a message that has come is behind one of them. If not, it is none of them any more: it is decided anew.
    pub(crate) fn has(&self, recipient: &BareJid, ticket: &Ticket, now: Duration) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let mut pairs = self.pairs.lock();
        let pair = (recipient.clone(), ticket.token);
        let Some(known) = pairs.all.get_mut(&pair) else { return false };
        let fresh = now < known.at + KEPT;
        let behind = match ticket.pair {
            // When that one was sent, its sender's home had no answer to the one before it.
            Some(pair) => pair.prev.is_some_and(|prev| known.all.contains(&prev)),
            None => known.all.iter().any(|refused| *refused < ticket.sequence && *refused > ticket.heard),
        };
        if fresh && behind {
            return true;
        }
        known.all.retain(|refused| *refused != ticket.sequence);
        if !fresh || known.all.is_empty() {
            pairs.all.remove(&pair);
        }
        if pairs.all.is_empty() {
            self.any.store(false, Ordering::Relaxed);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::Pairing;
    use crate::recognise::Before;
    use starling_store::Origin;

    fn jid(name: &str) -> BareJid {
        BareJid::parse(&format!("{name}@localhost")).unwrap()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Of a session in this process, whose home knows of refusals up to there.
    fn here(sequence: u64, heard: u64) -> Ticket {
        let origin = Origin { session: 1, sequence };
        let (sender, token) = (jid("alice"), Token(1));
        let before = Before::default();
        Ticket { origin, sender, token, sequence, again: None, repeated: false, pair: None, heard, before }
    }

    fn elsewhere(sequence: u64, prev: Option<u64>) -> Ticket {
        Ticket { pair: Some(Pairing { prev }), ..here(sequence, 0) }
    }

    #[test]
    fn what_was_sent_before_its_home_knew_is_behind() {
        let (behind, bob) = (Behind::default(), jid("bob"));
        assert!(!behind.has(&bob, &here(5, 0), secs(1)));
        behind.add(&bob, &here(4, 0), secs(1));
        assert!(behind.has(&bob, &here(5, 0), secs(2)));
        assert!(behind.has(&bob, &here(5, 3), secs(2)));
        assert!(!behind.has(&jid("carol"), &here(5, 0), secs(2)));
        assert!(!behind.has(&bob, &Ticket { token: Token(2), ..here(5, 0) }, secs(2)));
        behind.add(&bob, &here(5, 0), secs(2));
        assert!(behind.has(&bob, &here(6, 4), secs(2)));
        assert!(!behind.has(&bob, &here(6, 5), secs(2)));
        assert!(behind.has(&bob, &here(6, 0), secs(31)));
        assert!(!behind.has(&bob, &here(6, 0), secs(32)), "long ago");
        assert!(!behind.any.load(Ordering::Relaxed));
    }

    #[test]
    fn of_other_shards_each_names_the_one_before() {
        let (behind, bob) = (Behind::default(), jid("bob"));
        behind.add(&bob, &elsewhere(4, None), secs(1));
        assert!(behind.has(&bob, &elsewhere(6, Some(4)), secs(1)));
        assert!(!behind.has(&bob, &elsewhere(8, Some(6)), secs(1)), "nobody said that it is");
        behind.add(&bob, &elsewhere(6, Some(4)), secs(1));
        assert!(behind.has(&bob, &elsewhere(8, Some(6)), secs(1)));
        assert!(!behind.has(&bob, &elsewhere(9, None), secs(1)), "its home has an answer to all");
        // It comes once more, and is decided anew.
        assert!(!behind.has(&bob, &elsewhere(4, Some(3)), secs(1)));
        assert!(!behind.has(&bob, &elsewhere(6, Some(4)), secs(1)));
        assert!(!behind.any.load(Ordering::Relaxed));
    }

    #[test]
    fn it_is_bounded() {
        let (behind, bob) = (Behind::default(), jid("bob"));
        let last = MOST_OF_ONE as u64 + 99;
        for n in 0..=last {
            behind.add(&bob, &here(n, 0), secs(1));
        }
        assert!(behind.has(&bob, &elsewhere(1_000, Some(last)), secs(1)));
        assert!(behind.has(&bob, &elsewhere(1_000, Some(100)), secs(1)));
        assert!(!behind.has(&bob, &elsewhere(1_000, Some(99)), secs(1)));
        for n in 0..2 * MOST as u128 {
            behind.add(&bob, &Ticket { token: Token(n), ..here(1, 0) }, secs(1));
        }
        assert_eq!(behind.pairs.lock().all.len(), MOST);
        behind.add(&bob, &Ticket { token: Token(u128::MAX), ..here(1, 0) }, secs(40));
        assert_eq!(behind.pairs.lock().all.len(), 1);
    }
}
