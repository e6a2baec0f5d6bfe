//! Raft's questions and answers, for all groups of a pair of routers over one connection of their own.

use super::dial::Connection;
use super::outlet::Frames;
use super::peer::{Myself, Shared, client, declined, judge};
use super::ways::Life;
use super::{End, Outlet, Weigh, end_of};
use crate::codec::{self, Pieces};
use crate::{RouterId, proto};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no link to that router, or it broke before the answer came. The question may have arrived.
    #[error("no link to the router")]
    Unlinked,
    /// The time was over. The question may have arrived.
    #[error("no answer in time")]
    Late,
    /// The question or the answer is larger than a message may be.
    #[error("too large")]
    TooLarge,
    /// The other router could not answer.
    #[error("{0}")]
    Failed(String),
}

/// What is known of another router by its Raft link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerState {
    /// For people.
    pub name: String,
    /// One life of its process.
    pub incarnation: crate::Incarnation,
    /// How long the last pulse took there and back.
    pub round_trip: Duration,
    /// What it last said.
    pub notes: Bytes,
}

/// One thing on a Raft link.
#[derive(Debug)]
pub enum RaftItem {
    /// A question to a group.
    Call {
        /// Comes back with the answer.
        id: u64,
        /// Which group.
        group: u16,
        /// Not looked at here.
        body: Bytes,
    },
    /// An answer.
    Answer {
        /// Of the question.
        id: u64,
        /// Or why there is none.
        result: Result<Bytes, String>,
    },
    /// A sign of life.
    Pulse {
        /// Comes back.
        number: u64,
        /// For the locations.
        notes: Bytes,
    },
}

impl Weigh for RaftItem {
    fn weight(&self) -> usize {
        64 + match self {
            Self::Call { body, .. } | Self::Answer { result: Ok(body), .. } => body.len(),
            Self::Answer { result: Err(why), .. } => why.len(),
            Self::Pulse { notes, .. } => notes.len(),
        }
    }
}

/// The largest question or answer, in bytes.
const MAX_BODY: usize = 1 << 20;
/// The most of one router that are worked on at a time; beyond it they are refused.
pub(super) const AT_ONCE: usize = 4096;

#[derive(Default)]
pub(super) struct RaftPieces;

impl Pieces for RaftPieces {
    type Item = RaftItem;
    type Frame = proto::RaftFrame;

    fn frame(&mut self, items: &mut VecDeque<RaftItem>) -> Option<proto::RaftFrame> {
        let mut frame = proto::RaftFrame::default();
        let mut size = 0;
        let mut count = 0;
        while size < codec::FULL && count < codec::MANY {
            let Some(item) = items.pop_front() else { break };
            size += item.weight();
            count += 1;
            match item {
                RaftItem::Call { id, group, body } => {
                    frame.calls.push(proto::RaftCall { id, group: u32::from(group), body });
                }
                RaftItem::Answer { id, result } => {
                    let result = Some(match result {
                        Ok(body) => proto::raft_answer::Result::Body(body),
                        Err(why) => proto::raft_answer::Result::Failed(why),
                    });
                    frame.answers.push(proto::RaftAnswer { id, result });
                }
                RaftItem::Pulse { number, notes } => frame.pulse = Some(proto::Pulse { number, notes }),
            }
        }
        (count > 0).then_some(frame)
    }
}

/// The Raft links of a router to the others. Clones are the same.
#[derive(Debug, Clone)]
pub struct RaftLinks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    lines: Mutex<HashMap<RouterId, Arc<Line>>>,
    states: watch::Sender<BTreeMap<RouterId, PeerState>>,
}

/// One link that stands.
#[derive(Debug)]
struct Line {
    outlet: Outlet<RaftItem>,
    next: AtomicU64,
    /// When anything came last, in microseconds since `born`.
    heard: AtomicU64,
    born: Instant,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>>>,
}

/// A question that nobody waits for any more is forgotten.
struct Forget {
    line: Arc<Line>,
    id: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.line.waiting.lock().remove(&self.id);
    }
}

impl RaftLinks {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, lines: Mutex::default(), states: watch::Sender::default() }))
    }

    /// Asks a group of another router. All that waits for a router fails at once when its link breaks; dropping the
    /// future is fine at any time.
    ///
    /// # Errors
    /// Why there is no answer. After `Unlinked` and `Late` the question may have been taken.
    pub async fn call(
        &self,
        to: RouterId,
        group: u16,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        if body.len() > MAX_BODY {
            return Err(CallError::TooLarge);
        }
        let line = self.0.lines.lock().get(&to).map(Arc::clone).ok_or(CallError::Unlinked)?;
        let id = line.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        line.waiting.lock().insert(id, answer);
        let forget = Forget { line, id };
        if !forget.line.outlet.push(RaftItem::Call { id, group, body }) {
            return Err(CallError::Unlinked);
        }
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Unlinked),
            Err(_) => Err(CallError::Late),
        }
    }

    /// Who is linked, and what they say: those that have answered a pulse within the time after which a link is dead.
    pub fn states(&self) -> watch::Receiver<BTreeMap<RouterId, PeerState>> {
        self.0.states.subscribe()
    }
}

impl Line {
    fn fail_all(&self) {
        // Not under the lock: whoever waits may ask again at once.
        let waiting = std::mem::take(&mut *self.waiting.lock());
        drop(waiting);
    }
}

/// A link from its hello to its end.
pub(super) async fn converse(
    shared: &Arc<Shared>,
    address: SocketAddr,
    connection: &Connection,
    linked: &AtomicBool,
    router: &mut Option<Life>,
) -> Result<End, Myself> {
    let own = shared.peers.hello();
    let links = &shared.raft.0;
    let outlet = Outlet::new(links.limit);
    let first = proto::RaftFrame { hello: Some(codec::peer_hello(&own)), ..proto::RaftFrame::default() };
    let frames = Frames::<RaftPieces>::new(first, &outlet);
    let mut client = client(connection);
    let opened = async {
        let mut stream = client.raft(frames).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((stream, first))
    };
    let (mut stream, first) = match tokio::time::timeout(shared.options.hello, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => return declined(&shared.peers, &status),
        Err(_) => return Ok(End::Lost("no hello in time".to_owned())),
    };
    let hello = match judge(&shared.peers, &own, connection, first.and_then(|frame| frame.hello)) {
        Ok(hello) => hello,
        Err(end) => return Ok(end),
    };
    let (id, life) = (hello.router, hello.incarnation);
    *router = Some((id, life));
    let line = Arc::new(Line {
        outlet,
        next: AtomicU64::new(1),
        heard: AtomicU64::new(0),
        born: Instant::now(),
        waiting: Mutex::default(),
    });
    let old = {
        let mut lines = links.lines.lock();
        shared.raft_ways.linked(address, id, life);
        lines.insert(id, Arc::clone(&line))
    };
    if let Some(old) = old {
        old.outlet.close(End::Superseded);
        old.fail_all();
    }
    let _present = Present { links: Arc::clone(links), id, line: Arc::clone(&line) };
    linked.store(true, Ordering::Relaxed);
    let state = PeerState {
        name: hello.name,
        incarnation: hello.incarnation,
        round_trip: Duration::ZERO,
        notes: hello.notes,
    };
    links.states.send_modify(|states| drop(states.insert(id, state)));
    let end = exchange(shared, &mut stream, &line, id).await;
    line.outlet.close(end.clone());
    Ok(end)
}

/// Takes a link out of the table when it is over, whichever way.
struct Present {
    links: Arc<Inner>,
    id: RouterId,
    line: Arc<Line>,
}

impl Drop for Present {
    fn drop(&mut self) {
        {
            let mut lines = self.links.lines.lock();
            if lines.get(&self.id).is_some_and(|line| Arc::ptr_eq(line, &self.line)) {
                lines.remove(&self.id);
                self.links.states.send_modify(|states| drop(states.remove(&self.id)));
            }
        }
        self.line.outlet.close(End::Closed);
        self.line.fail_all();
    }
}

async fn exchange(
    shared: &Arc<Shared>,
    stream: &mut tonic::Streaming<proto::RaftFrame>,
    line: &Arc<Line>,
    id: RouterId,
) -> End {
    let mut pulse = tokio::time::interval(shared.options.pulse);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let dead = shared.options.dead();
    let mut number = 0;
    // When the pulses went that have not come back.
    let mut sent = VecDeque::new();
    let silent = |line: &Line| {
        line.born.elapsed().saturating_sub(Duration::from_micros(line.heard.load(Ordering::Relaxed)))
    };
    let ended = line.outlet.ended();
    tokio::pin!(ended);
    loop {
        let frame = tokio::select! {
            biased;
            end = &mut ended => return end,
            frame = stream.message() => frame,
            _ = pulse.tick() => {
                if silent(line) > dead {
                    return End::Lost("silent for too long".to_owned());
                }
                number += 1;
                sent.push_back((number, Instant::now()));
                if sent.len() > 64 {
                    sent.pop_front();
                }
                line.outlet.push(RaftItem::Pulse { number, notes: shared.peers.notes() });
                continue;
            }
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Lost("ended by the peer".to_owned()),
            Err(status) => return end_of(&status),
        };
        let now = u64::try_from(line.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        line.heard.store(now, Ordering::Relaxed);
        if let Some(pulse) = frame.pulse {
            while let Some((own, at)) = sent.pop_front_if(|(own, _)| *own <= pulse.number) {
                if own == pulse.number {
                    let (round_trip, notes) = (at.elapsed(), Bytes::copy_from_slice(&pulse.notes));
                    shared.raft.0.states.send_if_modified(|states| {
                        let Some(state) = states.get_mut(&id) else { return false };
                        let news = state.notes != notes;
                        state.round_trip = round_trip;
                        state.notes = notes;
                        news
                    });
                }
            }
        }
        for answer in frame.answers {
            let Some(waiting) = line.waiting.lock().remove(&answer.id) else { continue };
            let result = match answer.result {
                Some(proto::raft_answer::Result::Body(body)) => Ok(body),
                Some(proto::raft_answer::Result::Failed(why)) => Err(CallError::Failed(why)),
                None => return End::Malformed("answer".to_owned()),
            };
            let _ = waiting.send(result); // whoever asked may have left
        }
    }
}
