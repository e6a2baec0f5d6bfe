//! What routers say of themselves, asked all the time: which shards have a home.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use starling_tests::crowd::Run;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How many shards there are.
pub(crate) const SHARDS: usize = 16;
const HOME: &str = "starling_shard_home{";
/// How often routers are asked.
const REST: Duration = Duration::from_millis(100);
/// How long after its begin a home may still be hearing from edges.
const REBUILT: Duration = Duration::from_secs(3);
/// How long one is waited for;
const PATIENCE: Duration = Duration::from_millis(400);
/// where the way to it is slow, so long.
const PATIENCE_SLOW: Duration = Duration::from_secs(2);

/// Shards with their homes, by router.
pub(crate) type Homes = BTreeMap<usize, usize>;

/// Asks routers, while it is kept.
pub(crate) struct Watch {
    seen: Arc<Mutex<Vec<Look>>>,
    /// An edge is, or was a moment ago, not there. Then a home that moves may lose what only this edge knew.
    edge_lost: Arc<AtomicBool>,
    /// The way to some router is slow: that it takes its time to answer does not say that it is not there.
    slow: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What was seen at one time.
#[derive(Clone, Debug)]
struct Look {
    at: Duration,
    homes: Homes,
    /// Some shard has another home, or the same with a new reign, than a moment ago.
    moved: bool,
    /// How much later than planned it was looked.
    late: Duration,
}

impl Watch {
    pub(crate) fn start(run: Arc<Run>, routers: Vec<SocketAddr>) -> Self {
        let seen = Arc::<Mutex<Vec<Look>>>::default();
        let noted = seen.clone();
        let edge_lost = Arc::<AtomicBool>::default();
        let lost = edge_lost.clone();
        let slow = Arc::<AtomicBool>::default();
        let is_slow = slow.clone();
        let task = tokio::spawn(async move {
            let mut known = BTreeMap::new();
            loop {
                let due = run.now() + REST;
                sleep(REST).await;
                let late = run.now().saturating_sub(due);
                let patience = if is_slow.load(SeqCst) { PATIENCE_SLOW } else { PATIENCE };
                let reigns = look(&routers, patience).await;
                let moved =
                    reigns.iter().any(|(shard, (epoch, _))| known.insert(*shard, *epoch) != Some(*epoch));
                if moved && lost.load(SeqCst) {
                    run.turn();
                }
                let homes = reigns.into_iter().map(|(shard, (_, router))| (shard, router)).collect();
                noted.lock().push(Look { at: run.now(), homes, moved, late });
            }
        });
        Self { seen, edge_lost, slow, task }
    }

    /// An edge is going to be lost, with all that only it and one home know.
    pub(crate) fn edge_is_lost(&self, run: &Run) {
        self.edge_lost.store(true, SeqCst);
        // A home that has just begun may not have heard of all yet.
        let now = run.now();
        if self.seen.lock().iter().rev().take_while(|look| look.at + REBUILT > now).any(|look| look.moved) {
            run.turn();
        }
    }

    /// Whether answers of routers are long on their way.
    pub(crate) fn answers_are_slow(&self, slow: bool) {
        self.slow.store(slow, SeqCst);
    }

    /// All edges are there, and all clients have come back.
    pub(crate) fn edges_are_back(&self) {
        self.edge_lost.store(false, SeqCst);
    }

    /// In how many looks some shard had another reign than before.
    pub(crate) fn moves(&self, from: Duration, until: Duration) -> usize {
        let seen = self.seen.lock();
        seen.iter().filter(|look| from <= look.at && look.at <= until && look.moved).count()
    }

    /// Which router is the home of each shard now.
    pub(crate) fn homes(&self) -> Homes {
        self.seen.lock().last().map(|look| look.homes.clone()).unwrap_or_default()
    }

    /// When all shards had homes for the first time after this moment.
    pub(crate) fn complete_after(&self, moment: Duration) -> Option<Duration> {
        let seen = self.seen.lock();
        seen.iter().find(|look| look.at >= moment && look.homes.len() == SHARDS).map(|look| look.at)
    }

    /// The longest time in which one or more shards had no home.
    pub(crate) fn homeless(&self, from: Duration, until: Duration) -> Duration {
        let (mut longest, mut since) = (Duration::ZERO, None);
        for look in self.seen.lock().iter().filter(|look| from <= look.at && look.at <= until) {
            if look.homes.len() == SHARDS {
                since = None;
            } else {
                longest = longest.max(look.at - *since.get_or_insert(look.at));
            }
        }
        longest
    }

    /// How late this program itself was: what all others had to wait, too.
    pub(crate) fn lag(&self, from: Duration, until: Duration) -> Duration {
        let seen = self.seen.lock();
        seen.iter()
            .filter(|look| from <= look.at && look.at <= until)
            .map(|look| look.late)
            .max()
            .unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The epoch and the router of each shard's home.
async fn look(routers: &[SocketAddr], patience: Duration) -> BTreeMap<usize, (u64, usize)> {
    let ask = |address: &SocketAddr| starling_tests::http::page(*address, "/metrics", patience);
    let answers = futures::future::join_all(routers.iter().map(ask)).await;
    // Two may claim a shard for a moment; the later epoch is the home.
    let mut best: BTreeMap<usize, (u64, usize)> = BTreeMap::new();
    for (router, answer) in answers.into_iter().enumerate() {
        let Ok((200, text)) = answer else { continue };
        for (shard, epoch) in homes(&text) {
            let claim = (epoch, router);
            best.entry(shard).and_modify(|known| *known = claim.max(*known)).or_insert(claim);
        }
    }
    best
}

/// The shards that a router is the home of, with their epochs.
fn homes(metrics: &str) -> BTreeSet<(usize, u64)> {
    let line = |line: &str| {
        let (label, value) = line.strip_prefix(HOME)?.split_once("} ")?;
        let shard = label.strip_prefix("shard=\"")?.strip_suffix('"')?.parse().ok()?;
        let epoch: u64 = value.split(' ').next()?.parse().ok()?;
        (epoch > 0).then_some((shard, epoch))
    };
    metrics.lines().filter_map(line).collect()
}

/// Asks for a page: status and body.
pub(crate) async fn http(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    starling_tests::http::page(address, path, PATIENCE).await
}
