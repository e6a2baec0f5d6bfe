//! The messages of a run as XML.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::Node;
use crate::history::{Message, Sighting};
use crate::xml::escape;

const SID: &str = "urn:xmpp:sid:0";
const FORWARD: &str = "urn:xmpp:forward:0";
/// The namespace of message carbons (XEP-0280).
pub(super) const CARBONS: &str = "urn:xmpp:carbons:2";
const DELAY: &str = "urn:xmpp:delay";

/// A text that has to be escaped and names its message, mostly short.
pub(super) fn body(rng: &mut StdRng, origin: &str) -> String {
    let filler = if rng.random_bool(0.02) { rng.random_range(0..4000) } else { rng.random_range(0..80) };
    format!("{origin} <&> ßπ😀 {}", "x".repeat(filler))
}

/// The stanza, always with the same bytes for the same message.
pub(super) fn write(message: &Message) -> String {
    let Message { origin, to, body } = message;
    // Some are of type normal, by a rule that needs no memory; not those to full JIDs, which are refused when the
    // session is not there (RFC 6121 section 8.5.3.2.1).
    let kind = if origin.ends_with('7') && !to.contains('/') { "" } else { " type='chat'" };
    format!(
        "<message to='{to}' id='{origin}'{kind}><body>{}</body><origin-id xmlns='{SID}' id='{origin}'/></message>",
        escape(body)
    )
}

/// What a client notes of a message that came to it.
pub(super) fn sighting(node: &Node, account: &str) -> Sighting {
    let id = node.children().find(|c| c.is(SID, "stanza-id") && c.attribute("by") == Some(account));
    let attribute = |node: &Node| node.attribute("id").map(str::to_owned);
    Sighting {
        id: id.and_then(attribute),
        origin: node.find(SID, "origin-id").and_then(attribute),
        from: node.attribute("from").unwrap_or_default().to_owned(),
        body: node.body().unwrap_or_default(),
        delayed: node.find(DELAY, "delay").is_some(),
    }
}

/// The message inside a copy, if this is one that the account itself has made.
pub(super) fn copied<'a>(node: &'a Node, account: &str) -> Option<&'a Node> {
    let wrapper =
        node.children().find(|c| c.ns == CARBONS && matches!(c.name.as_str(), "sent" | "received"))?;
    let own = node.attribute("from") == Some(account);
    wrapper.find(FORWARD, "forwarded")?.children().find(|c| own && c.name == "message")
}
