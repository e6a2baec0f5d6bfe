//! Stanza forwarding (XEP-0297): a stanza inside another one.
//!
//! The inner stanza's canonical bytes are spliced in as they are; nothing is parsed into a tree. A page of the archive
//! costs what copying it costs.

use crate::delay;
use bytes::{BufMut, Bytes, BytesMut};
use starling_xmpp::xml::XmlError;
use starling_xmpp::{Element, Payload, Timestamp, ns};

/// A payload of one child: `wrapper`, which must be empty, around a `<forwarded/>` with the stanza in it, and with the moment
/// it was taken where that is to be told. `stanza` is in `Stanza::encode` form, so it keeps its namespace (XEP-0297 §3.2).
///
/// # Errors
/// When `stanza` is not in that form.
pub fn payload(wrapper: &Element, stamp: Option<Timestamp>, stanza: &Bytes) -> Result<Payload, XmlError> {
    let mut out = BytesMut::with_capacity(stanza.len() + 256);
    let end = open(wrapper, ns::CLIENT, &mut out);
    let inner = open(&Element::new(ns::FORWARD, "forwarded"), wrapper.ns(), &mut out);
    if let Some(stamp) = stamp {
        delay::element(None, stamp).write(&mut out, ns::FORWARD);
    }
    out.put_slice(stanza);
    out.put_slice(&inner);
    out.put_slice(&end);
    Payload::parse(out.freeze())
}

/// Writes the start tag of an element without content and returns its end tag.
fn open(element: &Element, context: &str, out: &mut BytesMut) -> Vec<u8> {
    debug_assert!(element.child_count() == 0 && element.content().is_empty(), "a wrapper is empty");
    let start = out.len();
    element.write(out, context);
    if out[start..].ends_with(b"/>") {
        out.truncate(out.len() - 2);
        out.put_u8(b'>');
    }
    format!("</{}>", element.name()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{element, stanza};

    #[test]
    fn wraps_a_stanza_without_touching_it() {
        let inner = stanza(
            "<message from='a@x' to='b@y' id='1'><body>&lt;&amp;</body><thing xmlns='urn:t' a='&apos;&quot;'/></message>",
        );
        let wrapper = Element::new(ns::MAM, "result").attr("queryid", "a'\"&<").attr("id", "7");
        let payload = payload(&wrapper, Some(Timestamp::from_secs(0)), &inner.encode()).unwrap();
        let expected = element(
            "<result xmlns='urn:xmpp:mam:2' queryid='a&apos;\"&amp;&lt;' id='7'><forwarded xmlns='urn:xmpp:forward:0'>\
             <delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:00Z'/>\
             <message xmlns='jabber:client' from='a@x' to='b@y' id='1'><body>&lt;&amp;</body><thing xmlns='urn:t' a='&apos;&quot;'/></message>\
             </forwarded></result>",
        );
        let children: Vec<_> = payload.children().map(|child| child.element()).collect();
        assert_eq!(children, [expected]);
    }

    #[test]
    fn refuses_what_is_no_stanza() {
        let wrapper = Element::new(ns::MAM, "result");
        assert!(
            payload(&wrapper, None, &Bytes::from_static(b"<message xmlns='jabber:client'><body")).is_err()
        );
    }
}
