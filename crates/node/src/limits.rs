//! Rates and the buckets that hold something to them.

use std::{cmp::Ordering, fmt, time::Duration};

/// So many events (or bytes) per span of time: `20/s`, `200/min`, `20/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how long; never zero.
    pub per: Duration,
}

impl Rate {
    /// So many per second.
    pub const fn per_second(count: u64) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// So many per minute.
    pub const fn per_minute(count: u64) -> Self {
        Self { count, per: Duration::from_secs(60) }
    }

    /// So many per hour.
    pub const fn per_hour(count: u64) -> Self {
        Self { count, per: Duration::from_secs(3_600) }
    }

    /// Events per second.
    pub fn each_second(&self) -> f64 {
        self.count as f64 / self.per.as_secs_f64()
    }

    /// The largest burst a plain bucket of this rate allows: everything of one span of time at once.
    pub fn burst(&self) -> u64 {
        self.count.max(1)
    }
}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let left = u128::from(self.count) * other.per.as_nanos();
        let right = u128::from(other.count) * self.per.as_nanos();
        match left.cmp(&right) {
            Ordering::Equal if self != other => None,
            order => Some(order),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "min",
            3_600 => "h",
            86_400 => "d",
            _ => return write!(f, "{}/{:?}", self.count, self.per),
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A token bucket: holds at most `burst`, refills at a steady rate, in constant memory and without a timer.
///
/// Time is handed in ([`crate::Clock::monotonic`]).
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    /// Tokens per second.
    speed: f64,
    burst: f64,
    level: f64,
    filled_at: Duration,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, burst: u64, now: Duration) -> Self {
        let burst = burst.max(1) as f64;
        Self { speed: rate.each_second(), burst, level: burst, filled_at: now }
    }

    /// Takes `amount` if it is there; nothing is taken otherwise.
    pub fn try_take(&mut self, amount: u64, now: Duration) -> bool {
        self.refill(now);
        let enough = self.level >= amount as f64;
        if enough {
            self.level -= amount as f64;
        }
        enough
    }

    /// True when the bucket is full again: it holds no memory of its past and may be forgotten.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.level >= self.burst
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.level = (self.level + passed.as_secs_f64() * self.speed).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = TokenBucket::new(Rate::per_second(10), 5, at(0));
        let burst = (0..20).filter(|_| bucket.try_take(1, at(0))).count();
        assert_eq!(burst, 5);
        let later = (1..=1_000).filter(|ms| bucket.try_take(1, at(*ms))).count();
        assert!((9..=10).contains(&later), "{later}");
    }

    #[test]
    fn a_bucket_that_is_full_again_has_no_past() {
        let mut bucket = TokenBucket::new(Rate::per_second(1_000), 1_000, at(0));
        assert!(bucket.try_take(500, at(0)));
        assert!(!bucket.is_full(at(499)));
        assert!(bucket.is_full(at(500)));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(Rate::per_second(10), 1, at(1_000));
        assert!(bucket.try_take(1, at(1_000)));
        assert!(!bucket.try_take(1, at(0)));
        assert!(!bucket.try_take(1, at(1_000)));
    }

    #[test]
    fn rates_compare_by_speed() {
        assert!(Rate::per_hour(20) < Rate::per_second(1));
        assert!(Rate::per_second(2) > Rate::per_minute(100));
        assert_eq!(Rate::per_minute(200).to_string(), "200/min");
    }
}
