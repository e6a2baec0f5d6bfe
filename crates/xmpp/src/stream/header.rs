//! Stream headers (RFC 6120 section 4.7).

use std::sync::{Arc, LazyLock};

use bytes::BufMut;
use compact_str::CompactString;

use crate::{
    StreamCondition, StreamError, XmlError, jid, ns,
    xml::{Bounds, escape, scope::Scopes, tag::Tag},
};

/// The longest `xml:lang` of a header that is taken, in bytes (RFC 5646 section 4.4.1); a longer one counts as absent.
const LANG_BYTES: usize = 35;

/// A stream header as the peer sent it, nothing judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHeader {
    /// Namespace name of the root element.
    pub root_ns: String,
    /// Local name of the root element.
    pub root_name: String,
    /// The content namespace, declared as default or by a prefix; empty if there is none.
    pub content_ns: String,
    /// The domain that the peer wants, raw.
    pub to: Option<String>,
    /// Who the peer says it is, raw.
    pub from: Option<String>,
    /// Clients must not send one.
    pub id: Option<String>,
    /// The version of XMPP, raw.
    pub version: Option<String>,
    /// The default language of the peer's stanzas.
    pub lang: Option<CompactString>,
}

impl StreamHeader {
    /// Judges the header of an initiating entity and gives the domain asked for in canonical form; whether that domain
    /// is served is for the caller (`host-unknown`).
    ///
    /// # Errors
    /// `invalid-namespace`, `bad-format`, `unsupported-version` or `improper-addressing`.
    pub fn check(&self, content_ns: &str) -> Result<String, StreamError> {
        if self.root_ns != ns::STREAMS || self.content_ns != content_ns {
            return Err(StreamCondition::InvalidNamespace.into());
        }
        if self.root_name != "stream" {
            return Err(StreamCondition::BadFormat.into());
        }
        if self.major_version() != Some(1) {
            return Err(StreamCondition::UnsupportedVersion.into());
        }
        let to = self.to.as_deref().ok_or(StreamCondition::ImproperAddressing)?;
        jid::domain(to).map_err(|_| StreamCondition::ImproperAddressing.into())
    }

    /// The major version (RFC 6120 section 4.7.5); leading zeros do not count.
    fn major_version(&self) -> Option<u32> {
        let (major, minor) = self.version.as_deref()?.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits(major) && digits(minor) { major.parse().ok() } else { None }
    }
}

/// Writes the server's header, XML declaration included, with `jabber:client` as default namespace and `stream` as the
/// prefix of the stream. `to` is the peer's `from` if it gave one.
pub fn write_header(out: &mut impl BufMut, from: &str, to: Option<&str>, id: &str, lang: &str) {
    out.put_slice(b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='");
    out.put_slice(ns::STREAMS.as_bytes());
    out.put_slice(b"' version='1.0' id='");
    escape::attribute(id, out);
    out.put_slice(b"' from='");
    escape::attribute(from, out);
    if let Some(to) = to {
        out.put_slice(b"' to='");
        escape::attribute(to, out);
    }
    out.put_slice(b"' xml:lang='");
    escape::attribute(lang, out);
    out.put_slice(b"'>");
}

/// What of the header stays in force for all first-level elements.
#[derive(Debug)]
pub(super) struct Root {
    /// The qualified name, as the end tag of the stream must repeat it; empty if there is no stream element.
    pub(super) name: String,
    /// The bindings.
    pub(super) scopes: Scopes,
    /// The content namespace, empty if it is none of ours.
    pub(super) content: &'static str,
}

/// The root of nearly every client stream, so that an idle session holds nothing of its own.
static CUSTOMARY: LazyLock<Arc<Root>> = LazyLock::new(|| {
    let mut scopes = Scopes::with_default(ns::CLIENT);
    scopes.inherit("stream", ns::STREAMS);
    Arc::new(Root { name: "stream:stream".to_owned(), scopes, content: ns::CLIENT })
});

/// The root where every element stands alone (RFC 7395).
static FRAMED: LazyLock<Arc<Root>> =
    LazyLock::new(|| Arc::new(Root { name: String::new(), scopes: Scopes::default(), content: ns::CLIENT }));

impl Root {
    pub(super) fn framed() -> Arc<Self> {
        FRAMED.clone()
    }

    /// Reads the header's tag.
    pub(super) fn parse(tag: &Tag<'_>, bounds: &Bounds) -> Result<(StreamHeader, Arc<Self>), XmlError> {
        let mut element = Scopes::default();
        element.open(tag, bounds)?;
        let content_ns = content_ns(&element);
        let content = [ns::CLIENT, ns::SERVER, ns::COMPONENT].into_iter().find(|known| *known == content_ns);
        let mut header = StreamHeader {
            root_ns: element.ns().to_owned(),
            root_name: tag.name.local().to_owned(),
            content_ns: content_ns.to_owned(),
            ..StreamHeader::default()
        };
        for attribute in &tag.attributes {
            let value = || Some(attribute.value.clone().into_owned());
            match attribute.name.full {
                "to" => header.to = value(),
                "from" => header.from = value(),
                "id" => header.id = value(),
                "version" => header.version = value(),
                "xml:lang" if attribute.value.len() <= LANG_BYTES => {
                    header.lang = Some(CompactString::new(&attribute.value));
                }
                _ => {}
            }
        }
        Ok((header, Self::of(tag, element, content.unwrap_or_default())))
    }

    fn of(tag: &Tag<'_>, element: Scopes, content: &'static str) -> Arc<Self> {
        let same = tag.name.full == CUSTOMARY.name && element.bindings().eq(CUSTOMARY.scopes.bindings());
        if same {
            return CUSTOMARY.clone();
        }
        let mut scopes = Scopes::default();
        for (prefix, uri) in element.bindings() {
            scopes.inherit(prefix, uri);
        }
        Arc::new(Self { name: tag.name.full.to_owned(), scopes, content })
    }
}

/// The content namespace may be the default or have a prefix (RFC 6120 section 4.8.5).
fn content_ns(element: &Scopes) -> &str {
    let default = element.bindings().find(|(prefix, uri)| prefix.is_empty() && *uri != ns::STREAMS);
    let prefixed = || element.bindings().find(|(_, uri)| [ns::CLIENT, ns::SERVER].contains(uri));
    default.or_else(prefixed).map_or("", |(_, uri)| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(attributes: &str) -> StreamHeader {
        let tag = format!("<stream:stream {attributes}>");
        Root::parse(&Tag::parse(tag.as_bytes(), &Bounds::TREE).unwrap(), &Bounds::TREE).unwrap().0
    }

    fn judged(rest: &str) -> Result<String, StreamCondition> {
        let namespaces = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' ";
        header(&(namespaces.to_owned() + rest)).check(ns::CLIENT).map_err(|error| error.condition)
    }

    #[test]
    fn good_headers_name_their_domain() {
        assert_eq!(judged("to='Example.ORG' version='1.0'").as_deref(), Ok("example.org"));
        assert_eq!(
            judged("to='example.org' version='01.10' from='a@b' id='x'").as_deref(),
            Ok("example.org")
        );
    }

    #[test]
    fn t03_the_domain_must_be_one() {
        for to in ["", "to=''", "to='a@example.org'", "to='example.org/r'", "to='a b'"] {
            let rest = format!("{to} version='1.0'");
            assert_eq!(judged(&rest), Err(StreamCondition::ImproperAddressing), "{to}");
        }
    }

    #[test]
    fn t04_namespaces_must_be_ours() {
        for namespaces in [
            "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/stream'",
            "xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'",
            "xmlns='urn:x' xmlns:stream='http://etherx.jabber.org/streams'",
            "xmlns:stream='http://etherx.jabber.org/streams'",
        ] {
            let header = header(&format!("{namespaces} to='example.org' version='1.0'"));
            let condition = header.check(ns::CLIENT).unwrap_err().condition;
            assert_eq!(condition, StreamCondition::InvalidNamespace, "{namespaces}");
        }
        let prefixed =
            "xmlns:c='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='a' version='1.0'";
        assert!(header(prefixed).check(ns::CLIENT).is_ok());
    }

    #[test]
    fn t05_the_version_must_be_one() {
        for version in [
            "",
            "version='0.9'",
            "version='2.0'",
            "version='1'",
            "version=''",
            "version='+1.0'",
            "version='x'",
        ] {
            let rest = format!("to='example.org' {version}");
            assert_eq!(judged(&rest), Err(StreamCondition::UnsupportedVersion), "{version}");
        }
    }

    #[test]
    fn the_usual_root_is_shared() {
        let tag =
            b"<stream:stream to='a' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
        let root = Root::parse(&Tag::parse(tag, &Bounds::TREE).unwrap(), &Bounds::TREE).unwrap().1;
        assert!(Arc::ptr_eq(&root, &CUSTOMARY));
    }

    #[test]
    fn our_header_is_well_formed() {
        let mut out = Vec::new();
        write_header(&mut out, "example.org", Some("a'b@example.org"), "i<d", "en");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams' version='1.0' id='i&lt;d' from='example.org' \
             to='a&apos;b@example.org' xml:lang='en'>"
        );
    }

    #[test]
    fn a_long_language_counts_as_absent() {
        let long = "x".repeat(36);
        assert_eq!(header(&format!("xmlns:stream='u' xml:lang='{long}'")).lang, None);
        assert_eq!(header("xmlns:stream='u' xml:lang='de'").lang.as_deref(), Some("de"));
    }
}
