//! What readiness tells, and how calm shards are after a failure.

use super::cluster::{Cluster, ms};
use crate::group::{Group, Standing};
use starling_wire::RouterId;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn ready_is_who_knows_of_leaders_that_a_quorum_has_confirmed_lately() {
    let cluster = Cluster::start(41, 3, 4, false).await;
    assert!(!cluster.at(0).is_ready(), "nobody leads yet");
    cluster.settled(ms(3_000)).await;
    cluster.until(ms(500), "all are ready", |this| (0..3).all(|number| this.at(number).is_ready())).await;
    // Cut off, a leader goes on to believe that it is one: openraft has no check of its quorum.
    let leader = cluster.home(0).0;
    cluster.net.isolate(cluster.routers[leader].id);
    let raft = cluster.at(leader).groups()[0].core().raft.clone();
    cluster.until(ms(1_300), "who is cut off is not ready", |this| !this.at(leader).is_ready()).await;
    assert!(raft.server_metrics().borrow().state.is_leader(), "it is not that which tells");
    let others: Vec<usize> = (0..3).filter(|number| *number != leader).collect();
    cluster.until(ms(1_000), "the others are", |this| others.iter().all(|at| this.at(*at).is_ready())).await;
    cluster.net.heal();
    cluster.until(ms(1_000), "all are again", |this| (0..3).all(|number| this.at(number).is_ready())).await;
    // Without a majority nobody is.
    for number in &others {
        cluster.kill(*number).await;
    }
    cluster.until(ms(1_300), "nobody is", |this| !this.at(leader).is_ready()).await;
    let standings = || cluster.at(leader).groups().iter().map(Group::standing).collect::<Vec<_>>();
    assert!(standings().iter().all(|one| one.leader.is_none()), "the dead do not lead: {:?}", standings());
    sleep(ms(5_000)).await;
    assert!(standings().iter().all(|one| one.leader.is_none() && one.confirmed > ms(5_000)));
    for number in others {
        cluster.run(number).await;
    }
    let led = |one: &Standing| one.leader.is_some() && one.confirmed < ms(1_000);
    cluster.until(ms(10_000), "all are led again", |_| standings().iter().all(led)).await;
}

/// Who leads each shard, as the first router knows it.
fn leaders(cluster: &Cluster) -> Vec<Option<RouterId>> {
    cluster.at(0).groups().iter().map(Group::leader).collect()
}

#[tokio::test(start_paused = true)]
async fn leaders_are_spread_again_after_a_failure_and_not_at_once() {
    let cluster = Cluster::start(42, 3, 12, true).await;
    cluster.settled(ms(3_000)).await;
    let even = |this: &Cluster| (0..3).all(|number| this.leads(number) == 4);
    cluster.until(ms(120_000), "spread", even).await;
    cluster.kill(2).await;
    cluster.settled(ms(1_000)).await;
    sleep(ms(5_000)).await;
    cluster.run(2).await;
    let before = leaders(&cluster);
    for _ in 0..98 {
        sleep(ms(100)).await;
        assert_eq!(leaders(&cluster), before, "it has only just come back");
    }
    cluster.until(ms(120_000), "spread again", even).await;
    let after = leaders(&cluster);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(moved, 4, "nothing was moved to and fro: {before:?} {after:?}");
}
