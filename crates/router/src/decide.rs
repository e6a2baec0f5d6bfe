//! What becomes of a stanza: pure decisions of a home, in two halves.
//!
//! `sent`: one of the account's sessions sends it. `received`: it arrives for the account.

pub(crate) mod iq;
pub(crate) mod message;

use crate::act::{What, origin};
use crate::delivery;
use crate::home::Home;
use crate::msg::{Forward, Ticket};
use crate::recognise::Before;
use crate::turn::Turn;
use starling_hooks::{Fate, Flow};
use starling_node::Span;
use starling_node::telemetry::Step;
use starling_wire::{Token, Trace};
use starling_xmpp::{IqType, Kind, Stanza, StanzaCondition, StanzaError};

/// A stanza of a session.
pub(crate) struct Said {
    pub(crate) sequence: u64,
    pub(crate) stanza: Stanza,
    /// What its edge has found wrong with it.
    pub(crate) fault: Option<Box<StanzaError>>,
    pub(crate) trace: Option<Trace>,
    /// It may have been decided before, by a home before this one.
    pub(crate) again: bool,
}

/// A session's stanza: taken, checked by the hooks, decided on by kind.
pub(crate) fn sent(turn: &mut Turn, home: &mut Home, at: usize, said: Said) {
    let Said { sequence, stanza, fault, trace, again } = said;
    let token = home.links[at].token;
    home.links[at].take(sequence);
    if again {
        home.links[at].was_decided(sequence);
    }
    home.touched = true;
    if fault.is_none()
        && let Kind::Message(_) = stanza.kind
    {
        message::sent(turn, home, at, Said { sequence, stanza, fault: None, trace, again });
        return;
    }
    let mut span = turn.shared.tracer.span(trace, Step::HomeSent);
    turn.deciding(&span);
    if let Some(fault) = fault {
        span.fail(fault.condition.as_str());
        refuse(turn, home, token, sequence, &stanza, &fault);
    } else {
        sent_plain(turn, home, at, (sequence, stanza, again), &mut span);
    }
    turn.decided(span);
}

/// A session's presence or IQ.
fn sent_plain(
    turn: &mut Turn,
    home: &mut Home,
    at: usize,
    (sequence, mut stanza, again): (u64, Stanza, bool),
    span: &mut Span,
) {
    let token = home.links[at].token;
    if again && matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set)) {
        // It may be done, and its answer lost.
        span.fail(StanzaCondition::ResourceConstraint.as_str());
        home.requests.ends(token, &stanza);
        refuse(turn, home, token, sequence, &stanza, &message::not_confirmed());
        return;
    }
    match sent_hooks(turn, home, at, &mut stanza, &mut Fate::default()) {
        Flow::Next => match stanza.kind {
            Kind::Iq(_) => {
                if !iq::sent(turn, home, at, stanza, sequence) {
                    return;
                }
            }
            _ => {
                let (before, writes) = (presence_of(home, at), turn.writes.len());
                let flow = turn.decide(home, Some(at), |cx| crate::im::presence::sent(cx, &stanza));
                if turn.writes.len() > writes {
                    turn.act(home, What::Asked(Some((token, sequence)), Box::new(stanza.clone())));
                }
                presence_hooks(turn, home, at, before);
                if let Flow::Refuse(error) = flow {
                    span.fail(error.condition.as_str());
                    reply(turn, home, (token, sequence), &stanza, &error);
                }
            }
        },
        Flow::Drop => {}
        Flow::Refuse(error) => {
            span.fail(error.condition.as_str());
            reply(turn, home, (token, sequence), &stanza, &error);
        }
    }
    turn.act(home, What::Settle(token, sequence));
}

/// A stanza has come for this account from some home.
pub(crate) fn received(turn: &mut Turn, home: &mut Home, forward: Forward) {
    let Forward { stanza, ticket, trace, passed, .. } = forward;
    if turn.shared.tier.is_some() && turn.shared.overtaken.is(&stanza, passed, turn.monotonic) {
        return;
    }
    if let Kind::Message(_) = stanza.kind {
        message::received(turn, home, stanza, ticket, trace);
        return;
    }
    let mut span = turn.shared.tracer.span(trace, Step::HomeReceived);
    turn.deciding(&span);
    received_plain(turn, home, stanza, &mut span);
    turn.decided(span);
}

/// Presence or an IQ.
fn received_plain(turn: &mut Turn, home: &mut Home, mut stanza: Stanza, span: &mut Span) {
    match received_hooks(turn, home, &mut stanza, &mut Fate::default()) {
        Flow::Next => match stanza.kind {
            Kind::Iq(_) => iq::received(turn, home, stanza),
            _ => {
                let writes = turn.writes.len();
                let flow = turn.decide(home, None, |cx| crate::im::presence::received(cx, &stanza));
                if turn.writes.len() > writes {
                    turn.act(home, What::Asked(None, Box::new(stanza.clone())));
                }
                if let Flow::Refuse(error) = flow {
                    span.fail(error.condition.as_str());
                    bounce(turn, home, &stanza, &error);
                }
            }
        },
        Flow::Drop => {}
        Flow::Refuse(error) => {
            span.fail(error.condition.as_str());
            bounce(turn, home, &stanza, &error);
        }
    }
}

/// What comes for an account that does not exist (RFC 6121 §8.5.1).
pub(crate) fn nobody(stanza: &Stanza) -> Option<Stanza> {
    let refused = match stanza.kind {
        Kind::Message(kind) => {
            matches!(crate::im::without_account(kind), crate::im::Recipients::Nobody { bounce: true, .. })
        }
        Kind::Iq(_) => true,
        Kind::Presence(_) => return crate::im::presence::without_account(stanza),
    };
    refused.then(|| stanza.error(&StanzaError::new(StanzaCondition::ServiceUnavailable))).flatten()
}

/// Why what is for somebody cannot be delivered: there is no such session; or, for some seconds after the account's home has
/// moved, its edge has yet to name it (`wait`).
pub(crate) fn is_not_there(turn: &Turn, home: &Home, stanza: &Stanza) -> StanzaError {
    let to = stanza.to.as_ref().filter(|to| !to.is_bare());
    let recorded = to.zip(turn.shared.tier.as_ref()).is_some_and(|(to, tier)| {
        let places = tier.register.places(&home.account.jid);
        places.iter().any(|place| place.jid.as_jid() == to && !home.has(place.token))
    });
    StanzaError::new(match recorded {
        true => StanzaCondition::RecipientUnavailable,
        false => StanzaCondition::ServiceUnavailable,
    })
}

fn presence_of(home: &Home, at: usize) -> bool {
    home.account.sessions[at].is_available()
}

/// Tells the hooks when a session has become available or unavailable.
pub(crate) fn presence_hooks(turn: &mut Turn, home: &mut Home, at: usize, before: bool) {
    let after = presence_of(home, at);
    if before == after {
        return;
    }
    let event = if after {
        starling_hooks::PresenceEvent::Available
    } else {
        starling_hooks::PresenceEvent::Unavailable
    };
    let shared = std::sync::Arc::clone(&turn.shared);
    for hook in shared.hooks.on_presence() {
        turn.decide(home, Some(at), |cx| hook.presence(cx, event));
    }
}

fn sent_hooks(turn: &mut Turn, home: &mut Home, at: usize, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
    let shared = std::sync::Arc::clone(&turn.shared);
    turn.decide(home, Some(at), |cx| {
        shared
            .hooks
            .on_sent()
            .map(|hook| hook.sent(cx, stanza, fate))
            .find(|flow| *flow != Flow::Next)
            .unwrap_or(Flow::Next)
    })
}

fn received_hooks(turn: &mut Turn, home: &mut Home, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
    let shared = std::sync::Arc::clone(&turn.shared);
    turn.decide(home, None, |cx| {
        shared
            .hooks
            .on_received()
            .map(|hook| hook.received(cx, stanza, fate))
            .find(|flow| *flow != Flow::Next)
            .unwrap_or(Flow::Next)
    })
}

/// Answers a session's own stanza with an error; the stanza counts as handled.
pub(crate) fn refuse(
    turn: &mut Turn,
    home: &mut Home,
    token: Token,
    sequence: u64,
    stanza: &Stanza,
    error: &StanzaError,
) {
    reply(turn, home, (token, sequence), stanza, error);
    turn.act(home, What::Settle(token, sequence));
}

/// Answers a session's own stanza with an error, where it may be answered.
pub(crate) fn reply(
    turn: &mut Turn,
    home: &mut Home,
    (token, sequence): (Token, u64),
    stanza: &Stanza,
    error: &StanzaError,
) {
    if let Some(answer) = error_to(home, token, stanza, error) {
        let trace = turn.follows();
        // What is decided from here on comes behind it.
        if let (Some(to), Some(at)) = (delivery::unconfirmed(&answer), home.find(token)) {
            home.links[at].will_refuse(to, sequence, turn.monotonic);
        }
        turn.act(home, What::Refuse(token, sequence, answer, trace));
    }
}

/// The error reply to one of the account's own sessions.
pub(crate) fn error_to(home: &Home, token: Token, stanza: &Stanza, error: &StanzaError) -> Option<Stanza> {
    let mut answer = stanza.error(error)?;
    if answer.from.is_none() {
        answer.from = Some(home.account.jid.clone().into());
    }
    answer.to = home.account.session(token).map(|session| session.jid.clone().into());
    Some(answer)
}

/// Answers somebody else's stanza with an error, where it may be answered.
pub(crate) fn bounce(turn: &mut Turn, home: &mut Home, stanza: &Stanza, error: &StanzaError) {
    if let Some(answer) = stanza.error(error) {
        let trace = turn.follows();
        turn.act(home, What::Route(answer, trace));
    }
}

/// The ticket of a session's message.
pub(crate) fn ticket(home: &Home, token: Token, sequence: u64) -> Ticket {
    let (origin, sender) = (origin(token, sequence), home.account.jid.clone());
    let before = Before::default();
    Ticket { origin, sender, token, sequence, again: None, repeated: false, pair: None, heard: 0, before }
}
