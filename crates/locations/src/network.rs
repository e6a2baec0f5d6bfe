//! How a group's leader and candidates reach the other routers.

use crate::call::{Answer, Call, Piece, Refusal};
use crate::group::Promise;
use crate::image::{Image, ImageError};
use crate::lease::{GRANTED, Lease};
use crate::peers::{PeerError, SharedPeers};
use crate::snapshots::Parts;
use crate::types::{LogId, Member, Types, Vote};
use bytes::Bytes;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, Snapshot, StorageIOError};
use parking_lot::Mutex;
use starling_node::clock::SharedClock;
use starling_wire::RouterId;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// No message is longer; the links take a little more.
const LONGEST: usize = 1 << 20;
/// How long entries may take; a link that is silent for so long is dead. openraft asks for the same entries anew much sooner:
/// sent again each time, they would fill a slow link for good.
const ENTRIES_WITHIN: Duration = Duration::from_secs(3);
/// How long a piece of a snapshot may take.
const PIECE_WITHIN: Duration = Duration::from_secs(2);
/// How long the other router may take to install it.
const INSTALL_WITHIN: Duration = Duration::from_secs(30);
/// How soon a router that is not linked is tried again. openraft's own half second would hold back heartbeats as well.
const RETRY: Duration = Duration::from_millis(20);

/// How soon a snapshot that a router has not taken is sent again.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(500);

type RpcError<E = RaftError<u64>> = RPCError<u64, Member, E>;

/// What all calls of one group share. A cheap handle: openraft makes clients often.
#[derive(Clone)]
pub(crate) struct Network {
    /// The links.
    pub(crate) peers: SharedPeers,
    /// The group.
    pub(crate) group: u16,
    /// The cluster's number.
    pub(crate) cluster: Arc<AtomicU64>,
    /// For leases.
    pub(crate) clock: SharedClock,
    /// The group's lease here.
    pub(crate) lease: Arc<Lease>,
    /// What is promised to the group's leader here.
    pub(crate) promise: Arc<Mutex<Promise>>,
    /// Set when a member says that this router is none any more.
    pub(crate) removed: Arc<AtomicBool>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &Member) -> Client {
        Client { way: Way { network: self.clone(), to: RouterId(target) }, under_way: None }
    }
}

/// The way to one router.
#[derive(Clone)]
struct Way {
    network: Network,
    to: RouterId,
}

/// What openraft speaks to one router by.
pub(crate) struct Client {
    way: Way,
    under_way: Option<UnderWay>,
}

/// Entries on their way to a router.
struct UnderWay {
    vote: Vote,
    before: Option<LogId>,
    last: LogId,
    answer: JoinHandle<Result<AppendEntriesResponse<u64>, Failure>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Link(PeerError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("the answer cannot be read")]
    Unreadable,
    #[error("the leader has been promised to go on")]
    Promised,
}

impl Way {
    async fn ask(&self, call: &Call, within: Duration) -> Result<Answer, Failure> {
        let Network { peers, group, cluster, removed, .. } = &self.network;
        let body = call.encode(cluster.load(Ordering::Relaxed));
        let answer = peers.call(self.to, *group, body, within).await.map_err(Failure::Link)?;
        match Answer::decode(answer).map_err(|_| Failure::Unreadable)? {
            Answer::Refused(why) => {
                if why == Refusal::Removed {
                    removed.store(true, Ordering::Relaxed);
                }
                Err(Failure::Refused(why))
            }
            answer => Ok(answer),
        }
    }
}

/// What openraft makes of it: it tries again at once what the network has lost, and after [`RETRY`] where nobody is reached.
/// Who refuses answers in no time, and would be asked thousands of times a second.
fn failed<E: std::error::Error>(failure: Failure) -> RpcError<E> {
    match failure {
        Failure::Link(PeerError::NotLinked) | Failure::Refused(_) | Failure::Unreadable => {
            RPCError::Unreachable(Unreachable::new(&failure))
        }
        failure => RPCError::Network(NetworkError::new(&failure)),
    }
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        if rpc.entries.len() > 1 && weight(&rpc) > LONGEST {
            let fewer = u64::try_from(rpc.entries.len() / 2).unwrap_or(1);
            return Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(fewer)));
        }
        let Some(last) = rpc.entries.last().map(|entry| entry.log_id) else {
            // openraft gives up earlier. What is answered later is worth as much to the lease.
            let within = option.hard_ttl().max(GRANTED);
            let asked = tokio::spawn(self.way.clone().append(rpc, within)).await;
            return asked.unwrap_or(Err(Failure::Link(PeerError::Lost))).map_err(failed);
        };
        let (vote, before) = (rpc.vote, rpc.prev_log_id);
        let sent = match self.under_way.take() {
            Some(sent) if (sent.vote, sent.before) == (vote, before) => sent,
            _ => {
                let answer = tokio::spawn(self.way.clone().append(rpc, ENTRIES_WITHIN));
                UnderWay { vote, before, last, answer }
            }
        };
        let sent = self.under_way.insert(sent);
        // openraft gives up waiting here, and asks for the same once more.
        let answer = (&mut sent.answer).await;
        let upto = sent.last;
        self.under_way = None;
        match answer.unwrap_or(Err(Failure::Link(PeerError::Lost))).map_err(failed)? {
            // There are more by now than when these were sent.
            AppendEntriesResponse::Success if upto < last => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(upto)))
            }
            answer => Ok(answer),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        if !self.way.network.promise.lock().campaign(rpc.vote, self.way.network.clock.monotonic()) {
            return Err(failed(Failure::Promised));
        }
        match self.way.ask(&Call::Vote(rpc), option.hard_ttl()).await.map_err(failed)? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(failed(Failure::Unreadable)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = async {
                let sent = self.way.send(vote, *snapshot.snapshot).await;
                if matches!(sent, Err(StreamingError::Network(_) | StreamingError::StorageError(_))) {
                    // Each attempt reads it anew, and the other router writes it.
                    sleep(SNAPSHOT_RETRY).await;
                }
                sent
            } => sent,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}

impl Way {
    async fn append(
        self,
        rpc: AppendEntriesRequest<Types>,
        within: Duration,
    ) -> Result<AppendEntriesResponse<u64>, Failure> {
        let vote = rpc.vote;
        let sent = self.network.clock.monotonic();
        match self.ask(&Call::Append(rpc), within).await? {
            Answer::Append(answer) => {
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.network.lease.taken(vote, self.to.0, sent);
                }
                Ok(answer)
            }
            _ => Err(Failure::Unreadable),
        }
    }

    async fn send(
        &self,
        vote: Vote,
        image: Image,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let id = rand::random();
        let mut reading = Reading::Begin(image);
        for number in 0.. {
            let read = tokio::task::spawn_blocking(move || reading.next()).await;
            let (bytes, rest) = read.unwrap_or(Err(ImageError::GivenUp)).map_err(|error| {
                let error = AnyError::error(error.to_string());
                StreamingError::StorageError(StorageIOError::read_snapshot(None, error).into())
            })?;
            let last = rest.is_none();
            let within = if last { INSTALL_WITHIN } else { PIECE_WITHIN };
            let call = Call::Piece(Piece { vote, id, number, last, bytes });
            let answer = self.ask(&call, within).await.map_err(|failure| match failure {
                Failure::Link(PeerError::NotLinked) => {
                    StreamingError::Unreachable(Unreachable::new(&failure))
                }
                failure => StreamingError::Network(NetworkError::new(&failure)),
            })?;
            match (answer, rest) {
                // A higher vote ends it at any piece.
                (Answer::Piece(Some(vote)), _) => return Ok(SnapshotResponse::new(vote)),
                (Answer::Piece(None), Some(rest)) => reading = rest,
                _ => break,
            }
        }
        Err(StreamingError::Network(NetworkError::new(&Failure::Unreadable)))
    }
}

/// A snapshot that is being read, a piece ahead: the last one must be known for what it is.
enum Reading {
    Begin(Image),
    Rest(Parts, Bytes),
}

impl Reading {
    /// The next piece, and what comes after it. Blocks.
    fn next(self) -> Result<(Bytes, Option<Self>), ImageError> {
        let (mut parts, piece) = match self {
            Self::Begin(image) => {
                let parts = image.file()?.read()?;
                let description = parts.meta().clone();
                (parts, description)
            }
            Self::Rest(parts, piece) => (parts, piece),
        };
        let next = parts.next_part()?;
        Ok((piece, next.map(|next| Self::Rest(parts, next))))
    }
}

/// About how long the message is.
fn weight(rpc: &AppendEntriesRequest<Types>) -> usize {
    let entry = |entry: &crate::types::Entry| match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len() + 64,
        _ => 1024,
    };
    rpc.entries.iter().map(entry).sum()
}
