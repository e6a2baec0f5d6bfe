//! Spans kept in memory, for tests.

use std::{sync::Arc, time::Duration};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};
use parking_lot::Mutex;

/// Spans that have ended, oldest first. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct EndedSpans(Arc<Mutex<Vec<SpanData>>>);

impl EndedSpans {
    /// All of them so far.
    pub fn all(&self) -> Vec<SpanData> {
        self.0.lock().clone()
    }

    /// Their names so far.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().iter().map(|span| span.name.to_string()).collect()
    }
}

impl SpanProcessor for EndedSpans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let mut spans = self.0.lock();
        if spans.len() < MAX {
            spans.push(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// More than any test looks at.
const MAX: usize = 100_000;
