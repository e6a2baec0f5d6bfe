//! The part of XML that XMPP allows (RFC 6120 section 11), checked by ourselves.
//!
//! One tokenizer serves the stream reader and [`Element::parse`]. It knows no DTD, no entity but the five built in,
//! no comment and no processing instruction, so there is nothing to switch off; every limit is applied while
//! scanning. Namespaces are resolved while the canonical form is written.

pub(crate) mod canonical;
pub(crate) mod chars;
mod element;
pub(crate) mod escape;
mod payload;
pub(crate) mod scope;
pub(crate) mod tag;
pub(crate) mod token;
mod tree;

pub use element::Element;
pub use payload::{Child, Payload};
pub(crate) use payload::{Index, Name, canonical_attributes, decoded, root_tag};

use crate::{StreamCondition, StreamError};

/// Why a piece of XML was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed, or not namespace-well-formed.
    #[error("not well-formed")]
    NotWellFormed,
    /// Ends before its end.
    #[error("ends early")]
    Truncated,
    /// A comment, processing instruction, DTD or entity reference (RFC 6120 section 11.1).
    #[error("restricted xml")]
    Restricted,
    /// The customary `stream` prefix is used and not declared (RFC 6120 section 4.8.5).
    #[error("prefix not declared")]
    BadPrefix,
    /// Not UTF-8, by its declaration or byte order mark.
    #[error("not utf-8")]
    Encoding,
    /// Over a limit; the text names which.
    #[error("over the limit: {0}")]
    Limit(&'static str),
    /// Well-formed, but no stanza as this crate encodes them.
    #[error("not an encoded stanza")]
    NotAStanza,
}

impl From<XmlError> for StreamError {
    fn from(error: XmlError) -> Self {
        match error {
            XmlError::NotWellFormed | XmlError::Truncated => Self::new(StreamCondition::NotWellFormed),
            XmlError::Restricted => Self::new(StreamCondition::RestrictedXml),
            XmlError::BadPrefix => Self::new(StreamCondition::BadNamespacePrefix),
            XmlError::Encoding => Self::new(StreamCondition::UnsupportedEncoding),
            XmlError::Limit(what) => Self::new(StreamCondition::PolicyViolation).with_text(what),
            XmlError::NotAStanza => Self::new(StreamCondition::BadFormat),
        }
    }
}

/// The limits of one parsed element, whatever it is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Open elements at a time.
    pub(crate) depth: u16,
    /// Attributes of one element, namespace declarations not counted.
    pub(crate) attributes: u16,
    /// Namespace declarations in scope at a time, those of the stream header not counted.
    pub(crate) namespaces: u16,
    /// Bytes of a qualified name.
    pub(crate) name_bytes: u16,
    /// Bytes of one attribute value as it stands in the input.
    pub(crate) attribute_bytes: usize,
}

impl Bounds {
    /// What [`Element::parse`] takes: wider than any stream, since what it reads has been checked before or is ours.
    pub(crate) const TREE: Self =
        Self { depth: 64, attributes: 256, namespaces: 64, name_bytes: 1024, attribute_bytes: 1 << 20 };
}
