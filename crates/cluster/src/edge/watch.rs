//! What an edge looks at now and then.

use super::features;
use crate::leaving::{Leaving as Departure, step};
use crate::level;
use prometheus_client::metrics::gauge::Gauge;
use starling_admin::Phase;
use starling_edge::{Edge, EdgeTable};
use starling_node::{Check, Health, Metrics, Probe};
use starling_wire::Shards;
use starling_wire::frame::Leaving;
use starling_wire::net::Uplink;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The parts of a running edge.
pub(super) struct Scene {
    pub(super) edge: Arc<Edge>,
    pub(super) table: Arc<EdgeTable>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) leaving: Arc<Departure>,
    pub(super) shards: Shards,
}

impl Scene {
    /// Keeps probes, gauges and stream features true, and does not read for homes that are behind.
    pub(super) fn watch(self, health: &Health, metrics: &Metrics) -> Vec<JoinHandle<()>> {
        let gauges = Gauges::default();
        gauges.register(metrics);
        let pressing = press(Arc::clone(&self.table), Arc::clone(&self.uplink), self.shards);
        // Before anybody hears that it has started: what was not looked at yet is not ready.
        let checks = ["edge", "homes"].map(|name| health.check(name, &[Probe::Ready]));
        vec![tokio::spawn(pressing), tokio::spawn(self.look(checks, gauges))]
    }

    async fn look(self, [serving, homes]: [Check; 2], gauges: Gauges) {
        let all = usize::from(self.shards.count());
        let mut round = 0_u32;
        let mut heard = self.uplink.router_hello();
        let mut complete = false;
        loop {
            match self.leaving.phase() {
                Phase::Serving => serving.pass(),
                _ => serving.fail("draining"),
            }
            if self.leaving.phase() != Phase::Serving {
                let (phase, left) = (step(self.leaving.phase()), self.edge.connections() as u64);
                self.uplink.leaves(Leaving { phase, left });
            }
            let there = self.uplink.homes();
            complete |= there == all;
            // A shard that moves is without a home at all edges at the same time: if they were not ready then, a load
            // balancer would have nobody left for the clients of all others. Without any home it is this edge.
            if there == all || (complete && there > 0) {
                homes.pass();
            } else {
                homes.fail(format!("{} of {all} shards have no home", all - there));
            }
            gauges.set(&self, all - there, round.is_multiple_of(COUNTED));
            round = round.wrapping_add(1);
            let hello = self.uplink.router_hello();
            if let (Some(before), Some(now)) = (&heard, &hello)
                && before.features != now.features
            {
                self.edge.set_features(features(now));
            }
            heard = hello;
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// Stops reading the clients of a shard while too much waits for its home.
async fn press(table: Arc<EdgeTable>, uplink: Arc<Uplink>, shards: Shards) {
    let mut pressed = vec![false; usize::from(shards.count())];
    loop {
        for shard in shards.all() {
            let now = uplink.is_behind(shard);
            if std::mem::replace(&mut pressed[usize::from(shard.0)], now) != now {
                table.press(shard, now);
            }
        }
        tokio::time::sleep(PRESS_EVERY).await;
    }
}

/// What is counted here and nowhere else.
#[derive(Default)]
struct Gauges {
    drain_remaining: Gauge,
    homeless: Gauge,
    sessions: Gauge,
    detached: Gauge,
    ups: Gauge,
    downs: Gauge,
}

impl Gauges {
    fn register(&self, metrics: &Metrics) {
        metrics.register(|to| {
            for (name, help, gauge) in [
                (
                    "starling_edge_drain_remaining",
                    "Clients still here while the edge leaves",
                    &self.drain_remaining,
                ),
                ("starling_edge_shards_without_home", "Shards without a home", &self.homeless),
                (
                    "starling_edge_kept_sessions",
                    "Sessions that the edge could tell a home of",
                    &self.sessions,
                ),
                (
                    "starling_edge_kept_detached_sessions",
                    "Of these, sessions without a socket",
                    &self.detached,
                ),
                ("starling_edge_kept_ups", "Stanzas of clients that no home has handled", &self.ups),
                ("starling_edge_kept_downs", "Stanzas that clients may not have", &self.downs),
            ] {
                to.register(name, help, gauge.clone());
            }
        });
    }

    /// `whole`: what has to be counted, too.
    fn set(&self, scene: &Scene, homeless: usize, whole: bool) {
        let leaving = scene.leaving.phase() != Phase::Serving;
        self.drain_remaining.set(if leaving { level(scene.edge.connections()) } else { 0 });
        self.homeless.set(level(homeless));
        if !whole {
            return;
        }
        let (_, load) = scene.uplink.load();
        self.sessions.set(level(load.sessions));
        self.detached.set(level(load.detached));
        self.ups.set(level(load.ups));
        self.downs.set(level(load.downs));
    }
}

const EVERY: Duration = Duration::from_millis(500);
/// Rounds between counts of all that is kept.
const COUNTED: u32 = 10;
const PRESS_EVERY: Duration = Duration::from_millis(40);
