//! Commits, and the acts that wait for them.
//!
//! What was decided is carried out in the order in which it was decided, each act after the writes that were decided with
//! it. Over a store that commits together (a write-ahead log) all homes of a worker share one lane: a turn is one commit.
//! Otherwise each home has a lane of its own: its commits may be confirmed in any order, its acts leave in theirs, and
//! no home waits for another's.

use crate::act::Act;
use crate::cluster::{LocationOp, RecordError};
use crate::reads::panicked;
use crate::shared::Shared;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use starling_node::telemetry::metrics::{Consistency, Outcome, StoreTable};
use starling_store::{Batch, Position, StoreError, Write};
use starling_xmpp::BareJid;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Turns that may be on their way to the disk at once over a store that commits together; more would only make the batches
/// smaller.
const MAX_TURNS: usize = 8;
/// Commits of single homes that a worker may have under way; what more of them have to write waits.
const MAX_FLIGHTS: usize = 4_096;
/// The same where each shard of a cluster has a worker, however many there are: the way to the store is one for all shards of a
/// process.
const MIN_FLIGHTS: usize = 64;
/// Rows of one home that may be unconfirmed, then.
const MAX_ROWS: usize = 256;

/// What is carried out together, and what became of what it waited for.
pub(crate) struct Done {
    pub(crate) acts: Vec<Act>,
    /// Of its writes.
    pub(crate) result: Result<(), StoreError>,
    /// Whether what it has to say of who is where is recorded.
    pub(crate) recorded: bool,
}

/// What was decided for one lane.
#[derive(Default)]
pub(crate) struct Draft {
    /// The home; `None` for all of a worker.
    pub(crate) lane: Option<BareJid>,
    pub(crate) acts: Vec<Act>,
    /// With their positions; none where none could be given.
    pub(crate) writes: Vec<(Option<Position>, Write)>,
    /// Of who is where.
    pub(crate) ops: Vec<LocationOp>,
}

/// All that a worker has under way.
pub(crate) struct Pipeline {
    together: bool,
    /// Commits of single homes that may be under way.
    most: usize,
    lanes: HashMap<Option<BareJid>, Lane>,
    flights: FuturesUnordered<Flight>,
    landings: Vec<Landing>,
    /// Lanes whose first step may be carried out, in the order in which that was seen.
    landed: VecDeque<Option<BareJid>>,
    steps: usize,
}

/// Steps in order.
#[derive(Default)]
struct Lane {
    /// Number of the first of them.
    first: u64,
    steps: VecDeque<Step>,
    /// Those below this one were under way when something of the lane came back after the lease.
    late: u64,
}

struct Step {
    acts: Vec<Act>,
    /// Of what is to be written.
    at: Option<Position>,
    /// Of its writes, when that is known.
    result: Option<Result<(), StoreError>>,
    /// That they fail may be known while it waits for its record.
    fails: Option<Fails>,
    recorded: bool,
}

/// Whether the writes of a step have failed, which waits for its record.
type Fails = Arc<AtomicBool>;

impl Step {
    /// Whether it is known that its writes have failed.
    fn has_failed(&self) -> bool {
        matches!(self.result, Some(Err(_))) || self.fails.as_ref().is_some_and(|fails| fails.load(Relaxed))
    }
}

/// A commit under way.
struct Flight {
    lane: Option<BareJid>,
    number: u64,
    began: Duration,
    commit: Doing<StoreError>,
    record: Doing<RecordError>,
    /// Where there is a record.
    fails: Option<Fails>,
}

/// Something under way, or what came of it.
enum Doing<E> {
    Going(BoxFuture<'static, Result<(), E>>),
    /// `None`: it was never begun.
    Over(Option<Result<(), E>>),
}

impl<E: Unpin> Doing<E> {
    /// Goes on with it. Of one that panics nobody knows what it has done.
    fn poll(&mut self, cx: &mut Context<'_>, unknown: fn() -> E) -> Poll<()> {
        if let Self::Going(doing) = self {
            let result = match catch_unwind(AssertUnwindSafe(|| doing.as_mut().poll(cx))) {
                Ok(result) => ready!(result),
                Err(_) => {
                    tracing::error!(event = "write_panicked", "a write has panicked and is given up");
                    Err(unknown())
                }
            };
            *self = Self::Over(Some(result));
        }
        Poll::Ready(())
    }

    fn take(&mut self) -> Option<Result<(), E>> {
        match self {
            Self::Going(_) => None,
            Self::Over(result) => result.take(),
        }
    }
}

struct Landing {
    lane: Option<BareJid>,
    number: u64,
    began: Duration,
    /// `None`: nothing was to be written.
    result: Option<Result<(), StoreError>>,
    recorded: bool,
}

impl Future for Flight {
    type Output = Landing;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Landing> {
        let commit = self.commit.poll(cx, panicked);
        if let (Doing::Over(Some(Err(_))), Some(fails)) = (&self.commit, &self.fails) {
            fails.store(true, Relaxed);
        }
        let record = self.record.poll(cx, || RecordError::Unknown);
        ready!(commit);
        ready!(record);
        let (lane, number, began) = (self.lane.take(), self.number, self.began);
        let (result, record) = (self.commit.take(), self.record.take());
        if let Some(Err(error)) = record {
            tracing::warn!(event = "record_failed", %error, "who is where was not recorded");
        }
        Poll::Ready(Landing { lane, number, began, result, recorded: !matches!(record, Some(Err(_))) })
    }
}

impl Pipeline {
    /// For the worker of all accounts, or of one of so many shards.
    pub(crate) fn new(together: bool, shards: u16) -> Self {
        Self::with(together, (MAX_FLIGHTS / usize::from(shards.max(1))).max(MIN_FLIGHTS))
    }

    fn with(together: bool, most: usize) -> Self {
        Self {
            together,
            most,
            lanes: HashMap::new(),
            flights: FuturesUnordered::new(),
            landings: Vec::new(),
            landed: VecDeque::new(),
            steps: 0,
        }
    }

    /// Whether all homes share one lane.
    pub(crate) fn is_together(&self) -> bool {
        self.together
    }

    /// Whether anything more may be decided at all.
    pub(crate) fn is_open(&self) -> bool {
        !self.together || self.steps < MAX_TURNS
    }

    /// Whether a home with so many unconfirmed rows may decide on more that is to be written.
    pub(crate) fn has_room_for(&self, rows: usize) -> bool {
        self.together || (rows < MAX_ROWS && self.has_room())
    }

    /// Whether any home may.
    pub(crate) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many homes may.
    pub(crate) fn room(&self) -> usize {
        if self.together { usize::MAX } else { self.most.saturating_sub(self.flights.len()) }
    }

    /// How many commits are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.flights.len()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Takes what was decided. Returned at once where there is nothing to wait for.
    pub(crate) fn push(&mut self, shared: &Shared, draft: Draft) -> Option<Done> {
        let Draft { lane, acts, writes, ops } = draft;
        let (result, batch) = match batch(shared.positions.epoch(), writes, &acts) {
            None => (Some(Ok(())), None),
            Some(Ok(batch)) => (None, Some(batch)),
            Some(Err(error)) => (Some(Err(error)), None),
        };
        let record = shared.tier.as_ref().filter(|_| !ops.is_empty()).map(|tier| tier.register.record(ops));
        let steps = self.lanes.get(&lane).map(|lane| &lane.steps);
        let idle = steps.is_none_or(VecDeque::is_empty);
        // What is known to have failed waits for its turn to be told. This was decided behind it, and would come before it once
        // its client says it again (promise 4).
        let (result, batch) = match batch {
            Some(_) if steps.is_some_and(|steps| steps.iter().any(Step::has_failed)) => {
                (Some(Err(StoreError::Overloaded)), None)
            }
            batch => (result, batch),
        };
        let mut result = match result {
            Some(result) if idle && record.is_none() => return Some(Done { acts, result, recorded: true }),
            result => result,
        };
        let mut commit = Doing::Over(None);
        let at = batch.as_ref().map(|batch| batch.at);
        if let Some(mut batch) = batch {
            let under_way = self.lanes.get(&lane).map(|lane| &lane.steps);
            batch.open = under_way.and_then(|steps| steps.iter().find_map(|step| step.at));
            commit = Doing::Going(shared.store.commit(batch));
        } else if record.is_some() {
            commit = Doing::Over(result.take().filter(Result::is_err));
        }
        let steps = self.lanes.entry(lane.clone()).or_default();
        let number = steps.first + steps.steps.len() as u64;
        let flies = result.is_none();
        let failed = matches!(commit, Doing::Over(Some(Err(_))));
        let fails = record.is_some().then(|| Arc::new(AtomicBool::new(failed)));
        steps.steps.push_back(Step { acts, at, result, fails: fails.clone(), recorded: true });
        self.steps += 1;
        if flies {
            let record = record.map_or(Doing::Over(None), Doing::Going);
            let began = shared.clock.monotonic();
            self.flights.push(Flight { lane, number, began, commit, record, fails });
        }
        None
    }

    /// Looks which commits have ended.
    pub(crate) fn poll(&mut self, shared: &Shared, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(landing)) = self.flights.poll_next_unpin(cx) {
            self.landings.push(landing);
        }
        if self.landings.is_empty() {
            return;
        }
        // After all of them: what is confirmed counts only if the lease holds when it is.
        let now = shared.clock.monotonic();
        let holds = shared.positions.hold(now);
        for Landing { lane, number, began, result, recorded } in self.landings.drain(..) {
            let written = result.is_some();
            // A lease that holds again does not hold for what follows something that was refused: it would be in the log before
            // that, once its client sends all of it again (promise 4).
            let follows = self.lanes.get(&lane).is_some_and(|lane| number < lane.late);
            let late = written && !holds;
            let result = match result {
                Some(Ok(())) if late || follows => {
                    Err(StoreError::Unavailable("the lease is over".to_owned()))
                }
                result => result.unwrap_or(Ok(())),
            };
            if written {
                let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
                let took = now.saturating_sub(began);
                let level = if self.together { Consistency::Disk } else { Consistency::LocalQuorum };
                shared.metrics.store_write.at(StoreTable::Log, level, outcome).observe(took.as_secs_f64());
            }
            let Some(steps) = self.lanes.get_mut(&lane) else { continue };
            if late {
                steps.late = steps.first + steps.steps.len() as u64;
            }
            let index = usize::try_from(number.wrapping_sub(steps.first)).unwrap_or(usize::MAX);
            let Some(step) = steps.steps.get_mut(index) else { continue };
            (step.result, step.recorded) = (Some(result), recorded);
            if late {
                // Nor for what came back in time, and stands behind one that had to wait for its record.
                for step in steps.steps.iter_mut().skip(index + 1).filter(|step| step.at.is_some()) {
                    if let Some(Ok(())) = step.result {
                        step.result = Some(Err(StoreError::Unavailable("the lease is over".to_owned())));
                    }
                }
            }
            if index == 0 {
                self.landed.push_back(lane);
            }
        }
    }

    /// What is to be carried out now.
    pub(crate) fn next(&mut self) -> Option<Done> {
        while let Some(lane) = self.landed.front() {
            if let Some(steps) = self.lanes.get_mut(lane) {
                let result = steps.steps.front_mut().and_then(|step| step.result.take());
                if let Some((result, step)) =
                    result.and_then(|result| Some((result, steps.steps.pop_front()?)))
                {
                    steps.first += 1;
                    self.steps -= 1;
                    return Some(Done { acts: step.acts, result, recorded: step.recorded });
                }
                if steps.steps.is_empty() && lane.is_some() {
                    self.lanes.remove(lane);
                }
            }
            self.landed.pop_front();
        }
        None
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        *self = Self::with(self.together, self.most);
    }
}

/// What is to be committed, if anything; an error where one of the writes could be given no position.
fn batch(
    epoch: u64,
    writes: Vec<(Option<Position>, Write)>,
    acts: &[Act],
) -> Option<Result<Batch, StoreError>> {
    let (first, last) = (writes.iter().map(|(at, _)| *at).min()?, writes.iter().map(|(at, _)| *at).max()?);
    let (Some(_), Some(at)) = (first, last) else {
        return Some(Err(StoreError::Unavailable("no position is granted".to_owned())));
    };
    let writes = writes.into_iter().map(|(_, write)| write).collect();
    let traces = acts.iter().filter_map(|act| act.what.trace()).collect();
    Some(Ok(Batch { at, writes, traces, epoch, open: None }))
}
