//! What a home does not know after a commit of it was not confirmed.
//!
//! It may have been written, or may still be. Until the store has said which, by loading the account again, the home
//! decides on nothing more that could follow from it: what comes waits. What needs no store goes on: acknowledgements, and
//! deliveries of what is confirmed.

use crate::follow::Follow;
use starling_hooks::BlockList;
use starling_xmpp::BareJid;
use std::collections::BTreeSet;
use std::time::Duration;

/// The first pause after a load that failed; doubled with each that fails while nobody waits for it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(2);
/// The shortest pause, when somebody does.
const HURRIED: Duration = Duration::from_millis(250);

/// Where a home is with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What was decided before it was known is carried out.
    Draining,
    /// The account is being loaded.
    Loading,
    /// It could not be; the next attempt is at this moment of monotonic time.
    Resting(Duration),
}

/// A home's doubt.
#[derive(Debug)]
pub(crate) struct Doubt {
    phase: Phase,
    /// Contacts whose state was in it: clients are told what it turns out to be.
    pub(crate) contacts: BTreeSet<BareJid>,
    /// Whom clients believe blocked, if changes of that were in it.
    pub(crate) blocked: Option<Box<BlockList>>,
    /// What follows from changes that were in it: of those that are there it leaves then.
    pub(crate) held: Vec<Follow>,
    /// The last attempt began then.
    tried: Duration,
    pause: Duration,
    /// A part of every pause, in 512ths, by which this home comes later than others: an outage leaves many of them.
    late: u8,
}

impl Doubt {
    /// A commit of this account was not confirmed.
    pub(crate) fn of(account: &BareJid) -> Self {
        let late = account.as_str().bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        let (contacts, held) = (BTreeSet::new(), Vec::new());
        Self {
            phase: Phase::Draining,
            contacts,
            blocked: None,
            held,
            tried: Duration::ZERO,
            pause: FIRST,
            late,
        }
    }

    /// Another commit was not confirmed.
    pub(crate) fn drain(&mut self) {
        self.phase = Phase::Draining;
    }

    /// The account is loaded.
    pub(crate) fn load(&mut self, now: Duration) {
        (self.phase, self.tried) = (Phase::Loading, now);
    }

    /// It could not be loaded; returns when to try again.
    pub(crate) fn rest(&mut self, now: Duration) -> Duration {
        let next = now + self.pause + self.pause * u32::from(self.late) / 512;
        self.pause = (self.pause * 2).min(LONGEST);
        self.phase = Phase::Resting(next);
        next
    }

    /// Somebody waits for it; returns when to try again, if that is sooner than it was.
    pub(crate) fn hurry(&mut self, now: Duration) -> Option<Duration> {
        let Phase::Resting(next) = self.phase else { return None };
        self.pause = FIRST;
        let sooner = (self.tried + HURRIED).max(now);
        if sooner >= next {
            return None;
        }
        self.phase = Phase::Resting(sooner);
        Some(sooner)
    }

    /// Whether it is time to load the account.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Resting(next) if next <= now)
    }

    /// Whether the account is being loaded.
    pub(crate) fn is_loading(&self) -> bool {
        self.phase == Phase::Loading
    }

    /// When the last attempt to load it began.
    pub(crate) fn asked(&self) -> Duration {
        self.tried
    }

    /// Whether acts are carried out that were decided before it was known.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn attempts_become_rarer_and_come_at_once_for_whoever_waits() {
        let account = BareJid::parse("a@b").unwrap();
        let mut doubt = Doubt { late: 0, ..Doubt::of(&account) };
        doubt.load(ms(1_000));
        assert_eq!(doubt.rest(ms(1_000)), ms(2_000));
        assert!(!doubt.is_due(ms(1_999)) && doubt.is_due(ms(2_000)));
        doubt.load(ms(2_000));
        assert_eq!(doubt.rest(ms(2_010)), ms(4_010));
        assert_eq!(doubt.hurry(ms(2_100)), Some(ms(2_250)), "not more often than that");
        assert_eq!(doubt.hurry(ms(2_150)), None, "once is enough");
        doubt.load(ms(2_250));
        assert_eq!(doubt.rest(ms(2_250)), ms(3_250), "it was asked for: no longer pause");
        assert_eq!(doubt.hurry(ms(2_900)), Some(ms(2_900)));
        for _ in 0..9 {
            doubt.load(ms(9_000));
            assert!(doubt.rest(ms(9_000)) <= ms(11_000));
        }
    }

    #[test]
    fn homes_do_not_try_again_all_at_once() {
        let mut next: Vec<_> = (0..500)
            .map(|n| Doubt::of(&BareJid::parse(&format!("user{n}@localhost")).unwrap()).rest(ms(0)))
            .collect();
        assert!(next.iter().all(|next| (ms(1_000)..ms(1_500)).contains(next)));
        next.sort();
        next.dedup();
        assert!(next.len() > 100, "{}", next.len());
    }
}
