//! A router whose disk stands still: its process answers, its groups do nothing.

use super::cluster::{Cluster, ms};
use crate::{Drain, GiveError};
use futures::FutureExt;
use futures::future::{BoxFuture, join};
use parking_lot::Mutex;
use starling_wire::{EdgeId, Epoch, Shard};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::time::sleep;

/// Counts homes that were stopped, and those of them that were not moved.
#[derive(Debug, Default)]
pub(super) struct Homes {
    pub(super) stopped: AtomicUsize,
    pub(super) resumed: AtomicUsize,
    /// They will not be moved.
    pub(super) stay: AtomicBool,
    /// They do not finish.
    pub(super) hang: AtomicBool,
    /// They take their time.
    pub(super) slow: AtomicBool,
    /// Those that have finished, and were not to go on.
    pub(super) all: Mutex<BTreeSet<(Shard, Epoch)>>,
    pub(super) edges: Mutex<BTreeSet<EdgeId>>,
}

impl Drain for Homes {
    fn drain(&self, shard: Shard, epoch: Epoch) -> BoxFuture<'static, bool> {
        if self.stay.load(Ordering::Relaxed) {
            return Box::pin(async { false });
        }
        self.all.lock().insert((shard, epoch));
        self.stopped.fetch_add(1, Ordering::Relaxed);
        if self.slow.load(Ordering::Relaxed) {
            return Box::pin(sleep(ms(300)).map(|()| true));
        }
        if self.hang.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        Box::pin(async { true })
    }

    fn resume(&self, shard: Shard, epoch: Epoch) {
        self.all.lock().remove(&(shard, epoch));
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    fn is_calm(&self, _: Shard) -> bool {
        true
    }

    fn edges(&self) -> BTreeSet<EdgeId> {
        self.edges.lock().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_a_disk_that_stands_still_is_not_ready() {
    let cluster = Cluster::start(91, 3, 4, false).await;
    cluster.settled(ms(3_000)).await;
    let ready = |this: &Cluster| (0..3).all(|at| this.at(at).is_ready());
    cluster.until(ms(500), "all are ready", ready).await;
    // One that leads nothing: nothing else would be seen of it.
    let idle = (0..3).find(|at| cluster.leads(*at) == 0).expect("one that only follows");
    cluster.stand_still(idle, true);
    cluster.until(ms(8_000), "it is not ready", |this| !this.at(idle).is_ready()).await;
    assert!(cluster.at(idle).waits() >= ms(2_000));
    assert!((0..3).all(|at| at == idle || cluster.at(at).is_ready()));
    cluster.stand_still(idle, false);
    cluster.until(ms(1_000), "all are ready again", ready).await;
}

#[tokio::test(start_paused = true)]
async fn no_home_is_stopped_to_be_moved_to_a_disk_that_stands_still() {
    let homes = Arc::new(Homes::default());
    let cluster = Cluster::of_homes(92, 5, 10, true, Some(homes.clone())).await;
    cluster.settled(ms(5_000)).await;
    let even = |this: &Cluster| (0..5).all(|at| this.leads(at) == 2);
    cluster.until(ms(120_000), "spread", even).await;
    assert!(homes.stopped.load(Ordering::Relaxed) > 0, "they are asked");
    cluster.stand_still(4, true);
    sleep(ms(3_000)).await;
    cluster.settled(ms(3_000)).await;
    sleep(ms(25_000)).await;
    assert_eq!(homes.resumed.load(Ordering::Relaxed), 0, "all that were stopped have moved");
    let busiest = (0..4).max_by_key(|at| cluster.leads(*at)).unwrap();
    assert!(cluster.leads(busiest) >= 3, "the one that stands still leads nothing");
    assert!(cluster.at(busiest).leave(ms(5_000)).await);
    assert_eq!(homes.resumed.load(Ordering::Relaxed), 0, "nor to make room");
}

#[tokio::test(start_paused = true)]
async fn where_a_shard_could_not_be_moved_none_is_moved_for_a_while() {
    let cluster = Cluster::start(93, 3, 6, false).await;
    cluster.settled(ms(3_000)).await;
    // Started again it leads nothing, so it would be the first that is given something.
    let shy = 2;
    cluster.kill(shy).await;
    cluster.settled(ms(2_000)).await;
    cluster.run(shy).await;
    sleep(ms(3_000)).await;
    let shard = (0..6).find(|shard| cluster.home(*shard).0 == 0).expect("the first leads a shard");
    cluster.stand_still(shy, true);
    assert!(cluster.bind(shard, 1).await);
    let to = cluster.routers[shy].id;
    assert_eq!(cluster.at(0).give(Shard(shard), to).await, Err(GiveError::Behind));
    cluster.stand_still(shy, false);
    sleep(ms(1_000)).await;
    assert!(cluster.at(0).leave(ms(5_000)).await);
    cluster.settled(ms(1_000)).await;
    assert_eq!((cluster.leads(0), cluster.leads(shy)), (0, 0), "the other one takes all");
}

#[tokio::test(start_paused = true)]
async fn who_is_the_only_one_to_vote_is_waited_for_while_its_disk_stands_still() {
    const SHARDS: u16 = 6;
    let homes = Arc::new(Homes::default());
    let cluster = Cluster::of_homes(94, 3, SHARDS, true, Some(homes.clone())).await;
    cluster.settled(ms(5_000)).await;
    cluster.until(ms(120_000), "spread", |this| (0..3).all(|at| this.leads(at) == 2)).await;
    sleep(ms(1_000)).await;
    let epochs = |this: &Cluster| -> Vec<_> { (0..SHARDS).map(|shard| this.reigning(shard)).collect() };
    let before: Vec<_> = epochs(&cluster).into_iter().map(|mut reigns| reigns.pop().unwrap()).collect();
    cluster.stand_still(0, true);
    // It has something to write.
    let shard = (0..SHARDS).find(|shard| cluster.home(*shard).0 == 1).expect("the second leads a shard");
    assert!(cluster.bind(shard, 1).await);
    cluster.until(ms(1_000), "it is told", |this| this.at(0).waits() >= ms(400)).await;
    let asked = cluster.at(1);
    let reconciled = asked.reconcile(1, ms(20_000));
    let still = async {
        sleep(ms(400)).await;
        cluster.stand_still(0, false);
    };
    let watched = async {
        let mut without = vec![0; usize::from(SHARDS)];
        // Until the first one leads all.
        let end = cluster.now() + ms(20_000);
        while cluster.leads(0) < usize::from(SHARDS) {
            assert!(cluster.now() < end, "only {} shards have come to the first", cluster.leads(0));
            for (reigns, without) in epochs(&cluster).iter().zip(&mut without) {
                *without = if reigns.is_empty() { *without + 1 } else { 0 };
                assert!(*without <= 400, "a shard has no home");
            }
            sleep(ms(1)).await;
        }
    };
    let ((done, ()), ()) = join(join(reconciled, still), watched).await;
    done.unwrap();
    for (shard, (at, reign)) in (0..SHARDS).zip(before) {
        let drained = homes.all.lock().contains(&(Shard(shard), reign.epoch));
        assert_eq!(drained, at != 0, "shard {shard}: whatever home ended had finished");
    }
}
