//! Shards that are moved on purpose: heirs that are late, and many shards at once.

use super::cluster::{Cluster, ms};
use super::stuck::Homes;
use crate::{Drain, GiveError};
use futures::future::{join, join_all};
use starling_wire::Shard;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

/// How many shards each router leads.
fn led(cluster: &Cluster) -> Vec<usize> {
    (0..cluster.routers.len()).map(|at| cluster.leads(at)).collect()
}

/// Five routers, of which the first leads all shards but these, and the last one none.
async fn lopsided(seed: u64, shards: u16, others: u16, homes: Option<Arc<Homes>>) -> Cluster {
    let homes = homes.map(|homes| homes as Arc<dyn Drain>);
    let cluster = Cluster::of_homes(seed, 5, shards, false, homes).await;
    cluster.settled(ms(5_000)).await;
    let moves = (0..shards).map(|shard| {
        let (home, to) = (cluster.home(shard).0, if shard < others { 1 + usize::from(shard) % 3 } else { 0 });
        let (home, id) = ((home != to).then(|| cluster.at(home)), cluster.routers[to].id);
        async move {
            if let Some(home) = home {
                home.give(Shard(shard), id).await.unwrap();
            }
        }
    });
    join_all(moves).await;
    let (each, all) = (usize::from(others / 3), usize::from(shards - others));
    cluster.until(ms(2_000), "all are there", |this| led(this) == [all, each, each, each, 0]).await;
    sleep(ms(500)).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn many_shards_are_given_away_in_time_and_to_all_others() {
    let cluster = lopsided(97, 40, 12, None).await;
    // One at a time, each waits until the promise to the one before is over: 310 ms.
    assert!(cluster.at(0).leave(ms(4_000)).await);
    cluster.settled(ms(1_000)).await;
    assert_eq!(led(&cluster), [0, 10, 10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_router_with_very_many_shards_is_still_among_others_after_a_round() {
    let cluster = lopsided(98, 80, 12, None).await;
    assert!(cluster.at(0).leave(ms(8_000)).await);
    cluster.settled(ms(1_000)).await;
    assert_eq!(led(&cluster)[0], 0);
}

#[tokio::test(start_paused = true)]
async fn who_lags_behind_keeps_nobody_from_leaving() {
    let cluster = lopsided(99, 20, 0, None).await;
    // Not for so long that it would be told.
    cluster.stand_still(4, true);
    for shard in 0..20 {
        assert!(cluster.bind(shard, u64::from(shard)).await);
    }
    assert!(cluster.at(0).leave(ms(8_000)).await);
    cluster.settled(ms(1_000)).await;
    assert_eq!((led(&cluster)[0], led(&cluster)[4]), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_homes_are_stopped_for_a_router_that_is_gone() {
    let homes = Arc::new(Homes::default());
    let cluster = lopsided(100, 40, 0, Some(Arc::clone(&homes))).await;
    let stopped = homes.stopped.load(Ordering::Relaxed);
    let killed = async {
        cluster.until(ms(1_000), "it began", |_| homes.stopped.load(Ordering::Relaxed) > stopped).await;
        cluster.kill(4).await;
    };
    let leaving = cluster.at(0);
    let (left, ()) = join(leaving.leave(ms(8_000)), killed).await;
    let resumed = homes.resumed.load(Ordering::Relaxed);
    assert!(left && resumed <= 2, "of the first eight at most two were for that one: {resumed}");
    cluster.settled(ms(1_000)).await;
    assert_eq!((led(&cluster)[0], led(&cluster).iter().sum::<usize>()), (0, 40));
}

#[tokio::test(start_paused = true)]
async fn two_that_leave_give_nothing_to_each_other() {
    let cluster = lopsided(101, 30, 12, None).await;
    let reigns = |this: &Cluster| -> BTreeSet<_> {
        // With a lease or without.
        let all = (0..30).flat_map(|shard| (0..2).map(move |at| (shard, at)));
        let reign = |(shard, at): (u16, usize)| {
            let reign = this.at(at).group(Shard(shard)).unwrap().reign().borrow().clone();
            reign.map(|reign| (shard, at, reign.epoch))
        };
        all.filter_map(reign).collect()
    };
    let before = reigns(&cluster);
    let (first, second) = (cluster.at(0), cluster.at(1));
    let watched = cluster.until(ms(8_000), "both lead nothing", |this| {
        let now = reigns(this);
        assert!(now.is_subset(&before), "{now:?}, and before {before:?}");
        now.is_empty()
    });
    let both = join(first.leave(ms(8_000)), second.leave(ms(8_000)));
    assert_eq!(join(both, watched).await.0, (true, true));
    cluster.settled(ms(1_000)).await;
    assert_eq!(led(&cluster)[..2], [0, 0]);
}

/// The first one comes to nothing, and the home goes on: it finishes once more before the second one ends it.
#[tokio::test(start_paused = true)]
async fn a_shard_that_is_moved_twice_at_a_time_has_finished_each_time() {
    let homes = Arc::new(Homes::default());
    homes.slow.store(true, Ordering::Relaxed);
    let cluster = Cluster::of_homes(103, 3, 1, false, Some(homes.clone())).await;
    cluster.settled(ms(5_000)).await;
    let (home, heir) = pair(&cluster);
    let (at, to) = (cluster.at(home), cluster.routers[heir].id);
    let epoch = cluster.reigning(0)[0].1.epoch;
    let lags = async {
        sleep(ms(100)).await;
        cluster.stand_still(heir, true);
        assert!(cluster.bind(0, 1).await);
        cluster
            .until(ms(5_000), "the first is given up", |_| homes.resumed.load(Ordering::Relaxed) == 1)
            .await;
        cluster.stand_still(heir, false);
    };
    let ((first, second), ()) = join(join(at.give(Shard(0), to), at.give(Shard(0), to)), lags).await;
    assert_eq!((first, second), (Err(GiveError::Behind), Ok(())));
    assert!(homes.all.lock().contains(&(Shard(0), epoch)), "it has finished");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_does_not_campaign() {
    let cluster = Cluster::start(102, 3, 1, false).await;
    cluster.settled(ms(5_000)).await;
    let (home, heir) = pair(&cluster);
    assert!(cluster.at(heir).leave(ms(1_000)).await, "it leads nothing");
    let given = cluster.at(home).give(Shard(0), cluster.routers[heir].id).await;
    assert_eq!(given, Err(GiveError::NotElected));
    cluster.settled(ms(500)).await;
    assert_eq!(cluster.home(0).0, home);
}

#[tokio::test(start_paused = true)]
async fn a_move_among_many_bears_a_slow_link() {
    let cluster = Cluster::start(103, 5, 1, false).await;
    cluster.settled(ms(5_000)).await;
    let (home, heir) = pair(&cluster);
    cluster.net.weather((ms(65), ms(65)), 0.0);
    sleep(ms(2_000)).await;
    assert_eq!(cluster.home(0).0, home);
    let (this, to) = (cluster.at(home), cluster.routers[heir].id);
    let moved =
        cluster.until(ms(4_000), "it reigns", |this| this.reigning(0).iter().any(|(at, _)| *at == heir));
    let (given, took) = join(this.give(Shard(0), to), moved).await;
    // The promise runs out, the heir is told and asks back, is elected and opens its reign: 310 ms, and five ways there and
    // back at the most.
    assert!(given.is_ok() && took <= ms(970), "{given:?} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_heir_among_many_that_is_told_late_deposes_nobody_in_vain() {
    for late in [90, 150, 250, 380, 420, 600] {
        let cluster = Cluster::start(104, 5, 1, false).await;
        cluster.settled(ms(5_000)).await;
        let (home, heir) = pair(&cluster);
        let term = |this: &Cluster, at: usize| {
            this.at(at).group(Shard(0)).unwrap().core().server.borrow().vote.leader_id.term
        };
        let before = term(&cluster, home);
        cluster.net.tell_heirs_late(ms(late));
        let given = cluster.at(home).give(Shard(0), cluster.routers[heir].id).await;
        cluster.settled(ms(1_000)).await;
        sleep(ms(3_000)).await;
        let (at, ..) = cluster.home(0);
        match given {
            Ok(()) => assert_eq!(at, heir, "late by {late}"),
            Err(_) => assert_eq!((at, term(&cluster, home)), (home, before), "late by {late}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_router_that_cannot_give_has_nothing_against_the_heir() {
    let cluster = Cluster::start(105, 3, 1, false).await;
    cluster.settled(ms(5_000)).await;
    let (home, heir) = pair(&cluster);
    let (this, to) = (cluster.at(home), cluster.routers[heir].id);
    cluster.stand_still(heir, true);
    assert!(cluster.bind(0, 1).await);
    let broken = async {
        sleep(ms(500)).await;
        this.group(Shard(0)).unwrap().core().cease();
    };
    let (given, ()) = join(this.give(Shard(0), to), broken).await;
    assert_eq!((given, this.inner.failed_lately(to)), (Err(GiveError::NotLeader), false));
}

#[tokio::test(start_paused = true)]
async fn a_home_that_cannot_be_moved_without_loss_goes_on() {
    let homes = Arc::new(Homes::default());
    let cluster = Cluster::of_homes(106, 3, 1, false, Some(homes.clone())).await;
    cluster.settled(ms(5_000)).await;
    let (home, heir) = pair(&cluster);
    let (this, to, epoch) = (cluster.at(home), cluster.routers[heir].id, cluster.home(0).2.epoch);
    homes.stay.store(true, Ordering::Relaxed);
    assert_eq!(this.give(Shard(0), to).await, Err(GiveError::Unsafe));
    assert!(!this.leave(ms(1_000)).await, "a router that leaves tries again");
    assert_eq!((cluster.home(0).0, cluster.home(0).2.epoch), (home, epoch), "its reign goes on");
    assert_eq!(homes.resumed.load(Ordering::Relaxed), 0, "it was not stopped");
    assert!(!this.inner.failed_lately(to), "nothing is wrong with the other one");
    homes.stay.store(false, Ordering::Relaxed);
    assert!(this.leave(ms(1_000)).await);
}

#[tokio::test(start_paused = true)]
async fn a_home_that_does_not_finish_is_moved_only_when_its_router_leaves() {
    let homes = Arc::new(Homes::default());
    let cluster = Cluster::of_homes(107, 3, 1, false, Some(homes.clone())).await;
    cluster.settled(ms(5_000)).await;
    let (home, heir) = pair(&cluster);
    let (this, to, epoch) = (cluster.at(home), cluster.routers[heir].id, cluster.home(0).2.epoch);
    homes.hang.store(true, Ordering::Relaxed);
    assert_eq!(this.give(Shard(0), to).await, Err(GiveError::Late));
    assert_eq!((cluster.home(0).0, cluster.home(0).2.epoch), (home, epoch), "its reign goes on");
    assert_eq!(homes.resumed.load(Ordering::Relaxed), 1, "and its home");
    assert!(!this.inner.failed_lately(to), "the other one was not even asked");
    assert!(this.inner.was_late(Shard(0)));
    // Nor is it stopped again at once by whoever changes who votes.
    assert_eq!(homes.stopped.load(Ordering::Relaxed), 1);
    for _ in 0..3 {
        cluster.at(heir).remove(cluster.routers[home].id).await.unwrap();
        sleep(ms(2_000)).await;
    }
    assert_eq!((cluster.home(0).0, homes.stopped.load(Ordering::Relaxed)), (home, 1));
    assert_eq!(
        this.give(Shard(0), to).await,
        Err(GiveError::Late),
        "who asks for this one shard has it tried"
    );
    assert!(this.leave(ms(10_000)).await);
}
