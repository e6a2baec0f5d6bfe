//! Accounts whose stanzas are all traced, for a while: rules that an operator sets, spread over the processes of a cluster.
//!
//! A rule ends by itself, with its time or its number of traces, and outlives no process. What is told of rules may be told
//! twice, late and in any order: a rule that has been stopped stays so, and an end never moves away.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{clock::SharedClock, ids};

/// A rule, as processes tell it to one another.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceRule {
    /// Random.
    pub id: u64,
    /// Bare JID of the account.
    pub account: String,
    /// For how long still.
    pub left: Duration,
    /// So many traces at the most.
    pub most: u32,
    /// It was stopped, or is used up.
    pub stopped: bool,
}

impl fmt::Debug for TraceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, account: _, left, most, stopped } = self;
        f.debug_struct("TraceRule")
            .field("id", id)
            .field("left", left)
            .field("most", most)
            .field("stopped", stopped)
            .finish_non_exhaustive()
    }
}

/// A rule as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it says.
    pub rule: TraceRule,
    /// Traces that were begun for it, as far as is known here.
    pub taken: u64,
}

/// Why there is no new rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There are as many as there may be.
    #[error("{MOST_RULES} rules are the most at a time: stop one, or wait for an end")]
    Full,
    /// The time is none, or too long.
    #[error("a rule holds for one second to {} hours", MOST_TIME.as_secs() / 3_600)]
    Time,
    /// The number is 0 or too large.
    #[error("a rule takes 1 to {MOST_TRACES} traces")]
    Number,
}

/// The most rules that hold at a time.
pub const MOST_RULES: usize = 32;
/// The longest time of a rule.
pub const MOST_TIME: Duration = Duration::from_secs(24 * 3_600);
/// The most traces of a rule.
pub const MOST_TRACES: u32 = 100_000;
/// With those that are over and not forgotten yet.
const MOST_KNOWN: usize = 256;
/// For so long a rule whose time is over is remembered: who tells of it late does not revive it.
const GRACE: Duration = Duration::from_secs(60);
/// Processes whose counts are kept for one rule.
const MOST_PLACES: usize = 4_096;

/// All rules that this process knows. Clones are the same.
#[derive(Clone)]
pub struct Targets(Arc<Shared>);

struct Shared {
    clock: SharedClock,
    /// Whether any rule may hold: asked for every stanza.
    any: AtomicBool,
    rules: Mutex<Vec<Entry>>,
}

struct Entry {
    id: u64,
    account: String,
    until: Duration,
    most: u32,
    stopped: bool,
    /// Traces that this process has begun.
    taken: u32,
    /// The same of others, by the number of the process.
    elsewhere: HashMap<u64, u32>,
}

impl Entry {
    fn told(&self, now: Duration) -> TraceRule {
        let Self { id, account, until, most, stopped, .. } = self;
        let left = until.saturating_sub(now);
        TraceRule { id: *id, account: account.clone(), left, most: *most, stopped: *stopped }
    }

    fn holds(&self, now: Duration) -> bool {
        !self.stopped && self.until > now
    }

    fn all_taken(&self) -> u64 {
        u64::from(self.taken) + self.elsewhere.values().copied().map(u64::from).sum::<u64>()
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets").field("rules", &self.0.rules.lock().len()).finish_non_exhaustive()
    }
}

impl Targets {
    /// No rules yet.
    pub fn new(clock: SharedClock) -> Self {
        Self(Arc::new(Shared { clock, any: AtomicBool::new(false), rules: Mutex::default() }))
    }

    /// Whether no rule holds.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.0.any.load(Ordering::Relaxed)
    }

    /// A new rule for an account, a bare JID.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn start(&self, account: &str, ttl: Duration, most: u32) -> Result<TraceRule, TargetError> {
        if ttl < Duration::from_secs(1) || ttl > MOST_TIME {
            return Err(TargetError::Time);
        }
        if most == 0 || most > MOST_TRACES {
            return Err(TargetError::Number);
        }
        self.with(|rules, now| {
            let holding = rules.iter().filter(|entry| entry.holds(now)).count();
            if holding >= MOST_RULES || rules.len() >= MOST_KNOWN {
                return Err(TargetError::Full);
            }
            let entry = Entry {
                id: u64::from_le_bytes(ids::bytes()),
                account: account.to_owned(),
                until: now + ttl,
                most,
                stopped: false,
                taken: 0,
                elsewhere: HashMap::new(),
            };
            let told = entry.told(now);
            rules.push(entry);
            Ok(told)
        })
    }

    /// Ends a rule. Returns it, if it held.
    pub fn stop(&self, id: u64) -> Option<TraceRule> {
        self.with(|rules, now| {
            let entry = rules.iter_mut().find(|entry| entry.id == id && entry.holds(now))?;
            entry.stopped = true;
            Some(entry.told(now))
        })
    }

    /// What another process says of a rule. Returns whether it is news.
    pub fn merge(&self, rule: &TraceRule) -> bool {
        let TraceRule { id, account, left, most, stopped } = rule;
        self.with(|rules, now| {
            let until = now + (*left).min(MOST_TIME);
            if let Some(entry) = rules.iter_mut().find(|entry| entry.id == *id) {
                let news = *stopped && !entry.stopped;
                entry.stopped |= *stopped;
                entry.until = entry.until.min(until);
                return news;
            }
            if left.is_zero() || rules.len() >= MOST_KNOWN {
                return false;
            }
            rules.push(Entry {
                id: *id,
                account: account.clone(),
                until,
                most: (*most).min(MOST_TRACES),
                stopped: *stopped,
                taken: 0,
                elsewhere: HashMap::new(),
            });
            true
        })
    }

    /// How many traces another process has begun by rules, `(id, count)`. Returns the rules that are used up by that.
    pub fn counted(&self, place: u64, counts: &[(u64, u32)]) -> Vec<TraceRule> {
        self.with(|rules, now| {
            let mut over = Vec::new();
            for (id, count) in counts {
                let Some(entry) = rules.iter_mut().find(|entry| entry.id == *id) else { continue };
                if entry.elsewhere.len() < MOST_PLACES || entry.elsewhere.contains_key(&place) {
                    let known = entry.elsewhere.entry(place).or_default();
                    *known = (*known).max(*count);
                }
                if entry.holds(now) && entry.all_taken() >= u64::from(entry.most) {
                    entry.stopped = true;
                    over.push(entry.told(now));
                }
            }
            over
        })
    }

    /// How many traces this process has begun, by rule; only of those by which it has begun any.
    pub fn counts(&self) -> Vec<(u64, u32)> {
        self.with(|rules, _| {
            let begun = rules.iter().filter(|entry| entry.taken > 0);
            begun.map(|entry| (entry.id, entry.taken)).collect()
        })
    }

    /// All rules, those too that are over: whoever has them knows what this process knows.
    pub fn all(&self) -> Vec<TraceRule> {
        self.with(|rules, now| rules.iter().map(|entry| entry.told(now)).collect())
    }

    /// All rules whose time is not over.
    pub fn standing(&self) -> Vec<Standing> {
        let of = |entry: &Entry, now| Standing { rule: entry.told(now), taken: entry.all_taken() };
        let there = |entry: &&Entry, now| entry.until > now;
        self.with(|rules, now| {
            rules.iter().filter(|entry| there(entry, now)).map(|entry| of(entry, now)).collect()
        })
    }

    /// Whether one of these accounts is to be traced; counted if so. Returns the rule.
    pub(super) fn takes(&self, mut is_meant: impl FnMut(&str) -> bool) -> Option<u64> {
        self.with(|rules, now| {
            let entry = rules
                .iter_mut()
                .find(|entry| entry.holds(now) && entry.taken < entry.most && is_meant(&entry.account))?;
            entry.taken += 1;
            Some(entry.id)
        })
    }

    /// Looks at the rules, without those that are to be forgotten.
    fn with<T>(&self, look: impl FnOnce(&mut Vec<Entry>, Duration) -> T) -> T {
        let now = self.0.clock.monotonic();
        let mut rules = self.0.rules.lock();
        rules.retain(|entry| entry.until + GRACE > now);
        let result = look(&mut rules, now);
        let any = rules.iter().any(|entry| entry.holds(now) && entry.taken < entry.most);
        self.0.any.store(any, Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ManualClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn targets() -> (Targets, ManualClock) {
        let clock = ManualClock::at_micros(1);
        (Targets::new(Arc::new(clock.clone())), clock)
    }

    #[test]
    fn a_rule_ends_with_its_time() {
        let (targets, clock) = targets();
        assert!(targets.is_empty());
        let rule = targets.start("a@b", MINUTE, 10).unwrap();
        assert!(!targets.is_empty());
        assert_eq!(targets.takes(|account| account == "a@b"), Some(rule.id));
        assert_eq!(targets.takes(|account| account == "c@b"), None);
        clock.advance(MINUTE);
        assert_eq!(targets.takes(|account| account == "a@b"), None);
        assert!(targets.is_empty() && targets.standing().is_empty());
        targets.merge(&TraceRule { left: MINUTE, ..rule });
        assert_eq!(targets.takes(|_| true), None, "told late");
        clock.advance(MINUTE);
        assert!(targets.all().is_empty());
    }

    #[test]
    fn a_rule_ends_with_its_number() {
        let (targets, _) = targets();
        let rule = targets.start("a@b", MINUTE, 3).unwrap();
        let taken = (0..10).filter(|_| targets.takes(|_| true) == Some(rule.id)).count();
        assert_eq!((taken, targets.is_empty()), (3, true));
        assert_eq!(targets.counts(), [(rule.id, 3)]);
        assert_eq!(targets.standing()[0].taken, 3);
    }

    #[test]
    fn what_others_have_taken_counts() {
        let (targets, _) = targets();
        let rule = targets.start("a@b", MINUTE, 10).unwrap();
        assert!(targets.counted(1, &[(rule.id, 6), (99, 5)]).is_empty());
        assert!(targets.counted(1, &[(rule.id, 5)]).is_empty(), "told late");
        let over = targets.counted(2, &[(rule.id, 4)]);
        assert_eq!((over.len(), over[0].stopped), (1, true));
        assert!(targets.counted(2, &[(rule.id, 9)]).is_empty(), "once");
        assert_eq!(targets.takes(|_| true), None);
        assert_eq!(targets.standing()[0].taken, 15);
    }

    #[test]
    fn there_are_never_too_many() {
        let (targets, clock) = targets();
        for number in 0..MOST_RULES {
            targets.start(&format!("{number}@b"), MINUTE, 1).unwrap();
        }
        assert_eq!(targets.start("a@b", MINUTE, 1), Err(TargetError::Full));
        for rule in targets.all() {
            targets.stop(rule.id).unwrap();
            assert_eq!(targets.stop(rule.id), None);
        }
        targets.start("a@b", MINUTE, 1).unwrap();
        for id in 0..1_000 {
            let (account, left) = ("a@b".to_owned(), MINUTE);
            targets.merge(&TraceRule { id, account, left, most: u32::MAX, stopped: false });
        }
        assert_eq!(targets.all().len(), MOST_KNOWN);
        assert!(targets.all().iter().all(|rule| rule.most <= MOST_TRACES));
        clock.advance(MINUTE + GRACE);
        assert_eq!(targets.all().len(), 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (targets, _) = targets();
        assert_eq!(targets.start("a@b", Duration::ZERO, 1), Err(TargetError::Time));
        assert_eq!(targets.start("a@b", MOST_TIME + MINUTE, 1), Err(TargetError::Time));
        assert_eq!(targets.start("a@b", MINUTE, 0), Err(TargetError::Number));
        assert_eq!(targets.start("a@b", MINUTE, MOST_TRACES + 1), Err(TargetError::Number));
    }

    #[test]
    fn an_account_is_not_shown() {
        let (targets, _) = targets();
        let rule = targets.start("secret@b", MINUTE, 1).unwrap();
        assert!(!format!("{rule:?} {targets:?} {:?}", targets.standing()).contains("secret"));
    }

    proptest! {
        /// Whatever order processes tell one another in, they agree.
        #[test]
        fn all_agree(tellings in prop::collection::vec((0_usize..3, 0_usize..3, 0_u64..2_000), 0..60), stop_at in 0_usize..60) {
            let clock = ManualClock::at_micros(1);
            let all: Vec<_> = (0..3).map(|_| Targets::new(Arc::new(clock.clone()))).collect();
            let rule = all[0].start("a@b", MINUTE, 5).unwrap();
            let mut stopped = false;
            for (step, (from, to, pause)) in tellings.into_iter().enumerate() {
                if step == stop_at {
                    stopped |= all[to].stop(rule.id).is_some();
                }
                let told = all[from].all();
                clock.advance(Duration::from_millis(pause));
                for rule in &told {
                    all[to].merge(rule);
                }
            }
            for from in 0..3 {
                for to in 0..3 {
                    for rule in all[from].all() {
                        all[to].merge(&rule);
                    }
                }
            }
            let known: Vec<_> = all.iter().map(Targets::all).collect();
            let agrees = |known: &TraceRule| known.stopped == stopped && known.id == rule.id;
            prop_assert!(known.iter().all(|rules| rules.iter().all(agrees)));
            clock.advance(MINUTE * 2);
            prop_assert!(all.iter().all(|targets| targets.takes(|_| true).is_none()));
        }
    }
}
