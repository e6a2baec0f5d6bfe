//! Spans leave by OTLP over gRPC, from a thread of their own, through a bounded queue.

use std::{fmt, sync::Arc, time::Duration};

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
    let counted = Counted { exporter, metrics: Arc::clone(metrics) };
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

/// Counts what the exporter could and could not send.
struct Counted<E> {
    exporter: E,
    metrics: Arc<Metrics>,
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
        if result.is_ok() { &self.metrics.spans_exported } else { &self.metrics.spans_failed }.inc_by(spans);
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
