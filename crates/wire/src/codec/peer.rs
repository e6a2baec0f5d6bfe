//! Between routers.

use super::{
    HEAD, Malformed, Result, bare, home, not_home, read_home, read_not_home, read_optional, read_place,
    read_shard, read_stanza, read_token, read_trace, stanza_bytes, token, trace,
};
use crate::frame::{Forward, Pair, PeerItem, Receipt, Refusal, Ticket};
use crate::proto;
use crate::proto::peer_item::Item as Said;
use prost::Message;
use starling_store::Origin;
use std::time::Duration;

/// The envelope for one item, and its size.
pub(super) fn envelope(item: PeerItem) -> (proto::PeerItem, usize) {
    let said = match item {
        PeerItem::Home(new) => Said::Home(home(new)),
        PeerItem::NotHome(not) => Said::NotHome(not_home(not)),
        PeerItem::Forward(forward) => {
            let (stanza, _) = stanza_bytes(&forward.stanza);
            Said::Forward(proto::Forward {
                shard: u32::from(forward.home.shard.0),
                epoch: forward.home.epoch.0,
                account: forward.account.as_str().to_owned(),
                stanza,
                ticket: forward.ticket.map(ticket),
                hops: u32::from(forward.hops),
                trace: forward.trace.map(trace),
                passed: forward.passed,
            })
        }
        PeerItem::Receipt(receipt) => {
            let Receipt { pair, sequence, refused } = *receipt;
            let refused = refused.map(refusal);
            Said::Receipt(proto::Receipt {
                shard: u32::from(pair.shard.0),
                sender: pair.sender.as_str().to_owned(),
                token: token(pair.token),
                sequence,
                recipient: pair.recipient.as_str().to_owned(),
                refused,
            })
        }
        PeerItem::Missing(pair, after) => Said::Missing(proto::Missing {
            shard: u32::from(pair.shard.0),
            sender: pair.sender.as_str().to_owned(),
            token: token(pair.token),
            recipient: pair.recipient.as_str().to_owned(),
            after,
        }),
        PeerItem::Busy(pair, sequence) => Said::Busy(proto::Busy {
            shard: u32::from(pair.shard.0),
            sender: pair.sender.as_str().to_owned(),
            token: token(pair.token),
            sequence,
            recipient: pair.recipient.as_str().to_owned(),
        }),
        PeerItem::Question { id, body } => Said::Question(proto::Question { id, body }),
        PeerItem::Answer { id, body } => Said::Answer(proto::Answer { id, body }),
    };
    let item = proto::PeerItem { item: Some(said) };
    let size = item.encoded_len() + HEAD;
    (item, size)
}

fn ticket(ticket: Ticket) -> proto::Ticket {
    proto::Ticket {
        origin: Some(origin(ticket.origin)),
        sender: ticket.sender.as_str().to_owned(),
        token: token(ticket.token),
        sequence: ticket.sequence,
        prev: ticket.prev,
        again: ticket.again,
        resent: ticket.resent.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        before: ticket.before,
        unheard_after: ticket.unheard.0,
        unheard_through: ticket.unheard.1,
    }
}

fn origin(origin: Origin) -> proto::Origin {
    proto::Origin { session: token(crate::Token(origin.session)), sequence: origin.sequence }
}

fn refusal(refusal: Refusal) -> proto::Refusal {
    proto::Refusal {
        answer: refusal.answer.map(|answer| stanza_bytes(&answer).0).unwrap_or_default(),
        unsure: refusal.unsure.map(origin),
    }
}

pub(super) fn read(item: proto::PeerItem) -> Result<PeerItem> {
    Ok(match item.item.ok_or(Malformed("message of a router"))? {
        Said::Home(home) => PeerItem::Home(read_home(home)?),
        Said::NotHome(not) => PeerItem::NotHome(read_not_home(not)?),
        Said::Forward(forward) => PeerItem::Forward(Box::new(Forward {
            home: read_place(forward.shard, forward.epoch)?,
            account: bare(&forward.account)?,
            stanza: read_stanza(forward.stanza)?,
            ticket: forward.ticket.map(read_ticket).transpose()?,
            hops: u8::try_from(forward.hops).map_err(|_| Malformed("hops"))?,
            trace: read_trace(forward.trace)?,
            passed: forward.passed,
        })),
        Said::Receipt(receipt) => {
            let pair = read_pair(receipt.shard, &receipt.sender, &receipt.token, &receipt.recipient)?;
            let refused = receipt.refused.map(read_refusal).transpose()?;
            PeerItem::Receipt(Box::new(Receipt { pair, sequence: receipt.sequence, refused }))
        }
        Said::Missing(missing) => {
            let pair = read_pair(missing.shard, &missing.sender, &missing.token, &missing.recipient)?;
            PeerItem::Missing(Box::new(pair), missing.after)
        }
        Said::Busy(busy) => {
            let pair = read_pair(busy.shard, &busy.sender, &busy.token, &busy.recipient)?;
            PeerItem::Busy(Box::new(pair), busy.sequence)
        }
        Said::Question(proto::Question { id, body }) => PeerItem::Question { id, body },
        Said::Answer(proto::Answer { id, body }) => PeerItem::Answer { id, body },
    })
}

fn read_pair(shard: u32, sender: &str, token: &bytes::Bytes, recipient: &str) -> Result<Pair> {
    Ok(Pair {
        shard: read_shard(shard)?,
        sender: bare(sender)?,
        token: read_token(token)?,
        recipient: bare(recipient)?,
    })
}

fn read_ticket(ticket: proto::Ticket) -> Result<Ticket> {
    Ok(Ticket {
        origin: read_origin(&ticket.origin.ok_or(Malformed("origin"))?)?,
        sender: bare(&ticket.sender)?,
        token: read_token(&ticket.token)?,
        sequence: ticket.sequence,
        prev: ticket.prev,
        again: ticket.again,
        resent: ticket.resent.map(Duration::from_millis),
        before: ticket.before,
        unheard: (ticket.unheard_after, ticket.unheard_through),
    })
}

fn read_origin(origin: &proto::Origin) -> Result<Origin> {
    Ok(Origin { session: read_token(&origin.session)?.0, sequence: origin.sequence })
}

fn read_refusal(refusal: proto::Refusal) -> Result<Refusal> {
    Ok(Refusal {
        answer: read_optional(refusal.answer, read_stanza)?,
        unsure: refusal.unsure.as_ref().map(read_origin).transpose()?,
    })
}
