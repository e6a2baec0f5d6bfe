//! The reign's positions: rising, above the reign's floor, below a ceiling that was granted, and only while the lease holds.
//!
//! Alone, both come from the store, with each grant. In a cluster the locations keep them up to date.

use crate::cluster::Reigning;
use starling_store::{Claim, LEASE, Position, Reign, SharedStore, StoreError};
use starling_xmpp::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How far ahead of the clock positions are granted.
const AHEAD: Duration = Duration::from_secs(10);
/// How far above the floor, when the clock has not reached that yet. No further: whoever reigns next begins there, and
/// the times of messages would run ahead of the clock by as much again.
const ABOVE: Duration = Duration::from_secs(1);
/// How much earlier than the store a home takes its lease for over.
const MARGIN: Duration = Duration::from_secs(1);

/// Shared by all homes of a reign.
#[derive(Debug)]
pub(crate) struct Positions {
    epoch: u64,
    /// The store belongs to this process: nobody of an earlier reign can write any more, and none can begin.
    alone: bool,
    /// Every position given from now on is above it.
    floor: AtomicU64,
    ceiling: Arc<AtomicU64>,
    /// When the lease ends, in microseconds of monotonic time.
    until: Arc<AtomicU64>,
    /// When the store last said whether it grants any; 0 where others keep the lease.
    answered: AtomicU64,
    closed: AtomicBool,
}

impl Positions {
    /// Begins a reign. `alone`: each account's own last row is floor enough, and positions do not run ahead of the clock
    /// after a crash, which clients would see in the times of messages.
    pub(crate) async fn open(store: &SharedStore, claim: Claim, alone: bool) -> Result<Self, StoreError> {
        let reign = store.open_reign(claim).await?;
        let (floor, ceiling, until) = if alone { (0, u64::MAX, u64::MAX) } else { (reign.floor.0, 0, 0) };
        Ok(Self {
            epoch: reign.epoch,
            alone,
            floor: AtomicU64::new(floor),
            ceiling: Arc::new(AtomicU64::new(ceiling)),
            until: Arc::new(AtomicU64::new(until)),
            answered: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Those of a reign that others keep.
    pub(crate) fn of(reign: Reigning) -> Self {
        let Reigning { epoch, floor, ceiling, until, .. } = reign;
        let (floor, answered, closed) = (AtomicU64::new(floor.0), AtomicU64::new(0), AtomicBool::new(false));
        Self { epoch: epoch.0, alone: false, floor, ceiling, until, answered, closed }
    }

    /// Which ceiling to ask for now.
    pub(crate) fn wanted(&self, now: Timestamp) -> Position {
        let floor = self.floor.load(Ordering::Acquire);
        let ceiling = now.plus(AHEAD).0.max(Timestamp(floor).plus(ABOVE).0);
        Position(ceiling.max(self.ceiling.load(Ordering::Acquire)))
    }

    /// The store has granted this; it was asked at `asked` of monotonic time.
    pub(crate) fn granted(&self, ceiling: Position, asked: Duration) {
        self.ceiling.fetch_max(ceiling.0, Ordering::AcqRel);
        self.until.fetch_max(micros(asked + LEASE.saturating_sub(MARGIN)), Ordering::AcqRel);
    }

    /// The store has said whether it grants more, at this moment of monotonic time.
    pub(crate) fn answered(&self, now: Duration) {
        self.answered.fetch_max(micros(now), Ordering::AcqRel);
    }

    /// Whether it is not known who reigns: the lease is over, as it is when a machine has slept, and the store has not been heard
    /// since. That does not last: it answers, if only that it cannot.
    pub(crate) fn are_open(&self, now: Duration) -> bool {
        let until = self.until.load(Ordering::Acquire);
        let answered = self.answered.load(Ordering::Acquire);
        micros(now) >= until && (answered < until || answered == 0) && !self.are_closed()
    }

    /// No more are given, and nothing that is confirmed from now on counts.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn are_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether what was confirmed before this moment of monotonic time counts.
    pub(crate) fn hold(&self, now: Duration) -> bool {
        micros(now) < self.until.load(Ordering::Acquire) && !self.are_closed()
    }

    /// When the lease ends as it is now (monotonic); `None` where it never does.
    pub(crate) fn until(&self) -> Option<Duration> {
        let until = self.until.load(Ordering::Acquire);
        (until < u64::MAX && !self.are_closed()).then(|| Duration::from_micros(until))
    }

    /// The position after `last` at `now`; `None` when it would pass the ceiling or the lease is over, which means that the
    /// store has not granted more for a long time. A clock that was set far ahead is followed with the next grant.
    pub(crate) fn next(&self, last: Position, now: Timestamp, monotonic: Duration) -> Option<Position> {
        let (floor, ceiling) = (self.floor.load(Ordering::Acquire), self.ceiling.load(Ordering::Acquire));
        let clock = now.0.min(Timestamp(ceiling).minus(ABOVE).0);
        let next = clock.max(last.0 + 1).max(floor + 1);
        (next < ceiling && self.hold(monotonic)).then_some(Position(next))
    }

    /// A home that has given positions up to `last` is forgotten: whatever the clock does, the next one of its account
    /// begins above.
    pub(crate) fn forget(&self, last: Position) {
        if !self.alone {
            self.floor.fetch_max(last.0 + 1, Ordering::AcqRel);
        }
    }

    /// For loading an account that has no home.
    pub(crate) fn reign(&self) -> Reign {
        Reign { epoch: self.epoch, floor: Position(self.floor.load(Ordering::Acquire)) }
    }

    /// Which reign it is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether there is no other reign to beware of.
    pub(crate) fn are_alone(&self) -> bool {
        self.alone
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::memory::MemoryStore;
    use std::sync::Arc;

    const START: Duration = Duration::from_secs(5);

    fn claim() -> Claim {
        Claim { instance: 1, name: "test".to_owned() }
    }

    async fn reign(store: &SharedStore, now: Timestamp) -> Positions {
        let positions = Positions::open(store, claim(), false).await.unwrap();
        let ceiling = positions.wanted(now);
        store.grant(positions.epoch(), ceiling).await.unwrap();
        positions.granted(ceiling, START);
        positions
    }

    #[tokio::test]
    async fn positions_rise_and_stop_at_the_ceiling() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        let positions = reign(&store, now).await;
        let first = positions.next(Position(0), now, START).unwrap();
        assert!(positions.next(first, now, START).unwrap() > first);
        let ceiling = positions.wanted(now);
        let ahead = positions.next(first, Timestamp(u64::MAX / 2), START).unwrap();
        assert!(first < ahead && ahead < ceiling, "a clock that was set ahead");
        assert!(positions.next(ahead, Timestamp(u64::MAX / 2), START).unwrap() > ahead);
        assert_eq!(positions.next(Position(ceiling.0 - 1), now, START), None);
        let later = reign(&store, now).await;
        assert!(later.epoch() > positions.epoch());
        let floor = later.reign().floor;
        assert!(floor > first, "a new reign starts above all that was granted before");
        assert!(later.next(Position(0), now, START).unwrap() > floor);
    }

    #[tokio::test]
    async fn reigns_that_follow_one_another_hardly_run_ahead() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        for _ in 0..10 {
            reign(&store, now).await;
        }
        let next = reign(&store, now).await.next(Position(0), now, START).unwrap();
        assert!(next.0 <= now.plus(AHEAD + 10 * ABOVE).0, "{next:?}");
    }

    #[tokio::test]
    async fn none_is_given_when_the_lease_is_over() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        let positions = reign(&store, now).await;
        let end = START + LEASE.saturating_sub(MARGIN);
        let before = end.saturating_sub(Duration::from_micros(1));
        assert!(positions.hold(before) && positions.next(Position(0), now, before).is_some());
        assert!(!positions.hold(end) && positions.next(Position(0), now, end).is_none());
        positions.granted(positions.wanted(now), end);
        assert!(positions.next(Position(0), now, end).is_some());
        positions.close();
        assert!(!positions.hold(end) && positions.next(Position(0), now, end).is_none());
    }

    #[tokio::test]
    async fn a_forgotten_home_is_not_undercut_when_the_clock_steps_back() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        let positions = reign(&store, now).await;
        let last = positions.next(Position(0), now.plus(Duration::from_secs(3)), START).unwrap();
        positions.forget(last);
        assert!(positions.reign().floor > last);
        assert!(positions.next(Position(0), now, START).unwrap() > last);
    }

    #[tokio::test]
    async fn alone_the_clock_is_not_left_behind() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        for _ in 0..3 {
            let positions = Positions::open(&store, claim(), true).await.unwrap();
            let far = Duration::from_secs(1 << 40);
            assert_eq!(positions.next(Position(0), now, far), Some(Position(now.0)));
            positions.forget(Position(now.0 * 2));
        }
    }
}
