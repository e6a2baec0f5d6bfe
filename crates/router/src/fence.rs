//! Whether another reign has taken over. It stays so: the process can only end.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Raised once.
#[derive(Debug, Default)]
pub(crate) struct Fence {
    raised: AtomicBool,
    news: Notify,
}

impl Fence {
    /// Raises it; whether it was not yet.
    pub(crate) fn raise(&self) -> bool {
        let first = !self.raised.swap(true, Ordering::AcqRel);
        if first {
            self.news.notify_waiters();
        }
        first
    }

    /// Whether it is raised.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Resolves when it is.
    pub(crate) async fn wait(&self) {
        let news = self.news.notified();
        // A waiter counts from here on.
        if !self.is_raised() {
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn whoever_waits_learns_of_it_once_and_for_ever() {
        let fence = Fence::default();
        let mut early = Box::pin(fence.wait());
        assert!((&mut early).now_or_never().is_none() && !fence.is_raised());
        assert!(fence.raise() && !fence.raise());
        assert!(early.now_or_never().is_some());
        assert!(fence.wait().now_or_never().is_some() && fence.is_raised());
    }
}
