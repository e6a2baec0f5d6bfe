//! What is done to one account, in order.
//!
//! Commits start in the order of the calls and run side by side; nothing is waited for but what they need to know. What
//! changes the account as a whole (load, create, delete, new keys) waits until they have ended and runs alone.

use crate::joint::Joint;
use crate::log::{Opened, Plan};
use crate::retry::Outcome;
use crate::settings::Settings;
use futures::future::BoxFuture;
use starling_node::Trace;
use starling_store::{Position, StoreError, Write};
use starling_xmpp::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The work on one account, and what is known of it.
#[derive(Default)]
pub(crate) struct Lane {
    /// What was learned when it was loaded.
    pub(crate) opened: Option<Opened>,
    /// Generation and epoch under which it was claimed.
    pub(crate) claimed: Option<(u64, u64)>,
    /// Generation and epoch for which the mark of data is durable, and was not too late.
    pub(crate) marked: Option<(u64, u64)>,
    /// The floor of the last closing, whether or not that came to its end.
    pub(crate) attempted: Position,
    /// There was no such account when it was looked for on behalf of what waits.
    pub(crate) absent: bool,
    /// Buckets are being dropped.
    pub(crate) trimming: bool,
    uncertain: bool,
    busy: bool,
    jobs: VecDeque<Job>,
    flights: BTreeMap<u64, Flight>,
    started: u64,
    /// Rows of all flights.
    rows: usize,
}

/// A commit that has not ended.
struct Flight {
    rows: usize,
    low: Option<Position>,
}

/// Something to be done.
pub(crate) enum Job {
    /// Beside other commits.
    Commit(Commit),
    /// With nothing beside it.
    Alone(Alone),
}

/// What is made of a job when its turn comes.
pub(crate) type Alone = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Writes of one account.
pub(crate) struct Commit {
    pub(crate) at: Position,
    pub(crate) writes: Vec<Write>,
    pub(crate) trace: Option<Trace>,
    /// When it is given up.
    pub(crate) until: Duration,
    pub(crate) joint: Arc<Joint>,
}

/// What is to be done next.
pub(crate) enum Step {
    /// Nothing, until something ends.
    Rest,
    /// This is to be told.
    Tell(Arc<Joint>, Outcome),
    /// This is to be written, under this number.
    Fly(u64, Plan, Duration, Arc<Joint>),
    /// This runs alone.
    Alone(Alone),
    /// The account is to be opened for what waits.
    Open,
    /// The mark of data is to be written for what waits.
    Mark,
}

impl Lane {
    /// Puts something at the end.
    pub(crate) fn push(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// From now on nobody knows what is stored; no commit starts until it has been loaded.
    pub(crate) fn doubt(&mut self) {
        self.uncertain = true;
        self.opened = None;
    }

    /// It has been loaded, or is not there any more.
    pub(crate) fn settle(&mut self, opened: Option<Opened>) {
        self.uncertain = false;
        self.opened = opened;
    }

    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Nothing would be lost but what can be read again.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        !self.uncertain && !self.busy && !self.trimming && self.jobs.is_empty() && self.flights.is_empty()
    }

    pub(crate) fn weight(&self) -> usize {
        self.opened.as_ref().map_or(1, Opened::weight)
    }

    /// What ran alone has ended.
    pub(crate) fn ended(&mut self) {
        self.busy = false;
    }

    /// A flight has ended.
    pub(crate) fn landed(&mut self, flight: u64) {
        if let Some(flight) = self.flights.remove(&flight) {
            self.rows = self.rows.saturating_sub(flight.rows);
        }
    }

    /// Takes out all that waits, and forgets what is under way.
    pub(crate) fn abandon(&mut self) -> VecDeque<Job> {
        self.flights.clear();
        self.rows = 0;
        std::mem::take(&mut self.jobs)
    }

    /// Fails the commit that waits first: nothing of it was written.
    pub(crate) fn fail_first(&mut self, error: StoreError) -> Option<(Arc<Joint>, Outcome)> {
        match self.jobs.pop_front()? {
            Job::Commit(commit) => Some((commit.joint, Outcome::Nothing(error))),
            job @ Job::Alone(_) => {
                self.jobs.push_front(job);
                None
            }
        }
    }

    /// The position and the deadline of the commit that waits first.
    pub(crate) fn first(&self) -> Option<(Position, Duration)> {
        match self.jobs.front()? {
            Job::Commit(commit) => Some((commit.at, commit.until)),
            Job::Alone(_) => None,
        }
    }

    /// Decides what is next. What runs alone has begun when it is given out.
    pub(crate) fn step(&mut self, clock: Duration, now: Timestamp, settings: &Settings) -> Step {
        if self.busy {
            return Step::Rest;
        }
        let Some(job) = self.jobs.pop_front() else {
            self.absent = false;
            return Step::Rest;
        };
        match job {
            Job::Alone(_) if !self.flights.is_empty() => self.wait(job),
            Job::Alone(alone) => {
                self.busy = true;
                self.absent = false;
                Step::Alone(alone)
            }
            Job::Commit(commit) => self.commit(commit, clock, now, settings),
        }
    }

    fn wait(&mut self, job: Job) -> Step {
        self.jobs.push_front(job);
        Step::Rest
    }

    fn commit(&mut self, commit: Commit, clock: Duration, now: Timestamp, settings: &Settings) -> Step {
        if self.uncertain {
            let why = "what was written before is in doubt".to_owned();
            return Step::Tell(commit.joint, Outcome::Nothing(StoreError::Unavailable(why)));
        }
        if self.absent {
            return Step::Tell(commit.joint, Outcome::Written);
        }
        if commit.until <= clock {
            return Step::Tell(commit.joint, Outcome::Nothing(StoreError::Overloaded));
        }
        let Some(opened) = &mut self.opened else {
            self.busy = true;
            self.jobs.push_front(Job::Commit(commit));
            return Step::Open;
        };
        if commit.at <= opened.closed_at && opened.closed_at > Position(0) {
            // It would lose to what closed the account: the caller's next position is higher.
            return Step::Tell(commit.joint, Outcome::Nothing(StoreError::Overloaded));
        }
        if !opened.data_marked && commit.writes.iter().any(crate::data::DataChanges::needs_mark) {
            self.busy = true;
            self.jobs.push_front(Job::Commit(commit));
            return Step::Mark;
        }
        let rows = commit.writes.iter().filter(|write| matches!(write, Write::Append(_))).count();
        let full = self.rows + rows > settings.window || self.flights.len() >= settings.window;
        if full && !self.flights.is_empty() {
            return self.wait(Job::Commit(commit));
        }
        let flying = self.flights.values().filter_map(|flight| flight.low).min();
        let Commit { at, writes, trace, until, joint } = commit;
        let plan = opened.plan(at, writes, flying, trace, now, settings);
        self.started += 1;
        self.rows += plan.rows;
        self.flights.insert(self.started, Flight { rows: plan.rows, low: plan.low });
        Step::Fly(self.started, plan, until, joint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::{Change, Owner};
    use futures::FutureExt;
    use futures::channel::oneshot;
    use starling_store::Result;
    use starling_store::testing::{append, at, jid, row};

    fn lane() -> Lane {
        let owner = Owner { jid: jid("a@x.org"), generation: 7 };
        Lane { opened: Some(Opened::new(owner, 1, Position(0))), ..Lane::default() }
    }

    fn commit(lane: &mut Lane, secs: u64, rows: u64) -> oneshot::Receiver<Result<()>> {
        let (joint, answered) = Joint::new(1, Vec::new());
        let writes =
            (0..rows).map(|n| append(row(&jid("a@x.org"), Position(at(secs).0 + n), &jid("b@x.org"))));
        let until = Duration::from_secs(5);
        let commit = Commit { at: at(secs + 1), writes: writes.collect(), trace: None, until, joint };
        lane.push(Job::Commit(commit));
        answered
    }

    fn step(lane: &mut Lane) -> Step {
        lane.step(Duration::ZERO, Timestamp(0), &Settings { window: 3, ..Settings::default() })
    }

    fn fly(step: Step) -> (u64, Plan) {
        match step {
            Step::Fly(number, plan, ..) => (number, plan),
            _ => panic!("does not fly"),
        }
    }

    fn safe(plan: &Plan) -> Position {
        match &plan.mutations[0].changes[0] {
            Change::PutRow(row, _) => row.safe,
            _ => panic!("no row"),
        }
    }

    #[test]
    fn commits_run_side_by_side_up_to_the_window() {
        let mut lane = lane();
        let _answers: Vec<_> = [10, 20, 30].map(|secs| commit(&mut lane, secs, 2)).into();
        let (first, plan) = fly(step(&mut lane));
        assert_eq!(safe(&plan), Position(at(10).0 - 1));
        assert!(matches!(step(&mut lane), Step::Rest), "four rows are too many");
        lane.landed(first);
        let (second, plan) = fly(step(&mut lane));
        assert_eq!(safe(&plan), Position(at(20).0 - 1), "the first has ended");
        lane.landed(second);
        let many = commit(&mut lane, 40, 9);
        let (third, _) = fly(step(&mut lane));
        assert!(matches!(step(&mut lane), Step::Rest));
        lane.landed(third);
        fly(step(&mut lane));
        drop(many);
        assert!(!lane.may_be_forgotten());
    }

    #[test]
    fn a_row_decided_beside_another_says_that_the_other_has_not_ended() {
        let mut lane = lane();
        let _answers = [commit(&mut lane, 10, 1), commit(&mut lane, 20, 1)];
        fly(step(&mut lane));
        assert_eq!(safe(&fly(step(&mut lane)).1), Position(at(10).0 - 1));
    }

    #[test]
    fn what_runs_alone_waits_and_is_waited_for() {
        let mut lane = lane();
        let _answers = commit(&mut lane, 10, 1);
        lane.push(Job::Alone(Box::new(|| async {}.boxed())));
        let _after = commit(&mut lane, 20, 1);
        let (flight, _) = fly(step(&mut lane));
        assert!(matches!(step(&mut lane), Step::Rest), "a commit is under way");
        lane.landed(flight);
        assert!(matches!(step(&mut lane), Step::Alone(_)));
        assert!(matches!(step(&mut lane), Step::Rest), "it runs");
        lane.ended();
        fly(step(&mut lane));
    }

    #[test]
    fn in_doubt_nothing_starts() {
        let mut lane = lane();
        let _answers = [commit(&mut lane, 10, 1), commit(&mut lane, 20, 1)];
        fly(step(&mut lane));
        lane.doubt();
        assert!(matches!(step(&mut lane), Step::Tell(_, Outcome::Nothing(StoreError::Unavailable(_)))));
        let opened = Opened::new(Owner { jid: jid("a@x.org"), generation: 7 }, 1, at(25));
        lane.settle(Some(opened));
        let _low = commit(&mut lane, 20, 1);
        assert!(matches!(step(&mut lane), Step::Tell(_, Outcome::Nothing(StoreError::Overloaded))), "below");
        let _high = commit(&mut lane, 30, 1);
        fly(step(&mut lane));
    }

    #[test]
    fn what_is_not_known_is_asked_first() {
        let mut lane = Lane::default();
        let answer = commit(&mut lane, 10, 1);
        assert!(matches!(step(&mut lane), Step::Open));
        lane.ended();
        lane.absent = true;
        match step(&mut lane) {
            Step::Tell(joint, outcome) => joint.end(outcome),
            _ => panic!("there is no account: nothing to do"),
        }
        assert!(answer.now_or_never().unwrap().unwrap().is_ok());
        assert!(matches!(step(&mut lane), Step::Rest));
        assert!(!lane.absent, "the next one asks again");
    }

    #[test]
    fn roster_changes_wait_for_their_mark() {
        let mut lane = lane();
        let (joint, _answered) = Joint::new(1, Vec::new());
        let writes = vec![Write::RosterRemove(jid("a@x.org"), jid("b@x.org"), 1)];
        let until = Duration::from_secs(5);
        lane.push(Job::Commit(Commit { at: at(1), writes, trace: None, until, joint }));
        assert!(matches!(step(&mut lane), Step::Mark));
        lane.ended();
        lane.opened.as_mut().unwrap().data_marked = true;
        fly(step(&mut lane));
    }
}
