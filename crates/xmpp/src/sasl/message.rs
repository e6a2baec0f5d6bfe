//! The syntax of what a SCRAM client sends (RFC 5802 §7).

use super::SaslFailure;
use crate::jid::MAX_JID;

/// The most octets of a message. Escaped names and a channel binding fit well.
const MAX_MESSAGE: usize = 16 * 1024;

/// The most octets of a client's nonce.
const MAX_NONCE: usize = 512;

/// What a client says about channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag<'a> {
    /// It has none.
    None,
    /// It has, and believes that the server has not.
    Unused,
    /// It uses this type.
    Type(&'a str),
}

/// The first message: `gs2-header n=user,r=nonce[,extensions]`.
pub(super) struct ClientFirst<'a> {
    pub(super) flag: Flag<'a>,
    pub(super) authzid: Option<String>,
    /// All up to and with the second comma: what `c=` of the final message repeats.
    pub(super) gs2_header: &'a str,
    /// All behind it: what the proof is about.
    pub(super) bare: &'a str,
    pub(super) username: String,
    pub(super) nonce: &'a str,
}

/// The final message: `c=binding,r=nonce[,extensions],p=proof`.
pub(super) struct ClientFinal<'a> {
    pub(super) binding: &'a str,
    pub(super) nonce: &'a str,
    pub(super) proof: &'a str,
    /// All but the proof: what the proof is about.
    pub(super) without_proof: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, SaslFailure> {
        Self::read(text(message)?).ok_or(SaslFailure::MalformedRequest)
    }

    fn read(message: &'a str) -> Option<Self> {
        let (flag, rest) = message.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        let gs2_header = &message[..message.len() - bare.len()];
        let flag = match flag {
            "n" => Flag::None,
            "y" => Flag::Unused,
            _ => Flag::Type(flag.strip_prefix("p=").filter(|name| is_binding_name(name))?),
        };
        let authzid = match authzid {
            "" => None,
            _ => Some(unescape(authzid.strip_prefix("a=")?)?),
        };
        // A mandatory extension (`m=`) would come here: none is known, so it ends the exchange.
        let mut fields = bare.split(',');
        let username = unescape(fields.next()?.strip_prefix("n=")?)?;
        let nonce =
            fields.next()?.strip_prefix("r=").filter(|nonce| is_nonce(nonce) && nonce.len() <= MAX_NONCE)?;
        fields.all(is_extension).then_some(Self { flag, authzid, gs2_header, bare, username, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, SaslFailure> {
        Self::read(text(message)?).ok_or(SaslFailure::MalformedRequest)
    }

    fn read(message: &'a str) -> Option<Self> {
        let (without_proof, proof) = message.rsplit_once(',')?;
        let proof = proof.strip_prefix("p=")?;
        let mut fields = without_proof.split(',');
        let binding = fields.next()?.strip_prefix("c=")?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        fields.all(is_extension).then_some(Self { binding, nonce, proof, without_proof })
    }
}

fn text(message: &[u8]) -> Result<&str, SaslFailure> {
    if message.len() > MAX_MESSAGE {
        return Err(SaslFailure::MalformedRequest);
    }
    std::str::from_utf8(message).map_err(|_| SaslFailure::MalformedRequest)
}

/// Undoes the writing of a name: `=2C` is a comma, `=3D` an equals sign, and no other `=` may be there.
fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut unescaped = String::with_capacity(name.len());
    unescaped.push_str(pieces.next()?);
    for piece in pieces {
        let (c, rest) = match piece.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => ('=', piece.strip_prefix("3D")?),
        };
        unescaped.push(c);
        unescaped.push_str(rest);
    }
    let fits = !unescaped.is_empty() && unescaped.len() <= MAX_JID && !unescaped.contains('\0');
    fits.then_some(unescaped)
}

/// Visible ASCII without the comma.
pub(super) fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn is_binding_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// An optional extension, which is ignored when it is not known. `m` is the mandatory one, in a wrong place.
fn is_extension(field: &str) -> bool {
    let bytes = field.as_bytes();
    bytes.len() > 2
        && bytes[0].is_ascii_alphabetic()
        && bytes[0] != b'm'
        && bytes[1] == b'='
        && !bytes.contains(&0)
}
