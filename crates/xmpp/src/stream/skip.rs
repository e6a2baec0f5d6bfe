//! Finds the end of a stanza that is too large to be read, keeping nothing of it.

use memchr::{memchr, memchr2};

use crate::XmlError;

/// Where in the input we are.
#[derive(Clone, Copy, Debug)]
enum At {
    /// In character data.
    Text,
    /// After a `<`.
    Open,
    /// In a start tag; the flag says whether the last byte was a `/`.
    Tag(bool),
    /// In an attribute value, before this quote.
    Value(u8),
    /// In an end tag.
    End,
    /// So many bytes into what must be the start of a CDATA section.
    Section(usize),
    /// In a CDATA section, so many `]` read in a row, at most two counted.
    CData(u8),
}

const CDATA_OPEN: &[u8] = b"<![CDATA[";

/// Counts elements until the outermost ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Skip {
    depth: usize,
    at: At,
}

impl Skip {
    /// Starts between two tokens, `depth` elements being open.
    pub(super) const fn new(depth: usize) -> Self {
        Self { depth, at: At::Text }
    }

    /// Goes over `input`. Gives how many bytes belong to the stanza once its end is found.
    pub(super) fn run(&mut self, input: &[u8]) -> Result<Option<usize>, XmlError> {
        let mut i = 0;
        while let Some(&byte) = input.get(i) {
            match self.at {
                At::Text => match memchr(b'<', &input[i..]) {
                    Some(found) => {
                        i += found;
                        self.at = At::Open;
                    }
                    None => return Ok(None),
                },
                At::Open => {
                    self.at = match byte {
                        b'/' => At::End,
                        b'!' => At::Section(2),
                        b'?' => return Err(XmlError::Restricted),
                        _ => {
                            // The byte is part of the name; look at it again.
                            self.at = At::Tag(false);
                            continue;
                        }
                    };
                }
                At::Tag(slash) => match byte {
                    b'>' => {
                        self.at = At::Text;
                        self.depth += usize::from(!slash);
                    }
                    b'<' => return Err(XmlError::NotWellFormed),
                    b'"' | b'\'' => self.at = At::Value(byte),
                    _ => self.at = At::Tag(byte == b'/'),
                },
                At::Value(quote) => match memchr2(quote, b'<', &input[i..]) {
                    Some(found) if input[i + found] == quote => {
                        i += found;
                        self.at = At::Tag(false);
                    }
                    Some(_) => return Err(XmlError::NotWellFormed),
                    None => return Ok(None),
                },
                At::End => match memchr2(b'>', b'<', &input[i..]) {
                    Some(found) if input[i + found] == b'>' => {
                        i += found;
                        self.at = At::Text;
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Ok(Some(i + 1));
                        }
                    }
                    Some(_) => return Err(XmlError::NotWellFormed),
                    None => return Ok(None),
                },
                At::Section(matched) if byte == CDATA_OPEN[matched] => {
                    let matched = matched + 1;
                    self.at = if matched == CDATA_OPEN.len() { At::CData(0) } else { At::Section(matched) };
                }
                At::Section(2) if matches!(byte, b'-' | b'A'..=b'Z') => return Err(XmlError::Restricted),
                At::Section(_) => return Err(XmlError::NotWellFormed),
                At::CData(brackets) => {
                    self.at = match (byte, brackets) {
                        (b']', _) => At::CData((brackets + 1).min(2)),
                        (b'>', 2) => At::Text,
                        _ => At::CData(0),
                    };
                }
            }
            i += 1;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_input_is_split() {
        let input = b"te>xt<a b='/x>'/><c d=\"'>\">]]<![CDATA[</c>]]]>&<e/></c ></b></message>rest";
        let end = input.len() - 4;
        assert_eq!(Skip::new(2).run(input), Ok(Some(end)));
        for split in 0..end {
            let mut skip = Skip::new(2);
            assert_eq!(skip.run(&input[..split]), Ok(None), "{split}");
            assert_eq!(skip.run(&input[split..]), Ok(Some(end - split)), "{split}");
        }
    }

    #[test]
    fn what_is_restricted_stays_so() {
        for (input, error) in [
            ("<!-- -->", XmlError::Restricted),
            ("<?x ?>", XmlError::Restricted),
            ("<!DOCTYPE", XmlError::Restricted),
            ("<![X", XmlError::NotWellFormed),
            ("<a b='<'", XmlError::NotWellFormed),
            ("<a <", XmlError::NotWellFormed),
        ] {
            assert_eq!(Skip::new(1).run(input.as_bytes()), Err(error), "{input}");
        }
    }
}
