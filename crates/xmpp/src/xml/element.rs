//! A small owned tree: IQ payloads, stream features, errors. Stanzas on their way are no trees, see
//! [`super::Payload`].

use std::fmt;

use bytes::{BufMut, Bytes};
use compact_str::CompactString;
use smallvec::SmallVec;

use super::{XmlError, canonical, escape, tree};
use crate::ns;

/// An XML element with resolved names. Equality ignores the order of attributes.
#[derive(Clone)]
pub struct Element {
    ns: CompactString,
    name: CompactString,
    attributes: Vec<Attribute>,
    nodes: Vec<Node>,
}

#[derive(Clone, PartialEq)]
struct Attribute {
    /// Empty for none.
    ns: CompactString,
    name: CompactString,
    value: CompactString,
}

#[derive(Clone, PartialEq)]
enum Node {
    Element(Element),
    Text(CompactString),
}

impl Element {
    /// An empty element of the namespace `ns` (empty for none).
    pub fn new(ns: &str, name: &str) -> Self {
        Self {
            ns: CompactString::new(ns),
            name: CompactString::new(name),
            attributes: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Reads one element; `context_ns` is the default namespace in force around it. Takes canonical bytes as well as
    /// any other XML that a stream may carry.
    ///
    /// # Errors
    /// What is not well-formed, restricted in XMPP, or over the bounds that no checked stanza reaches.
    pub fn parse(xml: &[u8], context_ns: &str) -> Result<Self, XmlError> {
        tree::parse(xml, context_ns)
    }

    /// Sets an attribute; see [`Self::set_attr`].
    #[must_use]
    pub fn attr(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.set_attr(name, value);
        self
    }

    /// Sets an attribute if there is a value.
    #[must_use]
    pub fn opt_attr(mut self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        if let Some(value) = value {
            self.set_attr(name, value);
        }
        self
    }

    /// Adds a child.
    #[must_use]
    pub fn child(mut self, child: Self) -> Self {
        self.push(child);
        self
    }

    /// Adds children.
    #[must_use]
    pub fn children_of(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.nodes.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Adds text.
    #[must_use]
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        self.push_text(text.as_ref());
        self
    }

    /// Sets an attribute without a namespace, or `xml:lang`.
    pub fn set_attr(&mut self, name: &str, value: impl AsRef<str>) {
        let (ns, name) = attribute_name(name);
        let value = CompactString::new(value);
        match self.attributes.iter_mut().find(|attribute| attribute.is(ns, name)) {
            Some(attribute) => attribute.value = value,
            None => self.attributes.push(Attribute {
                ns: CompactString::const_new(ns),
                name: CompactString::new(name),
                value,
            }),
        }
    }

    /// Adds a child.
    pub fn push(&mut self, child: Self) {
        self.nodes.push(Node::Element(child));
    }

    /// Adds text; adjacent pieces become one.
    pub fn push_text(&mut self, text: &str) {
        match self.nodes.last_mut() {
            _ if text.is_empty() => {}
            Some(Node::Text(last)) => last.push_str(text),
            _ => self.nodes.push(Node::Text(CompactString::new(text))),
        }
    }

    /// The namespace name; empty for none.
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// The local name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has this expanded name.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.ns == ns && self.name == name
    }

    /// The value of an attribute without a namespace, or of `xml:lang`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let (ns, name) = attribute_name(name);
        self.attribute_ns(ns, name)
    }

    /// The value of an attribute of a namespace.
    pub fn attribute_ns(&self, ns: &str, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|attribute| attribute.is(ns, name));
        found.map(|attribute| attribute.value.as_str())
    }

    /// All attributes: namespace name (empty for none), local name and value.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.attributes
            .iter()
            .map(|attribute| (attribute.ns.as_str(), attribute.name.as_str(), attribute.value.as_str()))
    }

    /// The value of `xml:lang` on this element itself.
    pub fn lang(&self) -> Option<&str> {
        self.attribute_ns(ns::XML, "lang")
    }

    /// The child elements in order.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            Node::Text(_) => None,
        })
    }

    /// The first child of this expanded name.
    pub fn find(&self, ns: &str, name: &str) -> Option<&Self> {
        self.children().find(|child| child.is(ns, name))
    }

    /// The first child element.
    pub fn first(&self) -> Option<&Self> {
        self.children().next()
    }

    /// How many child elements there are.
    pub fn child_count(&self) -> usize {
        self.children().count()
    }

    /// The text of the direct text nodes.
    pub fn content(&self) -> String {
        self.texts().collect()
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        })
    }

    /// Whether there are neither children nor text.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Writes the canonical form into a place whose default namespace is `context_ns`.
    pub fn write(&self, out: &mut impl BufMut, context_ns: &str) {
        out.put_slice(b"<");
        out.put_slice(self.name.as_bytes());
        if self.ns != context_ns {
            out.put_slice(b" xmlns='");
            escape::attribute(&self.ns, out);
            out.put_slice(b"'");
        }
        self.write_attributes(out);
        if self.nodes.is_empty() {
            out.put_slice(b"/>");
            return;
        }
        out.put_slice(b">");
        for node in &self.nodes {
            match node {
                Node::Element(child) => child.write(out, &self.ns),
                Node::Text(text) => escape::text(text, out),
            }
        }
        out.put_slice(b"</");
        out.put_slice(self.name.as_bytes());
        out.put_slice(b">");
    }

    /// The canonical form inside of `context_ns`.
    pub fn to_bytes(&self, context_ns: &str) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out, context_ns);
        Bytes::from(out)
    }

    /// Adds an attribute that is known to be new.
    pub(crate) fn push_attribute(&mut self, ns: &str, name: &str, value: &str) {
        self.attributes.push(Attribute {
            ns: CompactString::new(ns),
            name: CompactString::new(name),
            value: CompactString::new(value),
        });
    }

    fn write_attributes(&self, out: &mut impl BufMut) {
        let mut uris = SmallVec::<[&str; 2]>::new();
        for attribute in &self.attributes {
            out.put_slice(b" ");
            match attribute.ns.as_str() {
                "" => {}
                ns::XML => out.put_slice(b"xml:"),
                uri => {
                    let number = uris.iter().position(|known| *known == uri).unwrap_or_else(|| {
                        canonical::declare(uris.len(), uri, out);
                        uris.push(uri);
                        uris.len() - 1
                    });
                    canonical::write_prefix(number, out);
                    out.put_slice(b":");
                }
            }
            out.put_slice(attribute.name.as_bytes());
            out.put_slice(b"='");
            escape::attribute(&attribute.value, out);
            out.put_slice(b"'");
        }
    }
}

impl Attribute {
    fn is(&self, ns: &str, name: &str) -> bool {
        self.name == name && self.ns == ns
    }
}

/// `xml:lang` is written so often that its name stands for the expanded one.
fn attribute_name(name: &str) -> (&'static str, &str) {
    name.strip_prefix("xml:").map_or(("", name), |local| (ns::XML, local))
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.ns == other.ns
            && self.attributes.len() == other.attributes.len()
            && self.attributes.iter().all(|attribute| other.attributes.contains(attribute))
            && self.nodes == other.nodes
    }
}

/// The canonical form, inside of `jabber:client`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes(ns::CLIENT)))
    }
}

/// The names only: what an element holds belongs to users and is not for logs.
impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}{}", self.ns, self.name)
    }
}

/// Reads an element inside of `jabber:client`.
impl std::str::FromStr for Element {
    type Err = XmlError;

    fn from_str(xml: &str) -> Result<Self, XmlError> {
        Self::parse(xml.as_bytes(), ns::CLIENT)
    }
}
