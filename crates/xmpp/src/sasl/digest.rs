//! The three hash functions behind one face.

use std::ops::Deref;

use hmac::{KeyInit, Mac, SimpleHmac};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::Zeroize;

use super::Hash;

/// The largest digest, in octets.
const LARGEST: usize = 64;

/// A digest or a key. Wiped when dropped.
#[derive(Clone)]
pub(super) struct Digest {
    bytes: [u8; LARGEST],
    size: usize,
}

impl Digest {
    fn of(digest: &[u8]) -> Self {
        let mut bytes = [0; LARGEST];
        bytes[..digest.len()].copy_from_slice(digest);
        Self { bytes, size: digest.len() }
    }

    /// The exclusive or with another of the same size.
    pub(super) fn xor(mut self, other: &[u8]) -> Self {
        for (byte, other) in self.bytes[..self.size].iter_mut().zip(other) {
            *byte ^= other;
        }
        self
    }
}

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl Hash {
    /// `H(data)` of RFC 5802.
    pub(super) fn digest(self, data: &[u8]) -> Digest {
        match self {
            Self::Sha1 => Digest::of(&Sha1::digest(data)),
            Self::Sha256 => Digest::of(&Sha256::digest(data)),
            Self::Sha512 => Digest::of(&Sha512::digest(data)),
        }
    }

    /// `HMAC(key, data)`, the data in pieces.
    pub(super) fn hmac(self, key: &[u8], data: &[&[u8]]) -> Digest {
        match self {
            Self::Sha1 => hmac::<SimpleHmac<Sha1>>(key, data),
            Self::Sha256 => hmac::<SimpleHmac<Sha256>>(key, data),
            Self::Sha512 => hmac::<SimpleHmac<Sha512>>(key, data),
        }
    }

    /// `Hi(password, salt, iterations)`, which is PBKDF2 with one block.
    pub(super) fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Digest {
        let mut salted = Digest { bytes: [0; LARGEST], size: self.size() };
        let out = &mut salted.bytes[..self.size()];
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, out),
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, out),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, out),
        }
        salted
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], data: &[&[u8]]) -> Digest {
    // HMAC takes keys of any length (RFC 2104 §2).
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("any length of key");
    for piece in data {
        mac.update(piece);
    }
    Digest::of(&mac.finalize().into_bytes())
}
