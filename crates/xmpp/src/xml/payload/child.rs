//! One child of a payload, seen through its canonical bytes.

use std::{borrow::Cow, fmt};

use super::{
    super::{Element, chars::decode_text},
    scan::{StartTag, canonical_attributes, decoded},
};
use crate::ns;

/// A child of a stanza. Looking at it allocates nothing; [`Child::element`] makes a tree.
#[derive(Clone, Copy, Default)]
pub struct Child<'a> {
    ns: &'a str,
    name: &'a str,
    bytes: &'a [u8],
}

impl<'a> Child<'a> {
    pub(super) const fn new(ns: &'a str, name: &'a str, bytes: &'a [u8]) -> Self {
        Self { ns, name, bytes }
    }

    /// The namespace name; empty for none.
    pub const fn ns(&self) -> &'a str {
        self.ns
    }

    /// The local name.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Whether it has this expanded name.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Its canonical bytes, inside of the content namespace.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// It as a tree.
    pub fn element(&self) -> Element {
        // Canonical bytes were written from a tree or checked while they were written; the fallback is for bytes that
        // storage damaged.
        Element::parse(self.bytes, ns::CLIENT).unwrap_or_else(|_| Element::new(self.ns, self.name))
    }

    /// The value of an attribute without a namespace, or of `xml:lang`, read from the start tag.
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let tag = StartTag::at(self.bytes, 0).ok()?;
        canonical_attributes(tag.attributes).find(|(key, _)| *key == name).map(|(_, raw)| decoded(raw))
    }

    /// The value of `xml:lang` on the child itself.
    pub fn lang(&self) -> Option<Cow<'a, str>> {
        self.attribute("xml:lang")
    }

    /// The text of the direct text nodes.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (mut depth, mut at) = (0_usize, 0);
        while let Some(open) = memchr::memchr(b'<', &self.bytes[at..]).map(|found| at + found) {
            if depth == 1
                && let Ok(raw) = std::str::from_utf8(&self.bytes[at..open])
            {
                // Canonical text holds no reference that fails.
                let _ = decode_text(raw, false, |piece, _| text.push_str(piece));
            }
            let Ok(tag) = StartTag::at(self.bytes, open) else { break };
            at = tag.end;
            match (tag.closing, tag.empty) {
                (true, _) => depth = depth.saturating_sub(1),
                (false, false) => depth += 1,
                (false, true) => {}
            }
        }
        text
    }
}

/// The name only: the rest belongs to users and is not for logs.
impl fmt::Debug for Child<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}{}", self.ns, self.name)
    }
}
