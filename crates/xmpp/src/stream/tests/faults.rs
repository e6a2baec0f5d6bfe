//! Stanzas that are answered instead of processed, and what is left of them.

use super::*;
use crate::{IqType, PresenceType, StanzaCondition};

fn fault(rest: &str) -> (Stanza, StanzaCondition) {
    let incoming = stanza(rest);
    let fault = incoming.fault.unwrap_or_else(|| panic!("{rest}: no fault"));
    (incoming.stanza, fault.condition)
}

#[test]
fn s02_bad_addresses_are_told() {
    for to in ["", "@", "a@", "@b", "a@b/", "a@@b", "//", "a b@c"] {
        let (stanza, condition) = fault(&format!("<message to='{to}' id='7'/>"));
        assert_eq!(condition, StanzaCondition::JidMalformed, "{to}");
        assert_eq!((stanza.id.as_deref(), stanza.to), (Some("7"), None));
    }
    for from in ["", "@", "a b@c"] {
        let (_, error) = stream(&format!("<message from='{from}'/>"));
        assert_eq!(error, Some(StreamCondition::InvalidFrom), "{from}");
    }
}

#[test]
fn s05_bad_iqs_are_told() {
    for bad in [
        "<iq type='get'><a xmlns='u'/></iq>",
        "<iq id='1'><a xmlns='u'/></iq>",
        "<iq id='1' type='odd'><a xmlns='u'/></iq>",
        "<iq id='1' type='set'/>",
        "<iq id='1' type='get'><a xmlns='u'/><b xmlns='u'/></iq>",
        "<iq id='1' type='get'>text<a xmlns='u'/></iq>",
        "<presence type='away'/>",
        "<message>text</message>",
        "<message><![CDATA[x]]></message>",
    ] {
        assert_eq!(fault(bad).1, StanzaCondition::BadRequest, "{bad}");
    }
    for good in [
        "<iq id='1' type='result'/>",
        "<iq id='1' type='result'><a xmlns='u'/><b xmlns='u'/></iq>",
        "<iq id='1' type='error'/>",
        "<iq id='1' type='get'>\n <a xmlns='u'/>\n</iq>",
        "<message type='odd'/>",
        "<message/>",
    ] {
        assert_eq!(stanza(good).fault, None, "{good}");
    }
}

#[test]
fn faults_of_results_and_errors_are_never_answered() {
    for quiet in ["<iq to='@' id='1' type='result'/>", "<message to='@' type='error'/>"] {
        let incoming = stanza(quiet);
        assert_eq!(incoming.stanza.error(&incoming.fault.unwrap()), None, "{quiet}");
    }
    let incoming = stanza("<iq id='1' type='odd'/>");
    let reply = incoming.stanza.error(&incoming.fault.unwrap()).unwrap();
    assert_eq!((reply.kind, reply.id.as_deref()), (Kind::Iq(IqType::Error), Some("1")));
}

#[test]
fn the_language_is_kept_and_bounded() {
    assert_eq!(stanza("<message xml:lang='de'/>").stanza.lang.as_deref(), Some("de"));
    let (stanza, condition) = fault(&format!("<message xml:lang='{}' id='1'/>", "x".repeat(10_240)));
    assert_eq!((stanza.lang, condition), (None, StanzaCondition::BadRequest));
}

#[test]
fn other_attributes_of_the_root_are_kept() {
    let incoming = stanza("<presence xmlns:p='urn:p' p:a='1' type='probe' b='&lt;' p:c='3' xml:space='x'/>");
    assert_eq!(incoming.stanza.kind, Kind::Presence(PresenceType::Probe));
    assert_eq!(
        incoming.stanza.extra.as_deref(),
        Some(b" xmlns:ns0='urn:p' ns0:a='1' b='&lt;' ns0:c='3' xml:space='x'".as_slice())
    );
    let decoded = Stanza::decode(incoming.stanza.encode()).unwrap();
    assert_eq!(decoded, incoming.stanza);
}

#[test]
fn a_prefixed_attribute_is_no_address() {
    let incoming = stanza("<message xmlns:p='urn:p' p:to='a@b' p:from='@' p:id='1'/>");
    assert_eq!((incoming.stanza.to, incoming.stanza.from, incoming.stanza.id), (None, None, None));
}
