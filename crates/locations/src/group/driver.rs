//! The task of a group: it opens a reign whenever this router comes to lead, writes what homes want recorded, one entry at
//! a time, and extends the ceiling of positions.

use super::giving::GiveError;
use super::{Core, MOST_BYTES, MOST_OPS, RecordError, Reigning, Request};
use crate::era::Limits;
use crate::lease::micros;
use crate::machine::{Batch, Op, Outcome};
use crate::types::{Applied, Command, Vote};
use starling_wire::{Epoch, Incarnation, RouterId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// How far ahead of the clock positions are granted, and at least above the floor.
const AHEAD: Duration = Duration::from_secs(10);
const ABOVE: Duration = Duration::from_secs(1);
/// How often more are granted: each time is an entry.
const GRANT_EVERY: Duration = Duration::from_secs(4);
/// The same while there are too few.
const GRANT_SOON: Duration = Duration::from_millis(50);
/// How often it is looked after what nobody tells: by one who waits for it, by one who reigns, and by all others.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_millis(250);
const RARELY: Duration = Duration::from_secs(1);
/// How long an entry may take.
const ENTRY_WITHIN: Duration = Duration::from_secs(2);
/// How long after the end of a reign that was given away the next one goes on from it.
const NEXT_WITHIN: Duration = Duration::from_secs(2);
/// How soon what waits for a lease is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What else a group is told to do.
pub(crate) enum Control {
    /// To give the leadership away in this reign, whose home has finished.
    Give { to: RouterId, epoch: Option<Epoch>, done: oneshot::Sender<Result<(), GiveError>> },
}

/// The task's own state.
pub(crate) struct Driver {
    pub(super) core: Arc<Core>,
    pub(super) peers: crate::peers::SharedPeers,
    pub(super) limits: Arc<Limits>,
    queue: mpsc::Receiver<Request>,
    control: mpsc::Receiver<Control>,
    incarnation: Incarnation,
    reign: Option<Reign>,
    waiting: VecDeque<Request>,
}

/// A reign that is open.
struct Reign {
    vote: Vote,
    told: Reigning,
    began: Duration,
    granted: Duration,
}

impl Driver {
    pub(crate) fn new(
        core: Arc<Core>,
        peers: crate::peers::SharedPeers,
        limits: Arc<Limits>,
        incarnation: Incarnation,
        queue: mpsc::Receiver<Request>,
        control: mpsc::Receiver<Control>,
    ) -> Self {
        Self { core, peers, limits, queue, control, incarnation, reign: None, waiting: VecDeque::new() }
    }

    /// Runs until openraft stops.
    pub(crate) async fn run(mut self) {
        let mut server = self.core.raft.server_metrics();
        loop {
            let leads = self.core.leads();
            if self.reign.as_ref().is_some_and(|reign| leads != Some(reign.vote)) {
                self.end_reign();
            }
            if let Some(vote) = leads {
                self.core.lease.lead(vote, self.core.configs(), self.core.clock.monotonic());
                if self.reign.is_none() && !self.open(vote).await {
                    // Nothing can be said yet; whoever waits is told when it has lasted too long.
                    self.expire();
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
            }
            self.settle();
            self.expire();
            let ready = self.is_ready();
            if ready && (!self.waiting.is_empty() || self.grant_is_due()) {
                self.write().await;
                continue;
            }
            let room = MOST_OPS.saturating_sub(self.waiting.len());
            let mut more = Vec::new();
            let wait = self.wait(ready);
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { break },
                control = self.control.recv() => match control {
                    Some(Control::Give { to, epoch, done }) => {
                        let same = self.reign.as_ref().map(|reign| reign.told.epoch) == epoch;
                        let given = if same { self.give(to).await } else { Err(GiveError::NotLeader) };
                        let _ = done.send(given);
                    }
                    None => break,
                },
                _ = self.queue.recv_many(&mut more, room), if room > 0 => self.waiting.extend(more),
                () = sleep(wait) => {}
            }
        }
        self.core.stopped.store(true, Ordering::Release);
        self.end_reign();
        self.settle();
    }

    /// Opens a reign; whether that was done. Until it has applied its own opening this router's home answers nothing: a
    /// leader that was restarted comes back in its old term, with an empty memory.
    async fn open(&mut self, vote: Vote) -> bool {
        let before = self.core.state.machine.lock().head().ceiling;
        let open = Op::Open {
            era: self.limits.era(),
            incarnation: self.incarnation,
            router: self.core.own,
            floor: self.limits.floor(),
            ceiling: self.wanted(before.max(self.limits.floor())),
        };
        let Ok(applied) = self.propose(vote, &[open]).await else { return false };
        match applied.outcomes[..] {
            [Outcome::Opened { epoch, floor, ceiling }] => self.begin_reign(vote, epoch, floor, ceiling),
            ref other => {
                tracing::error!(
                    event = "open_failed",
                    shard = self.core.shard.0,
                    ?other,
                    "a reign could not be opened"
                );
                false
            }
        }
    }

    fn begin_reign(&mut self, vote: Vote, epoch: Epoch, floor: u64, ceiling: u64) -> bool {
        let began = self.core.clock.monotonic();
        let told = Reigning {
            epoch,
            floor,
            age: self.inherited(began),
            ceiling: Arc::new(AtomicU64::new(ceiling)),
            until: Arc::new(AtomicU64::new(0)),
        };
        if !self.core.lease.attach(vote, Arc::clone(&told.until)) {
            return false;
        }
        tracing::info!(event = "reign_begun", shard = self.core.shard.0, epoch = epoch.0, "a reign begins");
        self.core.reign.send_replace(Some(told.clone()));
        self.reign = Some(Reign { vote, told, began, granted: began });
        true
    }

    /// For how long there had been homes of the shard when this reign began, if the last one gave it away.
    fn inherited(&self, now: Duration) -> Duration {
        let last = self.core.inherits.lock().take().filter(|(_, ended)| now < *ended + NEXT_WITHIN);
        last.map_or(Duration::ZERO, |(age, ended)| age.saturating_add(now.saturating_sub(ended)))
    }

    /// For how long there have been homes of the shard.
    pub(super) fn age(&self) -> Duration {
        let now = self.core.clock.monotonic();
        self.reign
            .as_ref()
            .map_or(Duration::ZERO, |reign| reign.told.age.saturating_add(now.saturating_sub(reign.began)))
    }

    /// From now on nothing that its homes do counts.
    pub(super) fn end_reign(&mut self) {
        self.core.lease.end();
        if let Some(reign) = self.reign.take() {
            reign.told.ceiling.store(0, Ordering::Release);
            let (leader, term) = {
                let server = self.core.server.borrow();
                (server.current_leader, server.vote.leader_id.term)
            };
            let epoch = reign.told.epoch.0;
            tracing::info!(
                event = "reign_over",
                shard = self.core.shard.0,
                epoch,
                term,
                leader = leader.map(|leader| tracing::field::display(RouterId(leader))),
                "a reign is over"
            );
            self.core.reign.send_replace(None);
        }
    }

    /// Answers what nobody here can do.
    pub(super) fn settle(&mut self) {
        if self.reign.is_none() {
            while let Ok(request) = self.queue.try_recv() {
                self.waiting.push_back(request);
            }
            for request in self.waiting.drain(..) {
                let _ = request.done.send(Err(RecordError::NotLeader));
            }
        }
    }

    fn expire(&mut self) {
        let now = self.core.clock.monotonic();
        while let Some(request) = self.waiting.pop_front_if(|request| request.deadline <= now) {
            let _ = request.done.send(Err(RecordError::Busy));
        }
    }

    /// Whether entries can be proposed: without a quorum they would only pile up, their fate unknown.
    fn is_ready(&self) -> bool {
        let until = self.reign.as_ref().map_or(0, |reign| reign.told.until.load(Ordering::Acquire));
        micros(self.core.clock.monotonic()) < until
    }

    fn grant_is_due(&self) -> bool {
        let now = self.core.clock.monotonic();
        self.reign.as_ref().is_some_and(|reign| {
            now >= reign.granted + if self.is_short(reign) { GRANT_SOON } else { GRANT_EVERY }
        })
    }

    /// Whether more positions could be had, and are needed soon.
    fn is_short(&self, reign: &Reign) -> bool {
        let held = reign.told.ceiling.load(Ordering::Acquire);
        // A reign that began before the era's ceiling was known here has too few.
        let few = held < self.core.clock.now_micros() + micros(AHEAD) / 2
            || held < reign.told.floor.saturating_add(ABOVE_MICROS / 2);
        few && held < self.wanted(reign.told.floor)
    }

    /// After how long to look again at what nobody tells: a lease that is back, a ceiling that is higher, another clock.
    fn wait(&self, ready: bool) -> Duration {
        if !self.waiting.is_empty() {
            return LOOK_AGAIN;
        }
        let Some(reign) = &self.reign else { return RARELY };
        // Whoever votes alone has a lease for as long as he looks himself.
        let alone = self.core.configs().iter().all(|voters| voters.len() < 2);
        if !ready || alone || self.is_short(reign) {
            return SOON;
        }
        let due = (reign.granted + GRANT_EVERY).saturating_sub(self.core.clock.monotonic());
        due.clamp(LOOK_AGAIN, LATER)
    }

    /// Writes an entry with all that is ready in it.
    async fn write(&mut self) {
        let Some(reign) = &self.reign else { return };
        let (vote, epoch) = (reign.vote, reign.told.epoch);
        let mut ops = Vec::new();
        if self.grant_is_due() {
            let held = reign.told.ceiling.load(Ordering::Acquire);
            // One that began before the era's ceiling was above its floor has none, and its floor may be ahead of the clock.
            // While all it has is, nobody here knows how much of that is used up: it gets more, but more slowly than the clock
            // follows.
            let ahead = held > self.core.clock.now_micros().saturating_add(micros(AHEAD));
            let used = if ahead { held } else { held.saturating_sub(ABOVE_MICROS) };
            let ceiling = self.wanted(used.max(reign.told.floor));
            ops.push(Op::Grant { epoch, ceiling });
        }
        let granting = !ops.is_empty();
        let (mut bytes, mut parts) = (0, Vec::new());
        while let Some(request) = self.waiting.pop_front() {
            let weight: usize = request.ops.iter().map(Op::weight).sum();
            if !parts.is_empty() && (bytes + weight > MOST_BYTES || ops.len() + request.ops.len() > MOST_OPS)
            {
                self.waiting.push_front(request);
                break;
            }
            bytes += weight;
            parts.push((request.ops.len(), request.done));
            ops.extend(request.ops);
        }
        let asked = self.core.clock.monotonic();
        let applied = self.propose(vote, &ops).await;
        let mut outcomes = match applied {
            Ok(applied) if applied.outcomes.len() == ops.len() => applied.outcomes.into_iter(),
            _ => {
                for (_, done) in parts {
                    let _ = done.send(Err(RecordError::Unknown));
                }
                return;
            }
        };
        if granting
            && let (Some(Outcome::Granted { ceiling }), Some(reign)) = (outcomes.next(), &mut self.reign)
        {
            reign.told.ceiling.fetch_max(ceiling, Ordering::AcqRel);
            reign.granted = asked;
        }
        for (count, done) in parts {
            let _ = done.send(Ok(outcomes.by_ref().take(count).collect()));
        }
    }

    /// Proposes an entry and waits until it is applied here. An error says nothing of its fate.
    async fn propose(&self, vote: Vote, ops: &[Op]) -> Result<Applied, ()> {
        let write = self.core.raft.client_write(Command(Batch::encode(ops)));
        let mut server = self.core.raft.server_metrics();
        // A leader that is cut off waits for ever; one that has lost its leadership need not wait any longer.
        let deposed = server.wait_for(|server| server.vote != vote || !server.state.is_leader());
        tokio::select! {
            never = self.renew(vote) => match never {},
            written = timeout(ENTRY_WITHIN, write) => match written {
                Ok(Ok(written)) => Ok(written.data),
                Ok(Err(error)) => {
                    tracing::debug!(shard = self.core.shard.0, %error, "an entry was not written");
                    Err(())
                }
                Err(_) => Err(()),
            },
            _ = deposed => Err(()),
        }
    }

    /// Looks after the lease while nothing else can be done, for ever: the answers of others come to it by themselves, but who
    /// votes alone has it for as long as he looks, and who votes may change. A slow disk is no reason to lose it.
    async fn renew(&self, vote: Vote) -> Infallible {
        loop {
            sleep(SOON).await;
            if self.core.leads() == Some(vote) {
                self.core.lease.lead(vote, self.core.configs(), self.core.clock.monotonic());
            }
        }
    }

    /// Which ceiling to ask for when positions up to `floor` may have been given.
    fn wanted(&self, floor: u64) -> u64 {
        self.limits.need(floor);
        let now = self.core.clock.now_micros();
        let ceiling = now.saturating_add(micros(AHEAD)).max(floor.saturating_add(ABOVE_MICROS));
        ceiling.min(self.limits.ceiling())
    }
}

const ABOVE_MICROS: u64 = 1_000_000;
const _: () = assert!(ABOVE.as_micros() == ABOVE_MICROS as u128);
