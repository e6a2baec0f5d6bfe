//! Three routers that start at once on an empty keyspace, while the server loses, delays and doubles what they say: they
//! agree on every secret, and on who founds the cluster.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use futures::future::join_all;
use parking_lot::Mutex;
use starling_store::testing::claim;
use starling_store::{LEASE, Now, Position, Reign, Store, StoreError};
use starling_store_scylla::model::{Connection, Faults, Model, Process, World};
use starling_store_scylla::{ScyllaStore, Settings};
use starling_xmpp::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const EPOCH: u64 = 1_700_000_000_000_000;
const SEEDS: u64 = 200;

type Router = (Process, Arc<ScyllaStore<Connection>>);

fn clock(world: &World) -> Now {
    let world = world.clone();
    Arc::new(move || Timestamp(EPOCH + u64::try_from(world.now().as_micros()).unwrap()))
}

fn router(world: &World, model: &Model) -> Router {
    let process = world.process();
    let store = ScyllaStore::open(Arc::new(model.connect(&process)), Settings::default(), clock(world));
    (process, Arc::new(store))
}

/// A secret, asked for until there is an answer.
async fn secret((process, store): Router, name: &'static str) -> [u8; 32] {
    loop {
        match store.secret(name).await {
            Ok(secret) => return secret,
            Err(_) => process.sleep(Duration::from_millis(100)).await,
        }
    }
}

#[test]
fn all_have_the_same_secrets() {
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let model = Model::seeded(&world, clock(&world));
        let mut dice = world.dice();
        model.set_faults(Faults::of(&mut dice));
        let routers = [0, 1, 2].map(|_| router(&world, &model));
        let names = ["archive-ids", "unknown-accounts"];
        let asked = routers.iter().flat_map(|router| {
            let delay = Duration::from_millis(dice.within(0..50));
            names.map(|name| {
                let router = router.clone();
                async move {
                    router.0.sleep(delay).await;
                    (name, secret(router, name).await)
                }
            })
        });
        let told = world.run(join_all(asked.collect::<Vec<_>>())).expect("all have answers");
        let later = router(&world, &model);
        for name in names {
            let kept = world.run(secret(later.clone(), name)).unwrap();
            for (of, secret) in told.iter().filter(|(of, _)| *of == name) {
                assert_eq!(*secret, kept, "seed {seed}: {of}");
            }
        }
    }
}

#[test]
fn an_era_is_begun_once_and_no_other_goes_on_beside_it() {
    for seed in 0..SEEDS {
        let world = World::new(seed);
        let model = Model::seeded(&world, clock(&world));
        let mut dice = world.dice();
        model.set_faults(Faults::of(&mut dice));
        // Each believes that it is the one to found a cluster.
        let begun = Arc::<Mutex<Vec<(Duration, u64, Reign)>>>::default();
        let held = Arc::<Mutex<BTreeMap<u64, Vec<(Duration, Position)>>>>::default();
        for number in 1..=3_u64 {
            let (process, store) = router(&world, &model);
            let (begun, held) = (Arc::clone(&begun), Arc::clone(&held));
            let delay = Duration::from_millis(dice.within(0..2_000));
            let lives = Duration::from_secs(dice.within(5..40));
            let task = async move {
                process.sleep(delay).await;
                let until = process.world().now() + lives;
                let era = loop {
                    match store.open_reign(claim(number.into())).await {
                        Ok(era) => break era,
                        Err(_) => process.sleep(Duration::from_millis(500)).await,
                    }
                };
                begun.lock().push((process.world().now(), number, era));
                let mut step = 0;
                while process.world().now() < until {
                    step += 1;
                    let (asked, ceiling) = (process.world().now(), Position(era.floor.0 + 10 * step));
                    match store.grant(era.epoch, ceiling).await {
                        Ok(()) => {
                            held.lock().entry(era.epoch).or_default().push((asked, ceiling));
                        }
                        Err(StoreError::Fenced) => return,
                        Err(_) => {}
                    }
                    process.sleep(Duration::from_secs(2)).await;
                }
            };
            let process = world.process();
            process.spawn(Box::pin(task));
        }
        world.run_until(Duration::from_secs(300));
        let (mut begun, held) = (begun.lock().clone(), held.lock());
        begun.sort_by_key(|(_, _, era)| era.epoch);
        assert!(!begun.is_empty(), "seed {seed}");
        for pair in begun.windows(2) {
            let [(_, _, before), (since, _, after)] = pair else { unreachable!() };
            assert!(after.epoch > before.epoch && after.floor > before.floor, "seed {seed}: {pair:?}");
            for (asked, ceiling) in held.get(&before.epoch).into_iter().flatten() {
                assert!(*ceiling <= after.floor, "seed {seed}: granted past the next era's floor");
                assert!(*asked + LEASE <= *since, "seed {seed}: two eras at once");
            }
        }
    }
}
