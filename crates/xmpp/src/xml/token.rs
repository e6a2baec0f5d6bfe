//! Cuts input into tokens: tags, character data, CDATA sections. Remembers how far it has looked, so that input which
//! comes one byte at a time costs no more than input which comes at once, and fails at the same byte.

use memchr::{memchr, memchr2, memmem};

use super::{Bounds, XmlError, chars::is_space};

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A start tag or an empty-element tag.
    Start,
    /// An end tag.
    End,
    /// Character data up to the next tag.
    Text,
    /// A CDATA section.
    CData,
    /// What begins with `<?xml` and white space.
    Declaration,
}

/// A token: its kind and how many bytes it has, delimiters included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) len: usize,
}

/// What follows `<![` of a CDATA section, with it.
const CDATA_OPEN: &[u8] = b"<![CDATA[";
/// The start of an XML declaration; one byte of white space follows.
const DECLARATION_OPEN: &[u8] = b"<?xml";
/// An XML declaration needs fewer bytes than this.
const DECLARATION_BYTES: usize = 256;

/// Finds the end of the token at the front of the input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanner {
    /// Bytes of the token that need no second look.
    done: usize,
    /// In a start tag: where the open attribute value begins, and its quote.
    value: Option<(usize, u8)>,
    /// In a start tag: attribute values begun so far.
    values: u32,
    /// In a start tag: bytes of the name that is being read.
    name: u32,
}

impl Scanner {
    /// The token at the start of `input`, or `None` when more input is needed; the next call must then bring the same
    /// bytes and more. Position by position the same bytes fail the same way, however they are split.
    pub(crate) fn next(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<Token>, XmlError> {
        let found = match input {
            [] => None,
            [b'<', b'/', ..] => self.end_tag(input, bounds)?,
            [b'<', b'!', ..] => self.section(input)?,
            [b'<', b'?', ..] => self.instruction(input)?,
            [b'<'] => None,
            [b'<', ..] => self.start_tag(input, bounds)?,
            _ => self.text(input),
        };
        if found.is_some() {
            *self = Self::default();
        }
        Ok(found)
    }

    fn text(&mut self, input: &[u8]) -> Option<Token> {
        let found = memchr(b'<', &input[self.done..]);
        let len = found.map(|at| self.done + at);
        self.done = input.len();
        len.map(|len| Token { kind: TokenKind::Text, len })
    }

    fn start_tag(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<Token>, XmlError> {
        let mut at = self.done.max(1);
        loop {
            if let Some((begin, quote)) = self.value {
                let end = input.len().min(begin + bounds.attribute_bytes + 1);
                match memchr2(quote, b'<', &input[at..end]) {
                    Some(found) if input[at + found] == quote => {
                        at += found + 1;
                        self.value = None;
                        self.name = 0;
                    }
                    Some(_) => return Err(XmlError::NotWellFormed),
                    None if end - begin > bounds.attribute_bytes => {
                        return Err(XmlError::Limit("attribute value too long"));
                    }
                    None => {
                        self.done = end;
                        return Ok(None);
                    }
                }
            }
            let Some(byte) = input.get(at) else { break };
            match byte {
                b'>' => return Ok(Some(Token { kind: TokenKind::Start, len: at + 1 })),
                b'<' => return Err(XmlError::NotWellFormed),
                b'"' | b'\'' => {
                    self.values += 1;
                    if self.values > u32::from(bounds.attributes) + u32::from(bounds.namespaces) {
                        return Err(XmlError::Limit("too many attributes"));
                    }
                    self.value = Some((at + 1, *byte));
                }
                b' ' | b'\t' | b'\n' | b'\r' | b'=' | b'/' => self.name = 0,
                _ => {
                    self.name += 1;
                    if self.name > u32::from(bounds.name_bytes) {
                        return Err(XmlError::Limit("name too long"));
                    }
                }
            }
            at += 1;
        }
        self.done = at;
        Ok(None)
    }

    fn end_tag(&mut self, input: &[u8], bounds: &Bounds) -> Result<Option<Token>, XmlError> {
        // White space may stand before the `>`, but nobody needs more of it than names have bytes.
        let most = 2 * usize::from(bounds.name_bytes) + 3;
        let from = self.done.max(2);
        let end = input.len().min(most);
        match memchr2(b'>', b'<', &input[from..end]) {
            Some(found) if input[from + found] == b'>' => {
                Ok(Some(Token { kind: TokenKind::End, len: from + found + 1 }))
            }
            Some(_) => Err(XmlError::NotWellFormed),
            None if end == most => Err(XmlError::Limit("name too long")),
            None => {
                self.done = end;
                Ok(None)
            }
        }
    }

    fn section(&mut self, input: &[u8]) -> Result<Option<Token>, XmlError> {
        if self.done < CDATA_OPEN.len() {
            let seen = input.len().min(CDATA_OPEN.len());
            if input[..seen] != CDATA_OPEN[..seen] {
                return Err(match input.get(2) {
                    Some(b'-' | b'A'..=b'Z') => XmlError::Restricted,
                    _ => XmlError::NotWellFormed,
                });
            }
            if seen < CDATA_OPEN.len() {
                return Ok(None);
            }
            self.done = seen;
        }
        // The last two bytes seen may be the start of the `]]>`.
        let from = (self.done - 2).max(CDATA_OPEN.len());
        let found = memmem::find(&input[from..], b"]]>").map(|at| from + at + 3);
        self.done = input.len();
        Ok(found.map(|len| Token { kind: TokenKind::CData, len }))
    }

    fn instruction(&mut self, input: &[u8]) -> Result<Option<Token>, XmlError> {
        let seen = input.len().min(DECLARATION_OPEN.len());
        if input[..seen] != DECLARATION_OPEN[..seen] {
            return Err(XmlError::Restricted);
        }
        match input.get(DECLARATION_OPEN.len()) {
            None => return Ok(None),
            Some(byte) if is_space(*byte) => {}
            Some(b'?') => return Err(XmlError::NotWellFormed),
            Some(_) => return Err(XmlError::Restricted),
        }
        let window = &input[..input.len().min(DECLARATION_BYTES)];
        match memmem::find(window, b"?>") {
            Some(at) => Ok(Some(Token { kind: TokenKind::Declaration, len: at + 2 })),
            None if window.len() == DECLARATION_BYTES => Err(XmlError::NotWellFormed),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(input: &[u8]) -> Result<Option<Token>, XmlError> {
        Scanner::default().next(input, &Bounds::TREE)
    }

    #[test]
    fn tokens_end_where_they_should() {
        for (input, kind, len) in [
            ("<a>x", TokenKind::Start, 3),
            ("<a b='>' c=\"'/>\"/>x", TokenKind::Start, 18),
            ("</a >x", TokenKind::End, 5),
            ("abc<", TokenKind::Text, 3),
            ("<![CDATA[]]]]>]]>", TokenKind::CData, 14),
            ("<?xml version='1.0'?>", TokenKind::Declaration, 21),
        ] {
            assert_eq!(whole(input.as_bytes()), Ok(Some(Token { kind, len })), "{input}");
            let mut scanner = Scanner::default();
            for end in 0..len {
                let partial = scanner.next(&input.as_bytes()[..end], &Bounds::TREE);
                assert_eq!(partial, Ok(None), "{input} at {end}");
            }
        }
    }

    #[test]
    fn forbidden_constructs_fail_at_once() {
        for (input, error) in [
            ("<!-", XmlError::Restricted),
            ("<!D", XmlError::Restricted),
            ("<![A", XmlError::NotWellFormed),
            ("<!x", XmlError::NotWellFormed),
            ("<?x-", XmlError::Restricted),
            ("<?xml?", XmlError::NotWellFormed),
            ("<?xml-s", XmlError::Restricted),
            ("<a <", XmlError::NotWellFormed),
            ("<a b='<", XmlError::NotWellFormed),
            ("</a<", XmlError::NotWellFormed),
        ] {
            assert_eq!(whole(input.as_bytes()), Err(error), "{input}");
        }
    }

    #[test]
    fn limits_hold_while_scanning() {
        let bounds =
            Bounds { attributes: 2, namespaces: 1, name_bytes: 4, attribute_bytes: 5, ..Bounds::TREE };
        let scan = |input: &str| Scanner::default().next(input.as_bytes(), &bounds);
        assert!(scan("<abcd").unwrap().is_none());
        assert!(scan("<abcde").is_err());
        assert!(scan("<a b='12345").unwrap().is_none());
        assert!(scan("<a b='12345'>").unwrap().is_some());
        assert!(scan("<a b='123456").is_err());
        assert!(scan("<a a='' b='' c=''").unwrap().is_none());
        assert!(scan("<a a='' b='' c='' d='").is_err());
        assert!(scan("</           ").is_err());
    }
}
