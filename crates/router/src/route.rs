//! From home to home: stanzas by their `to`, receipts back to the sender's.

use crate::mail;
use crate::msg::{Forward, Msg, Refusal, Ticket};
use crate::recognise::Fingerprint;
use crate::shared::Shared;
use starling_wire::Trace;
use starling_wire::frame::MAX_HOPS;
use starling_xmpp::{BareJid, ErrorType, IqType, Kind, Stanza, StanzaCondition, StanzaError};

/// Tells the sender's home that a message is safe, or why it is not.
pub(crate) fn receipt(shared: &Shared, own: &BareJid, ticket: &Ticket, refused: Option<Refusal>) {
    if let (Some(shard), Some(tier)) = (shared.elsewhere(&ticket.sender), &shared.tier) {
        // Whoever waits for it asks again, should it be lost.
        tier.post.send(shard, mail::receipt(shard, own, ticket, refused));
        return;
    }
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
            if unsure {
                shared.behind.add(own, ticket, shared.clock.monotonic());
            }
            let message = unsure.then(|| Fingerprint::of(&ticket.sender, own, stanza)).flatten();
            let unsure = message.map(|message| (Some(message), ticket.origin));
            receipt(shared, own, ticket, Some(Refusal { answer, unsure }));
        }
        None => {
            if let Some(answer) = answer {
                route(shared, own, answer, hops, None);
            }
        }
    }
}

fn with_from(own: &BareJid, mut stanza: Stanza) -> Stanza {
    stanza.from.get_or_insert_with(|| own.clone().into());
    stanza
}

/// Sends a stanza to the home of its `to`; what is not for an account here ends as RFC 6120 §10 says.
pub(crate) fn route(shared: &Shared, from: &BareJid, stanza: Stanza, hops: u8, trace: Option<Trace>) {
    let stanza = with_from(from, stanza);
    let Some(to) = &stanza.to else { return };
    if hops > MAX_HOPS {
        tracing::warn!(event = "loop_dropped", "a stanza passed too many homes");
        return;
    }
    if shared.server.is_local(to) && to.local().is_some() {
        let account = to.to_bare();
        let asks = matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set)).then(|| stanza.clone());
        let forward = Forward { account, stanza, ticket: None, hops, trace, passed: false };
        if let (false, Some(request)) = (shared.forward(forward), asks) {
            // Nobody else will answer it.
            let error = StanzaError::new(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait);
            if let Some(answer) = request.error(&error) {
                route(shared, from, answer, hops + 1, trace);
            }
        }
        return;
    }
    if shared.server.is_local(to) {
        return;
    }
    if matches!(stanza.kind, Kind::Presence(_)) && !is_subscription(&stanza) {
        return;
    }
    let error = StanzaError::new(StanzaCondition::RemoteServerNotFound);
    if let Some(answer) = stanza.error(&error) {
        route(shared, from, answer, hops + 1, trace);
    }
}

/// The presence types whose failure the sender learns of (rfc 6120 §10.4: only these are answered).
pub(crate) fn is_subscription(stanza: &Stanza) -> bool {
    use starling_xmpp::PresenceType;
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
