//! From home to home: stanzas by their `to`, receipts back to the sender's.

use crate::msg::{Forward, Msg, Refusal, Ticket};
use crate::recognise::Fingerprint;
use crate::shared::Shared;
use starling_xmpp::{BareJid, Stanza, StanzaCondition, StanzaError};

/// Homes a stanza may pass: a reply to a reply is no loop, more is.
const MAX_HOPS: u8 = 8;

/// Tells the sender's home that a message is safe, or why it is not.
pub(crate) fn receipt(shared: &Shared, ticket: &Ticket, refused: Option<Refusal>) {
    let Ticket { sender, token, sequence, .. } = ticket;
    let (account, refused) = (sender.clone(), refused.map(Box::new));
    shared.send(sender, Msg::Receipt { account, token: *token, sequence: *sequence, refused });
}

/// Refuses a stanza that arrived for `own`: with a receipt, or with an answer of its own.
pub(crate) fn refuse(
    shared: &Shared,
    own: &BareJid,
    ticket: Option<&Ticket>,
    stanza: &Stanza,
    error: &StanzaError,
    hops: u8,
) {
    let answer = stanza.error(error).map(|answer| with_from(own, answer));
    match ticket {
        Some(ticket) => {
            let unsure = error.condition == StanzaCondition::ResourceConstraint;
            let message = unsure.then(|| Fingerprint::of(&ticket.sender, own, stanza)).flatten();
            let unsure = message.map(|message| (message, ticket.origin));
            receipt(shared, ticket, Some(Refusal { answer, unsure }));
        }
        None => {
            if let Some(answer) = answer {
                route(shared, own, answer, hops);
            }
        }
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
    let error = StanzaError::new(StanzaCondition::RemoteServerNotFound);
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
