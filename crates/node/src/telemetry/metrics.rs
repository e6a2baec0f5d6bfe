//! Metrics: one typed struct, in OpenMetrics form at `/metrics`.
//!
//! Every label is an enum, so that the number of series is fixed at compile time; never a JID, a resource, a
//! room or a remote domain. Series are looked up by index and not by hash: counting costs an atomic add.

mod labels;
mod table;

use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use labels::{
    AuthResult, Consistency, DbCollection, DbOperation, DbResult, Delivery, Direction, Kind, Limit,
    Mechanism, Outcome, Path, ResumeResult, SessionState, StanzaResult, StoreTable, TlsVersion, Transport,
};
pub use table::{Label, Sparse, Table1, Table2, Table3};

use super::process::Process;

/// All metrics of a process. Fields are the families; each is a table indexed by its labels.
#[derive(Debug)]
pub struct Metrics {
    registry: RwLock<Registry>,
    /// `xmpp_server_sessions`: bound sessions.
    pub sessions: Table2<Transport, SessionState, Gauge>,
    /// `xmpp_server_connections`: sockets of clients, authenticated or not.
    pub connections: Table1<Transport, Gauge>,
    /// `xmpp_server_stanzas_total`: stanzas from and to clients.
    pub stanzas: Table3<Kind, Direction, StanzaResult, Counter>,
    /// `xmpp_stanza_delivery_duration_seconds`: from the sender's socket to the recipient's, or to the log.
    pub delivery: Table2<Path, Delivery, Histogram>,
    /// `xmpp_stanza_size_bytes`: canonical size of what clients send.
    pub stanza_size: Table1<Kind, Histogram>,
    /// `xmpp_auth_attempts_total`: SASL exchanges that ended.
    pub auth: Table2<Mechanism, AuthResult, Counter>,
    /// `xmpp_tls_handshake_duration_seconds`.
    pub tls_handshake: Table2<TlsVersion, Outcome, Histogram>,
    /// `xmpp_sm_resumptions_total`: attempts to resume (XEP-0198).
    pub resumptions: Table1<ResumeResult, Counter>,
    /// `starling_store_write_duration_seconds`: from handing a write over to its commit.
    pub store_write: Sparse<(StoreTable, Consistency, Outcome), Histogram>,
    /// `starling_store_commit_size`: writes in one group commit.
    pub store_commit_size: Histogram,
    /// `starling_store_queue_depth`: writes that wait for a commit.
    pub store_queue: Gauge,
    /// `db_client_operation_duration_seconds`: attempts of statements in the database, from when there was a place for it.
    pub db_operation: Sparse<(DbOperation, DbCollection, DbResult), Histogram>,
    /// `starling_store_requests_in_flight`: statements that the database has not answered.
    pub store_in_flight: Gauge,
    /// `starling_store_retries_total`: attempts after the first.
    pub store_retries: Counter,
    /// `starling_store_speculative_executions_total`: reads sent to a second node because the first was slow.
    pub store_speculative: Counter,
    /// `starling_store_dropped_total`: requests refused because too many waited.
    pub store_dropped: Counter,
    /// `starling_store_unreadable_rows_total`: rows of logs passed over because they cannot be read.
    pub store_unreadable: Counter,
    /// `starling_store_reconnects_total`: sessions made anew because no node could be reached.
    pub store_reconnects: Counter,
    /// `starling_homes_loaded`: accounts in memory.
    pub homes: Gauge,
    /// `starling_limit_rejections_total`: what ran into a limit.
    pub limits: Table1<Limit, Counter>,
    /// `starling_tls_certificate_expiry_timestamp_seconds`: the earliest end of a certificate for clients. Absent until
    /// [`serves_clients`](Self::serves_clients): 0 would be the alarm that it has ended.
    pub certificate_expiry: Gauge,
    /// `starling_config_reloads_total`: reloads, applied or refused.
    pub reloads: Table1<Outcome, Counter>,
    /// `starling_otel_spans_ended_total`: spans handed to the exporter's queue.
    pub spans_ended: Counter,
    /// `starling_otel_spans_exported_total`.
    pub spans_exported: Counter,
    /// `starling_otel_spans_failed_total`: spans the collector did not take. What is neither exported nor failed
    /// after the queue was emptied has been dropped for lack of room.
    pub spans_failed: Counter,
}

impl Metrics {
    /// All families at zero.
    pub fn new() -> Self {
        let mut to = Registry::default();
        let durations: fn() -> Histogram = || Histogram::new(DURATIONS);
        let sizes = || Histogram::new(SIZES);
        let metrics = Self {
            sessions: Table2::new(["transport", "state"], Gauge::default),
            connections: Table1::new(["transport"], Gauge::default),
            stanzas: Table3::new(["kind", "direction", "result"], Counter::default),
            delivery: Table2::new(["path", "result"], durations),
            stanza_size: Table1::new(["kind"], sizes),
            auth: Table2::new(["mechanism", "result"], Counter::default),
            tls_handshake: Table2::new(["version", "result"], durations),
            resumptions: Table1::new(["result"], Counter::default),
            store_write: Sparse::new(["table", "consistency", "result"], durations),
            store_commit_size: Histogram::new(COUNTS),
            store_queue: Gauge::default(),
            db_operation: Sparse::new(["db_operation_name", "db_collection_name", "result"], durations),
            store_in_flight: Gauge::default(),
            store_retries: Counter::default(),
            store_speculative: Counter::default(),
            store_dropped: Counter::default(),
            store_unreadable: Counter::default(),
            store_reconnects: Counter::default(),
            homes: Gauge::default(),
            limits: Table1::new(["reason"], Counter::default),
            certificate_expiry: Gauge::default(),
            reloads: Table1::new(["result"], Counter::default),
            spans_ended: Counter::default(),
            spans_exported: Counter::default(),
            spans_failed: Counter::default(),
            registry: RwLock::default(),
        };
        to.register("xmpp_server_sessions", "Bound sessions", metrics.sessions.family());
        to.register("xmpp_server_connections", "Connections of clients", metrics.connections.family());
        to.register("xmpp_server_stanzas", "Stanzas from and to clients", metrics.stanzas.family());
        to.register_with_unit(
            "xmpp_stanza_delivery_duration",
            "From the sender's socket to the recipient's or the log",
            Unit::Seconds,
            metrics.delivery.family(),
        );
        to.register_with_unit(
            "xmpp_stanza_size",
            "Size of stanzas from clients",
            Unit::Bytes,
            metrics.stanza_size.family(),
        );
        to.register("xmpp_auth_attempts", "SASL exchanges that ended", metrics.auth.family());
        to.register_with_unit(
            "xmpp_tls_handshake_duration",
            "TLS handshakes",
            Unit::Seconds,
            metrics.tls_handshake.family(),
        );
        to.register("xmpp_sm_resumptions", "Attempts to resume a session", metrics.resumptions.family());
        to.register_with_unit(
            "starling_store_write_duration",
            "From handing a write over to its commit",
            Unit::Seconds,
            metrics.store_write.clone(),
        );
        to.register("starling_store_commit_size", "Writes in one commit", metrics.store_commit_size.clone());
        to.register(
            "starling_store_queue_depth",
            "Writes that wait for a commit",
            metrics.store_queue.clone(),
        );
        metrics.register_database(&mut to);
        to.register("starling_homes_loaded", "Accounts in memory", metrics.homes.clone());
        to.register("starling_limit_rejections", "What ran into a limit", metrics.limits.family());
        to.register("starling_config_reloads", "Reloads of the configuration", metrics.reloads.family());
        to.register("starling_otel_spans_ended", "Spans handed to the exporter", metrics.spans_ended.clone());
        to.register("starling_otel_spans_exported", "Spans exported", metrics.spans_exported.clone());
        to.register(
            "starling_otel_spans_failed",
            "Spans the collector did not take",
            metrics.spans_failed.clone(),
        );
        to.register_collector(Box::new(Process));
        *metrics.registry.write() = to;
        metrics
    }

    fn register_database(&self, to: &mut Registry) {
        to.register_with_unit(
            "db_client_operation_duration",
            "Attempts of statements in the database",
            Unit::Seconds,
            self.db_operation.clone(),
        );
        to.register(
            "starling_store_requests_in_flight",
            "Statements that the database has not answered",
            self.store_in_flight.clone(),
        );
        to.register("starling_store_retries", "Attempts after the first", self.store_retries.clone());
        to.register(
            "starling_store_speculative_executions",
            "Reads sent to a second node because the first was slow",
            self.store_speculative.clone(),
        );
        to.register(
            "starling_store_dropped",
            "Requests refused because too many waited",
            self.store_dropped.clone(),
        );
        to.register(
            "starling_store_unreadable_rows",
            "Rows of logs passed over because they cannot be read",
            self.store_unreadable.clone(),
        );
        to.register(
            "starling_store_reconnects",
            "Sessions made anew because no node could be reached",
            self.store_reconnects.clone(),
        );
    }

    /// Adds what only a process with sockets of clients has. To be called once.
    pub fn serves_clients(&self) {
        self.register(|to| {
            to.register_with_unit(
                "starling_tls_certificate_expiry_timestamp",
                "The earliest end of a certificate for clients in use",
                Unit::Seconds,
                self.certificate_expiry.clone(),
            );
        });
    }

    /// Adds metrics that are not named here. Their labels must be as bounded.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.write());
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1_024);
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry.read());
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Observes a duration in seconds.
pub trait Observe {
    /// Adds one observation.
    fn took(&self, time: Duration);
}

impl Observe for Histogram {
    fn took(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }
}

/// Of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// 0.1 ms to 30 s, the same everywhere so that they can be added.
const DURATIONS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.035, 0.075, 0.15, 0.3, 1.0, 3.0, 10.0,
    30.0,
];
const SIZES: [f64; 7] = [128.0, 512.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0];
const COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_names_that_dashboards_rely_on() {
        let metrics = Metrics::new();
        metrics.sessions.at(Transport::Tls, SessionState::Active).inc();
        metrics.stanzas.at(Kind::Message, Direction::In, StanzaResult::Ok).inc();
        metrics.delivery.at(Path::Local, Delivery::Ok).took(Duration::from_micros(300));
        metrics.limits.at(Limit::StanzaSize).inc();
        metrics.store_queue.set(7);
        let took = metrics.db_operation.at(DbOperation::Insert, DbCollection::Log, DbResult::Ok);
        took.took(Duration::from_micros(300));
        let text = metrics.encode();
        for line in [
            "xmpp_server_sessions{transport=\"tls\",state=\"active\"} 1",
            "xmpp_server_sessions{transport=\"starttls\",state=\"detached\"} 0",
            "xmpp_server_stanzas_total{kind=\"message\",direction=\"in\",result=\"ok\"} 1",
            "xmpp_stanza_delivery_duration_seconds_bucket{le=\"0.0005\",path=\"local\",result=\"ok\"} 1",
            "xmpp_stanza_delivery_duration_seconds_bucket{le=\"0.00025\",path=\"local\",result=\"ok\"} 0",
            "starling_limit_rejections_total{reason=\"stanza_size\"} 1",
            "starling_store_queue_depth 7",
            "db_client_operation_duration_seconds_count{db_operation_name=\"INSERT\",db_collection_name=\"log\",result=\"ok\"} 1",
            "# TYPE starling_store_retries counter",
            "# TYPE xmpp_tls_handshake_duration_seconds histogram",
            "# TYPE xmpp_sm_resumptions counter",
            "# TYPE xmpp_auth_attempts counter",
            "# TYPE starling_store_write_duration_seconds histogram",
            "# UNIT process_resident_memory_bytes bytes",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("db_collection_name=\"purges\""), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let lines = Metrics::new().encode().lines().count();
        assert!(lines < 1_500, "{lines}");
    }

    #[test]
    fn others_can_add_their_own() {
        let metrics = Metrics::new();
        let counter: Counter = Counter::default();
        metrics.register(|registry| registry.register("starling_extra", "Extra", counter.clone()));
        counter.inc();
        assert!(metrics.encode().contains("starling_extra_total 1"));
    }
}
