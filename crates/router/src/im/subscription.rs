//! Subscriptions (RFC 6121 §3): the steps of [`state`] carried into effects.

pub mod state;

use super::{is_blocked, presence, refuse, refuse_blocked};
use bytes::Bytes;
use starling_hooks::{Cx, Effect, Flow, roster_push};
use starling_store::RosterItem;
use starling_xmpp::{BareJid, Jid, Kind, Payload, PresenceType, Stanza, StanzaCondition};
use state::{Shown, State, Step, Verb, inbound, outbound};

/// How large a waiting request is kept whole; of a larger one only its being there, so that strangers cannot fill an
/// account.
const KEPT_WHOLE: usize = 8 * 1024;

/// A session of this account sends `subscribe`, `subscribed`, `unsubscribe` or `unsubscribed`.
pub fn sent(cx: &mut Cx<'_>, stanza: &Stanza) -> Flow {
    let (Some(verb), Some(to)) = (verb(stanza), &stanza.to) else {
        return refuse(StanzaCondition::BadRequest);
    };
    let contact = to.to_bare();
    if contact == cx.account.jid {
        cx.because = "to oneself";
        return Flow::Drop;
    }
    if is_blocked(cx.account, &contact) {
        return refuse_blocked(cx);
    }
    if contact.is_domain_only() && cx.server.is_local(&contact) {
        return ask_domain(cx, stanza, verb, &contact);
    }
    let item = item(cx, &contact);
    let step = outbound(State::of(&item), verb);
    if step.pushes && !item.visible && is_full(cx) {
        cx.because = "roster full";
        return refuse(StanzaCondition::ResourceConstraint);
    }
    let item = keep(cx, item, &step, None);
    if step.passes {
        let mut routed = stanza.clone();
        routed.from = Some(cx.account.jid.clone().into());
        routed.to = Some(contact.clone().into());
        cx.route(routed);
    }
    if step.pushes {
        roster_push::push(cx, &item);
    }
    show(cx, &contact, step.shows);
    Flow::Next
}

/// One of the four arrives from a contact. Ends here in any case: what no state asks for is dropped in silence.
pub fn received(cx: &mut Cx<'_>, stanza: &Stanza) -> Flow {
    let (Some(verb), Some(from)) = (verb(stanza), &stanza.from) else {
        return Flow::Drop;
    };
    let contact = from.to_bare();
    if contact == cx.account.jid || is_blocked(cx.account, from) {
        return Flow::Drop;
    }
    let item = item(cx, &contact);
    let step = inbound(State::of(&item), verb);
    let mut stanza = stanza.clone();
    stanza.from = Some(contact.clone().into());
    stanza.to = Some(cx.account.jid.clone().into());
    if verb == Verb::Subscribe && step.next.pending_in && item.pending_in.is_none() && is_swamped(cx) {
        cx.because = "too many requests wait";
        return Flow::Drop;
    }
    let request = (verb == Verb::Subscribe && step.next.pending_in).then(|| kept(&stanza));
    let item = keep(cx, item, &step, request);
    if step.passes {
        deliver(cx, &stanza, verb);
    }
    if step.approves {
        let yes = Stanza::presence(PresenceType::Subscribed).from(cx.account.jid.clone()).to(contact.clone());
        cx.route(yes);
    }
    if step.pushes {
        roster_push::push(cx, &item);
    }
    show(cx, &contact, step.shows);
    Flow::Next
}

/// The requests that wait for an answer, as they are delivered to a session that becomes available.
pub(super) fn deliver_waiting(cx: &mut Cx<'_>, to: starling_wire::Token) {
    let account = cx.account;
    for item in account.roster.items.values() {
        let Some(request) = &item.pending_in else { continue };
        if is_blocked(account, &item.jid) {
            continue;
        }
        // One that cannot be read back is still a request.
        let request =
            Stanza::decode(request.clone()).unwrap_or_else(|_| bare_request(account.jid.clone(), &item.jid));
        cx.push(Effect::Deliver(to, request));
    }
}

fn verb(stanza: &Stanza) -> Option<Verb> {
    match stanza.kind {
        Kind::Presence(kind) => Verb::of(kind),
        Kind::Message(_) | Kind::Iq(_) => None,
    }
}

fn item(cx: &Cx<'_>, contact: &BareJid) -> RosterItem {
    cx.account.roster.items.get(contact).cloned().unwrap_or_else(|| RosterItem::new(contact.clone()))
}

/// Stores the state after a step, if it is another one.
fn keep(cx: &mut Cx<'_>, before: RosterItem, step: &Step, request: Option<Bytes>) -> RosterItem {
    let mut item = before.clone();
    item.subscription = step.next.subscription;
    item.ask = step.next.ask;
    item.approved = step.next.approved;
    item.pending_in = if step.next.pending_in { request.or(item.pending_in) } else { None };
    item.visible |= step.pushes;
    if item == before {
        return item;
    }
    if roster_push::is_blank(&item) {
        roster_push::remove(cx, &item.jid);
        return item;
    }
    roster_push::put(cx, item)
}

/// `subscribe` goes to all available sessions (RFC 6121 §3.1.3), the others to all interested ones (§3.1.6, §3.2.3,
/// §3.3.3).
fn deliver(cx: &mut Cx<'_>, stanza: &Stanza, verb: Verb) {
    let account = cx.account;
    for session in &account.sessions {
        let wants = if verb == Verb::Subscribe { session.is_available() } else { session.interested };
        if wants {
            cx.push(Effect::Deliver(session.token, stanza.clone()));
        }
    }
}

fn show(cx: &mut Cx<'_>, contact: &BareJid, shown: Option<Shown>) {
    match shown {
        Some(Shown::Current) => presence::show_all(cx, contact),
        Some(Shown::Gone) => presence::hide_all(cx, contact),
        None => {}
    }
}

/// A domain of ours has no presence and no roster: it says no, to the one who asked, and nothing is stored.
fn ask_domain(cx: &mut Cx<'_>, stanza: &Stanza, verb: Verb, domain: &BareJid) -> Flow {
    cx.because = "a domain of ours";
    let Some(session) = cx.session.filter(|_| verb == Verb::Subscribe) else {
        return Flow::Drop;
    };
    let mut no = Stanza::presence(PresenceType::Unsubscribed).from(domain.clone()).to(cx.account.jid.clone());
    no.id.clone_from(&stanza.id);
    cx.push(Effect::Deliver(session.token, no));
    Flow::Next
}

fn is_full(cx: &Cx<'_>) -> bool {
    cx.account.roster.items.values().filter(|item| item.visible).count() >= cx.server.limits.roster_items
}

fn is_swamped(cx: &Cx<'_>) -> bool {
    let waiting = cx.account.roster.items.values().filter(|item| item.pending_in.is_some()).count();
    waiting >= cx.server.limits.pending_in
}

fn kept(request: &Stanza) -> Bytes {
    let whole = request.encode();
    if whole.len() <= KEPT_WHOLE {
        return whole;
    }
    let mut small = request.clone();
    small.payload = Payload::empty();
    small.extra = None;
    small.id = None;
    small.encode()
}

fn bare_request(to: BareJid, from: &Jid) -> Stanza {
    Stanza::presence(PresenceType::Subscribe).from(from.clone()).to(to)
}

#[cfg(test)]
mod tests;
