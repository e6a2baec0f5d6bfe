//! What follows from a change of an account's lists: of its contacts, of whom it blocks, and of its being there at all.
//!
//! It leaves when the change is confirmed. Where nobody knows whether that was written, it waits until the account has been
//! loaded again ([`crate::doubt`]): then all of it leaves, or none.

use crate::decide;
use crate::delivery::{self, Out};
use crate::home::Home;
use crate::im::is_blocked;
use crate::route::{self, route};
use crate::shared::Shared;
use crate::turn::Turn;
use starling_hooks::{BlockList, Change, Effect};
use starling_node::Trace;
use starling_wire::Token;
use starling_xmpp::{BareJid, Jid, Kind, PresenceType, Stanza};
use std::collections::HashSet;

/// What follows from one change, in order.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) basis: Basis,
    pub(crate) steps: Vec<Step>,
}

/// The change.
#[derive(Debug, Clone)]
pub(crate) enum Basis {
    /// Of a contact's state, with this version of the roster.
    Contact(BareJid, u64),
    /// Of whom the account blocks, to this list.
    Blocked(Box<BlockList>),
    /// The account is removed.
    Removal,
}

/// One thing that follows.
#[derive(Debug)]
pub(crate) enum Step {
    Route(Stanza, Option<Trace>),
    Deliver(Token, Stanza, Option<Trace>),
    /// A session's directed presence was taken back, which was so at once; whether it was available.
    Undirected(Token, Jid, bool),
}

impl Basis {
    /// Of this change, which makes this version of the roster if it is one of that.
    pub(crate) fn of(change: &Change, version: u64) -> Option<Self> {
        match change {
            Change::RosterItem(item) => Some(Self::Contact(item.jid.clone(), version)),
            Change::RosterRemove(contact) => Some(Self::Contact(contact.clone(), version)),
            Change::Blocked(list) => Some(Self::Blocked(Box::new(list.clone()))),
            _ => None,
        }
    }
}

/// Whether a decision of these effects changes a list.
pub(crate) fn changes(effects: &[Effect]) -> bool {
    let is_one = |change: &Change| {
        matches!(change, Change::RosterItem(_) | Change::RosterRemove(_) | Change::Blocked(_))
    };
    effects.iter().any(|effect| matches!(effect, Effect::Change(change) if is_one(change)))
}

/// Lets it go, unless its change, or one before it, was not confirmed.
pub(crate) fn carry_out(out: &mut Out<'_>, home: &mut Home, follow: Follow) {
    if home.is_wrong() {
        if let Some(doubt) = &mut home.doubt {
            doubt.held.push(follow);
        }
        return;
    }
    for step in follow.steps {
        match step {
            Step::Route(stanza, trace) => route(out.shared, &home.account.jid, stanza, 1, trace),
            Step::Deliver(token, stanza, trace) => delivery::plain(out, home, token, stanza, trace),
            Step::Undirected(..) => {}
        }
    }
}

/// Whoever asked for a change that was not confirmed is told so: one of the account's sessions with what it said under a
/// sequence, or somebody else.
pub(crate) fn unconfirmed(out: &mut Out<'_>, home: &mut Home, said: Option<(Token, u64)>, stanza: &Stanza) {
    let error = decide::message::not_confirmed();
    match said {
        Some((token, sequence)) => {
            if let Some(answer) = decide::error_to(home, token, stanza, &error) {
                delivery::refusal(out, home, (token, sequence), answer, None);
            }
        }
        None => route::refuse(out.shared, &home.account.jid, None, stanza, &error, 1),
    }
}

/// The account has been loaded: what follows from changes that are there leaves now, if what else is decided by then is confirmed.
/// `hidden`: whom it was to show nothing meanwhile.
pub(crate) fn settled(turn: &mut Turn, home: &mut Home, held: Vec<Follow>, hidden: Option<&BlockList>) {
    let account = &home.account;
    let is_list =
        |follow: &Follow| matches!(&follow.basis, Basis::Blocked(list) if **list == account.blocked);
    // Each of these lists was made of the one before.
    let last = held.iter().rposition(is_list);
    let mut shown = HashSet::new();
    for (index, Follow { basis, mut steps }) in held.into_iter().enumerate() {
        let is_there = match &basis {
            Basis::Contact(contact, version) => changed(home, contact) >= Some(*version),
            Basis::Blocked(_) => last.is_some_and(|last| index <= last),
            Basis::Removal => false,
        };
        if !is_there {
            put_back(home, &mut steps);
        }
        let due: Vec<_> = steps.into_iter().filter_map(|step| settle(home, step, is_there)).collect();
        shown.extend(due.iter().filter_map(who_to_whom));
        turn.follow(home, basis, due);
    }
    if let Some(hidden) = hidden {
        let mut due = missed(home, hidden);
        due.retain(|step| who_to_whom(step).is_some_and(|pair| !shown.contains(&pair)));
        turn.follow(home, Basis::Blocked(Box::new(home.account.blocked.clone())), due);
    }
}

/// Directed presence was not taken back after all: it is as it was, unless its session shows itself otherwise by now.
fn put_back(home: &mut Home, steps: &mut Vec<Step>) {
    let mut back = HashSet::new();
    for step in &*steps {
        if let Step::Undirected(token, jid, available) = step
            && let Some(at) = home.find(*token)
            && let session = &mut home.account.sessions[at]
            && (session.is_available() || !*available)
        {
            session.directed.insert(jid.clone());
            back.insert((Some(Jid::from(session.jid.clone())), Some(jid.clone())));
        }
    }
    steps.retain(|step| match step {
        Step::Route(stanza, _) if !back.is_empty() => {
            !back.contains(&(stanza.from.clone(), stanza.to.clone()))
        }
        _ => true,
    });
}

/// What leaves of a step, now that it is known whether its change is there.
fn settle(home: &Home, step: Step, is_there: bool) -> Option<Step> {
    match step {
        Step::Route(stanza, trace) if is_there => now(home, stanza).map(|stanza| Step::Route(stanza, trace)),
        // Whoever was to see a session no more was not told that it ended.
        Step::Route(stanza, trace) => has_ended(home, &stanza).then_some(Step::Route(stanza, trace)),
        step => Some(step).filter(|_| is_there),
    }
}

/// Who is shown by it, or asks, and whom.
fn who_to_whom(step: &Step) -> Option<(Jid, Jid)> {
    let Step::Route(stanza, _) = step else { return None };
    let shows = matches!(stanza.kind, Kind::Presence(PresenceType::Available | PresenceType::Probe));
    stanza.from.clone().zip(stanza.to.clone()).filter(|_| shows)
}

/// What contacts that were taken for blocked and are not were not shown, and what they have shown meanwhile: it is told by what is
/// so now (RFC 6121 §4.3).
fn missed(home: &Home, hidden: &BlockList) -> Vec<Step> {
    let account = &home.account;
    let mut due = Vec::new();
    for contact in account.roster.items.values() {
        let jid = Jid::from(contact.jid.clone());
        if !hidden.blocks(&jid) || account.blocked.blocks(&jid) {
            continue;
        }
        if contact.subscription.is_from() {
            let shown = account.available().filter_map(|session| {
                Some(session.presence.clone()?.from(session.jid.clone()).to(jid.clone()))
            });
            due.extend(shown.map(|stanza| Step::Route(stanza, None)));
        }
        if contact.subscription.is_to() && account.available().next().is_some() {
            let probe = Stanza::presence(PresenceType::Probe).from(account.jid.clone()).to(jid);
            due.push(Step::Route(probe, None));
        }
    }
    due
}

/// The account was removed.
pub(crate) fn removed(shared: &Shared, home: &Home, held: Vec<Follow>) {
    for step in held.into_iter().flat_map(|follow| follow.steps) {
        // Whatever it was to show or to ask before, nobody is there any more.
        if let Step::Route(stanza, trace) = step
            && !matches!(stanza.kind, Kind::Presence(PresenceType::Available | PresenceType::Probe))
        {
            route(shared, &home.account.jid, stanza, 1, trace);
        }
    }
}

/// The version of the roster in which a contact was last changed.
fn changed(home: &Home, contact: &BareJid) -> Option<u64> {
    let roster = &home.account.roster;
    let item = roster.items.get(contact).map(|item| item.version);
    item.max(roster.removed.get(contact).copied())
}

/// Whether it says that a session is not available, and it has ended since.
fn has_ended(home: &Home, stanza: &Stanza) -> bool {
    let session = || stanza.from.as_ref().and_then(|from| home.account.resource(from));
    stanza.kind == Kind::Presence(PresenceType::Unavailable)
        && session().is_none_or(|session| session.presence.is_none())
}

/// What a session shows by now.
fn now(home: &Home, stanza: Stanza) -> Option<Stanza> {
    if stanza.kind != Kind::Presence(PresenceType::Available) {
        return Some(stanza);
    }
    let shown = home.account.resource(stanza.from.as_ref()?)?.presence.clone()?;
    Some(shown.to(stanza.to?)).filter(|stanza| !is_hidden(home, stanza))
}

/// Whether it shows a session to somebody who is blocked, or may be.
pub(crate) fn is_hidden(home: &Home, stanza: &Stanza) -> bool {
    stanza.kind == Kind::Presence(PresenceType::Available)
        && stanza.to.as_ref().is_some_and(|to| is_blocked(&home.account, to))
}
