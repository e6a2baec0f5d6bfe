//! What goes between homes of different shards: how it is written into the items of links, and read from them.

use crate::msg::{Forward, Msg, Pairing, Refusal, Ticket};
use crate::recognise::Before;
use crate::shared::Shared;
use starling_wire::frame::{self, Home, Pair, PeerItem};
use starling_wire::{Epoch, Shard};
use starling_xmpp::BareJid;

/// A stanza for the home of another shard.
pub(crate) fn forward(shared: &Shared, shard: Shard, forward: Forward) -> PeerItem {
    let Forward { account, stanza, ticket, hops, trace, passed } = forward;
    let now = shared.clock.monotonic();
    let ticket = ticket.map(|ticket| frame::Ticket {
        origin: ticket.origin,
        sender: ticket.sender,
        token: ticket.token,
        sequence: ticket.sequence,
        prev: ticket.pair.and_then(|pair| pair.prev),
        again: ticket.repeated,
        // Clocks differ: how long ago it was is the same everywhere.
        resent: ticket.again.map(|moment| now.saturating_sub(moment)),
        before: ticket.before.through,
        unheard: ticket.before.unheard,
    });
    let home = Home { shard, epoch: Epoch::default() };
    PeerItem::Forward(Box::new(frame::Forward { home, account, stanza, ticket, hops, trace, passed }))
}

/// The receipt for a forward of another shard, for which this home is the recipient's.
pub(crate) fn receipt(shard: Shard, own: &BareJid, ticket: &Ticket, refused: Option<Refusal>) -> PeerItem {
    let refused = refused.map(|Refusal { answer, unsure }| frame::Refusal {
        answer,
        unsure: unsure.map(|(_, origin)| origin),
    });
    let (pair, sequence) = (pair(shard, own, ticket), ticket.sequence);
    PeerItem::Receipt(Box::new(frame::Receipt { pair, sequence, refused }))
}

/// Whose ticket it is and for whom, where `shard` is the sender's.
pub(crate) fn pair(shard: Shard, own: &BareJid, ticket: &Ticket) -> Pair {
    Pair { shard, sender: ticket.sender.clone(), token: ticket.token, recipient: own.clone() }
}

/// What came of another shard; `None` for what is no account's.
pub(crate) fn read(shared: &Shared, item: PeerItem) -> Option<Msg> {
    Some(match item {
        PeerItem::Forward(forward) => {
            let frame::Forward { account, stanza, ticket, hops, trace, passed, .. } = *forward;
            let now = shared.clock.monotonic();
            let ticket = ticket.map(|ticket| Ticket {
                origin: ticket.origin,
                sender: ticket.sender,
                token: ticket.token,
                sequence: ticket.sequence,
                again: ticket.resent.map(|ago| now.saturating_sub(ago)),
                repeated: ticket.again,
                pair: Some(Pairing { prev: ticket.prev }),
                before: Before { through: ticket.before, unheard: ticket.unheard },
                heard: 0,
            });
            Msg::Forward(Box::new(Forward { account, stanza, ticket, hops, trace, passed }))
        }
        PeerItem::Receipt(receipt) => {
            let frame::Receipt { pair, sequence, refused } = *receipt;
            let refused = refused.map(|refusal| {
                let unsure = refusal.unsure.map(|origin| (None, origin));
                Box::new(Refusal { answer: refusal.answer, unsure })
            });
            Msg::Receipt { account: pair.sender, token: pair.token, sequence, refused }
        }
        PeerItem::Missing(pair, after) => {
            let Pair { sender: account, token, recipient, .. } = *pair;
            Msg::Missing { account, token, recipient, after }
        }
        PeerItem::Busy(pair, _) => {
            let Pair { sender: account, token, recipient, .. } = *pair;
            Msg::Full { account, token, recipient }
        }
        PeerItem::Home(_) | PeerItem::NotHome(_) | PeerItem::Question { .. } | PeerItem::Answer { .. } => {
            return None;
        }
    })
}
