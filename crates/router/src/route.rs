//! From home to home: stanzas by their `to`, receipts back to the sender's.

use crate::msg::{Forward, Msg, Ticket};
use crate::shared::Shared;
use starling_xmpp::{BareJid, Stanza};

/// Homes a stanza may pass: a reply to a reply is no loop, more is.
const MAX_HOPS: u8 = 8;

/// Tells the sender's home that a message is safe.
pub(crate) fn receipt(shared: &Shared, ticket: Option<&Ticket>) {
    if let Some(ticket) = ticket {
        let account = ticket.sender.clone();
        shared.send(&ticket.sender, Msg::Receipt { account, token: ticket.token, sequence: ticket.sequence });
    }
}

/// Sends a stanza to the home of its `to`; what is not for an account here ends as RFC 6120 §10 says.
pub(crate) fn route(shared: &Shared, from: &BareJid, mut stanza: Stanza, hops: u8) {
    if stanza.from.is_none() {
        stanza.from = Some(from.clone().into());
    }
    let Some(to) = &stanza.to else { return };
    if hops > MAX_HOPS {
        tracing::warn!(event = "loop_dropped", "a stanza passed too many homes");
        return;
    }
    if shared.server.is_local(to) && to.local().is_some() {
        let account = to.to_bare();
        let forward = Forward { account: account.clone(), stanza, ticket: None, hops, trace: None };
        shared.send(&account, Msg::Forward(Box::new(forward)));
        return;
    }
    if shared.server.is_local(to)
        || matches!(stanza.kind, starling_xmpp::Kind::Presence(_)) && !is_subscription(&stanza)
    {
        return;
    }
    let error = starling_xmpp::StanzaError::new(starling_xmpp::StanzaCondition::RemoteServerNotFound);
    if let Some(answer) = stanza.error(&error) {
        route(shared, from, answer, hops + 1);
    }
}

/// The presence types whose failure the sender learns of (rfc 6120 §10.4: only these are answered).
pub(crate) fn is_subscription(stanza: &Stanza) -> bool {
    use starling_xmpp::{Kind, PresenceType};
    matches!(
        stanza.kind,
        Kind::Presence(
            PresenceType::Subscribe
                | PresenceType::Subscribed
                | PresenceType::Unsubscribe
                | PresenceType::Unsubscribed
        )
    )
}
