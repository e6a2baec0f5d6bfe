//! Escaping, as the canonical form wants it: a text or value that is written and read again is the same.

use bytes::BufMut;

/// Writes character data: `&`, `<`, `>` and carriage returns are escaped.
pub(crate) fn text(text: &str, out: &mut impl BufMut) {
    escaped(text.as_bytes(), out, |byte| match byte {
        b'&' => Some(b"&amp;"),
        b'<' => Some(b"&lt;"),
        b'>' => Some(b"&gt;"),
        b'\r' => Some(b"&#xD;"),
        _ => None,
    });
}

/// Writes the inside of a quoted attribute value: quotes and all white space but the space are escaped as well.
pub(crate) fn attribute(value: &str, out: &mut impl BufMut) {
    escaped(value.as_bytes(), out, |byte| match byte {
        b'&' => Some(b"&amp;"),
        b'<' => Some(b"&lt;"),
        b'>' => Some(b"&gt;"),
        b'\'' => Some(b"&apos;"),
        b'"' => Some(b"&quot;"),
        b'\t' => Some(b"&#x9;"),
        b'\n' => Some(b"&#xA;"),
        b'\r' => Some(b"&#xD;"),
        _ => None,
    });
}

#[inline]
fn escaped(bytes: &[u8], out: &mut impl BufMut, escape: impl Fn(u8) -> Option<&'static [u8]>) {
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if let Some(instead) = escape(*byte) {
            out.put_slice(&bytes[run..at]);
            out.put_slice(instead);
            run = at + 1;
        }
    }
    out.put_slice(&bytes[run..]);
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
