//! A machine that has too much to do is no reason for shards to change their homes.

use crate::site::{Site, until};
use starling_cluster::RouterNode;
use starling_node::{SystemClock, Telemetry};
use starling_store::SharedStore;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

/// A process that does nothing, as fast as it can.
struct Burner(Child);

impl Burner {
    fn start() -> Self {
        Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Each router has threads of its own, as a process would.
fn threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// `BURNERS` processes (4) take the machine for `SECONDS` (60): prints what becomes of the homes, and fails if there
/// are more than `MOST` elections (4) though nobody was lost. A disk that stands still for half a second makes some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement that takes the whole machine for a minute: run it by name"]
async fn a_busy_machine_keeps_its_homes() {
    let mut site = Site::empty(3).await;
    let runtimes: Vec<_> = (0..3).map(|_| threads()).collect();
    for (one, runtime) in runtimes.iter().enumerate() {
        let store: SharedStore = Arc::new(site.store.clone());
        let node = runtime.spawn(RouterNode::start_on(store, site.config(one), Telemetry::off()));
        site.routers[one] = Some(node.await.unwrap().unwrap());
    }
    site.settled(Duration::from_secs(60)).await;
    // Moves that spread the load are no losses.
    until(Duration::from_secs(60), "all serve about the same", || {
        site.running().all(|node| node.serves() >= 5)
    })
    .await;
    let burners: Vec<_> = (0..number("BURNERS", 4)).map(|_| Burner::start()).collect();
    let clock = SystemClock::shared();
    let term = |site: &Site| -> Vec<u64> {
        let mut terms = vec![0; 16];
        for node in site.running() {
            for (group, term) in node.locations().groups().iter().zip(&mut terms) {
                *term = group.standing().term.max(*term);
            }
        }
        terms
    };
    let (before, began) = (term(&site), Instant::now());
    let (mut looks, mut without, mut late) = (0u64, 0u64, Duration::ZERO);
    let mut last = began;
    while began.elapsed() < Duration::from_secs(number("SECONDS", 60)) {
        sleep(Duration::from_millis(20)).await;
        late = late.max(last.elapsed());
        last = Instant::now();
        let now = u64::try_from(clock.monotonic().as_micros()).unwrap();
        for shard in 0..16 {
            let held = site.running().any(|node| {
                let reign = node.locations().groups()[shard].reign().borrow().clone();
                reign.is_some_and(|reign| now < reign.until.load(Ordering::Acquire))
            });
            looks += 1;
            without += u64::from(!held);
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let after = term(&site);
    let changes: u64 = before.iter().zip(&after).map(|(before, after)| after - before).sum();
    drop(burners);
    println!(
        "{changes} elections in {minutes:.2} min; {:.1} % of all looks found a shard without a lease; longest look {late:?}",
        100.0 * without as f64 / looks as f64
    );
    for (node, runtime) in site.routers.iter_mut().zip(runtimes) {
        let node = node.take().unwrap();
        let _ = runtime.spawn(node.abort()).await;
        runtime.shutdown_background();
    }
    assert!(changes <= number("MOST", 4), "{changes} elections");
}
