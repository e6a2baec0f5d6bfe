//! What waits for a connection's task: messages of its home, and reasons to wake up.

use parking_lot::Mutex;
use starling_wire::{ConnId, Down, Shard};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// The shared half of a connection: homes put messages in, its task takes them out.
pub(crate) struct Mailbox {
    /// The connection it belongs to.
    pub(crate) conn: ConnId,
    /// Where its account's home is to be found; 0 where all are in one place.
    pub(crate) shard: Shard,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    items: VecDeque<Down>,
    /// Bytes of stanzas in `items`, estimated.
    bytes: usize,
    /// Highest `Down::Handled`; kept beside the queue because it is news only at times. What is in the queue when it is looked
    /// at goes to the client before it.
    handled: u64,
    /// The task sleeps until something of interest comes.
    waker: Option<Waker>,
    wants_handled: bool,
    fired: bool,
    stopping: bool,
    reloaded: bool,
    overflow: bool,
    cut: bool,
}

/// What the task finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    /// Highest sequence that is handled.
    pub(crate) handled: u64,
    /// A deadline may have passed.
    pub(crate) fired: bool,
    /// The edge is going down.
    pub(crate) stopping: bool,
    /// There are new settings.
    pub(crate) reloaded: bool,
    /// More was queued than may ever be; the connection is of no use any more.
    pub(crate) overflow: bool,
    /// The connection is to end so that its session can go on elsewhere.
    pub(crate) cut: bool,
    /// There are items to take.
    pub(crate) items: bool,
}

/// What comes to a connection that waits for an answer.
#[allow(clippy::large_enum_variant)] // there is one at a time
#[derive(Debug)]
pub(crate) enum Next {
    /// A word of the home.
    Down(Down),
    /// The edge is going down.
    Stopping,
    /// There is no home to answer, or too much came with the answer.
    Cut,
}

impl Mailbox {
    pub(crate) fn new(conn: ConnId, shard: Shard) -> Self {
        Self { conn, shard, state: Mutex::default() }
    }

    /// Appends a message of the home. `limit` bounds the bytes that wait.
    pub(crate) fn deliver(&self, down: Down, limit: usize) {
        let mut state = self.state.lock();
        if let Down::Handled { sequence } = down {
            state.handled = state.handled.max(sequence);
            if state.wants_handled {
                state.wake();
            }
            return;
        }
        state.bytes += weight(&down);
        if state.bytes > limit {
            state.overflow = true;
            state.items = VecDeque::new();
        } else {
            state.items.push_back(down);
        }
        state.wake();
    }

    /// A deadline of the connection may have passed.
    pub(crate) fn fire(&self) {
        let mut state = self.state.lock();
        state.fired = true;
        state.wake();
    }

    /// The edge is going down.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        let news = !std::mem::replace(&mut state.stopping, true);
        if news {
            state.wake();
        }
    }

    /// The connection is to end, without an end of its stream.
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        state.cut = true;
        state.wake();
    }

    /// Something that the task looks at by itself has changed.
    pub(crate) fn wake(&self) {
        self.state.lock().wake();
    }

    /// There are new settings.
    pub(crate) fn reload(&self) {
        let mut state = self.state.lock();
        state.reloaded = true;
        state.wake();
    }

    /// Registers the task and looks at what there is. `wants_handled`: progress of the home alone is worth waking for.
    pub(crate) fn look(&self, cx: &Context<'_>, wants_handled: bool) -> Flags {
        let mut state = self.state.lock();
        if state.waker.is_none() {
            state.waker = Some(cx.waker().clone());
        }
        state.wants_handled = wants_handled;
        Flags {
            handled: state.handled,
            fired: std::mem::take(&mut state.fired),
            stopping: state.stopping,
            reloaded: std::mem::take(&mut state.reloaded),
            overflow: state.overflow,
            cut: state.cut,
            items: !state.items.is_empty(),
        }
    }

    /// From now on progress of the home is worth waking for. Returns how far it is.
    pub(crate) fn want_handled(&self) -> u64 {
        let mut state = self.state.lock();
        state.wants_handled = true;
        state.handled
    }

    /// Takes items up to about this many bytes, at least one if there is one, and tells whether there are more.
    pub(crate) fn take(&self, bytes: usize) -> (VecDeque<Down>, bool) {
        let mut state = self.state.lock();
        if state.bytes <= bytes {
            state.bytes = 0;
            return (std::mem::take(&mut state.items), false);
        }
        let mut taken = VecDeque::new();
        let mut sum = 0;
        while sum < bytes
            && let Some(down) = state.items.pop_front()
        {
            sum += weight(&down);
            taken.push_back(down);
        }
        state.bytes = state.bytes.saturating_sub(sum);
        (taken, !state.items.is_empty())
    }

    /// Takes the next item, or waits for it. Only before the session begins.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Next> {
        let flags = self.look(cx, false);
        let mut state = self.state.lock();
        match state.items.pop_front() {
            Some(down) => {
                state.bytes = state.bytes.saturating_sub(weight(&down));
                Poll::Ready(Next::Down(down))
            }
            // What it waits for was dropped with the rest.
            None if flags.cut || flags.overflow => Poll::Ready(Next::Cut),
            None if flags.stopping => Poll::Ready(Next::Stopping),
            None => Poll::Pending,
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What an item counts towards the bound of its queue.
fn weight(down: &Down) -> usize {
    match down {
        Down::Stanza { stanza, .. } => stanza.encoded_len(),
        _ => 0,
    }
}
