//! Roster changes and the pushes that tell of them (RFC 6121 §2.1.6), for whatever decides on one: the roster IQ and the
//! subscription states.
//!
//! The home gives the k-th roster change of a decision the version `roster.version + k`; a push carries that same number,
//! so it is worked out here, from the changes already decided on.

use crate::{Account, Change, Cx, Effect, Session};
use compact_str::{CompactString, format_compact};
use starling_store::{RosterItem, Subscription};
use starling_xmpp::{BareJid, Element, IqType, Jid, PresenceType, Stanza, ns};

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
}
