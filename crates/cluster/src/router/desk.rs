//! Questions to other routers that wait for their answers.

use super::questions::{Answer, Question};
use parking_lot::Mutex;
use starling_wire::RouterId;
use starling_wire::frame::PeerItem;
use starling_wire::net::Outlet;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Questions that may wait at a time.
const MOST: usize = 4_096;

/// All that wait.
#[derive(Debug)]
pub(super) struct Desk {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, (RouterId, oneshot::Sender<Answer>)>>,
}

impl Default for Desk {
    /// Numbered from anywhere: what was asked before this process was started again may be answered yet, and is not to be taken
    /// for an answer to something else.
    fn default() -> Self {
        Self { next: AtomicU64::new(rand::random()), waiting: Mutex::default() }
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    /// It was not asked.
    #[error("no link to the router")]
    NotLinked,
    /// It was not asked.
    #[error("too many questions wait")]
    Busy,
    /// It may have been done.
    #[error("the link was lost before the answer came")]
    Lost,
    /// It may have been done.
    #[error("a router does not answer in time")]
    Late,
}

/// A question that nobody waits for any more is forgotten.
struct Forget<'a>(&'a Desk, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().remove(&self.1);
    }
}

impl Desk {
    /// Asks another router.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(
        &self,
        router: RouterId,
        outlet: &Outlet<PeerItem>,
        question: &Question,
        within: Duration,
    ) -> Result<Answer, Unanswered> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= MOST {
                return Err(Unanswered::Busy);
            }
            waiting.insert(id, (router, done));
        }
        let _forget = Forget(self, id);
        if !outlet.push(PeerItem::Question { id, body: question.encode() }) {
            return Err(Unanswered::NotLinked);
        }
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer.map_err(|_| Unanswered::Lost),
            Err(_) => Err(Unanswered::Late),
        }
    }

    /// An answer has come.
    pub(super) fn answered(&self, by: RouterId, id: u64, answer: Answer) {
        let mut waiting = self.waiting.lock();
        if waiting.get(&id).is_some_and(|(router, _)| *router == by)
            && let Some((_, done)) = waiting.remove(&id)
        {
            drop(waiting);
            let _ = done.send(answer); // whoever asked may have left
        }
    }

    /// A router cannot answer any more.
    pub(super) fn lost(&self, router: RouterId) {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, (asked, _)| *asked != router);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lives_of_a_router_ask_by_the_same_numbers() {
        let first = || Desk::default().next.into_inner();
        assert_ne!(first(), first());
    }
}
