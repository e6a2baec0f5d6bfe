//! Shutdown as a value that is passed down: stop accepting, tell clients, flush, leave, all within a grace
//! period.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// The signal to stop. Clones are the same signal.
#[derive(Debug, Clone)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// When work must have ended; `None` while nobody has asked to stop.
    deadline: watch::Sender<Option<Instant>>,
    /// How many guards are alive.
    working: watch::Sender<usize>,
    grace: Duration,
}

/// Keeps [`Shutdown::drained`] waiting while it is alive: held by a task that has something to finish.
#[derive(Debug)]
pub struct Working {
    inner: Arc<Inner>,
}

impl Shutdown {
    /// A signal that gives work `grace` to end once it is given.
    pub fn new(grace: Duration) -> Self {
        let inner = Inner { deadline: watch::Sender::new(None), working: watch::Sender::new(0), grace };
        Self { inner: Arc::new(inner) }
    }

    /// Asks everybody to stop. Only the first call counts.
    pub fn trigger(&self) {
        let deadline = Instant::now() + self.inner.grace;
        self.inner.deadline.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(deadline);
            }
            first
        });
    }

    /// True once somebody asked to stop.
    pub fn is_triggered(&self) -> bool {
        self.inner.deadline.borrow().is_some()
    }

    /// When the grace period ends; `None` before the signal.
    pub fn deadline(&self) -> Option<Instant> {
        *self.inner.deadline.borrow()
    }

    /// Waits for the signal. Returns at once when it has been given. Cancel-safe.
    pub async fn requested(&self) {
        // The sender lives in `self`, so that the wait ends only by the signal.
        let _ = self.inner.deadline.subscribe().wait_for(Option::is_some).await;
    }

    /// Work that [`Shutdown::drained`] waits for.
    pub fn working(&self) -> Working {
        self.inner.working.send_modify(|count| *count += 1);
        Working { inner: Arc::clone(&self.inner) }
    }

    /// Waits for the signal, then until all work has ended. `false` when the grace period ended first.
    pub async fn drained(&self) -> bool {
        self.requested().await;
        let Some(deadline) = self.deadline() else { return false };
        let mut working = self.inner.working.subscribe();
        timeout_at(deadline, working.wait_for(|count| *count == 0)).await.is_ok()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.inner.working.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_hears_the_signal_also_those_who_ask_late() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let early = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        tokio::task::yield_now().await;
        assert!(!shutdown.is_triggered() && !early.is_finished());
        shutdown.trigger();
        early.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_triggered());
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_signal_does_not_move_the_deadline() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        shutdown.trigger();
        let deadline = shutdown.deadline();
        tokio::time::advance(Duration::from_secs(3)).await;
        shutdown.trigger();
        assert_eq!(shutdown.deadline(), deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_work_and_no_longer_than_the_grace_period() {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let work = shutdown.working();
        let stuck = shutdown.working();
        shutdown.trigger();
        drop(work);
        let before = Instant::now();
        assert!(!shutdown.drained().await);
        assert!(before.elapsed() >= Duration::from_secs(10));
        drop(stuck);
        assert!(shutdown.drained().await);
    }
}
