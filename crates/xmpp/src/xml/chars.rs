//! Characters, names and references: what XML 1.0 (fifth edition) and its namespaces allow.

use std::borrow::Cow;

use super::XmlError;

/// White space of XML; nothing else counts as such.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Bytes that stop the fast path in character data.
const TEXT: [bool; 256] = special(false);
/// Bytes that stop the fast path in attribute values.
const ATTRIBUTE: [bool; 256] = special(true);

const fn special(attribute: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        // 0xEF starts U+FFFE and U+FFFF, the only characters above the controls that are no `Char`.
        table[byte] = match byte as u8 {
            b'\t' | b'\n' => attribute,
            0..0x20 | b'&' | b'<' | b'>' | 0xEF => true,
            b'\'' | b'"' => attribute,
            _ => false,
        };
        byte += 1;
    }
    table
}

/// Bytes of a block in [`plain_blocks`].
const BLOCK: usize = 32;

/// Bytes at the start that make up whole blocks of plain text. A block is compared at once by vector instructions; byte
/// by byte, text would cost most of the time.
fn plain_blocks(bytes: &[u8]) -> usize {
    let plain = |block: &&[u8; BLOCK]| {
        !block
            .iter()
            .fold(false, |special, byte| special | (*byte < 0x20) | matches!(byte, b'&' | b'<' | b'>' | 0xEF))
    };
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    blocks.iter().take_while(plain).count() * BLOCK
}

/// Whether `bytes` starts with U+FFFE or U+FFFF.
fn starts_with_noncharacter(bytes: &[u8]) -> bool {
    matches!(bytes, [0xEF, 0xBF, 0xBE | 0xBF, ..])
}

/// `Char` of XML 1.0.
const fn is_char(value: u32) -> bool {
    matches!(value, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x1_0000..=0x10_FFFF)
}

/// Reads character data (or the inside of a CDATA section): checks every character, resolves references, normalises
/// line ends. `emit` gets the pieces in order; its flag says that the piece needs no escaping.
pub(crate) fn decode_text(raw: &str, cdata: bool, mut emit: impl FnMut(&str, bool)) -> Result<(), XmlError> {
    let bytes = raw.as_bytes();
    let (mut run, mut at, mut next_block) = (0, 0, 0);
    while at < bytes.len() {
        if at >= next_block {
            at += plain_blocks(&bytes[at..]);
            next_block = at + BLOCK;
        }
        let Some(&byte) = bytes.get(at) else { break };
        if !TEXT[usize::from(byte)] {
            at += 1;
            continue;
        }
        if byte == 0xEF {
            if starts_with_noncharacter(&bytes[at..]) {
                return Err(XmlError::NotWellFormed);
            }
            at += 3;
            continue;
        }
        if run < at {
            emit(&raw[run..at], true);
        }
        match byte {
            b'&' if !cdata => {
                let (character, length) = reference(&raw[at..])?;
                emit(character.encode_utf8(&mut [0; 4]), false);
                at += length;
            }
            b'\r' => {
                emit("\n", true);
                at += if bytes.get(at + 1) == Some(&b'\n') { 2 } else { 1 };
            }
            b'>' if !cdata && bytes[..at].ends_with(b"]]") => return Err(XmlError::NotWellFormed),
            b'>' | b'&' => {
                emit(&raw[at..=at], false);
                at += 1;
            }
            b'<' if cdata => {
                emit("<", false);
                at += 1;
            }
            _ => return Err(XmlError::NotWellFormed),
        }
        run = at;
    }
    if run < bytes.len() {
        emit(&raw[run..], true);
    }
    Ok(())
}

/// Reads the inside of a quoted attribute value. The flag says that the value needs no escaping.
pub(crate) fn decode_attribute(raw: &str) -> Result<(Cow<'_, str>, bool), XmlError> {
    let bytes = raw.as_bytes();
    let Some(first) = bytes.iter().position(|byte| ATTRIBUTE[usize::from(*byte)]) else {
        return Ok((Cow::Borrowed(raw), true));
    };
    let mut value = String::with_capacity(raw.len());
    let (mut run, mut at) = (0, first);
    while at < bytes.len() {
        match bytes[at] {
            b'&' => {
                value.push_str(&raw[run..at]);
                let (character, length) = reference(&raw[at..])?;
                value.push(character);
                at += length;
                run = at;
            }
            // Attribute-value normalisation (XML 1.0 section 3.3.3), after that of line ends (section 2.11).
            b'\t' | b'\n' | b'\r' => {
                value.push_str(&raw[run..at]);
                value.push(' ');
                at += if bytes[at..].starts_with(b"\r\n") { 2 } else { 1 };
                run = at;
            }
            b'<' | 0..0x20 => return Err(XmlError::NotWellFormed),
            0xEF if starts_with_noncharacter(&bytes[at..]) => return Err(XmlError::NotWellFormed),
            _ => at += 1,
        }
    }
    value.push_str(&raw[run..]);
    Ok((Cow::Owned(value), false))
}

/// The longest reference looked at, `&` and `;` included: far more than any number needs.
const REFERENCE_BYTES: usize = 64;

/// Resolves the reference at the start of `rest` and gives its length. Entities that only a DTD could define are
/// `restricted-xml`, as RFC 6120 section 11.1 names them; what is no reference at all is not well-formed.
fn reference(rest: &str) -> Result<(char, usize), XmlError> {
    let window = &rest.as_bytes()[..rest.len().min(REFERENCE_BYTES)];
    let end = memchr::memchr(b';', window).ok_or(XmlError::NotWellFormed)?;
    let name = &rest[1..end];
    let character = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "apos" => '\'',
        "quot" => '"',
        _ => match name.strip_prefix('#') {
            Some(number) => numbered(number)?,
            None if is_ncname(name) => return Err(XmlError::Restricted),
            None => return Err(XmlError::NotWellFormed),
        },
    };
    Ok((character, end + 1))
}

fn numbered(number: &str) -> Result<char, XmlError> {
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
    if digits.is_empty() || !digits.bytes().all(|digit| char::from(digit).is_digit(radix)) {
        return Err(XmlError::NotWellFormed);
    }
    let value = u32::from_str_radix(digits, radix).map_err(|_| XmlError::NotWellFormed)?;
    char::from_u32(value).filter(|_| is_char(value)).ok_or(XmlError::NotWellFormed)
}

/// Whether `name` is an `NCName` of XML namespaces.
pub(crate) fn is_ncname(name: &str) -> bool {
    let mut bytes = name.bytes();
    let Some(first) = bytes.next() else { return false };
    if matches!(first, b'a'..=b'z' | b'A'..=b'Z' | b'_')
        && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
    {
        return true;
    }
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_char)
}

const fn is_name_start(character: char) -> bool {
    matches!(character,
        'A'..='Z' | 'a'..='z' | '_'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

const fn is_name_char(character: char) -> bool {
    is_name_start(character)
        || matches!(character,
            '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &str, cdata: bool) -> Result<String, XmlError> {
        let mut all = String::new();
        decode_text(raw, cdata, |piece, _| all.push_str(piece))?;
        Ok(all)
    }

    #[test]
    fn text_is_decoded() {
        assert_eq!(text("a&lt;b&gt;&amp;&apos;&quot;&#65;&#x1F600;", false).unwrap(), "a<b>&'\"A\u{1F600}");
        assert_eq!(text("a\r\nb\rc\n&#13;", false).unwrap(), "a\nb\nc\n\r");
        assert_eq!(text("a&lt;<b>]]&", true).unwrap(), "a&lt;<b>]]&");
        assert_eq!(text("\u{FFFD}\u{FEFF}\u{FB01}", false).unwrap(), "\u{FFFD}\u{FEFF}\u{FB01}");
        assert_eq!(text("]>]] >", false).unwrap(), "]>]] >");
    }

    #[test]
    fn bad_text_is_refused() {
        for bad in [
            "]]>",
            "&",
            "&;",
            "& ;",
            "&amp",
            "&#;",
            "&#x;",
            "&#xG;",
            "&#X41;",
            "&#-1;",
            "&#+1;",
            "&#0;",
            "&#x1;",
            "&#xD800;",
            "&#xFFFE;",
            "&#xFFFF;",
            "&#x110000;",
            "&#99999999999;",
            "\u{0}",
            "\u{1}",
            "\u{1f}",
            "\u{FFFE}",
            "\u{FFFF}",
            "&1a;",
            "&a b;",
        ] {
            assert_eq!(text(bad, false), Err(XmlError::NotWellFormed), "{bad:?}");
        }
        assert_eq!(text("&foo;", false), Err(XmlError::Restricted));
        assert_eq!(text("\u{1}", true), Err(XmlError::NotWellFormed));
    }

    #[test]
    fn attributes_are_normalised() {
        let value = |raw| decode_attribute(raw).map(|(value, _)| value.into_owned());
        assert_eq!(value("a\tb\nc\r\nd\re").unwrap(), "a b c d e");
        assert_eq!(value("&#9;&#10;&#13;\"'>").unwrap(), "\t\n\r\"'>");
        assert_eq!(value("\u{FB01}\u{E000}").unwrap(), "\u{FB01}\u{E000}");
        assert_eq!(value("a<b"), Err(XmlError::NotWellFormed));
        assert_eq!(value("\u{FFFE}"), Err(XmlError::NotWellFormed));
        assert_eq!(value("&x;"), Err(XmlError::Restricted));
        assert!(decode_attribute("plain value").unwrap().1);
    }

    #[test]
    fn names_are_ncnames() {
        for good in ["a", "_", "A-1.b_", "\u{E9}t\u{E9}", "a\u{B7}", "\u{10000}"] {
            assert!(is_ncname(good), "{good}");
        }
        for bad in ["", "1a", "-a", ".a", "a:b", "a b", "a/", "\u{B7}a", "\u{D7}", "a\u{2028}", "a$"] {
            assert!(!is_ncname(bad), "{bad}");
        }
    }
}
