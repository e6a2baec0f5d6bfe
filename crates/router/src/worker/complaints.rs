//! What fails for every message and every home while a store is away: told at once, and then once in a while.

use std::time::Duration;

/// How long one that goes on is not told again.
const QUIET: Duration = Duration::from_secs(10);

/// Of one worker, each by itself.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// Writes were not confirmed.
    pub(super) commits: Complaint,
    /// Accounts could not be loaded.
    pub(super) loads: Complaint,
    /// The same where their homes are in doubt.
    pub(super) reloads: Complaint,
    /// Tails of logs could not be read.
    pub(super) tails: Complaint,
}

/// One kind.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    quiet_until: Duration,
    times: u64,
}

impl Complaint {
    /// It has failed again; how often since it was told, if it is to be told now.
    pub(super) fn made(&mut self, now: Duration) -> Option<u64> {
        self.times += 1;
        if now < self.quiet_until {
            return None;
        }
        self.quiet_until = now + QUIET;
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_are_counted() {
        let mut complaint = Complaint::default();
        let told: Vec<_> =
            (0..2_500).filter_map(|n| Some((n, complaint.made(Duration::from_millis(n * 10))?))).collect();
        assert_eq!(told, [(0, 1), (1_000, 1_000), (2_000, 1_000)]);
        assert_eq!(complaint.made(Duration::from_secs(900)), Some(500));
    }
}
