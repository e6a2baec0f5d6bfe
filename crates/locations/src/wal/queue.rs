//! The way to the writer: first in, first out, over all groups, bounded in bytes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    WalError,
    live::Live,
    record::{self, Kind},
};

/// What the writer is asked to do; its pieces are written in order.
pub(crate) struct Request {
    pub(crate) group: u16,
    pub(crate) owner: Arc<dyn Live>,
    pub(crate) pieces: VecDeque<Piece>,
    /// Called when all pieces are durable, or will not be. Without it the request waits for company.
    pub(crate) done: Option<Done>,
    /// Room in the queue, given back when this is dropped.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

/// Called by the writer's thread; must not block.
pub(crate) type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// One record to be.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    /// The indexes that it is about: of an append all; of a truncation from the first; of a purge up to the last.
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Piece {
    pub(crate) fn room(&self) -> usize {
        record::room(self.body.len())
    }
}

pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    room: Arc<Semaphore>,
    permits: u32,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// How many of them somebody waits for.
    awaited: usize,
    closed: Option<WalError>,
}

/// What the writer is to do next.
pub(crate) enum Next {
    /// Write these.
    Write(Vec<Request>),
    /// Nothing has come for a while.
    Calm,
    /// Nothing will come any more.
    End,
}

/// How long the writer waits for something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all: it has work of its own.
    None,
    /// Until nothing has come for that long.
    Calm(Duration),
    /// For ever.
    Endless,
}

const UNIT: usize = 1_024;

impl Queue {
    pub(crate) fn new(bytes: usize) -> Self {
        let permits = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX >> 4).max(1);
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(permits as usize)),
            permits,
        }
    }

    /// Waits until there is room for that many bytes. What is larger than all the room takes all of it.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WalError> {
        let wanted = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX).min(self.permits);
        match Arc::clone(&self.room).acquire_many_owned(wanted).await {
            Ok(room) => Ok(room),
            Err(_) => Err(self.closed()),
        }
    }

    /// Adds a request. After the end, its waiter is told at once.
    pub(crate) fn push(&self, request: Request) {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            let error = error.clone();
            drop(state);
            if let Some(done) = request.done {
                done(Err(error));
            }
            return;
        }
        // Nobody waits for the others: they need no turn of the thread of their own.
        let wake = request.done.is_some() || state.requests.is_empty();
        state.awaited += usize::from(request.done.is_some());
        state.requests.push_back(request);
        drop(state);
        if wake {
            self.wake.notify_one();
        }
    }

    /// What to do next: all requests that are there, up to about `bytes`.
    pub(crate) fn next(&self, bytes: usize, patience: Patience) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.closed.is_some() {
                return if state.requests.is_empty() { Next::End } else { Next::Write(state.take(bytes)) };
            }
            if state.awaited > 0 || patience == Patience::None {
                return Next::Write(state.take(bytes));
            }
            let patience = match patience {
                // Those that nobody waits for do not stay for ever either.
                Patience::Endless if !state.requests.is_empty() => Patience::Calm(RIDE),
                other => other,
            };
            match patience {
                Patience::Calm(time) => {
                    if self.wake.wait_for(&mut state, time).timed_out() {
                        return match state.requests.is_empty() {
                            true => Next::Calm,
                            false => Next::Write(state.take(bytes)),
                        };
                    }
                }
                Patience::Endless | Patience::None => self.wake.wait(&mut state),
            }
        }
    }

    /// What comes from now on gets `error`; what is there is still done.
    pub(crate) fn close(&self, error: WalError) {
        self.state.lock().closed.get_or_insert(error);
        self.room.close();
        self.wake.notify_one();
    }

    /// What is there and what comes gets `error`.
    pub(crate) fn fail(&self, error: &WalError) {
        let requests = {
            let mut state = self.state.lock();
            state.closed = Some(error.clone());
            state.awaited = 0;
            std::mem::take(&mut state.requests)
        };
        self.room.close();
        for request in requests {
            if let Some(done) = request.done {
                done(Err(error.clone()));
            }
        }
    }

    /// Why nothing is taken any more.
    pub(crate) fn closed(&self) -> WalError {
        self.state.lock().closed.clone().unwrap_or(WalError::Closed)
    }
}

impl State {
    fn take(&mut self, bytes: usize) -> Vec<Request> {
        let mut taken = Vec::with_capacity(self.requests.len());
        let mut size = 0;
        while size < bytes
            && let Some(request) = self.requests.pop_front()
        {
            size += request.pieces.iter().map(Piece::room).sum::<usize>();
            self.awaited -= usize::from(request.done.is_some());
            request.owner.taken();
            taken.push(request);
        }
        taken
    }
}

/// How long a request that nobody waits for may wait for one that is waited for.
const RIDE: Duration = Duration::from_millis(100);
