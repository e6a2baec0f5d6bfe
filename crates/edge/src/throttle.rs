//! Failed logins: an address that fails often must wait, an account that is failed against answers slowly.
//!
//! An account is never locked: that would let anybody lock anybody out (XEP-0205). Whoever has logged in to it
//! from the same address before is not even delayed.

use crate::source::Source;
use parking_lot::Mutex;
use starling_node::config::AuthLimits;
use starling_node::{Rate, SharedClock, TokenBucket};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

/// Remembers failures.
#[derive(Debug)]
pub(crate) struct Throttle {
    clock: SharedClock,
    /// Keyed at random: nobody outside can aim two accounts at one entry.
    hash: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: AuthLimits,
    by_source: Buckets<Source>,
    by_account: Buckets<u64>,
    waiting: HashMap<u64, usize>,
    /// Address and account of successes, in two generations.
    known: [HashSet<u64>; 2],
}

/// What an attempt has to expect before it is looked at.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Nothing.
    Go,
    /// Wait this long, then go on; hold the ticket until then.
    Wait(Duration, Ticket),
    /// `temporary-auth-failure`.
    Refuse,
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Ticket {
    throttle: Arc<Throttle>,
    account: u64,
}

impl Throttle {
    pub(crate) fn new(limits: &AuthLimits, clock: SharedClock) -> Arc<Self> {
        let state = State {
            limits: limits.clone(),
            by_source: Buckets::default(),
            by_account: Buckets::default(),
            waiting: HashMap::new(),
            known: Default::default(),
        };
        Arc::new(Self { clock, hash: RandomState::new(), state: Mutex::new(state) })
    }

    /// New limits, for failures from now on.
    pub(crate) fn configure(&self, limits: &AuthLimits) {
        self.state.lock().limits = limits.clone();
    }

    /// Judges an attempt before its credentials are looked at.
    pub(crate) fn judge(self: &Arc<Self>, source: Source, account: &str) -> Verdict {
        let now = self.clock.monotonic();
        let (account, pair) = self.keys(source, account);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.by_source.is_empty_of(&source, now) {
            return Verdict::Refuse;
        }
        let known = state.known.iter().any(|known| known.contains(&pair));
        if known || !state.by_account.is_empty_of(&account, now) {
            return Verdict::Go;
        }
        let waiting = state.waiting.entry(account).or_default();
        if *waiting >= WAITING {
            return Verdict::Refuse;
        }
        *waiting += 1;
        Verdict::Wait(state.limits.delay, Ticket { throttle: Arc::clone(self), account })
    }

    /// The credentials were wrong.
    pub(crate) fn failed(&self, source: Source, account: &str) {
        let now = self.clock.monotonic();
        let (account, _) = self.keys(source, account);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.by_source.take(source, state.limits.failures_per_ip_window, now);
        state.by_account.take(account, state.limits.failures_per_account_window, now);
    }

    /// The credentials were right.
    pub(crate) fn succeeded(&self, source: Source, account: &str) {
        let (_, pair) = self.keys(source, account);
        let known = &mut self.state.lock().known;
        if known[0].len() >= KNOWN {
            known.swap(0, 1);
            known[0] = HashSet::new();
        }
        known[0].insert(pair);
    }

    fn keys(&self, source: Source, account: &str) -> (u64, u64) {
        (self.hash.hash_one(account), self.hash.hash_one((source, account)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.throttle.state.lock();
        if let Some(waiting) = state.waiting.get_mut(&self.account) {
            *waiting -= 1;
            if *waiting == 0 {
                state.waiting.remove(&self.account);
            }
        }
    }
}

/// Buckets that are forgotten once they are full.
#[derive(Debug)]
struct Buckets<K> {
    entries: HashMap<K, TokenBucket>,
    sweep_at: usize,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), sweep_at: SWEEP }
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn is_empty_of(&self, key: &K, now: Duration) -> bool {
        self.entries.get(key).is_some_and(|bucket| !{ *bucket }.try_take(1, now))
    }

    fn take(&mut self, key: K, rate: Rate, now: Duration) {
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, bucket| !bucket.is_full(now));
            self.sweep_at = (self.entries.len() * 2).max(SWEEP);
        }
        let bucket = self.entries.entry(key).or_insert_with(|| TokenBucket::new(rate, rate.burst(), now));
        bucket.try_take(1, now);
    }
}

/// Attempts against one account that may wait at a time.
const WAITING: usize = 4;
/// Successes that are remembered, in each of two generations.
const KNOWN: usize = 50_000;
const SWEEP: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use starling_node::ManualClock;

    const MALLORY: Source = Source::V4(1);
    const ALICE: Source = Source::V4(2);

    fn throttle() -> (Arc<Throttle>, ManualClock) {
        let clock = ManualClock::at_micros(0);
        let limits = AuthLimits {
            failures_per_ip_window: Rate::per_hour(10),
            failures_per_account_window: Rate::per_hour(3),
            ..AuthLimits::default()
        };
        (Throttle::new(&limits, Arc::new(clock.clone())), clock)
    }

    #[test]
    fn an_address_that_fails_often_is_refused_for_a_while() {
        let (throttle, clock) = throttle();
        for number in 0..10 {
            assert!(matches!(throttle.judge(MALLORY, &number.to_string()), Verdict::Go));
            throttle.failed(MALLORY, &number.to_string());
        }
        assert!(matches!(throttle.judge(MALLORY, "other"), Verdict::Refuse));
        assert!(matches!(throttle.judge(ALICE, "other"), Verdict::Go));
        clock.advance(Duration::from_secs(600));
        assert!(matches!(throttle.judge(MALLORY, "other"), Verdict::Go));
    }

    #[test]
    fn an_account_under_attack_is_slow_but_open_and_its_owner_is_not_delayed() {
        let (throttle, _) = throttle();
        throttle.succeeded(ALICE, "alice");
        for _ in 0..3 {
            throttle.failed(MALLORY, "alice");
        }
        assert!(matches!(throttle.judge(ALICE, "alice"), Verdict::Go));
        let waiting: Vec<Verdict> =
            (3..3 + WAITING as u32).map(|from| throttle.judge(Source::V4(from), "alice")).collect();
        assert!(waiting.iter().all(|verdict| matches!(verdict, Verdict::Wait(..))));
        assert!(matches!(throttle.judge(MALLORY, "alice"), Verdict::Refuse));
        drop(waiting);
        assert!(matches!(throttle.judge(MALLORY, "alice"), Verdict::Wait(..)));
        assert!(throttle.state.lock().waiting.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (throttle, clock) = throttle();
        for number in 0..3 * SWEEP as u32 {
            throttle.failed(Source::V4(number), "x");
            if number % 1_000 == 0 {
                clock.advance(Duration::from_secs(3_600));
            }
        }
        assert!(throttle.state.lock().by_source.entries.len() <= SWEEP);
        for number in 0..3 * KNOWN as u32 {
            throttle.succeeded(Source::V4(number), "x");
        }
        assert!(throttle.state.lock().known.iter().map(HashSet::len).sum::<usize>() <= 2 * KNOWN);
    }
}
