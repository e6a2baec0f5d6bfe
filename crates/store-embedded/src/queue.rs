//! A bounded queue between callers on any runtime and threads of our own.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// Bounded by count and by weight; closed once, after which what is in it can still be taken.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    most: usize,
    heaviest: usize,
}

struct State<T> {
    waiting: VecDeque<(T, usize)>,
    weight: usize,
    /// What was drained last is still being done.
    busy: bool,
    closed: bool,
}

/// Why something did not get into the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(most: usize, heaviest: usize) -> Self {
        let state = State { waiting: VecDeque::new(), weight: 0, busy: false, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), most, heaviest }
    }

    /// Adds one at the end. Something heavier than the queue may bear gets in when the queue is empty.
    pub(crate) fn push(&self, item: T, weight: usize) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.most || (state.weight > 0 && state.weight + weight > self.heaviest) {
            return Err(Refused::Full);
        }
        state.weight += weight;
        state.waiting.push_back((item, weight));
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Adds one whatever the bounds, for what has waited in a bounded queue before; gives it back when the queue is closed.
    pub(crate) fn hand_on(&self, item: T) -> Option<T> {
        let mut state = self.state.lock();
        if state.closed {
            return Some(item);
        }
        state.waiting.push_back((item, 0));
        drop(state);
        self.ready.notify_one();
        None
    }

    /// Waits for one. `None` when the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some((item, weight)) = state.waiting.pop_front() {
                state.weight -= weight;
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.ready.wait(&mut state);
        }
    }

    /// Moves what is ready, up to a weight (at least one item), to `into`, and waits for something first if `wait` is
    /// set. False when the queue is closed and empty. What an earlier call gave out counts as done.
    pub(crate) fn drain(&self, into: &mut Vec<T>, heaviest: usize, wait: bool) -> bool {
        let mut state = self.state.lock();
        state.busy = false;
        while wait && state.waiting.is_empty() && !state.closed {
            self.ready.wait(&mut state);
        }
        let open = !state.closed || !state.waiting.is_empty();
        let mut taken = 0;
        while let Some((_, weight)) = state.waiting.front() {
            if taken > 0 && taken + weight > heaviest {
                break;
            }
            taken += weight;
            into.extend(state.waiting.pop_front().map(|(item, _)| item));
        }
        state.weight -= taken;
        state.busy = !into.is_empty();
        if state.waiting.is_empty() && state.waiting.capacity() > 1_024 {
            state.waiting.shrink_to(1_024);
        }
        open
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_all();
    }

    /// Nothing is in it, and what was drained is done.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && !state.busy
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_by_count_and_weight() {
        let queue = Queue::new(3, 10);
        queue.push('a', 50).unwrap();
        assert_eq!(queue.push('b', 1), Err(Refused::Full), "too heavy with the first");
        assert_eq!(queue.pop(), Some('a'));
        for item in ['b', 'c', 'd'] {
            queue.push(item, 3).unwrap();
        }
        assert_eq!(queue.push('e', 0), Err(Refused::Full));
        let mut taken = Vec::new();
        assert!(queue.drain(&mut taken, 7, true));
        assert_eq!(taken, ['b', 'c']);
        queue.push('e', 7).unwrap();
        queue.close();
        assert_eq!(queue.push('f', 0), Err(Refused::Closed));
        assert!(queue.drain(&mut taken, 100, true), "what was taken in is given out");
        assert!(!queue.drain(&mut taken, 100, true));
        assert_eq!(taken, ['b', 'c', 'd', 'e']);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.hand_on('g'), Some('g'));
    }

    #[test]
    fn is_idle_once_what_was_taken_is_done() {
        let queue = Queue::new(1, 10);
        assert!(queue.is_idle());
        queue.push('a', 1).unwrap();
        assert_eq!(queue.hand_on('b'), None, "there is room for what was let in before");
        assert!(!queue.is_idle());
        let mut taken = Vec::new();
        queue.drain(&mut taken, 10, true);
        assert!(!queue.is_idle() && taken == ['a', 'b']);
        taken.clear();
        queue.drain(&mut taken, 10, false);
        assert!(queue.is_idle());
    }
}
