//! `tls-exporter` channel binding (RFC 9266) from the exporter secret of a handshake (RFC 8446 §7.5).
//!
//! The connections we use hold no exporter of their own; TLS 1.3 hands the secret out once, to its key log. It is
//! taken there, turned into the binding at once and forgotten.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};

/// The name of the secret in the key log.
pub(super) const SECRET: &str = "EXPORTER_SECRET";

/// 32 bytes of keying material for the label of RFC 9266 and an empty context. `None` for a secret of no TLS 1.3 hash.
pub(super) fn channel_binding(secret: &[u8]) -> Option<Vec<u8>> {
    match secret.len() {
        32 => export::<Hmac<Sha256>, Sha256>(secret),
        48 => export::<Hmac<Sha384>, Sha384>(secret),
        _ => None,
    }
}

fn export<M: Mac + KeyInit, D: Digest>(secret: &[u8]) -> Option<Vec<u8>> {
    let empty = D::digest(b"");
    let length = <D as Digest>::output_size();
    let derived = expand::<M>(secret, b"EXPORTER-Channel-Binding", &empty, length)?;
    expand::<M>(&derived, b"exporter", &empty, LENGTH)
}

/// HKDF-Expand-Label for up to one block of output.
fn expand<M: Mac + KeyInit>(secret: &[u8], label: &[u8], context: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).ok()?;
    mac.update(&u16::try_from(length).ok()?.to_be_bytes());
    mac.update(&[u8::try_from(PREFIX.len() + label.len()).ok()?]);
    mac.update(PREFIX);
    mac.update(label);
    mac.update(&[u8::try_from(context.len()).ok()?]);
    mac.update(context);
    mac.update(&[1]);
    let mut block = mac.finalize().into_bytes().to_vec();
    block.truncate(length);
    Some(block)
}

const PREFIX: &[u8] = b"tls13 ";
const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_length_of_the_binding_for_both_hashes() {
        assert_eq!(channel_binding(&[1; 32]).unwrap().len(), 32);
        assert_eq!(channel_binding(&[1; 48]).unwrap().len(), 32);
        assert_ne!(channel_binding(&[1; 48]), channel_binding(&[2; 48]));
        assert_eq!(channel_binding(&[1; 20]), None);
    }

    /// A value of RFC 8448 §3 ("derive secret for master"): the expansion is checked against the RFC, the whole
    /// binding against a client's own exporter in the tests over sockets.
    #[test]
    fn expands_as_the_rfc_does() {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text
                .bytes()
                .filter_map(|byte| char::from(byte).to_digit(16).map(|digit| digit as u8))
                .collect();
            digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
        };
        let handshake = hex(
            "1d c8 26 e9 36 06 aa 6f dc 0a ad c1 2f 74 1b 01 04 6a a6 b9 9f 69 1e d2 21 a9 f0 ca 04 3f be ac",
        );
        let derived = expand::<Hmac<Sha256>>(&handshake, b"derived", &Sha256::digest(b""), 32).unwrap();
        assert_eq!(
            derived,
            hex(
                "43 de 77 e0 c7 77 13 85 9a 94 4d b9 db 25 90 b5 31 90 a6 5b 3e e2 e4 f1 2d d7 a0 bb 7c e2 54 b4"
            )
        );
    }
}
