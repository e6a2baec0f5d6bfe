//! How fast a client may send: who is faster is read later.

use crate::wheel::Tick;
use starling_node::Rate;
use starling_node::config::RateLimits;
use std::time::Duration;

/// Two token buckets, bytes and stanzas, in 32 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    bytes: Level,
    stanzas: Level,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    tokens: f64,
    at: Tick,
}

impl Meter {
    /// Full buckets.
    pub(crate) fn new(limits: &RateLimits, now: Tick) -> Self {
        let full = |burst: u64| Level { tokens: burst as f64, at: now };
        Self { bytes: full(limits.c2s_bytes_burst), stanzas: full(limits.c2s_stanzas_burst) }
    }

    /// Bytes have been read.
    pub(crate) fn bytes(&mut self, count: usize, limits: &RateLimits, now: Tick) {
        self.bytes.take(count as f64, limits.c2s_bytes, limits.c2s_bytes_burst, now);
    }

    /// A stanza, or what counts like one, has been taken.
    pub(crate) fn stanza(&mut self, limits: &RateLimits, now: Tick) {
        self.stanzas.take(1.0, limits.c2s_stanzas, limits.c2s_stanzas_burst, now);
    }

    /// Whether it is bytes, and not stanzas, of which there were too many.
    pub(crate) fn is_out_of_bytes(&self) -> bool {
        self.bytes.tokens < 0.0
    }

    /// How long to wait before more may be taken.
    pub(crate) fn wait(&mut self, limits: &RateLimits, now: Tick) -> Duration {
        let bytes = self.bytes.wait(limits.c2s_bytes, limits.c2s_bytes_burst, now);
        bytes.max(self.stanzas.wait(limits.c2s_stanzas, limits.c2s_stanzas_burst, now))
    }
}

impl Level {
    fn refill(&mut self, rate: Rate, burst: u64, now: Tick) {
        let passed = now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * rate.each_second()).min(burst as f64);
    }

    fn take(&mut self, count: f64, rate: Rate, burst: u64, now: Tick) {
        self.refill(rate, burst, now);
        self.tokens -= count;
    }

    fn wait(&mut self, rate: Rate, burst: u64, now: Tick) -> Duration {
        self.refill(rate, burst, now);
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        // The floor of a rate in the configuration is above zero.
        Duration::try_from_secs_f64(-self.tokens / rate.each_second()).unwrap_or(LONGEST).min(LONGEST)
    }
}

const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_what_follows_waits() {
        let limits =
            RateLimits { c2s_stanzas: Rate::per_second(10), c2s_stanzas_burst: 5, ..RateLimits::default() };
        let mut meter = Meter::new(&limits, Tick(0));
        for _ in 0..5 {
            meter.stanza(&limits, Tick(0));
        }
        assert_eq!(meter.wait(&limits, Tick(0)), Duration::ZERO);
        meter.stanza(&limits, Tick(0));
        assert_eq!(meter.wait(&limits, Tick(0)), Duration::from_millis(100));
        meter.bytes(limits.c2s_bytes_burst as usize + 3 * 32_768, &limits, Tick(0));
        assert_eq!(meter.wait(&limits, Tick(0)), Duration::from_secs(3));
        assert_eq!(meter.wait(&limits, Tick(30)), Duration::ZERO);
        // Ten minutes later both are full again, and no fuller.
        meter.bytes(limits.c2s_bytes_burst as usize, &limits, Tick(6_000));
        assert_eq!(meter.wait(&limits, Tick(6_000)), Duration::ZERO);
        meter.bytes(32_768, &limits, Tick(6_000));
        assert_eq!(meter.wait(&limits, Tick(6_000)), Duration::from_secs(1));
    }

    #[test]
    fn a_coarse_clock_does_not_lower_the_rate() {
        let limits = RateLimits { c2s_stanzas: Rate::per_second(50), ..RateLimits::default() };
        let (mut meter, mut now, mut taken) = (Meter::new(&limits, Tick(0)), Tick(0), 0);
        while now < Tick(1_000) {
            let wait = meter.wait(&limits, now);
            if wait.is_zero() {
                meter.stanza(&limits, now);
                taken += 1;
            } else {
                now = now.after(wait);
            }
        }
        assert!((5_000..5_400).contains(&taken), "{taken} in 100 s");
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Meter>() <= 32);
    }
}
