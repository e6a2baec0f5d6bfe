//! What the log tells of itself.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Figures of the log. Clones share them.
#[derive(Debug, Clone)]
pub struct WalMetrics {
    /// How long each write and sync took, in seconds. A bind waits for three to five of them.
    pub sync: Histogram,
    /// How many records each sync has made durable.
    pub records: Histogram,
    /// How many syncs there were.
    pub syncs: Counter<u64, AtomicU64>,
    /// Bytes written, all together.
    pub bytes: Counter<u64, AtomicU64>,
    /// Segments that have files.
    pub segments: Gauge<i64, AtomicI64>,
    /// 1 while there is no room on the disk for the next segment.
    pub short_of_space: Gauge<i64, AtomicI64>,
    /// 1 after an error that has stopped the log.
    pub failed: Gauge<i64, AtomicI64>,
}

impl Default for WalMetrics {
    fn default() -> Self {
        Self {
            sync: Histogram::new(DURATIONS),
            records: Histogram::new(COUNTS),
            syncs: Counter::default(),
            bytes: Counter::default(),
            segments: Gauge::default(),
            short_of_space: Gauge::default(),
            failed: Gauge::default(),
        }
    }
}

impl WalMetrics {
    /// Adds them under `starling_raft_log_*`; the number of syncs is the count of their durations.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("starling_raft_log");
        registry.register_with_unit(
            "sync_duration",
            "Time of one write and sync of the Raft log",
            Unit::Seconds,
            self.sync.clone(),
        );
        registry.register("sync_records", "Records that one sync has made durable", self.records.clone());
        registry.register_with_unit("written", "Written to the Raft log", Unit::Bytes, self.bytes.clone());
        registry.register("segments", "Files of the Raft log", self.segments.clone());
        registry.register(
            "short_of_space",
            "1 while the next file does not fit",
            self.short_of_space.clone(),
        );
        registry.register("failed", "1 after an error that has stopped the Raft log", self.failed.clone());
    }
}

/// 50 us to 10 s: a fast disk needs 0.1 ms, and one above 3 ms is too slow.
const DURATIONS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_7, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.4,
    1.0, 10.0,
];
const COUNTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1_024.0];
