//! Founding, where the store lets nobody begin an era while another cluster keeps its own.

use super::cluster::{Cluster, ms};
use crate::RestoreError;
use crate::era::{Era, Eras};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_store::{CLUSTER_LEASE, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

const SHARDS: u16 = 2;

/// Eras as a store that routers share keeps them: who would begin one waits whether somebody still keeps the last.
#[derive(Debug, Default, Clone)]
struct LeasedEras(Arc<Mutex<Leased>>);

#[derive(Debug, Default)]
struct Leased {
    cluster: u64,
    era: Era,
    kept: u64,
    /// How many more times it can be kept before the store is away.
    left: Option<u64>,
}

impl Eras for LeasedEras {
    fn begin(&self, cluster: u64, above: Era) -> BoxFuture<'static, Result<Era, StoreError>> {
        let all = Arc::clone(&self.0);
        Box::pin(async move {
            let (before, other) = {
                let all = all.lock();
                (all.kept, all.cluster != 0 && all.cluster != cluster)
            };
            if other {
                sleep(CLUSTER_LEASE).await;
            }
            let mut all = all.lock();
            if all.kept != before {
                return Err(StoreError::Held("another cluster lives".to_owned()));
            }
            let number = all.era.number.max(above.number) + 1;
            (all.cluster, all.era) = (cluster, Era { number, floor: all.era.floor.max(above.floor) });
            all.kept += 1;
            Ok(all.era)
        })
    }

    fn extend(&self, era: u64, ceiling: u64) -> BoxFuture<'static, Result<(), StoreError>> {
        let all = Arc::clone(&self.0);
        Box::pin(async move {
            let mut all = all.lock();
            if all.left == Some(0) {
                return Err(StoreError::Unavailable("away".to_owned()));
            }
            all.left = all.left.map(|left| left - 1);
            if all.era.number != era {
                return Err(StoreError::Fenced);
            }
            all.era.floor = all.era.floor.max(ceiling);
            all.kept += 1;
            Ok(())
        })
    }
}

/// So long it may take: an era is given up, and another is begun, twice.
const WITHIN: Duration = Duration::from_secs(30);

async fn serves(cluster: &Cluster) {
    cluster.settled(WITHIN).await;
    let granted = |this: &Cluster| {
        (0..SHARDS).all(|shard| {
            this.reigning(shard).iter().any(|(_, reign)| reign.ceiling.load(Ordering::Acquire) > reign.floor)
        })
    };
    cluster.until(ms(10_000), "positions are granted", granted).await;
    for shard in 0..SHARDS {
        assert!(cluster.bind(shard, 1).await);
    }
}

/// Routers with empty disks that may all found, the first of them first.
async fn empty(seed: u64) -> Cluster {
    let mut cluster = Cluster::start(seed, 0, SHARDS, false).await;
    cluster.eras = Arc::new(LeasedEras::default());
    for number in 0..3 {
        let one = cluster.add(&format!("router-{number}"), 101 + number, Some(3));
        cluster.run(one).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_founding_that_ended_half_way_is_begun_again() {
    for comes_back in [true, false] {
        let mut cluster = empty(71).await;
        cluster.net.weather((ms(8), ms(12)), 0.0);
        let half = |this: &Cluster| this.at(1).cluster() != 0;
        cluster.until(ms(5_000), "one is told of a cluster", half).await;
        assert_eq!(cluster.at(0).cluster(), 0);
        cluster.kill(0).await;
        cluster.net.weather((ms(1), ms(1)), 0.0);
        sleep(ms(10_000)).await;
        if comes_back {
            cluster.run(0).await;
        } else {
            let other = cluster.add("router-0", 109, Some(3));
            cluster.run(other).await;
        }
        serves(&cluster).await;
        sleep(ms(10_000)).await;
        assert!((1..3).all(|at| cluster.failed(at).is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn empty_disks_that_have_heard_of_a_dead_cluster_found_another() {
    let mut cluster = empty(72).await;
    serves(&cluster).await;
    let (before, epoch) = (cluster.at(2).cluster(), cluster.home(0).2.epoch);
    for number in 0..2 {
        cluster.kill(number).await;
    }
    for number in 0..2 {
        let one = cluster.add(&format!("router-{number}"), 201 + number, Some(3));
        cluster.run(one).await;
    }
    let told = |this: &Cluster| (3..5).all(|at| this.at(at).cluster() == before);
    cluster.until(ms(10_000), "they hear of a cluster that cannot take them in", told).await;
    sleep(ms(10_000)).await;
    cluster.kill(2).await;
    let last = cluster.add("router-2", 203, Some(3));
    cluster.run(last).await;
    serves(&cluster).await;
    assert_ne!(cluster.at(last).cluster(), before);
    assert!(cluster.home(0).2.epoch > epoch);
}

#[tokio::test(start_paused = true)]
async fn a_founding_to_which_one_was_too_slow_is_begun_again() {
    let cluster = empty(73).await;
    cluster.net.weather((ms(8), ms(12)), 0.0);
    cluster.until(ms(5_000), "one is told of a cluster", |this| this.at(1).cluster() != 0).await;
    cluster.net.mute(cluster.routers[0].id, cluster.routers[2].id);
    sleep(ms(4_000)).await;
    assert_eq!(cluster.at(0).cluster(), 0, "not without the third");
    cluster.net.heal();
    serves(&cluster).await;
    let id = cluster.at(0).cluster();
    assert!((1..3).all(|at| cluster.at(at).cluster() == id && cluster.failed(at).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_founding_that_was_written_down_is_gone_on_with_unless_a_later_one_was_begun() {
    for later in [false, true] {
        let eras = LeasedEras::default();
        // One word with the store for each of the others, none for going on.
        eras.0.lock().left = Some(2);
        let mut cluster = Cluster::start(74, 0, SHARDS, false).await;
        cluster.eras = Arc::new(eras.clone());
        for number in 0..3 {
            let one = cluster.add(&format!("router-{number}"), 101 + number, Some(3));
            cluster.run(one).await;
        }
        let written = |this: &Cluster| (0..3).all(|at| this.at(at).cluster() != 0);
        cluster.until(ms(5_000), "all have written it down", written).await;
        let written = cluster.at(0).cluster();
        sleep(ms(50)).await;
        assert!((0..SHARDS).all(|shard| cluster.reigning(shard).is_empty()));
        cluster.kill(0).await;
        sleep(ms(10_000)).await;
        eras.0.lock().left = None;
        if later {
            eras.begin(4711, Era::default()).await.unwrap();
        }
        cluster.run(0).await;
        serves(&cluster).await;
        sleep(ms(10_000)).await;
        let id = cluster.at(0).cluster();
        assert_eq!(id == written, !later);
        assert!((0..3).all(|at| cluster.at(at).cluster() == id && cluster.failed(at).is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_was_refused_half_way_can_be_asked_for_again() {
    let mut cluster = Cluster::start(75, 0, SHARDS, false).await;
    cluster.eras = Arc::new(LeasedEras::default());
    for number in 0..3 {
        let one = cluster.add(&format!("router-{number}"), 101 + number, None);
        cluster.run(one).await;
    }
    cluster.net.weather((ms(8), ms(12)), 0.0);
    sleep(ms(2_000)).await;
    let above = Era { number: 40, floor: 0 };
    let (asked, ()) = futures::future::join(async { cluster.at(0).restore(above, 3).await }, async {
        cluster.until(ms(5_000), "one is told of a cluster", |this| this.at(1).cluster() != 0).await;
        cluster.net.mute(cluster.routers[0].id, cluster.routers[2].id);
        sleep(ms(4_000)).await;
        cluster.net.heal();
    })
    .await;
    assert_eq!(asked, Err(RestoreError::Refused(cluster.routers[2].id)));
    // Until the era that was begun is over the store gives no other.
    sleep(ms(6_000)).await;
    cluster.at(1).restore(above, 3).await.unwrap();
    serves(&cluster).await;
    assert!(matches!(cluster.at(0).restore(above, 3).await, Err(RestoreError::Lives(_))));
}
