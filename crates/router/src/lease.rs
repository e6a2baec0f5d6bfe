//! Keeps the reign: has positions granted ahead of the clock, and the lease with them.

use crate::drive::Turns;
use crate::shared::Shared;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_store::{Position, StoreError};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How often positions are granted.
const EVERY: Duration = Duration::from_secs(2);
/// How soon after a grant that failed: a store that is back is used again.
const AGAIN: Duration = Duration::from_millis(250);

/// Asks for one grant after the other.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    /// When to ask next, on monotonic time.
    next: Duration,
    asking: Option<Asking>,
    failing: bool,
}

struct Asking {
    /// When it was asked: the lease counts from there.
    at: Duration,
    ceiling: Position,
    answer: BoxFuture<'static, Result<(), StoreError>>,
}

impl Lease {
    /// After the first grant.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let next = shared.clock.monotonic() + EVERY;
        Self { shared, next, asking: None, failing: false }
    }

    fn ended(&mut self, at: Duration, ceiling: Position, answer: Result<(), StoreError>) {
        self.shared.positions.answered(self.shared.clock.monotonic());
        match answer {
            Ok(()) => {
                self.shared.positions.granted(ceiling, at);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(event = "grant_again", "positions are granted again");
                }
                self.next = at + EVERY;
            }
            Err(StoreError::Fenced) => self.shared.fence(),
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(event = "grant_failed", %error, "no positions granted; messages are refused when the lease is over");
                }
                self.next = self.shared.clock.monotonic() + AGAIN;
            }
        }
    }
}

impl Turns for Lease {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.positions.are_alone() || self.shared.fence.is_raised() {
            self.asking = None;
            return Poll::Pending;
        }
        if let Some(mut asking) = self.asking.take() {
            let Poll::Ready(answer) = asking.answer.poll_unpin(cx) else {
                self.asking = Some(asking);
                return Poll::Pending;
            };
            self.ended(asking.at, asking.ceiling, answer);
            return Poll::Ready(());
        }
        let at = self.shared.clock.monotonic();
        if at < self.next {
            return Poll::Pending;
        }
        let ceiling = self.shared.positions.wanted(self.shared.now());
        let answer = self.shared.store.grant(self.shared.positions.epoch(), ceiling);
        self.asking = Some(Asking { at, ceiling, answer });
        Poll::Ready(())
    }

    fn deadline(&self) -> Option<Duration> {
        let idle =
            self.asking.is_some() || self.shared.positions.are_alone() || self.shared.fence.is_raised();
        (!idle).then_some(self.next)
    }
}
