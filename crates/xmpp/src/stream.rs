//! The stream of an XMPP connection (RFC 6120 section 4): an incremental reader and the headers of both sides.
//!
//! [`Reader`] takes bytes as they come and gives events. It reads in one pass: each token is checked and written in
//! canonical form as soon as it is complete, so an error is found at the byte that makes it, and of a stanza that is
//! not complete only its canonical form and the last token are held. The same bytes give the same events however
//! they are split. After an error, the reader gives that error for ever.

mod building;
mod header;
mod limits;
mod reader;
mod skip;

pub use header::{StreamHeader, write_header};
pub use limits::Limits;
pub use reader::Reader;

use crate::{Element, Stanza, StanzaError};

/// What came in.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The stream header; to be judged with [`StreamHeader::check`].
    Header(StreamHeader),
    /// A message, presence or IQ.
    Stanza(Incoming),
    /// Any other first-level element: negotiation, stream management, a stream error of the peer.
    Nonza(Element),
    /// The end tag of the stream. What follows it is ignored.
    End,
    /// So many bytes of white space between elements: a keep-alive, which still counts for rates.
    Whitespace(usize),
}

/// A stanza as it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// The stanza; with a fault, what of it could be read: kind and id, so that it can be counted and answered.
    pub stanza: Stanza,
    /// Bytes that it had on the wire.
    pub size: usize,
    /// Why it must be answered with this error instead of being processed ([`Stanza::error`] knows what is never
    /// answered).
    pub fault: Option<StanzaError>,
}

#[cfg(test)]
mod tests;
