//! A home is lost, or moved: how long there is none, and what the others notice.

use super::cluster::{Cluster, bind, jid, ms};
use crate::machine::Outcome;
use crate::{GiveError, Op, RecordError};
use starling_wire::{RouterId, Shard, Token};
use std::sync::atomic::Ordering;
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_cluster_is_founded_and_its_shards_are_spread() {
    let cluster = Cluster::start(1, 3, 16, true).await;
    cluster.settled(ms(3_000)).await;
    cluster
        .until(ms(60_000), "all lead about the same", |this| {
            (0..3).all(|number| (5..=6).contains(&this.leads(number)))
        })
        .await;
    let id = cluster.at(0).cluster();
    sleep(ms(3_000)).await;
    for number in 0..3 {
        let locations = cluster.at(number);
        assert_eq!(locations.cluster(), id);
        assert_eq!(*locations.failed().borrow(), None);
        assert!(id != 0 && locations.is_ready());
        assert_eq!(locations.members().values().filter(|(_, votes)| votes.are_all()).count(), 3);
        assert!(locations.round_trip(cluster.routers[(number + 1) % 3].id).unwrap() < ms(5));
    }
    for shard in 0..16 {
        assert!(cluster.bind(shard, shard.into()).await);
    }
    sleep(ms(200)).await;
    for number in 0..3 {
        for shard in 0..16u16 {
            let row = cluster.at(number).group(Shard(shard)).unwrap().row(&jid(shard.into()));
            assert_eq!(row.map(|row| row.token), Some(Token(shard.into())), "router {number} knows it");
        }
    }
    let (_, _, reign) = cluster.home(0);
    assert!(reign.ceiling.load(Ordering::Relaxed) > reign.floor, "positions are granted");
}

#[tokio::test(start_paused = true)]
async fn a_dead_home_is_replaced_in_less_than_half_a_second() {
    let cluster = Cluster::start(2, 3, 16, true).await;
    cluster.settled(ms(3_000)).await;
    cluster.until(ms(60_000), "spread", |this| (0..3).all(|number| this.leads(number) >= 5)).await;
    let mut longest = ms(0);
    for round in 0..6 {
        let number = round % 3;
        cluster.until(ms(10_000), "it leads its share", |this| this.leads(number) >= 4).await;
        // Not in step with the heartbeats.
        sleep(cluster.net.random(|random| ms(rand::RngExt::random_range(random, 0..100)))).await;
        cluster.kill(number).await;
        let gap = cluster.settled(ms(2_000)).await;
        longest = longest.max(gap);
        assert!(gap < ms(450), "round {round}: {gap:?}");
        cluster.run(number).await;
        cluster.until(ms(60_000), "it has its share again", |this| this.leads(number) >= 4).await;
        sleep(ms(3_000)).await;
    }
    println!("longest time without a home: {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_home_is_replaced_in_less_than_a_second() {
    let cluster = Cluster::start(3, 3, 16, true).await;
    cluster.settled(ms(3_000)).await;
    let mut longest = ms(0);
    for round in 0..6 {
        sleep(ms(5_000)).await;
        cluster.until(ms(60_000), "spread", |this| (0..3).all(|number| this.leads(number) >= 4)).await;
        let number = round % 3;
        let id = cluster.routers[number].id;
        let led: Vec<u16> = (0..16).filter(|shard| cluster.home(*shard).0 == number).collect();
        assert!(led.len() >= 4);
        cluster.net.silence(id);
        let gap = cluster
            .until(ms(2_000), "others reign", |this| {
                led.iter().all(|shard| this.reigning(*shard).iter().any(|(one, _)| *one != number))
            })
            .await;
        longest = longest.max(gap);
        assert!(gap < ms(1_000), "round {round}: {gap:?}");
        cluster.net.heal();
    }
    println!("longest time without a home: {longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_router_that_was_restarted_opens_new_reigns_and_keeps_the_rows() {
    let cluster = Cluster::start(4, 1, 4, false).await;
    cluster.settled(ms(3_000)).await;
    assert!(cluster.bind(2, 7).await);
    let before: Vec<_> = (0..4).map(|shard| cluster.home(shard).2.epoch).collect();
    let term = cluster.at(0).group(Shard(2)).unwrap().core().server.borrow().vote;
    cluster.kill(0).await;
    cluster.run(0).await;
    cluster.settled(ms(1_000)).await;
    for shard in 0..4 {
        let (_, group, reign) = cluster.home(shard);
        assert!(reign.epoch > before[usize::from(shard)], "another epoch, even in the same term");
        assert!(reign.floor > 0);
        assert_eq!(group.row(&jid(7)).is_some(), shard == 2);
    }
    assert_eq!(cluster.at(0).group(Shard(2)).unwrap().core().server.borrow().vote, term);
    // What the old reign wants is refused.
    let (_, group, reign) = cluster.home(2);
    let old = crate::Reigning { epoch: before[2], ..reign };
    let outcomes = group.record(vec![bind(&old, 8)]).await.unwrap();
    assert!(matches!(outcomes[..], [Outcome::Stale { .. }]));
}

#[tokio::test(start_paused = true)]
async fn three_that_are_restarted_together_come_back() {
    let cluster = Cluster::start(5, 3, 8, true).await;
    cluster.settled(ms(3_000)).await;
    for shard in 0..8 {
        assert!(cluster.bind(shard, shard.into()).await);
    }
    let before: Vec<_> = (0..8).map(|shard| cluster.home(shard).2.epoch).collect();
    for number in 0..3 {
        cluster.kill(number).await;
    }
    sleep(ms(5_000)).await;
    for number in 0..3 {
        cluster.run(number).await;
    }
    let gap = cluster.settled(ms(5_000)).await;
    for shard in 0..8 {
        let (_, group, reign) = cluster.home(shard);
        assert!(reign.epoch > before[usize::from(shard)]);
        assert!(group.row(&jid(shard.into())).is_some(), "what was answered is kept");
    }
    println!("all shards had homes after {gap:?}");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_cut_off_does_not_disturb() {
    let cluster = Cluster::start(6, 3, 4, false).await;
    cluster.settled(ms(3_000)).await;
    let (home, ..) = cluster.home(0);
    let follower = (home + 1) % 3;
    let before: Vec<_> = (0..4).map(|shard| (cluster.home(shard).0, cluster.home(shard).2.epoch)).collect();
    for (home, _) in &before {
        assert_ne!(*home, follower, "the founder leads all of them here");
    }
    for round in 0..3 {
        cluster.net.isolate(cluster.routers[follower].id);
        for number in 0..100 {
            assert!(cluster.bind(0, 1_000 * round + number).await, "the others go on");
            sleep(ms(50)).await;
        }
        cluster.net.heal();
        for number in 0..40 {
            let start = cluster.now();
            let bound = cluster.bind(0, 1_000 * round + 100 + number).await;
            let after = cluster.now() - start;
            assert!(
                bound && after < ms(50),
                "nothing is felt of its return: {bound} after {after:?}, {number}"
            );
            sleep(ms(25)).await;
        }
    }
    let after: Vec<_> = (0..4).map(|shard| (cluster.home(shard).0, cluster.home(shard).2.epoch)).collect();
    assert_eq!(before, after);
    sleep(ms(1_000)).await;
    let rows = cluster.at(follower).group(Shard(0)).unwrap().view().rows().len();
    assert_eq!(rows, 420, "it has caught up");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_hears_nobody_for_a_while_does_not_disturb() {
    for shards in [1, 4] {
        let cluster = Cluster::start(23, 3, shards, false).await;
        cluster.settled(ms(3_000)).await;
        let follower = (cluster.home(0).0 + 1) % 3;
        let before = reigns(&cluster, shards);
        let votes = || -> Vec<_> {
            let follower = cluster.at(follower);
            follower.groups().iter().map(|group| group.core().server.borrow().vote).collect()
        };
        let voted = votes();
        for length in [350, 500, 900, 1_500, 4_000] {
            // Not in step with the heartbeats.
            sleep(cluster.net.random(|random| ms(rand::RngExt::random_range(random, 1_000..1_100)))).await;
            cluster.net.silence(cluster.routers[follower].id);
            for at in 0..length + 3_000 {
                if at == length {
                    cluster.net.heal();
                }
                sleep(ms(1)).await;
                assert_eq!(
                    reigns(&cluster, shards),
                    before,
                    "after {at} ms, of which {length} without a word"
                );
            }
            assert_eq!(votes(), voted, "it asked nobody for a vote in {length} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_home_without_a_quorum_says_that_nothing_was_done_and_goes_on_afterwards() {
    let cluster = Cluster::start(7, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (home, group, reign) = cluster.home(0);
    for other in (0..3).filter(|other| *other != home) {
        cluster.net.isolate(cluster.routers[other].id);
    }
    sleep(ms(400)).await;
    assert!(cluster.reigning(0).is_empty(), "no lease without a quorum");
    assert!(!cluster.at(home).is_ready());
    let start = cluster.now();
    let refused = group.record(vec![bind(&reign, 1)]).await;
    assert_eq!(refused, Err(RecordError::Busy), "it was never proposed");
    assert!(cluster.now() - start < ms(2_500));
    cluster.net.heal();
    let gap = cluster.settled(ms(2_000)).await;
    assert!(gap < ms(1_500), "{gap:?}");
    assert!(cluster.bind(0, 2).await);
    assert!(cluster.home(0).1.row(&jid(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_planned_move_of_three_is_hardly_felt() {
    moves(8, 3, ms(25)).await;
}

#[tokio::test(start_paused = true)]
async fn a_planned_move_of_five_takes_a_third_of_a_second() {
    moves(9, 5, ms(360)).await;
}

async fn moves(seed: u64, routers: usize, most: std::time::Duration) {
    let cluster = Cluster::start(seed, routers, 2, false).await;
    cluster.settled(ms(3_000)).await;
    let mut longest = ms(0);
    for round in 0..20 {
        sleep(ms(500)).await;
        let (home, group, reign) = cluster.home(0);
        let to = (home + 1 + round % (routers - 1)) % routers;
        assert!(cluster.bind(0, round as u64).await);
        let start = cluster.now();
        let locations = cluster.at(home);
        let heir = cluster.routers[to].id;
        locations.give(Shard(0), heir).await.unwrap();
        assert_eq!(reign.until.load(Ordering::Relaxed), 0, "the old lease is over");
        let late = group.record(vec![bind(&reign, 99)]).await;
        assert!(matches!(late, Err(RecordError::NotLeader)), "{late:?}");
        cluster.settled(ms(1_000)).await;
        let gap = cluster.now() - start;
        longest = longest.max(gap);
        assert_eq!(cluster.home(0).0, to);
        assert!(gap < most, "round {round}: {gap:?}");
        assert!(cluster.home(0).1.row(&jid(round as u64)).is_some());
    }
    println!("longest move: {longest:?}");
    let (home, ..) = cluster.home(0);
    let locations = cluster.at(home);
    assert_eq!(locations.give(Shard(0), RouterId(999)).await, Err(GiveError::NoVoter));
    let other = cluster.at((home + 1) % routers);
    assert_eq!(other.give(Shard(0), cluster.routers[home].id).await, Err(GiveError::NotLeader));
}

#[tokio::test(start_paused = true)]
async fn a_home_is_as_old_as_the_one_that_was_moved_there_on_purpose() {
    let cluster = Cluster::start(12, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    assert_eq!(cluster.home(0).2.age, ms(0));
    for seconds in [3, 5] {
        sleep(ms(if seconds == 3 { 3_000 } else { 2_000 })).await;
        let (home, ..) = cluster.home(0);
        let heir = cluster.routers[(home + 1) % 3].id;
        cluster.at(home).give(Shard(0), heir).await.unwrap();
        cluster.settled(ms(1_000)).await;
        let age = cluster.home(0).2.age;
        assert!((ms(seconds * 1_000)..ms(seconds * 1_000 + 900)).contains(&age), "{age:?}");
    }
    // A crash: nobody knows what the next one has yet to hear.
    let (home, ..) = cluster.home(0);
    cluster.kill(home).await;
    cluster.settled(ms(3_000)).await;
    assert_eq!(cluster.home(0).2.age, ms(0));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_gives_everything_away_first() {
    let cluster = Cluster::start(10, 3, 16, true).await;
    cluster.settled(ms(3_000)).await;
    cluster.until(ms(60_000), "spread", |this| (0..3).all(|number| this.leads(number) >= 5)).await;
    for number in 0..3 {
        let locations = cluster.at(number);
        let start = cluster.now();
        assert!(locations.leave(ms(5_000)).await);
        println!("left in {:?}", cluster.now() - start);
        cluster.settled(ms(100)).await;
        assert_eq!(cluster.leads(number), 0);
        let before: Vec<_> = (0..16).map(|shard| cluster.home(shard).2.epoch).collect();
        cluster.kill(number).await;
        sleep(ms(2_000)).await;
        let after: Vec<_> = (0..16).map(|shard| cluster.home(shard).2.epoch).collect();
        assert_eq!(before, after, "its end changes nothing");
        cluster.run(number).await;
        sleep(ms(20_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_the_order_of_what_was_asked() {
    let cluster = Cluster::start(11, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (_, group, reign) = cluster.home(0);
    let many: Vec<Op> = (0..3_000).map(|number| bind(&reign, number)).collect();
    let others: Vec<_> = (0..50).map(|number| group.record(vec![bind(&reign, 10_000 + number)])).collect();
    let (outcomes, others) = futures::join!(group.record(many), futures::future::join_all(others));
    for (number, outcome) in outcomes.unwrap().iter().enumerate() {
        let Outcome::Bound { row, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(row.token, Token(number as u128));
    }
    assert!(others.into_iter().all(|one| matches!(one.as_deref(), Ok([Outcome::Bound { .. }]))));
    let index = group.core().figures.borrow().last_log_index.unwrap();
    assert!(index < 40, "3,050 binds went into few entries: {index}");
}

/// Who reigns in which reign, over all shards.
fn reigns(cluster: &Cluster, shards: u16) -> Vec<(usize, starling_wire::Epoch)> {
    (0..shards).flat_map(|shard| cluster.reigning(shard)).map(|(at, reign)| (at, reign.epoch)).collect()
}

#[tokio::test(start_paused = true)]
async fn disks_that_stand_still_for_a_while_cost_no_home_its_lease() {
    for (routers, all) in [(3, true), (3, false), (1, true)] {
        let cluster = Cluster::start(21, routers, 16, false).await;
        cluster.settled(ms(3_000)).await;
        let before = reigns(&cluster, 16);
        let leader = before[0].0;
        for length in [200, 700, 1_500] {
            let still = (0..routers).filter(|number| all || *number == leader);
            still.clone().for_each(|number| cluster.stand_still(number, true));
            // Every group has something to write.
            let binds = (0..16).map(|shard| cluster.bind(shard, length * 100 + u64::from(shard)));
            let binds = futures::future::join_all(binds);
            let watched = async {
                for at in 0..length {
                    let what = format!("{routers}, all: {all}, after {at} ms of {length}");
                    assert_eq!(reigns(&cluster, 16), before, "{what}");
                    sleep(ms(1)).await;
                }
                still.for_each(|number| cluster.stand_still(number, false));
            };
            let (bound, ()) = futures::future::join(binds, watched).await;
            assert!(bound.iter().all(|bound| *bound), "what waited for the disk is there");
            sleep(ms(3_000)).await;
            assert_eq!(reigns(&cluster, 16), before, "all: {all}, long after {length} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_home_whose_disk_is_dead_is_replaced() {
    let cluster = Cluster::start(22, 3, 4, false).await;
    cluster.settled(ms(3_000)).await;
    let leader = cluster.home(0).0;
    cluster.stand_still(leader, true);
    let binds = futures::future::join_all((0..4).map(|shard| cluster.bind(shard, u64::from(shard))));
    let replaced = cluster.until(ms(5_000), "others are home", |cluster| {
        (0..4).all(|shard| cluster.reigning(shard).iter().any(|(at, _)| *at != leader))
    });
    let (_, took) = futures::future::join(binds, replaced).await;
    assert!(took >= ms(2_000), "{took:?}");
    for shard in 0..4 {
        assert!(cluster.bind(shard, 100 + u64::from(shard)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_whose_election_takes_longer_than_is_waited_for_is_made() {
    let cluster = Cluster::start(17, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (home, ..) = cluster.home(0);
    let to = (home + 1) % 3;
    // There and back is longer than an election is given.
    cluster.net.weather((ms(60), ms(70)), 0.0);
    sleep(ms(2_000)).await;
    assert_eq!(cluster.home(0).0, home);
    assert_eq!(cluster.at(home).give(Shard(0), cluster.routers[to].id).await, Ok(()));
    cluster.until(ms(5_000), "it reigns", |this| this.reigning(0).iter().any(|(at, _)| *at == to)).await;
}
