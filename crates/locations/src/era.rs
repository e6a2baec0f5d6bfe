//! Eras: what outlives all disks of the routers.
//!
//! Within one Raft cluster epochs and ceilings rise. When all its disks are lost, a new cluster must not give positions
//! again that the old one gave. So each has an era, a number that rises and that the store gives, and a coarse ceiling
//! there, below which all its grants stay.

use crate::lease::micros;
use futures::future::BoxFuture;
use starling_node::clock::SharedClock;
use starling_store::{Claim, Position, SharedStore, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How far ahead of the clock the coarse ceiling is kept, at least above the floor, and how often: an era is given up that
/// was not raised for [`starling_store::CLUSTER_LEASE`] by any router.
const AHEAD: Duration = Duration::from_secs(60);
const ABOVE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(1_500);
/// How soon it is tried again, and how often it is looked whether there is a cluster.
const AGAIN: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);

/// The first moment of an era.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Era {
    /// Its number, higher than that of any era before; below 2^24.
    pub number: u64,
    /// Its positions are above.
    pub floor: u64,
}

/// Where eras are kept.
pub trait Eras: Send + Sync + 'static {
    /// Begins one for a cluster that is being founded, later than all before and than `above`, and above the positions of
    /// both.
    fn begin(&self, cluster: u64, above: Era) -> BoxFuture<'static, Result<Era, StoreError>>;

    /// Promises that positions of an era may be given up to `ceiling`.
    fn extend(&self, era: u64, ceiling: u64) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// Why there are no eras in a store that one process has to itself.
const ALONE: &str = "this store belongs to one process; routers of a cluster need one that they share";

/// Why no era can be begun above another one.
const FAR: &str =
    "the store is too many eras behind what is to be restored: is it the store of this cluster?";
/// How many eras may be passed over at once: one is begun when all routers lose their disks.
const MOST_PASSED: u32 = 1_000;

/// Eras as reigns of a store: its conditional writes give each a higher number, and keep its ceiling.
pub struct StoreEras(pub SharedStore);

impl Eras for StoreEras {
    fn begin(&self, cluster: u64, above: Era) -> BoxFuture<'static, Result<Era, StoreError>> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            if !store.is_shared() {
                return Err(StoreError::Unavailable(ALONE.to_owned()));
            }
            let mut reign = store.open_reign(Claim::of_cluster(cluster)).await?;
            // One that was begun by mistake on a store from before: its numbers are given again, one by one.
            for _ in 0..MOST_PASSED {
                if reign.epoch > above.number {
                    break;
                }
                reign = store.open_reign(Claim::of_cluster(cluster)).await?;
            }
            if reign.epoch <= above.number {
                return Err(StoreError::Unavailable(FAR.to_owned()));
            }
            Ok(Era { number: reign.epoch, floor: reign.floor.0.max(above.floor) })
        })
    }

    fn extend(&self, era: u64, ceiling: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            if !store.is_shared() {
                return Err(StoreError::Unavailable(ALONE.to_owned()));
            }
            store.grant(era, Position(ceiling)).await
        })
    }
}

/// No store: one era for ever. For tests, and where all routers' disks are never lost together.
#[derive(Debug, Default)]
pub struct OneEra;

impl Eras for OneEra {
    fn begin(&self, _cluster: u64, above: Era) -> BoxFuture<'static, Result<Era, StoreError>> {
        Box::pin(async move { Ok(Era { number: above.number + 1, floor: above.floor }) })
    }

    fn extend(&self, _era: u64, _ceiling: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

/// What all groups of a router need to know of cluster and era.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    cluster: Arc<AtomicU64>,
    era: AtomicU64,
    floor: AtomicU64,
    ceiling: AtomicU64,
    /// The highest floor of a reign that begins here: the clock of the router before was ahead of this one's.
    needed: AtomicU64,
    /// The ceiling is too low for it.
    low: Notify,
}

impl Limits {
    /// The cluster's number; 0 while this router belongs to none.
    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    /// The same, to be read by others.
    pub(crate) fn shared_cluster(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.cluster)
    }

    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// No grant is above.
    pub(crate) fn ceiling(&self) -> u64 {
        self.ceiling.load(Ordering::Acquire)
    }

    /// A reign here gives positions above this floor: a ceiling below it, which is kept ahead of this clock alone, would
    /// let it give none until the clock is there.
    pub(crate) fn need(&self, floor: u64) {
        if floor.saturating_add(micros(ABOVE) / 2) > self.ceiling() {
            self.needed.fetch_max(floor, Ordering::AcqRel);
            self.low.notify_one();
        }
    }

    pub(crate) fn belong(&self, cluster: u64, era: Era) {
        self.era.store(era.number, Ordering::Release);
        self.floor.store(era.floor, Ordering::Release);
        self.cluster.store(cluster, Ordering::Release);
    }

    /// Keeps the coarse ceiling ahead of the clock; at every router, so that none begins a reign without.
    /// Returns when a later era has begun: this cluster has been given up.
    ///
    /// `lives`: whether there is anything of the cluster here. One that was only told of it must not keep another from being
    /// founded, if whoever told it never comes again.
    pub(crate) async fn keep(
        self: Arc<Self>,
        eras: Arc<dyn Eras>,
        clock: SharedClock,
        lives: impl Fn() -> bool,
    ) {
        let mut failing = false;
        loop {
            if self.cluster() != 0 && lives() {
                let floor = self.floor().max(self.needed.load(Ordering::Acquire));
                let wanted = first_ceiling(floor, &clock).max(self.ceiling());
                match eras.extend(self.era(), wanted).await {
                    Ok(()) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!(event = "era_again", "the era's ceiling rises again");
                        }
                        self.ceiling.fetch_max(wanted, Ordering::AcqRel);
                        // Either is a reason to look again.
                        let _ = tokio::time::timeout(EVERY, self.low.notified()).await;
                        continue;
                    }
                    Err(StoreError::Fenced) => return,
                    Err(error) if !std::mem::replace(&mut failing, true) => {
                        tracing::warn!(event = "era_failed", %error, "the era's ceiling cannot be raised; no positions are given when it is reached");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(if failing { AGAIN } else { LOOK }).await;
        }
    }
}

/// How high the coarse ceiling is to be when positions above `floor` may be given now.
pub(crate) fn first_ceiling(floor: u64, clock: &SharedClock) -> u64 {
    let ahead = clock.now_micros().saturating_add(micros(AHEAD));
    ahead.max(floor.saturating_add(micros(ABOVE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::memory::MemoryStore;

    #[tokio::test]
    async fn a_new_cluster_begins_above_all_that_the_old_one_could_give() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let eras = StoreEras(Arc::clone(&store));
        let first = eras.begin(11, Era::default()).await.unwrap();
        assert!(first.number > 0);
        eras.extend(first.number, 5_000).await.unwrap();
        assert!(
            matches!(eras.begin(12, Era::default()).await, Err(StoreError::Held(_))),
            "the old cluster lives"
        );
        store.release(first.number).await.unwrap();
        let second = eras.begin(12, Era::default()).await.unwrap();
        assert!(second.number > first.number && second.floor >= 5_000);
        assert!(eras.extend(first.number, 9_000).await.is_err(), "the old cluster is fenced");
        eras.extend(second.number, 6_000).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_restored_is_older_than_the_era_that_begins() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let eras = StoreEras(store);
        let above = Era { number: 40, floor: 1 << 50 };
        let era = eras.begin(11, above).await.unwrap();
        assert_eq!(era, Era { number: 41, floor: 1 << 50 });
        eras.extend(era.number, era.floor + 1_000).await.unwrap();
        let far = Era { number: 1 << 20, floor: 0 };
        assert!(eras.begin(11, far).await.is_err(), "this is not the store of that cluster");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reign_whose_floor_is_ahead_of_the_clock_gets_a_ceiling_at_once() {
        const HOUR: u64 = 3_600_000_000;
        let clock = starling_node::clock::ManualClock::at_micros(1_000_000);
        let limits = Arc::new(Limits::default());
        limits.belong(11, Era { number: 1, floor: 0 });
        let keeping = tokio::spawn(Arc::clone(&limits).keep(Arc::new(OneEra), Arc::new(clock), || true));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(limits.ceiling() > 1_000_000 && limits.ceiling() < HOUR);
        limits.need(HOUR);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(limits.ceiling() > HOUR, "positions above the floor can be granted");
        keeping.abort();
    }
}
