//! How long a leader may believe that it is the only one.
//!
//! Voters take no other leader for 300 ms after they have taken entries (or a heartbeat) from this one. So the lease of a
//! leader reaches a little less far from the moment at which it *sent* what a quorum has taken. It is computed here, where
//! requests are sent and answers come, because the figures that openraft publishes are as old as its last event.

use crate::types::Vote;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For how long a voter takes no other leader (openraft's lease is the longest election timeout).
pub const GRANTED: Duration = Duration::from_millis(GRANTED_MS);
pub(crate) const GRANTED_MS: u64 = 300;
/// How much earlier than that a leader stops: clocks run differently, if not by much.
const MARGIN: Duration = Duration::from_millis(30);
/// How far a lease reaches from the moment that a quorum has confirmed.
pub(crate) const AHEAD: Duration = GRANTED.saturating_sub(MARGIN);

/// The voters of a group: one set, or two while they change.
pub type Configs = Vec<BTreeSet<u64>>;

/// Whether those present are a quorum of every set of voters.
pub fn is_quorum(configs: &[BTreeSet<u64>], present: impl Fn(u64) -> bool) -> bool {
    !configs.is_empty()
        && configs.iter().all(|voters| voters.iter().filter(|id| present(**id)).count() > voters.len() / 2)
}

/// Until when a leader has the promise of a quorum. `acks`: when the last request was sent that each peer has taken;
/// `now`: a moment at which the leader itself was there.
pub fn until(
    configs: &[BTreeSet<u64>],
    own: u64,
    acks: &BTreeMap<u64, Duration>,
    now: Duration,
) -> Option<Duration> {
    let held = |voters: &BTreeSet<u64>| {
        let quorum = voters.len() / 2 + 1;
        let others = quorum - usize::from(voters.contains(&own));
        if others == 0 {
            return Some(now);
        }
        let mut sent: Vec<Duration> =
            voters.iter().filter(|id| **id != own).filter_map(|id| acks.get(id).copied()).collect();
        sent.sort_unstable_by(|one, other| other.cmp(one));
        sent.get(others - 1).copied()
    };
    let mut oldest: Option<Duration> = None;
    for voters in configs {
        let sent = held(voters)?;
        oldest = Some(oldest.map_or(sent, |oldest| oldest.min(sent)));
    }
    Some(oldest? + AHEAD)
}

/// The lease of one group at one router.
#[derive(Debug)]
pub struct Lease {
    own: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The vote by which this router leads, or last led.
    vote: Option<Vote>,
    configs: Configs,
    acks: BTreeMap<u64, Duration>,
    seen: Duration,
    /// How many votes this router was asked for without a lease, and has perhaps given: none of them can be taken back.
    ceding: u32,
    /// Where the reign reads it, while there is one.
    until: Option<Arc<AtomicU64>>,
}

impl Lease {
    /// That of a router which leads nothing.
    pub fn new(own: u64) -> Self {
        Self { own, state: Mutex::default() }
    }

    /// This router leads by `vote`. What was taken before from it as the leader by this vote counts.
    pub fn lead(&self, vote: Vote, configs: Configs, now: Duration) {
        let mut state = self.state.lock();
        if state.vote != Some(vote) {
            state.withdraw();
            *state = State { vote: Some(vote), ..State::default() };
        }
        state.configs = configs;
        state.seen = now;
        state.publish(self.own);
    }

    /// A peer has taken what this router sent as the leader by `vote` at the moment `sent`.
    pub fn taken(&self, vote: Vote, peer: u64, sent: Duration) {
        let mut state = self.state.lock();
        if state.vote != Some(vote) {
            // The first answers to a new leader may come before it is known here that it leads.
            if state.vote.is_some_and(|own| own > vote) {
                return;
            }
            let configs = std::mem::take(&mut state.configs);
            state.withdraw();
            *state = State { vote: Some(vote), configs, ..State::default() };
        }
        let ack = state.acks.entry(peer).or_default();
        *ack = sent.max(*ack);
        state.publish(self.own);
    }

    /// A reign has begun by `vote`; from now on the value of `until` is its lease, in microseconds. `false` if this vote
    /// does not lead any more.
    pub fn attach(&self, vote: Vote, until: Arc<AtomicU64>) -> bool {
        let mut state = self.state.lock();
        if state.vote != Some(vote) {
            return false;
        }
        state.withdraw();
        state.until = Some(until);
        state.publish(self.own);
        true
    }

    /// The reign is over: its lease ends now, and for good.
    pub fn end(&self) {
        self.state.lock().withdraw();
    }

    /// Whether this router has the promise of a quorum at this moment, with or without a reign.
    pub fn holds(&self, vote: Vote, now: Duration) -> bool {
        let state = self.state.lock();
        state.vote == Some(vote) && state.holds(self.own, now)
    }

    /// Another router asks the leader by `vote` for its vote: whether openraft may be asked. It may when there is no lease,
    /// or when that router is the `heir`; from then on there is none until [`Lease::kept`].
    pub fn cede(&self, vote: Vote, heir: bool, now: Duration) -> bool {
        let mut state = self.state.lock();
        if state.vote != Some(vote) {
            return true;
        }
        let may = heir || !state.holds(self.own, now);
        state.ceding += u32::from(may);
        may
    }

    /// The leader by `vote` did not give its own vote to the one that asked.
    pub fn kept(&self, vote: Vote) {
        let mut state = self.state.lock();
        if state.vote == Some(vote) {
            state.ceding = state.ceding.saturating_sub(1);
            state.publish(self.own);
        }
    }

    /// When each voter has last taken what this router sent as the leader by `vote`.
    pub fn acks(&self, vote: Vote) -> BTreeMap<u64, Duration> {
        let state = self.state.lock();
        if state.vote == Some(vote) { state.acks.clone() } else { BTreeMap::new() }
    }
}

impl State {
    fn holds(&self, own: u64, now: Duration) -> bool {
        self.ceding == 0 && until(&self.configs, own, &self.acks, self.seen).is_some_and(|until| now < until)
    }

    fn publish(&self, own: u64) {
        if self.ceding > 0 {
            return;
        }
        if let (Some(reign), Some(until)) = (&self.until, until(&self.configs, own, &self.acks, self.seen)) {
            reign.fetch_max(micros(until), Ordering::AcqRel);
        }
    }

    fn withdraw(&mut self) {
        if let Some(until) = self.until.take() {
            until.store(0, Ordering::Release);
        }
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    fn acks(acks: &[(u64, u64)]) -> BTreeMap<u64, Duration> {
        acks.iter().map(|(id, at)| (*id, ms(*at))).collect()
    }

    #[test]
    fn the_promise_of_a_quorum_counts() {
        let three = [set(&[1, 2, 3])];
        assert_eq!(until(&three, 1, &acks(&[]), ms(500)), None);
        assert_eq!(until(&three, 1, &acks(&[(2, 100)]), ms(500)), Some(ms(370)));
        assert_eq!(
            until(&three, 1, &acks(&[(2, 100), (3, 130)]), ms(500)),
            Some(ms(400)),
            "the newest will do"
        );
        assert_eq!(until(&three, 1, &acks(&[(4, 400)]), ms(500)), None, "a learner promises nothing");
        let five = [set(&[1, 2, 3, 4, 5])];
        assert_eq!(until(&five, 1, &acks(&[(2, 100), (3, 130)]), ms(500)), Some(ms(370)));
        assert_eq!(until(&five, 1, &acks(&[(2, 100)]), ms(500)), None);
        assert_eq!(until(&[set(&[1])], 1, &acks(&[]), ms(500)), Some(ms(770)), "alone");
        assert_eq!(until(&[], 1, &acks(&[(2, 1)]), ms(500)), None);
        let joint = [set(&[1, 2, 3]), set(&[1, 4, 5])];
        assert_eq!(until(&joint, 1, &acks(&[(2, 100), (3, 120)]), ms(500)), None, "both sets must promise");
        assert_eq!(until(&joint, 1, &acks(&[(2, 100), (4, 90)]), ms(500)), Some(ms(360)));
        let without = [set(&[2, 3])];
        assert_eq!(until(&without, 1, &acks(&[(2, 100)]), ms(500)), None, "it votes no more itself");
    }

    proptest! {
        /// Whatever was taken when: at the end of the lease a quorum has been bound until later than that.
        #[test]
        fn a_lease_never_outlives_what_a_quorum_granted(
            voters in prop::collection::btree_set(1u64..8, 1..8),
            taken in prop::collection::vec((1u64..8, 0u64..1000), 0..20),
        ) {
            let own = *voters.first().unwrap();
            let mut last = BTreeMap::new();
            for (peer, at) in taken {
                if peer != own {
                    let entry: &mut Duration = last.entry(peer).or_default();
                    *entry = (*entry).max(ms(at));
                }
            }
            if let Some(until) = until(std::slice::from_ref(&voters), own, &last, ms(1000)) {
                let bound = |id: u64| id == own || last.get(&id).is_some_and(|sent| until < *sent + GRANTED);
                prop_assert!(is_quorum(&[voters], bound));
            }
        }
    }

    #[test]
    fn a_lease_belongs_to_one_reign() {
        let lease = Lease::new(1);
        let (first, second) = (Vote::new_committed(3, 1), Vote::new_committed(5, 1));
        lease.taken(first, 2, ms(100));
        assert!(!lease.holds(first, ms(200)), "who votes is not known yet");
        lease.lead(first, vec![set(&[1, 2, 3])], ms(110));
        assert!(lease.holds(first, ms(369)) && !lease.holds(first, ms(370)));
        let until = Arc::new(AtomicU64::new(0));
        assert!(lease.attach(first, Arc::clone(&until)));
        assert_eq!(until.load(Ordering::Relaxed), 370_000);
        lease.taken(first, 3, ms(150));
        lease.taken(first, 3, ms(140));
        assert_eq!(until.load(Ordering::Relaxed), 420_000);
        // The next reign of this router: the old one's lease is over and stays so.
        lease.taken(second, 2, ms(500));
        assert_eq!(until.load(Ordering::Relaxed), 0);
        lease.taken(first, 2, ms(600));
        assert!(!lease.attach(first, Arc::default()));
        lease.lead(second, vec![set(&[1, 2, 3])], ms(510));
        let next = Arc::new(AtomicU64::new(0));
        assert!(lease.attach(second, Arc::clone(&next)));
        assert_eq!((until.load(Ordering::Relaxed), next.load(Ordering::Relaxed)), (0, 770_000));
        lease.end();
        lease.taken(second, 3, ms(900));
        assert_eq!(next.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_may_have_voted_for_another_has_no_lease() {
        let (lease, vote) = (Lease::new(1), Vote::new_committed(3, 1));
        lease.lead(vote, vec![set(&[1, 2, 3])], ms(100));
        let until = Arc::new(AtomicU64::new(0));
        assert!(lease.attach(vote, Arc::clone(&until)));
        lease.taken(vote, 2, ms(100));
        assert!(!lease.cede(vote, false, ms(369)), "it leads with a lease");
        assert!(lease.cede(vote, false, ms(370)));
        lease.taken(vote, 2, ms(371));
        assert!(!lease.holds(vote, ms(372)), "its own vote may have gone");
        assert_eq!(until.load(Ordering::Relaxed), 370_000);
        lease.kept(vote);
        assert!(lease.holds(vote, ms(372)));
        assert_eq!(until.load(Ordering::Relaxed), 641_000);
        assert!(lease.cede(vote, true, ms(373)), "its heir is not refused");
        assert!(!lease.holds(vote, ms(373)));
        assert!(lease.cede(Vote::new_committed(2, 1), false, ms(373)), "what is over refuses nobody");
    }
}
