//! Reads one complete tag.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    Bounds, XmlError,
    chars::{decode_attribute, is_ncname, is_space},
};

/// A qualified name as it stands in the input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Name<'a> {
    /// The whole, as an end tag must repeat it.
    pub(crate) full: &'a str,
    /// Bytes of the prefix and its colon.
    colon: u16,
}

impl<'a> Name<'a> {
    /// What stands before the colon; empty if there is none.
    pub(crate) fn prefix(&self) -> &'a str {
        &self.full[..usize::from(self.colon).saturating_sub(1)]
    }

    /// What follows the prefix.
    pub(crate) fn local(&self) -> &'a str {
        &self.full[usize::from(self.colon)..]
    }

    /// Bytes of the prefix and its colon; zero if there is none.
    pub(crate) const fn prefix_len(&self) -> u16 {
        self.colon
    }

    /// Reads the name at `begin`; what follows it is for the caller to judge.
    fn parse(inside: &'a str, begin: usize, bounds: &Bounds) -> Result<Self, XmlError> {
        let mut colon = None;
        let mut ascii = true;
        let bytes = inside.as_bytes();
        let mut end = begin;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {}
                b':' if colon.is_none() => colon = Some(end),
                0x80.. => ascii = false,
                _ => break,
            }
            end += 1;
        }
        let full = &inside[begin..end];
        if full.len() > usize::from(bounds.name_bytes) {
            return Err(XmlError::Limit("name too long"));
        }
        let name = Self { full, colon: colon.map_or(0, |colon| (colon + 1 - begin) as u16) };
        let good = |part: &str| match part.as_bytes() {
            [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] if ascii => true,
            _ => is_ncname(part),
        };
        let good = good(name.local()) && (colon.is_none() || good(name.prefix()));
        if good { Ok(name) } else { Err(XmlError::NotWellFormed) }
    }
}

/// An attribute that is no namespace declaration.
#[derive(Clone, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) name: Name<'a>,
    /// The normalised value.
    pub(crate) value: Cow<'a, str>,
    /// Whether the value can be written as it is.
    pub(crate) plain: bool,
    /// The whole with the space before it, if it stands in the input as the canonical form has it; else empty.
    pub(crate) verbatim: &'a str,
}

/// A namespace declaration.
#[derive(Clone, Debug)]
pub(crate) struct Declaration<'a> {
    /// Empty for the default namespace.
    pub(crate) prefix: &'a str,
    pub(crate) uri: Cow<'a, str>,
}

/// A start tag or an empty-element tag, not yet resolved. Made once and read into again and again, as it is large.
#[derive(Debug, Default)]
pub(crate) struct Tag<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) attributes: SmallVec<[Attribute<'a>; 6]>,
    pub(crate) declarations: SmallVec<[Declaration<'a>; 2]>,
    /// Whether the element ends with its tag.
    pub(crate) empty: bool,
}

impl<'a> Tag<'a> {
    /// Reads a start tag as [`super::token::Scanner`] cuts it, from `<` to `>`.
    pub(crate) fn parse(raw: &'a [u8], bounds: &Bounds) -> Result<Self, XmlError> {
        let mut tag = Self::default();
        tag.read(raw, bounds)?;
        Ok(tag)
    }

    /// Replaces itself by the tag `raw`.
    pub(crate) fn read(&mut self, raw: &'a [u8], bounds: &Bounds) -> Result<(), XmlError> {
        let raw = std::str::from_utf8(raw).map_err(|_| XmlError::NotWellFormed)?;
        let inside = raw.get(1..raw.len() - 1).ok_or(XmlError::NotWellFormed)?;
        let (inside, empty) = match inside.as_bytes() {
            [.., b'/'] => (&inside[..inside.len() - 1], true),
            _ => (inside, false),
        };
        self.attributes.clear();
        self.declarations.clear();
        self.empty = empty;
        self.name = Name::parse(inside, 0, bounds)?;
        let mut at = self.name.full.len();
        while at < inside.len() {
            let begin = skip_space(inside.as_bytes(), at);
            if begin == inside.len() {
                break;
            }
            // White space must stand before every attribute (XML 1.0 production 40).
            if begin == at {
                return Err(XmlError::NotWellFormed);
            }
            at = self.attribute(inside, begin, bounds)?;
        }
        Ok(())
    }

    /// Reads the attribute at `begin` and gives where it ends.
    fn attribute(&mut self, inside: &'a str, begin: usize, bounds: &Bounds) -> Result<usize, XmlError> {
        let bytes = inside.as_bytes();
        let name = Name::parse(inside, begin, bounds)?;
        let equals = skip_space(bytes, begin + name.full.len());
        if bytes.get(equals) != Some(&b'=') {
            return Err(XmlError::NotWellFormed);
        }
        let open = skip_space(bytes, equals + 1);
        let quote = match bytes.get(open) {
            Some(quote @ (b'"' | b'\'')) => *quote,
            _ => return Err(XmlError::NotWellFormed),
        };
        let length = memchr::memchr(quote, &bytes[open + 1..]).ok_or(XmlError::NotWellFormed)?;
        let end = open + 1 + length;
        let (value, plain) = decode_attribute(&inside[open + 1..end])?;
        if name.full == "xmlns" {
            self.declare("", value, bounds)?;
        } else if name.colon > 0 && name.prefix() == "xmlns" {
            self.declare(name.local(), value, bounds)?;
        } else {
            if self.attributes.len() >= usize::from(bounds.attributes) {
                return Err(XmlError::Limit("too many attributes"));
            }
            if self.attributes.iter().any(|other| other.name.full == name.full) {
                return Err(XmlError::NotWellFormed);
            }
            let canonical = plain
                && quote == b'\''
                && open == begin + name.full.len() + 1
                && bytes[begin - 1] == b' '
                && (name.colon == 0 || name.prefix() == "xml");
            let verbatim = if canonical { &inside[begin - 1..=end] } else { "" };
            self.attributes.push(Attribute { name, value, plain, verbatim });
        }
        Ok(end + 1)
    }

    fn declare(&mut self, prefix: &'a str, uri: Cow<'a, str>, bounds: &Bounds) -> Result<(), XmlError> {
        if self.declarations.len() >= usize::from(bounds.namespaces) {
            return Err(XmlError::Limit("too many namespace declarations"));
        }
        if self.declarations.iter().any(|other| other.prefix == prefix) {
            return Err(XmlError::NotWellFormed);
        }
        self.declarations.push(Declaration { prefix, uri });
        Ok(())
    }
}

/// The qualified name of an end tag, from `</` to `>`. Whether it is a name is told by its equality with that of the
/// start tag.
pub(crate) fn end_tag_name(raw: &[u8]) -> &[u8] {
    let name = raw.get(2..raw.len() - 1).unwrap_or_default();
    let end = name.iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1);
    &name[..end]
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| is_space(*byte)) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<Tag<'_>, XmlError> {
        Tag::parse(raw.as_bytes(), &Bounds::TREE)
    }

    #[test]
    fn a_tag_is_taken_apart() {
        let tag = parse("<p:a\n x = '1' y:z=\"a&gt;'b\"\txmlns='u' xmlns:p='v' />").unwrap();
        assert_eq!((tag.name.prefix(), tag.name.local(), tag.empty), ("p", "a", true));
        assert_eq!(tag.attributes.len(), 2);
        assert_eq!(tag.attributes[1].value, "a>'b");
        assert!(tag.attributes[0].plain && !tag.attributes[1].plain);
        assert_eq!(tag.declarations[0].prefix, "");
        assert_eq!(tag.declarations[1].uri, "v");
    }

    #[test]
    fn ill_formed_tags_are_refused() {
        for bad in [
            "< a>",
            "<>",
            "</>",
            "<1a>",
            "<a:b:c>",
            "<:a>",
            "<a:>",
            "<a b>",
            "<a b=c>",
            "<a b='c'd='e'>",
            "<a b='c' b='d'>",
            "<a =''>",
            "<a b=''/ >",
            "<a/b>",
            "<a b:='x'>",
            "<a b='x''>",
            "<a xmlns='' xmlns=''>",
            "<a xmlns:='u'>",
            "<a b= >",
            "<a b==''>",
            "<a\u{c}b=''>",
        ] {
            assert_eq!(parse(bad).map(|_| ()), Err(XmlError::NotWellFormed), "{bad}");
        }
        assert!(Tag::parse(b"<a b='\xff'>", &Bounds::TREE).is_err());
    }
}
