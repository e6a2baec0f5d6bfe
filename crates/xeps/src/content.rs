//! What a message is worth: the one place that tells content from passing signs.
//!
//! Archive, offline storage, carbons and client state all ask it. A message can be: passing (a chat state), lasting (worth
//! keeping until a device has it), or part of a conversation (worth finding again).

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
/// receipts and the like (XEP-0160 §3). What is not known here counts.
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

/// Whether a message belongs to a conversation and is worth finding again (XEP-0313 §6.1.1): text, what changes or refers to
/// text, what says that text has come, and text that we cannot read. What is not known here does not count.
pub fn is_conversation(message: &Stanza) -> bool {
    message.body()
        || is_invitation(message)
        || message.payload.children().any(|child| is_of_conversation(&child))
}

fn is_of_conversation(child: &Child<'_>) -> bool {
    let (ns, name) = (child.ns(), child.name());
    match ns {
        ns::CLIENT => name == "subject",
        ns::RECEIPTS => name == "received",
        ns::MARKERS => name != "markable",
        ns::CORRECT | REACTIONS | REPLY => true,
        _ => RETRACT.contains(&ns) || ENCRYPTED.contains(&ns),
    }
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
    fn tells_conversations_from_everything_else() {
        let of_conversation =
            |payload: &str| is_conversation(&stanza(&format!("<message type='chat'>{payload}</message>")));
        for content in [
            "<body>hi</body>",
            "<subject>hi</subject>",
            "<received xmlns='urn:xmpp:receipts' id='1'/>",
            "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
            "<replace xmlns='urn:xmpp:message-correct:0' id='1'/>",
            "<reactions xmlns='urn:xmpp:reactions:0' id='1'/>",
            "<reply xmlns='urn:xmpp:reply:0' id='1'/>",
            "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>",
            "<encrypted xmlns='urn:xmpp:omemo:2'/>",
            "<x xmlns='jabber:x:conference' jid='room@rooms.example'/>",
            "<x xmlns='http://jabber.org/protocol/muc#user'><invite/></x>",
        ] {
            assert!(of_conversation(content), "{content}");
        }
        for other in [
            "",
            "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
            "<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>",
            "<x xmlns='http://jabber.org/protocol/muc#user'/>",
            "<unheard-of xmlns='urn:example:what'/>",
        ] {
            assert!(!of_conversation(other), "{other}");
        }
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
