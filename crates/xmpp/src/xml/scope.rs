//! Open elements and the namespaces in force: nesting, prefixes and attribute uniqueness (XML namespaces 1.0).

use smallvec::SmallVec;

use super::{Bounds, XmlError, tag::Tag};
use crate::ns;

/// A piece of the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Binding {
    prefix: Span,
    uri: Span,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// The qualified name; the arena is cut back to here when the element ends.
    name: Span,
    ns: Span,
    /// Bytes of the prefix and its colon.
    prefix: u16,
    /// Bindings in force outside of the element.
    bindings: u16,
}

/// The stack of open elements. Names and namespace names live in one arena that shrinks with the stack; a stanza of
/// ordinary size needs no heap for it.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    arena: SmallVec<[u8; 176]>,
    bindings: SmallVec<[Binding; 6]>,
    open: SmallVec<[Open; 5]>,
    /// Bindings that were there before the first element, which no limit counts.
    inherited: u16,
}

impl Scopes {
    /// No element open; `default` is the default namespace in force.
    pub(crate) fn with_default(default: &str) -> Self {
        let mut scopes = Self::default();
        scopes.inherit("", default);
        scopes
    }

    /// Adds a binding that is in force before any element is open.
    pub(crate) fn inherit(&mut self, prefix: &str, uri: &str) {
        let (prefix, uri) = (self.keep(prefix), self.keep(uri));
        self.bindings.push(Binding { prefix, uri });
        self.inherited = self.bindings.len() as u16;
    }

    /// The same bindings, for an element inside of them; nothing is open.
    pub(crate) fn inner(&self) -> Self {
        Self {
            arena: SmallVec::from_slice(&self.arena),
            bindings: SmallVec::from_slice(&self.bindings),
            open: SmallVec::new(),
            inherited: self.inherited,
        }
    }

    /// The bindings in force, in the order in which they were declared.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.bindings.iter().map(|binding| (self.text(binding.prefix), self.text(binding.uri)))
    }

    /// How many elements are open.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The namespace name of the innermost open element; empty for none.
    pub(crate) fn ns(&self) -> &str {
        self.open.last().map_or("", |open| self.text(open.ns))
    }

    /// The namespace name of the innermost open element, as bytes.
    pub(crate) fn ns_bytes(&self) -> &[u8] {
        self.open.last().map_or(&[], |open| self.bytes(open.ns))
    }

    /// The namespace name of the element around the innermost one; empty for none.
    pub(crate) fn outer_ns_bytes(&self) -> &[u8] {
        self.open.len().checked_sub(2).map_or(&[], |outer| self.bytes(self.open[outer].ns))
    }

    /// Whether the innermost open element is in another namespace than the one around it.
    pub(crate) fn changes_ns(&self) -> bool {
        match self.open.as_slice() {
            // What is resolved by the same binding needs no comparison.
            [.., outer, inner] => outer.ns != inner.ns && self.bytes(outer.ns) != self.bytes(inner.ns),
            _ => true,
        }
    }

    /// The local name of the innermost open element, as bytes.
    pub(crate) fn local_bytes(&self) -> &[u8] {
        self.open.last().map_or(&[], |open| &self.bytes(open.name)[usize::from(open.prefix)..])
    }

    /// Opens an element: takes its declarations, resolves its name and checks its attributes.
    pub(crate) fn open(&mut self, tag: &Tag<'_>, bounds: &Bounds) -> Result<(), XmlError> {
        if self.open.len() >= usize::from(bounds.depth) {
            return Err(XmlError::Limit("too deep"));
        }
        let bindings = self.bindings.len() as u16;
        let in_scope = usize::from(bindings - self.inherited) + tag.declarations.len();
        if in_scope > usize::from(bounds.namespaces) {
            return Err(XmlError::Limit("too many namespace declarations"));
        }
        let name = self.keep(tag.name.full);
        for declaration in &tag.declarations {
            check_declaration(declaration.prefix, &declaration.uri)?;
            let prefix = self.keep(declaration.prefix);
            let uri = self.keep(&declaration.uri);
            self.bindings.push(Binding { prefix, uri });
        }
        let ns = self.resolve_element(tag.name.prefix())?;
        if tag.attributes.iter().any(|attribute| attribute.name.prefix_len() > 0) {
            self.check_attributes(tag)?;
        }
        self.open.push(Open { name, ns, prefix: tag.name.prefix_len(), bindings });
        Ok(())
    }

    /// Whether `name` is what the innermost element's end tag must say.
    pub(crate) fn is_closed_by(&self, name: &[u8]) -> bool {
        self.open.last().is_some_and(|open| self.bytes(open.name) == name)
    }

    /// Ends the innermost element.
    pub(crate) fn close(&mut self) {
        if let Some(open) = self.open.pop() {
            self.arena.truncate(open.name.at as usize);
            self.bindings.truncate(usize::from(open.bindings));
        }
    }

    /// The namespace name of an attribute's prefix, which is not empty.
    pub(crate) fn attribute_ns(&self, prefix: &str) -> Result<&str, XmlError> {
        match prefix {
            "xml" => Ok(ns::XML),
            "stream" => self.lookup(prefix).map(|uri| self.text(uri)).ok_or(XmlError::BadPrefix),
            _ => self.lookup(prefix).map(|uri| self.text(uri)).ok_or(XmlError::NotWellFormed),
        }
    }

    /// Bytes of heap held.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        let arena = if self.arena.spilled() { self.arena.capacity() } else { 0 };
        let bindings =
            if self.bindings.spilled() { self.bindings.capacity() * size_of::<Binding>() } else { 0 };
        let open = if self.open.spilled() { self.open.capacity() * size_of::<Open>() } else { 0 };
        arena + bindings + open
    }

    fn resolve_element(&mut self, prefix: &str) -> Result<Span, XmlError> {
        match (self.lookup(prefix), prefix) {
            (Some(uri), _) => Ok(uri),
            (None, "") => Ok(Span::default()),
            (None, "xml") => Ok(self.keep(ns::XML)),
            (None, "stream") => Err(XmlError::BadPrefix),
            (None, _) => Err(XmlError::NotWellFormed),
        }
    }

    fn lookup(&self, prefix: &str) -> Option<Span> {
        let binding = |binding: &&Binding| self.bytes(binding.prefix) == prefix.as_bytes();
        self.bindings.iter().rev().find(binding).map(|binding| binding.uri)
    }

    /// No two attributes may have the same expanded name (XML namespaces section 6.3). The qualified names have been
    /// compared already, and an attribute without a prefix is in no namespace.
    fn check_attributes(&self, tag: &Tag<'_>) -> Result<(), XmlError> {
        let mut seen = SmallVec::<[(&str, &str); 4]>::new();
        for attribute in tag.attributes.iter().filter(|attribute| attribute.name.prefix_len() > 0) {
            let name = (attribute.name.local(), self.attribute_ns(attribute.name.prefix())?);
            if seen.contains(&name) {
                return Err(XmlError::NotWellFormed);
            }
            seen.push(name);
        }
        Ok(())
    }

    fn keep(&mut self, text: &str) -> Span {
        let span = Span { at: self.arena.len() as u32, len: text.len() as u32 };
        self.arena.extend_from_slice(text.as_bytes());
        span
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.at as usize..(span.at + span.len) as usize]
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }
}

/// The names `xml` and `xmlns` are fixed, and a prefix cannot be undeclared (XML namespaces 1.0 sections 3 and 5).
fn check_declaration(prefix: &str, uri: &str) -> Result<(), XmlError> {
    let good = match prefix {
        "xmlns" => false,
        "xml" => uri == ns::XML,
        "" => uri != ns::XML && uri != ns::XMLNS,
        _ => !uri.is_empty() && uri != ns::XML && uri != ns::XMLNS,
    };
    if good { Ok(()) } else { Err(XmlError::NotWellFormed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(scopes: &mut Scopes, tag: &str) -> Result<(), XmlError> {
        let bounds = Bounds { depth: 3, namespaces: 4, ..Bounds::TREE };
        scopes.open(&Tag::parse(tag.as_bytes(), &bounds)?, &bounds)
    }

    #[test]
    fn namespaces_come_and_go_with_their_elements() {
        let mut scopes = Scopes::with_default("d");
        open(&mut scopes, "<a>").unwrap();
        assert_eq!((scopes.ns(), scopes.local_bytes(), scopes.outer_ns_bytes()), ("d", &b"a"[..], &b""[..]));
        open(&mut scopes, "<p:b xmlns='e' xmlns:p='q'>").unwrap();
        assert_eq!((scopes.ns(), scopes.local_bytes(), scopes.outer_ns_bytes()), ("q", &b"b"[..], &b"d"[..]));
        assert!(scopes.changes_ns());
        open(&mut scopes, "<c xmlns=''>").unwrap();
        assert_eq!((scopes.ns(), scopes.outer_ns_bytes()), ("", &b"q"[..]));
        assert_eq!(open(&mut scopes, "<d>"), Err(XmlError::Limit("too deep")));
        assert!(scopes.is_closed_by(b"c") && !scopes.is_closed_by(b"p:b"));
        scopes.close();
        assert!(scopes.is_closed_by(b"p:b"));
        assert_eq!(scopes.attribute_ns("p"), Ok("q"));
        scopes.close();
        assert_eq!(scopes.attribute_ns("p"), Err(XmlError::NotWellFormed));
        assert_eq!(scopes.bindings().collect::<Vec<_>>(), [("", "d")]);
        assert_eq!(scopes.depth(), 1);
    }

    #[test]
    fn what_namespaces_forbid_is_refused() {
        for bad in [
            "<p:a>",
            "<a p:b=''>",
            "<a xmlns:xml='u'>",
            "<a xmlns:xmlns='u'>",
            "<a xmlns:p=''>",
            "<xmlns:a>",
            "<a xmlns:p='u' xmlns:q='u' p:x='' q:x=''>",
            "<a xmlns:p='http://www.w3.org/XML/1998/namespace'>",
            "<a xmlns='http://www.w3.org/2000/xmlns/'>",
            "<a xmlns:p='http://www.w3.org/XML/1998/namespac&#101;'>",
        ] {
            assert_eq!(open(&mut Scopes::default(), bad), Err(XmlError::NotWellFormed), "{bad}");
        }
        assert_eq!(open(&mut Scopes::default(), "<stream:a>"), Err(XmlError::BadPrefix));
        for good in [
            "<a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='en'>",
            "<xml:a>",
            "<a xmlns:p='u' p:x='' x=''>",
            "<a xmlns:p='u' xmlns:q='v' p:x='' q:x=''>",
            "<a xmlns='u' xmlns:p='u' p:x='' x=''>",
        ] {
            assert_eq!(open(&mut Scopes::default(), good), Ok(()), "{good}");
        }
    }
}
