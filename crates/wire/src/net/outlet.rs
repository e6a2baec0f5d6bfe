//! What waits to be sent over one link.

use super::End;
use crate::codec::Pieces;
use crate::frame::{EdgeItem, PeerItem, RouterItem};
use crate::record::Record;
use crate::{Down, ToEdge, ToHome, Up};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// About how many bytes something takes while it waits.
pub trait Weigh {
    /// In bytes; never 0.
    fn weight(&self) -> usize;

    /// The same where the stanzas in it are kept elsewhere at any rate until the peer has said that it has them: here are only
    /// references to them.
    fn place(&self) -> usize {
        self.weight()
    }
}

/// What one item takes besides its contents.
const FRAME: usize = 128;

impl Weigh for EdgeItem {
    fn weight(&self) -> usize {
        let stanza = match self {
            Self::Up(_, ToHome { up: Up::Stanza { stanza, .. }, .. }) => stanza.encoded_len(),
            _ => 0,
        };
        self.place() + stanza
    }

    fn place(&self) -> usize {
        let record = match self {
            // Stanzas and notes are those that the edge keeps of the session.
            Self::Up(_, ToHome { up: Up::Attach(record), .. }) => weigh_record(record),
            _ => 0,
        };
        FRAME.max(size_of::<Self>()) + record
    }
}

fn weigh_record(record: &Record) -> usize {
    size_of::<Record>() + 8 * (record.queue.len() + record.acknowledged.len() + record.answered.len())
}

impl Weigh for RouterItem {
    fn weight(&self) -> usize {
        let stanza = match self {
            Self::Down(_, ToEdge { down: Down::Stanza { stanza, .. }, .. }) => stanza.encoded_len(),
            _ => 0,
        };
        self.place() + stanza
    }

    fn place(&self) -> usize {
        let contents = match self {
            Self::Down(_, ToEdge { down: Down::Remember(notes), .. }) => notes.len(),
            Self::Traces(rules) => rules.iter().map(|rule| FRAME + rule.account.len()).sum(),
            Self::Routers(routers) => routers.iter().map(String::len).sum(),
            _ => 0,
        };
        FRAME.max(size_of::<Self>()) + contents
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

    fn place(&self) -> usize {
        match self {
            // The sender's home keeps it until its receipt comes.
            Self::Forward(forward) if forward.ticket.is_some() => FRAME + 256,
            _ => self.weight(),
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
    waiting: Load,
    /// What the sender has taken and not turned into frames yet.
    taken: Load,
    /// When it last made a frame, or something came after it had nothing.
    moved: Instant,
    open: bool,
}

/// Of what waits, in bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    all: usize,
    /// Of what is kept nowhere else.
    only: usize,
}

/// Who has taken nothing for so long does not read.
const STALLED: Duration = Duration::from_secs(3);

impl<T: Weigh> Outlet<T> {
    /// One of a link in which so many bytes may wait; links make their own.
    pub fn new(limit: usize) -> Self {
        let (waiting, taken) = (Load::default(), Load::default());
        let state = State { items: Vec::new(), waiting, taken, moved: Instant::now(), open: true };
        let ended = watch::Sender::new(None);
        Self(Arc::new(Shared { state: Mutex::new(state), sender: AtomicWaker::new(), limit, ended }))
    }

    /// Sends one. False if the link is over.
    pub fn push(&self, item: T) -> bool {
        let all = item.weight();
        self.fill(Load { all, only: all }, |items| items.push(item))
    }

    /// Sends all, in order, leaving `batch` empty with its capacity. False if the link is over.
    pub fn append(&self, batch: &mut Vec<T>) -> bool {
        let all = batch.iter().map(Weigh::weight).sum();
        let sent = all == 0 || self.fill(Load { all, only: all }, |items| items.append(batch));
        batch.clear();
        sent
    }

    /// As [`push`](Self::push), of something that is [kept elsewhere](Weigh::place). However much that is, it ends no link whose
    /// peer reads: it would be said again over the next one.
    pub fn push_kept(&self, item: T) -> bool {
        self.fill(Load { all: item.place(), only: 0 }, |items| items.push(item))
    }

    /// As [`append`](Self::append), of what is [kept elsewhere](Weigh::place).
    pub fn append_kept(&self, batch: &mut Vec<T>) -> bool {
        let all = batch.iter().map(Weigh::place).sum();
        let sent = all == 0 || self.fill(Load { all, only: 0 }, |items| items.append(batch));
        batch.clear();
        sent
    }

    fn fill(&self, load: Load, add: impl FnOnce(&mut Vec<T>)) -> bool {
        {
            let mut state = self.0.state.lock();
            if !state.open {
                return false;
            }
            let first = state.items.is_empty();
            if state.has_room(load, self.0.limit) {
                state.waiting.all += load.all;
                state.waiting.only += load.only;
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

impl<T> State<T> {
    fn has_room(&mut self, load: Load, limit: usize) -> bool {
        let all = self.waiting.all + self.taken.all;
        // One is always allowed.
        if all == 0 {
            self.moved = Instant::now();
            return true;
        }
        if load.only > 0 {
            let only = self.waiting.only + self.taken.only;
            return only == 0 || only + load.only <= limit;
        }
        all + load.all <= limit || self.moved.elapsed() < STALLED
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
            state.waiting = Load::default();
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
        state.waiting.all + state.taken.all
    }

    /// Whether so much waits that one should make no more: a quarter of what may wait that nobody keeps.
    pub fn is_pressed(&self) -> bool {
        self.waiting() > self.0.limit / 4
    }

    /// Waits until this side has ended it.
    pub(super) async fn ended(&self) -> End {
        let mut ended = self.0.ended.subscribe();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End::Closed)
    }

    /// The peer takes what it is sent.
    fn moves(&self) {
        self.0.state.lock().moved = Instant::now();
    }

    /// Takes all there is; `None` once the link is over.
    fn poll_take(&self, cx: &Context<'_>, out: &mut VecDeque<T>) -> Poll<Option<()>> {
        // Before looking: what is added from here on wakes.
        self.0.sender.register(cx.waker());
        let mut state = self.0.state.lock();
        if !state.open {
            return Poll::Ready(None);
        }
        state.taken = Load::default();
        if state.items.is_empty() {
            return Poll::Pending;
        }
        state.taken = std::mem::take(&mut state.waiting);
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
                this.outlet.moves();
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
        self.outlet.0.state.lock().taken = Load::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Forward, Home, Leaving, Ticket};
    use crate::record::Queued;
    use crate::{ConnId, EdgeId, Epoch, Shard, Token};
    use futures::StreamExt;
    use starling_store::Origin;
    use starling_xmpp::{BareJid, Element, FullJid, MessageType, Stanza, ns};

    fn large() -> Stanza {
        let body = Element::new(ns::CLIENT, "body").text("x".repeat(100_000));
        Stanza::message(MessageType::Chat).child(body)
    }

    #[test]
    fn of_what_a_router_sends_to_another_only_that_counts_for_which_no_receipt_comes() {
        let account = BareJid::parse("alice@example.org").unwrap();
        let ticket = Ticket {
            origin: Origin { session: 1, sequence: 1 },
            sender: account.clone(),
            token: Token(1),
            sequence: 1,
            prev: None,
            again: false,
            resent: None,
            before: 0,
            unheard: (0, 0),
        };
        let forward = |ticket| {
            let (account, stanza) = (account.clone(), large());
            let home = Home { shard: Shard(0), epoch: Epoch(1) };
            PeerItem::Forward(Box::new(Forward {
                home,
                account,
                stanza,
                ticket,
                hops: 0,
                trace: None,
                passed: false,
            }))
        };
        let outlet = Outlet::new(1 << 20);
        assert!(outlet.push(forward(None)), "an empty one takes whatever comes at once");
        assert!(
            (0..1_000).all(|_| outlet.push_kept(forward(Some(ticket.clone())))),
            "the sender's home has them"
        );
        assert!(!(0..11).all(|_| outlet.push(forward(None))), "nobody else has them");
    }

    #[test]
    fn what_is_kept_elsewhere_takes_its_place_only() {
        let (home, conn) = (Home { shard: Shard(0), epoch: Epoch(1) }, ConnId { edge: EdgeId(1), number: 1 });
        let large = large();
        let stanza = |number| {
            let (stanza, position) = (large.clone(), None);
            let down = Down::Stanza {
                number,
                position,
                waits: false,
                counts: true,
                stanza,
                answers: 0,
                trace: None,
            };
            RouterItem::Down(home, ToEdge { conn, down })
        };
        let outlet = || {
            let outlet = Outlet::new(1 << 20);
            // An empty one takes whatever comes at once.
            assert!(outlet.push(RouterItem::Leave));
            outlet
        };
        assert!(outlet().append_kept(&mut (1..1_000).map(stanza).collect()), "100 MB that a home has anyway");
        assert!(outlet().push_kept(stanza(1)));
        assert!(!outlet().append(&mut (0..11).map(stanza).collect()), "1.1 MB that nobody else has");
        // Notes are nowhere else.
        let notes = Down::Remember(bytes::Bytes::from(vec![0; 5_000]));
        assert!(RouterItem::Down(home, ToEdge { conn, down: notes }).place() > 5_000);
        let queued = |number| {
            Arc::new(Queued { number, position: None, waits: false, counts: true, stanza: large.clone() })
        };
        let record = Record { received: 100, queue: (1..=100).map(queued).collect(), ..record() };
        let record = attach(record);
        assert!((1_000..3_000).contains(&record.weight()), "{}", record.weight());
    }

    fn record() -> Record {
        Record {
            detached: None,
            token: Token(1),
            jid: FullJid::parse("alice@example.org/phone").unwrap(),
            epoch: Epoch(1),
            handled: 0,
            answered: Vec::new(),
            asked: Vec::new(),
            spoken: Vec::new(),
            received: 0,
            first: 1,
            management: None,
            queue: Vec::new(),
            acknowledged: Vec::new(),
            highest: None,
            notes: bytes::Bytes::new(),
        }
    }

    fn attach(record: Record) -> EdgeItem {
        let (home, conn) = (Home { shard: Shard(0), epoch: Epoch(1) }, ConnId { edge: EdgeId(1), number: 1 });
        let account = BareJid::parse("alice@example.org").unwrap();
        EdgeItem::Up(home, ToHome { account, conn, up: Up::Attach(Box::new(record)) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_again_ends_no_link_whose_peer_reads() {
        let outlet = Outlet::new(1 << 20);
        let mut frames = Frames::<crate::codec::EdgePieces>::new(crate::proto::EdgeFrame::default(), &outlet);
        assert!((0..10_000).all(|_| outlet.push_kept(attach(record()))), "of so many sessions at once");
        assert!(outlet.waiting() > 4 << 20 && outlet.is_pressed());
        assert!(outlet.push(EdgeItem::Leaving(Leaving { phase: 1, left: 1 })), "and what follows");
        // It reads slowly.
        for _ in 0..4 {
            tokio::time::advance(STALLED * 2 / 3).await;
            assert!(frames.next().await.is_some());
            assert!(outlet.push_kept(attach(record())));
        }
        tokio::time::advance(STALLED).await;
        assert!(!outlet.push_kept(attach(record())) && !outlet.is_open(), "it does not read");
        let outlet = Outlet::new(1 << 20);
        assert!(outlet.push_kept(attach(record())));
        tokio::time::advance(STALLED).await;
        assert!(outlet.push_kept(attach(record())), "that is not much");
    }
}
