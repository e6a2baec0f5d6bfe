//! What routers say to each other about locations: one call, one answer.
//!
//! The links carry them as bytes and do not look inside. Each names the cluster, so that routers of two clusters which
//! meet by mistake learn nothing from each other.

use crate::codec::{CodecError, EntryPb, LogIdPb, VotePb};
use crate::types::{Entry, Types, Vote};
use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use prost::Message;
use starling_wire::RouterId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A question of one router to another.
#[derive(Debug)]
pub enum Call {
    /// A leader's entries, or a heartbeat.
    Append(AppendEntriesRequest<Types>),
    /// A candidate asks for a vote.
    Vote(VoteRequest<u64>),
    /// A piece of a leader's snapshot.
    Piece(Piece),
    /// A leader asks its heir to campaign.
    Elect {
        /// For how long there have been homes of the shard, one after the other.
        age: Duration,
    },
    /// Sent all the time.
    Ping(Ping),
    /// A router asks to be taken in.
    Join {
        /// The name of its place.
        name: String,
        /// Where its cluster port is.
        address: String,
    },
    /// A cluster is founded.
    Found {
        /// Its number.
        cluster: u64,
        /// Its first era.
        era: u64,
        /// Above which its positions are.
        floor: u64,
    },
    /// A router is to be a member no more.
    Remove(RouterId),
    /// These routers are to vote, and no others.
    Reconcile(Wanted),
    /// A router asks the leader whether it is to campaign, as it was asked to.
    Heir,
}

/// Who is to vote. With nobody who votes it is only asked whether those who are to go are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// They vote.
    pub voters: BTreeSet<RouterId>,
    /// They are members no more.
    pub gone: BTreeSet<RouterId>,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The leader's vote.
    pub vote: Vote,
    /// Names this sending of it.
    pub id: u64,
    /// Which piece: the first is what describes it, the others are its parts in order.
    pub number: u64,
    /// Whether it is the last.
    pub last: bool,
    /// The bytes.
    pub bytes: Bytes,
}

/// How it goes at a router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ping {
    /// The cluster it belongs to; 0 if none.
    pub cluster: u64,
    /// The cluster's era.
    pub era: u64,
    /// Above which the era's positions are.
    pub floor: u64,
    /// Its disk has no state of any group, so that a cluster may be founded with it.
    pub fresh: bool,
    /// The groups whose leader it hears, a bit each.
    pub hears: Vec<u8>,
    /// The groups that it leads with a lease.
    pub leads: Vec<u8>,
    /// How many groups it leads.
    pub reigns: u32,
    /// It is about to leave and takes no leadership.
    pub leaving: bool,
    /// A group of it has waited for its disk for a while: it could not take one.
    pub stuck: bool,
    /// The edges that are linked to it; `None` from one of an earlier version, and where they are too many to be told.
    pub edges: Option<Arc<BTreeSet<u64>>>,
    /// In a call: the groups and terms in which it leads and asks that nobody else be given a vote for a while.
    pub renews: Vec<(u16, u64)>,
    /// In the answer: the groups in which that was promised, a bit each.
    pub promised: Vec<u8>,
}

/// The answer to a [`Call`].
#[derive(Debug)]
pub enum Answer {
    /// To entries.
    Append(AppendEntriesResponse<u64>),
    /// To a candidate.
    Vote(VoteResponse<u64>),
    /// A piece is there; with the last one the snapshot was installed, under this vote.
    Piece(Option<Vote>),
    /// To a ping: how it goes here.
    Pong(Ping),
    /// It was done, or begun.
    Done,
    /// It was not done.
    Refused(Refusal),
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read here.
    #[error("malformed or of a later version")]
    Malformed,
    /// The caller belongs to another cluster, or to none, or this router to none.
    #[error("not of the same cluster")]
    Stranger,
    /// The caller was a member and is none any more: another disk is there in its stead, or it was removed.
    #[error("no member any more")]
    Removed,
    /// A leader with a lease votes for nobody.
    #[error("led with a lease")]
    Led,
    /// Not now.
    #[error("not now")]
    Busy,
    /// The group has stopped here.
    #[error("stopped")]
    Stopped,
    /// A router that is to be removed is linked here.
    #[error("who is to be removed is linked")]
    Linked,
    /// A router speaks for itself only, and its certificate is not for this name.
    #[error("not the caller's name")]
    Name,
    /// The place of that name is another disk's, of which this router has heard a moment ago.
    #[error("another router of this name was here a moment ago")]
    Kept,
}

impl Call {
    /// The call as bytes.
    pub fn encode(&self, cluster: u64) -> Bytes {
        let kind = match self {
            Self::Append(append) => CallKind::Append(AppendPb {
                vote: Some((&append.vote).into()),
                previous: append.prev_log_id.as_ref().map(Into::into),
                entries: append.entries.iter().map(Into::into).collect(),
                committed: append.leader_commit.as_ref().map(Into::into),
            }),
            Self::Vote(vote) => CallKind::Vote(CandidatePb {
                vote: Some((&vote.vote).into()),
                last: vote.last_log_id.as_ref().map(Into::into),
            }),
            Self::Piece(piece) => CallKind::Piece(PiecePb {
                vote: Some((&piece.vote).into()),
                id: piece.id,
                number: piece.number,
                last: piece.last,
                bytes: piece.bytes.clone(),
            }),
            Self::Elect { age } => {
                CallKind::Elect(ElectPb { age: u64::try_from(age.as_millis()).unwrap_or(u64::MAX) })
            }
            Self::Ping(ping) => CallKind::Ping(ping.into()),
            Self::Join { name, address } => {
                CallKind::Join(JoinPb { name: name.clone(), address: address.clone() })
            }
            Self::Found { cluster, era, floor } => {
                CallKind::Found(FoundPb { cluster: *cluster, era: *era, floor: *floor })
            }
            Self::Remove(router) => CallKind::Remove(router.0),
            Self::Reconcile(wanted) => CallKind::Reconcile(WantedPb {
                voters: wanted.voters.iter().map(|id| id.0).collect(),
                gone: wanted.gone.iter().map(|id| id.0).collect(),
            }),
            Self::Heir => CallKind::Heir(EmptyPb {}),
        };
        CallPb { cluster, kind: Some(kind) }.encode_to_vec().into()
    }

    /// The call that these bytes are, and the caller's cluster.
    ///
    /// # Errors
    /// When they are none, or one of a later version.
    pub fn decode(bytes: Bytes) -> Result<(u64, Self), CodecError> {
        let call = CallPb::decode(bytes)?;
        let kind = match call.kind.ok_or(CodecError::Missing("a call's kind"))? {
            CallKind::Append(append) => {
                let entries: Result<Vec<Entry>, CodecError> =
                    append.entries.into_iter().map(TryInto::try_into).collect();
                Self::Append(AppendEntriesRequest {
                    vote: vote(append.vote)?,
                    prev_log_id: append.previous.map(Into::into),
                    entries: entries?,
                    leader_commit: append.committed.map(Into::into),
                })
            }
            CallKind::Vote(candidate) => Self::Vote(VoteRequest {
                vote: vote(candidate.vote)?,
                last_log_id: candidate.last.map(Into::into),
            }),
            CallKind::Piece(piece) => Self::Piece(Piece {
                vote: vote(piece.vote)?,
                id: piece.id,
                number: piece.number,
                last: piece.last,
                bytes: piece.bytes,
            }),
            CallKind::Elect(ElectPb { age }) => Self::Elect { age: Duration::from_millis(age) },
            CallKind::Ping(ping) => Self::Ping(ping.into()),
            CallKind::Join(join) => Self::Join { name: join.name, address: join.address },
            CallKind::Found(found) => {
                Self::Found { cluster: found.cluster, era: found.era, floor: found.floor }
            }
            CallKind::Remove(router) => Self::Remove(RouterId(router)),
            CallKind::Reconcile(WantedPb { voters, gone }) => Self::Reconcile(Wanted {
                voters: voters.into_iter().map(RouterId).collect(),
                gone: gone.into_iter().map(RouterId).collect(),
            }),
            CallKind::Heir(EmptyPb {}) => Self::Heir,
        };
        Ok((call.cluster, kind))
    }
}

impl Answer {
    /// The answer as bytes.
    pub fn encode(&self) -> Bytes {
        let kind = match self {
            Self::Append(answer) => AnswerKind::Append(match answer {
                AppendEntriesResponse::Success => AppendedPb { result: APPENDED, ..AppendedPb::default() },
                AppendEntriesResponse::PartialSuccess(upto) => AppendedPb {
                    result: APPENDED_PARTLY,
                    upto: upto.as_ref().map(Into::into),
                    ..AppendedPb::default()
                },
                AppendEntriesResponse::Conflict => AppendedPb { result: CONFLICT, ..AppendedPb::default() },
                AppendEntriesResponse::HigherVote(vote) => {
                    AppendedPb { result: HIGHER_VOTE, vote: Some(vote.into()), ..AppendedPb::default() }
                }
            }),
            Self::Vote(answer) => AnswerKind::Vote(VotedPb {
                vote: Some((&answer.vote).into()),
                granted: answer.vote_granted,
                last: answer.last_log_id.as_ref().map(Into::into),
            }),
            Self::Piece(vote) => AnswerKind::Piece(TakenPb { vote: vote.as_ref().map(Into::into) }),
            Self::Pong(ping) => AnswerKind::Pong(ping.into()),
            Self::Done => AnswerKind::Done(EmptyPb {}),
            Self::Refused(why) => AnswerKind::Refused(refusal(*why)),
        };
        AnswerPb { kind: Some(kind) }.encode_to_vec().into()
    }

    /// The answer that these bytes are.
    ///
    /// # Errors
    /// When they are none, or one of a later version.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        Ok(match AnswerPb::decode(bytes)?.kind.ok_or(CodecError::Missing("an answer's kind"))? {
            AnswerKind::Append(answer) => Self::Append(match answer.result {
                APPENDED => AppendEntriesResponse::Success,
                APPENDED_PARTLY => AppendEntriesResponse::PartialSuccess(answer.upto.map(Into::into)),
                CONFLICT => AppendEntriesResponse::Conflict,
                HIGHER_VOTE => AppendEntriesResponse::HigherVote(vote(answer.vote)?),
                _ => return Err(CodecError::Missing("the result of an append")),
            }),
            AnswerKind::Vote(answer) => Self::Vote(VoteResponse {
                vote: vote(answer.vote)?,
                vote_granted: answer.granted,
                last_log_id: answer.last.map(Into::into),
            }),
            AnswerKind::Piece(answer) => Self::Piece(answer.vote.map(Into::into)),
            AnswerKind::Pong(ping) => Self::Pong(ping.into()),
            AnswerKind::Done(EmptyPb {}) => Self::Done,
            AnswerKind::Refused(why) => Self::Refused(match why {
                2 => Refusal::Stranger,
                3 => Refusal::Removed,
                4 => Refusal::Led,
                5 => Refusal::Busy,
                6 => Refusal::Stopped,
                7 => Refusal::Linked,
                8 => Refusal::Name,
                9 => Refusal::Kept,
                _ => Refusal::Malformed,
            }),
        })
    }
}

const APPENDED: u32 = 1;
const APPENDED_PARTLY: u32 = 2;
const CONFLICT: u32 = 3;
const HIGHER_VOTE: u32 = 4;

fn refusal(why: Refusal) -> u32 {
    match why {
        Refusal::Malformed => 1,
        Refusal::Stranger => 2,
        Refusal::Removed => 3,
        Refusal::Led => 4,
        Refusal::Busy => 5,
        Refusal::Stopped => 6,
        Refusal::Linked => 7,
        Refusal::Name => 8,
        Refusal::Kept => 9,
    }
}

fn vote(vote: Option<VotePb>) -> Result<Vote, CodecError> {
    Ok(vote.ok_or(CodecError::Missing("a vote"))?.into())
}

/// Whether a group's bit is set.
pub(crate) fn has(bits: &[u8], group: u16) -> bool {
    bits.get(usize::from(group / 8)).is_some_and(|byte| byte >> (group % 8) & 1 == 1)
}

/// The bits of these groups.
pub(crate) fn bits(groups: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut bits = Vec::new();
    for group in groups {
        let at = usize::from(group / 8);
        bits.resize(bits.len().max(at + 1), 0);
        bits[at] |= 1 << (group % 8);
    }
    bits
}

#[derive(Clone, PartialEq, Message)]
struct CallPb {
    #[prost(fixed64, tag = "1")]
    cluster: u64,
    #[prost(oneof = "CallKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    kind: Option<CallKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum CallKind {
    #[prost(message, tag = "2")]
    Append(AppendPb),
    #[prost(message, tag = "3")]
    Vote(CandidatePb),
    #[prost(message, tag = "4")]
    Piece(PiecePb),
    #[prost(message, tag = "5")]
    Elect(ElectPb),
    #[prost(message, tag = "6")]
    Ping(PingPb),
    #[prost(message, tag = "7")]
    Join(JoinPb),
    #[prost(message, tag = "8")]
    Found(FoundPb),
    #[prost(fixed64, tag = "9")]
    Remove(u64),
    #[prost(message, tag = "10")]
    Reconcile(WantedPb),
    #[prost(message, tag = "11")]
    Heir(EmptyPb),
}

#[derive(Clone, PartialEq, Message)]
struct WantedPb {
    #[prost(fixed64, repeated, tag = "1")]
    voters: Vec<u64>,
    #[prost(fixed64, repeated, tag = "2")]
    gone: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct EmptyPb {}

#[derive(Clone, PartialEq, Message)]
struct ElectPb {
    /// In milliseconds.
    #[prost(uint64, tag = "1")]
    age: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AppendPb {
    #[prost(message, optional, tag = "1")]
    vote: Option<VotePb>,
    #[prost(message, optional, tag = "2")]
    previous: Option<LogIdPb>,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<EntryPb>,
    #[prost(message, optional, tag = "4")]
    committed: Option<LogIdPb>,
}

#[derive(Clone, PartialEq, Message)]
struct CandidatePb {
    #[prost(message, optional, tag = "1")]
    vote: Option<VotePb>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdPb>,
}

#[derive(Clone, PartialEq, Message)]
struct PiecePb {
    #[prost(message, optional, tag = "1")]
    vote: Option<VotePb>,
    #[prost(fixed64, tag = "2")]
    id: u64,
    #[prost(uint64, tag = "3")]
    number: u64,
    #[prost(bool, tag = "4")]
    last: bool,
    #[prost(bytes = "bytes", tag = "5")]
    bytes: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PingPb {
    #[prost(fixed64, tag = "1")]
    cluster: u64,
    #[prost(bool, tag = "2")]
    fresh: bool,
    #[prost(bytes = "vec", tag = "3")]
    hears: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    leads: Vec<u8>,
    #[prost(uint32, tag = "5")]
    reigns: u32,
    #[prost(bool, tag = "6")]
    leaving: bool,
    #[prost(uint64, tag = "7")]
    era: u64,
    #[prost(uint64, tag = "8")]
    floor: u64,
    /// Group and term by turns.
    #[prost(uint64, repeated, tag = "9")]
    renews: Vec<u64>,
    #[prost(bytes = "vec", tag = "10")]
    promised: Vec<u8>,
    #[prost(bool, tag = "11")]
    stuck: bool,
    #[prost(message, optional, tag = "12")]
    edges: Option<EdgesPb>,
}

#[derive(Clone, PartialEq, Message)]
struct EdgesPb {
    #[prost(fixed64, repeated, tag = "1")]
    all: Vec<u64>,
}

/// More edges are not told: they would be in every ping.
const MOST_EDGES: usize = 1_024;

impl From<&Ping> for PingPb {
    fn from(ping: &Ping) -> Self {
        let Ping {
            cluster,
            era,
            floor,
            fresh,
            hears,
            leads,
            reigns,
            leaving,
            stuck,
            edges,
            renews,
            promised,
        } = ping.clone();
        let renews = renews.into_iter().flat_map(|(group, term)| [u64::from(group), term]).collect();
        let edges = edges.filter(|edges| edges.len() <= MOST_EDGES);
        let edges = edges.map(|edges| EdgesPb { all: edges.iter().copied().collect() });
        Self { cluster, fresh, hears, leads, reigns, leaving, era, floor, renews, promised, stuck, edges }
    }
}

impl From<PingPb> for Ping {
    fn from(ping: PingPb) -> Self {
        let PingPb {
            cluster,
            fresh,
            hears,
            leads,
            reigns,
            leaving,
            era,
            floor,
            renews,
            promised,
            stuck,
            edges,
        } = ping;
        let (pairs, _) = renews.as_chunks();
        let renews =
            pairs.iter().filter_map(|[group, term]| Some((u16::try_from(*group).ok()?, *term))).collect();
        let edges = edges.filter(|edges| edges.all.len() <= MOST_EDGES);
        let edges = edges.map(|edges| Arc::new(edges.all.into_iter().collect()));
        Self { cluster, era, floor, fresh, hears, leads, reigns, leaving, stuck, edges, renews, promised }
    }
}

#[derive(Clone, PartialEq, Message)]
struct JoinPb {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, Message)]
struct FoundPb {
    #[prost(fixed64, tag = "1")]
    cluster: u64,
    #[prost(uint64, tag = "2")]
    era: u64,
    #[prost(uint64, tag = "3")]
    floor: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerPb {
    #[prost(oneof = "AnswerKind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<AnswerKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum AnswerKind {
    #[prost(message, tag = "1")]
    Append(AppendedPb),
    #[prost(message, tag = "2")]
    Vote(VotedPb),
    #[prost(message, tag = "3")]
    Piece(TakenPb),
    #[prost(message, tag = "4")]
    Pong(PingPb),
    #[prost(message, tag = "5")]
    Done(EmptyPb),
    #[prost(uint32, tag = "6")]
    Refused(u32),
}

#[derive(Clone, PartialEq, Message)]
struct AppendedPb {
    #[prost(uint32, tag = "1")]
    result: u32,
    #[prost(message, optional, tag = "2")]
    upto: Option<LogIdPb>,
    #[prost(message, optional, tag = "3")]
    vote: Option<VotePb>,
}

#[derive(Clone, PartialEq, Message)]
struct VotedPb {
    #[prost(message, optional, tag = "1")]
    vote: Option<VotePb>,
    #[prost(bool, tag = "2")]
    granted: bool,
    #[prost(message, optional, tag = "3")]
    last: Option<LogIdPb>,
}

#[derive(Clone, PartialEq, Message)]
struct TakenPb {
    #[prost(message, optional, tag = "1")]
    vote: Option<VotePb>,
}

#[cfg(test)]
mod tests;
