//! What a home has heard of sessions of other shards: up to which stanza of each it has decided, so that what comes a second
//! time is decided once, and what overtook another is asked for again.

use smallvec::SmallVec;
use starling_wire::{Token, credit};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Sessions that are remembered; what is known of others is in the log.
const MOST: usize = 1_024;
/// Refusals that are remembered of each: as many stanzas as may be under way.
const REFUSED: usize = credit::MOST;

/// The same of what no log keeps: chat states, mostly, of which each follows a message.
const UNKEPT: usize = 64;

/// All that one home has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    sessions: HashMap<Token, Known>,
    /// Something was forgotten then, or is not sure since (monotonic): only what was read of the log after that tells of it.
    since: Duration,
}

#[derive(Debug, Default)]
struct Known {
    /// The first sequence that was decided. Those before it have their answer of a home before: which, the log tells.
    first: u64,
    /// The last one of those that was decided nevertheless.
    below: u64,
    /// The last sequence that was decided.
    last: u64,
    /// The last one that was not refused.
    taken: u64,
    /// Decided and not committed.
    open: SmallVec<[u64; 2]>,
    /// Decided and refused: a second one of them is decided anew.
    refused: SmallVec<[u64; 1]>,
    /// The last ones that no log keeps, by what they are.
    unkept: VecDeque<(u64, u64)>,
}

/// What becomes of a stanza that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is to be decided.
    Decide,
    /// It was, and committed.
    Done,
    /// It was, and its receipt will follow.
    UnderWay,
    /// One before it has not come. The last one that has, if any.
    Gap(Option<u64>),
}

impl Heard {
    /// Of a home that came into memory then.
    pub(crate) fn since(moment: Duration) -> Self {
        Self { since: moment, ..Self::default() }
    }

    /// What becomes of this one; `prev`: the one before it that has no receipt as far as its sender knows; `repeated`: it may have
    /// been sent before.
    pub(crate) fn verdict(&self, token: Token, sequence: u64, prev: Option<u64>, repeated: bool) -> Verdict {
        let known = self.sessions.get(&token);
        match known {
            Some(known) if known.open.contains(&sequence) => Verdict::UnderWay,
            Some(known) if known.refused.contains(&sequence) => Verdict::Decide,
            // A home before this one may have refused it, and that of its sender, who knew of it, be lost.
            Some(known) if repeated && sequence < known.first => match prev {
                Some(prev) if prev > known.below => {
                    Verdict::Gap(Some(known.below).filter(|below| *below > 0))
                }
                _ => Verdict::Decide,
            },
            Some(known) if sequence <= known.last => Verdict::Done,
            _ => match (prev, known.map(|known| known.last)) {
                (None, _) => Verdict::Decide,
                (Some(prev), Some(last)) if prev <= last => Verdict::Decide,
                (Some(_), last) => Verdict::Gap(last),
            },
        }
    }

    /// Whether one of its session that followed it was taken, or may be: it was refused, and is not to come behind that.
    pub(crate) fn is_late(&self, token: Token, sequence: u64) -> bool {
        let known = self.sessions.get(&token);
        known.is_some_and(|known| known.taken > sequence || known.open.iter().any(|open| *open > sequence))
    }

    /// It is decided now.
    pub(crate) fn decides(&mut self, token: Token, sequence: u64, now: Duration) {
        if self.sessions.len() >= MOST && !self.sessions.contains_key(&token) {
            self.sessions.retain(|_, known| !known.open.is_empty());
            self.since = now;
        }
        let known = || Known { first: sequence, ..Known::default() };
        let known = self.sessions.entry(token).or_insert_with(known);
        known.last = known.last.max(sequence);
        if sequence < known.first {
            known.below = known.below.max(sequence);
        }
        known.refused.retain(|refused| *refused != sequence);
        known.open.push(sequence);
    }

    /// It is done with. `refused`: its sender is told so; with `unsure`, it may be kept nevertheless.
    pub(crate) fn done(&mut self, token: Token, sequence: u64, refused: bool, unsure: bool, now: Duration) {
        let Some(known) = self.sessions.get_mut(&token) else { return };
        known.open.retain(|open| *open != sequence);
        if refused {
            if known.refused.len() >= REFUSED {
                known.refused.remove(0);
            }
            known.refused.push(sequence);
        } else {
            known.taken = known.taken.max(sequence);
        }
        if unsure {
            self.since = now;
        }
    }

    /// It was taken, and no log keeps it.
    pub(crate) fn is_unkept(&mut self, token: Token, sequence: u64, hash: u64) {
        let Some(known) = self.sessions.get_mut(&token) else { return };
        if known.unkept.len() >= UNKEPT {
            known.unkept.pop_front();
        }
        known.unkept.push_back((sequence, hash));
    }

    /// Whether one that no log keeps was said between these sequences: above the first, up to the second. It is forgotten, for the
    /// next that is the same is another one.
    pub(crate) fn had_unkept(&mut self, token: Token, (after, through): (u64, u64), hash: u64) -> bool {
        let Some(known) = self.sessions.get_mut(&token) else { return false };
        let is_it = |(sequence, own): &(u64, u64)| *sequence > after && *sequence <= through && *own == hash;
        let at = known.unkept.iter().position(is_it);
        at.and_then(|at| known.unkept.remove(at)).is_some()
    }

    /// From when on the log tells of all that is not known here.
    pub(crate) fn unknown_before(&self) -> Duration {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Token = Token(1);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn each_is_decided_once_and_in_order() {
        let mut heard = Heard::since(secs(1));
        assert_eq!(heard.verdict(A, 3, None, false), Verdict::Decide);
        assert_eq!(heard.verdict(A, 5, Some(3), false), Verdict::Gap(None), "3 has not come");
        heard.decides(A, 3, secs(2));
        assert_eq!(heard.verdict(A, 3, None, false), Verdict::UnderWay);
        assert_eq!(heard.verdict(A, 5, Some(3), false), Verdict::Decide);
        assert_eq!(heard.verdict(A, 7, Some(5), false), Verdict::Gap(Some(3)));
        heard.done(A, 3, false, false, secs(3));
        assert_eq!(heard.verdict(A, 3, None, false), Verdict::Done);
        assert_eq!(heard.verdict(A, 2, None, false), Verdict::Done, "given up long ago");
        assert_eq!(heard.verdict(A, 2, None, true), Verdict::Decide, "a home before may have refused it");
        assert_eq!(heard.verdict(A, 3, None, true), Verdict::Done);
    }

    #[test]
    fn what_came_before_all_that_is_known_comes_in_order_too() {
        let mut heard = Heard::since(secs(1));
        heard.decides(A, 9, secs(2));
        heard.done(A, 9, true, false, secs(2));
        assert_eq!(heard.verdict(A, 6, Some(4), true), Verdict::Gap(None), "4 is lost");
        assert_eq!(heard.verdict(A, 4, None, true), Verdict::Decide);
        heard.decides(A, 4, secs(3));
        heard.done(A, 4, false, false, secs(3));
        assert_eq!(heard.verdict(A, 8, Some(6), true), Verdict::Gap(Some(4)));
        assert_eq!(heard.verdict(A, 6, Some(4), true), Verdict::Decide);
        assert_eq!(heard.verdict(A, 6, None, true), Verdict::Decide, "4 has its receipt");
    }

    #[test]
    fn what_was_refused_is_decided_anew() {
        let mut heard = Heard::since(secs(1));
        heard.decides(A, 3, secs(2));
        heard.done(A, 3, true, true, secs(3));
        heard.decides(A, 4, secs(4));
        assert_eq!(heard.verdict(A, 3, None, false), Verdict::Decide);
        assert!(heard.is_late(A, 3), "one behind it may be taken");
        heard.done(A, 4, true, false, secs(4));
        assert!(!heard.is_late(A, 3));
        assert_eq!(heard.unknown_before(), secs(3), "its row may be there");
        heard.decides(A, 3, secs(5));
        heard.done(A, 3, false, false, secs(6));
        assert_eq!(heard.verdict(A, 3, None, false), Verdict::Done);
        heard.decides(A, 4, secs(5));
        heard.done(A, 4, true, false, secs(6));
        heard.decides(A, 5, secs(5));
        heard.done(A, 5, false, false, secs(6));
        assert!(heard.is_late(A, 4) && !heard.is_late(A, 5));
    }

    #[test]
    fn nothing_refused_is_taken_for_done_while_it_may_come_again() {
        let mut heard = Heard::since(secs(1));
        for n in 1..=credit::MOST as u64 {
            heard.decides(A, n, secs(2));
            heard.done(A, n, true, true, secs(3));
        }
        for n in 1..=credit::MOST as u64 {
            assert_ne!(heard.verdict(A, n, None, false), Verdict::Done, "{n}");
        }
    }

    #[test]
    fn what_no_log_keeps_is_remembered_for_a_while() {
        let mut heard = Heard::since(secs(1));
        for n in 1..=UNKEPT as u64 + 1 {
            heard.decides(A, n, secs(2));
            heard.is_unkept(A, n, n / 2);
            heard.done(A, n, false, false, secs(2));
        }
        assert!(!heard.had_unkept(A, (0, 300), 0), "the first is forgotten");
        assert!(!heard.had_unkept(A, (5, 300), 2) && !heard.had_unkept(A, (0, 3), 2));
        assert!(!heard.had_unkept(Token(2), (0, 300), 2));
        let found = (0..3).filter(|_| heard.had_unkept(A, (0, 300), 2)).count();
        assert_eq!(found, 2, "as often as it was said");
    }

    #[test]
    fn what_is_forgotten_is_looked_up() {
        let mut heard = Heard::since(secs(1));
        for n in 0..=MOST as u128 {
            heard.decides(Token(n), 1, secs(2 + n as u64));
            if n > 0 {
                heard.done(Token(n), 1, false, false, secs(2));
            }
        }
        assert!(heard.sessions.len() <= 2, "{}", heard.sessions.len());
        assert_eq!(
            heard.verdict(Token(0), 1, None, false),
            Verdict::UnderWay,
            "it is not forgotten while it is under way"
        );
        assert_eq!(heard.unknown_before(), secs(2 + MOST as u64));
    }
}
