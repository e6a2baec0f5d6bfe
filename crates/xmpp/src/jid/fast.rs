//! Addresses of plain ASCII, which is nearly all of them: no Unicode table, one allocation.
//!
//! `None` means only "not for the fast path": the slow path then decides, and finds the error.

use std::sync::Arc;

use super::{Jid, MAX_PART, parts};

pub(super) fn parse(s: &str) -> Option<Jid> {
    let (local, domain, resource) = parts::split(s);
    let mut canonical = true;
    if let Some(local) = local {
        canonical &= fits(local, is_local)?;
    }
    canonical &= domain_is_plain(domain)?;
    if let Some(resource) = resource {
        fits(resource, is_resource)?;
    }

    let bare = local.map_or(0, |local| local.len() + 1) + domain.len();
    let mut text: Arc<str> = Arc::from(s);
    if !canonical {
        Arc::get_mut(&mut text)?[..bare].make_ascii_lowercase();
    }
    Some(Jid { text, local: local.map_or(0, str::len) as u16, bare: bare as u16 })
}

/// A localpart that needs no table: its lower case form.
pub(super) fn local(s: &str) -> Option<String> {
    fits(s, is_local)?;
    Some(s.to_ascii_lowercase())
}

/// A resource that needs no table: it is canonical as it stands.
pub(super) fn is_plain_resource(s: &str) -> bool {
    fits(s, is_resource).is_some()
}

/// Whether all is allowed and of a legal length: then, whether it is in lower case already.
fn fits(part: &str, allowed: impl Fn(u8) -> bool) -> Option<bool> {
    if part.is_empty() || part.len() > MAX_PART || !part.bytes().all(allowed) {
        return None;
    }
    Some(!part.bytes().any(|byte| byte.is_ascii_uppercase()))
}

/// RFC 8265 §3.3 allows all visible ASCII, RFC 7622 §3.3.1 takes eight of them out.
fn is_local(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@')
}

fn is_resource(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

/// Letters, digits and inner hyphens in labels of 1–63 octets, none of them an A-label, no trailing dot.
pub(super) fn domain_is_plain(domain: &str) -> Option<bool> {
    if domain.is_empty() || domain.len() > MAX_PART {
        return None;
    }
    let bytes = domain.as_bytes();
    let mut canonical = true;
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {}
            b'A'..=b'Z' => canonical = false,
            b'-' => {
                // A hyphen never begins a label; in third and fourth place it may announce Punycode.
                if at == start || (at == start + 3 && bytes[at - 1] == b'-') {
                    return None;
                }
            }
            b'.' => {
                label_end(bytes, start, at)?;
                start = at + 1;
            }
            _ => return None,
        }
    }
    label_end(bytes, start, bytes.len())?;
    Some(canonical)
}

fn label_end(bytes: &[u8], start: usize, end: usize) -> Option<()> {
    (end > start && end - start <= 63 && bytes[end - 1] != b'-').then_some(())
}
