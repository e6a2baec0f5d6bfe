//! Between the messages of `proto/` and what the program works with.
//!
//! Reading checks everything that the rest relies on: addresses are addresses, stanzas decode, tokens have their
//! length, a variant is one that is known. What fails a check ends the link it came over, and nothing else. Stanzas
//! travel in the canonical form that the accepting edge wrote.

mod account;
mod down;
mod frames;
mod hello;
mod peer;
mod traces;
mod up;

pub(crate) use account::{
    account_answer, account_question, read_account, read_account_question, read_register, read_registration,
    register_answer, register_question,
};
pub(crate) use frames::{EdgePieces, PeerPieces, Pieces, RouterPieces, read_peer_frame, read_router_frame};
pub(crate) use hello::{
    edge_hello, peer_hello, read_edge_hello, read_peer_hello, read_router_hello, read_routers, router_hello,
};
pub(crate) use traces::{read_report, read_rules, report};
pub(crate) use up::Reader;

use crate::frame::{Home, NotHome};
use crate::{Epoch, RouterId, Shard, Token, Trace, proto};
use bytes::Bytes;
use starling_store::Position;
use starling_xmpp::{
    BareJid, Element, FullJid, IqType, Kind, Stanza, StanzaCondition, StanzaError, StreamError, ns,
};

/// What a message held that none may hold. It never names contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// The largest stanza that is sent, in bytes. Configuration keeps what clients may send well below.
pub const MAX_STANZA: usize = 1 << 20;
/// A frame is full from here on, in bytes.
pub(crate) const FULL: usize = 256 << 10;
/// The largest message that is sent and read, in bytes: a frame that is nearly full, and then the largest stanza with what
/// stands beside it.
pub const MAX_MESSAGE: usize = FULL + MAX_STANZA + (256 << 10);
/// What an envelope takes in a frame besides what is in it, in bytes.
const HEAD: usize = 16;
/// The most entries of one frame.
pub(crate) const MANY: usize = 4096;

type Result<T> = std::result::Result<T, Malformed>;

fn bare(text: &str) -> Result<BareJid> {
    BareJid::parse(text).map_err(|_| Malformed("address"))
}

fn full(text: &str) -> Result<FullJid> {
    FullJid::parse(text).map_err(|_| Malformed("address"))
}

fn read_token(bytes: &Bytes) -> Result<Token> {
    <[u8; 16]>::try_from(&**bytes)
        .map(|bytes| Token(u128::from_be_bytes(bytes)))
        .map_err(|_| Malformed("token"))
}

fn token(token: Token) -> Bytes {
    Bytes::copy_from_slice(&token.0.to_be_bytes())
}

fn read_shard(shard: u32) -> Result<Shard> {
    u16::try_from(shard).map(Shard).map_err(|_| Malformed("shard"))
}

fn read_stanza(bytes: Bytes) -> Result<Stanza> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Malformed("stanza"));
    }
    Stanza::decode(own(&bytes)).map_err(|_| Malformed("stanza"))
}

/// A copy: what may live long must not keep the buffer alive in which it came. That is as large as what came with it, and
/// no bound counts it.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn read_optional<T>(bytes: Bytes, read: impl FnOnce(Bytes) -> Result<T>) -> Result<Option<T>> {
    if bytes.is_empty() { Ok(None) } else { read(bytes).map(Some) }
}

fn stanza_error(error: &StanzaError) -> Bytes {
    error.to_element().to_bytes("")
}

fn read_stanza_error(bytes: Bytes) -> Result<Box<StanzaError>> {
    let element = Element::parse(&bytes, "").map_err(|_| Malformed("stanza error"))?;
    let error = StanzaError::from_element(&element).ok_or(Malformed("stanza error"))?;
    Ok(Box::new(error))
}

fn stream_error(error: &StreamError) -> Bytes {
    error.to_element().to_bytes("")
}

fn read_stream_error(bytes: Bytes) -> Result<Box<StreamError>> {
    let element = Element::parse(&bytes, ns::STREAMS).map_err(|_| Malformed("stream error"))?;
    StreamError::from_element(&element).map(Box::new).ok_or(Malformed("stream error"))
}

fn trace(trace: Trace) -> proto::Trace {
    proto::Trace {
        trace_id: Bytes::copy_from_slice(&trace.trace_id),
        span_id: Bytes::copy_from_slice(&trace.span_id),
        flags: u32::from(trace.flags),
    }
}

fn read_trace(trace: Option<proto::Trace>) -> Result<Option<Trace>> {
    let Some(trace) = trace else { return Ok(None) };
    let bad = Malformed("trace");
    Ok(Some(Trace {
        trace_id: <[u8; 16]>::try_from(&*trace.trace_id).map_err(|_| bad)?,
        span_id: <[u8; 8]>::try_from(&*trace.span_id).map_err(|_| bad)?,
        flags: u8::try_from(trace.flags).map_err(|_| bad)?,
    }))
}

fn home(home: Home) -> proto::Home {
    proto::Home { shard: u32::from(home.shard.0), epoch: home.epoch.0 }
}

fn read_home(home: proto::Home) -> Result<Home> {
    read_place(home.shard, home.epoch)
}

fn read_place(shard: u32, epoch: u64) -> Result<Home> {
    Ok(Home { shard: read_shard(shard)?, epoch: Epoch(epoch) })
}

fn not_home(not: NotHome) -> proto::NotHome {
    let NotHome { shard, epoch, hint } = not;
    proto::NotHome { shard: u32::from(shard.0), epoch: epoch.0, hint: hint.map(|router| router.0) }
}

fn read_not_home(not: proto::NotHome) -> Result<NotHome> {
    Ok(NotHome { shard: read_shard(not.shard)?, epoch: Epoch(not.epoch), hint: not.hint.map(RouterId) })
}

fn position(position: Option<Position>) -> Option<u64> {
    position.map(|position| position.0)
}

/// A stanza as bytes. One that no message has room for goes without its contents: its number must not go missing. Of an
/// IQ result an error is left: without its contents it would say something else.
fn stanza_bytes(stanza: &Stanza) -> (Bytes, bool) {
    let bytes = stanza.encode();
    if bytes.len() <= MAX_STANZA {
        return (bytes, false);
    }
    tracing::error!(
        event = "contents_left_out",
        bytes = bytes.len(),
        "a stanza is too large for a link: its contents are left out"
    );
    let mut head = stanza.clone();
    head.payload = starling_xmpp::Payload::empty();
    head.extra = None;
    head.id = head.id.filter(|id| id.len() < 1024);
    if head.kind == Kind::Iq(IqType::Result) {
        let error = StanzaError::new(StanzaCondition::ResourceConstraint)
            .with_text("the answer is larger than what can be carried");
        head.kind = Kind::Iq(IqType::Error);
        head.payload = error.to_element().into();
    }
    (head.encode(), true)
}

#[cfg(test)]
mod tests;
