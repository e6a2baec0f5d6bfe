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

/// How far ahead of the clock the coarse ceiling is kept, and how often.
const AHEAD: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(5);
/// How soon it is tried again, and how often it is looked whether there is a cluster.
const AGAIN: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(50);

/// The first moment of an era.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Era {
    /// Its number, higher than that of any era before; below 2^24.
    pub number: u64,
    /// Its positions are above.
    pub floor: u64,
}

/// Where eras are kept.
pub trait Eras: Send + Sync + 'static {
    /// Begins one for a cluster that is being founded.
    fn begin(&self, cluster: u64) -> BoxFuture<'static, Result<Era, StoreError>>;

    /// Promises that positions of an era may be given up to `ceiling`.
    fn extend(&self, era: u64, ceiling: u64) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// Why there are no eras in a store that one process has to itself.
const ALONE: &str = "this store belongs to one process; routers of a cluster need one that they share";

/// Eras as reigns of a store: its conditional writes give each a higher number, and keep its ceiling.
pub struct StoreEras(pub SharedStore);

impl Eras for StoreEras {
    fn begin(&self, cluster: u64) -> BoxFuture<'static, Result<Era, StoreError>> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            if !store.is_shared() {
                return Err(StoreError::Unavailable(ALONE.to_owned()));
            }
            let claim = Claim { instance: cluster.into(), name: format!("cluster {cluster:016x}") };
            let reign = store.open_reign(claim).await?;
            Ok(Era { number: reign.epoch, floor: reign.floor.0 })
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
    fn begin(&self, _cluster: u64) -> BoxFuture<'static, Result<Era, StoreError>> {
        Box::pin(async { Ok(Era { number: 1, floor: 0 }) })
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

    pub(crate) fn belong(&self, cluster: u64, era: Era) {
        self.era.store(era.number, Ordering::Release);
        self.floor.store(era.floor, Ordering::Release);
        self.cluster.store(cluster, Ordering::Release);
    }

    /// Keeps the coarse ceiling ahead of the clock; at every router, so that none begins a reign without.
    /// Returns when a later era has begun: this cluster has been given up.
    pub(crate) async fn keep(self: Arc<Self>, eras: Arc<dyn Eras>, clock: SharedClock) {
        let mut failing = false;
        loop {
            if self.cluster() != 0 {
                let wanted = clock.now_micros().saturating_add(micros(AHEAD)).max(self.ceiling());
                match eras.extend(self.era(), wanted).await {
                    Ok(()) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!(event = "era_again", "the era's ceiling rises again");
                        }
                        self.ceiling.fetch_max(wanted, Ordering::AcqRel);
                        tokio::time::sleep(EVERY).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::memory::MemoryStore;

    #[tokio::test]
    async fn a_new_cluster_begins_above_all_that_the_old_one_could_give() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let eras = StoreEras(Arc::clone(&store));
        let first = eras.begin(11).await.unwrap();
        assert!(first.number > 0);
        eras.extend(first.number, 5_000).await.unwrap();
        assert!(matches!(eras.begin(12).await, Err(StoreError::Held(_))), "the old cluster lives");
        store.release(first.number).await.unwrap();
        let second = eras.begin(12).await.unwrap();
        assert!(second.number > first.number && second.floor >= 5_000);
        assert!(eras.extend(first.number, 9_000).await.is_err(), "the old cluster is fenced");
        eras.extend(second.number, 6_000).await.unwrap();
    }
}
