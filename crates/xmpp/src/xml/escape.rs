//! Escaping, as the canonical form wants it: a text or value that is written and read again is the same.

use bytes::BufMut;

/// Bytes that character data cannot hold as they are.
const TEXT: [bool; 256] = table(b"&<>\r");
/// Bytes that an attribute value cannot hold as they are.
const ATTRIBUTE: [bool; 256] = table(b"&<>'\"\t\n\r");

const fn table(special: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < special.len() {
        table[special[at] as usize] = true;
        at += 1;
    }
    table
}

/// Writes character data: `&`, `<`, `>` and carriage returns are escaped.
pub(crate) fn text(text: &str, out: &mut impl BufMut) {
    escaped(text.as_bytes(), &TEXT, out);
}

/// Writes the inside of a quoted attribute value: quotes and all white space but the space are escaped as well. Tells
/// whether nothing had to be.
pub(crate) fn attribute(value: &str, out: &mut impl BufMut) -> bool {
    escaped(value.as_bytes(), &ATTRIBUTE, out)
}

/// As [`attribute`], of bytes that are UTF-8.
pub(crate) fn attribute_bytes(value: &[u8], out: &mut impl BufMut) -> bool {
    escaped(value, &ATTRIBUTE, out)
}

fn escaped(bytes: &[u8], table: &[bool; 256], out: &mut impl BufMut) -> bool {
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if table[usize::from(*byte)] {
            out.put_slice(&bytes[run..at]);
            out.put_slice(instead(*byte));
            run = at + 1;
        }
    }
    out.put_slice(&bytes[run..]);
    run == 0
}

const fn instead(byte: u8) -> &'static [u8] {
    match byte {
        b'&' => b"&amp;",
        b'<' => b"&lt;",
        b'>' => b"&gt;",
        b'\'' => b"&apos;",
        b'"' => b"&quot;",
        b'\t' => b"&#x9;",
        b'\n' => b"&#xA;",
        b'\r' => b"&#xD;",
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_and_attributes_are_escaped() {
        let mut out = Vec::new();
        super::text("a<b>&'\"\r\n\t.", &mut out);
        assert_eq!(out, b"a&lt;b&gt;&amp;'\"&#xD;\n\t.");
        out.clear();
        super::attribute("a<b>&'\"\r\n\t.", &mut out);
        assert_eq!(out, b"a&lt;b&gt;&amp;&apos;&quot;&#xD;&#xA;&#x9;.");
    }
}
