//! Logs, spans and metrics of a process, as one value that is handed down.
//!
//! Spans are made straight on the OpenTelemetry SDK, not from `tracing` spans: a stanza that is not sampled
//! costs one test of an `Option`. No JID, body or password goes into a log, span or label; [`UserHash`] gives a
//! keyed hash of an address where lines have to be joined.

pub mod environment;
mod exporter;
mod hash;
mod logs;
mod memory;
pub mod metrics;
mod process;
mod sampler;
pub mod targets;
mod tracer;

use std::{sync::Arc, time::Duration};

pub use environment::OtelEnvironment;
pub use hash::UserHash;
pub use memory::EndedSpans;
pub use metrics::Metrics;
pub use targets::{Targets, TraceRule};
pub use tracer::{Span, StanzaKind, Step, Trace, Tracer};

use crate::{
    clock::{SharedClock, SystemClock},
    config::TelemetrySettings,
    ids,
};

/// Everything a part of the server needs to be seen. Clones are the same.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Spans of sampled stanzas.
    pub tracer: Tracer,
    /// Accounts whose stanzas are all traced for a while.
    pub targets: Targets,
    /// Counters, gauges and histograms.
    pub metrics: Arc<Metrics>,
    /// Keyed hashes of addresses, for logs.
    pub users: UserHash,
    logs: Option<logs::Level>,
}

/// Telemetry that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Logs have been set up before in this process.
    #[error("logs are set up already in this process")]
    LogsSetUp,
    /// The level is not one.
    #[error("telemetry.log.level is wrong: {0}")]
    Level(String),
    /// The exporter cannot be made from the settings and the `OTEL_*` variables.
    #[error("spans cannot be exported: {0}")]
    Exporter(String),
}

/// What the resource of every span says about this process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `service.name`, e.g. `starling`; `OTEL_SERVICE_NAME` wins.
    pub service: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// `starling.cluster.name` and `starling.node`, in a cluster.
    pub place: Option<(String, String)>,
}

impl Telemetry {
    /// Sets up logs for the whole process, and the exporter of spans if the settings or the `OTEL_*` variables
    /// name an endpoint. Must be called within a tokio runtime, once.
    ///
    /// # Errors
    /// See [`TelemetryError`].
    pub fn start(
        settings: &TelemetrySettings,
        otel: &OtelEnvironment,
        identity: &Identity,
    ) -> Result<Self, TelemetryError> {
        let logs = logs::start(&settings.log)?;
        for warning in &otel.warnings {
            tracing::warn!(event = "variable_ignored", %warning, "an OpenTelemetry variable is not honoured");
        }
        let metrics = Arc::new(Metrics::new());
        let targets = Targets::new(SystemClock::shared());
        let tracer = match otel.endpoint(settings) {
            None => Tracer::off(),
            Some(endpoint) => {
                let processor = exporter::otlp(&endpoint, settings, otel, identity, &metrics)?;
                let (sampler, clock) = (otel.sampler(settings), SystemClock::shared());
                Tracer::new(Box::new(processor), sampler, targets.clone(), clock, &metrics)
            }
        };
        Ok(Self { tracer, targets, metrics, users: UserHash::new(ids::bytes()), logs: Some(logs) })
    }

    /// Metrics alone: nothing is logged or traced. For tests.
    pub fn off() -> Self {
        Self {
            tracer: Tracer::off(),
            targets: Targets::new(SystemClock::shared()),
            metrics: Arc::new(Metrics::new()),
            users: UserHash::new([0; 32]),
            logs: None,
        }
    }

    /// Traces every stanza up to `settings.traces_per_second`, by `settings.sample`, and keeps the spans in
    /// memory. For tests.
    pub fn in_memory(settings: &TelemetrySettings, clock: SharedClock) -> (Self, EndedSpans) {
        let spans = EndedSpans::default();
        let metrics = Arc::new(Metrics::new());
        let sampler = OtelEnvironment::default().sampler(settings);
        let targets = Targets::new(Arc::clone(&clock));
        let tracer = Tracer::new(Box::new(spans.clone()), sampler, targets.clone(), clock, &metrics);
        (Self { tracer, targets, metrics, users: UserHash::new([0; 32]), logs: None }, spans)
    }

    /// The same with hashes of addresses that are equal in all processes that know this secret.
    pub fn with_secret(mut self, secret: &[u8]) -> Self {
        self.users = UserHash::from_secret(secret);
        self
    }

    /// Applies a new log level.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] when it is not one; the old one stays.
    pub fn reload(&self, settings: &TelemetrySettings) -> Result<(), TelemetryError> {
        self.logs.as_ref().map_or(Ok(()), |logs| logs.set(&settings.log.level))
    }

    /// Sends what waits and ends the exporter. Blocks up to `timeout`: call it off the async workers.
    pub fn stop(&self, timeout: Duration) {
        self.tracer.stop(timeout);
    }
}
