//! Round nodes that have fallen silent.
//!
//! A node that is stopped, or cut off, keeps its connections until a sign of life is missed twice. Until then a third of
//! all requests would wait there in vain, and be sent there again. So a node that was asked and has answered nothing at
//! all for a while is asked last; one request in a while goes there all the same, and its answer clears the node.

use parking_lot::Mutex;
use scylla::cluster::{ClusterState, NodeRef};
use scylla::errors::RequestAttemptError;
use scylla::policies::load_balancing::{FallbackPlan, LoadBalancingPolicy, RoutingInfo};
use scylla::routing::Shard;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A node that answers nothing at all for so long, though it was asked, is silent.
const PATIENCE: Duration = Duration::from_millis(700);

/// How often a silent node is asked.
const PROBE: Duration = Duration::from_secs(2);

/// Host ids that are remembered; a cluster has fewer nodes, but over the years more hosts.
const NODES: usize = 1_024;

/// Another policy's plans, silent nodes last.
#[derive(Debug)]
pub(super) struct Wary {
    inner: Arc<dyn LoadBalancingPolicy>,
    nodes: Mutex<HashMap<u128, Waiting>>,
}

/// Since when a node owes an answer, and when it is next asked if it is silent.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Instant,
    probe: Instant,
}

impl Wary {
    pub(super) fn over(inner: Arc<dyn LoadBalancingPolicy>) -> Self {
        Self { inner, nodes: Mutex::default() }
    }

    /// Whether this node may be asked now; if so, it owes an answer.
    fn asks(&self, node: u128, now: Instant) -> bool {
        let mut nodes = self.nodes.lock();
        if nodes.len() >= NODES {
            nodes.clear();
        }
        let waiting = nodes.entry(node).or_insert(Waiting { since: now, probe: now });
        if now.duration_since(waiting.since) < PATIENCE {
            return true;
        }
        let due = now >= waiting.probe;
        if due {
            waiting.probe = now + PROBE;
        }
        due
    }

    fn is_silent(&self, node: u128, now: Instant) -> bool {
        let nodes = self.nodes.lock();
        nodes.get(&node).is_some_and(|waiting| now.duration_since(waiting.since) >= PATIENCE)
    }

    fn heard(&self, node: u128) {
        self.nodes.lock().remove(&node);
    }
}

impl LoadBalancingPolicy for Wary {
    fn pick<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> Option<(NodeRef<'a>, Option<Shard>)> {
        let first = self.inner.pick(request, cluster)?;
        let now = Instant::now();
        if self.asks(first.0.host_id.as_u128(), now) {
            return Some(first);
        }
        let answers = |node: NodeRef<'_>| node.is_connected() && !self.is_silent(node.host_id.as_u128(), now);
        let other = self.inner.fallback(request, cluster).find(|(node, _)| answers(node));
        if let Some((node, _)) = other {
            self.asks(node.host_id.as_u128(), now);
        }
        other.or(Some(first))
    }

    fn fallback<'a>(&'a self, request: &'a RoutingInfo<'_>, cluster: &'a ClusterState) -> FallbackPlan<'a> {
        let now = Instant::now();
        let plan = self.inner.fallback(request, cluster);
        let (silent, rest): (Vec<_>, Vec<_>) =
            plan.partition(|(node, _)| self.is_silent(node.host_id.as_u128(), now));
        Box::new(rest.into_iter().chain(silent))
    }

    fn on_request_success(&self, request: &RoutingInfo<'_>, latency: Duration, node: NodeRef<'_>) {
        self.heard(node.host_id.as_u128());
        self.inner.on_request_success(request, latency, node);
    }

    fn on_request_failure(
        &self,
        request: &RoutingInfo<'_>,
        latency: Duration,
        node: NodeRef<'_>,
        error: &RequestAttemptError,
    ) {
        // It said so, or its connection has ended and it is asked no more until there is a new one.
        self.heard(node.host_id.as_u128());
        self.inner.on_request_failure(request, latency, node, error);
    }

    fn name(&self) -> String {
        "Wary".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_asked_once_in_a_while_until_it_is_heard() {
        let wary = Wary::over(scylla::policies::load_balancing::DefaultPolicy::builder().build());
        let (node, other) = (1, 2);
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert!(wary.asks(node, at(0)) && wary.asks(node, at(699)));
        assert!(!wary.is_silent(node, at(699)) && wary.is_silent(node, at(700)));
        // One probes, the others go elsewhere.
        assert!(wary.asks(node, at(800)) && !wary.asks(node, at(801)) && !wary.asks(node, at(2_799)));
        assert!(wary.asks(node, at(2_800)) && !wary.asks(node, at(2_801)));
        assert!(wary.asks(other, at(2_801)));
        wary.heard(node);
        assert!(wary.asks(node, at(2_802)) && wary.asks(node, at(2_803)));
        // One that was not asked for long is asked as any other.
        wary.heard(other);
        assert!(wary.asks(other, at(100_000)) && wary.asks(other, at(100_001)));
    }
}
