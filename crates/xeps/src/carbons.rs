//! Message carbons (XEP-0280): every device of an account sees both sides of every conversation.
//!
//! The hooks only name the sessions that get a copy; the home builds it ([`starling_hooks::carbon`]) once it knows the
//! position of the original in the log. `<private/>` is left in place, as the document has it since version 1.0.
//! `urn:xmpp:carbons:rules:0` is not advertised: of an error it cannot always be told what it answers.

use crate::answer;
use crate::content;
use crate::hints::Hinted;
use starling_hooks::{
    About, Answer, AnswerIq, At, Change, Cx, Fate, Flow, Hooks, Received, Sent, Session, Spec, Stage, Xep,
};
use starling_xmpp::{Element, Kind, MessageType, Stanza, ns};
use std::sync::Arc;

/// Copies messages to other sessions of the account.
pub struct Carbons;

/// Takes out wrappers that claim to be copies: none ever arrives in, or leaves with, a message (XEP-0280 §7, §11).
struct NoForgedCopies;

static ABOUT: About = About {
    spec: Spec::Xep(280, "1.0.1"),
    name: "message carbons",
    server_features: &[ns::CARBONS],
    account_features: &[],
};

impl Xep for Carbons {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.sent(Stage::Shape, Arc::new(NoForgedCopies));
        on.received(Stage::Shape, Arc::new(NoForgedCopies));
        on.sent(Stage::Watch, Arc::<Self>::clone(&self));
        on.received(Stage::Watch, Arc::<Self>::clone(&self));
        on.iq(At::Account, ns::CARBONS, "enable", Arc::<Self>::clone(&self));
        on.iq(At::Account, ns::CARBONS, "disable", self);
    }
}

impl AnswerIq for Carbons {
    /// May be repeated, in any order (XEP-0280 §10.1).
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        let Some(session) = cx.session else { return answer::none_of_yours() };
        if answer::is_get(iq) {
            return answer::wrong_type();
        }
        let token = session.token;
        cx.change(Change::Carbons(token, payload.name() == "enable"));
        Answer::done()
    }
}

impl Sent for NoForgedCopies {
    fn sent(&self, _: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(stanza)
    }
}

impl Received for NoForgedCopies {
    fn received(&self, _: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(stanza)
    }
}

fn strip(stanza: &mut Stanza) -> Flow {
    if stanza.is_message() && stanza.payload.has_ns(ns::CARBONS) {
        stanza.payload = stanza
            .payload
            .without(|child| child.is(ns::CARBONS, "sent") || child.is(ns::CARBONS, "received"));
    }
    Flow::Next
}

impl Sent for Carbons {
    /// XEP-0280 §8: to all other sessions with carbons on, whether the sender has them on or not.
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        // A message to oneself comes back at once; whoever does not get it then gets a copy as received.
        let to_self = stanza.to.as_ref().is_none_or(|to| to.bare_str() == cx.account.jid.as_str());
        if !to_self && is_eligible(stanza, Way::Sent) {
            let sender = cx.session.map(|session| session.token);
            let others = copied(cx).filter(|session| Some(session.token) != sender);
            fate.copies.extend(others.map(|session| session.token));
        }
        Flow::Next
    }
}

impl Received for Carbons {
    /// XEP-0280 §7: to all sessions with carbons on that do not get the message itself.
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        if is_eligible(stanza, Way::Received) {
            let from = stanza.from.as_ref().map(starling_xmpp::Jid::as_str);
            let others = copied(cx)
                .filter(|session| {
                    !fate.recipients.contains(&session.token) && Some(session.jid.as_str()) != from
                })
                .map(|session| session.token);
            fate.copies.extend(others);
        }
        Flow::Next
    }
}

fn copied<'a>(cx: &Cx<'a>) -> impl Iterator<Item = &'a Session> + use<'a> {
    cx.account.sessions.iter().filter(|session| session.carbons)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sent,
    Received,
}

/// The rules of XEP-0280 §6.1.
fn is_eligible(stanza: &Stanza, way: Way) -> bool {
    let Kind::Message(kind) = stanza.kind else { return false };
    if stanza.payload.has(ns::CARBONS, "private") || Hinted::of(stanza).no_copy {
        return false;
    }
    match kind {
        MessageType::Groupchat => false,
        MessageType::Error => answers_eligible(stanza),
        MessageType::Chat | MessageType::Normal | MessageType::Headline => {
            if way == Way::Received && is_from_occupant(stanza) {
                return false;
            }
            kind == MessageType::Chat
                || (kind == MessageType::Normal && stanza.body())
                || content::has_chat_payload(stanza)
                || content::is_invitation(stanza)
        }
    }
}

/// An error repeats what it answers, or says nothing of it. What is not repeated may have been of interest.
fn answers_eligible(error: &Stanza) -> bool {
    let mut repeated = error.payload.children().filter(|child| !child.is(ns::CLIENT, "error")).peekable();
    repeated.peek().is_none() || error.body() || content::has_chat_payload(error)
}

/// A private message of somebody in a room: the room has sent it to every session that is in there.
fn is_from_occupant(message: &Stanza) -> bool {
    message.from.as_ref().is_some_and(|from| !from.is_bare())
        && message.payload.has(ns::MUC_USER, "x")
        && !content::is_invitation(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::Bench;

    /// A phone and a tablet with carbons on, and a desktop without.
    fn bench() -> Bench {
        let mut bench = Bench::new(vec![Arc::new(Carbons)])
            .available("phone", 0)
            .available("tablet", -1)
            .available("desktop", 5);
        bench.at("phone").carbons = true;
        bench.at("tablet").carbons = true;
        bench
    }

    fn copies_of_sent(message: &str) -> usize {
        bench().sent("phone", message).fate.copies.len()
    }

    const BODY: &str = "<body>hi</body>";

    #[test]
    fn is_switched_on_and_off_as_often_as_one_likes() {
        let mut bench = bench();
        for (name, on) in
            [("enable", true), ("enable", true), ("disable", false), ("disable", false), ("enable", true)]
        {
            let xml = format!("<iq type='set' id='1'><{name} xmlns='urn:xmpp:carbons:2'/></iq>");
            assert!(matches!(bench.ask(At::Account, "desktop", &xml).answer, Ok(None)));
            assert_eq!(bench.at("desktop").carbons, on);
        }
        let get = "<iq type='get' id='1' from='bob@localhost/x'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
        assert_eq!(bench.ask(At::Account, "desktop", get).condition(), "not-allowed");
        assert_eq!(
            bench.stranger_asks(At::Account, &get.replace("get", "set")).condition(),
            "service-unavailable"
        );
    }

    #[test]
    fn what_one_session_sends_the_others_see() {
        let mut bench = bench();
        let seen = bench.sent("desktop", "<message type='chat' to='bob@localhost'><body>hi</body></message>");
        assert_eq!(bench.resources(&seen.fate.copies), ["phone", "tablet"]);
        let seen = bench.sent("phone", "<message type='chat' to='bob@localhost'><body>hi</body></message>");
        assert_eq!(bench.resources(&seen.fate.copies), ["tablet"]);
    }

    #[test]
    fn what_one_session_receives_the_others_see() {
        let mut bench = bench();
        let xml = "<message type='chat' from='bob@localhost/x' to='alice@localhost/desktop'><body>hi</body></message>";
        let seen = bench.received(xml, &["desktop"]);
        assert_eq!(bench.resources(&seen.fate.copies), ["phone", "tablet"]);
        let seen = bench.received(xml, &["desktop", "phone"]);
        assert_eq!(bench.resources(&seen.fate.copies), ["tablet"]);
    }

    #[test]
    fn a_message_to_oneself_is_seen_once() {
        let mut bench = bench();
        let xml = "<message type='chat' from='alice@localhost/phone' to='alice@localhost/desktop'><body>hi</body></message>";
        assert!(bench.sent("phone", xml).fate.copies.is_empty());
        let seen = bench.received(xml, &["desktop"]);
        assert_eq!(bench.resources(&seen.fate.copies), ["tablet"]);
    }

    #[test]
    fn copies_what_the_rules_name() {
        for (attributes, payload) in [
            ("type='chat'", BODY),
            ("type='chat'", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
            ("type='chat'", "<x xmlns='urn:example'/>"),
            ("", BODY),
            ("", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
            ("", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"),
            ("", "<x xmlns='jabber:x:conference' jid='room@rooms.example'/>"),
            ("", "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='c@x'/></x>"),
        ] {
            let xml = format!("<message {attributes} to='bob@localhost'>{payload}</message>");
            assert_eq!(copies_of_sent(&xml), 1, "{xml}");
        }
        for (attributes, payload) in [
            ("type='groupchat'", BODY),
            ("type='headline'", BODY),
            ("", "<x xmlns='urn:example'/>"),
            (
                "type='chat'",
                "<body>hi</body><private xmlns='urn:xmpp:carbons:2'/><no-copy xmlns='urn:xmpp:hints'/>",
            ),
            ("type='chat'", "<body>hi</body><private xmlns='urn:xmpp:carbons:2'/>"),
            ("type='chat'", "<body>hi</body><no-copy xmlns='urn:xmpp:hints'/>"),
        ] {
            let xml = format!("<message {attributes} to='bob@localhost'>{payload}</message>");
            assert_eq!(copies_of_sent(&xml), 0, "{xml}");
        }
    }

    #[test]
    fn private_messages_in_rooms_are_copied_one_way() {
        let payload = "<body>hi</body><x xmlns='http://jabber.org/protocol/muc#user'/>";
        let sent = format!("<message type='chat' to='room@rooms.example/nick'>{payload}</message>");
        assert_eq!(copies_of_sent(&sent), 1);
        let received = format!(
            "<message type='chat' from='room@rooms.example/nick' to='alice@localhost/desktop'>{payload}</message>"
        );
        assert!(bench().received(&received, &["desktop"]).fate.copies.is_empty());
    }

    #[test]
    fn errors_are_copied_with_what_they_answer() {
        let copies = |payload: &str| {
            let xml = format!(
                "<message type='error' from='bob@localhost' to='alice@localhost/desktop'>{payload}</message>"
            );
            bench().received(&xml, &["desktop"]).fate.copies.len()
        };
        let error =
            "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert_eq!(copies(error), 2);
        assert_eq!(copies(&format!("{BODY}{error}")), 2);
        assert_eq!(copies(&format!("<x xmlns='urn:example'/>{error}")), 0);
        assert_eq!(copies(&format!("{BODY}<private xmlns='urn:xmpp:carbons:2'/>{error}")), 0);
    }

    #[test]
    fn forged_copies_are_taken_out() {
        let forged = "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
            <message xmlns='jabber:client' from='juliet@localhost'><body>hi</body></message></forwarded></received>";
        let xml = format!(
            "<message type='chat' from='bob@localhost/x' to='alice@localhost'>{forged}<private xmlns='urn:xmpp:carbons:2'/>\
             <body>hi</body>{}</message>",
            forged.replace("received", "sent")
        );
        for seen in [bench().received(&xml, &["desktop"]), bench().sent("phone", &xml)] {
            let left: Vec<_> = seen.stanza.payload.children().map(|child| child.name().to_owned()).collect();
            assert_eq!(left, ["private", "body"]);
        }
    }
}
