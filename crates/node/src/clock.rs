//! The only place that asks the operating system for the time.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

/// A clock that is handed to whatever needs the time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time in microseconds since the Unix epoch, UTC. May step backwards.
    fn now_micros(&self) -> u64;

    /// Time since an arbitrary moment before the first call. Never goes backwards; for deadlines, rates and leases. It goes on
    /// while the machine sleeps: others have not waited.
    fn monotonic(&self) -> Duration;
}

/// A clock shared by many owners.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the operating system.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Duration,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self { started: since_boot() }
    }

    /// The same, shared.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // this file is where the ban points to
    fn now_micros(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.started)
    }
}

/// Unlike `Instant`, which stands still in suspend and while a virtual machine is paused.
fn since_boot() -> Duration {
    // The clock exists wherever the server builds (Linux 2.6.39); its only error is that it does not.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// A clock that stands still until it is told to move. Clones share the time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<(u64, Duration)>>,
}

impl ManualClock {
    /// A clock that shows `micros` since the Unix epoch and a monotonic time of zero.
    pub fn at_micros(micros: u64) -> Self {
        Self { time: Arc::new(Mutex::new((micros, Duration::ZERO))) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time.lock();
        time.0 = time.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
        time.1 = time.1.saturating_add(by);
    }

    /// Sets the wall clock alone, as a step of the system's clock does; monotonic time stays.
    pub fn step_to_micros(&self, micros: u64) {
        self.time.lock().0 = micros;
    }
}

impl Clock for ManualClock {
    fn now_micros(&self) -> u64 {
        self.time.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.time.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_after_2024_and_does_not_run_backwards() {
        let clock = SystemClock::new();
        assert!(clock.now_micros() > 1_704_067_200_000_000);
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }

    #[test]
    fn a_step_of_the_wall_clock_leaves_monotonic_time_alone() {
        let clock = ManualClock::at_micros(5_000_000);
        let other = clock.clone();
        clock.advance(Duration::from_secs(2));
        assert_eq!((other.now_micros(), other.monotonic()), (7_000_000, Duration::from_secs(2)));
        clock.step_to_micros(1);
        assert_eq!((other.now_micros(), other.monotonic()), (1, Duration::from_secs(2)));
    }
}
