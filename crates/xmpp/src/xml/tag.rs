//! Reads one complete tag.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    Bounds, XmlError,
    chars::{decode_attribute, is_ncname, is_space},
};

/// A qualified name as it stands in the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    /// The whole, as an end tag must repeat it.
    pub(crate) full: &'a str,
    /// Empty if there is none.
    pub(crate) prefix: &'a str,
    /// What follows the prefix.
    pub(crate) local: &'a str,
}

impl<'a> Name<'a> {
    fn parse(full: &'a str, bounds: &Bounds) -> Result<Self, XmlError> {
        if full.len() > usize::from(bounds.name_bytes) {
            return Err(XmlError::Limit("name too long"));
        }
        let (prefix, local) = match memchr::memchr(b':', full.as_bytes()) {
            Some(colon) => (&full[..colon], &full[colon + 1..]),
            None => ("", full),
        };
        let good = is_ncname(local) && (full.len() == local.len() || is_ncname(prefix));
        if good { Ok(Self { full, prefix, local }) } else { Err(XmlError::NotWellFormed) }
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
}

/// A namespace declaration.
#[derive(Clone, Debug)]
pub(crate) struct Declaration<'a> {
    /// Empty for the default namespace.
    pub(crate) prefix: &'a str,
    pub(crate) uri: Cow<'a, str>,
}

/// A start tag or an empty-element tag, not yet resolved.
#[derive(Debug)]
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
        let raw = std::str::from_utf8(raw).map_err(|_| XmlError::NotWellFormed)?;
        let inside = raw.get(1..raw.len() - 1).ok_or(XmlError::NotWellFormed)?;
        let (inside, empty) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
        let bytes = inside.as_bytes();

        let name_end = bytes.iter().position(|byte| is_space(*byte)).unwrap_or(bytes.len());
        let name = Name::parse(&inside[..name_end], bounds)?;
        let mut tag = Self { name, attributes: SmallVec::new(), declarations: SmallVec::new(), empty };
        let mut at = name_end;
        loop {
            let begin = skip_space(bytes, at);
            if begin == bytes.len() {
                return Ok(tag);
            }
            // White space must stand before every attribute (XML 1.0 production 40).
            if begin == at {
                return Err(XmlError::NotWellFormed);
            }
            at = tag.attribute(inside, begin, bounds)?;
        }
    }

    /// Reads the attribute at `begin` and gives where it ends.
    fn attribute(&mut self, inside: &'a str, begin: usize, bounds: &Bounds) -> Result<usize, XmlError> {
        let bytes = inside.as_bytes();
        let name_end = bytes[begin..]
            .iter()
            .position(|byte| *byte == b'=' || is_space(*byte))
            .map(|length| begin + length)
            .ok_or(XmlError::NotWellFormed)?;
        let name = Name::parse(&inside[begin..name_end], bounds)?;
        let equals = skip_space(bytes, name_end);
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
        } else if name.prefix == "xmlns" {
            self.declare(name.local, value, bounds)?;
        } else {
            if self.attributes.len() >= usize::from(bounds.attributes) {
                return Err(XmlError::Limit("too many attributes"));
            }
            if self.attributes.iter().any(|other| other.name.full == name.full) {
                return Err(XmlError::NotWellFormed);
            }
            self.attributes.push(Attribute { name, value, plain });
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
        assert_eq!((tag.name.prefix, tag.name.local, tag.empty), ("p", "a", true));
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
