//! Whether silence is the other router's, or only seems so.
//!
//! On a machine that has too much to do nobody runs when he wants to. A router that was not running has heard nothing, and
//! that says nothing of the others: [`Attention`] tells how much time it has missed, and [`Gaps`] how long another router
//! lately was silent though it lived. Both make elections later, never sooner, so no promise depends on them.

use std::time::Duration;

/// So late a look may be: timers are no better.
const ON_TIME: Duration = Duration::from_millis(15);
/// One that comes so late may have much to read.
const AWAY: Duration = Duration::from_millis(40);
/// How long after it was away a router reads what has come meanwhile before it judges anybody: more than a pulse.
const CATCH_UP: Duration = Duration::from_millis(100);
/// After so long a silence weighs half as much.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// How many times the configured patience is the longest.
const LONGEST: u32 = 3;

/// Whether this router runs when it means to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attention {
    planned: Option<Duration>,
    fair: Duration,
}

impl Attention {
    /// It is `now`: how much time this router has missed. What it has not heard in that time nobody failed to say.
    pub fn look(&mut self, now: Duration) -> Duration {
        let missed = self.planned.take().map_or(Duration::ZERO, |planned| now.saturating_sub(planned));
        if missed <= ON_TIME {
            return Duration::ZERO;
        }
        if missed > AWAY {
            self.fair = now + CATCH_UP;
        }
        missed
    }

    /// It means to look again at `then`, or earlier.
    pub fn plan(&mut self, then: Duration) {
        self.planned = Some(then);
    }

    /// Before this moment nobody is judged by his silence.
    pub fn fair(&self) -> Duration {
        self.fair
    }
}

/// How long another router was silent lately, between two signs of life.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gaps {
    last: Option<Duration>,
    longest: Duration,
    at: Duration,
}

impl Gaps {
    /// Something came of it.
    pub fn hear(&mut self, now: Duration) {
        if let Some(last) = self.last.replace(now) {
            let gap = now.saturating_sub(last);
            if gap >= self.longest(now) {
                (self.longest, self.at) = (gap, now);
            }
        }
    }

    /// Its link is gone. What comes over the next one is no end of a silence.
    pub fn unlinked(&mut self) {
        *self = Self::default();
    }

    fn longest(&self, now: Duration) -> Duration {
        let halves = now.saturating_sub(self.at).as_secs() / HALF_LIFE.as_secs();
        self.longest / 1u32.checked_shl(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// How long a silence of it is borne: `least`, or half as long again as it was silent lately, up to three times `least`.
    pub fn patience(&self, now: Duration, least: Duration) -> Duration {
        (self.longest(now) * 3 / 2).clamp(least, least * LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::{Sight, Verdict, judge};
    use std::collections::{BTreeMap, BTreeSet};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A voter that looks every 50 ms at a leader whose pulses come every 75 ms and wait until it runs. `runs` says whether
    /// it runs in a millisecond, `speaks` whether the leader does. When it campaigns.
    fn watch(until: u64, runs: impl Fn(u64) -> bool, speaks: impl Fn(u64) -> bool) -> Option<u64> {
        let (configs, linked) = (vec![BTreeSet::from([1, 2, 3])], BTreeSet::from([1, 3]));
        let (mut attention, mut gaps) = (Attention::default(), Gaps::default());
        let (mut heard, mut taken, mut waits, mut due) = (ms(1), ms(1), false, 0);
        for at in 1..until {
            waits |= at % 75 == 1 && speaks(at);
            if !runs(at) {
                continue;
            }
            let now = ms(at);
            // Who has been away looks first, and reads later: the worst order.
            if at >= due {
                let missed = attention.look(now);
                heard = (heard + missed).min(now);
                let verdict = judge(&Sight {
                    now,
                    own: 2,
                    group: 0,
                    leader: Some(1),
                    configs: &configs,
                    linked: &linked,
                    telling: &BTreeMap::from([(3, now)]),
                    taken,
                    heard,
                    patience: gaps.patience(now, ms(300)),
                    fair: attention.fair(),
                    heard_elsewhere: false,
                    campaigned: false,
                });
                let next = match verdict {
                    Verdict::Elect => return Some(at),
                    Verdict::Wait(then) => then.min(now + ms(50)),
                    Verdict::Rest => now + ms(50),
                };
                attention.plan(next);
                due = u64::try_from(next.as_millis()).unwrap();
            } else if std::mem::take(&mut waits) {
                (heard, taken) = (now, now);
                gaps.hear(now);
            }
        }
        None
    }

    #[test]
    fn a_leader_that_falls_silent_is_found_in_time_by_one_that_runs() {
        for dies in 1_000..1_080 {
            let found = watch(3_000, |_| true, |at| at < dies).unwrap();
            assert!(found <= dies + 330, "it died at {dies} and was found at {found}");
            assert!(found + 75 >= dies + 325, "the promise holds: {dies}, {found}");
        }
    }

    #[test]
    fn one_that_was_away_does_not_campaign_against_a_leader_that_speaks() {
        for away in [60, 200, 299, 300, 350, 500, 1_000, 5_000] {
            for begins in 1_000..1_075 {
                let runs = |at: u64| at < begins || at >= begins + away;
                assert_eq!(
                    watch(begins + away + 2_000, runs, |_| true),
                    None,
                    "away for {away} from {begins}"
                );
            }
        }
        // It gets every tenth part of the time, in pieces.
        for (on, off) in [(10, 90), (20, 180), (40, 360), (60, 540)] {
            let runs = |at: u64| at % (on + off) < on;
            assert_eq!(watch(20_000, runs, |_| true), None, "{on} ms of {}", on + off);
        }
    }

    #[test]
    fn one_that_was_away_still_finds_a_dead_leader() {
        let runs = |at: u64| !(1_100..1_900).contains(&at);
        let found = watch(5_000, runs, |at| at < 1_050).unwrap();
        assert!((1_900..=2_330).contains(&found), "{found}");
    }

    #[test]
    fn one_that_was_slow_is_borne_longer_and_not_for_ever() {
        // The leader speaks every 300 ms for a while, which the promise just bears.
        let mut gaps = Gaps::default();
        for at in [0, 75, 150, 225] {
            gaps.hear(ms(at));
        }
        assert_eq!(gaps.patience(ms(300), ms(300)), ms(300), "as it should be");
        gaps.hear(ms(625));
        assert_eq!(gaps.patience(ms(700), ms(300)), ms(600));
        for at in (700..20_000).step_by(75) {
            gaps.hear(ms(at));
        }
        assert_eq!(gaps.patience(ms(20_000), ms(300)), ms(600), "it is remembered");
        assert_eq!(gaps.patience(ms(61_000), ms(300)), ms(300), "and forgotten");
        gaps.hear(ms(30_000));
        assert_eq!(gaps.patience(ms(30_000), ms(300)), ms(900), "never longer");
        gaps.unlinked();
        gaps.hear(ms(90_000));
        assert_eq!(gaps.patience(ms(90_000), ms(300)), ms(300), "nothing was to be heard without a link");
        assert_eq!(Gaps::default().patience(ms(3_600_000), ms(300)), ms(300));
    }
}
