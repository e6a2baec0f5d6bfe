//! From home to home: stanzas by their `to`, receipts back to the sender's.

use crate::msg::{Forward, Msg, Ticket};
use crate::shared::Shared;
use starling_xmpp::{BareJid, Stanza};

/// Homes a stanza may pass: a reply to a reply is no loop, more is.
const MAX_HOPS: u8 = 8;

/// Tells the sender's home that a message is safe, or refused with this answer.
pub(crate) fn receipt(shared: &Shared, ticket: &Ticket, refused: Option<Stanza>) {
    let Ticket { sender, token, sequence, .. } = ticket;
    let (account, refused) = (sender.clone(), refused.map(Box::new));
    shared.send(sender, Msg::Receipt { account, token: *token, sequence: *sequence, refused });
}

/// Answers a stanza that arrived for `own`, with a receipt or on its own.
pub(crate) fn refused(
    shared: &Shared,
    own: &BareJid,
    ticket: Option<&Ticket>,
    answer: Option<Stanza>,
    hops: u8,
) {
    let answer = answer.map(|answer| with_from(own, answer));
    match (ticket, answer) {
        (Some(ticket), answer) => receipt(shared, ticket, answer),
        (None, Some(answer)) => route(shared, own, answer, hops),
        (None, None) => {}
    }
}

fn with_from(own: &BareJid, mut stanza: Stanza) -> Stanza {
    stanza.from.get_or_insert_with(|| own.clone().into());
    stanza
}

/// Sends a stanza to the home of its `to`; what is not for an account here ends as RFC 6120 §10 says.
pub(crate) fn route(shared: &Shared, from: &BareJid, stanza: Stanza, hops: u8) {
    let stanza = with_from(from, stanza);
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
