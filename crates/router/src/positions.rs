//! The reign's positions: rising, above the reign's floor, below a ceiling that the store has granted.

use starling_store::{Position, Reign, SharedStore, StoreError};
use starling_xmpp::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How far ahead of the clock positions are granted.
const AHEAD: Duration = Duration::from_secs(10);

/// Shared by all homes of a process.
#[derive(Debug)]
pub(crate) struct Positions {
    reign: Reign,
    ceiling: AtomicU64,
}

impl Positions {
    /// Begins a reign and gets its first grant. `alone`: the store is held by this process, nobody of an earlier reign can
    /// write any more. Then each account's own last row is floor enough, and positions do not run ahead of the clock
    /// after a crash, which clients would see in the times of messages.
    pub(crate) async fn open(store: &SharedStore, now: Timestamp, alone: bool) -> Result<Self, StoreError> {
        let reign = store.open_reign().await?;
        if alone {
            let reign = Reign { floor: Position(0), ..reign };
            return Ok(Self { reign, ceiling: AtomicU64::new(u64::MAX) });
        }
        let positions = Self { reign, ceiling: AtomicU64::new(0) };
        positions.extend(store, now).await?;
        Ok(positions)
    }

    /// Gets a grant reaching well beyond `now`; called again and again.
    pub(crate) async fn extend(&self, store: &SharedStore, now: Timestamp) -> Result<(), StoreError> {
        let from = now.0.max(self.reign.floor.0);
        let ceiling = from.saturating_add(u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX));
        if ceiling <= self.ceiling.load(Ordering::Acquire) {
            return Ok(());
        }
        store.grant(Position(ceiling)).await?;
        self.ceiling.fetch_max(ceiling, Ordering::AcqRel);
        Ok(())
    }

    /// The position after `last` at `now`; `None` when it would pass the ceiling, which means that the store has
    /// not granted more for a long time.
    pub(crate) fn next(&self, last: Position, now: Timestamp) -> Option<Position> {
        let next = now.0.max(last.0 + 1).max(self.reign.floor.0);
        (next < self.ceiling.load(Ordering::Acquire)).then_some(Position(next))
    }

    /// The reign.
    pub(crate) fn reign(&self) -> Reign {
        self.reign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::memory::MemoryStore;
    use std::sync::Arc;

    #[tokio::test]
    async fn positions_rise_and_stop_at_the_ceiling() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        let positions = Positions::open(&store, now, false).await.unwrap();
        let first = positions.next(Position(0), now).unwrap();
        assert!(positions.next(first, now).unwrap() > first);
        assert_eq!(positions.next(first, Timestamp(u64::MAX / 2)), None);
        let later = Positions::open(&store, now, false).await.unwrap();
        assert!(later.reign().epoch > positions.reign().epoch);
        assert!(
            later.next(Position(0), now).unwrap() > first,
            "a new reign starts above all that was granted before"
        );
    }

    #[tokio::test]
    async fn alone_the_clock_is_not_left_behind() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = Timestamp(1_000_000_000);
        for _ in 0..3 {
            let positions = Positions::open(&store, now, true).await.unwrap();
            assert_eq!(positions.next(Position(0), now), Some(Position(now.0)));
        }
    }
}
