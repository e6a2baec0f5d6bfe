//! Client state indication (XEP-0352): what a client that nobody looks at can wait for, or miss.
//!
//! The edge offers the feature and passes the state on; the home holds back what these decisions name, and flushes in order.

use crate::content;
use starling_hooks::{About, Hooks, Outgoing, Pace, Session, Spec, Xep};
use starling_xmpp::xml::Child;
use starling_xmpp::{Kind, MessageType, PresenceType, Stanza, ns};
use std::sync::Arc;

/// Decides what is urgent.
pub struct ClientState;

static ABOUT: About = About {
    spec: Spec::Xep(352, "1.0.0"),
    name: "client state indication",
    server_features: &[],
    account_features: &[],
};

impl Xep for ClientState {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.outgoing(self);
    }
}

impl Outgoing for ClientState {
    fn outgoing(&self, _: &Session, stanza: &Stanza) -> Pace {
        match stanza.kind {
            // The last one of each contact is enough. Requests and answers to them are for people to see.
            Kind::Presence(PresenceType::Available | PresenceType::Unavailable) => Pace::Later,
            Kind::Presence(_) | Kind::Iq(_) => Pace::Now,
            Kind::Message(MessageType::Error) => Pace::Now,
            Kind::Message(_) => message(stanza),
        }
    }
}

fn message(message: &Stanza) -> Pace {
    let copied = message.payload.children().find(is_copy).and_then(|copy| inner(&copy));
    let message = copied.as_ref().unwrap_or(message);
    // XEP-0352 §3.2: what somebody did while nobody looked is of no interest later. Events can be, but what waits replaces what
    // waits of the same sender.
    if content::is_only_chat_state(message) { Pace::Never } else { Pace::Now }
}

fn is_copy(child: &Child<'_>) -> bool {
    child.is(ns::CARBONS, "sent") || child.is(ns::CARBONS, "received")
}

/// The message in a carbon copy.
fn inner(copy: &Child<'_>) -> Option<Stanza> {
    let copy = copy.element();
    let message = copy.find(ns::FORWARD, "forwarded")?.find(ns::CLIENT, "message")?;
    Stanza::from_element(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::Bench;

    #[test]
    fn only_what_can_wait_waits() {
        let bench = Bench::new(vec![Arc::new(ClientState)]).available("phone", 0);
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        let event = "<event xmlns='http://jabber.org/protocol/pubsub#event'/>";
        let carbon = |inner: &str| {
            format!(
                "<message type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' type='chat'>{inner}</message></forwarded></sent></message>"
            )
        };
        for (xml, pace) in [
            ("<presence from='a@x/y'/>".to_owned(), Pace::Later),
            ("<presence from='a@x/y' type='unavailable'/>".to_owned(), Pace::Later),
            ("<presence from='a@x' type='subscribe'/>".to_owned(), Pace::Now),
            ("<iq type='result' id='1'/>".to_owned(), Pace::Now),
            ("<message type='chat'><body>hi</body></message>".to_owned(), Pace::Now),
            (format!("<message type='chat'><body>hi</body>{composing}</message>"), Pace::Now),
            (format!("<message type='chat'>{composing}<thread>t</thread></message>"), Pace::Never),
            (
                "<message type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>".to_owned(),
                Pace::Now,
            ),
            ("<message type='groupchat'><body>hi</body></message>".to_owned(), Pace::Now),
            ("<message><x xmlns='jabber:x:conference'/></message>".to_owned(), Pace::Now),
            ("<message><result xmlns='urn:xmpp:mam:2'/></message>".to_owned(), Pace::Now),
            (format!("<message>{event}</message>"), Pace::Now),
            (format!("<message type='headline'>{event}</message>"), Pace::Now),
            ("<message type='headline'><body>news</body></message>".to_owned(), Pace::Now),
            ("<message type='error'><error type='cancel'/></message>".to_owned(), Pace::Now),
            (carbon("<body>hi</body>"), Pace::Now),
            (carbon(composing), Pace::Never),
        ] {
            assert_eq!(bench.pace("phone", &xml), pace, "{xml}");
        }
    }
}
