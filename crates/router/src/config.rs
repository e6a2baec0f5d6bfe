//! What a router is told: bounds and policies, from `limits.*`, `session.*` and `router.*`.

use std::time::Duration;

/// What happens when a full JID is bound that is bound already (RFC 6120 §7.7.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflict {
    /// The old session ends with the stream error `conflict`.
    #[default]
    Replace,
    /// The new bind is refused with `conflict`.
    Refuse,
}

/// Bounds and policies of homes.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Worker tasks; an account's home is on one of them.
    pub workers: usize,
    /// The store belongs to this process alone (it holds a lock on it).
    pub alone: bool,
    /// `session.conflict`
    pub conflict: Conflict,
    /// `limits.session.max_resources`
    pub max_resources: usize,
    /// `limits.sm.max_unacked`: stanzas of any kind sent and not acknowledged, per session.
    pub max_unacked: usize,
    /// `limits.sm.max_unacked_bytes`
    pub max_unacked_bytes: usize,
    /// Stored stanzas sent and not acknowledged, per session; what is more stays in the log until the client acknowledges.
    pub window: usize,
    /// `limits.sm.resume_timeout`: how long a detached session waits.
    pub resume_timeout: Duration,
    /// `limits.sm.ack_timeout`: how long a client may leave `<r/>` unanswered.
    pub ack_timeout: Duration,
    /// `limits.sm.detached_per_account`
    pub detached_per_account: usize,
    /// `limits.offline.max_messages` per account.
    pub offline_messages: usize,
    /// `limits.offline.bytes` of the same.
    pub offline_bytes: u64,
    /// `limits.rate.distinct_recipients`: addresses outside the roster that an account may write to, in that time.
    pub strangers: (usize, Duration),
    /// `limits.mam.queries_inflight`: answers worked out at the same time for one account; as many again times eight may wait.
    pub queries: usize,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            alone: false,
            conflict: Conflict::Replace,
            max_resources: 10,
            max_unacked: 1_000,
            max_unacked_bytes: 4 << 20,
            window: 250,
            resume_timeout: Duration::from_secs(300),
            ack_timeout: Duration::from_secs(60),
            detached_per_account: 3,
            offline_messages: 10_000,
            offline_bytes: 64 << 20,
            strangers: (200, Duration::from_secs(60)),
            queries: 2,
        }
    }
}
