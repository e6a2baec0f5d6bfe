//! The text of `auth`, `challenge`, `response` and `success` (RFC 6120 §6.4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SaslFailure;

/// Reads the text of an element; `=` is data of no length. That an `auth` without any text brings no initial response
/// at all is for the caller to see.
///
/// # Errors
/// [`SaslFailure::IncorrectEncoding`] for anything but canonical base64 (RFC 4648 §4), white space included.
pub fn decode(text: &str) -> Result<Vec<u8>, SaslFailure> {
    if text == "=" {
        return Ok(Vec::new());
    }
    STANDARD.decode(text).map_err(|_| SaslFailure::IncorrectEncoding)
}

/// Writes the text of an element.
pub fn encode(data: &[u8]) -> String {
    if data.is_empty() { "=".to_owned() } else { base64(data) }
}

pub(super) fn base64(data: &[u8]) -> String {
    STANDARD.encode(data)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
