//! Shards that are moved on purpose: heirs that are late.

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
