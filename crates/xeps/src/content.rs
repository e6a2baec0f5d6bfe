//! What a message is worth: the one place that tells content from passing signs.
//!
//! Archive, offline storage, carbons and client state all ask it, so they never disagree.

use starling_xmpp::xml::Child;
use starling_xmpp::{Kind, MessageType, Stanza, ns};

/// Reactions (XEP-0444).
const REACTIONS: &str = "urn:xmpp:reactions:0";
/// Retractions (XEP-0424), now and before.
const RETRACT: [&str; 2] = ["urn:xmpp:message-retract:1", "urn:xmpp:message-retract:0"];
/// Replies (XEP-0461).
const REPLY: &str = "urn:xmpp:reply:0";
/// Encrypted content: OMEMO (XEP-0384), now and as deployed, OpenPGP (XEP-0373), and its ancestor (XEP-0027).
const ENCRYPTED: [&str; 4] =
    ["urn:xmpp:omemo:2", "eu.siacs.conversations.axolotl", "urn:xmpp:openpgp:0", "jabber:x:encrypted"];
/// Direct invitations (XEP-0249).
const DIRECT_INVITATION: &str = "jabber:x:conference";
/// Calls (XEP-0353).
const CALLS: &str = "urn:xmpp:jingle-message:0";

/// Namespaces whose elements only accompany a message, or tell of a moment that is soon over.
const PASSING: [&str; 11] = [
    ns::CHATSTATES,
    ns::HINTS,
    ns::SID,
    ns::DELAY,
    ns::CAPS,
    ns::PUBSUB_EVENT,
    "http://jabber.org/protocol/nick",
    "http://jabber.org/protocol/address",
    "jabber:x:delay",
    "urn:xmpp:eme:0",
    "urn:xmpp:rtt:0",
];

/// Whether a message says anything that its recipient would miss: anything but chat states, hints, ids, requests for
/// receipts and the like (XEP-0160 §3, XEP-0313 §6.1.1). Receipts, markers, corrections, reactions, retractions and
/// encrypted content count, and so does what is not known here: it may be content.
pub fn is_lasting(message: &Stanza) -> bool {
    message.payload.children().any(|child| !is_passing(&child))
}

fn is_passing(child: &Child<'_>) -> bool {
    let (ns, name) = (child.ns(), child.name());
    PASSING.contains(&ns)
        || (ns == ns::CLIENT && (name == "thread" || name == "error"))
        || (ns == ns::RECEIPTS && name == "request")
        || (ns == ns::MARKERS && name == "markable")
        || (ns == ns::CARBONS && name == "private")
}

/// Whether a message has payload of instant messaging other than a body (XEP-0280 §6.1).
pub fn has_chat_payload(message: &Stanza) -> bool {
    message.payload.children().any(|child| {
        let ns = child.ns();
        [ns::RECEIPTS, ns::CHATSTATES, ns::MARKERS, ns::CORRECT, REACTIONS, REPLY, CALLS].contains(&ns)
            || RETRACT.contains(&ns)
            || ENCRYPTED.contains(&ns)
    })
}

/// Whether a message invites to a room, directly (XEP-0249) or by the room (XEP-0045 §7.8).
pub fn is_invitation(message: &Stanza) -> bool {
    message.payload.has(DIRECT_INVITATION, "x")
        || message
            .payload
            .get(ns::MUC_USER, "x")
            .is_some_and(|x| x.element().find(ns::MUC_USER, "invite").is_some())
}

/// Whether it is a message from one person to another by its type: `chat`, `normal` or none.
pub fn is_personal(stanza: &Stanza) -> bool {
    matches!(stanza.kind, Kind::Message(MessageType::Chat | MessageType::Normal))
}

/// Whether a message holds nothing but a chat state and what accompanies it (XEP-0085 §5.8).
pub fn is_only_chat_state(message: &Stanza) -> bool {
    message.payload.has_ns(ns::CHATSTATES) && !is_lasting(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::stanza;

    fn lasting(payload: &str) -> bool {
        is_lasting(&stanza(&format!("<message type='chat'>{payload}</message>")))
    }

    #[test]
    fn tells_content_from_passing_signs() {
        for content in [
            "<body>hi</body>",
            "<subject>hi</subject>",
            "<received xmlns='urn:xmpp:receipts' id='1'/>",
            "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
            "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>x</reaction></reactions>",
            "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>",
            "<encrypted xmlns='eu.siacs.conversations.axolotl'/>",
            "<unheard-of xmlns='urn:example:what'/>",
            "<active xmlns='http://jabber.org/protocol/chatstates'/><body>hi</body>",
        ] {
            assert!(lasting(content), "{content}");
        }
        for passing in [
            "",
            "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
            "<composing xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread><no-store xmlns='urn:xmpp:hints'/>",
            "<request xmlns='urn:xmpp:receipts'/><origin-id xmlns='urn:xmpp:sid:0' id='1'/>",
            "<markable xmlns='urn:xmpp:chat-markers:0'/>",
            "<event xmlns='http://jabber.org/protocol/pubsub#event'/>",
        ] {
            assert!(!lasting(passing), "{passing}");
        }
    }
}
