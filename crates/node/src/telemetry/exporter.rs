//! Spans leave by OTLP over gRPC, from a thread of their own, through a bounded queue.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor},
};

use super::{Identity, Metrics, OtelEnvironment, TelemetryError};
use crate::{config::TelemetrySettings, ids};

pub(super) fn otlp(
    endpoint: &str,
    settings: &TelemetrySettings,
    otel: &OtelEnvironment,
    identity: &Identity,
    metrics: &Arc<Metrics>,
) -> Result<BatchSpanProcessor, TelemetryError> {
    let builder = opentelemetry_otlp::SpanExporter::builder().with_tonic();
    // What the builder is told beats the variables, so it is told only what they leave open.
    let builder = if otel.endpoint.is_some() { builder } else { builder.with_endpoint(endpoint) };
    let exporter = builder.build().map_err(|error| TelemetryError::Exporter(error.to_string()))?;
    let batch = BatchConfigBuilder::default();
    let batch = if otel.own_queue_size { batch } else { batch.with_max_queue_size(settings.queue) };
    let counted = Counted::new(exporter, metrics);
    let mut processor = BatchSpanProcessor::builder(counted).with_batch_config(batch.build()).build();
    processor.set_resource(&resource(identity));
    Ok(processor)
}

/// Detectors of the builder read `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(identity: &Identity) -> Resource {
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", identity.version),
        KeyValue::new("service.instance.id", ids::short()),
    ]);
    let place = identity.place.iter().flat_map(|(cluster, node)| {
        [
            KeyValue::new("starling.cluster.name", cluster.clone()),
            KeyValue::new("starling.node", node.clone()),
        ]
    });
    let builder = builder.with_attributes(place);
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    if named { builder.build() } else { builder.with_service_name(identity.service).build() }
}

/// Counts what the exporter could and could not send, and says in the log when it begins to fail and when that is over: a
/// wrong endpoint looks like a server that nobody uses otherwise.
struct Counted<E> {
    exporter: E,
    metrics: Arc<Metrics>,
    fails: AtomicBool,
}

impl<E> Counted<E> {
    fn new(exporter: E, metrics: &Arc<Metrics>) -> Self {
        Self { exporter, metrics: Arc::clone(metrics), fails: AtomicBool::new(false) }
    }

    fn note(&self, spans: u64, result: &OTelSdkResult) {
        let failed = self.fails.swap(result.is_err(), Relaxed);
        match result {
            Ok(()) => {
                self.metrics.spans_exported.inc_by(spans);
                if failed {
                    tracing::info!(event = "spans_exported", "the collector takes spans again");
                }
            }
            Err(error) => {
                self.metrics.spans_failed.inc_by(spans);
                if !failed {
                    tracing::warn!(event = "spans_lost", %error, "the collector takes no spans; they are lost");
                }
            }
        }
    }
}

impl<E> fmt::Debug for Counted<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        self.note(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::error::OTelSdkError;
    use parking_lot::Mutex;
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<tracing::Level>>>);

    impl<S: tracing::Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().push(*event.metadata().level());
        }
    }

    #[test]
    fn a_collector_that_takes_nothing_is_told_once() {
        let metrics = Arc::new(Metrics::new());
        let counted = Counted::new((), &metrics);
        let refused = || Err(OTelSdkError::InternalFailure("connection refused".to_owned()));
        let told = Levels::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(told.clone()), || {
            for result in [Ok(()), refused(), refused(), Ok(()), Ok(()), refused()] {
                counted.note(2, &result);
            }
        });
        assert_eq!(*told.0.lock(), [tracing::Level::WARN, tracing::Level::INFO, tracing::Level::WARN]);
        assert_eq!((metrics.spans_exported.get(), metrics.spans_failed.get()), (6, 6));
    }
}
