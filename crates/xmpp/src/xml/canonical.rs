//! Writes the canonical form while it is being read: no prefix but those of attributes, `xmlns` only where the
//! namespace changes, single quotes, minimal escaping. Two inputs that mean the same give the same bytes.

use smallvec::SmallVec;

use super::{
    Index, XmlError,
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
        self.start(tag, scopes, Some(self.content))?;
        let ns = mapped(self.content, scopes.ns());
        if ns == ns::CLIENT {
            return index.note(start, tag.name.local, None, true);
        }
        let written = &self.out[start + 1 + tag.name.local.len() + b" xmlns='".len()..];
        let plain = written.starts_with(ns.as_bytes());
        index.note(start, tag.name.local, Some(ns), plain)
    }

    /// Writes the start tag of the element that `scopes` opened last. `outer` is the namespace around it in the
    /// output, `None` when the output stands alone.
    pub(crate) fn start(
        &mut self,
        tag: &Tag<'_>,
        scopes: &Scopes,
        outer: Option<&str>,
    ) -> Result<(), XmlError> {
        self.finish_tag();
        self.out.push(b'<');
        self.out.extend_from_slice(tag.name.local.as_bytes());
        let ns = mapped(self.content, scopes.ns());
        let outer = outer.map(|outer| mapped(self.content, outer));
        if outer != Some(ns) && !(outer.is_none() && ns.is_empty()) {
            self.out.extend_from_slice(b" xmlns='");
            escape::attribute(ns, &mut self.out);
            self.out.push(b'\'');
        }
        attributes(tag.attributes.iter(), scopes, &mut self.out)?;
        self.tag_open = true;
        Ok(())
    }

    /// Writes the end of the element that `scopes` opened last and has not closed yet.
    pub(crate) fn end(&mut self, scopes: &Scopes) {
        if self.tag_open {
            self.tag_open = false;
            self.out.extend_from_slice(b"/>");
        } else {
            self.out.extend_from_slice(b"</");
            self.out.extend_from_slice(scopes.local().as_bytes());
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

/// The namespace name in the output.
fn mapped<'n>(content: &str, name: &'n str) -> &'n str {
    if name == content { ns::CLIENT } else { name }
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
        out.push(b' ');
        match attribute.name.prefix {
            "" => {}
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
        out.extend_from_slice(attribute.name.local.as_bytes());
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
