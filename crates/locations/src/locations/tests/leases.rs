//! Whatever the network and the disks do: at no moment do two homes of one shard believe that they are it.

use super::cluster::{Cluster, jid, ms};
use rand::RngExt;
use starling_wire::{Epoch, Shard};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::sleep;

const SHARDS: u16 = 3;

/// One story: twelve seconds of cuts, silence, losses, kills, moves and disks that stand still, looked at every millisecond.
async fn story(seed: u64) -> (u64, usize) {
    let routers = if seed.is_multiple_of(3) { 5 } else { 3 };
    let cluster = Arc::new(Cluster::start(seed, routers, SHARDS, true).await);
    cluster.settled(ms(3_000)).await;
    let mut highest: BTreeMap<u16, Epoch> = BTreeMap::new();
    let mut down: Vec<(usize, u64)> = Vec::new();
    let mut bound = Vec::new();
    let mut binds = tokio::task::JoinSet::new();
    let mut reigns = 0;
    for step in 0..12_000u64 {
        if step.is_multiple_of(300) {
            let what = cluster.net.random(|random| random.random_range(0..13));
            let number = cluster.net.random(|random| random.random_range(0..routers));
            let id = cluster.routers[number].id;
            let other = cluster.routers[(number + 1) % routers].id;
            match what {
                0 => cluster.net.isolate(id),
                1 => cluster.net.cut(id, other),
                2 => cluster.net.silence(id),
                3 | 4 => cluster.net.heal(),
                5 => cluster.net.weather((ms(0), ms(40)), 0.1),
                6 => cluster.net.weather((ms(0), ms(2)), 0.0),
                7 if down.len() < (routers - 1) / 2 && cluster.running(number).is_some() => {
                    cluster.kill(number).await;
                    down.push((number, step + 1_000));
                }
                8 => {
                    let (cluster, shard) = (Arc::clone(&cluster), u16::try_from(step % 3).unwrap());
                    binds.spawn(async move {
                        if let Some(locations) = cluster.running(number) {
                            let _ = locations.give(Shard(shard), other).await;
                        }
                        None
                    });
                }
                9 => cluster.stand_still(number, true),
                10 => (0..routers).for_each(|number| cluster.stand_still(number, true)),
                11 => (0..routers).for_each(|number| cluster.stand_still(number, false)),
                _ => {}
            }
        }
        if let Some(at) = down.iter().position(|(_, back)| *back <= step) {
            let (number, _) = down.remove(at);
            cluster.run(number).await;
        }
        if step.is_multiple_of(20) {
            let cluster = Arc::clone(&cluster);
            binds.spawn(async move {
                let shard = u16::try_from(step % u64::from(SHARDS)).unwrap();
                cluster.bind(shard, step).await.then_some((shard, step))
            });
        }
        for shard in 0..SHARDS {
            let reigning = cluster.reigning(shard);
            assert!(reigning.len() <= 1, "seed {seed}, step {step}: two homes of {shard}: {reigning:?}");
            if let Some((_, reign)) = reigning.first() {
                let last = highest.entry(shard).or_default();
                assert!(reign.epoch >= *last, "seed {seed}, step {step}: an old reign is back");
                reigns += u64::from(reign.epoch != *last);
                *last = reign.epoch;
            }
        }
        sleep(ms(1)).await;
    }
    cluster.net.heal();
    (0..routers).for_each(|number| cluster.stand_still(number, false));
    cluster.net.weather((ms(0), ms(1)), 0.0);
    for (number, _) in down {
        cluster.run(number).await;
    }
    while let Some(one) = binds.join_next().await {
        bound.extend(one.unwrap());
    }
    cluster.settled(ms(10_000)).await;
    for (shard, number) in &bound {
        let group = cluster.home(*shard).1;
        assert!(group.row(&jid(*number)).is_some(), "seed {seed}: bind {number} was answered and is lost");
    }
    for number in 0..routers {
        cluster.kill(number).await;
    }
    (reigns, bound.len())
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_home_ends_before_the_next_one_begins() {
    let seeds: u64 = std::env::var("SEEDS").map_or(6, |seeds| seeds.parse().unwrap());
    let first: u64 = std::env::var("SEED").map_or(100, |seed| seed.parse().unwrap());
    let (mut reigns, mut bound) = (0, 0);
    for seed in first..first + seeds {
        let (more, binds) = story(seed).await;
        reigns += more;
        bound += binds;
    }
    println!("{seeds} seeds, {reigns} reigns, {bound} binds answered");
    assert!(reigns > seeds * 3, "hardly anything happened: {reigns} reigns");
    // Of 600 asked for in a story 120 to 220 are answered, the rest meets a shard without a home or a disk that stands still.
    assert!(bound as u64 > seeds * 40, "hardly anything was bound: {bound}");
}
