//! Messages: what becomes of a request, and of the answer to it.

use super::faults::part;
use super::register::Registers;
use super::table::{Key, Part, Table, Value};
use super::{Connection, Model, Reach, Spoken, World};
use crate::cql::{Answer, CqlError, Mutation, Partition};
use futures::FutureExt;
use futures::channel::oneshot;
use parking_lot::Mutex;
use starling_store::testing::Late;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// After this time whoever asked is told that there is no answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Something that [`Model::hold`] has stopped.
pub(super) enum Kept {
    Write(Arc<Spoken>),
    Decision(Box<dyn FnOnce(&mut Registers) + Send>),
}

/// Where an answer goes. The first one counts.
pub(super) struct Reply<T>(Arc<Mutex<Option<Sender<T>>>>);

type Sender<T> = oneshot::Sender<Result<T, CqlError>>;

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Reply<T> {
    fn send(&self, answer: Result<T, CqlError>) {
        if let Some(sender) = self.0.lock().take() {
            drop(sender.send(answer));
        }
    }
}

/// What a read finds.
pub(super) enum Live<'a> {
    /// The rows of a table between these bounds, at this second.
    Table(&'a Table, (Key, Key), u64),
    /// The rows that replicas have answered with, at this second.
    Part(&'a Part, u64),
}

impl<'a> Live<'a> {
    pub(super) fn rows(self) -> Box<dyn DoubleEndedIterator<Item = (&'a Key, &'a Value)> + 'a> {
        match self {
            Live::Table(table, (low, high), second) => Box::new(table.live(low, high, second)),
            Live::Part(part, second) => Box::new(part.live(second)),
        }
    }
}

impl Connection {
    /// Sends a request; `serve` is what the server does with it when it arrives.
    fn ask<T: Send + 'static>(
        &self,
        world: &World,
        serve: impl FnOnce(Model, Reply<T>) + Send + 'static,
    ) -> Answer<T> {
        let (sender, wait) = oneshot::channel();
        let reply = Reply(Arc::new(Mutex::new(Some(sender))));
        let model = self.model.clone();
        let mut state = model.0.state.lock();
        let state = &mut *state;
        let (faults, dice) = (state.faults, &mut state.dice);
        let way = faults.latency(dice);
        let refusal = match state.reach {
            Reach::Refusing => Some(CqlError::Refused("no connection".to_owned())),
            _ if dice.permille(faults.overloads) => Some(CqlError::Overloaded("on purpose".to_owned())),
            _ => None,
        };
        if !dice.permille(faults.silent) {
            let reply = reply.clone();
            let late = TIMEOUT + part(dice, Duration::from_millis(100));
            world.after(late, move || reply.send(Err(CqlError::Unknown("no answer".to_owned()))));
        }
        if let Some(error) = refusal {
            world.after(way, move || reply.send(Err(error)));
        } else if state.reach == Reach::Up && !dice.permille(faults.lost_requests) {
            let model = self.model.clone();
            world.after(way, move || serve(model, reply));
        }
        async move {
            match wait.await {
                Ok(answer) => answer,
                Err(_) => futures::future::pending().await,
            }
        }
        .boxed()
    }

    pub(super) fn write_through(&self, world: &World, mutation: Mutation) -> Answer<()> {
        let at = world.clone();
        self.ask(world, move |model, reply| model.write(&at, mutation, reply))
    }

    pub(super) fn read_through<T: Send + 'static>(
        &self,
        world: &World,
        partition: Partition,
        bounds: (Key, Key),
        then: impl FnOnce(Live<'_>) -> T + Send + 'static,
    ) -> Answer<T> {
        let at = world.clone();
        self.ask(world, move |model, reply| model.read(&at, partition, bounds, then, reply))
    }

    /// A conditional write: `decide` changes a value, and shows it at once where its flag says so. A serial read is one that
    /// writes nothing.
    pub(super) fn decide_through<T: Send + 'static>(
        &self,
        world: &World,
        writes: bool,
        decide: impl FnOnce(&mut Registers, bool) -> T + Send + 'static,
    ) -> Answer<T> {
        let at = world.clone();
        self.ask(world, move |model, reply| model.decide(&at, writes, decide, reply))
    }
}

impl Model {
    /// A coordinator has got a write.
    fn write(&self, world: &World, mutation: Mutation, reply: Reply<()>) {
        let spoken = Arc::new(self.spoken(mutation));
        let mut state = self.0.state.lock();
        let state = &mut *state;
        if !state.has_quorum() {
            return self.answer(world, state, &reply, Err(too_few()));
        }
        if let Some(late) = state.hold {
            let takers = match late {
                Late::Nowhere => 0,
                Late::Somewhere => 1,
                Late::Everywhere => state.replicas.len(),
            };
            state.replicas.iter_mut().take(takers).for_each(|replica| replica.apply(&spoken));
            return state.kept.push(Kept::Write(spoken));
        }
        let taken = Arc::new(AtomicUsize::new(0));
        let concerned = state.faults.concern(&spoken.partition);
        for index in 0..state.replicas.len() {
            let way = state.faults.way(concerned, &mut state.dice);
            let again = state.dice.permille(state.faults.doubles);
            if let Some(way) = way {
                let (model, spoken, taken, reply) =
                    (self.clone(), spoken.clone(), taken.clone(), reply.clone());
                let at = world.clone();
                world.after(way, move || model.take(&at, index, spoken, Some((taken, reply))));
            }
            if again {
                let (model, spoken, at) = (self.clone(), spoken.clone(), world.clone());
                let way = part(&mut state.dice, state.faults.late_by);
                world.after(way, move || model.take(&at, index, spoken, None));
            }
        }
    }

    /// A replica has got a write.
    fn take(
        &self,
        world: &World,
        index: usize,
        spoken: Arc<Spoken>,
        count: Option<(Arc<AtomicUsize>, Reply<()>)>,
    ) {
        let mut state = self.0.state.lock();
        let replica = &mut state.replicas[index];
        if !replica.up {
            return replica.hints.push(spoken);
        }
        replica.apply(&spoken);
        if let Some((taken, reply)) = count
            && taken.fetch_add(1, Ordering::Relaxed) == 1
        {
            self.answer(world, &mut state, &reply, Ok(()));
        }
    }

    /// Two replicas are asked; what both say is merged.
    fn read<T: Send + 'static>(
        &self,
        world: &World,
        partition: Partition,
        (low, high): (Key, Key),
        then: impl FnOnce(Live<'_>) -> T + Send + 'static,
        reply: Reply<T>,
    ) {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        let Some(chosen) = state.pair() else { return self.answer(world, state, &reply, Err(too_few())) };
        let merge = Arc::new(Mutex::new((0, Part::default(), Some(then))));
        for index in chosen {
            let (model, at, reply, merge) = (self.clone(), world.clone(), reply.clone(), merge.clone());
            let (partition, low, high) = (partition.clone(), low.clone(), high.clone());
            let way = state.faults.latency(&mut state.dice);
            world.after(way, move || {
                let mut state = model.0.state.lock();
                if !state.replicas[index].up {
                    return;
                }
                let mut merge = merge.lock();
                if let Some(table) = state.replicas[index].tables.get(&partition) {
                    let part = std::mem::take(&mut merge.1);
                    merge.1 = part.merge(table.slice(&low, &high));
                }
                merge.0 += 1;
                if merge.0 < 2 {
                    return;
                }
                let Some(then) = merge.2.take() else { return };
                if state.repairs {
                    for index in chosen {
                        let table = state.replicas[index].tables.entry(partition.clone()).or_default();
                        table.absorb(&merge.1);
                    }
                }
                let answer = then(Live::Part(&merge.1, model.second()));
                model.answer(&at, &mut state, &reply, Ok(answer));
            });
        }
    }

    fn decide<T: Send + 'static>(
        &self,
        world: &World,
        writes: bool,
        decide: impl FnOnce(&mut Registers, bool) -> T + Send + 'static,
        reply: Reply<T>,
    ) {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        if !state.has_quorum() {
            return self.answer(world, state, &reply, Err(too_few()));
        }
        match state.hold.filter(|_| writes) {
            None => {}
            Some(Late::Nowhere) => {
                return state.kept.push(Kept::Decision(Box::new(|registers| {
                    decide(registers, true);
                })));
            }
            Some(late) => {
                decide(&mut state.registers, late == Late::Everywhere);
                return;
            }
        }
        let concerned = state.dice.permille(state.faults.share);
        let Some(way) = state.faults.way(concerned, &mut state.dice) else { return };
        let (model, at) = (self.clone(), world.clone());
        world.after(way, move || {
            let mut state = model.0.state.lock();
            let state = &mut *state;
            if !state.has_quorum() {
                return;
            }
            // Decided, but whoever did it died before it told anybody: only a serial read finds out.
            let lost = state.dice.permille(state.faults.lost_answers);
            let answer = decide(&mut state.registers, !lost);
            if !lost {
                model.answer(&at, state, &reply, Ok(answer));
            }
        });
    }

    /// Sends an answer, which may be lost.
    fn answer<T: Send + 'static>(
        &self,
        world: &World,
        state: &mut super::State,
        reply: &Reply<T>,
        answer: Result<T, CqlError>,
    ) {
        if state.reach != Reach::Up || state.dice.permille(state.faults.lost_answers) {
            return;
        }
        let reply = reply.clone();
        world.after(state.faults.latency(&mut state.dice), move || reply.send(answer));
    }

    pub(super) fn bring(&self, index: usize, up: bool) {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        let Some(replica) = state.replicas.get_mut(index) else { return };
        replica.up = up;
        let Some(world) = self.0.world.as_ref().filter(|_| up) else { return };
        for hint in std::mem::take(&mut replica.hints) {
            let concerned = state.faults.concern(&hint.partition);
            if let Some(way) = state.faults.way(concerned, &mut state.dice) {
                let (model, at) = (self.clone(), world.clone());
                world.after(way, move || model.take(&at, index, hint, None));
            }
        }
    }

    pub(super) fn let_arrive(&self) {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        for kept in std::mem::take(&mut state.kept) {
            match kept {
                Kept::Write(spoken) => state.replicas.iter_mut().for_each(|replica| replica.apply(&spoken)),
                Kept::Decision(decide) => decide(&mut state.registers),
            }
        }
    }
}

impl super::State {
    fn has_quorum(&self) -> bool {
        self.replicas.iter().filter(|replica| replica.up).count() >= 2
    }

    /// Two replicas that are up.
    fn pair(&mut self) -> Option<[usize; 2]> {
        if let Some(pinned) = self.pinned {
            return Some(pinned);
        }
        let mut up: Vec<_> = (0..self.replicas.len()).filter(|index| self.replicas[*index].up).collect();
        while up.len() > 2 {
            up.swap_remove(self.dice.place(up.len()));
        }
        <[usize; 2]>::try_from(up).ok()
    }
}

fn too_few() -> CqlError {
    CqlError::Refused("too few replicas".to_owned())
}
