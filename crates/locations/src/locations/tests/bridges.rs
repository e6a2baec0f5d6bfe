//! A leader that is cut off from most of the others, while some hear both sides.

use super::cluster::{Cluster, ms};
use starling_wire::Shard;
use tokio::time::sleep;

/// How the way between two routers is broken.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Their links are closed.
    Cut,
    /// Their links stay, and nothing passes.
    Mute,
}

/// Breaks the ways between the home of shard 0 and all of `apart` but the `bridges`; another home must be there soon, and
/// stay when all is whole again.
async fn is_replaced(cluster: &Cluster, apart: &[usize], how: How) {
    let (home, _, before) = cluster.home(0);
    // Whoever alone has the last entry has to be elected, which takes openraft's timers; and a leader whose links stay up
    // waits for a second until it believes that nobody is there.
    let within = match how {
        How::Cut => ms(2_000),
        How::Mute => ms(3_000),
    };
    for round in 0..10 {
        assert!(cluster.bind(0, round).await);
    }
    for other in apart {
        let (one, other) = (cluster.routers[home].id, cluster.routers[*other].id);
        match how {
            How::Cut => cluster.net.cut(one, other),
            How::Mute => cluster.net.mute(one, other),
        }
    }
    let took = cluster
        .until(within, "another home", |this| this.reigning(0).iter().any(|(at, _)| *at != home))
        .await;
    println!("{how:?} from {} of {}: {took:?}", apart.len(), cluster.routers.len());
    assert!(cluster.bind(0, 100).await);
    sleep(ms(3_000)).await;
    let (next, _, reign) = cluster.home(0);
    assert!(reign.epoch > before.epoch && next != home);
    assert!(cluster.bind(0, 101).await, "it stays");
    cluster.net.heal();
    cluster.settled(ms(2_000)).await;
    sleep(ms(3_000)).await;
    assert!(cluster.bind(0, 102).await);
    assert_eq!(cluster.home(0).2.epoch, reign.epoch, "nothing is felt when the others are back");
    assert_eq!(cluster.at(home).group(Shard(0)).unwrap().leader(), Some(cluster.routers[next].id));
}

fn others(cluster: &Cluster) -> Vec<usize> {
    let home = cluster.home(0).0;
    (0..cluster.routers.len()).filter(|number| *number != home).collect()
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_reaches_no_quorum_keeps_nobody_from_electing() {
    for how in [How::Cut, How::Mute] {
        let cluster = Cluster::start(41, 5, 1, false).await;
        cluster.settled(ms(3_000)).await;
        let apart = &others(&cluster)[..3];
        is_replaced(&cluster, apart, how).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nor_from_the_vote_that_they_need() {
    for how in [How::Cut, How::Mute] {
        let cluster = Cluster::start(42, 4, 1, false).await;
        cluster.settled(ms(3_000)).await;
        let apart = &others(&cluster)[..2];
        is_replaced(&cluster, apart, how).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nor_do_those_who_hear_it_and_have_no_vote() {
    for how in [How::Cut, How::Mute] {
        let cluster = Cluster::start(43, 5, 1, false).await;
        cluster.settled(ms(3_000)).await;
        cluster.at(0).reconcile(3, ms(20_000)).await.unwrap();
        cluster.settled(ms(1_000)).await;
        let voters = cluster.home(0).1.standing().voters;
        let apart: Vec<usize> = others(&cluster)
            .into_iter()
            .filter(|number| voters.contains(&cluster.routers[*number].id))
            .collect();
        assert_eq!(apart.len(), 2);
        is_replaced(&cluster, &apart, how).await;
    }
}
