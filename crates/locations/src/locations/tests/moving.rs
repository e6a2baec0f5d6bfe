//! Shards that are moved on purpose: heirs that are late, and many shards at once.

use super::cluster::{Cluster, ms};
use crate::GiveError;
use starling_wire::Shard;
use tokio::time::sleep;

/// A shard, its home and one that could be its next.
fn pair(cluster: &Cluster) -> (usize, usize) {
    let home = cluster.home(0).0;
    (home, (home + 1) % cluster.routers.len())
}

#[tokio::test(start_paused = true)]
async fn who_is_told_too_late_to_campaign_ends_no_reign() {
    for voters in [3, 5] {
        let cluster = Cluster::start(95, voters, 1, false).await;
        cluster.settled(ms(5_000)).await;
        let (home, heir) = pair(&cluster);
        cluster.net.tell_heirs_late(ms(1_500));
        let given = cluster.at(home).give(Shard(0), cluster.routers[heir].id).await;
        assert_eq!(given, Err(GiveError::NotElected));
        cluster.settled(ms(500)).await;
        let (at, _, reign) = cluster.home(0);
        assert_eq!(at, home, "it goes on");
        sleep(ms(4_000)).await;
        assert_eq!((cluster.home(0).0, cluster.home(0).2.epoch), (home, reign.epoch));
        // In time it is elected.
        cluster.net.tell_heirs_late(ms(0));
        cluster.at(home).give(Shard(0), cluster.routers[heir].id).await.unwrap();
        cluster.settled(ms(500)).await;
        assert_eq!(cluster.home(0).0, heir);
    }
}

#[tokio::test(start_paused = true)]
async fn many_shards_are_given_away_in_time_and_to_all_others() {
    const SHARDS: u16 = 40;
    let cluster = Cluster::start(97, 5, SHARDS, false).await;
    cluster.settled(ms(5_000)).await;
    // The first leads most of them, and the last one none.
    for shard in 0..SHARDS {
        let (home, ..) = cluster.home(shard);
        let to = if shard < 12 { 1 + usize::from(shard) % 3 } else { 0 };
        if home != to {
            cluster.at(home).give(Shard(shard), cluster.routers[to].id).await.unwrap();
        }
    }
    let led = |this: &Cluster| (0..5).map(|at| this.leads(at)).collect::<Vec<_>>();
    cluster.until(ms(2_000), "all are there", |this| led(this) == [28, 4, 4, 4, 0]).await;
    sleep(ms(500)).await;
    // One at a time, each waits until the promise to the one before is over: 310 ms.
    assert!(cluster.at(0).leave(ms(4_000)).await);
    cluster.settled(ms(1_000)).await;
    assert_eq!(led(&cluster), [0, 10, 10, 10, 10]);
}
