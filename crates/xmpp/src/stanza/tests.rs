use bytes::BytesMut;

use super::*;
use crate::{ErrorType, StanzaCondition};

fn jid(text: &str) -> Jid {
    Jid::parse(text).unwrap()
}

fn written(stanza: &Stanza) -> String {
    let mut out = BytesMut::new();
    stanza.write(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn chat() -> Stanza {
    Stanza::message(MessageType::Chat)
        .to(jid("bob@example.org"))
        .from(jid("alice@example.org/o'clock"))
        .id("a&b")
        .child(Element::new(ns::CLIENT, "body").text("1 < 2"))
        .child(Element::new(ns::CHATSTATES, "active"))
}

#[test]
fn a_stanza_is_written_in_canonical_form() {
    assert_eq!(
        written(&chat()),
        "<message to='bob@example.org' from='alice@example.org/o&apos;clock' id='a&amp;b' type='chat'>\
         <body>1 &lt; 2</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    );
    assert_eq!(written(&Stanza::presence(PresenceType::Available)), "<presence/>");
    assert_eq!(written(&Stanza::iq(IqType::Result).id("1")), "<iq id='1' type='result'/>");
}

#[test]
fn what_is_encoded_is_decoded() {
    let mut all = vec![chat(), Stanza::presence(PresenceType::Probe), Stanza::iq(IqType::Set).id("1")];
    all[0].lang = Some("de".into());
    all[0].extra = Some(Bytes::from_static(b" xmlns:ns0='urn:q' ns0:a='1&apos;' b='2'"));
    for stanza in all {
        let encoded = stanza.encode();
        assert_eq!(Stanza::decode(encoded.clone()), Ok(stanza.clone()));
        assert!(encoded.len() >= stanza.encoded_len());
        if !(stanza.is_iq()) {
            assert_eq!(Stanza::from_element(&stanza.to_element()), Ok(stanza));
        }
    }
    let plain = Stanza::message(MessageType::Normal).to(jid("a@b")).id("1").child(Element::new("u", "x"));
    assert_eq!(plain.encoded_len(), written(&plain).len());
}

#[test]
fn damaged_encodings_are_refused() {
    let good = chat().encode();
    for end in 0..good.len() {
        assert!(Stanza::decode(good.slice(..end)).is_err(), "cut at {end}");
    }
    for bad in [
        "<message/>",
        "<message xmlns='jabber:server'/>",
        "<x xmlns='jabber:client'/>",
        "<message xmlns='jabber:client' to='@'/>",
        "<iq xmlns='jabber:client' type='odd'/>",
        "",
        "</message>",
        "<message xmlns='jabber:client'></iq>",
    ] {
        assert!(Stanza::decode(Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
    }
}

#[test]
fn replies_swap_the_addresses() {
    let request = Stanza::iq(IqType::Get)
        .id("7")
        .to(jid("example.org"))
        .from(jid("a@example.org/r"))
        .child(Element::new(ns::PING, "ping"));
    assert_eq!(
        written(&request.result()),
        "<iq to='a@example.org/r' from='example.org' id='7' type='result'/>"
    );
    let error = StanzaError::new(StanzaCondition::ServiceUnavailable).with_type(ErrorType::Cancel);
    assert_eq!(
        written(&request.error(&error).unwrap()),
        "<iq to='a@example.org/r' from='example.org' id='7' type='error'><ping xmlns='urn:xmpp:ping'/>\
         <error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    );
    let large = request.child(Element::new("u", "x").text("y".repeat(2000)));
    assert_eq!(large.error(&error).unwrap().payload.len(), 1);
}

#[test]
fn errors_and_results_are_never_answered() {
    let error = StanzaError::new(StanzaCondition::BadRequest);
    for kind in [
        Kind::Message(MessageType::Error),
        Kind::Presence(PresenceType::Error),
        Kind::Iq(IqType::Error),
        Kind::Iq(IqType::Result),
    ] {
        assert_eq!(Stanza::new(kind).id("1").error(&error), None);
    }
    assert!(chat().error(&error).unwrap().is_error());
}

#[test]
fn trees_are_checked() {
    for (xml, condition) in [
        ("<iq type='get'><a/></iq>", StanzaCondition::BadRequest),
        ("<iq id='1'><a/></iq>", StanzaCondition::BadRequest),
        ("<iq id='1' type='get'/>", StanzaCondition::BadRequest),
        ("<iq id='1' type='get'><a/><b/></iq>", StanzaCondition::BadRequest),
        ("<presence type='odd'/>", StanzaCondition::BadRequest),
        ("<message to='@'/>", StanzaCondition::JidMalformed),
        ("<message from='@'/>", StanzaCondition::JidMalformed),
        ("<message xmlns='u'/>", StanzaCondition::BadRequest),
        ("<other/>", StanzaCondition::BadRequest),
    ] {
        let element: Element = xml.parse().unwrap();
        assert_eq!(Stanza::from_element(&element).unwrap_err().condition, condition, "{xml}");
    }
    let odd: Element = "<message type='odd'/>".parse().unwrap();
    assert_eq!(Stanza::from_element(&odd).unwrap().kind, Kind::Message(MessageType::Normal));
}
