//! What waits to be sent over one link.

use super::End;
use crate::codec::Pieces;
use crate::frame::{EdgeItem, PeerItem, RouterItem};
use crate::record::Record;
use crate::{Down, Up};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// About how many bytes something takes while it waits.
pub trait Weigh {
    /// In bytes; never 0.
    fn weight(&self) -> usize;
}

/// What one item takes besides its contents.
const FRAME: usize = 128;

impl Weigh for EdgeItem {
    fn weight(&self) -> usize {
        match self {
            Self::Up(_, message) => {
                FRAME
                    + match &message.up {
                        Up::Stanza { stanza, .. } => stanza.encoded_len(),
                        Up::Attach(record) => weigh_record(record),
                        _ => 0,
                    }
            }
            _ => FRAME,
        }
    }
}

fn weigh_record(record: &Record) -> usize {
    let queue: usize = record.queue.iter().map(|queued| FRAME + queued.stanza.encoded_len()).sum();
    queue + record.notes.len() + 8 * record.acknowledged.len()
}

impl Weigh for RouterItem {
    fn weight(&self) -> usize {
        match self {
            Self::Down(_, message) => {
                FRAME
                    + match &message.down {
                        Down::Stanza { stanza, .. } => stanza.encoded_len(),
                        Down::Remember(notes) => notes.len(),
                        _ => 0,
                    }
            }
            Self::Traces(rules) => rules.iter().map(|rule| FRAME + rule.account.len()).sum::<usize>() + FRAME,
            Self::Routers(routers) => FRAME + routers.iter().map(String::len).sum::<usize>(),
            _ => FRAME,
        }
    }
}

impl Weigh for PeerItem {
    fn weight(&self) -> usize {
        FRAME
            + match self {
                Self::Forward(forward) => 256 + forward.stanza.encoded_len(),
                Self::Receipt(receipt) => {
                    let answer = receipt.refused.as_ref().and_then(|refused| refused.answer.as_ref());
                    256 + answer.map_or(0, starling_xmpp::Stanza::encoded_len)
                }
                Self::Question { body, .. } | Self::Answer { body, .. } => body.len(),
                _ => 0,
            }
    }
}

/// The sending end of a link. Clones are the same one. Nothing of it waits.
#[derive(Debug)]
pub struct Outlet<T>(Arc<Shared<T>>);

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    sender: AtomicWaker,
    limit: usize,
    ended: watch::Sender<Option<End>>,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    bytes: usize,
    /// What the sender has taken and not turned into frames yet.
    taken: usize,
    open: bool,
}

impl<T: Weigh> Outlet<T> {
    /// One of a link in which so many bytes may wait; links make their own.
    pub fn new(limit: usize) -> Self {
        let state = State { items: Vec::new(), bytes: 0, taken: 0, open: true };
        let ended = watch::Sender::new(None);
        Self(Arc::new(Shared { state: Mutex::new(state), sender: AtomicWaker::new(), limit, ended }))
    }

    /// Sends one. False if the link is over.
    pub fn push(&self, item: T) -> bool {
        let weight = item.weight();
        self.fill(weight, |items| items.push(item))
    }

    /// Sends all, in order, leaving `batch` empty with its capacity. False if the link is over.
    pub fn append(&self, batch: &mut Vec<T>) -> bool {
        let weight = batch.iter().map(Weigh::weight).sum();
        let sent = weight == 0 || self.fill(weight, |items| items.append(batch));
        batch.clear();
        sent
    }

    fn fill(&self, weight: usize, add: impl FnOnce(&mut Vec<T>)) -> bool {
        {
            let mut state = self.0.state.lock();
            if !state.open {
                return false;
            }
            let first = state.items.is_empty();
            // One is always allowed.
            if state.bytes + state.taken + weight <= self.0.limit || state.bytes + state.taken == 0 {
                state.bytes += weight;
                add(&mut state.items);
                drop(state);
                if first {
                    self.0.sender.wake();
                }
                return true;
            }
        }
        self.close(End::Overflow);
        false
    }
}

impl<T> Outlet<T> {
    /// Ends the link. What waits is not sent any more.
    pub fn close(&self, end: End) {
        let items = {
            let mut state = self.0.state.lock();
            if !state.open {
                return;
            }
            state.open = false;
            state.bytes = 0;
            std::mem::take(&mut state.items)
        };
        drop(items); // not under the lock
        self.0.ended.send_replace(Some(end));
        self.0.sender.wake();
    }

    /// Whether something may still be sent.
    pub fn is_open(&self) -> bool {
        self.0.state.lock().open
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        let state = self.0.state.lock();
        state.bytes + state.taken
    }

    /// Whether so much waits that one should make no more: a quarter of what ends the link.
    pub fn is_pressed(&self) -> bool {
        self.waiting() > self.0.limit / 4
    }

    /// Waits until this side has ended it.
    pub(super) async fn ended(&self) -> End {
        let mut ended = self.0.ended.subscribe();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End::Closed)
    }

    /// Takes all there is; `None` once the link is over.
    fn poll_take(&self, cx: &Context<'_>, out: &mut VecDeque<T>) -> Poll<Option<()>> {
        // Before looking: what is added from here on wakes.
        self.0.sender.register(cx.waker());
        let mut state = self.0.state.lock();
        if !state.open {
            return Poll::Ready(None);
        }
        state.taken = 0;
        if state.items.is_empty() {
            return Poll::Pending;
        }
        state.taken = std::mem::take(&mut state.bytes);
        out.extend(state.items.drain(..));
        if state.items.capacity() > KEPT {
            state.items = Vec::new();
        }
        Poll::Ready(Some(()))
    }
}

/// So much room for items is kept while none waits.
const KEPT: usize = 4096;

/// The frames of a link: the hello, then what is ready, each time the connection can take more.
pub(super) struct Frames<P: Pieces> {
    first: Option<P::Frame>,
    pieces: P,
    items: VecDeque<P::Item>,
    outlet: Outlet<P::Item>,
}

impl<P: Pieces> Frames<P> {
    pub(super) fn new(hello: P::Frame, outlet: &Outlet<P::Item>) -> Self {
        let outlet = outlet.clone();
        Self { first: Some(hello), pieces: P::default(), items: VecDeque::new(), outlet }
    }
}

impl<P: Pieces + Unpin> Stream for Frames<P>
where
    P::Item: Unpin,
    P::Frame: Unpin,
{
    type Item = P::Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<P::Frame>> {
        let this = self.get_mut();
        if let Some(hello) = this.first.take() {
            return Poll::Ready(Some(hello));
        }
        loop {
            if !this.outlet.is_open() {
                return Poll::Ready(None);
            }
            if let Some(frame) = this.pieces.frame(&mut this.items) {
                return Poll::Ready(Some(frame));
            }
            if this.items.capacity() > KEPT {
                this.items = VecDeque::new();
            }
            match this.outlet.poll_take(cx, &mut this.items) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<P: Pieces> Drop for Frames<P> {
    fn drop(&mut self) {
        self.outlet.close(End::Lost("the connection is gone".to_owned()));
        self.outlet.0.state.lock().taken = 0;
    }
}
