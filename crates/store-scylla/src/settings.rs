//! What the store is told when it is opened.

use crate::log::MOST_ROWS;
use starling_node::telemetry::Metrics;
use starling_store::Retention;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How the store uses its server. [`Settings::default`] is what the documentation says.
#[derive(Clone)]
pub struct Settings {
    /// How long rows are kept.
    pub retention: Retention,
    /// Rows that wait for a device are kept so long, even where the archive's age is less.
    pub offline_lifetime: Duration,
    /// One attempt is given up after this time.
    pub attempt_timeout: Duration,
    /// A commit is given up after this time.
    pub commit_deadline: Duration,
    /// A read is given up after this time; a load may take as long again to close what it has read.
    pub read_deadline: Duration,
    /// Requests under way at once.
    pub in_flight: usize,
    /// Commits and reads that wait for that; what comes beyond is refused.
    pub waiting: usize,
    /// Accounts of which something is remembered (an account with a long archive counts for several).
    pub owners: usize,
    /// Rows of one account that are written at once (at most 50 and 256 KiB); what comes meanwhile waits and is written
    /// together.
    pub window: usize,
    /// Rows of a bucket.
    pub bucket_rows: u32,
    /// Bytes of a bucket, about.
    pub bucket_bytes: u32,
    /// A bucket takes new rows for so long.
    pub bucket_age: Duration,
    /// Buckets of a volume.
    pub volume_buckets: usize,
    /// Where the queue and the retries are counted.
    pub metrics: Arc<Metrics>,
    /// Where secrets come from.
    pub entropy: fn() -> [u8; 32],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            offline_lifetime: Duration::from_secs(30 * 86_400),
            attempt_timeout: Duration::from_secs(2),
            commit_deadline: Duration::from_secs(5),
            read_deadline: Duration::from_secs(5),
            in_flight: 1_024,
            waiting: 8_192,
            owners: 100_000,
            window: MOST_ROWS,
            bucket_rows: 5_000,
            bucket_bytes: 64 << 20,
            bucket_age: Duration::from_secs(30 * 86_400),
            volume_buckets: 50,
            metrics: Arc::new(Metrics::new()),
            entropy: rand::random,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("retention", &self.retention)
            .field("in_flight", &self.in_flight)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
