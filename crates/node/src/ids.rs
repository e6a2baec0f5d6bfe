//! Random names, from the generator of the operating system.

use rand::{TryRng, rngs::SysRng};

/// 128 random bits: session tokens, resumption ids, anything that must not be guessed.
///
/// # Panics
/// When the operating system has no randomness to give. There is no safe way to go on then.
pub fn token() -> u128 {
    u128::from_le_bytes(bytes())
}

/// `N` random bytes: salts, keys, nonces.
///
/// # Panics
/// As [`token`].
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system always has randomness");
    bytes
}

/// A short name of 72 random bits in 12 characters of `A-Z a-z 0-9 - _`: stream ids, stanza ids of the server.
pub fn short() -> String {
    text(9)
}

/// A name of 144 random bits in 24 characters of `A-Z a-z 0-9 - _`: what only its holder may know.
pub fn secret() -> String {
    text(18)
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    text
}

/// `from` random bytes (a multiple of three) as text, four characters for three bytes.
fn text(from: usize) -> String {
    let random: [u8; 18] = bytes();
    let mut text = String::with_capacity(from / 3 * 4);
    for three in random[..from].chunks_exact(3) {
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(bits >> shift & 63) as usize]));
        }
    }
    text
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_have_the_promised_length_and_alphabet() {
        for (name, length) in [(short(), 12), (secret(), 24)] {
            assert_eq!(name.len(), length);
            assert!(name.bytes().all(|byte| ALPHABET.contains(&byte)), "{name}");
        }
    }

    #[test]
    fn names_do_not_repeat() {
        let names: HashSet<String> = (0..2_000).map(|_| short()).collect();
        assert_eq!(names.len(), 2_000);
        assert_ne!(token(), token());
    }

    #[test]
    fn hex_is_lower_case_and_padded() {
        assert_eq!(hex(&[0, 1, 0xab, 0xff]), "0001abff");
    }
}
