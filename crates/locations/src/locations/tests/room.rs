//! Snapshots on a disk that is too full for them.

use super::cluster::{Cluster, ms};
use crate::disk::Disk;
use crate::disk::faulty::Plan;
use crate::group::NoSnapshot;
use starling_wire::Shard;
use std::sync::atomic::Ordering;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_disk_without_room_for_a_snapshot_ends_nobody() {
    let cluster = Cluster::start(65, 3, 2, false).await;
    cluster.settled(ms(3_000)).await;
    for number in 0..100 {
        assert!(cluster.bind(0, number).await);
    }
    let disk = &cluster.routers[1].disk;
    disk.plan(Plan { capacity: Some(1_000), ..Plan::default() });
    let group = cluster.at(1).group(Shard(0)).unwrap().clone();
    assert_eq!(group.snapshot().await, Err(NoSnapshot::NoRoom));
    // Nor when one is due.
    group.core().state.since_snapshot.store(1 << 30, Ordering::Relaxed);
    cluster.until(ms(5_000), "that is seen", |this| this.at(1).is_short_of_room()).await;
    sleep(ms(20_000)).await;
    assert!((0..3).all(|at| cluster.failed(at).is_none()));
    assert!(disk.names().unwrap().is_empty(), "nothing is left of what did not fit");
    assert!(cluster.bind(0, 200).await);
    disk.plan(Plan::default());
    let made = |_: &Cluster| group.core().figures.borrow().snapshot.is_some();
    cluster.until(ms(15_000), "it is made as soon as it fits", made).await;
    cluster.until(ms(2_000), "that is seen", |this| !this.at(1).is_short_of_room()).await;
}
