//! Addresses in logs, so that lines can be joined and nobody be named.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids;

/// Hashes addresses under a secret key: without the key an address cannot be found by trying.
#[derive(Clone)]
pub struct UserHash {
    key: [u8; 32],
}

impl UserHash {
    /// A hash under `key`. Hashes of two processes are equal only if they share it.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A hash under a key that is derived from a secret which is used for other things, too.
    pub fn from_secret(secret: &[u8]) -> Self {
        let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        hmac.update(b"user hash");
        Self { key: hmac.finalize().into_bytes().into() }
    }

    /// 16 hexadecimal digits for an address; the field name is `user_hash`.
    pub fn of(&self, address: &str) -> String {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        hmac.update(address.as_bytes());
        ids::hex(&hmac.finalize().into_bytes()[..8])
    }
}

impl fmt::Debug for UserHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_key_and_address_and_shows_neither() {
        let (one, other) = (UserHash::new([1; 32]), UserHash::new([2; 32]));
        let hash = one.of("romeo@example.net");
        assert_eq!(hash.len(), 16);
        assert_eq!(hash, one.of("romeo@example.net"));
        assert_ne!(hash, one.of("juliet@example.net"));
        assert_ne!(hash, other.of("romeo@example.net"));
        assert_eq!(format!("{one:?}"), "UserHash(..)");
    }
}
