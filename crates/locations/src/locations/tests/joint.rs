//! A change of voters that ends between its two steps: nobody but the next leader can make the second one.

use super::cluster::{Cluster, ms};
use crate::locations::joining::AT_ONCE;
use starling_wire::{RouterId, Shard};
use std::collections::BTreeSet;
use tokio::time::sleep;

const SHARDS: u16 = 4;

/// The sets of voters of a shard, as a router knows them.
fn configs(cluster: &Cluster, at: usize, shard: u16) -> Vec<BTreeSet<u64>> {
    let locations = cluster.running(at);
    locations.map_or_else(Vec::new, |locations| locations.group(Shard(shard)).unwrap().core().configs())
}

/// A shard of which some router knows two sets.
fn joint(cluster: &Cluster) -> Option<u16> {
    let known = |shard: &u16| (0..cluster.routers.len()).any(|at| configs(cluster, at, *shard).len() == 2);
    (0..SHARDS).find(known)
}

/// All of `at` know for all shards that `voters` vote, and no others, and of no members but `members`.
fn all_know(cluster: &Cluster, at: &[usize], voters: &[usize], members: &[usize]) -> bool {
    let ids = |those: &[usize]| those.iter().map(|number| cluster.routers[*number].id).collect();
    let (voters, members): (BTreeSet<RouterId>, BTreeSet<RouterId>) = (ids(voters), ids(members));
    at.iter().all(|at| {
        let known = cluster.at(*at).members().into_keys().collect::<BTreeSet<_>>();
        known == members
            && (0..SHARDS).all(|shard| {
                matches!(&configs(cluster, *at, shard)[..], [one] if one.iter().copied().map(RouterId).collect::<BTreeSet<_>>() == voters)
            })
    })
}

/// Three routers of which the last has lost its disk, and another one, the fourth, that is just taken in its place; the
/// shard where that is between its steps.
async fn half_replaced(seed: u64) -> (Cluster, u16) {
    let mut cluster = Cluster::start(seed, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.kill(2).await;
    cluster.settled(ms(2_000)).await;
    sleep(ms(2_000)).await;
    let new = cluster.add("router-2", 777, None);
    // Slow enough for the test to look in between.
    cluster.net.weather((ms(8), ms(12)), 0.0);
    cluster.run(new).await;
    cluster.until(ms(30_000), "a change is between its steps", |this| joint(this).is_some()).await;
    let shard = joint(&cluster).unwrap();
    (cluster, shard)
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_leader_is_killed_is_finished_by_the_next() {
    for seed in 61..65 {
        let (cluster, shard) = half_replaced(seed).await;
        let leader = cluster.home(shard).0;
        cluster.kill(leader).await;
        sleep(ms(2_000)).await;
        cluster.run(leader).await;
        let done = |this: &Cluster| all_know(this, &[0, 1, 3], &[0, 1, 3], &[0, 1, 3]);
        let took = cluster.until(ms(20_000), "the change is finished everywhere", done).await;
        println!("finished after {took:?}");
        // The lost disk counts for nothing: any of the three may be away.
        cluster.net.weather((ms(1), ms(1)), 0.0);
        cluster.kill(1).await;
        cluster.settled(ms(3_000)).await;
        assert!(cluster.bind(shard, 7).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_took_too_long_is_finished_when_it_can_be() {
    let (cluster, shard) = half_replaced(66).await;
    assert!(!cluster.at(3).has_its_part());
    let leader = cluster.home(shard).0;
    assert!(leader < 2);
    cluster.net.isolate(cluster.routers[1 - leader].id);
    // Longer than whoever asked for it waits.
    sleep(ms(15_000)).await;
    cluster.net.heal();
    let done = |this: &Cluster| all_know(this, &[0, 1, 3], &[0, 1, 3], &[0, 1, 3]);
    cluster.until(ms(20_000), "the change is finished everywhere", done).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_to_lose_its_vote_and_leads_meanwhile_gives_that_away_first() {
    let cluster = Cluster::start(67, 5, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.net.weather((ms(8), ms(12)), 0.0);
    let (asked, leader) = (cluster.at(3), cluster.home(0).0);
    assert_eq!(leader, 0, "the founder");
    let asking = tokio::spawn(async move { asked.reconcile(3, ms(20_000)).await });
    let known = |this: &Cluster| (1..5).all(|at| configs(this, at, 0).len() == 2);
    cluster.until(ms(10_000), "all know of a change that is between its steps", known).await;
    asking.abort();
    cluster.kill(leader).await;
    cluster.settled(ms(3_000)).await;
    let one = |this: &Cluster| {
        (1..5).all(|at| (0..SHARDS).all(|shard| matches!(&configs(this, at, shard)[..], [_])))
    };
    cluster.until(ms(20_000), "no change is half done", one).await;
    cluster.settled(ms(2_000)).await;
    for shard in 0..SHARDS {
        assert!(cluster.bind(shard, shard.into()).await);
    }
    // Who was to stay without a vote is still there.
    assert!((1..5).all(|at| cluster.at(at).members().len() == 5 && cluster.failed(at).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_dies_while_it_is_taken_in_holds_nobody_up_and_is_forgotten() {
    let mut cluster = Cluster::start(68, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.kill(2).await;
    cluster.settled(ms(2_000)).await;
    sleep(ms(2_000)).await;
    let bad = cluster.add("router-2", 777, None);
    // It is a member, and its disk stands still.
    cluster.stand_still(bad, true);
    cluster.run(bad).await;
    let id = cluster.routers[bad].id;
    cluster
        .until(ms(20_000), "it is waited for", |this| {
            (0..2).all(|at| this.at(at).members().contains_key(&id))
        })
        .await;
    cluster.kill(bad).await;
    let good = cluster.add("router-2", 778, None);
    cluster.run(good).await;
    let votes = |this: &Cluster| {
        let id = this.routers[good].id.0;
        (0..SHARDS).all(|shard| configs(this, good, shard).iter().any(|voters| voters.contains(&id)))
    };
    let took = cluster.until(ms(25_000), "another disk votes in that place", votes).await;
    println!("taken in after {took:?}");
    let done = |this: &Cluster| all_know(this, &[0, 1, good], &[0, 1, good], &[0, 1, good]);
    cluster.until(ms(60_000), "the first one is forgotten", done).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_router_that_does_not_catch_up_holds_nobody_up_and_can_be_removed() {
    let mut cluster = Cluster::start(69, 3, SHARDS, false).await;
    cluster.settled(ms(3_000)).await;
    let bad = cluster.add("router-3", 777, None);
    // It answers, asks to be taken in again and again, and has no entry.
    cluster.stand_still(bad, true);
    cluster.run(bad).await;
    let id = cluster.routers[bad].id;
    let waited_for = |this: &Cluster| (0..3).all(|at| this.at(at).members().contains_key(&id));
    cluster.until(ms(20_000), "it is waited for", waited_for).await;
    sleep(ms(15_000)).await;
    let good = cluster.add("router-4", 778, None);
    cluster.run(good).await;
    let votes = |this: &Cluster| {
        let id = this.routers[good].id.0;
        (0..SHARDS).all(|shard| configs(this, 0, shard).iter().all(|voters| voters.contains(&id)))
    };
    cluster.until(ms(20_000), "another new router votes", votes).await;
    let start = cluster.now();
    let done = |this: &Cluster| all_know(this, &[0, 1, 2], &[0, 1, 2, good], &[0, 1, 2, good]);
    while !done(&cluster) {
        assert!(cluster.now() < start + ms(10_000), "it is not removed");
        cluster.at(0).remove(id).await.unwrap();
        sleep(ms(500)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_taken_in_in_a_few_shards_only() {
    const MANY: u16 = 12;
    let mut cluster = Cluster::start(70, 1, MANY, false).await;
    cluster.settled(ms(3_000)).await;
    let other = cluster.add("router-1", 777, None);
    cluster.stand_still(other, true);
    cluster.run(other).await;
    let id = cluster.routers[other].id;
    sleep(ms(10_000)).await;
    let member = |shard: &u16| {
        let standing = cluster.at(0).group(Shard(*shard)).unwrap().standing();
        standing.learners.contains(&id)
    };
    assert_eq!((0..MANY).filter(member).count(), AT_ONCE, "each is a snapshot");
    cluster.stand_still(other, false);
    let done = |this: &Cluster| this.at(other).members().get(&id).is_some_and(|(_, votes)| votes.are_all());
    cluster.until(ms(20_000), "it votes in all", done).await;
}

#[tokio::test(start_paused = true)]
async fn in_no_more_shards_where_some_are_looked_at_together() {
    const MANY: u16 = 12;
    let mut cluster = Cluster::start(71, 1, MANY, false).await;
    cluster.settled(ms(3_000)).await;
    let other = cluster.add("router-1", 777, None);
    let (id, member) = (cluster.routers[other].id, cluster.routers[other].member.clone());
    // In the last ones it lacks entries already; the first ones are looked at first.
    for shard in MANY - 3..MANY {
        let group = cluster.at(0).group(Shard(shard)).unwrap().clone();
        group.core().raft.add_learner(id.0, member.clone(), false).await.unwrap();
    }
    cluster.stand_still(other, true);
    cluster.run(other).await;
    let member = |shard: &u16| {
        let standing = cluster.at(0).group(Shard(*shard)).unwrap().standing();
        standing.learners.contains(&id)
    };
    sleep(ms(10_000)).await;
    assert_eq!((0..MANY).filter(member).count(), AT_ONCE, "each is a snapshot");
}
