//! Channel binding: what of the TLS connection both sides can prove to share.

use std::fmt;

/// The channel binding data of one connection, by type (RFC 9266, RFC 5929). `tls-unique` is not there: TLS 1.3 has
/// none, and that of TLS 1.2 is broken without extended master secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266): 32 octets of keying material.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929 §4): the hash of the server's certificate.
    pub end_point: Option<Vec<u8>>,
}

impl Bindings {
    /// Whether none is there: then no `-PLUS` mechanism is offered.
    pub const fn is_empty(&self) -> bool {
        self.exporter.is_none() && self.end_point.is_none()
    }

    /// The types that are there, the strongest first: what `sasl-channel-binding` lists (XEP-0440).
    pub fn types(&self) -> impl Iterator<Item = &'static str> {
        let exporter = self.exporter.is_some().then_some("tls-exporter");
        let end_point = self.end_point.is_some().then_some("tls-server-end-point");
        exporter.into_iter().chain(end_point)
    }

    /// The data of one type.
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_deref(),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.types()).finish()
    }
}
