//! What XMPP is on the wire: addresses, stanzas, XML framing, stream and stanza errors, SASL exchanges and
//! stream-management counters. Nothing here does I/O, knows a clock or needs a runtime: bytes in, values and bytes out.
//!
//! The key decision: input bytes are never passed through. [`stream::Reader`] checks characters, names and
//! namespaces itself, in one pass, and writes one *canonical form* ([`xml::Payload`]) which is what is numbered,
//! stored, forwarded and written to the recipient; nobody behind the edge parses a stanza again. Whoever needs a
//! tree of a small part (an IQ payload, a feature, an error) asks for an [`Element`].
//!
//! Addresses are canonical by construction (RFC 7622), so comparing them is comparing bytes.

pub mod error;
pub mod jid;
pub mod ns;
pub mod sasl;
pub mod sm;
pub mod stanza;
pub mod stream;
pub mod time;
pub mod xml;

pub use error::{ErrorType, StanzaCondition, StanzaError, StreamCondition, StreamError};
pub use jid::{BareJid, FullJid, Jid};
pub use stanza::{IqType, Kind, MessageType, PresenceType, Stanza};
pub use time::Timestamp;
pub use xml::{Child, Element, Payload, XmlError};
