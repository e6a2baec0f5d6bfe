//! Writes the canonical form while it is being read: no prefix but those of attributes, `xmlns` only where the
//! namespace changes, single quotes, minimal escaping. Two inputs that mean the same give the same bytes.

use smallvec::SmallVec;

use super::{
    Index, Name, XmlError,
    chars::decode_text,
    escape,
    scope::Scopes,
    tag::{Attribute, Tag},
};
use crate::ns;

/// The output and whether its last start tag still lacks its `>`.
#[derive(Debug)]
pub(crate) struct Canonical {
    pub(crate) out: Vec<u8>,
    tag_open: bool,
    /// The content namespace of the stream: in the output it is that of clients, so that the same bytes serve inside
    /// any stream (RFC 6120 section 4.8.3).
    content: &'static str,
}

/// Where an element stands in the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing is around it.
    Alone,
    /// The element that was opened before it is around it.
    Inside,
}

/// A namespace declaration that was written: bytes of the name, and whether it was written as it is.
struct Declared {
    len: usize,
    plain: bool,
}

impl Canonical {
    /// Writes into `out`, which is empty.
    pub(crate) const fn new(out: Vec<u8>, content: &'static str) -> Self {
        Self { out, tag_open: false, content }
    }

    /// Writes the start tag of a stanza's child, which `scopes` opened last, and notes it in `index`.
    pub(crate) fn child(
        &mut self,
        tag: &Tag<'_>,
        scopes: &Scopes,
        index: &mut Index,
    ) -> Result<(), XmlError> {
        self.finish_tag();
        let start = self.out.len();
        let name = tag.name.local();
        match self.write_start(tag, scopes, Place::Inside)? {
            None => index.note(start, name.len(), None),
            Some(Declared { len, plain: true }) => index.note(start, name.len(), Some(Name::Plain(len))),
            Some(_) => index.note(start, name.len(), Some(Name::Escaped(scopes.ns()))),
        }
    }

    /// Writes the start tag of the element that `scopes` opened last.
    pub(crate) fn start(&mut self, tag: &Tag<'_>, scopes: &Scopes, place: Place) -> Result<(), XmlError> {
        self.finish_tag();
        self.write_start(tag, scopes, place).map(|_| ())
    }

    fn write_start(
        &mut self,
        tag: &Tag<'_>,
        scopes: &Scopes,
        place: Place,
    ) -> Result<Option<Declared>, XmlError> {
        self.out.push(b'<');
        self.out.extend_from_slice(tag.name.local().as_bytes());
        let declared = self.declaration(scopes, place).map(|ns| {
            self.out.extend_from_slice(b" xmlns='");
            let plain = escape::attribute_bytes(ns, &mut self.out);
            self.out.push(b'\'');
            Declared { len: ns.len(), plain }
        });
        attributes(tag.attributes.iter(), scopes, &mut self.out)?;
        self.tag_open = true;
        Ok(declared)
    }

    /// The namespace name to be declared, if one has to be.
    fn declaration<'s>(&self, scopes: &'s Scopes, place: Place) -> Option<&'s [u8]> {
        let ns = scopes.ns_bytes();
        if self.content == ns::CLIENT || place == Place::Alone {
            let changes = if place == Place::Alone { !ns.is_empty() } else { scopes.changes_ns() };
            return changes.then_some(ns);
        }
        let mapped =
            |name: &'s [u8]| if name == self.content.as_bytes() { ns::CLIENT.as_bytes() } else { name };
        let ns = mapped(ns);
        (ns != mapped(scopes.outer_ns_bytes())).then_some(ns)
    }

    /// Writes the end of the element that `scopes` opened last and has not closed yet.
    pub(crate) fn end(&mut self, scopes: &Scopes) {
        if self.tag_open {
            self.tag_open = false;
            self.out.extend_from_slice(b"/>");
        } else {
            self.out.extend_from_slice(b"</");
            self.out.extend_from_slice(scopes.local_bytes());
            self.out.push(b'>');
        }
    }

    /// Writes character data as it stands in the input, or the inside of a CDATA section.
    pub(crate) fn text(&mut self, raw: &str, cdata: bool) -> Result<(), XmlError> {
        if !raw.is_empty() {
            self.finish_tag();
        }
        decode_text(raw, cdata, |piece, plain| {
            if plain {
                self.out.extend_from_slice(piece.as_bytes());
            } else {
                escape::text(piece, &mut self.out);
            }
        })
    }

    fn finish_tag(&mut self) {
        if self.tag_open {
            self.tag_open = false;
            self.out.push(b'>');
        }
    }
}

/// Writes attributes, each after a space. Prefixes other than `xml` are renamed in order of appearance and declared on
/// the spot.
pub(crate) fn attributes<'a, 'v: 'a>(
    attributes: impl Iterator<Item = &'a Attribute<'v>>,
    scopes: &Scopes,
    out: &mut Vec<u8>,
) -> Result<(), XmlError> {
    let mut uris = SmallVec::<[&str; 2]>::new();
    for attribute in attributes {
        if !attribute.verbatim.is_empty() {
            out.extend_from_slice(attribute.verbatim.as_bytes());
            continue;
        }
        out.push(b' ');
        match attribute.name.prefix() {
            _ if attribute.name.prefix_len() == 0 => {}
            "xml" => out.extend_from_slice(b"xml:"),
            prefix => {
                let uri = scopes.attribute_ns(prefix)?;
                let number = uris.iter().position(|known| *known == uri);
                let number = number.unwrap_or_else(|| {
                    declare(uris.len(), uri, out);
                    uris.push(uri);
                    uris.len() - 1
                });
                write_prefix(number, out);
                out.push(b':');
            }
        }
        out.extend_from_slice(attribute.name.local().as_bytes());
        out.extend_from_slice(b"='");
        if attribute.plain {
            out.extend_from_slice(attribute.value.as_bytes());
        } else {
            escape::attribute(&attribute.value, out);
        }
        out.push(b'\'');
    }
    Ok(())
}

/// Writes the declaration of the `number`th attribute namespace of an element, and a space.
pub(crate) fn declare(number: usize, uri: &str, out: &mut impl bytes::BufMut) {
    out.put_slice(b"xmlns:");
    write_prefix(number, out);
    out.put_slice(b"='");
    escape::attribute(uri, out);
    out.put_slice(b"' ");
}

/// Writes the prefix of the `number`th attribute namespace of an element.
pub(crate) fn write_prefix(number: usize, out: &mut impl bytes::BufMut) {
    out.put_slice(b"ns");
    out.put_slice(number.to_string().as_bytes());
}
