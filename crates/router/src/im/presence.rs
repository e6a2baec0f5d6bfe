//! Presence (RFC 6121 §4): who is told of whose.

use super::{is_blocked, refuse, refuse_blocked, subscription};
use starling_hooks::{Account, Change, Cx, Effect, Flow, Session, delay};
use starling_store::RosterItem;
use starling_wire::Token;
use starling_xmpp::{BareJid, Jid, Kind, PresenceType, Stanza, StanzaCondition, ns};

/// A session of this account sends presence of any kind. `Next`: all that follows from it is in the effects. `Drop`:
/// nothing does. `Refuse`: the sender is told so.
pub fn sent(cx: &mut Cx<'_>, stanza: &Stanza) -> Flow {
    let (Kind::Presence(kind), Some(session)) = (stanza.kind, cx.session) else {
        return refuse(StanzaCondition::BadRequest);
    };
    if stanza.encoded_len() > cx.server.limits.presence_bytes {
        cx.because = "too large a presence";
        return refuse(StanzaCondition::PolicyViolation);
    }
    let Some(to) = &stanza.to else {
        return match kind {
            PresenceType::Available => available(cx, session, stanza),
            PresenceType::Unavailable => {
                leave(cx, session, stanza.clone(), true);
                Flow::Next
            }
            // An error is never answered (RFC 6120 §8.3.1).
            PresenceType::Error => Flow::Drop,
            _ => refuse(StanzaCondition::BadRequest),
        };
    };
    match kind {
        PresenceType::Subscribe
        | PresenceType::Subscribed
        | PresenceType::Unsubscribe
        | PresenceType::Unsubscribed => subscription::sent(cx, stanza),
        PresenceType::Error if is_blocked(cx.account, to) => Flow::Drop,
        _ if is_blocked(cx.account, to) => refuse_blocked(cx),
        PresenceType::Available | PresenceType::Unavailable => directed(cx, session, stanza, to),
        PresenceType::Probe | PresenceType::Error => {
            cx.route(stanza.clone().from(session.jid.clone()));
            Flow::Next
        }
    }
}

/// Presence arrives for this account. Nothing that comes in is refused: the sender would learn of it.
pub fn received(cx: &mut Cx<'_>, stanza: &Stanza) -> Flow {
    let (Kind::Presence(kind), Some(from)) = (stanza.kind, &stanza.from) else {
        return Flow::Drop;
    };
    if is_blocked(cx.account, from) {
        cx.because = "blocked";
        return Flow::Drop;
    }
    match kind {
        PresenceType::Subscribe
        | PresenceType::Subscribed
        | PresenceType::Unsubscribe
        | PresenceType::Unsubscribed => subscription::received(cx, stanza),
        PresenceType::Probe => probed(cx, from, stanza.to.as_ref()),
        PresenceType::Available | PresenceType::Unavailable => pass(cx, stanza),
        PresenceType::Error => {
            forget(cx, from, stanza.to.as_ref());
            pass(cx, stanza)
        }
    }
}

/// `cx.session` ends without having said so: it is made to leave (RFC 6121 §4.5.2). Does nothing for a session that was
/// neither available nor had sent directed presence.
pub fn session_ended(cx: &mut Cx<'_>) {
    if let Some(session) = cx.session {
        leave(cx, session, Stanza::presence(PresenceType::Unavailable), false);
    }
}

/// The answer to presence for an account that does not exist: that of an account which does not know the sender
/// (RFC 6121 §4.3.2, §8.5.1).
pub fn without_account(stanza: &Stanza) -> Option<Stanza> {
    let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return None };
    (stanza.kind == Kind::Presence(PresenceType::Probe))
        .then(|| Stanza::presence(PresenceType::Unsubscribed).from(to.to_bare()).to(from.to_bare()))
}

/// Shows a contact the last presence of every available session.
pub(super) fn show_all(cx: &mut Cx<'_>, contact: &BareJid) {
    let account = cx.account;
    for presence in account.sessions.iter().filter_map(|session| session.presence.as_ref()) {
        cx.route(presence.clone().to(contact.clone()));
    }
}

/// Shows a contact every available session going away.
pub(super) fn hide_all(cx: &mut Cx<'_>, contact: &BareJid) {
    let account = cx.account;
    for session in account.available() {
        let gone = Stanza::presence(PresenceType::Unavailable).from(session.jid.clone());
        cx.route(gone.to(contact.clone()));
    }
}

/// First presence (RFC 6121 §4.2) or a later one (§4.4).
fn available(cx: &mut Cx<'_>, session: &Session, stanza: &Stanza) -> Flow {
    let Some(priority) = priority(stanza) else {
        return refuse(StanzaCondition::BadRequest);
    };
    let account = cx.account;
    let shown = stanza.clone().from(session.jid.clone());
    // Whoever is shown it later is told since when it holds (RFC 6121 §4.3.2).
    let kept = delay::stamped(&shown, account.jid.domain(), cx.now);
    cx.change(Change::Presence(session.token, Some(Box::new(kept)), priority));
    for own in account.sessions.iter().filter(|own| own.is_available() || own.token == session.token) {
        deliver(cx, own, &shown);
    }
    for contact in contacts(account, |item| item.subscription.is_from()) {
        cx.route(shown.clone().to(contact));
    }
    if session.is_available() {
        return Flow::Next;
    }
    for contact in contacts(account, |item| item.subscription.is_to()) {
        let probe = Stanza::presence(PresenceType::Probe).from(session.jid.clone());
        cx.route(probe.to(contact));
    }
    for presence in others(account, session.token).filter_map(|other| other.presence.as_ref()) {
        deliver(cx, session, presence);
    }
    subscription::deliver_waiting(cx, session.token);
    Flow::Next
}

/// Going away (RFC 6121 §4.5): whoever saw the session available is told, with what it says on leaving; `itself` too while
/// it stays connected.
fn leave(cx: &mut Cx<'_>, session: &Session, stanza: Stanza, itself: bool) {
    let account = cx.account;
    let mut shown = stanza.from(session.jid.clone());
    shown.to = None;
    if session.is_available() {
        cx.change(Change::Presence(session.token, None, 0));
        for own in account.available().filter(|own| itself || own.token != session.token) {
            deliver(cx, own, &shown);
        }
        for contact in contacts(account, |item| item.subscription.is_from()) {
            cx.route(shown.clone().to(contact));
        }
    }
    for target in &session.directed {
        if itself {
            cx.change(Change::Undirected(session.token, target.clone()));
        }
        if !is_covered(account, session, target) && !is_blocked(account, target) {
            cx.route(shown.clone().to(target.clone()));
        }
    }
}

/// Directed presence (RFC 6121 §4.6).
fn directed(cx: &mut Cx<'_>, session: &Session, stanza: &Stanza, to: &Jid) -> Flow {
    let known = session.directed.contains(to);
    if stanza.kind == Kind::Presence(PresenceType::Unavailable) {
        if known {
            cx.change(Change::Undirected(session.token, to.clone()));
        }
    } else {
        if priority(stanza).is_none() {
            return refuse(StanzaCondition::BadRequest);
        }
        if !known && !is_covered(cx.account, session, to) {
            let limits = &cx.server.limits;
            let bytes: usize = session.directed.iter().map(|jid| jid.as_str().len()).sum();
            if session.directed.len() >= limits.directed || bytes + to.as_str().len() > limits.directed_bytes
            {
                cx.because = "too many directed";
                return refuse(StanzaCondition::ResourceConstraint);
            }
            cx.change(Change::Directed(session.token, to.clone()));
        }
    }
    cx.route(stanza.clone().from(session.jid.clone()));
    Flow::Next
}

/// Whether going away tells this address without its being remembered.
fn is_covered(account: &Account, session: &Session, target: &Jid) -> bool {
    if !session.is_available() {
        return false;
    }
    if target.same_bare(&account.jid) {
        return target.is_bare() || account.resource(target).is_some_and(Session::is_available);
    }
    account.roster.items.get(&target.to_bare()).is_some_and(|item| item.subscription.is_from())
}

/// Answers a probe (RFC 6121 §4.3.2).
fn probed(cx: &mut Cx<'_>, from: &Jid, to: Option<&Jid>) -> Flow {
    let account = cx.account;
    let own = from.same_bare(&account.jid);
    let resource = to.and_then(Jid::resource);
    let asked = |session: &&Session| {
        resource.is_none_or(|resource| session.jid.resource_str() == resource)
            && session.jid.as_str() != from.as_str()
    };
    let item = account.roster.items.get(&from.to_bare());
    if !own && !item.is_some_and(|item| item.subscription.is_from()) {
        return probed_by_stranger(cx, from, asked);
    }
    let mut seen = false;
    for presence in account.sessions.iter().filter(asked).filter_map(|session| session.presence.as_ref()) {
        cx.route(presence.clone().to(from.clone()));
        seen = true;
    }
    if !seen && !own {
        let here = to.cloned().unwrap_or_else(|| account.jid.clone().into());
        cx.route(Stanza::presence(PresenceType::Unavailable).from(here).to(from.clone()));
    }
    Flow::Next
}

/// Whoever got directed presence may ask whether it still holds; to others the account says that they are not subscribed,
/// which also heals a roster that says they are.
fn probed_by_stranger(cx: &mut Cx<'_>, from: &Jid, asked: impl Fn(&&Session) -> bool) -> Flow {
    let account = cx.account;
    let bare = Jid::from(from.to_bare());
    let mut seen = false;
    for session in account.sessions.iter().filter(asked) {
        if session.directed.contains(from) || session.directed.contains(&bare) {
            let here = Stanza::presence(PresenceType::Available).from(session.jid.clone());
            cx.route(here.to(from.clone()));
            seen = true;
        }
    }
    if !seen {
        let no = Stanza::presence(PresenceType::Unsubscribed).from(account.jid.clone());
        cx.route(no.to(bare));
    }
    Flow::Next
}

/// To the session it is for, or to all available ones.
fn pass(cx: &mut Cx<'_>, stanza: &Stanza) -> Flow {
    let account = cx.account;
    let before = cx.effects.len();
    match stanza.to.as_ref().filter(|to| to.resource().is_some()) {
        Some(to) => {
            if let Some(session) = account.resource(to) {
                cx.push(Effect::Deliver(session.token, stanza.clone()));
            }
        }
        None => {
            for session in account.available() {
                cx.push(Effect::Deliver(session.token, stanza.clone()));
            }
        }
    }
    if cx.effects.len() == before { Flow::Drop } else { Flow::Next }
}

/// A target that answers with an error is not told again (RFC 6121 §4.6.3).
fn forget(cx: &mut Cx<'_>, from: &Jid, to: Option<&Jid>) {
    let account = cx.account;
    let resource = to.and_then(Jid::resource);
    for session in &account.sessions {
        let meant = resource.is_none_or(|resource| session.jid.resource_str() == resource);
        if meant && session.directed.contains(from) {
            cx.change(Change::Undirected(session.token, from.clone()));
        }
    }
}

fn deliver(cx: &mut Cx<'_>, session: &Session, presence: &Stanza) {
    cx.push(Effect::Deliver(session.token, presence.clone().to(session.jid.clone())));
}

fn contacts(account: &Account, wanted: impl Fn(&RosterItem) -> bool) -> impl Iterator<Item = BareJid> {
    let items = account.roster.items.values().filter(move |item| wanted(item));
    items.filter(|item| !is_blocked(account, &item.jid)).map(|item| item.jid.clone())
}

fn others(account: &Account, token: Token) -> impl Iterator<Item = &Session> {
    account.sessions.iter().filter(move |other| other.token != token)
}

/// The priority, if presence is in order: at most one `show` and one `priority`, and that a number of eight bits
/// (RFC 6121 §4.7).
fn priority(stanza: &Stanza) -> Option<i8> {
    let (mut shows, mut priority) = (0, None);
    for child in stanza.payload.children().filter(|child| child.ns() == ns::CLIENT) {
        match child.name() {
            "show" => shows += 1,
            "priority" if priority.is_some() => return None,
            "priority" => priority = Some(child.text().trim_matches([' ', '\t', '\r', '\n']).parse().ok()?),
            _ => {}
        }
    }
    (shows <= 1).then(|| priority.unwrap_or(0))
}

#[cfg(test)]
mod tests;
