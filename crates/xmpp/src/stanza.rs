//! Stanzas: message, presence and IQ (RFC 6120 section 8).

mod decode;
mod head;
mod kind;

use bytes::{BufMut, Bytes};
use compact_str::CompactString;

pub(crate) use head::Head;
pub use kind::{IqType, Kind, MessageType, PresenceType};

use crate::{Element, Jid, Payload, StanzaError, XmlError, ns, xml::escape};

/// A stanza. A clone costs a few reference counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Stanza {
    /// Which stanza, and its type.
    pub kind: Kind,
    /// Opaque text; every IQ has one.
    pub id: Option<CompactString>,
    /// The recipient.
    pub to: Option<Jid>,
    /// The sender.
    pub from: Option<Jid>,
    /// `xml:lang` (RFC 6120 section 8.1.5).
    pub lang: Option<CompactString>,
    /// All other attributes of the root in canonical form, each after a space; usually there are none.
    pub extra: Option<Bytes>,
    /// The children.
    pub payload: Payload,
}

/// An IQ of this size is not echoed in an error to it, in bytes.
const ECHO_BYTES: usize = 1024;

impl Stanza {
    /// A stanza without anything else.
    pub const fn new(kind: Kind) -> Self {
        Self { kind, id: None, to: None, from: None, lang: None, extra: None, payload: Payload::empty() }
    }

    /// An empty message.
    pub const fn message(message_type: MessageType) -> Self {
        Self::new(Kind::Message(message_type))
    }

    /// An empty presence.
    pub const fn presence(presence_type: PresenceType) -> Self {
        Self::new(Kind::Presence(presence_type))
    }

    /// An empty IQ; it needs an id.
    pub const fn iq(iq_type: IqType) -> Self {
        Self::new(Kind::Iq(iq_type))
    }

    /// Sets the recipient.
    #[must_use]
    pub fn to(mut self, to: impl Into<Jid>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// Sets the sender.
    #[must_use]
    pub fn from(mut self, from: impl Into<Jid>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        self.id = Some(CompactString::new(id));
        self
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, child: Element) -> Self {
        self.payload = self.payload.with(&child);
        self
    }

    /// Replaces the children.
    #[must_use]
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// `message`, `presence` or `iq`.
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The `type` attribute; `None` for the defaults `normal` and available.
    pub const fn type_str(&self) -> Option<&'static str> {
        self.kind.type_str()
    }

    /// Whether its type is `error`.
    pub const fn is_error(&self) -> bool {
        self.kind.is_error()
    }

    /// Whether it is a message.
    pub const fn is_message(&self) -> bool {
        matches!(self.kind, Kind::Message(_))
    }

    /// Whether it is a presence.
    pub const fn is_presence(&self) -> bool {
        matches!(self.kind, Kind::Presence(_))
    }

    /// Whether it is an IQ.
    pub const fn is_iq(&self) -> bool {
        matches!(self.kind, Kind::Iq(_))
    }

    /// Whether it is an IQ that must be answered.
    pub const fn is_request(&self) -> bool {
        matches!(self.kind, Kind::Iq(IqType::Get | IqType::Set))
    }

    /// Whether it has a body.
    pub fn body(&self) -> bool {
        self.payload.has(ns::CLIENT, "body")
    }

    /// Writes it without `xmlns`, as inside a stream whose default namespace is that of its stanzas.
    pub fn write(&self, out: &mut impl BufMut) {
        self.write_with(out, b"");
    }

    /// It standing alone, declared to be in `jabber:client`: for storage, and for transports without a stream root.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len() + 24);
        self.write_with(&mut out, b" xmlns='jabber:client'");
        Bytes::from(out)
    }

    /// Reads what [`Self::encode`] wrote. The payload shares the bytes.
    ///
    /// # Errors
    /// If the bytes are not such; what is inside of the children is not checked again.
    pub fn decode(bytes: Bytes) -> Result<Self, XmlError> {
        decode::decode(bytes)
    }

    /// About how many bytes [`Self::write`] gives: exact if nothing has to be escaped.
    pub fn encoded_len(&self) -> usize {
        let attribute = |name: usize, value: Option<usize>| value.map_or(0, |value| value + name + 4);
        let jid = |jid: &Option<Jid>| jid.as_ref().map(|jid| jid.as_str().len());
        let payload = self.payload.bytes().len();
        let name = self.name().len();
        let frame = if payload == 0 { name + 3 } else { 2 * name + 5 };
        frame
            + attribute(2, jid(&self.to))
            + attribute(4, jid(&self.from))
            + attribute(2, self.id.as_ref().map(|id| id.len()))
            + attribute(4, self.type_str().map(str::len))
            + attribute(8, self.lang.as_ref().map(|lang| lang.len()))
            + self.extra.as_ref().map_or(0, Bytes::len)
            + payload
    }

    /// It as a tree.
    pub fn to_element(&self) -> Element {
        // What is written here is well-formed, whatever the fields hold.
        Element::parse(&self.encode(), ns::CLIENT).unwrap_or_else(|_| Element::new(ns::CLIENT, self.name()))
    }

    /// Reads a tree, with the checks that a stanza from a stream gets.
    ///
    /// # Errors
    /// What a client that sent it would be told: `bad-request`, `jid-malformed`.
    pub fn from_element(element: &Element) -> Result<Self, StanzaError> {
        decode::from_element(element)
    }

    /// An IQ result for this request, from its recipient to its sender, without children.
    pub fn result(&self) -> Self {
        let mut result = Self::iq(IqType::Result);
        result.id.clone_from(&self.id);
        result.to.clone_from(&self.from);
        result.from.clone_from(&self.to);
        result
    }

    /// The error that answers this stanza, from its recipient to its sender. `None` for what must never be answered:
    /// errors and IQ results (RFC 6120 section 8.3.1). A small IQ request is echoed.
    pub fn error(&self, error: &StanzaError) -> Option<Self> {
        let kind = match self.kind {
            kind if kind.is_error() => return None,
            Kind::Iq(IqType::Result) => return None,
            Kind::Message(_) => Kind::Message(MessageType::Error),
            Kind::Presence(_) => Kind::Presence(PresenceType::Error),
            Kind::Iq(_) => Kind::Iq(IqType::Error),
        };
        let mut reply = Self::new(kind);
        reply.id.clone_from(&self.id);
        reply.to.clone_from(&self.from);
        reply.from.clone_from(&self.to);
        let echo = self.is_iq() && self.payload.bytes().len() <= ECHO_BYTES;
        reply.payload = if echo { self.payload.with(&error.to_element()) } else { error.to_element().into() };
        Some(reply)
    }

    fn write_with(&self, out: &mut impl BufMut, declaration: &[u8]) {
        let name = self.name().as_bytes();
        out.put_slice(b"<");
        out.put_slice(name);
        out.put_slice(declaration);
        if let Some(to) = &self.to {
            write_attribute(b" to='", to.as_str(), out);
        }
        if let Some(from) = &self.from {
            write_attribute(b" from='", from.as_str(), out);
        }
        if let Some(id) = &self.id {
            write_attribute(b" id='", id, out);
        }
        if let Some(value) = self.type_str() {
            out.put_slice(b" type='");
            out.put_slice(value.as_bytes());
            out.put_slice(b"'");
        }
        if let Some(lang) = &self.lang {
            write_attribute(b" xml:lang='", lang, out);
        }
        if let Some(extra) = &self.extra {
            out.put_slice(extra);
        }
        if self.payload.is_empty() {
            out.put_slice(b"/>");
            return;
        }
        out.put_slice(b">");
        out.put_slice(self.payload.bytes());
        out.put_slice(b"</");
        out.put_slice(name);
        out.put_slice(b">");
    }
}

fn write_attribute(start: &[u8], value: &str, out: &mut impl BufMut) {
    out.put_slice(start);
    escape::attribute(value, out);
    out.put_slice(b"'");
}

#[cfg(test)]
mod tests;
