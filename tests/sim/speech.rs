//! Stanzas as clients write and read them.

use starling_tests::history::{Message, Sighting};
use starling_xmpp::{Element, IqType, Jid, MessageType, PresenceType, Stanza, ns};

pub(crate) const CARBONS: &str = "urn:xmpp:carbons:2";
pub(crate) const FORWARD: &str = "urn:xmpp:forward:0";
pub(crate) const DELAY: &str = "urn:xmpp:delay";

/// A message, always the same for the same one.
pub(crate) fn message(message: &Message) -> Stanza {
    // Some are of type normal, by a rule that needs no memory; not those to full JIDs (RFC 6121 section 8.5.3.2.1).
    let normal = message.origin.ends_with('7') && !message.to.contains('/');
    let kind = if normal { MessageType::Normal } else { MessageType::Chat };
    let stanza = Stanza::message(kind)
        .id(&message.origin)
        .child(Element::new(ns::CLIENT, "body").text(&message.body))
        .child(Element::new(ns::SID, "origin-id").attr("id", message.origin.as_str()));
    to(stanza, &message.to)
}

/// What a client notes of a message that came to it.
pub(crate) fn sighting(message: &Element, account: &str) -> Sighting {
    let id = message
        .children()
        .find(|child| child.is(ns::SID, "stanza-id") && child.attribute("by") == Some(account))
        .and_then(|child| child.attribute("id"));
    Sighting {
        id: id.map(str::to_owned),
        origin: origin(message),
        from: message.attribute("from").unwrap_or_default().to_owned(),
        body: message.find(ns::CLIENT, "body").map(Element::content).unwrap_or_default(),
        delayed: message.find(DELAY, "delay").is_some(),
    }
}

/// The `origin-id` of a message.
pub(crate) fn origin(message: &Element) -> Option<String> {
    message.find(ns::SID, "origin-id").and_then(|child| child.attribute("id")).map(str::to_owned)
}

/// The message inside a copy that the account itself has made.
pub(crate) fn copied<'a>(message: &'a Element, account: &str) -> Option<&'a Element> {
    if message.attribute("from") != Some(account) {
        return None;
    }
    let wrapper = message.find(CARBONS, "sent").or_else(|| message.find(CARBONS, "received"))?;
    wrapper.find(FORWARD, "forwarded")?.find(ns::CLIENT, "message")
}

/// The condition of an error stanza.
pub(crate) fn condition(stanza: &Stanza) -> String {
    let error = stanza.payload.get(ns::CLIENT, "error").map(|error| error.element());
    let condition = error.as_ref().and_then(|error| error.children().find(|child| child.ns() == ns::STANZAS));
    condition.map_or_else(String::new, |condition| condition.name().to_owned())
}

pub(crate) fn presence(priority: i8) -> Stanza {
    let presence = Stanza::presence(PresenceType::Available);
    match priority {
        0 => presence,
        other => presence.child(Element::new(ns::CLIENT, "priority").text(other.to_string())),
    }
}

pub(crate) fn request(kind: IqType, id: &str, payload: Element) -> Stanza {
    Stanza::iq(kind).id(id).child(payload)
}

fn to(mut stanza: Stanza, to: &str) -> Stanza {
    stanza.to = Jid::parse(to).ok();
    stanza
}
