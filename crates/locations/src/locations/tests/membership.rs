//! Routers come and go, and disks are lost.

use super::cluster::{Cluster, bind, jid, ms};
use crate::{Failure, Outcome};
use starling_wire::{RouterId, Shard};
use tokio::time::sleep;

fn votes(cluster: &Cluster, at: usize, id: RouterId) -> bool {
    cluster.at(at).members().get(&id).is_some_and(|(_, votes)| votes.are_all())
}

#[tokio::test(start_paused = true)]
async fn a_lost_disk_is_another_router_in_its_place() {
    let mut cluster = Cluster::start(20, 3, 4, true).await;
    cluster.settled(ms(3_000)).await;
    sleep(ms(15_000)).await;
    for shard in 0..4 {
        assert!(cluster.bind(shard, shard.into()).await);
    }
    cluster.kill(2).await;
    cluster.settled(ms(1_000)).await;
    let (old, name) = (cluster.routers[2].id, cluster.routers[2].member.name.clone());
    // The place is the same, the disk is not.
    let new = cluster.add(&name, 777, None);
    sleep(ms(1_000)).await;
    cluster.run(new).await;
    let id = cluster.routers[new].id;
    let took = cluster
        .until(ms(20_000), "it votes in place of the other", |this| {
            assert!(!this.at(new).has_its_part() || votes(this, new, id), "a stranger has no part");
            votes(this, new, id) && (0..2).all(|at| !this.at(at).members().contains_key(&old))
        })
        .await;
    println!("taken in after {took:?}");
    let known = |this: &Cluster| {
        (0..4u16).all(|shard| this.at(new).group(Shard(shard)).unwrap().row(&jid(shard.into())).is_some())
    };
    cluster.until(ms(1_000), "it knows who is where", known).await;
    cluster.until(ms(60_000), "it leads its share", |this| this.leads(new) >= 1).await;
    // The old disk was not lost after all: it comes back, learns it, and nobody is disturbed.
    sleep(ms(5_000)).await;
    let before: Vec<_> = (0..4).map(|shard| cluster.home(shard).2.epoch).collect();
    cluster.run(2).await;
    cluster
        .until(ms(10_000), "it learns that it was removed", |this| {
            *this.at(2).failed().borrow() == Some(Failure::Removed)
        })
        .await;
    let after: Vec<_> = (0..4).map(|shard| cluster.home(shard).2.epoch).collect();
    assert_eq!(before, after);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_only_restarted_is_not_replaced() {
    let mut cluster = Cluster::start(26, 3, 4, false).await;
    cluster.settled(ms(3_000)).await;
    cluster.kill(1).await;
    sleep(ms(500)).await;
    let (own, name) = (cluster.routers[1].id, cluster.routers[1].member.name.clone());
    let new = cluster.add(&name, 777, None);
    cluster.run(new).await;
    let id = cluster.routers[new].id;
    let kept_out = |this: &Cluster| this.at(new).kept_out().is_some();
    cluster.until(ms(2_500), "it is told that the place is another one's", kept_out).await;
    cluster.run(1).await;
    // For longer than the place is kept for who is gone.
    let told_for = |this: &Cluster| this.at(new).kept_out().is_some_and(|so_long| so_long >= ms(12_000));
    cluster
        .until(ms(20_000), "it is told so all the time", |this| {
            let members = this.at(0).members();
            assert!(!members.contains_key(&id) && votes(this, 0, own), "{members:?}");
            told_for(this)
        })
        .await;
    assert!(!cluster.at(new).is_member() && !cluster.at(new).has_its_part());
    // Now it is gone for good.
    cluster.kill(1).await;
    let gone = cluster.now();
    cluster.until(ms(20_000), "it votes", |this| votes(this, new, id)).await;
    let waited = cluster.now() - gone;
    assert!(waited >= ms(9_500) && waited < ms(14_000), "{waited:?}");
    assert_eq!(cluster.at(new).kept_out(), None);
}

#[tokio::test(start_paused = true)]
async fn a_router_more_and_a_router_less() {
    let mut cluster = Cluster::start(21, 3, 4, true).await;
    cluster.settled(ms(3_000)).await;
    assert!(cluster.bind(1, 5).await);
    let more = cluster.add("router-3", 104, None);
    cluster.run(more).await;
    let id = cluster.routers[more].id;
    cluster.until(ms(20_000), "it votes", |this| (0..4).all(|at| votes(this, at, id))).await;
    let known = |this: &Cluster| this.at(more).group(Shard(1)).unwrap().row(&jid(5)).is_some();
    cluster.until(ms(1_000), "it knows who is where", known).await;
    cluster.until(ms(60_000), "it leads its share", |this| this.leads(more) >= 1).await;
    assert!(cluster.at(more).leave(ms(5_000)).await);
    cluster.settled(ms(200)).await;
    let first = cluster.at(0);
    for _ in 0..20 {
        first.remove(id).await.unwrap();
        sleep(ms(500)).await;
        if !first.members().contains_key(&id) {
            break;
        }
    }
    assert!((0..3).all(|at| !cluster.at(at).members().contains_key(&id)));
    cluster
        .until(ms(5_000), "it knows", |this| *this.at(more).failed().borrow() == Some(Failure::Removed))
        .await;
    cluster.kill(more).await;
    assert!(cluster.bind(1, 6).await);
}

#[tokio::test(start_paused = true)]
async fn a_founder_whose_disk_was_lost_joins_instead() {
    let mut cluster = Cluster::start(22, 3, 2, false).await;
    cluster.settled(ms(3_000)).await;
    let id = cluster.at(1).cluster();
    cluster.kill(0).await;
    cluster.settled(ms(1_000)).await;
    let new = cluster.add("router-0", 888, Some(3));
    cluster.run(new).await;
    let own = cluster.routers[new].id;
    cluster.until(ms(20_000), "it votes", |this| votes(this, new, own)).await;
    assert_eq!(cluster.at(new).cluster(), id, "no second cluster was founded");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_founded_while_a_router_is_missing() {
    let mut cluster = Cluster::start(23, 0, 2, false).await;
    cluster.add("router-0", 1, Some(3));
    cluster.add("router-1", 2, None);
    cluster.run(0).await;
    cluster.run(1).await;
    sleep(ms(10_000)).await;
    assert_eq!((cluster.at(0).cluster(), cluster.at(1).cluster()), (0, 0));
    assert!(!cluster.at(0).is_ready());
    cluster.add("router-2", 3, None);
    cluster.run(2).await;
    cluster.settled(ms(3_000)).await;
}

#[tokio::test(start_paused = true)]
async fn of_all_that_may_found_one_does() {
    let mut cluster = Cluster::start(25, 0, 2, false).await;
    for (name, id) in [("router-0", 9), ("router-1", 7), ("router-2", 8)] {
        let one = cluster.add(name, id, Some(3));
        cluster.run(one).await;
        sleep(ms(700)).await;
    }
    cluster.settled(ms(3_000)).await;
    let first = cluster.at(0).cluster();
    assert!(first != 0 && (1..3).all(|at| cluster.at(at).cluster() == first));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_a_hundred_thousand_rows_reaches_a_new_router() {
    let mut cluster = Cluster::start(24, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (home, group, reign) = cluster.home(0);
    for number in 0..100 {
        let ops = (0..1_000).map(|one| bind(&reign, number * 1_000 + one)).collect();
        let outcomes = group.record(ops).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Bound { .. })));
    }
    group.core().raft.trigger().snapshot().await.unwrap();
    let purged = |this: &Cluster| {
        let core = this.at(home).group(Shard(0)).unwrap().core().clone();
        let figures = core.figures.borrow();
        figures.snapshot.is_some()
    };
    cluster.until(ms(5_000), "the snapshot is there", purged).await;
    for number in 0..150 {
        group.record(vec![bind(&reign, 200_000 + number)]).await.unwrap();
    }
    group.core().raft.trigger().snapshot().await.unwrap();
    let purged = |this: &Cluster| {
        let core = this.at(home).group(Shard(0)).unwrap().core().clone();
        let figures = core.figures.borrow();
        figures.purged.is_some_and(|purged| purged.index > 20)
    };
    cluster.until(ms(5_000), "the log is purged", purged).await;
    let victim = (home + 1) % 3;
    let name = cluster.routers[victim].member.name.clone();
    cluster.kill(victim).await;
    sleep(ms(1_500)).await;
    let new = cluster.add(&name, 999, None);
    cluster.run(new).await;
    let id = cluster.routers[new].id;
    let took = cluster.until(ms(30_000), "it votes", |this| votes(this, new, id)).await;
    let known = |this: &Cluster| this.at(new).group(Shard(0)).unwrap().view().rows().len() == 100_150;
    cluster.until(ms(1_000), "it knows who is where", known).await;
    println!("taken in with a snapshot after {took:?}");
    // And from its own snapshot after a restart.
    cluster.kill(new).await;
    cluster.run(new).await;
    cluster
        .until(ms(5_000), "all rows are there again", |this| {
            this.at(new).group(Shard(0)).unwrap().view().rows().len() == 100_150
        })
        .await;
    assert_eq!(cluster.home(0).2.epoch, reign.epoch, "nobody else noticed");
}
