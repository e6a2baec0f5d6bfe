//! The channel form: one inbox per receiver, inside one process.
//!
//! A sender appends under a short lock and wakes the receiver once; the receiver takes all there is in one
//! swap. That makes batches out of load without a timer: the busier the receiver, the larger what it takes.

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// A queue that is drained whole, by one receiver. Its bound is kept by its senders' credit, see the crate's docs; what nobody's
/// credit bounds is [offered](Self::offer).
#[derive(Debug)]
pub struct Inbox<T> {
    items: Mutex<Vec<T>>,
    /// Bytes of what was offered since it was last drained.
    offered: AtomicUsize,
    receiver: AtomicWaker,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self { items: Mutex::new(Vec::new()), offered: AtomicUsize::new(0), receiver: AtomicWaker::new() }
    }
}

impl<T> Inbox<T> {
    /// Appends one.
    pub fn push(&self, item: T) {
        let first = {
            let mut items = self.items.lock();
            items.push(item);
            items.len() == 1
        };
        if first {
            self.receiver.wake();
        }
    }

    /// Appends one of so many bytes, unless as much as may has been offered.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn offer(&self, item: T, weight: usize, most: usize) -> Result<(), T> {
        let first = {
            let mut items = self.items.lock();
            // Changed under the lock only.
            if self.offered.load(Ordering::Relaxed) >= most {
                return Err(item);
            }
            self.offered.fetch_add(weight, Ordering::Relaxed);
            items.push(item);
            items.len() == 1
        };
        if first {
            self.receiver.wake();
        }
        Ok(())
    }

    /// Appends all, leaving `batch` empty with its capacity.
    pub fn append(&self, batch: &mut Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let first = {
            let mut items = self.items.lock();
            let first = items.is_empty();
            items.append(batch);
            first
        };
        if first {
            self.receiver.wake();
        }
    }

    /// Takes everything there is into `out` (which must be empty), waiting until there is something.
    pub async fn take(&self, out: &mut Vec<T>) {
        std::future::poll_fn(|cx| self.poll_take(cx, out)).await;
    }

    /// The same for a receiver that waits for other things too: it is woken when there is something.
    pub fn poll_take(&self, cx: &mut Context<'_>, out: &mut Vec<T>) -> Poll<()> {
        debug_assert!(out.is_empty());
        if self.try_take(out) {
            return Poll::Ready(());
        }
        self.receiver.register(cx.waker());
        // What was appended in between has found no waker.
        if self.try_take(out) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes everything there is; false when there was nothing.
    pub fn try_take(&self, out: &mut Vec<T>) -> bool {
        let mut items = self.items.lock();
        if items.is_empty() {
            return false;
        }
        std::mem::swap(&mut *items, out);
        self.offered.store(0, Ordering::Relaxed);
        true
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.items.lock().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Inbox;
    use std::sync::Arc;

    #[test]
    fn what_is_offered_is_bounded() {
        let inbox = Inbox::default();
        let offered = |inbox: &Inbox<u32>| (0..9).filter(|item| inbox.offer(*item, 10, 30).is_ok()).count();
        assert_eq!(offered(&inbox), 3);
        inbox.push(9);
        let mut out = Vec::new();
        assert!(inbox.try_take(&mut out));
        assert_eq!(out, [0, 1, 2, 9], "what comes otherwise is taken");
        assert_eq!(offered(&inbox), 3, "there is room again");
    }

    #[tokio::test]
    async fn takes_all_in_order_and_wakes_once_empty() {
        let inbox = Arc::new(Inbox::default());
        inbox.push(1);
        inbox.append(&mut vec![2, 3]);
        let mut out = Vec::new();
        inbox.take(&mut out).await;
        assert_eq!(out, [1, 2, 3]);
        out.clear();
        let taker = {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move {
                let mut out = Vec::new();
                inbox.take(&mut out).await;
                out
            })
        };
        tokio::task::yield_now().await;
        inbox.push(4);
        assert_eq!(taker.await.unwrap(), [4]);
    }
}
