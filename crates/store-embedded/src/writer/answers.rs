//! Giving out the answers of a group.
//!
//! Each answer wakes a task. Done from the writer's thread that would be a system call and, on a busy core, two changes
//! of thread for each of them; so a task on the callers' own runtime does it, and is woken once for the whole group.

use super::group::Answer;
use parking_lot::Mutex;
use starling_store::Result;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Groups that wait for the task. At more than that the writer gives them out itself: it never waits for a runtime,
/// whose only thread may be waiting for the writer.
const GROUPS: usize = 8;

type Group = (Vec<Answer>, Result<()>);

/// The writer's end.
pub(super) struct Answers {
    shelf: Arc<Shelf>,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shelf {
    groups: Mutex<VecDeque<Group>>,
    more: Notify,
    closed: AtomicBool,
}

impl Answers {
    /// With a task on the runtime that this is called on; without one, callers are woken from the writer's thread.
    pub(super) fn new() -> Self {
        let shelf = Arc::<Shelf>::default();
        let task = Handle::try_current().ok().map(|runtime| {
            let shelf = shelf.clone();
            runtime.spawn(async move {
                while !shelf.closed.load(Ordering::Acquire) {
                    shelf.more.notified().await;
                    shelf.empty();
                }
            })
        });
        Self { shelf, task }
    }

    pub(super) fn give(&self, answers: Vec<Answer>, outcome: Result<()>) {
        // A sweep waits on a thread of the store, which the runtime's only thread may be waiting for.
        let sweep = answers.iter().any(|answer| matches!(answer, Answer::Removed(..)));
        let waiting = {
            let mut groups = self.shelf.groups.lock();
            groups.push_back((answers, outcome));
            groups.len()
        };
        // A task that has finished lost its runtime.
        if !sweep && waiting <= GROUPS && self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            self.shelf.more.notify_one();
        } else {
            self.shelf.empty();
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.shelf.empty();
        self.shelf.closed.store(true, Ordering::Release);
        self.shelf.more.notify_one();
    }
}

impl Shelf {
    /// In order, whoever does it: the lock is held meanwhile.
    fn empty(&self) {
        let mut groups = self.groups.lock();
        for (answers, outcome) in groups.drain(..) {
            for answer in answers {
                answer.send(&outcome);
            }
        }
    }
}
