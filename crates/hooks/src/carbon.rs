//! Carbon copies (XEP-0280 §§7–8): what a session gets of a message that went to, or came from, another one.

use crate::forward;
use starling_xmpp::{BareJid, Element, FullJid, Payload, Stanza, ns};

/// Which way the copied message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Another session of the owner sent it.
    Sent,
    /// Another session of the owner received it.
    Received,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// The copy of a message for one session of its owner. `original` is the message as decided, with the owner's `stanza-id`
/// where it was archived (XEP-0313 §3.5).
pub fn copy(way: Way, owner: &BareJid, to: &FullJid, original: &Stanza) -> Stanza {
    let wrapper = Element::new(ns::CARBONS, way.name());
    let payload = forward::payload(&wrapper, None, &original.encode()).unwrap_or_else(|_| {
        let forwarded = Element::new(ns::FORWARD, "forwarded").child(original.to_element());
        Payload::from_elements([wrapper.child(forwarded)])
    });
    // "SHOULD maintain the same type", `from` the bare JID, `to` the full one: XEP-0280 §7, §8.
    let mut copy = Stanza::clone(original);
    copy.id = None;
    copy.lang = None;
    copy.extra = None;
    copy.payload = payload;
    copy.from(owner.clone()).to(to.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{element, stanza};

    #[test]
    fn keeps_type_and_comes_from_the_bare_jid() {
        let owner = BareJid::parse("romeo@montague.example").unwrap();
        let home = FullJid::parse("romeo@montague.example/home").unwrap();
        let original = stanza(
            "<message id='m1' type='chat' from='juliet@capulet.example/balcony' to='romeo@montague.example/garden' xml:lang='en'>\
             <body>hi</body></message>",
        );
        let copy = copy(Way::Received, &owner, &home, &original);
        assert_eq!(
            copy.to_element(),
            element(
                "<message type='chat' from='romeo@montague.example' to='romeo@montague.example/home'>\
                 <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' id='m1' type='chat' from='juliet@capulet.example/balcony' \
                 to='romeo@montague.example/garden' xml:lang='en'><body>hi</body></message>\
                 </forwarded></received></message>"
            )
        );
    }
}
