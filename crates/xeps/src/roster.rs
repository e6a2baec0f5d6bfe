//! The roster (RFC 6121 §2): asking for it, changing it, and its versions.

use compact_str::CompactString;
use starling_hooks::roster_push::{self, element, version_text};
use starling_hooks::{About, Answer, AnswerIq, At, Change, Cx, Hooks, Session, Spec, Xep};
use starling_store::{Roster as Stored, RosterItem};
use starling_xmpp::{BareJid, Element, IqType, Jid, Kind, Stanza, StanzaCondition, StanzaError, ns};
use std::sync::Arc;

/// The roster of an account.
pub struct Roster;

static ABOUT: About =
    About { spec: Spec::Rfc(6121), name: "roster", server_features: &[], account_features: &[] };

/// A client that missed more changes than this gets the whole roster: that is one stanza, and these are one each.
const MISSED: usize = 32;

impl Xep for Roster {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.iq(At::Account, ns::ROSTER, "query", self);
    }
}

impl AnswerIq for Roster {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        // A roster is its owner's business alone (RFC 6121 §2.1.3, §2.1.5).
        let Some(session) = cx.session else {
            return Answer::error(StanzaError::new(StanzaCondition::Forbidden));
        };
        let answer = match iq.kind {
            Kind::Iq(IqType::Get) => asked(cx, session, payload),
            _ => set(cx, payload),
        };
        answer.unwrap_or_else(|condition| Answer::error(StanzaError::new(condition)))
    }
}

type Outcome = Result<Answer, StanzaCondition>;

/// Roster get (RFC 6121 §2.1.3, §2.6).
fn asked(cx: &mut Cx<'_>, session: &Session, query: &Element) -> Outcome {
    if query.first().is_some() {
        return Err(StanzaCondition::BadRequest);
    }
    if !session.interested {
        cx.change(Change::Interested(session.token));
    }
    let account = cx.account;
    let roster = &account.roster;
    let known = query.attribute("ver");
    if let Some(missed) = known.and_then(|known| missed(roster, known)) {
        for (version, item) in missed {
            roster_push::push_to(cx, session, item, version);
        }
        return Ok(Answer::done());
    }
    let list = Element::new(ns::ROSTER, "query")
        .opt_attr("ver", known.map(|_| version_text(roster.version)))
        .children_of(roster.items.values().filter(|item| item.visible).map(element));
    Ok(Answer::Result(Some(list)))
}

/// What has changed since a version, oldest first; `None` where the whole roster is the better answer, or the only one.
fn missed(roster: &Stored, known: &str) -> Option<Vec<(u64, Element)>> {
    let since: u64 = known.parse().ok().filter(|since| version_text(*since) == known)?;
    if since > roster.version || since < roster.removed_since {
        return None;
    }
    roster_push::changes(roster, since, MISSED)
}

/// Roster set (RFC 6121 §2.1.5, §2.3 to §2.5).
fn set(cx: &mut Cx<'_>, query: &Element) -> Outcome {
    let mut items = query.children();
    let (Some(asked), None) = (items.next(), items.next()) else {
        return Err(StanzaCondition::BadRequest);
    };
    if !asked.is(ns::ROSTER, "item") {
        return Err(StanzaCondition::BadRequest);
    }
    let contact = asked.attribute("jid").ok_or(StanzaCondition::BadRequest)?;
    let contact = Jid::parse(contact).map_err(|_| StanzaCondition::JidMalformed)?;
    let contact = BareJid::try_from(contact).map_err(|_| StanzaCondition::BadRequest)?;
    if contact == cx.account.jid {
        return Err(StanzaCondition::NotAllowed);
    }
    let account = cx.account;
    let before = account.roster.items.get(&contact);
    // Any other value of `subscription`, `ask` and `approved` are not for clients to set: ignored (RFC 6121 §2.1.2).
    if asked.attribute("subscription") == Some("remove") {
        let item = before.filter(|item| item.visible).ok_or(StanzaCondition::ItemNotFound)?;
        remove(cx, item);
        return Ok(Answer::done());
    }
    let name = name(cx, asked)?;
    let groups = groups(cx, asked)?;
    if before.is_none_or(|item| !item.visible) && is_full(cx) {
        return Err(StanzaCondition::ResourceConstraint);
    }
    let mut item = before.cloned().unwrap_or_else(|| RosterItem::new(contact));
    item.name = name;
    item.groups = groups;
    item.visible = true;
    let item = roster_push::put(cx, item);
    roster_push::push(cx, &item);
    Ok(Answer::done())
}

/// Takes a contact off, and with it the subscriptions (RFC 6121 §2.5.2).
fn remove(cx: &mut Cx<'_>, item: &RosterItem) {
    let version = roster_push::remove(cx, &item.jid);
    roster_push::push_removed(cx, &item.jid, version);
    for parting in roster_push::partings(cx.account, item) {
        cx.route(parting);
    }
}

fn name(cx: &Cx<'_>, item: &Element) -> Result<Option<CompactString>, StanzaCondition> {
    match item.attribute("name") {
        Some(name) if name.len() > cx.server.limits.roster_name => Err(StanzaCondition::NotAcceptable),
        Some("") | None => Ok(None),
        Some(name) => Ok(Some(name.into())),
    }
}

fn groups(cx: &Cx<'_>, item: &Element) -> Result<Vec<CompactString>, StanzaCondition> {
    let mut groups: Vec<CompactString> = Vec::new();
    for group in item.children().filter(|child| child.is(ns::ROSTER, "group")) {
        let group = group.content();
        if group.is_empty() || group.len() > cx.server.limits.roster_name {
            return Err(StanzaCondition::NotAcceptable);
        }
        if groups.len() >= cx.server.limits.roster_groups {
            return Err(StanzaCondition::NotAcceptable);
        }
        if groups.iter().any(|known| *known == group) {
            return Err(StanzaCondition::BadRequest);
        }
        groups.push(group.into());
    }
    Ok(groups)
}

fn is_full(cx: &Cx<'_>) -> bool {
    cx.account.roster.items.values().filter(|item| item.visible).count() >= cx.server.limits.roster_items
}

#[cfg(test)]
mod tests;
