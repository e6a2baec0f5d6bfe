//! Which stanzas are traced: a part of each kind, and never more than so many per second.

use std::time::Duration;

use parking_lot::Mutex;

use super::StanzaKind;
use crate::limits::{Rate, TokenBucket};

/// Decides at the head of a trace.
#[derive(Debug)]
pub struct Sampler {
    /// For each kind, the random numbers that are taken lie below this.
    thresholds: [u64; StanzaKind::ALL.len()],
    bucket: Option<Mutex<TokenBucket>>,
}

impl Sampler {
    /// Takes the part `ratio(kind)` of each kind, and at most `per_second` new traces.
    pub fn new(ratio: impl Fn(StanzaKind) -> f64, per_second: u32) -> Self {
        let thresholds = StanzaKind::ALL.map(|kind| threshold(ratio(kind)));
        let rate = Rate::per_second(per_second.into());
        let bucket = (per_second > 0).then(|| TokenBucket::new(rate, rate.burst(), Duration::ZERO));
        Self { thresholds, bucket: bucket.map(Mutex::new) }
    }

    /// Whether to trace this one. `random` draws a number, `now` reads the clock; neither is asked in vain.
    pub(super) fn takes(
        &self,
        kind: StanzaKind,
        random: impl FnOnce() -> u64,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        let threshold = self.thresholds[kind as usize];
        let drawn = threshold == u64::MAX || (threshold > 0 && random() < threshold);
        drawn && self.bucket.as_ref().is_some_and(|bucket| bucket.lock().try_take(1, now()))
    }
}

fn threshold(ratio: f64) -> u64 {
    // The cast saturates: 1.0 and more is everything, NaN and less than 0 nothing.
    (ratio * u64::MAX as f64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_bucket_allows(per_second in 1_u32..100, steps in prop::collection::vec(0_u64..200, 1..400)) {
            let sampler = Sampler::new(|_| 1.0, per_second);
            let mut now = Duration::ZERO;
            let mut taken = 0_u64;
            for step in steps {
                now += Duration::from_millis(step);
                for _ in 0..5 {
                    taken += u64::from(sampler.takes(StanzaKind::Message, || 0, || now));
                }
            }
            let bound = u64::from(per_second) + (now.as_secs_f64() * f64::from(per_second)).ceil() as u64;
            prop_assert!(taken <= bound, "{taken} > {bound}");
        }
    }

    #[test]
    fn each_kind_has_its_own_part() {
        let sampler = Sampler::new(|kind| if kind == StanzaKind::Iq { 0.25 } else { 0.0 }, u32::MAX);
        let mut draws = (0_u64..4_000).map(|step| step * (u64::MAX / 4_000));
        let taken =
            (0..4_000).filter(|_| sampler.takes(StanzaKind::Iq, || draws.next().unwrap(), Duration::default));
        assert!(taken.count().abs_diff(1_000) <= 1);
        assert!(!sampler.takes(StanzaKind::Message, || 0, Duration::default));
    }

    #[test]
    fn nothing_is_traced_at_zero_per_second() {
        let sampler = Sampler::new(|_| 1.0, 0);
        assert!(!sampler.takes(StanzaKind::Login, || 0, || Duration::from_secs(100)));
    }
}
