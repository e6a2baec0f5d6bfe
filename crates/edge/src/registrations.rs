//! How many accounts one address may make (XEP-0077).

use crate::source::Source;
use parking_lot::Mutex;
use starling_node::{Rate, SharedClock, TokenBucket};
use std::collections::HashMap;

/// Counts new accounts by address.
#[derive(Debug)]
pub(crate) struct Registrations {
    clock: SharedClock,
    buckets: Mutex<HashMap<Source, TokenBucket>>,
}

impl Registrations {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, buckets: Mutex::default() }
    }

    /// Whether this address may make one more account within the hour; counts it if so.
    pub(crate) fn allow(&self, source: Source, per_hour: u32) -> bool {
        let now = self.clock.monotonic();
        let rate = Rate::per_hour(u64::from(per_hour));
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MANY {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        if buckets.len() >= MANY && !buckets.contains_key(&source) {
            return false;
        }
        buckets.entry(source).or_insert_with(|| TokenBucket::new(rate, rate.burst(), now)).try_take(1, now)
    }
}

/// Addresses that are remembered; beyond that nobody new may register until some are forgotten.
const MANY: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use starling_node::ManualClock;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn so_many_an_hour_and_address() {
        let clock = ManualClock::at_micros(0);
        let registrations = Registrations::new(Arc::new(clock.clone()));
        assert!((0..2).all(|_| registrations.allow(Source::V4(1), 2)));
        assert!(!registrations.allow(Source::V4(1), 2));
        assert!(registrations.allow(Source::V4(2), 2));
        clock.advance(Duration::from_secs(1_801));
        assert!(registrations.allow(Source::V4(1), 2));
    }
}
