//! One shard's group at one router: what its home asks of it, and what other routers ask of it.

mod driver;
mod giving;
mod incoming;
mod promise;
mod snapshot;
mod standing;

pub(crate) use driver::{Control, Driver};
pub use giving::GiveError;
pub(crate) use giving::nearly_caught_up;
pub(crate) use promise::Promise;
pub use snapshot::NoSnapshot;
pub use standing::Standing;

use crate::call::{Answer, Call, Refusal};
use crate::lease::{Configs, Lease, micros};
use crate::machine::{Op, Outcome, Row, View};
use crate::snapshots::Snapshots;
use crate::state::State;
use crate::types::{Member, Raft, Vote};
use futures::future::BoxFuture;
use incoming::Incoming;
use openraft::RaftMetrics;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::{AppendEntriesResponse, VoteRequest};
use parking_lot::Mutex;
use starling_node::clock::SharedClock;
use starling_wire::{Epoch, RouterId, Shard};
use starling_xmpp::{BareJid, FullJid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// The most operations in one entry, and about the most bytes.
const MOST_OPS: usize = 1024;
const MOST_BYTES: usize = 256 << 10;
/// How many requests wait for a group's entry before others are refused.
const QUEUE: usize = 4096;
/// For how long a router that has taken entries of a member knows who the members are: who lags behind may not.
const KNOWN: Duration = Duration::from_secs(5);
/// For how long it is believed that another router leads with the promise of a quorum after it has said so.
const CONFIRMED: Duration = Duration::from_secs(1);
/// No term rises by so much at once. A higher one would leave too few for elections.
const RISE: u64 = 1 << 32;
/// How long an operation may take: waiting for its turn, then for its entry.
const DEADLINE: Duration = Duration::from_secs(2);

/// Why an operation has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It may take effect, or not. Ask again: all operations can be asked for again.
    #[error("it is not known whether it was recorded")]
    Unknown,
    /// This router does not reign over the shard. Nothing was done.
    #[error("not the shard's home")]
    NotLeader,
    /// Too much waits already, or no quorum was there in time. Nothing was done.
    #[error("too busy")]
    Busy,
}

/// A reign of this router over a shard.
#[derive(Debug, Clone)]
pub struct Reigning {
    /// Which.
    pub epoch: Epoch,
    /// All its positions are above.
    pub floor: u64,
    /// And below this; raised as time goes on, 0 when the reign is over.
    pub ceiling: Arc<AtomicU64>,
    /// When its lease ends, in microseconds of monotonic time; put off by every answer of a quorum, 0 when the reign is over.
    pub until: Arc<AtomicU64>,
    /// For how long there have been homes of the shard before it, each moved on purpose to the next.
    pub age: Duration,
}

/// One shard at this router. Clones are the same.
#[derive(Clone)]
pub struct Group {
    core: Arc<Core>,
}

/// What all parts of a group share.
pub(crate) struct Core {
    pub(crate) shard: Shard,
    pub(crate) own: RouterId,
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) clock: SharedClock,
    pub(crate) snapshots: Snapshots,
    /// openraft's own figures: the first changes seldom, the second all the time.
    pub(crate) server: watch::Receiver<RaftServerMetrics<u64, Member>>,
    pub(crate) figures: watch::Receiver<RaftMetrics<u64, Member>>,
    /// It was never told anything: no entry, no vote, no snapshot.
    pub(crate) fresh: AtomicBool,
    pub(crate) promise: Arc<Mutex<Promise>>,
    /// Which router last said that it leads with the promise of a quorum, and when it was heard, this one too.
    pub(crate) confirmed: Mutex<Option<(RouterId, Duration)>>,
    /// When this group was started here.
    pub(crate) began: Duration,
    /// When entries or a heartbeat of a member were last taken, in microseconds; 0: never.
    pub(crate) led: AtomicU64,
    /// When openraft's task was asked to say that it runs, in microseconds; 0 once it has.
    pub(crate) probed: Arc<AtomicU64>,
    /// How old the homes of the shard were when they were last to go on in another reign, and when that was.
    pub(crate) inherits: Mutex<Option<(Duration, Duration)>>,
    /// Set while no heartbeats go out.
    pub(crate) quiet: AtomicBool,
    /// To whom this router, as the leader, gives its own vote; 0: nobody.
    pub(crate) heir: AtomicU64,
    /// Nothing can be agreed on here any more: openraft has stopped, or is about to since the log has failed.
    pub(crate) stopped: AtomicBool,
    pub(crate) reign: watch::Sender<Option<Reigning>>,
    pub(crate) queue: mpsc::Sender<Request>,
    pub(crate) control: mpsc::Sender<Control>,
    /// Held while the leadership is being given away, from the moment when its home is to finish.
    pub(crate) giving: tokio::sync::Mutex<()>,
    pub(crate) incoming: tokio::sync::Mutex<Option<Incoming>>,
}

/// Operations that wait for their entry.
pub(crate) struct Request {
    pub(crate) ops: Vec<Op>,
    pub(crate) deadline: Duration,
    pub(crate) done: oneshot::Sender<Result<Vec<Outcome>, RecordError>>,
}

impl Group {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Which shard it is.
    pub fn shard(&self) -> Shard {
        self.core.shard
    }

    /// Records what a home wants, in order; the outcomes are in the same order. What other homes of this shard's reign want
    /// at the same time goes into the same entry.
    pub fn record(&self, ops: Vec<Op>) -> BoxFuture<'static, Result<Vec<Outcome>, RecordError>> {
        let core = Arc::clone(&self.core);
        Box::pin(async move { core.record(ops).await })
    }

    /// This router's reign over the shard. It begins when its own opening has been applied, so that all entries before are
    /// in the [`Group::view`]; it is over as soon as this router knows.
    pub fn reign(&self) -> watch::Receiver<Option<Reigning>> {
        self.core.reign.subscribe()
    }

    /// All rows as they are known here now.
    pub fn view(&self) -> View {
        self.core.state.machine.lock().view()
    }

    /// Where a session is, as far as it is known here.
    pub fn row(&self, jid: &FullJid) -> Option<Row> {
        self.core.state.machine.lock().row(jid).copied()
    }

    /// Where an account's sessions are, as far as it is known here.
    pub fn of(&self, account: &BareJid) -> Vec<(FullJid, Row)> {
        self.core.state.machine.lock().of(account).map(|(jid, row)| (jid.clone(), *row)).collect()
    }

    /// How the group stands, for those who watch over it.
    pub fn standing(&self) -> Standing {
        Standing::of(&self.core)
    }

    /// Has a snapshot made soon.
    ///
    /// # Errors
    /// When there is no room for it, or the group has stopped.
    pub async fn snapshot(&self) -> Result<(), NoSnapshot> {
        self.core.snapshot().await
    }

    /// Whom the last vote that counts here names as the shard's leader, alive or not. Who leads at present is in
    /// [`Group::standing`].
    pub fn leader(&self) -> Option<RouterId> {
        self.core.leader()
    }
}

impl Core {
    async fn record(&self, ops: Vec<Op>) -> Result<Vec<Outcome>, RecordError> {
        if self.reign.borrow().is_none() {
            return Err(RecordError::NotLeader);
        }
        let mut waiting = Vec::new();
        let mut result = Ok(());
        for ops in portions(ops) {
            let (done, answer) = oneshot::channel();
            let deadline = self.clock.monotonic() + DEADLINE;
            if self.queue.try_send(Request { ops, deadline, done }).is_err() {
                result = Err(if waiting.is_empty() { RecordError::Busy } else { RecordError::Unknown });
                break;
            }
            waiting.push(answer);
        }
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(answer.await.unwrap_or(Err(RecordError::Unknown)));
        }
        result.and_then(|()| together(answers))
    }

    /// Has heartbeats sent, or not.
    pub(crate) fn heartbeats(&self, sent: bool) {
        self.quiet.store(!sent, Ordering::Release);
    }

    /// Who votes, as far as it is known here.
    pub(crate) fn configs(&self) -> Configs {
        self.server.borrow().membership_config.membership().get_joint_config().clone()
    }

    /// Whom the last committed vote names.
    pub(crate) fn leader(&self) -> Option<RouterId> {
        self.server.borrow().current_leader.map(RouterId)
    }

    /// The vote by which this router leads. openraft's figures go on to say so when it has stopped.
    pub(crate) fn leads(&self) -> Option<Vote> {
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let server = self.server.borrow();
        let leads = server.state.is_leader()
            && server.vote.is_committed()
            && server.vote.leader_id.node_id == self.own.0;
        leads.then_some(server.vote)
    }

    /// Leads nothing from now on, whatever openraft says: so nobody is asked to wait for this router.
    pub(crate) fn cease(&self) {
        self.stopped.store(true, Ordering::Release);
        self.lease.end();
        self.reign.send_replace(None);
    }

    /// The vote by which this router leads, if a quorum promises that nobody else does.
    pub(crate) fn leads_with_lease(&self) -> Option<Vote> {
        let now = self.clock.monotonic();
        self.leads().filter(|vote| self.lease.holds(*vote, now))
    }

    /// A router leads with the promise of a quorum, as it is heard now.
    pub(crate) fn confirm(&self, leader: RouterId, now: Duration) {
        *self.confirmed.lock() = Some((leader, now));
    }

    /// Who leads with the promise of a quorum: another router if it has said so within the last second.
    pub(crate) fn led_by(&self) -> Option<RouterId> {
        if self.leads_with_lease().is_some() {
            return Some(self.own);
        }
        let (now, confirmed) = (self.clock.monotonic(), *self.confirmed.lock());
        confirmed
            .filter(|(leader, at)| *leader != self.own && now < *at + CONFIRMED)
            .map(|(leader, _)| leader)
    }

    /// When the leader that is known now was last promised that it would go on.
    pub(crate) fn promised_to(&self, leader: Option<RouterId>) -> Duration {
        self.promise.lock().given_to(leader.map(|leader| leader.0))
    }

    /// Promises it to the leader of this term, if it is that.
    pub(crate) fn renew(&self, leader: RouterId, term: u64) -> bool {
        let vote = Vote::new_committed(term, leader.0);
        let mut promise = self.promise.lock();
        // Read while nothing can be asked for.
        let known = self.server.borrow().vote;
        promise.renew(vote, known, self.clock.monotonic())
    }

    /// For how long openraft's task has not done what it was asked to: it waits for the disk, or is not run.
    pub(crate) fn stuck(&self, now: Duration) -> Duration {
        match self.probed.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            asked => now.saturating_sub(Duration::from_micros(asked)),
        }
    }

    /// Asks openraft's task to say that it runs, unless it has been asked and has not said so.
    pub(crate) fn probe(&self) {
        let now = micros(self.clock.monotonic()).max(1);
        if self.probed.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let probed = Arc::clone(&self.probed);
            self.raft.external_request(move |_| probed.store(0, Ordering::Release));
        }
    }

    /// Asks openraft for its vote, unless somebody else has been promised that it would not be given.
    async fn vote(&self, candidate: VoteRequest<u64>) -> Answer {
        let (asked, now) = (candidate.vote, self.clock.monotonic());
        let heir = self.heir.load(Ordering::Acquire) == asked.leader_id.node_id;
        let leads = self.leads();
        if leads.is_some_and(|vote| !self.lease.cede(vote, heir, now)) {
            return Answer::Refused(Refusal::Led);
        }
        let kept = |given: bool| {
            if let Some(vote) = leads.filter(|_| !given) {
                self.lease.kept(vote);
            }
        };
        if !self.promise.lock().ask(asked, now) {
            kept(false);
            return Answer::Refused(Refusal::Led);
        }
        let answer = self.raft.vote(candidate).await;
        // Where nobody knows, it may have been given.
        let given = answer.as_ref().map_or(true, |answer| answer.vote_granted);
        self.promise.lock().answered(asked, given);
        kept(given);
        answer.map_or(Answer::Refused(Refusal::Stopped), Answer::Vote)
    }

    /// Whether a router may speak by this vote, whatever its certificate says: for itself only, and only as a member, where it
    /// is known for sure who is one.
    fn believes(&self, from: RouterId, vote: Vote) -> bool {
        let term = self.server.borrow().vote.leader_id.term;
        if vote.leader_id.node_id != from.0 || vote.leader_id.term > term.saturating_add(RISE) {
            return false;
        }
        let led = Duration::from_micros(self.led.load(Ordering::Acquire));
        let known = !led.is_zero() && self.clock.monotonic() < led + KNOWN;
        self.is_member(from) || !(known || self.leads_with_lease().is_some())
    }

    fn is_member(&self, router: RouterId) -> bool {
        self.server.borrow().membership_config.membership().get_node(&router.0).is_some()
    }

    /// Answers another router.
    pub(crate) async fn answer(self: &Arc<Self>, from: RouterId, call: Call) -> Answer {
        if matches!(call, Call::Append(_) | Call::Vote(_) | Call::Piece(_)) {
            self.fresh.store(false, Ordering::Release);
        }
        let speaks = match &call {
            Call::Append(append) => Some(append.vote),
            Call::Vote(candidate) => Some(candidate.vote),
            Call::Piece(piece) => Some(piece.vote),
            _ => None,
        };
        if speaks.is_some_and(|vote| !self.believes(from, vote)) {
            return Answer::Refused(Refusal::Stranger);
        }
        match call {
            Call::Append(append) => {
                let vote = append.vote;
                match self.raft.append_entries(append).await {
                    Ok(answer) => {
                        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                            // Not before: openraft begins to count when it takes them.
                            let now = self.clock.monotonic();
                            self.promise.lock().took(vote, now);
                            if self.is_member(from) {
                                self.led.store(micros(now), Ordering::Release);
                            }
                        }
                        Answer::Append(answer)
                    }
                    Err(_) => Answer::Refused(Refusal::Stopped),
                }
            }
            Call::Vote(candidate) => {
                let id = candidate.vote.leader_id.node_id;
                if self.state.removed.lock().contains(&id) {
                    return Answer::Refused(Refusal::Removed);
                }
                // Whoever asked may go away: the end of it must be known all the same.
                let core = Arc::clone(self);
                let answer = tokio::spawn(async move { core.vote(candidate).await });
                answer.await.unwrap_or(Answer::Refused(Refusal::Stopped))
            }
            Call::Piece(piece) => self.take_piece(from, piece).await,
            Call::Elect { age } => {
                // Only the leader may ask for it, and only while it is believed to be that.
                if self.leader() != Some(from) {
                    return Answer::Refused(Refusal::Busy);
                }
                let now = self.clock.monotonic();
                self.promise.lock().release(now);
                *self.inherits.lock() = Some((age, now));
                match self.raft.trigger().elect().await {
                    Ok(()) => Answer::Done,
                    Err(_) => Answer::Refused(Refusal::Stopped),
                }
            }
            Call::Heir if self.heir.load(Ordering::Acquire) == from.0 => Answer::Done,
            Call::Heir => Answer::Refused(Refusal::Busy),
            Call::Ping(_) | Call::Join { .. } | Call::Found { .. } | Call::Remove(_) | Call::Reconcile(_) => {
                Answer::Refused(Refusal::Malformed)
            }
        }
    }
}

/// Cuts what is too much for one entry.
fn portions(ops: Vec<Op>) -> Vec<Vec<Op>> {
    let mut portions = vec![Vec::new()];
    let mut bytes = 0;
    for op in ops {
        if let Some(last) = portions.last_mut()
            && (last.is_empty() || (last.len() < MOST_OPS && bytes + op.weight() <= MOST_BYTES))
        {
            bytes = if last.is_empty() { 0 } else { bytes } + op.weight();
            last.push(op);
        } else {
            bytes = op.weight();
            portions.push(vec![op]);
        }
    }
    portions
}

/// What became of all portions of a request: that nothing was done is said only if it is true of each.
fn together(answers: Vec<Result<Vec<Outcome>, RecordError>>) -> Result<Vec<Outcome>, RecordError> {
    let failed = answers.iter().find_map(|answer| answer.as_ref().err().copied());
    match failed {
        None => Ok(answers.into_iter().flatten().flatten().collect()),
        Some(error) if answers.iter().all(|answer| *answer == Err(error)) => Err(error),
        Some(_) => Err(RecordError::Unknown),
    }
}

/// The queue of a group.
pub(crate) fn queue() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_an_entry_is_cut() {
        let grant = |ceiling| Op::Grant { epoch: Epoch(1), ceiling };
        let cut = portions((0..2500).map(grant).collect());
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 1024, 452]);
        assert_eq!(cut.concat(), (0..2500).map(grant).collect::<Vec<_>>());
        let long = FullJid::parse(&format!("a@x.org/{}", "r".repeat(1000))).unwrap();
        let unbind = Op::Unbind { epoch: Epoch(1), jid: long, token: starling_wire::Token(1) };
        let cut = portions(vec![unbind; 600]);
        assert!(
            cut.len() == 3 && cut.iter().all(|ops| ops.iter().map(Op::weight).sum::<usize>() <= MOST_BYTES)
        );
        assert_eq!(portions(Vec::new()), [Vec::new()]);
    }

    #[test]
    fn of_a_request_in_portions_nothing_was_done_only_if_nothing_was_done_of_any() {
        use RecordError::{Busy, NotLeader, Unknown};
        let done = || Ok(vec![Outcome::Unbound]);
        assert_eq!(together(vec![done(), done()]), Ok(vec![Outcome::Unbound; 2]));
        assert_eq!(together(vec![Err(Busy)]), Err(Busy));
        assert_eq!(together(vec![Err(NotLeader), Err(NotLeader)]), Err(NotLeader));
        assert_eq!(together(vec![done(), Err(Busy)]), Err(Unknown));
        assert_eq!(together(vec![Err(Busy), done()]), Err(Unknown), "the second was recorded");
        assert_eq!(together(vec![Err(Busy), Err(Unknown)]), Err(Unknown));
        assert_eq!(together(vec![Err(Busy), Err(NotLeader)]), Err(Unknown));
    }
}
