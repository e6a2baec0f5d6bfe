//! IQ requests and their answers (RFC 6120 §8.2.3, RFC 6121 §8.5).

use crate::act::What;
use crate::decide::{bounce, is_not_there, reply};
use crate::home::Home;
use crate::msg::{Ask, Msg};
use crate::turn::Turn;
use futures::FutureExt;
use starling_hooks::{Answer, At, Effect, Later};
use starling_wire::{Token, Trace};
use starling_xmpp::{Element, IqType, Kind, Stanza, StanzaCondition, StanzaError, ns};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// How many questions may wait for each that is being worked on.
const QUEUED_PER_SLOT: usize = 8;

/// One of the account's sessions sends an IQ. False: it is handled with its answer, which follows.
pub(crate) fn sent(turn: &mut Turn, home: &mut Home, at: usize, stanza: Stanza, sequence: u64) -> bool {
    let token = home.links[at].token;
    let own = &home.account.jid;
    let server = &turn.shared.server;
    let target = match &stanza.to {
        None => Some(At::Account),
        Some(to) if to.as_str() == own.as_str() => Some(At::Account),
        Some(to) if server.is_local(to) && to.is_domain_only() => Some(At::Server),
        Some(_) => None,
    };
    match (target, &stanza.to) {
        (Some(target), _) => return answer(turn, home, target, Some((at, sequence)), stanza),
        (None, Some(to)) if server.is_local(to) && to.local().is_some() => {
            if let Kind::Iq(IqType::Result | IqType::Error) = stanza.kind {
                home.links[at].has_answered(&stanza);
            }
            let trace = turn.follows();
            turn.act(home, What::Route(stanza, trace));
        }
        (None, Some(to)) => {
            let condition = if server.is_local(to) {
                StanzaCondition::ServiceUnavailable
            } else {
                StanzaCondition::RemoteServerNotFound
            };
            reply(turn, home, (token, sequence), &stanza, &StanzaError::new(condition));
        }
        (None, None) => {}
    }
    true
}

/// An IQ arrives for the account.
pub(crate) fn received(turn: &mut Turn, home: &mut Home, stanza: Stanza) {
    let Some(to) = stanza.to.clone() else { return };
    if to.is_bare() {
        answer(turn, home, At::Account, None, stanza);
        return;
    }
    let session =
        home.account.resource(&to).filter(|_| !is_only_ours(home, &stanza)).map(|session| session.token);
    match session {
        Some(token) => {
            let answers = matches!(stanza.kind, Kind::Iq(IqType::Result | IqType::Error));
            // Only those of other accounts of a cluster are remembered.
            let answers = answers
                && turn.shared.tier.is_some()
                && stanza.from.as_ref().is_some_and(|from| from.local().is_some());
            if answers && !home.requests.answered(token, &stanza) {
                return;
            }
            let trace = turn.follows();
            turn.act(home, What::Deliver(token, stanza, trace));
        }
        None => {
            let error = is_not_there(turn, home, &stanza);
            bounce(turn, home, &stanza, &error);
        }
    }
}

/// Pushes of the roster and the block list come from the account's own home. Clients that take them from anybody have been
/// fooled before (RFC 6121 §2.1.6): from others they do not pass.
fn is_only_ours(home: &Home, stanza: &Stanza) -> bool {
    let own = stanza.from.as_ref().is_some_and(|from| from.same_bare(&home.account.jid));
    let pushed = || stanza.payload.has_ns(ns::ROSTER) || stanza.payload.has_ns(ns::BLOCKING);
    matches!(stanza.kind, Kind::Iq(IqType::Set)) && !own && pushed()
}

/// Answers a request for the account or the server; of a session, what it says under a sequence. False: the answer follows.
fn answer(
    turn: &mut Turn,
    home: &mut Home,
    target: At,
    session: Option<(usize, u64)>,
    stanza: Stanza,
) -> bool {
    let at = session.map(|(at, _)| at);
    let Kind::Iq(IqType::Get | IqType::Set) = stanza.kind else {
        // A result or error for us: of a ping or a push; nobody waits for it.
        return true;
    };
    let said = session.map(|(at, sequence)| (home.links[at].token, sequence));
    let whose = (said, turn.follows());
    let Some(payload) = stanza.payload.children().next().map(|child| child.element()) else {
        let error = StanzaError::new(StanzaCondition::BadRequest);
        finish(turn, home, ask(whose, &stanza), Err(Box::new(error)));
        return true;
    };
    let shared = Arc::clone(&turn.shared);
    let Some(hook) = shared.hooks.answers(target, &payload) else {
        let condition = if shared.hooks.knows(target, payload.ns()) {
            StanzaCondition::FeatureNotImplemented
        } else {
            StanzaCondition::ServiceUnavailable
        };
        finish(turn, home, ask_whole(whose, stanza), Err(Box::new(StanzaError::new(condition))));
        return true;
    };
    let before = turn.acts.len();
    match turn.decide(home, at, |cx| hook.answer(cx, &stanza, &payload)) {
        Answer::Result(result) => {
            finish(turn, home, ask(whose, &stanza), Ok(result));
            // The answer first, then what follows from it: pushes (RFC 6121 §2.6.3), the end of the session of
            // somebody who removes their account (XEP-0077 §3.2).
            turn.acts[before..].rotate_right(1);
        }
        // XEP-0077 §3.3: an error to a password change does not repeat the password.
        Answer::Error(error) if payload.ns() == ns::REGISTER => {
            finish(turn, home, ask(whose, &stanza), Err(error))
        }
        Answer::Error(error) => finish(turn, home, ask_whole(whose, stanza), Err(error)),
        Answer::Later(work) => {
            let slots = turn.shared.config.queries.max(1);
            if home.questions.len() >= slots * QUEUED_PER_SLOT {
                let busy = StanzaError::new(StanzaCondition::ResourceConstraint)
                    .with_text("too many requests at once");
                finish(turn, home, ask_whole(whose, stanza), Err(Box::new(busy)));
                return true;
            }
            let mut ask = ask(whose, &stanza);
            ask.settles = true;
            home.questions.push_back((ask, work));
            start(turn, home);
            return false;
        }
    }
    true
}

/// Begins to work on questions as far as there are slots.
pub(crate) fn start(turn: &mut Turn, home: &mut Home) {
    while home.asking < turn.shared.config.queries.max(1) {
        let Some((ask, work)) = home.questions.pop_front() else { return };
        home.asking += 1;
        let account = home.account.jid.clone();
        turn.ask(Box::pin(async move {
            // A mistake in a module costs its question, not the worker.
            let later = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(event = "answer_panicked", "an answer could not be worked out");
                let error = StanzaError::new(StanzaCondition::InternalServerError);
                Later { effects: Vec::new(), answer: Err(Box::new(error)) }
            });
            Msg::Answered { account, ask, later }
        }));
    }
}

/// An answer has been worked out.
pub(crate) fn answered(turn: &mut Turn, home: &mut Home, ask: Box<Ask>, later: Later) {
    home.asking = home.asking.saturating_sub(1);
    let Later { effects, mut answer } = later;
    let room = ask.token.and_then(|token| home.find(token)).is_none_or(|at| {
        let bytes: usize = effects.iter().map(size).sum();
        home.links[at].has_room_for(effects.len(), bytes, &turn.shared.config)
    });
    if !room {
        // A page with holes would look whole: the client asks again when it has acknowledged what it got.
        let busy =
            StanzaError::new(StanzaCondition::ResourceConstraint).with_text("too much is not acknowledged");
        answer = Err(Box::new(busy));
    }
    for effect in effects.into_iter().filter(|_| room) {
        turn.take(home, effect);
    }
    let settles = ask.token.filter(|_| ask.settles).map(|token| (token, ask.sequence));
    finish(turn, home, ask, answer);
    if let Some((token, sequence)) = settles {
        turn.act(home, What::Settle(token, sequence));
    }
    start(turn, home);
}

/// How many bytes of an answer's session it takes.
fn size(effect: &Effect) -> usize {
    match effect {
        Effect::Deliver(_, stanza) => stanza.encoded_len(),
        _ => 0,
    }
}

/// The session that asks, if one of the account's does, and under which sequence; the trace.
type Whose = (Option<(Token, u64)>, Option<Trace>);

/// Sends the answer after everything decided before it.
fn finish(
    turn: &mut Turn,
    home: &mut Home,
    ask: Box<Ask>,
    answer: Result<Option<Element>, Box<StanzaError>>,
) {
    let answer = answer.map(|payload| match payload {
        Some(payload) => ask.request.result().child(payload),
        None => ask.request.result(),
    });
    turn.act(home, What::Answer(ask, answer));
}

fn ask(whose: Whose, stanza: &Stanza) -> Box<Ask> {
    let mut request = stanza.clone();
    request.payload = starling_xmpp::Payload::empty();
    ask_whole(whose, request)
}

fn ask_whole((said, trace): Whose, request: Stanza) -> Box<Ask> {
    let (token, sequence) = (said.map(|(token, _)| token), said.map_or(0, |(_, sequence)| sequence));
    Box::new(Ask { token, sequence, settles: false, request, trace })
}
