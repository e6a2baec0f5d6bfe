//! Cuts what a server sends into first-level elements, by counting tags.
//!
//! It trusts the server: text and attribute values are taken to have their `>` escaped, as all servers measured here
//! do. That makes an element cost a few searches for a byte, so that the generator stays cheaper than any server.

use std::ops::Range;

use memchr::memchr;

/// Bytes received, and how far they have been looked at.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    buffer: Vec<u8>,
    /// Where the element at hand begins.
    start: usize,
    /// Up to where tags have been counted.
    seen: usize,
    depth: u32,
}

impl Framer {
    /// Where to append what was read.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.seen = 0;
            self.start = 0;
        } else if self.start > KEEP {
            self.buffer.drain(..self.start);
            self.seen -= self.start;
            self.start = 0;
        }
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    /// Frees the buffer of a connection that will be idle.
    pub(crate) fn shrink(&mut self) {
        self.space();
        self.buffer.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        self.buffer.shrink_to_fit();
    }

    /// Begins a new stream on the same connection.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// The next whole first-level element, or a stream's opening or closing tag.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        self.next_range().map(|range| &self.buffer[range])
    }

    /// The element that [`Framer::next_range`] found, until more is read.
    pub(crate) fn at(&self, range: &Range<usize>) -> &[u8] {
        &self.buffer[range.clone()]
    }

    /// As [`Framer::next`], for a caller who must not hold a borrow.
    pub(crate) fn next_range(&mut self) -> Option<Range<usize>> {
        loop {
            let open = self.seen + memchr(b'<', &self.buffer[self.seen..])?;
            let close = open + memchr(b'>', &self.buffer[open..])?;
            if self.depth <= 1 {
                self.start = open;
            }
            self.seen = close + 1;
            let ends = match (self.buffer[open + 1], self.buffer[close - 1]) {
                (b'?', _) => false,
                (b'/', _) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.depth <= 1
                }
                (_, b'/') => self.depth <= 1,
                _ => {
                    self.depth += 1;
                    self.depth == 1
                }
            };
            if ends {
                let start = std::mem::replace(&mut self.start, self.seen);
                return Some(start..self.seen);
            }
        }
    }
}

/// The name of an element, with its prefix.
pub(crate) fn name(element: &[u8]) -> &[u8] {
    let rest = element.get(1..).unwrap_or_default();
    // A closing tag keeps the slash that it begins with.
    let end = rest.iter().skip(1).position(|byte| matches!(byte, b' ' | b'/' | b'>' | b'\n' | b'\t'));
    &rest[..end.map_or(rest.len(), |end| end + 1)]
}

/// The value of an attribute of the element's own tag, in its escaped form.
pub(crate) fn attribute<'a>(element: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let tag = &element[..memchr(b'>', element)?];
    let mut rest = tag;
    loop {
        let equals = memchr(b'=', rest)?;
        let key = &rest[..equals];
        let value = rest.get(equals + 2..)?;
        let end = memchr(*rest.get(equals + 1)?, value)?;
        if key.strip_suffix(name.as_bytes()).is_some_and(|before| before.ends_with(b" ")) {
            return Some(&value[..end]);
        }
        rest = &value[end + 1..];
    }
}

/// The text of an element that has nothing but text.
pub(crate) fn text(element: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'>', element) else { return &[] };
    let rest = &element[open + 1..];
    &rest[..memchr(b'<', rest).unwrap_or(rest.len())]
}

/// Memory below which what was read is not moved to the front.
const KEEP: usize = 64 * 1024;
/// Room for one read: a TLS record.
const READ: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?><stream:stream id='1' from='a'><stream:features><a/><b>c</b>\
        </stream:features> <r xmlns='urn:xmpp:sm:3'/><message from='x' id='t12'><body>hi</body></message>\n\
        <presence/></stream:stream>";

    #[test]
    fn elements_come_out_whole_however_they_are_split() {
        for size in 1..STREAM.len() {
            let mut framer = Framer::default();
            let mut elements = Vec::new();
            for piece in STREAM.as_bytes().chunks(size) {
                framer.space().extend_from_slice(piece);
                while let Some(element) = framer.next() {
                    elements.push(String::from_utf8(element.to_vec()).unwrap());
                }
            }
            let names: Vec<_> =
                elements.iter().map(|e| String::from_utf8_lossy(name(e.as_bytes()))).collect();
            let wanted = ["stream:stream", "stream:features", "r", "message", "presence", "/stream:stream"];
            assert_eq!(names, wanted);
            assert_eq!(elements[3], "<message from='x' id='t12'><body>hi</body></message>");
        }
    }

    #[test]
    fn attributes_are_found_by_their_whole_name() {
        let element = b"<a h='1' xid=\"no\" id=\"yes\" to='id=1'><b q='2'/></a>";
        assert_eq!(attribute(element, "id"), Some(&b"yes"[..]));
        assert_eq!(attribute(element, "h"), Some(&b"1"[..]));
        assert_eq!(attribute(element, "q"), None);
        assert_eq!(attribute(b"<a/>", "q"), None);
    }

    #[test]
    fn text_ends_where_a_tag_begins() {
        assert_eq!(text(b"<challenge xmlns='x'>abc=</challenge>"), b"abc=");
        assert_eq!(text(b"<success xmlns='x'/>"), b"");
    }
}
