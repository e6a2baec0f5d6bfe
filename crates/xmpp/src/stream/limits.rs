//! How much of everything a peer may send.

use crate::xml::Bounds;

/// The limits of one stream. All of them are applied while reading, before anything over them is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one first-level element, or of the stream header.
    pub stanza_bytes: usize,
    /// Bytes of one attribute value.
    pub attribute_bytes: usize,
    /// Elements of one stanza, its root included.
    pub elements: u32,
    /// Open elements at a time, the root of the stanza included and that of the stream not.
    pub depth: u16,
    /// Attributes of one element, namespace declarations not counted.
    pub attributes: u16,
    /// Namespace declarations in scope at a time, those of the stream header not counted.
    pub namespaces: u16,
    /// Bytes of a qualified name.
    pub name_bytes: u16,
    /// Whether a stanza over `stanza_bytes` that has an id is skipped and answered, as long as it stays below four
    /// times the limit. Otherwise it ends the stream.
    pub answer_oversize: bool,
}

impl Limits {
    /// The defaults before authentication.
    pub const fn pre_auth() -> Self {
        Self { stanza_bytes: 8_192, elements: 32, answer_oversize: false, ..Self::c2s() }
    }

    /// The defaults of an authenticated client.
    pub const fn c2s() -> Self {
        Self {
            stanza_bytes: 262_144,
            attribute_bytes: 16_384,
            elements: 4_096,
            depth: 32,
            attributes: 64,
            namespaces: 32,
            name_bytes: 256,
            answer_oversize: true,
        }
    }

    /// The defaults of an authenticated server.
    pub const fn s2s() -> Self {
        Self { stanza_bytes: 524_288, ..Self::c2s() }
    }

    pub(super) const fn bounds(&self) -> Bounds {
        Bounds {
            depth: self.depth,
            attributes: self.attributes,
            namespaces: self.namespaces,
            name_bytes: self.name_bytes,
            attribute_bytes: self.attribute_bytes,
        }
    }
}

impl Default for Limits {
    /// The tightest: those before authentication.
    fn default() -> Self {
        Self::pre_auth()
    }
}
