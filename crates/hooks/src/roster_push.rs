//! Roster changes and the pushes that tell of them (RFC 6121 §2.1.6), for whatever decides on one: the roster IQ and the
//! subscription states.
//!
//! The home gives the k-th roster change of a decision the version `roster.version + k`; a push carries that same number,
//! so it is worked out here, from the changes already decided on.

use crate::{Account, Change, Cx, Effect, Session};
use compact_str::{CompactString, format_compact};
use starling_store::{Roster, RosterItem, Subscription};
use starling_xmpp::{BareJid, Element, IqType, Jid, Kind, PresenceType, Stanza, ns};

/// Changes a contact; returns it with its new version. Pushes nothing: some changes are not for clients to see.
pub fn put(cx: &mut Cx<'_>, mut item: RosterItem) -> RosterItem {
    item.version = next_version(cx);
    cx.change(Change::RosterItem(Box::new(item.clone())));
    item
}

/// Takes a contact off the roster; returns the version of that.
pub fn remove(cx: &mut Cx<'_>, contact: &BareJid) -> u64 {
    let version = next_version(cx);
    cx.change(Change::RosterRemove(contact.clone()));
    version
}

/// Tells every interested session of a contact's state.
pub fn push(cx: &mut Cx<'_>, item: &RosterItem) {
    push_element(cx, &element(item), item.version);
}

/// Tells every interested session that a contact is gone.
pub fn push_removed(cx: &mut Cx<'_>, contact: &BareJid, version: u64) {
    push_element(cx, &removed(contact), version);
}

/// Tells one session of one `item` element at a version.
pub fn push_to(cx: &mut Cx<'_>, session: &Session, item: Element, version: u64) {
    let query = Element::new(ns::ROSTER, "query").attr("ver", version_text(version)).child(item);
    let push = Stanza::iq(IqType::Set)
        .id(cx.fresh_id())
        .from(Jid::from(cx.account.jid.clone()))
        .to(Jid::from(session.jid.clone()))
        .child(query);
    cx.push(Effect::Deliver(session.token, push));
}

/// What has changed since a version, oldest first; `None` where that is more than so much.
pub fn changes(roster: &Roster, since: u64, most: usize) -> Option<Vec<(u64, Element)>> {
    let items = roster.items.values().filter(|item| item.visible && item.version > since);
    let gone = roster.removed.iter().filter(|(_, version)| **version > since);
    if items.clone().count() + gone.clone().count() > most {
        return None;
    }
    let mut changes: Vec<(u64, Element)> = items.map(|item| (item.version, element(item))).collect();
    changes.extend(gone.map(|(contact, version)| (*version, removed(contact))));
    changes.sort_by_key(|(version, _)| *version);
    Some(changes)
}

/// Up to which version of the roster whoever gets this has it, if it is a push.
pub fn pushed(stanza: &Stanza) -> Option<u64> {
    let Kind::Iq(IqType::Set) = stanza.kind else { return None };
    // Others may send what looks like one.
    let (from, to) = stanza.from.as_ref().zip(stanza.to.as_ref())?;
    if from.as_str() != to.to_bare().as_str() {
        return None;
    }
    stanza.payload.get(ns::ROSTER, "query")?.attribute("ver")?.parse().ok()
}

/// The `item` element that a client sees. A waiting request of the contact is never shown (RFC 6121 §3.1.3).
pub fn element(item: &RosterItem) -> Element {
    Element::new(ns::ROSTER, "item")
        .attr("jid", item.jid.as_str())
        .opt_attr("name", item.name.as_deref())
        .attr("subscription", item.subscription.as_str())
        .opt_attr("ask", item.ask.then_some("subscribe"))
        .opt_attr("approved", item.approved.then_some("true"))
        .children_of(item.groups.iter().map(|group| Element::new(ns::ROSTER, "group").text(group)))
}

/// The `item` element of a contact that is gone.
pub fn removed(contact: &BareJid) -> Element {
    Element::new(ns::ROSTER, "item").attr("jid", contact.as_str()).attr("subscription", "remove")
}

/// A version as clients see it.
pub fn version_text(version: u64) -> CompactString {
    format_compact!("{version}")
}

/// What a contact is to be told when it leaves the roster, or when the account does (RFC 6121 §2.5.2): the end of each
/// subscription, and the end of the presence it has seen. Nothing for whom the user blocks: to them the account is silent
/// (XEP-0191 §3.2), and their next probe after that learns it.
pub fn partings(account: &Account, item: &RosterItem) -> Vec<Stanza> {
    let contact = Jid::from(item.jid.clone());
    if account.blocked.blocks(&contact) {
        return Vec::new();
    }
    let mut partings = Vec::new();
    let tell = |kind: PresenceType, from: Jid| Stanza::presence(kind).from(from).to(contact.clone());
    if item.subscription.is_to() || item.ask {
        partings.push(tell(PresenceType::Unsubscribe, account.jid.clone().into()));
    }
    if item.subscription.is_from() || item.pending_in.is_some() {
        partings.push(tell(PresenceType::Unsubscribed, account.jid.clone().into()));
    }
    if item.subscription.is_from() {
        let unavailable = |session: &Session| tell(PresenceType::Unavailable, session.jid.clone().into());
        partings.extend(account.available().map(unavailable));
    }
    partings
}

/// Whether nothing is known of a contact that would be worth an item.
pub fn is_blank(item: &RosterItem) -> bool {
    !item.visible
        && item.subscription == Subscription::None
        && !item.ask
        && !item.approved
        && item.pending_in.is_none()
}

fn push_element(cx: &mut Cx<'_>, item: &Element, version: u64) {
    let account = cx.account;
    for session in account.sessions.iter().filter(|session| session.interested) {
        push_to(cx, session, item.clone(), version);
    }
}

fn next_version(cx: &Cx<'_>) -> u64 {
    let is_roster =
        |effect: &&Effect| matches!(effect, Effect::Change(Change::RosterItem(_) | Change::RosterRemove(_)));
    let before = cx.effects.iter().filter(is_roster).count() as u64;
    cx.account.roster.version.saturating_add(before).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, bare};

    #[test]
    fn pushes_carry_the_version_that_the_home_gives() {
        let mut bench = Bench::new(Vec::new()).online("phone", 0).session("idle").item("a@localhost both");
        let (versions, lines) = bench.run(None, |cx| {
            let first = put(cx, RosterItem::new(bare("b@localhost")));
            push(cx, &first);
            let second = remove(cx, &bare("a@localhost"));
            push_removed(cx, &bare("a@localhost"), second);
            (first.version, second)
        });
        assert_eq!(versions, (2, 3));
        assert_eq!(lines.len(), 4);
        assert!(lines[1].contains("ver='2'") && lines[3].contains("ver='3'"));
        assert_eq!(bench.account.roster.items[&bare("b@localhost")].version, 2);
        assert_eq!(bench.account.roster.removed[&bare("a@localhost")], 3);
    }

    #[test]
    fn only_the_account_itself_pushes() {
        let push = |from: &str| {
            let query = Element::new(ns::ROSTER, "query").attr("ver", "7");
            let to = Jid::parse("alice@localhost/phone").unwrap();
            Stanza::iq(IqType::Set).from(Jid::parse(from).unwrap()).to(to).child(query)
        };
        assert_eq!(pushed(&push("alice@localhost")), Some(7));
        for other in ["alice@localhost/phone", "bob@localhost", "localhost"] {
            assert_eq!(pushed(&push(other)), None);
        }
        let kind = Kind::Iq(IqType::Result);
        assert_eq!(pushed(&Stanza { kind, ..push("alice@localhost") }), None);
    }
}
