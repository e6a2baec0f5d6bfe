//! Latencies, counted in buckets whose width grows with their value: 128 to each power of two, so that what is read
//! back is at most 0.8 % too large.

use std::time::Duration;

/// Counts of durations.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; bucket(u64::MAX) + 1], count: 0, longest: 0 }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Counts what another one has counted, too.
    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The longest of all, exactly.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The duration that this share (0.99) of all do not exceed; zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper(index).min(self.longest));
            }
        }
        self.longest()
    }
}

const STEPS: u64 = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Below 256 a bucket is one nanosecond wide; from there on the leading eight bits choose it.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The largest value in a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / STEPS).saturating_sub(1);
    let leading = index - shift * STEPS;
    (((u128::from(leading) + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_join_without_a_gap() {
        for index in 0..bucket(u64::MAX) {
            assert_eq!(bucket(upper(index)), index);
            assert_eq!(bucket(upper(index) + 1), index + 1);
        }
        assert_eq!(upper(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_are_close() {
        let mut histogram = Histogram::new();
        for micros in 1..=100_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!(found >= micros && found <= micros * 1.008, "{share}: {found} for {micros}");
        }
        assert_eq!(histogram.count(), 100_000);
        assert_eq!(histogram.longest(), Duration::from_millis(100));
    }

    #[test]
    fn nothing_has_no_latency() {
        assert_eq!(Histogram::new().quantile(0.99), Duration::ZERO);
    }
}
