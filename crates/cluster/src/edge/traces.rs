//! Accounts whose stanzas this edge is to trace, as routers say.

use futures::future::join_all;
use starling_edge::EdgeTable;
use starling_node::Telemetry;
use starling_wire::frame::TraceReport;
use starling_wire::net::{Sockets, Uplink};
use starling_wire::uplink::LinkId;
use starling_wire::{ConnId, EdgeId, LinkError, Shard, TraceRule};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often routers are told of traces that were begun.
const EVERY: Duration = Duration::from_secs(1);

/// What homes want of sockets goes to them, what is to be traced to the tracer.
pub(super) struct Heard {
    pub(super) table: Arc<EdgeTable>,
    pub(super) telemetry: Telemetry,
}

impl Sockets for Heard {
    fn reading(&self, shard: Shard, on: bool) {
        self.table.reading(shard, on);
    }

    fn cut(&self, conn: ConnId) {
        self.table.cut(conn);
    }

    fn traces(&self, rules: &[TraceRule]) {
        for rule in rules {
            self.telemetry.targets.merge(rule);
        }
    }
}

/// Tells each router how many traces were begun, when that has changed, for ever.
pub(super) async fn count(edge: EdgeId, uplink: Arc<Uplink>, telemetry: Telemetry) {
    let records = telemetry.tracer.is_on();
    let mut told: HashMap<LinkId, TraceReport> = HashMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let report = TraceReport { edge, records, counts: telemetry.targets.counts() };
        let routers = uplink.routers();
        told.retain(|link, _| routers.iter().any(|router| router.link == *link));
        let untold = routers.iter().filter(|router| told.get(&router.link) != Some(&report));
        let asked = untold.map(|router| {
            let (link, answer) = (router.link, router.questions.traced(&report));
            // Who has too much to do is told again; an older router, which does not understand it, is not.
            async move { (answer.await != Err(LinkError::Busy)).then_some(link) }
        });
        for link in join_all(asked).await.into_iter().flatten() {
            told.insert(link, report.clone());
        }
    }
}
