//! Shards are moved on purpose to where edges are.

use super::cluster::{Cluster, ms};
use super::stuck::Homes;
use crate::Drain;
use starling_wire::{EdgeId, Shard};
use std::sync::Arc;
use tokio::time::sleep;

const SHARDS: u16 = 6;

/// Three routers, of which the last one came later: one of the two edges has not reached it.
async fn unreached(seed: u64, spread: bool) -> (Cluster, Arc<Homes>) {
    let mut cluster = Cluster::start(seed, 0, SHARDS, spread).await;
    let mut last = Arc::new(Homes::default());
    for number in 0..3 {
        if number == 2 {
            cluster.settled(ms(5_000)).await;
        }
        let homes = Arc::new(Homes::default());
        homes.edges.lock().extend((0..if number == 2 { 1 } else { 2 }).map(EdgeId));
        last = Arc::clone(&homes);
        cluster.drain = Some(homes as Arc<dyn Drain>);
        let one = cluster.add(&format!("router-{number}"), 101 + number, (number == 0).then_some(2));
        cluster.run(one).await;
    }
    cluster
        .until(ms(20_000), "the last one votes", |this| this.at(2).is_ready() && this.at(2).has_its_part())
        .await;
    (cluster, last)
}

#[tokio::test(start_paused = true)]
async fn the_load_is_not_spread_to_where_an_edge_is_missing() {
    let (cluster, last) = unreached(111, true).await;
    let id = cluster.routers[2].id;
    cluster.until(ms(500), "that is known", |this| this.at(0).edges(id) == Some((1, 1))).await;
    sleep(ms(60_000)).await;
    assert_eq!(cluster.leads(2), 0);
    // One more than the others have does no harm.
    last.edges.lock().extend((0..3).map(EdgeId));
    cluster.until(ms(30_000), "it has its share", |this| this.leads(2) == usize::from(SHARDS) / 3).await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_to_where_edges_are_if_there_is_anybody() {
    let (cluster, _) = unreached(112, false).await;
    for shard in 0..SHARDS {
        let home = cluster.home(shard).0;
        if home != 0 {
            cluster.at(home).give(Shard(shard), cluster.routers[0].id).await.unwrap();
        }
    }
    let all = usize::from(SHARDS);
    cluster.until(ms(2_000), "the first leads all", |this| this.leads(0) == all).await;
    assert!(cluster.at(0).leave(ms(5_000)).await);
    cluster.until(ms(1_000), "all shards have a home", |this| this.leads(1) + this.leads(2) == all).await;
    assert_eq!(cluster.leads(2), 0);
    // Better there than nowhere.
    assert!(cluster.at(1).leave(ms(5_000)).await);
    cluster.until(ms(1_000), "the last one leads all", |this| this.leads(2) == all).await;
}
