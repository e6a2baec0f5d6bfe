//! What can be seen of an attempt: a span where its stanza is traced, and metrics of all.

use super::{
    failure::{Failure, Kind},
    second::Second,
    statements::Statement,
};
use crate::cql::CqlError;
use crate::schema::{Dialect, Table};
use parking_lot::Mutex;
use scylla::errors::{RequestAttemptError, RequestError};
use scylla::observability::history::{AttemptId, HistoryListener, RequestId, SpeculativeId};
use scylla::policies::retry::RetryDecision;
use scylla::response::Coordinator;
use starling_node::telemetry::metrics::{DbCollection, DbOperation, DbResult, Label, Observe};
use starling_node::telemetry::{Metrics, Span, Tracer};
use starling_node::{SharedClock, StanzaKind, Trace};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Where attempts are seen.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    pub(super) tracer: Tracer,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: SharedClock,
    pub(super) keyspace: Arc<str>,
    pub(super) second: Arc<Second>,
}

/// An attempt under way.
pub(super) struct Watch {
    observer: Observer,
    span: Span,
    seen: Option<Arc<Seen>>,
    operation: DbOperation,
    collection: DbCollection,
    began: Duration,
}

impl Observer {
    /// An attempt begins. `count` is how many statements go out as one, `attempt` counts from 1, `traces` are the stanzas that
    /// it is for.
    pub(super) fn begin(&self, statement: Statement, count: usize, traces: &[Trace], attempt: u32) -> Watch {
        let operation = if count > 1 { DbOperation::Batch } else { statement.operation() };
        let collection = collection(statement.table());
        let mut span = Span::default();
        // What is read belongs to no message: it is a trace of its own.
        let own = || (statement.kind() == Kind::Read).then(|| self.tracer.start(StanzaKind::Iq)).flatten();
        // What goes out as one with others' is a step of the first; they are linked.
        let first = traces.iter().position(Trace::is_sampled).unwrap_or(0);
        let trace = traces.get(first).copied().or_else(own);
        if trace.is_some() && self.tracer.is_on() {
            let summary = match count {
                0 | 1 => format!("{} {}.{}", operation.as_str(), self.keyspace, collection.as_str()),
                _ => format!(
                    "BATCH {} {}.{}",
                    statement.operation().as_str(),
                    self.keyspace,
                    collection.as_str()
                ),
            };
            span = self.tracer.client(trace, &summary);
            span.set("db.system.name", "cassandra");
            span.set("db.namespace", self.keyspace.to_string());
            span.set("db.collection.name", collection.as_str());
            span.set("db.operation.name", operation.as_str());
            span.set("db.query.summary", summary);
            if count > 1 {
                span.set("db.operation.batch.size", i64::try_from(count).unwrap_or(i64::MAX));
            }
            traces
                .iter()
                .skip(first + 1)
                .filter(|other| other.is_sampled())
                .for_each(|other| span.link(*other));
            if attempt > 1 {
                span.event("retry", "attempt", attempt.into());
            }
        }
        let seen =
            span.is_on().then(|| Arc::new(Seen { second: Arc::clone(&self.second), told: Mutex::default() }));
        Watch { observer: self.clone(), span, seen, operation, collection, began: self.clock.monotonic() }
    }
}

impl Watch {
    /// What listens to the driver, where there is a span to tell it to.
    pub(super) fn listener(&self) -> Option<Arc<dyn HistoryListener>> {
        self.seen.clone().map(|seen| seen as Arc<dyn HistoryListener>)
    }

    /// The request leaves.
    pub(super) fn leaves(&mut self, level: &'static str, idempotent: bool, dialect: Dialect) {
        self.span.set("cassandra.consistency.level", level);
        self.span.set("cassandra.query.idempotent", idempotent);
        if dialect == Dialect::Scylla {
            self.span.set("starling.store.flavor", "scylla");
        }
    }

    /// Who has answered.
    pub(super) fn answered(&mut self, coordinator: &Coordinator) {
        if self.span.is_on() {
            let node = coordinator.node();
            self.span.set("cassandra.coordinator.id", node.host_id.to_string());
            if let Some(datacenter) = &node.datacenter {
                self.span.set("cassandra.coordinator.dc", datacenter.clone());
            }
        }
    }

    /// The attempt has ended.
    pub(super) fn ended(mut self, failure: Option<&Failure>) {
        let result = match failure.map(|failure| &failure.error) {
            None => DbResult::Ok,
            Some(CqlError::Unknown(_)) => DbResult::Timeout,
            Some(CqlError::Refused(_)) => DbResult::Unavailable,
            Some(CqlError::Overloaded(_)) => DbResult::Overloaded,
            Some(CqlError::Invalid(_) | CqlError::Unreadable(_)) => DbResult::Invalid,
        };
        if let Some(seen) = &self.seen {
            let (address, speculations) = *seen.told.lock();
            if let Some(address) = address {
                self.span.set("server.address", address.ip().to_string());
                self.span.set("server.port", i64::from(address.port()));
                self.span.set("network.peer.address", address.ip().to_string());
                self.span.set("network.peer.port", i64::from(address.port()));
            }
            for number in 1..=speculations {
                self.span.event("speculative execution", "number", number.into());
            }
            self.span.set("cassandra.speculative_execution.count", i64::from(speculations));
        }
        if let Some(failure) = failure {
            if let Some(code) = failure.code.filter(|_| self.span.is_on()) {
                self.span.set("db.response.status_code", format!("0x{code:04X}"));
            }
            self.span.fail(failure.name);
        }
        let took = self.observer.clock.monotonic().saturating_sub(self.began);
        self.observer.metrics.db_operation.at(self.operation, self.collection, result).took(took);
    }
}

fn collection(table: Table) -> DbCollection {
    match table {
        Table::Accounts => DbCollection::Accounts,
        Table::AccountNames => DbCollection::AccountNames,
        Table::AccountData => DbCollection::AccountData,
        Table::LogBuckets => DbCollection::LogBuckets,
        Table::Log => DbCollection::Log,
        Table::LogByPeer => DbCollection::LogByPeer,
        Table::Purges => DbCollection::Purges,
        Table::Cluster => DbCollection::Cluster,
        Table::Reigns => DbCollection::Reigns,
    }
}

/// What the driver tells of one attempt: the last node it went to, and how many second nodes were asked. It is asked in
/// place of [`Second`], which must know as well.
#[derive(Debug)]
struct Seen {
    second: Arc<Second>,
    told: Mutex<(Option<SocketAddr>, u32)>,
}

impl HistoryListener for Seen {
    fn log_request_start(&self) -> RequestId {
        self.second.log_request_start()
    }

    fn log_request_success(&self, _: RequestId) {}

    fn log_request_error(&self, _: RequestId, _: &RequestError) {}

    fn log_new_speculative_fiber(&self, request: RequestId) -> SpeculativeId {
        self.told.lock().1 += 1;
        self.second.log_new_speculative_fiber(request)
    }

    fn log_attempt_start(&self, _: RequestId, _: Option<SpeculativeId>, node: SocketAddr) -> AttemptId {
        self.told.lock().0 = Some(node);
        AttemptId(0)
    }

    fn log_attempt_success(&self, _: AttemptId) {}

    fn log_attempt_error(&self, _: AttemptId, _: &RequestAttemptError, _: &RetryDecision) {}
}
