//! What is done to one account, in order.
//!
//! A commit starts at once when nothing is under way to the account. What comes meanwhile waits, and is then written
//! together: a *flight*. So an account's rows are written in order, and of what is under way when a process dies either all
//! or nothing is found. What changes the account as a whole (load, create, delete, new keys) runs alone.

use crate::codec;
use crate::data::DataChanges;
use crate::joint::Joint;
use crate::log::{MOST_BYTES, MOST_ROWS, Opened, Plan};
use crate::retry::Outcome;
use crate::settings::Settings;
use futures::future::BoxFuture;
use starling_node::Trace;
use starling_store::{Position, Reign, Result, StoreError, Write};
use starling_xmpp::Timestamp;
use std::collections::VecDeque;
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
    /// The floor of the last closing, or the timestamp of the note of a removal, whether or not that came to its end. The next
    /// one's is higher.
    pub(crate) attempted: Position,
    /// That closing has not come to its end.
    pub(crate) closing: bool,
    /// There was no such account when it was looked for on behalf of what waits.
    pub(crate) absent: bool,
    /// Buckets are being dropped.
    pub(crate) trimming: bool,
    /// The highest timestamp of what has come so far.
    newest: Position,
    /// The same when nothing of a commit could be written. What had come by then was decided after it, and would be kept without
    /// it: its sender, who hears of the one and not of the other, sends it again behind. So was what comes later and was decided
    /// before its home had the answer.
    gap: Position,
    /// The last reign under which this process has begun to load or make it.
    latest: u64,
    /// The last one of this process that is over.
    left: u64,
    uncertain: bool,
    /// The first row of those that are under way, or of which nobody knows whether they were written.
    unsure: Option<Position>,
    busy: bool,
    jobs: VecDeque<Job>,
    flying: bool,
}

/// Commits are given up that have less time left than this when their turn comes.
const LEAST_TIME: Duration = Duration::from_millis(500);

/// Something to be done.
pub(crate) enum Job {
    /// Together with others.
    Commit(Commit),
    /// With nothing beside it.
    Alone(Alone),
}

/// What is made of a job when its turn comes.
pub(crate) type Alone = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Writes of one account.
pub(crate) struct Commit {
    pub(crate) at: Position,
    /// The first one before it whose answer its home did not have when it decided this.
    pub(crate) open: Option<Position>,
    /// Of the reign that has decided it; 0 where there is none.
    pub(crate) epoch: u64,
    pub(crate) writes: Writes,
    /// It is a part of a batch, and not the last.
    pub(crate) more: bool,
    pub(crate) traces: Vec<Trace>,
    /// When it is given up.
    pub(crate) until: Duration,
    pub(crate) joint: Arc<Joint>,
}

impl Commit {
    /// The first row that it writes.
    fn lowest(&self) -> Option<Position> {
        self.writes.list.iter().filter_map(Writes::row).min()
    }
}

/// Writes that fit in one flight.
#[derive(Default)]
pub(crate) struct Writes {
    pub(crate) list: Vec<Write>,
    rows: usize,
    bytes: usize,
}

/// Commits on their way.
pub(crate) struct Flight {
    pub(crate) plan: Plan,
    /// When it is given up.
    pub(crate) until: Duration,
    /// The commits.
    pub(crate) joints: Vec<Arc<Joint>>,
}

/// What is to be done next.
pub(crate) enum Step {
    /// Nothing, until something ends.
    Rest,
    /// This is to be told.
    Tell(Arc<Joint>, Outcome),
    /// This is to be written.
    Fly(Box<Flight>),
    /// This runs alone.
    Alone(Alone),
    /// The account is to be opened for what waits.
    Open,
    /// The mark of data is to be written for what waits.
    Mark,
}

impl Writes {
    /// Takes one more, if it fits in with those that are there.
    pub(crate) fn take(&mut self, write: Write, settings: &Settings) -> Option<Write> {
        let (rows, bytes) = match &write {
            Write::Append(row) => (1, codec::weight(row)),
            _ => (0, 0),
        };
        if !self.list.is_empty() && !self.fit(rows, bytes, settings) {
            return Some(write);
        }
        self.rows += rows;
        self.bytes += bytes;
        self.list.push(write);
        None
    }

    /// Where the row is that is written.
    fn row(write: &Write) -> Option<Position> {
        match write {
            Write::Append(row) => Some(row.position),
            _ => None,
        }
    }

    /// Takes out what is not a row.
    pub(crate) fn split_off_data(&mut self) -> Self {
        let is_row = |write: &Write| matches!(write, Write::Append(_));
        let (rows, data) = std::mem::take(&mut self.list).into_iter().partition(is_row);
        self.list = rows;
        Self { list: data, rows: 0, bytes: 0 }
    }

    /// Takes those of another commit, if they fit in.
    fn join(&mut self, other: Self, settings: &Settings) -> Option<Self> {
        if !self.fit(other.rows, other.bytes, settings) {
            return Some(other);
        }
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.list.extend(other.list);
        None
    }

    fn fit(&self, rows: usize, bytes: usize, settings: &Settings) -> bool {
        self.rows + rows <= settings.window.clamp(1, MOST_ROWS) && self.bytes + bytes <= MOST_BYTES
    }
}

impl Lane {
    /// Puts something at the end.
    pub(crate) fn push(&mut self, job: Job) {
        if let Job::Commit(commit) = &job {
            self.newest = self.newest.max(commit.at);
        }
        self.jobs.push_back(job);
    }

    /// Up to here there are rows, of which some may be from before this lane was in memory.
    pub(crate) fn knows(&mut self, last: Position) {
        self.newest = self.newest.max(last);
    }

    /// The highest timestamp of what has come so far, or closed the account.
    pub(crate) fn newest(&self) -> Position {
        self.opened.as_ref().map_or(self.newest, |opened| self.newest.max(opened.closed_at))
    }

    /// This timestamp, or a higher one where the account was closed at it, or was to be removed.
    pub(crate) fn above(&self, at: Position) -> Position {
        at.max(Position(self.attempted.0.saturating_add(1)))
    }

    /// From now on nobody knows what is stored; no commit starts until it has been loaded.
    pub(crate) fn doubt(&mut self) {
        self.uncertain = true;
        self.opened = None;
    }

    /// It has been loaded, or is not there any more.
    pub(crate) fn settle(&mut self, opened: Option<Opened>) {
        (self.uncertain, self.closing, self.unsure) = (false, false, None);
        self.opened = opened;
    }

    /// Nothing of a commit was written: nor is of what waits behind it.
    pub(crate) fn leaves_out(&mut self) {
        self.gap = self.newest;
    }

    /// The same of one for which there was no room.
    pub(crate) fn turns_away(&mut self, at: Position) {
        self.newest = self.newest.max(at);
        self.leaves_out();
    }

    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Whether a reign is over: it was left, or this process has come to a later one.
    pub(crate) fn is_over(&self, epoch: u64) -> bool {
        epoch > 0 && (epoch <= self.left || epoch < self.latest)
    }

    /// The account is loaded or made under a reign. Of one that is over nothing may be written from here on: what is remembered,
    /// and timestamps with it, is of the later one.
    pub(crate) fn enter(&mut self, epoch: u64) -> Result<()> {
        if self.is_over(epoch) {
            return Err(StoreError::Fenced);
        }
        self.latest = self.latest.max(epoch);
        Ok(())
    }

    /// Why nothing can be written of that reign.
    pub(crate) fn refuses(&self, epoch: u64) -> Option<StoreError> {
        if self.is_over(epoch) {
            return Some(StoreError::Fenced);
        }
        let why = || StoreError::Unavailable("what was written before is in doubt".to_owned());
        self.uncertain.then(why)
    }

    /// A reign, and those before it, are over. What it knew is of no use to the next, which reads and closes all of it.
    pub(crate) fn leave(&mut self, epoch: u64) {
        if self.latest > epoch {
            return;
        }
        self.left = self.left.max(epoch);
        (self.claimed, self.marked) = (None, None);
        self.settle(None);
    }

    /// Nothing would be lost but what can be read again. A doubt of a reign that was left ends with the next one, which closes
    /// the account in any case.
    pub(crate) fn may_be_forgotten(&self) -> bool {
        let left = self.left > 0 && self.claimed.is_none();
        (left || !(self.uncertain || self.closing))
            && !self.busy
            && !self.trimming
            && self.jobs.is_empty()
            && !self.flying
    }

    pub(crate) fn weight(&self) -> usize {
        self.opened.as_ref().map_or(1, Opened::weight)
    }

    /// What ran alone has ended.
    pub(crate) fn ended(&mut self) {
        self.busy = false;
    }

    /// The flight has ended, and it is known whether it was written, or not.
    pub(crate) fn landed(&mut self, known: bool) {
        self.flying = false;
        self.unsure.take_if(|_| known);
    }

    /// Up to here it is known which rows there are, and stays so: what comes from now on is above it. There may be none of which
    /// that is known.
    pub(crate) fn sure(&self) -> Position {
        let waiting = self.jobs.iter().filter_map(|job| match job {
            Job::Commit(commit) => commit.lowest(),
            Job::Alone(_) => None,
        });
        match (waiting.chain(self.unsure).min(), &self.opened) {
            (Some(unsure), _) => Position(unsure.0.saturating_sub(1)),
            (None, Some(_)) => self.newest(),
            (None, None) => codec::HIGHEST,
        }
    }

    /// Takes out all that waits, and forgets what is under way.
    pub(crate) fn abandon(&mut self) -> VecDeque<Job> {
        self.flying = false;
        std::mem::take(&mut self.jobs)
    }

    /// Fails the commit that waits first: nothing of it was written.
    pub(crate) fn fail_first(&mut self, error: StoreError) -> Option<(Arc<Joint>, Outcome)> {
        match self.jobs.pop_front()? {
            Job::Commit(commit) => {
                self.leaves_out();
                Some((commit.joint, Outcome::Nothing(error)))
            }
            job @ Job::Alone(_) => {
                self.jobs.push_front(job);
                None
            }
        }
    }

    /// The reign of the commit that waits first, with a floor below all that it writes and above all that was written before it.
    pub(crate) fn reign_of_first(&self) -> Option<Reign> {
        let Some(Job::Commit(commit)) = self.jobs.front() else { return None };
        let lowest = commit.lowest().unwrap_or(commit.at).min(commit.at);
        Some(Reign { epoch: commit.epoch, floor: Position(lowest.0.saturating_sub(1)) })
    }

    /// The position and the deadline of the commit that waits first.
    pub(crate) fn first(&self) -> Option<(Position, Duration)> {
        match self.jobs.front()? {
            Job::Commit(commit) => Some((commit.at, commit.until)),
            Job::Alone(_) => None,
        }
    }

    /// Decides what is next. What is given out has begun.
    pub(crate) fn step(&mut self, clock: Duration, now: Timestamp, settings: &Settings) -> Step {
        if self.busy {
            return Step::Rest;
        }
        let Some(job) = self.jobs.pop_front() else {
            self.absent = false;
            return Step::Rest;
        };
        let job = match job {
            Job::Commit(commit) => match self.refuses(commit.epoch) {
                Some(error) => return Step::Tell(commit.joint, Outcome::Nothing(error)),
                None => Job::Commit(commit),
            },
            alone @ Job::Alone(_) => alone,
        };
        match job {
            job if self.flying => {
                self.jobs.push_front(job);
                Step::Rest
            }
            Job::Alone(alone) => {
                self.busy = true;
                self.absent = false;
                Step::Alone(alone)
            }
            Job::Commit(commit) => self.commit(commit, clock, now, settings),
        }
    }

    fn commit(&mut self, commit: Commit, clock: Duration, now: Timestamp, settings: &Settings) -> Step {
        if self.absent {
            return Step::Tell(commit.joint, Outcome::Written);
        }
        if commit.at <= self.gap || commit.open.is_some_and(|open| open <= self.gap) {
            self.leaves_out();
            return Step::Tell(commit.joint, Outcome::Nothing(StoreError::Overloaded));
        }
        if commit.until <= clock + LEAST_TIME.min(settings.commit_deadline / 4) {
            self.leaves_out();
            return Step::Tell(commit.joint, Outcome::Nothing(StoreError::Overloaded));
        }
        let Some(opened) = self.opened.as_ref().filter(|opened| opened.serves(commit.epoch)) else {
            self.busy = true;
            self.jobs.push_front(Job::Commit(commit));
            return Step::Open;
        };
        if !opened.takes(&commit) {
            // It would lose to what closed the account: the caller's next position is higher.
            self.leaves_out();
            return Step::Tell(commit.joint, Outcome::Nothing(StoreError::Overloaded));
        }
        if opened.asks_for_mark(&commit) {
            self.busy = true;
            self.jobs.push_front(Job::Commit(commit));
            return Step::Mark;
        }
        Step::Fly(Box::new(self.flight(commit, now, settings)))
    }

    /// The commit, and those behind it that go with it.
    fn flight(&mut self, first: Commit, now: Timestamp, settings: &Settings) -> Flight {
        let Commit { mut at, open: _, epoch: _, mut writes, more: _, mut traces, mut until, joint } = first;
        let mut joints = vec![joint];
        while let Some(job) = self.jobs.pop_front() {
            let mut next = match (job, &self.opened) {
                // A part that others follow is full, and what flies with it would get the timestamp of half a batch.
                (Job::Commit(next), Some(opened))
                    if !next.more
                        && opened.serves(next.epoch)
                        && opened.takes(&next)
                        && !opened.asks_for_mark(&next) =>
                {
                    next
                }
                (job, _) => {
                    self.jobs.push_front(job);
                    break;
                }
            };
            if let Some(left) = writes.join(std::mem::take(&mut next.writes), settings) {
                next.writes = left;
                self.jobs.push_front(Job::Commit(next));
                break;
            }
            at = at.max(next.at);
            until = until.min(next.until);
            traces.append(&mut next.traces);
            joints.push(next.joint);
        }
        self.flying = true;
        let rows = writes.list.iter().filter_map(Writes::row);
        self.unsure = rows.chain(self.unsure).min();
        let plan = match &mut self.opened {
            Some(opened) => opened.plan(at, writes.list, traces, now, settings),
            None => Plan::default(),
        };
        Flight { plan, until, joints }
    }
}

impl Opened {
    /// Whether what was learned under its reign holds for that one.
    fn serves(&self, epoch: u64) -> bool {
        epoch == 0 || epoch == self.epoch
    }

    /// Whether the commit is above all that closed the account.
    fn takes(&self, commit: &Commit) -> bool {
        commit.at > self.closed_at || self.closed_at == Position(0)
    }

    fn asks_for_mark(&self, commit: &Commit) -> bool {
        !self.data_marked && commit.writes.list.iter().any(DataChanges::needs_mark)
    }
}

#[cfg(test)]
mod tests;
