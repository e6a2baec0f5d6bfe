//! Finds its way in canonical bytes. There, `<` and `>` stand for tags only, `xmlns` comes first, and every value is in
//! single quotes, so no state is needed.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter};

use super::{
    super::{XmlError, chars::decode_attribute},
    Index, Name,
};

/// How a namespace declaration begins, right after the name.
pub(super) const XMLNS: &[u8] = b" xmlns='";

/// A tag of canonical bytes; end tags are told apart.
pub(crate) struct StartTag<'a> {
    pub(crate) name: &'a str,
    /// The raw value of `xmlns`.
    pub(crate) declared: Option<&'a str>,
    /// What follows the declaration, each attribute after a space.
    pub(crate) attributes: &'a str,
    /// Whether it is `</...>`; then it has neither declaration nor attributes.
    pub(crate) closing: bool,
    /// Whether the element ends with its tag.
    pub(crate) empty: bool,
    /// Where the tag ends.
    pub(crate) end: usize,
}

impl<'a> StartTag<'a> {
    /// The tag whose `<` is at `at`.
    pub(crate) fn at(bytes: &'a [u8], at: usize) -> Result<Self, XmlError> {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.first() != Some(&b'<') {
            return Err(XmlError::NotWellFormed);
        }
        let close = memchr(b'>', rest).ok_or(XmlError::Truncated)?;
        let inside = std::str::from_utf8(&rest[1..close]).map_err(|_| XmlError::NotWellFormed)?;
        let end = at + close + 1;
        if let Some(name) = inside.strip_prefix('/') {
            return Ok(Self { name, declared: None, attributes: "", closing: true, empty: false, end });
        }
        let (inside, empty) = inside.strip_suffix('/').map_or((inside, false), |inside| (inside, true));
        let name_end = memchr(b' ', inside.as_bytes()).unwrap_or(inside.len());
        let (name, rest) = inside.split_at(name_end);
        let (declared, attributes) = match rest.strip_prefix(" xmlns='") {
            Some(uri) => {
                let end = memchr(b'\'', uri.as_bytes()).ok_or(XmlError::NotWellFormed)?;
                (Some(&uri[..end]), &uri[end + 1..])
            }
            None => (None, rest),
        };
        if name.is_empty() {
            return Err(XmlError::NotWellFormed);
        }
        Ok(Self { name, declared, attributes, closing: false, empty, end })
    }
}

/// The children that canonical bytes consist of; `count` of them are expected.
pub(super) fn children(bytes: &[u8], count: usize) -> Result<Index, XmlError> {
    let mut index = Index::default();
    index.entries.reserve_exact(count);
    let mut at = 0;
    while at < bytes.len() {
        at = child(bytes, at, &mut index)?;
    }
    Ok(index)
}

/// Notes the child that begins at `at`, and gives where it ends.
pub(super) fn child(bytes: &[u8], at: usize, index: &mut Index) -> Result<usize, XmlError> {
    let tag = StartTag::at(bytes, at)?;
    if tag.closing {
        return Err(XmlError::NotWellFormed);
    }
    let name = tag.name.len();
    match tag.declared.map(decoded) {
        None => index.push(at, name, None)?,
        Some(Cow::Borrowed(uri)) => index.push(at, name, Some(Name::Plain(uri.len())))?,
        Some(Cow::Owned(uri)) => index.push(at, name, Some(Name::Escaped(&uri)))?,
    }
    if tag.empty { Ok(tag.end) } else { element_end(bytes, tag.end) }
}

/// Where the element ends whose start tag ends at `from`.
fn element_end(bytes: &[u8], from: usize) -> Result<usize, XmlError> {
    let rest = &bytes[from..];
    let mut depth = 1_u32;
    let mut open = None;
    for at in memchr2_iter(b'<', b'>', rest) {
        match (rest[at], open) {
            (b'<', None) => open = Some(at),
            (b'>', Some(tag)) => {
                open = None;
                if rest[tag + 1] == b'/' {
                    depth -= 1;
                } else if rest[at - 1] != b'/' {
                    depth += 1;
                }
                if depth == 0 {
                    return Ok(from + at + 1);
                }
            }
            _ => return Err(XmlError::NotWellFormed),
        }
    }
    Err(XmlError::Truncated)
}

/// The root tag of an encoded stanza, and what is inside the root element.
pub(crate) fn root_tag(bytes: &[u8]) -> Result<(StartTag<'_>, std::ops::Range<usize>), XmlError> {
    let tag = StartTag::at(bytes, 0)?;
    if tag.closing {
        return Err(XmlError::NotWellFormed);
    }
    if tag.empty {
        let end = tag.end;
        return if end == bytes.len() { Ok((tag, end..end)) } else { Err(XmlError::NotWellFormed) };
    }
    let tail = bytes.strip_suffix(b">").and_then(|rest| rest.strip_suffix(tag.name.as_bytes()));
    let inside = tail.and_then(|rest| rest.strip_suffix(b"</")).ok_or(XmlError::Truncated)?;
    let range = tag.end..inside.len();
    if range.start > range.end { Err(XmlError::Truncated) } else { Ok((tag, range)) }
}

/// The attributes in what follows a tag's name: qualified name and raw value.
pub(crate) fn canonical_attributes(mut rest: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        let inside = rest.strip_prefix(' ')?;
        let equals = memchr(b'=', inside.as_bytes())?;
        let name = &inside[..equals];
        let after = inside[equals + 1..].strip_prefix('\'')?;
        let end = memchr(b'\'', after.as_bytes())?;
        rest = &after[end + 1..];
        Some((name, &after[..end]))
    })
}

/// A canonical attribute value without its escapes.
pub(crate) fn decoded(raw: &str) -> Cow<'_, str> {
    if memchr(b'&', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    decode_attribute(raw).map_or(Cow::Borrowed(raw), |(value, _)| value)
}
