//! The error that ends a stream.

use std::borrow::Cow;

use bytes::BufMut;

use super::stanza_error::conditions;
use crate::{Element, ns, xml::escape};

conditions! {
    /// A defined condition of a stream error (RFC 6120 section 4.9.3). All of them end the stream.
    StreamCondition {
        /// XML that cannot be processed, and nothing narrower fits.
        BadFormat = "bad-format",
        /// A prefix is unsupported, or missing where it is needed.
        BadNamespacePrefix = "bad-namespace-prefix",
        /// A new session or stream replaces this one.
        Conflict = "conflict",
        /// The peer was silent or too slow.
        ConnectionTimeout = "connection-timeout",
        /// The domain was served here and is no more.
        HostGone = "host-gone",
        /// The domain is not served here.
        HostUnknown = "host-unknown",
        /// An address is missing or unusable.
        ImproperAddressing = "improper-addressing",
        /// Our own fault.
        InternalServerError = "internal-server-error",
        /// The `from` is not one the peer may use.
        InvalidFrom = "invalid-from",
        /// The stream or content namespace is wrong.
        InvalidNamespace = "invalid-namespace",
        /// A schema break.
        InvalidXml = "invalid-xml",
        /// Not allowed before authentication, or no more.
        NotAuthorized = "not-authorized",
        /// Not well-formed XML, or not in the sense of XML namespaces.
        NotWellFormed = "not-well-formed",
        /// A local rule is broken.
        PolicyViolation = "policy-violation",
        /// A remote piece that the stream needs is down.
        RemoteConnectionFailed = "remote-connection-failed",
        /// The peer must reconnect.
        Reset = "reset",
        /// Out of memory, sockets or sessions.
        ResourceConstraint = "resource-constraint",
        /// Comments, processing instructions, DTDs or entities (RFC 6120 section 11.1).
        RestrictedXml = "restricted-xml",
        /// The peer should connect to another host.
        SeeOtherHost = "see-other-host",
        /// The server is stopping.
        SystemShutdown = "system-shutdown",
        /// None of the others; goes with an application condition.
        UndefinedCondition = "undefined-condition",
        /// Not UTF-8.
        UnsupportedEncoding = "unsupported-encoding",
        /// The peer picked a feature that was not offered.
        UnsupportedFeature = "unsupported-feature",
        /// A first-level child that is not known.
        UnsupportedStanzaType = "unsupported-stanza-type",
        /// Not version 1.0 of XMPP.
        UnsupportedVersion = "unsupported-version",
    }
}

/// A `<stream:error/>` (RFC 6120 section 4.9). Whoever gets one closes the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamError {
    /// The defined condition.
    pub condition: StreamCondition,
    /// Text for people, in English, or the host of `see-other-host`; never holds input of the peer.
    pub text: Option<Cow<'static, str>>,
    /// Application condition; boxed because errors travel in results.
    pub app: Option<Box<Element>>,
}

impl StreamError {
    /// An error with neither text nor application condition.
    pub const fn new(condition: StreamCondition) -> Self {
        Self { condition, text: None, app: None }
    }

    /// Adds a text for people.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Adds an application condition.
    #[must_use]
    pub fn with_app(mut self, app: Element) -> Self {
        self.app = Some(Box::new(app));
        self
    }

    /// Writes `<stream:error/>` for a stream whose header declares the `stream` prefix; no end tag of the stream.
    pub fn write(&self, out: &mut impl BufMut) {
        out.put_slice(b"<stream:error>");
        self.write_children(out);
        out.put_slice(b"</stream:error>");
    }

    /// The `error` element in the stream namespace, for transports whose root declares no prefix (RFC 7395).
    pub fn to_element(&self) -> Element {
        let condition = Element::new(ns::XMPP_STREAMS, self.condition.as_str());
        let mut error = Element::new(ns::STREAMS, "error");
        match (&self.text, self.condition) {
            (Some(host), StreamCondition::SeeOtherHost) => error.push(condition.text(host)),
            (text, _) => {
                error.push(condition);
                if let Some(text) = text {
                    error.push(Element::new(ns::XMPP_STREAMS, "text").attr("xml:lang", "en").text(text));
                }
            }
        }
        if let Some(app) = &self.app {
            error.push(app.as_ref().clone());
        }
        error
    }

    /// Reads an `error` element of a peer; unknown conditions become `undefined-condition`.
    pub fn from_element(element: &Element) -> Option<Self> {
        if !element.is(ns::STREAMS, "error") {
            return None;
        }
        let named = element.children().filter(|child| child.ns() == ns::XMPP_STREAMS);
        let (condition, child) = named
            .filter_map(|child| Some((StreamCondition::from_name(child.name())?, child)))
            .next()
            .map_or((StreamCondition::UndefinedCondition, None), |(condition, child)| {
                (condition, Some(child))
            });
        let text = match (condition, child) {
            (StreamCondition::SeeOtherHost, Some(child)) => Some(child.content()),
            _ => element.find(ns::XMPP_STREAMS, "text").map(Element::content),
        };
        Some(Self {
            condition,
            text: text.map(Cow::Owned),
            app: element.children().find(|child| child.ns() != ns::XMPP_STREAMS).cloned().map(Box::new),
        })
    }

    fn write_children(&self, out: &mut impl BufMut) {
        let name = self.condition.as_str().as_bytes();
        out.put_slice(b"<");
        out.put_slice(name);
        out.put_slice(b" xmlns='urn:ietf:params:xml:ns:xmpp-streams'");
        match (&self.text, self.condition) {
            (Some(host), StreamCondition::SeeOtherHost) => {
                out.put_slice(b">");
                escape::text(host, out);
                out.put_slice(b"</see-other-host>");
            }
            (text, _) => {
                out.put_slice(b"/>");
                if let Some(text) = text {
                    out.put_slice(b"<text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>");
                    escape::text(text, out);
                    out.put_slice(b"</text>");
                }
            }
        }
        if let Some(app) = &self.app {
            app.write(out, ns::CLIENT);
        }
    }
}

impl From<StreamCondition> for StreamError {
    fn from(condition: StreamCondition) -> Self {
        Self::new(condition)
    }
}

impl std::fmt::Display for StreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stream error {}", self.condition)
    }
}

impl std::error::Error for StreamError {}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn written(error: &StreamError) -> String {
        let mut out = BytesMut::new();
        error.write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn every_condition_is_written_and_read_back() {
        for condition in StreamCondition::ALL {
            let error = StreamError::new(*condition).with_text("a & b");
            let text = written(&error).replace("stream:error", "error");
            let text = text.replacen("<error>", "<error xmlns='http://etherx.jabber.org/streams'>", 1);
            let element: Element = text.parse().unwrap();
            assert_eq!(element, error.to_element());
            assert_eq!(StreamError::from_element(&element), Some(error));
        }
        assert_eq!(StreamCondition::ALL.len(), 25);
    }

    #[test]
    fn the_shape_is_that_of_rfc_6120() {
        let error = StreamError::new(StreamCondition::PolicyViolation)
            .with_app(Element::new(ns::ERRORS, "stanza-too-big"));
        assert_eq!(
            written(&error),
            "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <stanza-too-big xmlns='urn:xmpp:errors'/></stream:error>"
        );
        assert_eq!(
            written(&StreamError::new(StreamCondition::SeeOtherHost).with_text("b.example:5222")),
            "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>b.example:5222\
             </see-other-host></stream:error>"
        );
    }
}
