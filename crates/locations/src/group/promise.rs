//! What this router has promised the leader of a group, as one of its voters: to give nobody else a vote for a while.
//!
//! openraft promises the same whenever it takes entries or a heartbeat, but its task does nothing else while it waits for
//! the disk. So that a slow disk costs no leader his lease, leaders ask routers for the promise in their pings, and it is
//! kept here, outside of openraft: no vote is passed on to it and none is asked for while the promise holds; and once a
//! vote was passed on or asked for, nothing is promised to those before it.

use crate::lease::GRANTED;
use crate::types::Vote;
use std::time::Duration;

/// For how long a router that was asked by its leader to campaign may do so.
const TOLD: Duration = Duration::from_millis(200);

/// The promise of one voter in one group.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Promise {
    /// The leader to whom it was last given.
    vote: Option<Vote>,
    at: Duration,
    /// Votes that openraft has been asked for and has not answered.
    asked: u32,
    /// The latest vote that was given, or asked for from others.
    given: Option<Vote>,
    /// The leader wants this router to campaign, until this moment.
    told: Duration,
}

impl Promise {
    /// openraft has taken entries of this leader, and so has promised it.
    pub(crate) fn took(&mut self, vote: Vote, now: Duration) {
        (self.vote, self.at) = (Some(vote), now);
    }

    /// A leader asks for it; `known` is the vote that openraft has. Whether it is given.
    pub(crate) fn renew(&mut self, vote: Vote, known: Vote, now: Duration) -> bool {
        let passed_over = self.given.is_some_and(|given| given > vote);
        if vote != known || !vote.is_committed() || passed_over || self.asked > 0 || now < self.told {
            return false;
        }
        (self.vote, self.at) = (Some(vote), now);
        true
    }

    /// When it was last given to this leader.
    pub(crate) fn given_to(&self, leader: Option<u64>) -> Duration {
        let same = self.vote.map(|vote| vote.leader_id.node_id) == leader;
        if same { self.at } else { Duration::ZERO }
    }

    fn holds_against(&self, candidate: Vote, now: Duration) -> bool {
        let other = self.vote.is_some_and(|vote| vote.leader_id.node_id != candidate.leader_id.node_id);
        other && now < self.at + GRANTED
    }

    /// Another router asks for a vote: whether openraft may be asked. [`Promise::answered`] has to follow.
    pub(crate) fn ask(&mut self, candidate: Vote, now: Duration) -> bool {
        let may = !self.holds_against(candidate, now);
        self.asked += u32::from(may);
        may
    }

    /// It was given, or not, or nobody knows.
    pub(crate) fn answered(&mut self, candidate: Vote, given: bool) {
        self.asked = self.asked.saturating_sub(1);
        if given {
            self.given = self.given.max_of(candidate);
        }
    }

    /// This router itself asks others for their votes: whether it may. Its own it has given itself.
    pub(crate) fn campaign(&mut self, candidate: Vote, now: Duration) -> bool {
        if now >= self.told && self.holds_against(candidate, now) {
            return false;
        }
        self.given = self.given.max_of(candidate);
        true
    }

    /// The leader itself wants this router to be elected.
    pub(crate) fn release(&mut self, now: Duration) {
        self.told = now + TOLD;
    }
}

trait Later {
    fn max_of(self, other: Vote) -> Self;
}

impl Later for Option<Vote> {
    fn max_of(self, other: Vote) -> Self {
        Some(self.filter(|own| *own > other).unwrap_or(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn while_it_holds_nobody_else_is_voted_for() {
        let (leader, candidate) = (Vote::new_committed(5, 1), Vote::new(6, 3));
        let mut promise = Promise::default();
        assert!(promise.renew(leader, leader, ms(1_000)));
        assert_eq!((promise.given_to(Some(1)), promise.given_to(Some(2))), (ms(1_000), ms(0)));
        assert!(!promise.ask(candidate, ms(1_200)) && !promise.campaign(Vote::new(6, 2), ms(1_299)));
        assert!(promise.renew(leader, leader, ms(1_299)), "what was refused changes nothing");
        assert!(promise.ask(Vote::new(7, 1), ms(1_300)), "the leader itself may be elected anew");
        promise.answered(Vote::new(7, 1), false);
        assert!(promise.ask(candidate, ms(1_599)));
        assert!(!promise.renew(leader, leader, ms(1_599)), "it may just be given");
        promise.answered(candidate, false);
        assert!(promise.renew(leader, leader, ms(1_600)), "it was not");
        assert!(promise.ask(candidate, ms(1_900)));
        promise.answered(candidate, true);
        assert!(!promise.renew(leader, leader, ms(1_901)), "though openraft's figures do not say so yet");
        let next = Vote::new_committed(6, 3);
        assert!(promise.renew(next, next, ms(1_902)));
    }

    #[test]
    fn it_is_given_to_the_leader_that_openraft_knows() {
        let (leader, later) = (Vote::new_committed(5, 1), Vote::new_committed(6, 3));
        let mut promise = Promise::default();
        assert!(!promise.renew(leader, later, ms(1_000)), "an old one");
        assert!(!promise.renew(later, leader, ms(1_000)), "one that is not known here yet");
        assert!(!promise.renew(Vote::new(6, 3), Vote::new(6, 3), ms(1_000)), "a candidate");
        assert_eq!(promise.given_to(Some(1)), ms(0));
    }

    #[test]
    fn who_campaigns_promises_nothing_to_the_one_before() {
        let (leader, own) = (Vote::new_committed(5, 1), Vote::new(6, 2));
        let mut promise = Promise::default();
        promise.took(leader, ms(1_000));
        assert!(!promise.campaign(own, ms(1_200)));
        assert!(promise.campaign(own, ms(1_300)));
        assert!(!promise.renew(leader, leader, ms(1_301)));
    }

    #[test]
    fn an_heir_may_campaign_at_once() {
        let leader = Vote::new_committed(5, 1);
        let mut promise = Promise::default();
        assert!(promise.renew(leader, leader, ms(1_000)));
        promise.release(ms(1_010));
        assert!(!promise.renew(leader, leader, ms(1_011)), "what the leader had sent before comes late");
        assert!(promise.campaign(Vote::new(6, 2), ms(1_020)));
        let mut promise = Promise::default();
        promise.release(ms(1_010));
        promise.took(leader, ms(1_100));
        assert!(!promise.campaign(Vote::new(6, 2), ms(1_211)), "but not later");
    }
}
