//! The children of a stanza: canonical bytes, and where each child begins.

mod child;
mod scan;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

pub use child::Child;
pub(crate) use scan::{canonical_attributes, decoded, root_tag};

use super::{Element, XmlError};
use crate::ns;

/// The children of a stanza in canonical form. A clone is a reference count.
///
/// Namespaces are declared by `xmlns` alone and relative to the content namespace, so a child in `jabber:client` has
/// no `xmlns`, and the same bytes serve inside of any stream. Attribute prefixes other than `xml:` are declared on
/// the element that uses them. There is no text outside of the children.
#[derive(Clone, Default)]
pub struct Payload(Option<Arc<Inner>>);

struct Inner {
    bytes: Bytes,
    index: Index,
}

/// Where the children begin, and their names.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: SmallVec<[Entry; INLINE]>,
    /// How many children there are: while they are being written, only the first few get an entry, so that a stanza of
    /// thousands of tiny children does not need much more memory than bytes.
    count: usize,
    /// Namespace names that differ from their escaped bytes, by child.
    aside: Vec<(u32, Box<str>)>,
}

/// A namespace name as it is declared in the bytes.
#[derive(Clone, Copy)]
pub(crate) enum Name<'a> {
    /// It stands there as it is, with this many bytes.
    Plain(usize),
    /// This is what it says without its escapes.
    Escaped(&'a str),
}

/// Children that an index holds without an allocation of its own.
const INLINE: usize = 6;

/// One child. It ends where the next begins.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    name: u16,
    /// Bytes of the namespace name, or one of the two marks below.
    ns: u16,
}

/// The child is in the content namespace: no `xmlns` is written.
const NS_CONTENT: u16 = u16::MAX;
/// The namespace name stands aside.
const NS_ASIDE: u16 = u16::MAX - 1;

static EMPTY: Bytes = Bytes::new();

impl Payload {
    /// No children.
    pub const fn empty() -> Self {
        Self(None)
    }

    /// These children, as seen inside of `jabber:client`. A name of more than 65,535 bytes, which nothing that was
    /// read can have, leaves the payload empty.
    pub fn from_elements(elements: impl IntoIterator<Item = Element>) -> Self {
        let mut out = Vec::new();
        for element in elements {
            element.write(&mut out, ns::CLIENT);
        }
        Self::parse(Bytes::from(out)).unwrap_or_default()
    }

    /// Finds the children in canonical bytes that this crate wrote and that were kept or sent on. The bytes are shared,
    /// not copied.
    ///
    /// # Errors
    /// If the bytes are not such; what is inside of the children is not checked again.
    pub fn parse(bytes: Bytes) -> Result<Self, XmlError> {
        if bytes.is_empty() {
            return Ok(Self::empty());
        }
        let index = scan::children(&bytes, 0)?;
        Ok(Self(Some(Arc::new(Inner { bytes, index }))))
    }

    /// Bytes whose index was begun while they were written.
    pub(crate) fn written(bytes: Bytes, index: Index) -> Result<Self, XmlError> {
        if bytes.is_empty() {
            return Ok(Self::empty());
        }
        let index =
            if index.count == index.entries.len() { index } else { scan::children(&bytes, index.count)? };
        Ok(Self(Some(Arc::new(Inner { bytes, index }))))
    }

    /// The children in order.
    pub fn children(&self) -> impl DoubleEndedIterator<Item = Child<'_>> + ExactSizeIterator {
        (0..self.len()).map(|at| self.nth(at))
    }

    /// The first child of this expanded name.
    pub fn get(&self, ns: &str, name: &str) -> Option<Child<'_>> {
        self.position(ns, name).map(|at| self.nth(at))
    }

    /// Whether there is a child of this expanded name.
    pub fn has(&self, ns: &str, name: &str) -> bool {
        self.position(ns, name).is_some()
    }

    /// Whether there is a child of this namespace.
    pub fn has_ns(&self, ns: &str) -> bool {
        let Some(inner) = &self.0 else { return false };
        inner.index.entries.iter().any(|entry| inner.ns(*entry) == ns.as_bytes())
    }

    /// Whether there is no child.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many children there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.index.entries.len())
    }

    /// The canonical bytes of all children.
    pub fn bytes(&self) -> &Bytes {
        self.0.as_ref().map_or(&EMPTY, |inner| &inner.bytes)
    }

    /// The payload with one more child at its end.
    #[must_use]
    pub fn with(&self, child: &Element) -> Self {
        let start = self.bytes().len();
        let mut out = Vec::with_capacity(start + 256);
        out.extend_from_slice(self.bytes());
        child.write(&mut out, ns::CLIENT);
        let mut index = self.0.as_ref().map_or_else(Index::default, |inner| inner.index.copy());
        match scan::child(&out, start, &mut index) {
            // The exact size, for it may be kept long.
            Ok(_) => Self(Some(Arc::new(Inner { bytes: Bytes::copy_from_slice(&out), index }))),
            Err(_) => Self::empty(),
        }
    }

    /// The payload without the children for which `drop` holds. Costs nothing if there is none.
    #[must_use]
    pub fn without(&self, drop: impl Fn(&Child<'_>) -> bool) -> Self {
        if !self.children().any(|child| drop(&child)) {
            return self.clone();
        }
        let mut out = Vec::with_capacity(self.bytes().len());
        for child in self.children().filter(|child| !drop(child)) {
            out.extend_from_slice(child.bytes());
        }
        Self::parse(Bytes::from(out)).unwrap_or_default()
    }

    fn position(&self, ns: &str, name: &str) -> Option<usize> {
        let inner = self.0.as_ref()?;
        let is = |entry: &Entry| inner.name(*entry) == name.as_bytes() && inner.ns(*entry) == ns.as_bytes();
        inner.index.entries.iter().position(is)
    }

    fn nth(&self, at: usize) -> Child<'_> {
        let Some(inner) = &self.0 else { return Child::default() };
        let entries = &inner.index.entries;
        let entry = entries[at];
        let end = entries.get(at + 1).map_or(inner.bytes.len(), |next| next.start as usize);
        let text = |name| std::str::from_utf8(name).unwrap_or_default();
        Child::new(text(inner.ns(entry)), text(inner.name(entry)), &inner.bytes[entry.start as usize..end])
    }
}

impl Inner {
    fn name(&self, entry: Entry) -> &[u8] {
        let start = entry.start as usize + 1;
        self.bytes.get(start..start + usize::from(entry.name)).unwrap_or_default()
    }

    fn ns(&self, entry: Entry) -> &[u8] {
        match entry.ns {
            NS_CONTENT => ns::CLIENT.as_bytes(),
            NS_ASIDE => self.index.aside(entry.start).as_bytes(),
            len => {
                let start = entry.start as usize + 1 + usize::from(entry.name) + scan::XMLNS.len();
                self.bytes.get(start..start + usize::from(len)).unwrap_or_default()
            }
        }
    }
}

impl Index {
    /// Notes that a child begins at `start`, as long as that needs no memory. The arguments are those of [`Self::push`].
    pub(crate) fn note(
        &mut self,
        start: usize,
        name: usize,
        declared: Option<Name<'_>>,
    ) -> Result<(), XmlError> {
        if self.entries.len() < INLINE {
            return self.push(start, name, declared);
        }
        self.count += 1;
        Ok(())
    }

    /// Notes that a child begins at `start`, with a name of `name` bytes and its namespace name if that is declared.
    pub(crate) fn push(
        &mut self,
        start: usize,
        name: usize,
        declared: Option<Name<'_>>,
    ) -> Result<(), XmlError> {
        let start = u32::try_from(start).map_err(|_| XmlError::Limit("stanza too long"))?;
        let name = u16::try_from(name).map_err(|_| XmlError::Limit("name too long"))?;
        let ns = match declared {
            None => NS_CONTENT,
            Some(Name::Plain(len)) if len < usize::from(NS_ASIDE) => len as u16,
            Some(Name::Plain(_)) => return Err(XmlError::Limit("name too long")),
            Some(Name::Escaped(uri)) => {
                self.aside.push((start, uri.into()));
                NS_ASIDE
            }
        };
        self.entries.push(Entry { start, name, ns });
        self.count += 1;
        Ok(())
    }

    fn copy(&self) -> Self {
        Self { entries: SmallVec::from_slice(&self.entries), count: self.count, aside: self.aside.clone() }
    }

    /// How many children there are.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Bytes of heap held.
    #[cfg(test)]
    pub(crate) fn heap(&self) -> usize {
        let entries = if self.entries.spilled() { self.entries.capacity() * size_of::<Entry>() } else { 0 };
        entries + self.aside.iter().map(|(_, uri)| uri.len() + 24).sum::<usize>()
    }

    fn aside(&self, start: u32) -> &str {
        let found = self.aside.iter().find(|(child, _)| *child == start);
        found.map_or("", |(_, uri)| uri)
    }
}

impl FromIterator<Element> for Payload {
    fn from_iter<I: IntoIterator<Item = Element>>(elements: I) -> Self {
        Self::from_elements(elements)
    }
}

impl From<Element> for Payload {
    fn from(element: Element) -> Self {
        Self::from_elements([element])
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Payload {}

/// The names of the children only: the rest belongs to users and is not for logs.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.children()).finish()
    }
}

#[cfg(test)]
mod tests;
