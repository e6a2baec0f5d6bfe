//! Reads stanzas that have been checked before: encoded bytes and trees.

use bytes::Bytes;

use super::{Head, Stanza};
use crate::{
    Element, Payload, StanzaCondition, StanzaError, XmlError, ns,
    xml::{canonical_attributes, decoded, root_tag},
};

/// Reads what [`Stanza::encode`] wrote.
pub(super) fn decode(bytes: Bytes) -> Result<Stanza, XmlError> {
    let (tag, inside) = root_tag(&bytes)?;
    if tag.declared != Some(ns::CLIENT) {
        return Err(XmlError::NotAStanza);
    }
    let mut head = Head::new(tag.name).ok_or(XmlError::NotAStanza)?;
    let mut extra = Vec::new();
    for (name, raw) in canonical_attributes(tag.attributes) {
        let value = decoded(raw);
        if name == "xml:lang" {
            head.stanza.lang = Some(value.into());
        } else if !head.attribute(name, &value) {
            extra.push(b' ');
            extra.extend_from_slice(name.as_bytes());
            extra.extend_from_slice(b"='");
            extra.extend_from_slice(raw.as_bytes());
            extra.push(b'\'');
        }
    }
    if head.bad_from || head.fault.is_some() {
        return Err(XmlError::NotAStanza);
    }
    let mut stanza = head.stanza;
    stanza.extra = (!extra.is_empty()).then(|| Bytes::from(extra));
    stanza.payload = Payload::parse(bytes.slice(inside))?;
    Ok(stanza)
}

/// Reads a tree.
pub(super) fn from_element(element: &Element) -> Result<Stanza, StanzaError> {
    let bad = || StanzaError::new(StanzaCondition::BadRequest);
    if element.ns() != ns::CLIENT {
        return Err(bad());
    }
    let mut head = Head::new(element.name()).ok_or_else(bad)?;
    let mut rest = Element::new("", "x");
    for (namespace, name, value) in element.attributes() {
        match namespace {
            "" if head.attribute(name, value) => {}
            ns::XML if name == "lang" => head.lang(value),
            _ => rest.push_attribute(namespace, name, value),
        }
    }
    head.complete();
    head.check_children(element.child_count());
    if head.bad_from {
        head.fail(StanzaCondition::JidMalformed);
    }
    if let Some(fault) = head.fault {
        return Err(fault);
    }
    let mut stanza = head.stanza;
    // `<x`, the attributes each after a space, `/>`.
    let extra = rest.to_bytes("");
    stanza.extra = (extra.len() > 4).then(|| extra.slice(2..extra.len() - 2));
    stanza.payload = element.children().cloned().collect();
    Ok(stanza)
}
