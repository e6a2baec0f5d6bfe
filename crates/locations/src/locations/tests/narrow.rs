//! Links that carry less than there is to send.

use super::cluster::{Cluster, ms};
use crate::machine::Op;
use starling_wire::{EdgeId, Shard, Token};
use starling_xmpp::FullJid;
use tokio::time::sleep;

const SHARDS: u16 = 4;
/// In megabytes, of each shard.
const LAG: u64 = 2;
/// What a link carries in a millisecond.
const WIDTH: usize = 3_000;

#[tokio::test(start_paused = true)]
async fn a_router_that_lags_is_caught_up_at_the_speed_of_its_link() {
    let cluster = Cluster::start(71, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    let lags = 2;
    cluster.kill(lags).await;
    cluster.settled(ms(5_000)).await;
    let epochs = || (0..SHARDS).map(|shard| cluster.home(shard).2.epoch).collect::<Vec<_>>();
    // Large entries: what an edge with many sessions leaves behind.
    for shard in 0..SHARDS {
        let (_, group, reign) = cluster.home(shard);
        for entry in 0..LAG * 4 {
            let bind = |number: u64| Op::Bind {
                epoch: reign.epoch,
                jid: FullJid::parse(&format!("a@x.org/{entry}-{number}-{}", "r".repeat(980))).unwrap(),
                token: Token(u128::from(entry * 1_000 + number)),
                edge: EdgeId(1),
            };
            group.record((0..250).map(bind).collect()).await.unwrap();
        }
    }
    let before = epochs();
    cluster.net.narrow(WIDTH);
    cluster.run(lags).await;
    let caught_up = |this: &Cluster| {
        (0..SHARDS).all(|shard| {
            let applied = |at: usize| this.at(at).group(Shard(shard)).unwrap().standing().applied;
            applied(lags) >= applied(0).max(applied(1))
        })
    };
    cluster.until(ms(10_000), "it has all entries", caught_up).await;
    // Never more than once in a row: one message of each shard.
    let waited = cluster.net.waited();
    assert!(waited < ms(u64::from(SHARDS) * 1_200_000 / WIDTH as u64), "{waited:?}");
    sleep(ms(1_000)).await;
    assert_eq!(epochs(), before, "nobody was elected meanwhile");
}
