//! A CQL server in memory, for tests and simulation: three replicas, LOCAL_QUORUM, write timestamps, tombstones, TTL,
//! conditional writes; and all that can go wrong with them, from a seed.
//!
//! It has two forms. [`Model::calm`] does everything at once and never fails: for the conformance suite, on any runtime.
//! [`Model::seeded`] lives in a [`World`]: messages to each replica take their time, are lost, doubled or late, and a
//! write that its process no longer remembers may still arrive. A read merges two replicas, which may differ from those
//! of the read before.

mod calm;
mod dice;
mod faults;
mod network;
mod register;
mod serve;
mod table;
mod world;

pub use dice::Dice;
pub use faults::Faults;
pub use world::{Process, World};

use crate::cql::{Mutation, Partition};
use network::Kept;
use parking_lot::Mutex;
use register::Registers;
use starling_node::clock::{SharedClock, SystemClock};
use starling_store::testing::Late;
use starling_store::{Now, Position};
use std::collections::HashMap;
use std::sync::Arc;
use table::{Table, Told};

/// A server. Clones are the same one.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

/// A process' way to it, which implements [`crate::cql::Cql`].
#[derive(Clone)]
pub struct Connection {
    model: Model,
    process: Option<Process>,
}

/// How the server as a whole meets those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It answers.
    Up,
    /// Nobody listens: attempts fail at once.
    Refusing,
    /// Packets vanish: attempts are never answered.
    Silent,
}

struct Inner {
    now: Now,
    world: Option<World>,
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    replicas: Vec<Replica>,
    registers: Registers,
    faults: Faults,
    dice: Dice,
    reach: Reach,
    pinned: Option<[usize; 2]>,
    repairs: bool,
    /// Rows that cannot be read.
    damaged: Vec<Position>,
    /// Where writes stop, and what has stopped there.
    hold: Option<Late>,
    kept: Vec<Kept>,
}

struct Replica {
    up: bool,
    tables: HashMap<Partition, Table>,
    hints: Vec<Arc<Spoken>>,
}

/// A mutation as the replicas are told of it.
struct Spoken {
    partition: Partition,
    at: u64,
    told: Vec<Told>,
}

impl Model {
    /// A server of one replica that does everything at once. Waiting is left to the runtime it is used on.
    pub fn calm(now: Now) -> Self {
        Self::of(now, None, 1, Dice::new(0))
    }

    /// A server of three replicas in a world, without faults so far.
    pub fn seeded(world: &World, now: Now) -> Self {
        Self::of(now, Some(world.clone()), 3, world.dice())
    }

    fn of(now: Now, world: Option<World>, replicas: usize, mut dice: Dice) -> Self {
        let replica = || Replica { up: true, tables: HashMap::new(), hints: Vec::new() };
        let repairs = dice.permille(250);
        Self(Arc::new(Inner {
            now,
            world,
            clock: SystemClock::shared(),
            state: Mutex::new(State {
                replicas: std::iter::repeat_with(replica).take(replicas).collect(),
                registers: Registers::default(),
                faults: Faults::NONE,
                dice,
                reach: Reach::Up,
                pinned: None,
                repairs,
                damaged: Vec::new(),
                hold: None,
                kept: Vec::new(),
            }),
        }))
    }

    /// A way to it for a process of its world.
    pub fn connect(&self, process: &Process) -> Connection {
        Connection { model: self.clone(), process: Some(process.clone()) }
    }

    /// A way to a calm one.
    pub fn connection(&self) -> Connection {
        Connection { model: self.clone(), process: None }
    }

    /// From now on these things go wrong. What is under way stays so.
    pub fn set_faults(&self, faults: Faults) {
        self.0.state.lock().faults = faults;
    }

    /// Reads are made from these two replicas until told otherwise.
    pub fn pin(&self, replicas: Option<[usize; 2]>) {
        self.0.state.lock().pinned = replicas;
    }

    /// Changes how it meets those who ask.
    pub fn set_reach(&self, reach: Reach) {
        self.0.state.lock().reach = reach;
    }

    /// How it meets those who ask.
    pub fn reach(&self) -> Reach {
        self.0.state.lock().reach
    }

    /// One of the replicas goes down, or comes back. What was for it meanwhile follows late, if at all.
    pub fn set_replica(&self, index: usize, up: bool) {
        self.bring(index, up);
    }

    /// From now on writes stop at this point and are not answered; `None` lets them through again. What has stopped goes on
    /// with [`Self::arrive`]. Not for the calm form.
    pub fn hold(&self, late: Option<Late>) {
        self.0.state.lock().hold = late;
    }

    /// What has stopped goes on to where it was under way to.
    pub fn arrive(&self) {
        self.let_arrive();
    }

    /// From now on rows at this position cannot be read, whoever's they are.
    pub fn damage(&self, position: Position) {
        self.0.state.lock().damaged.push(position);
    }

    fn damaged(&self) -> Vec<Position> {
        self.0.state.lock().damaged.clone()
    }

    /// How many rows of accounts were written twice under one timestamp and differ: a server would mix their cells.
    pub fn torn(&self) -> u64 {
        let state = self.0.state.lock();
        owned(&state).map(|(_, table)| table.torn()).sum()
    }

    /// Where the first of them is, and what was written.
    pub fn tear(&self) -> Option<String> {
        let state = self.0.state.lock();
        let torn = owned(&state).filter_map(|(partition, table)| Some((partition, table.tear()?)));
        torn.min().map(|(partition, tear)| format!("{partition:?}: {tear}"))
    }

    /// How many rows of logs and indexes have no end.
    pub fn endless(&self) -> usize {
        let state = self.0.state.lock();
        logs(&state).map(|(_, table)| table.endless()).sum()
    }

    /// Seconds on its own clock.
    fn second(&self) -> u64 {
        (self.0.now)().0 / 1_000_000
    }

    fn spoken(&self, mutation: Mutation) -> Spoken {
        let second = self.second();
        let told = mutation.changes.into_iter().map(|change| Told::of(change, second));
        Spoken { partition: mutation.partition, at: mutation.at.0, told: told.collect() }
    }
}

/// Partitions of accounts on all replicas: what homes decide.
fn owned(state: &State) -> impl Iterator<Item = (&Partition, &Table)> {
    let tables = state.replicas.iter().flat_map(|replica| &replica.tables);
    tables.filter(|(partition, _)| !matches!(partition, Partition::Names(..) | Partition::Purges(..)))
}

/// Partitions of logs and indexes on all replicas.
fn logs(state: &State) -> impl Iterator<Item = (&Partition, &Table)> {
    let tables = state.replicas.iter().flat_map(|replica| &replica.tables);
    tables.filter(|(partition, _)| matches!(partition, Partition::Log(..) | Partition::Peer(..)))
}

impl Replica {
    fn apply(&mut self, spoken: &Spoken) {
        let table = self.tables.entry(spoken.partition.clone()).or_default();
        for told in &spoken.told {
            table.apply(told, spoken.at);
        }
    }
}
