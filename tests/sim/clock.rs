//! A process' clocks: one that may be wrong and be set, and one that only runs.

use parking_lot::Mutex;
use starling_node::clock::Clock;
use starling_store::Now;
use starling_store_scylla::model::World;
use starling_xmpp::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// When every run begins: microseconds since the epoch.
pub(crate) const BEGIN: u64 = 1_800_000_000_000_000;

/// Clones share the error.
#[derive(Clone)]
pub(crate) struct SimClock {
    world: World,
    /// By how much it is wrong, in microseconds.
    error: Arc<Mutex<i64>>,
    /// What its process has slept, where its monotonic time leaves that out: planted, for no real one may.
    slept: Option<Arc<Mutex<Duration>>>,
}

impl SimClock {
    pub(crate) fn new(world: &World, error: i64) -> Self {
        Self { world: world.clone(), error: Arc::new(Mutex::new(error)), slept: None }
    }

    /// One that stands still while its process does.
    pub(crate) fn sleeping(self) -> Self {
        Self { slept: Some(Arc::default()), ..self }
    }

    /// Its process has slept for so long.
    pub(crate) fn slept(&self, time: Duration) {
        if let Some(slept) = &self.slept {
            *slept.lock() += time;
        }
    }

    /// Is set anew.
    pub(crate) fn step(&self, micros: i64) {
        *self.error.lock() += micros;
    }

    pub(crate) fn now(&self) -> Now {
        let clock = self.clone();
        Arc::new(move || Timestamp(clock.now_micros()))
    }
}

impl std::fmt::Debug for SimClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimClock({:?})", self.world.now())
    }
}

impl Clock for SimClock {
    fn now_micros(&self) -> u64 {
        let since = u64::try_from(self.world.now().as_micros()).unwrap_or(u64::MAX);
        (BEGIN + since).saturating_add_signed(*self.error.lock())
    }

    fn monotonic(&self) -> Duration {
        let slept = self.slept.as_ref().map_or(Duration::ZERO, |slept| *slept.lock());
        self.world.now().saturating_sub(slept)
    }
}
