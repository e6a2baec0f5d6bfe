//! One timer for all connections of an edge, in steps of 100 ms.
//!
//! A session's deadlines are coarse (seconds to minutes) and nearly always move before they fire, so a timer
//! of the runtime per session would cost memory and work for nothing. Here a session has at most one live
//! entry; a deadline that moved later is noticed when the old entry fires, and entered again.

use parking_lot::Mutex;
use starling_wire::ConnId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A moment, in steps of 100 ms since the wheel was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tick(pub(crate) u32);

impl Tick {
    /// Later than every moment.
    pub(crate) const NEVER: Self = Self(u32::MAX);

    /// How long one step is.
    pub(crate) const STEP: Duration = Duration::from_millis(100);

    /// The moment this long after, rounded up so that a deadline never comes early.
    pub(crate) fn after(self, wait: Duration) -> Self {
        let steps = wait.as_millis().div_ceil(Self::STEP.as_millis()) + 1;
        Self(self.0.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX)))
    }

    /// Time between an earlier moment and this one.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Self::STEP * self.0.saturating_sub(earlier.0)
    }
}

/// Entries by the moment at which they fire.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    now: AtomicU32,
    slots: Mutex<BTreeMap<Tick, Vec<ConnId>>>,
}

impl Wheel {
    /// The present moment; a plain load.
    pub(crate) fn now(&self) -> Tick {
        Tick(self.now.load(Ordering::Relaxed))
    }

    /// Has this connection fire at `at` (or at the next step, when that has passed).
    pub(crate) fn arm(&self, conn: ConnId, at: Tick) {
        if at == Tick::NEVER {
            return;
        }
        let mut slots = self.slots.lock();
        let at = at.max(Tick(self.now().0 + 1));
        slots.entry(at).or_default().push(conn);
    }

    /// Moves time forward to `now` and takes what fires.
    pub(crate) fn advance(&self, now: Tick, due: &mut Vec<ConnId>) {
        let mut slots = self.slots.lock();
        self.now.fetch_max(now.0, Ordering::Relaxed);
        while let Some(entry) = slots.first_entry() {
            if *entry.key() > now {
                break;
            }
            due.append(&mut entry.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_at_its_moment_and_once() {
        let wheel = Wheel::default();
        wheel.arm(ConnId::local(1), Tick(3));
        wheel.arm(ConnId::local(2), Tick(5));
        wheel.arm(ConnId::local(3), Tick::NEVER);
        let mut due = Vec::new();
        wheel.advance(Tick(2), &mut due);
        assert!(due.is_empty());
        wheel.advance(Tick(4), &mut due);
        assert_eq!(due, [ConnId::local(1)]);
        wheel.arm(ConnId::local(4), Tick(1));
        due.clear();
        wheel.advance(Tick(5), &mut due);
        assert_eq!(due, [ConnId::local(2), ConnId::local(4)]);
        due.clear();
        wheel.advance(Tick(1_000_000), &mut due);
        assert!(due.is_empty());
    }

    #[test]
    fn a_deadline_is_never_early() {
        let now = Tick(10);
        assert!(now.after(Duration::from_millis(250)).since(now) >= Duration::from_millis(250));
        assert_eq!(Tick(3).since(Tick(5)), Duration::ZERO);
    }
}
