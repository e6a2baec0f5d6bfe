//! One group per shard, as far as homes can tell: what is committed is committed for all, in one order, by the server's own
//! state machine. Who leads, whom a quorum hears and what became of entries that were cut off is decided here.

use super::planted::Break;
use crate::stage::{Phase, Stage};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_locations::RecordError as Unrecorded;
use starling_locations::machine::{Machine, Op, Outcome};
use starling_router::{LocationOp, Place, RecordError, Register};
use starling_store_scylla::model::{Dice, Process};
use starling_wire::{EdgeId, Epoch, Incarnation, RouterId, Shard, Token};
use starling_xmpp::{BareJid, FullJid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How far ahead of the clock positions are granted, at least above the floor, and how often: as the server does.
const AHEAD: u64 = 10_000_000;
const ABOVE: u64 = 1_000_000;
const GRANT_EVERY: Duration = Duration::from_secs(2);
/// How long an entry waits for a quorum.
const ENTRY_WITHIN: Duration = Duration::from_secs(2);

/// The group of a shard.
pub(super) struct Group {
    pub(super) shard: Shard,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    machine: Machine,
    index: u64,
    leader: Option<Arc<Term>>,
    /// Leaders that have been followed and do not know it.
    ghosts: Vec<Arc<Term>>,
    /// Entries that the leader sent when it was cut off, by their place in its queue, and whether nobody waits for them any
    /// more. The next leader may find them at a follower, or not.
    stray: BTreeMap<u64, (Vec<Op>, bool)>,
}

/// A router's time as the leader.
pub(super) struct Term {
    pub(super) router: usize,
    /// Of that router's process.
    pub(super) life: u64,
    pub(super) epoch: Epoch,
    pub(super) floor: u64,
    pub(super) ceiling: Arc<AtomicU64>,
    /// When its lease ends, in microseconds.
    pub(super) until: Arc<AtomicU64>,
    /// It knows that it is over.
    pub(super) over: AtomicBool,
    /// A quorum hears it now.
    heard: AtomicBool,
    granted: Mutex<Duration>,
    /// The rows as it saw them last, once it was followed.
    frozen: Mutex<Option<Machine>>,
    /// Changes that wait for their entry, in order.
    queue: Mutex<(u64, BTreeSet<u64>)>,
}

/// What became of an entry.
enum Proposed {
    Done(Vec<Outcome>),
    /// No quorum hears its leader, or something before it waits for one.
    Waits,
    /// Somebody else leads.
    Followed,
}

impl Group {
    pub(super) fn new(shard: Shard) -> Self {
        Self { shard, state: Mutex::default() }
    }

    pub(super) fn leader(&self) -> Option<Arc<Term>> {
        self.state.lock().leader.clone()
    }

    /// The next reign begins, of a router that leads from now on.
    pub(super) fn elect(
        self: &Arc<Self>,
        stage: &Arc<Stage>,
        router: usize,
        life: u64,
        now: u64,
        dice: &mut Dice,
    ) -> Option<Arc<Term>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(old) = state.leader.take() {
            *old.frozen.lock() = Some(state.machine.clone());
            old.heard.store(false, Ordering::SeqCst);
            state.ghosts.push(old);
        }
        let mut stray: Vec<_> = std::mem::take(&mut state.stray).into_values().map(|(ops, _)| ops).collect();
        stray.retain(|ops| {
            let found = dice.permille(500);
            if found {
                state.apply(stage, ops);
            }
            !found
        });
        let before = state.machine.head().ceiling;
        let open = Op::Open {
            era: 1,
            incarnation: Incarnation(life),
            router: RouterId(router as u64 + 1),
            floor: 0,
            ceiling: (now + AHEAD).max(before + ABOVE),
        };
        let Some(Outcome::Opened { epoch, floor, ceiling }) = state.apply(stage, &[open]).pop() else {
            return None;
        };
        // Nobody may take these any more, whenever they come.
        for mut ops in stray {
            if stage.breaks() == Some(Break::AcceptOldReign) {
                ops.iter_mut().for_each(|op| rename(op, epoch));
            }
            let (group, at) = (self.clone(), stage.clone());
            let late = Duration::from_micros(dice.within(0..3_000_000));
            stage.world.after(late, move || refused(&at, group.shard, &group.state.lock().apply(&at, &ops)));
        }
        let term = Arc::new(Term {
            router,
            life,
            epoch,
            floor,
            ceiling: Arc::new(AtomicU64::new(ceiling)),
            until: Arc::default(),
            over: AtomicBool::new(false),
            heard: AtomicBool::new(true),
            granted: Mutex::new(stage.world.now()),
            frozen: Mutex::default(),
            queue: Mutex::default(),
        });
        state.leader = Some(term.clone());
        Some(term)
    }

    /// A quorum hears its leader, or not.
    pub(super) fn renew(
        &self,
        stage: &Stage,
        term: &Term,
        heard: bool,
        until: u64,
        now: Duration,
        clock: u64,
    ) {
        term.heard.store(heard, Ordering::SeqCst);
        if !heard {
            return;
        }
        if term.until.load(Ordering::SeqCst) < until {
            term.until.store(until, Ordering::SeqCst);
        }
        {
            let mut state = self.state.lock();
            let left: Vec<u64> =
                state.stray.iter().filter(|(_, (_, left))| *left).map(|(number, _)| *number).collect();
            for number in left {
                if let Some((ops, _)) = state.stray.remove(&number) {
                    state.apply(stage, &ops);
                }
            }
        }
        let mut granted = term.granted.lock();
        if now >= *granted + GRANT_EVERY {
            *granted = now;
            let held = term.ceiling.load(Ordering::SeqCst);
            let ceiling = (clock + AHEAD).max(held.saturating_sub(ABOVE).max(term.floor) + ABOVE);
            let outcomes = self.state.lock().apply(stage, &[Op::Grant { epoch: term.epoch, ceiling }]);
            if let Some(Outcome::Granted { ceiling }) = outcomes.first() {
                term.ceiling.fetch_max(*ceiling, Ordering::SeqCst);
            }
        }
    }

    /// Leaders that have been followed, of which this is true, learn of it.
    pub(super) fn exorcise(&self, mut learns: impl FnMut(&Term) -> bool) {
        self.state.lock().ghosts.retain(|ghost| {
            let learns = learns(ghost);
            if learns {
                ghost.end();
            }
            !learns
        });
    }

    fn propose(&self, stage: &Stage, term: &Arc<Term>, number: u64, ops: &[Op], sent: bool) -> Proposed {
        let mut state = self.state.lock();
        if !state.leader.as_ref().is_some_and(|leader| Arc::ptr_eq(leader, term)) {
            let heard = state.leader.as_ref().is_some_and(|leader| leader.heard.load(Ordering::SeqCst));
            if !sent || !heard || term.is_over() {
                return Proposed::Followed;
            }
            // Somebody passes it on to whoever leads: it is for the rows to refuse it.
            let mut ops = ops.to_vec();
            if stage.breaks() == Some(Break::AcceptOldReign) {
                let epoch = state.machine.head().epoch;
                ops.iter_mut().for_each(|op| rename(op, epoch));
            }
            let outcomes = state.apply(stage, &ops);
            refused(stage, self.shard, &outcomes);
            return Proposed::Done(outcomes);
        }
        let first = term.queue.lock().1.first() == Some(&number);
        if !first || !term.heard.load(Ordering::SeqCst) {
            if first && sent {
                state.stray.entry(number).or_insert_with(|| (ops.to_vec(), false));
            }
            return Proposed::Waits;
        }
        state.stray.remove(&number);
        Proposed::Done(state.apply(stage, ops))
    }

    /// Nobody waits any more for an entry that was sent; whether there is one.
    fn abandon(&self, number: u64) -> bool {
        self.state.lock().stray.get_mut(&number).map(|(_, left)| *left = true).is_some()
    }

    fn token_of(&self, jid: &FullJid) -> Option<Token> {
        self.state.lock().machine.row(jid).map(|row| row.token)
    }

    /// All rows: whose, which session, at which edge.
    pub(super) fn rows(&self) -> Vec<(FullJid, Token, EdgeId)> {
        let state = self.state.lock();
        state.machine.view().rows().iter().map(|(jid, row)| (jid.clone(), row.token, row.edge)).collect()
    }
}

impl State {
    fn apply(&mut self, stage: &Stage, ops: &[Op]) -> Vec<Outcome> {
        self.index += 1;
        let outcomes = self.machine.apply(self.index, ops);
        for outcome in &outcomes {
            if let Outcome::Bound { row, .. } | Outcome::Moved { row, .. } = outcome {
                stage.records.placed(row.token, row.edge);
            }
            match outcome {
                Outcome::Moved { row, .. } => stage.records.moved(row.token),
                Outcome::Opened { .. } => {
                    stage.records.succeeded(self.machine.view().rows().iter().map(|(_, row)| row.token));
                }
                _ => {}
            }
        }
        outcomes
    }
}

impl Term {
    /// Nothing that its homes do counts from now on, and they know it.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.ceiling.store(0, Ordering::SeqCst);
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// Whoever reigned before has no say in who is where (promise 6).
fn refused(stage: &Stage, shard: Shard, outcomes: &[Outcome]) {
    if let Some(done) = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Stale { .. })) {
        let text = format!("what an older reign of shard {} wanted was not refused: {done:?}", shard.0);
        stage.wrong("locations", None, text);
    }
}

/// What an older reign wanted, as if this one did.
fn rename(op: &mut Op, to: Epoch) {
    if let Op::Bind { epoch, .. } | Op::Move { epoch, .. } | Op::Unbind { epoch, .. } = op {
        *epoch = to;
    }
}

/// A reign's way to its group.
pub(super) struct Ledger {
    pub(super) group: Arc<Group>,
    pub(super) term: Arc<Term>,
    pub(super) process: Process,
    pub(super) stage: Arc<Stage>,
    pub(super) dice: Mutex<Dice>,
}

/// A place in the queue, given up when it is dropped.
struct Ticket {
    term: Arc<Term>,
    number: u64,
}

impl Ticket {
    fn take(term: &Arc<Term>) -> Self {
        let mut queue = term.queue.lock();
        queue.0 += 1;
        let number = queue.0;
        queue.1.insert(number);
        drop(queue);
        Self { term: term.clone(), number }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.term.queue.lock().1.remove(&self.number);
    }
}

impl Ledger {
    fn op(&self, op: LocationOp) -> Op {
        let epoch = self.term.epoch;
        match op {
            LocationOp::Bind { jid, token, edge } => Op::Bind { epoch, jid, token, edge },
            LocationOp::Move { jid, token, edge, attempt } => Op::Move { epoch, jid, token, edge, attempt },
            LocationOp::Unbind { jid, token } => {
                let token = match self.stage.breaks() {
                    Some(Break::DeleteWithoutToken) => self.group.token_of(&jid).unwrap_or(token),
                    _ => token,
                };
                Op::Unbind { epoch, jid, token }
            }
        }
    }

    fn rows<T>(&self, read: impl FnOnce(&Machine) -> T) -> T {
        match &*self.term.frozen.lock() {
            Some(machine) => read(machine),
            None => read(&self.group.state.lock().machine),
        }
    }
}

fn unrecorded(error: Unrecorded) -> RecordError {
    match error {
        Unrecorded::Unknown => RecordError::Unknown,
        Unrecorded::NotLeader => RecordError::NotLeader,
        Unrecorded::Busy => RecordError::Busy,
    }
}

impl Register for Ledger {
    fn record(&self, ops: Vec<LocationOp>) -> BoxFuture<'static, Result<(), RecordError>> {
        let (group, term, process) = (self.group.clone(), self.term.clone(), self.process.clone());
        let (before, after, unanswered, sent) = {
            let mut dice = self.dice.lock();
            let stormy = self.stage.phase() == Phase::Storm;
            let most = if stormy && dice.permille(self.stage.plan.slow_entries) { 200_000 } else { 3_000 };
            let micros = |dice: &mut Dice| Duration::from_micros(dice.within(200..most));
            (micros(&mut dice), micros(&mut dice), stormy && dice.permille(10), dice.permille(400))
        };
        let ops: Vec<Op> = ops.into_iter().map(|op| self.op(op)).collect();
        let ticket = Ticket::take(&term);
        let stage = self.stage.clone();
        let early = self.stage.breaks() == Some(Break::RecordEarly);
        let work = async move {
            if term.is_over() {
                return Err(RecordError::NotLeader);
            }
            process.sleep(before).await;
            let deadline = process.world().now() + ENTRY_WITHIN;
            let outcomes = loop {
                match group.propose(&stage, &term, ticket.number, &ops, sent) {
                    Proposed::Done(outcomes) => break outcomes,
                    Proposed::Followed if term.is_over() => {
                        // What was sent may have come to somebody.
                        return Err(if sent { RecordError::Unknown } else { RecordError::NotLeader });
                    }
                    proposed @ (Proposed::Waits | Proposed::Followed) => {
                        if process.world().now() >= deadline {
                            let sent = matches!(proposed, Proposed::Followed) || group.abandon(ticket.number);
                            return Err(if sent { RecordError::Unknown } else { RecordError::Busy });
                        }
                        process.sleep(Duration::from_millis(10)).await;
                    }
                }
            };
            drop(ticket);
            process.sleep(after).await;
            if unanswered {
                process.sleep(ENTRY_WITHIN).await;
                return Err(RecordError::Unknown);
            }
            stage.whisper(|| format!("shard {} reign {}: {ops:?} {outcomes:?}", group.shard.0, term.epoch.0));
            Outcome::judge(&outcomes).map_err(unrecorded)
        };
        if early {
            self.process.spawn(work.map(drop).boxed());
            return async { Ok(()) }.boxed();
        }
        work.boxed()
    }

    fn places(&self, account: &BareJid) -> Vec<Place> {
        let place = |(jid, row): (&FullJid, &starling_locations::Row)| Place {
            jid: jid.clone(),
            token: row.token,
            attempt: row.attempt,
            edge: row.edge,
        };
        self.rows(|machine| machine.of(account).map(place).collect())
    }

    fn each(&self, visit: &mut dyn FnMut(&FullJid, Token, EdgeId)) {
        self.rows(|machine| {
            for (jid, row) in machine.view().rows().iter() {
                visit(jid, row.token, row.edge);
            }
        });
    }
}
