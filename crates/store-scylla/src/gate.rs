//! So many requests at once, so many that wait, in the order they came; the rest is refused before anything is sent.

use futures::channel::oneshot;
use parking_lot::Mutex;
use starling_node::telemetry::Metrics;
use std::collections::VecDeque;
use std::sync::Arc;

/// The way to the server.
pub(crate) struct Gate {
    state: Mutex<State>,
    places: usize,
    waiting: usize,
    metrics: Arc<Metrics>,
}

struct State {
    free: usize,
    queue: VecDeque<Waiter>,
}

struct Waiter {
    places: usize,
    wake: oneshot::Sender<Places>,
}

/// Some places; they are free again when this is dropped.
pub(crate) struct Places {
    gate: Arc<Gate>,
    places: usize,
}

/// What one who asks is told.
pub(crate) enum Entry {
    /// Come in.
    Open(Places),
    /// It will be told by this.
    Queued(oneshot::Receiver<Places>),
    /// Too many wait.
    Full,
}

impl Gate {
    pub(crate) fn new(places: usize, waiting: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let places = places.max(1);
        let state = Mutex::new(State { free: places, queue: VecDeque::new() });
        Arc::new(Self { state, places, waiting, metrics })
    }

    /// Asks for so many places at once (never more than there are).
    pub(crate) fn enter(self: &Arc<Self>, places: usize) -> Entry {
        let places = places.clamp(1, self.places);
        let mut state = self.state.lock();
        if state.queue.is_empty() && places <= state.free {
            state.free -= places;
            drop(state);
            self.metrics.store_in_flight.inc_by(places as i64);
            return Entry::Open(Places { gate: Arc::clone(self), places });
        }
        if state.queue.len() >= self.waiting {
            state.queue.retain(|waiter| !waiter.wake.is_canceled());
        }
        if state.queue.len() >= self.waiting {
            drop(state);
            self.metrics.store_dropped.inc();
            return Entry::Full;
        }
        let (wake, woken) = oneshot::channel();
        state.queue.push_back(Waiter { places, wake });
        self.metrics.store_queue.set(state.queue.len() as i64);
        Entry::Queued(woken)
    }

    /// Whether one more would be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().queue.len() >= self.waiting
    }

    fn leave(self: &Arc<Self>, places: usize) {
        self.metrics.store_in_flight.dec_by(places as i64);
        self.state.lock().free += places;
        loop {
            let mut state = self.state.lock();
            let Some(next) = state.queue.front() else { return };
            let wanted = next.places;
            if wanted > state.free {
                return;
            }
            let Some(next) = state.queue.pop_front() else { return };
            self.metrics.store_queue.set(state.queue.len() as i64);
            if next.wake.is_canceled() {
                continue;
            }
            state.free -= wanted;
            drop(state);
            self.metrics.store_in_flight.inc_by(wanted as i64);
            // Where nobody takes them any more they come back here by being dropped.
            drop(next.wake.send(Places { gate: Arc::clone(self), places: wanted }));
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let gate = Arc::clone(&self.gate);
        gate.leave(self.places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn gate(places: usize, waiting: usize) -> Arc<Gate> {
        Gate::new(places, waiting, Arc::new(Metrics::new()))
    }

    fn open(entry: Entry) -> Places {
        match entry {
            Entry::Open(places) => places,
            _ => panic!("not open"),
        }
    }

    fn queued(entry: Entry) -> oneshot::Receiver<Places> {
        match entry {
            Entry::Queued(woken) => woken,
            _ => panic!("not queued"),
        }
    }

    #[test]
    fn lets_in_in_the_order_of_asking_and_refuses_beyond_the_bound() {
        let gate = gate(3, 2);
        let first = open(gate.enter(2));
        let large = queued(gate.enter(2));
        let small = queued(gate.enter(1));
        assert!(
            gate.is_full() && matches!(gate.enter(1), Entry::Full),
            "a free place is not for who comes last"
        );
        drop(first);
        let large = large.now_or_never().unwrap().unwrap();
        let small = small.now_or_never().unwrap().unwrap();
        assert_eq!(gate.state.lock().free, 0);
        drop((large, small));
        assert_eq!(gate.state.lock().free, 3);
        assert_eq!(gate.metrics.store_in_flight.get(), 0);
    }

    #[test]
    fn who_has_gone_takes_no_place() {
        let gate = gate(1, 2);
        let first = open(gate.enter(9));
        let gone = queued(gate.enter(1));
        let patient = queued(gate.enter(1));
        drop(gone);
        let third = queued(gate.enter(1));
        drop(first);
        let patient = patient.now_or_never().unwrap().unwrap();
        let late = queued(gate.enter(1));
        drop(third);
        drop(patient);
        drop(late);
        assert_eq!(gate.state.lock().free, 1);
    }
}
