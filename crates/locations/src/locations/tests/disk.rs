//! The same on real disks and in real time.

use super::cluster::{Net, bind, jid, ms};
use crate::era::OneEra;
use crate::places::Places;
use crate::types::Member;
use crate::{Locations, Opened, Options, Outcome, Reigning};
use starling_node::clock::{SharedClock, SystemClock};
use starling_wire::{Incarnation, RouterId, Shard, Shards};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

const SHARDS: u16 = 4;

async fn run(net: &Net, dir: &Path, founds: Option<usize>, clock: &SharedClock) -> (RouterId, Locations) {
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let member = Member::new(name.clone(), format!("{name}:5270"));
    let (dir, at) = (dir.to_owned(), Arc::clone(clock));
    let opened = tokio::task::spawn_blocking(move || {
        Opened::open(&Places::open(&dir).unwrap(), Shards::new(SHARDS).unwrap(), at).unwrap()
    });
    let opened = opened.await.unwrap();
    let id = opened.id();
    let options = Options {
        member: member.clone(),
        incarnation: Incarnation(rand::random()),
        found_with: founds,
        eras: Arc::new(OneEra),
        drain: None,
        spread: true,
        times: crate::Times::default(),
    };
    let peers = net.plug(id, member);
    let locations = Locations::start(opened, options, peers, Arc::clone(clock)).await.unwrap();
    net.serve(id, locations.clone());
    (id, locations)
}

fn home(all: &[&Locations], shard: u16, clock: &SharedClock) -> Option<(usize, Reigning)> {
    let now = u64::try_from(clock.monotonic().as_micros()).unwrap();
    all.iter().enumerate().find_map(|(number, locations)| {
        let reign = locations.group(Shard(shard))?.reign().borrow().clone()?;
        (now < reign.until.load(Ordering::Acquire)).then_some((number, reign))
    })
}

async fn settled(all: &[&Locations], clock: &SharedClock, within: Duration) -> Duration {
    let start = clock.monotonic();
    while !(0..SHARDS).all(|shard| home(all, shard, clock).is_some()) {
        assert!(clock.monotonic() < start + within, "a shard has no home");
        sleep(ms(1)).await;
    }
    clock.monotonic() - start
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_outlives_processes() {
    let root = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (0..3).map(|number| root.path().join(format!("router-{number}"))).collect();
    let (net, clock) = (Net::new(1), SystemClock::shared());
    let mut routers = Vec::new();
    for dir in &dirs {
        routers.push(run(&net, dir, Some(3), &clock).await);
    }
    let ids: Vec<RouterId> = routers.iter().map(|(id, _)| *id).collect();
    let all: Vec<&Locations> = routers.iter().map(|(_, locations)| locations).collect();
    settled(&all, &clock, ms(60_000)).await;
    let mut taken = Vec::new();
    for number in 0..400 {
        let shard = u16::try_from(number % u64::from(SHARDS)).unwrap();
        // A shard may be moved at this moment, to spread the load.
        for attempt in 0.. {
            assert!(attempt < 1_000, "bind {number} fails again and again");
            let Some((at, reign)) = home(&all, shard, &clock) else {
                sleep(ms(20)).await;
                continue;
            };
            let start = clock.monotonic();
            let group = all[at].group(Shard(shard)).unwrap();
            if let Ok([Outcome::Bound { .. }]) = group.record(vec![bind(&reign, number)]).await.as_deref() {
                taken.push(clock.monotonic() - start);
                break;
            }
        }
    }
    taken.sort_unstable();
    println!("binds on a real disk: p50 {:?}, p99 {:?}", taken[200], taken[396]);
    // One is killed.
    let (dead, _) = home(&all, 0, &clock).unwrap();
    net.unplug(ids[dead]).unwrap().stop().await;
    let left: Vec<&Locations> =
        all.iter().enumerate().filter(|(number, _)| *number != dead).map(|(_, one)| *one).collect();
    let gap = settled(&left, &clock, ms(60_000)).await;
    println!("homes again after {gap:?}");
    for other in ids.iter().enumerate().filter(|(number, _)| *number != dead).map(|(_, id)| *id) {
        net.unplug(other).unwrap().stop().await;
    }
    // All begin again from their disks.
    drop((all, left));
    drop(routers);
    let mut routers = Vec::new();
    for (number, dir) in dirs.iter().enumerate() {
        routers.push(run(&net, dir, Some(3), &clock).await);
        assert_eq!(routers[number].0, ids[number], "the disk has its identity");
    }
    let all: Vec<&Locations> = routers.iter().map(|(_, locations)| locations).collect();
    settled(&all, &clock, ms(60_000)).await;
    for number in 0..400 {
        let shard = u16::try_from(number % u64::from(SHARDS)).unwrap();
        let known = |one: &&Locations| one.group(Shard(shard)).unwrap().row(&jid(number)).is_some();
        assert!(all.iter().filter(|one| known(one)).count() >= 2, "bind {number} is lost");
    }
    for (_, locations) in &routers {
        locations.stop().await;
    }
}

#[test]
fn a_damaged_disk_is_no_router_until_it_is_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, clock) = (Shards::new(2).unwrap(), SystemClock::shared());
    let open = || Opened::open(&Places::open(dir.path()).unwrap(), shards, Arc::clone(&clock));
    let first = open().unwrap().id();
    assert_eq!(open().unwrap().id(), first);
    let log = dir.path().join("raft/log");
    for entry in std::fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap() != "lock" {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(open().unwrap_err().is_lost());
    std::fs::remove_dir_all(dir.path().join("raft")).unwrap();
    let second = open().unwrap().id();
    assert_ne!(second, first);
    assert_eq!(open().unwrap().id(), second);
}
