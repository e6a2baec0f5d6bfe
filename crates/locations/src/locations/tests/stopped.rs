//! A router that cannot go on, and has not ended yet.

use super::cluster::{Cluster, ms};
use crate::Failure;
use crate::call::has;
use tokio::time::sleep;

const SHARDS: u16 = 4;

#[tokio::test(start_paused = true)]
async fn a_home_whose_log_fails_holds_nobody_up() {
    for writes in [1, SHARDS] {
        let cluster = Cluster::start(61, 3, SHARDS, false).await;
        cluster.settled(ms(3_000)).await;
        sleep(ms(2_000)).await;
        let leader = cluster.home(0).0;
        assert_eq!(cluster.leads(leader), usize::from(SHARDS));
        cluster.break_disk(leader);
        // All groups have one log: it has failed for those as well that have nothing to write.
        let binds = (0..writes).map(|shard| cluster.bind(shard, u64::from(shard)));
        let binds = futures::future::join_all(binds);
        let replaced = cluster.until(ms(5_000), "others are home", |cluster| {
            (0..SHARDS).all(|shard| cluster.reigning(shard).iter().any(|(at, _)| *at != leader))
        });
        let (bound, took) = futures::future::join(binds, replaced).await;
        assert!(took < ms(1_000), "{writes} write: {took:?}");
        assert!(bound.iter().all(|bound| !bound), "what was not written was not confirmed");
        assert!(matches!(cluster.failed(leader), Some(Failure::Log(_))));
        assert_eq!(cluster.leads(leader), 0);
        let ping = cluster.at(leader).inner.ping();
        assert!((0..SHARDS).all(|shard| !has(&ping.leads, shard)), "it does not say that it leads");
        // There is nothing to give away before the process ends.
        let start = cluster.now();
        assert!(cluster.at(leader).leave(ms(10_000)).await);
        assert!(cluster.now() - start < ms(100));
        cluster.kill(leader).await;
        for shard in 0..SHARDS {
            assert!(cluster.bind(shard, 100 + u64::from(shard)).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_refuses_is_not_asked_all_the_time() {
    let cluster = Cluster::start(62, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    sleep(ms(2_000)).await;
    let ill = (cluster.home(0).0 + 1) % 3;
    cluster.break_disk(ill);
    for shard in 0..SHARDS {
        assert!(cluster.bind(shard, u64::from(shard)).await, "the others are enough");
    }
    sleep(ms(100)).await;
    assert!(matches!(cluster.failed(ill), Some(Failure::Log(_))));
    let to = cluster.routers[ill].id;
    let before = cluster.net.carried(to);
    sleep(ms(2_000)).await;
    let calls = cluster.net.carried(to) - before;
    assert!(calls < 1_000, "{calls} calls in two seconds");
}
