//! How many vote, and a cluster in place of one that is lost.

use super::cluster::{Cluster, jid, ms};
use crate::call::{Answer, Call};
use crate::era::Era;
use crate::locations::joining::MOST_VOTERS;
use crate::peers::NO_GROUP;
use crate::{Op, ReconcileError, RemoveError, RestoreError};
use starling_wire::Shard;
use std::collections::BTreeSet;
use tokio::time::sleep;

const SHARDS: u16 = 3;

/// Who votes in a shard, as a router knows it, by number.
fn voters(cluster: &Cluster, at: usize, shard: u16) -> BTreeSet<usize> {
    let standing = cluster.at(at).group(Shard(shard)).unwrap().standing();
    let number = |id| cluster.routers.iter().position(|router| router.id == id).unwrap();
    standing.voters.into_iter().map(number).collect()
}

fn all_vote(cluster: &Cluster, at: usize, wanted: &[usize]) -> bool {
    (0..SHARDS).all(|shard| voters(cluster, at, shard) == wanted.iter().copied().collect())
}

#[tokio::test(start_paused = true)]
async fn no_more_than_five_vote_and_one_that_is_lost_for_long_gives_its_vote_away() {
    let mut cluster = Cluster::start(31, 5, 1, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.add("router-5", 106, None);
    cluster.run(5).await;
    cluster.until(ms(20_000), "it has its part", |this| this.at(5).has_its_part()).await;
    let five: BTreeSet<usize> = (0..MOST_VOTERS).collect();
    assert_eq!(voters(&cluster, 0, 0), five);
    assert!(cluster.bind(0, 5).await);
    let known = |this: &Cluster| this.at(5).group(Shard(0)).unwrap().row(&jid(5)).is_some();
    cluster.until(ms(1_000), "who has no vote knows who is where as well", known).await;
    cluster.kill(4).await;
    sleep(ms(200_000)).await;
    assert_eq!(voters(&cluster, 0, 0), five, "one that is started again votes as before");
    sleep(ms(150_000)).await;
    assert_eq!(voters(&cluster, 0, 0), [0, 1, 2, 3, 5].into());
    cluster.run(4).await;
    cluster.until(ms(5_000), "it is no stranger", |this| this.at(4).has_its_part()).await;
    assert_eq!(voters(&cluster, 0, 0), [0, 1, 2, 3, 5].into());
}

#[tokio::test(start_paused = true)]
async fn the_voters_are_brought_to_what_is_wanted() {
    let cluster = Cluster::start(32, 5, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    // Those that will have no vote lead.
    for shard in 0..SHARDS {
        let (at, ..) = cluster.home(shard);
        let to = cluster.routers[4].id;
        if at != 4 {
            cluster.at(at).give(Shard(shard), to).await.unwrap();
        }
    }
    let within = ms(20_000);
    assert_eq!(cluster.at(1).reconcile(4, within).await, Err(ReconcileError::Number));
    let done = cluster.at(1).reconcile(3, within).await.unwrap();
    let names = |these: std::collections::BTreeMap<_, crate::types::Member>| -> Vec<String> {
        these.into_values().map(|member| member.name).collect()
    };
    assert_eq!(names(done.voters), ["router-0", "router-1", "router-2"]);
    assert_eq!(names(done.spare), ["router-3", "router-4"]);
    assert!(done.gone.is_empty());
    cluster.settled(ms(1_000)).await;
    sleep(ms(10_000)).await;
    assert!(all_vote(&cluster, 0, &[0, 1, 2]), "those without a vote do not take one");
    assert!(cluster.at(3).has_its_part() && cluster.failed(3).is_none());
    // One of the three is gone: one of the others votes in its stead, once that is sure.
    cluster.kill(2).await;
    cluster.settled(ms(1_000)).await;
    sleep(ms(5_000)).await;
    assert!(matches!(cluster.at(0).reconcile(3, within).await, Err(ReconcileError::Away(..))));
    sleep(ms(30_000)).await;
    assert_eq!(cluster.at(0).reconcile(5, within).await, Err(ReconcileError::Few(4)));
    let done = cluster.at(0).reconcile(3, within).await.unwrap();
    assert_eq!((names(done.gone), names(done.spare).len()), (vec!["router-2".to_owned()], 1));
    assert!(!cluster.at(0).members().contains_key(&cluster.routers[2].id));
    for shard in 0..SHARDS {
        assert!(cluster.bind(shard, u64::from(shard)).await);
    }
    // Without a majority nobody is asked to make it worse.
    cluster.kill(0).await;
    cluster.kill(1).await;
    sleep(ms(40_000)).await;
    let refused = cluster.at(3).reconcile(1, within).await;
    assert!(matches!(refused, Err(ReconcileError::NoQuorum(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_heard_by_another_router_is_not_gone() {
    let cluster = Cluster::start(36, 5, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    let id = cluster.routers[4].id;
    cluster.net.cut(cluster.routers[0].id, id);
    sleep(ms(35_000)).await;
    let refused = cluster.at(0).reconcile(3, ms(20_000)).await;
    assert!(matches!(refused, Err(ReconcileError::Linked(_))), "{refused:?}");
    sleep(ms(3_000)).await;
    assert!((0..5).all(|at| cluster.at(at).members().contains_key(&id)) && cluster.failed(4).is_none());
    // Once it is gone it is.
    cluster.kill(4).await;
    cluster.settled(ms(2_000)).await;
    sleep(ms(31_000)).await;
    let done = cluster.at(0).reconcile(3, ms(20_000)).await.unwrap();
    assert!(done.gone.contains_key(&id));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_removed_whom_a_majority_needs() {
    let cluster = Cluster::start(35, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.kill(2).await;
    cluster.settled(ms(2_000)).await;
    let id = cluster.routers[1].id;
    for round in 0..2 {
        for at in 0..2 {
            let refused = cluster.at(at).remove(id).await;
            assert!(matches!(refused, Err(RemoveError::Majority(_))), "{refused:?}");
            // Nor does whoever leads what others ask for.
            let locations = cluster.at(at);
            let call = Call::Remove(id).encode(locations.cluster());
            let answer = locations.answer(cluster.routers[1 - at].id, "", NO_GROUP, call).await;
            assert!(matches!(Answer::decode(answer), Ok(Answer::Done)));
        }
        sleep(ms(3_000)).await;
        for shard in 0..SHARDS {
            assert!(cluster.bind(shard, u64::from(shard) + 10 * round).await, "they go on");
        }
    }
    assert!(all_vote(&cluster, 0, &[0, 1, 2]));
    // Whoever is away can be removed.
    let gone = cluster.routers[2].id;
    for _ in 0..20 {
        cluster.at(0).remove(gone).await.unwrap();
        sleep(ms(500)).await;
        if !cluster.at(0).members().contains_key(&gone) {
            break;
        }
    }
    assert!(all_vote(&cluster, 0, &[0, 1]));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_for_a_restore_is_above_all_that_any_router_was_granted() {
    let cluster = Cluster::start(34, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    let (at, group, reign) = cluster.home(1);
    // As one whose clock is a day ahead of the others'.
    let ceiling = cluster.clock.now_micros() + 86_400_000_000;
    group.record(vec![Op::Grant { epoch: reign.epoch, ceiling }]).await.unwrap();
    sleep(ms(200)).await;
    for number in 0..3 {
        let era = cluster.at(number).era().unwrap();
        assert!(era.floor >= ceiling, "router {number}, granted at {at}: {era:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_comes_after_the_one_that_was_lost() {
    let mut cluster = Cluster::start(33, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    let (before, epochs) =
        (cluster.at(0).era().unwrap(), (0..SHARDS).map(|shard| cluster.home(shard).2.epoch).max());
    assert!(matches!(cluster.at(0).restore(before, 3).await, Err(RestoreError::Lives(_))));
    // A router with an empty disk beside those that live.
    cluster.kill(0).await;
    cluster.add("router-0", 201, None);
    cluster.run(3).await;
    sleep(ms(1_000)).await;
    let lives = cluster.at(3).restore(before, 1).await;
    assert!(matches!(lives, Err(RestoreError::Lives(_))), "{lives:?}");
    // All disks are lost, and these routers found nothing by themselves.
    for number in 1..4 {
        cluster.kill(number).await;
        cluster.add(&format!("router-{}", number - 1), 300 + number as u64, None);
    }
    cluster.run(4).await;
    cluster.run(5).await;
    sleep(ms(2_000)).await;
    assert_eq!(cluster.at(4).restore(before, 3).await, Err(RestoreError::Few(2)));
    let third = 6;
    cluster.run(third).await;
    sleep(ms(1_000)).await;
    let lost = Era { number: before.number + 7, floor: 1 << 62 };
    cluster.at(5).restore(lost, 3).await.unwrap();
    cluster.settled(ms(5_000)).await;
    for shard in 0..SHARDS {
        let reign = cluster.home(shard).2;
        assert!(Some(reign.epoch) > epochs && reign.epoch.0 >> 40 > lost.number);
        assert!(reign.floor >= lost.floor);
    }
    assert!(matches!(cluster.at(4).restore(lost, 3).await, Err(RestoreError::Lives(_))));
    cluster
        .until(ms(20_000), "positions are granted above all that was given", |this| {
            (0..SHARDS).all(|shard| {
                let reign = this.home(shard).2;
                reign.ceiling.load(std::sync::atomic::Ordering::Relaxed) > reign.floor
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn however_many_are_there_when_a_cluster_is_founded_five_vote() {
    let cluster = Cluster::start(37, 7, 1, false).await;
    cluster.settled(ms(3_000)).await;
    cluster
        .until(ms(20_000), "all have their part", |this| (0..7).all(|at| this.at(at).has_its_part()))
        .await;
    let five: BTreeSet<usize> = (0..MOST_VOTERS).collect();
    assert!((0..7).all(|at| voters(&cluster, at, 0) == five));
    assert!((0..7).all(|at| cluster.at(at).cluster() == cluster.at(0).cluster()));
    cluster.kill(1).await;
    cluster.kill(2).await;
    cluster.settled(ms(2_000)).await;
    assert!(cluster.bind(0, 1).await, "three of five are a majority");
}

#[tokio::test(start_paused = true)]
async fn leaders_are_spread_over_those_that_vote_whoever_else_is_there() {
    let cluster = Cluster::start(38, 5, 15, true).await;
    cluster.settled(ms(3_000)).await;
    cluster.at(0).reconcile(3, ms(20_000)).await.unwrap();
    let even = |this: &Cluster| (0..3).all(|at| this.leads(at) == 5);
    cluster.until(ms(120_000), "spread over three", even).await;
    cluster.kill(1).await;
    cluster.settled(ms(2_000)).await;
    sleep(ms(2_000)).await;
    cluster.run(1).await;
    cluster.until(ms(120_000), "spread again", even).await;
}

/// A router whose disk stands still answers, and no entry comes into its log.
#[tokio::test(start_paused = true)]
async fn a_disk_that_stands_still_counts_towards_no_majority() {
    let cluster = Cluster::start(40, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.stand_still(1, true);
    sleep(ms(5_000)).await;
    let gone = cluster.routers[2].id;
    cluster.kill(2).await;
    assert!(matches!(cluster.at(0).remove(gone).await, Err(RemoveError::Majority(_))));
    sleep(ms(2_000)).await;
    assert!(all_vote(&cluster, 0, &[0, 1, 2]));
    // Who is back makes a majority again.
    cluster.run(2).await;
    cluster.until(ms(10_000), "binds are recorded", |this| this.at(2).has_its_part()).await;
    cluster.settled(ms(10_000)).await;
    assert!(cluster.bind(0, 1).await);
}

#[tokio::test(start_paused = true)]
async fn the_voters_are_not_brought_to_such_as_cannot_take_an_entry() {
    let cluster = Cluster::start(39, 5, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (at, ..) = cluster.home(0);
    let still: Vec<usize> = (0..5).filter(|number| *number != at).take(2).collect();
    for number in &still {
        cluster.stand_still(*number, true);
    }
    sleep(ms(5_000)).await;
    assert_eq!(cluster.at(at).reconcile(3, ms(5_000)).await, Err(ReconcileError::Late));
    assert!(voters(&cluster, at, 0).len() == 5);
    assert!(cluster.bind(0, 1).await);
    for number in still {
        cluster.stand_still(number, false);
    }
    cluster.at(at).reconcile(3, ms(20_000)).await.unwrap();
    assert_eq!(voters(&cluster, at, 0).len(), 3);
}
