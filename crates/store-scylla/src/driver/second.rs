//! Asking a second node when the first is slow.
//!
//! It helps against one slow node and harms when all of them are: then every read would be made twice. So only a part of
//! the reads may be, on average one in ten.

use scylla::errors::{RequestAttemptError, RequestError};
use scylla::observability::history::{AttemptId, HistoryListener, RequestId, SpeculativeId};
use scylla::policies::retry::RetryDecision;
use scylla::policies::speculative_execution::{Context, SpeculativeExecutionPolicy};
use starling_node::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// What one more request costs, in what one request brings.
const PRICE: i64 = 10;

/// What is saved at most: so many second requests at once.
const SAVED: i64 = 50 * PRICE;

/// Reads bring something, second requests cost. Counts them too.
#[derive(Debug)]
pub(super) struct Second {
    delay: Option<Duration>,
    budget: AtomicI64,
    metrics: Arc<Metrics>,
}

impl Second {
    /// After this time, or never.
    pub(super) fn after(delay: Option<Duration>, metrics: Arc<Metrics>) -> Self {
        Self { delay, budget: AtomicI64::new(SAVED), metrics }
    }
}

impl SpeculativeExecutionPolicy for Second {
    fn max_retry_count(&self, _: &Context) -> usize {
        usize::from(self.delay.is_some() && self.budget.load(Ordering::Relaxed) >= PRICE)
    }

    fn retry_interval(&self, _: &Context) -> Duration {
        self.delay.unwrap_or(Duration::MAX)
    }
}

impl HistoryListener for Second {
    fn log_request_start(&self) -> RequestId {
        if self.budget.load(Ordering::Relaxed) < SAVED {
            self.budget.fetch_add(1, Ordering::Relaxed);
        }
        RequestId(0)
    }

    fn log_request_success(&self, _: RequestId) {}

    fn log_request_error(&self, _: RequestId, _: &RequestError) {}

    fn log_new_speculative_fiber(&self, _: RequestId) -> SpeculativeId {
        self.budget.fetch_sub(PRICE, Ordering::Relaxed);
        self.metrics.store_speculative.inc();
        SpeculativeId(0)
    }

    fn log_attempt_start(&self, _: RequestId, _: Option<SpeculativeId>, _: SocketAddr) -> AttemptId {
        AttemptId(0)
    }

    fn log_attempt_success(&self, _: AttemptId) {}

    fn log_attempt_error(&self, _: AttemptId, _: &RequestAttemptError, _: &RetryDecision) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_in_ten_may_be_made_twice() {
        let second = Second::after(Some(Duration::from_millis(100)), Arc::new(Metrics::new()));
        let mut twice = 0;
        for _ in 0..10_000 {
            let request = second.log_request_start();
            if second.budget.load(Ordering::Relaxed) >= PRICE {
                second.log_new_speculative_fiber(request);
                twice += 1;
            }
        }
        assert!((1_000..=1_100).contains(&twice), "{twice}");
        assert_eq!(second.metrics.store_speculative.get(), twice);
    }
}
