//! What an edge keeps of a session, so that any home can go on with it.

use crate::shard::digest;
use crate::{Epoch, Token};
use bytes::Bytes;
use starling_store::Position;
use starling_xmpp::{BareJid, FullJid, Jid, Kind, MessageType, Stanza, StanzaCondition, ns};
use std::sync::Arc;
use std::time::Duration;

/// One session as its edge knows it. A home that has the session takes it as news of the counters; one that has not
/// builds the session from it. Which account and connection it is stands beside it, in the message that carries it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// For how long the session has had no connection; `None` while it has one. The message's connection is then the
    /// one that it had.
    pub detached: Option<Duration>,
    /// The session.
    pub token: Token,
    /// Its full JID.
    pub jid: FullJid,
    /// The reign that last spoke to it.
    pub epoch: Epoch,
    /// Highest sequence of the client's stanzas that a home has handled. The ones after it follow, with `again`.
    pub handled: u64,
    /// Those after it that have their answers already, rising: no home decides on them again.
    pub answered: Vec<u64>,
    /// What those are known by ([`request`]), in their order, if they are requests; else 0. Edges of before do not say it.
    pub asked: Vec<u64>,
    /// To whom messages were not confirmed of which the client has acknowledged the error, and up to which sequence it had spoken
    /// by then: what it said there was said before it knew.
    pub spoken: Vec<(BareJid, u64)>,
    /// Highest number of the home's stanzas that has come to the edge; 0 when none has.
    pub received: u64,
    /// Number of the first one over this connection, from which `Up::Written` counts; 0 when that is not known yet.
    pub first: u64,
    /// Stream management, once the edge has been told that it is on. Where the home believes that and the record does
    /// not say it, the answer was lost: the question follows once more and is answered the same.
    pub management: Option<Counting>,
    /// What has come and is not acknowledged (with stream management) or not written (without), by rising number.
    pub queue: Vec<Arc<Queued>>,
    /// Rows that were acknowledged, by rising position, as far as no home said that the store knows it.
    pub acknowledged: Vec<Position>,
    /// Highest row that has come, of copies too.
    pub highest: Option<Position>,
    /// What the home last asked to be remembered; empty when it never did.
    pub notes: Bytes,
}

/// Stream management (XEP-0198) as an edge knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counting {
    /// Sequence at which counting of the client's stanzas began.
    pub base: u64,
    /// The client's last `h`.
    pub acknowledged: u32,
}

/// A stanza that has come to the edge and may have to be sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// Its number in the session.
    pub number: u64,
    /// Its row, when it has one.
    pub position: Option<Position>,
    /// The row waits for an acknowledgement of this session.
    pub waits: bool,
    /// The client's `h` counts it.
    pub counts: bool,
    /// `to` and `from` as they go to the client.
    pub stanza: Stanza,
}

/// Accounts in [`Record::spoken`] at most.
pub(crate) const MOST_SPOKEN: usize = 64;

/// What a request is known by, of this id and to this address.
pub fn request(id: Option<&str>, to: Option<&Jid>) -> u64 {
    let to = to.map_or("", Jid::as_str).as_bytes();
    // No address has such a byte in it.
    digest(&[to, b"\0", id.unwrap_or_default().as_bytes()].concat())
}

/// For whom the message was that this error refuses with that condition.
pub fn refused(answer: &Stanza, condition: StanzaCondition) -> Option<BareJid> {
    if answer.kind != Kind::Message(MessageType::Error) {
        return None;
    }
    let error = answer.payload.get(ns::CLIENT, "error")?;
    error.element().find(ns::STANZAS, condition.as_str())?;
    answer.from.as_ref().map(Jid::to_bare)
}
