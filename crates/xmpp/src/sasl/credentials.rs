//! What is kept instead of a password: salted keys for each hash (RFC 5802 §3).

use std::fmt;

use bytes::{BufMut, Bytes};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::digest::Digest;
use super::{Hash, MAX_ITERATIONS, SaslError, password};

/// The first octet of encoded credentials.
const VERSION: u8 = 1;

/// The longest salt that is read: imported accounts bring their own.
const MAX_SALT: usize = 64;

/// Octets of the salt of new and of fake credentials.
const SALT: usize = 16;

/// The order in which the keys are encoded.
const ORDER: [Hash; 3] = [Hash::Sha1, Hash::Sha256, Hash::Sha512];

/// The keys of one account for one hash. From the stored key a client's proof can be checked, but not made.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// The salt, which every client is told.
    pub salt: Vec<u8>,
    /// `StoredKey`.
    pub stored_key: Vec<u8>,
    /// `ServerKey`.
    pub server_key: Vec<u8>,
}

/// The keys of one account. Kept and sent in place of the password, and nearly as secret: who holds them can
/// impersonate the server and try passwords at leisure.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// For SCRAM-SHA-1.
    pub sha1: ScramKeys,
    /// For SCRAM-SHA-256, and for PLAIN.
    pub sha256: ScramKeys,
    /// For SCRAM-SHA-512.
    pub sha512: ScramKeys,
}

impl Credentials {
    /// Derives all keys of a password. The salt must be random and new. Costs three PBKDF2.
    ///
    /// # Errors
    /// The password is empty, too long or not allowed by SASLprep, or the iterations are out of range.
    pub fn derive(password: &str, salt: [u8; SALT], iterations: u32) -> Result<Self, SaslError> {
        if !(1..=MAX_ITERATIONS).contains(&iterations) {
            return Err(SaslError::Iterations);
        }
        let password = password::prepare(password)?;
        let keys = |hash: Hash| {
            let salted = hash.salted(password.as_bytes(), &salt, iterations);
            let client_key = hash.hmac(&salted, &[b"Client Key"]);
            ScramKeys {
                iterations,
                salt: salt.to_vec(),
                stored_key: hash.digest(&client_key).to_vec(),
                server_key: hash.hmac(&salted, &[b"Server Key"]).to_vec(),
            }
        };
        Ok(Self { sha1: keys(Hash::Sha1), sha256: keys(Hash::Sha256), sha512: keys(Hash::Sha512) })
    }

    /// Credentials for an account that does not exist: they look like those of one that does, are the same at every
    /// attempt and on every node with this secret, and no password fits them. `account` is the canonical bare address.
    pub fn fake(secret: &[u8], account: &str, iterations: u32) -> Self {
        let part = |label: &str| Hash::Sha512.hmac(secret, &[label.as_bytes(), &[0], account.as_bytes()]);
        // One salt for all three, as real credentials have it.
        let salt = part("salt")[..SALT].to_vec();
        let keys = |hash: Hash, stored: &str, server: &str| ScramKeys {
            iterations,
            salt: salt.clone(),
            stored_key: part(stored)[..hash.size()].to_vec(),
            server_key: part(server)[..hash.size()].to_vec(),
        };
        Self {
            sha1: keys(Hash::Sha1, "stored 1", "server 1"),
            sha256: keys(Hash::Sha256, "stored 256", "server 256"),
            sha512: keys(Hash::Sha512, "stored 512", "server 512"),
        }
    }

    /// The keys for one hash.
    pub const fn keys(&self, hash: Hash) -> &ScramKeys {
        match hash {
            Hash::Sha1 => &self.sha1,
            Hash::Sha256 => &self.sha256,
            Hash::Sha512 => &self.sha512,
        }
    }

    /// Whether this is the password, told in constant time. Costs one PBKDF2, whatever the answer, unless SASLprep
    /// refuses the password, which says nothing about the account.
    pub fn verify_plain(&self, password: &str) -> bool {
        let Ok(password) = password::prepare(password) else { return false };
        let keys = &self.sha256;
        let salted = Hash::Sha256.salted(password.as_bytes(), &keys.salt, keys.iterations);
        keys.fits(Hash::Sha256, &Hash::Sha256.hmac(&salted, &[b"Client Key"]))
    }

    /// The stored form: a version, then for SHA-1, SHA-256 and SHA-512 the iterations (4 octets, the highest first),
    /// the length of the salt (1), the salt, the stored key and the server key.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(1 + 3 * (5 + SALT) + 2 * (20 + 32 + 64));
        out.put_u8(VERSION);
        for keys in ORDER.map(|hash| self.keys(hash)) {
            out.put_u32(keys.iterations);
            out.put_u8(keys.salt.len().min(MAX_SALT) as u8);
            out.put_slice(&keys.salt[..keys.salt.len().min(MAX_SALT)]);
            out.put_slice(&keys.stored_key);
            out.put_slice(&keys.server_key);
        }
        Bytes::from(out)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`SaslError::Corrupt`] if it is not what [`Self::encode`] writes.
    pub fn decode(stored: &[u8]) -> Result<Self, SaslError> {
        let mut reader = Reader(stored);
        let credentials = reader.credentials().ok_or(SaslError::Corrupt)?;
        if reader.0.is_empty() { Ok(credentials) } else { Err(SaslError::Corrupt) }
    }
}

impl ScramKeys {
    /// Whether a client's key is the one whose hash is stored.
    pub(super) fn fits(&self, hash: Hash, client_key: &Digest) -> bool {
        hash.digest(client_key).ct_eq(&self.stored_key).into()
    }
}

/// What is left of the stored form.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn credentials(&mut self) -> Option<Credentials> {
        if self.take(1)? != [VERSION] {
            return None;
        }
        Some(Credentials {
            sha1: self.keys(ORDER[0])?,
            sha256: self.keys(ORDER[1])?,
            sha512: self.keys(ORDER[2])?,
        })
    }

    fn keys(&mut self, hash: Hash) -> Option<ScramKeys> {
        let iterations = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let salt = usize::from(self.take(1)?[0]);
        if !(1..=MAX_ITERATIONS).contains(&iterations) || !(1..=MAX_SALT).contains(&salt) {
            return None;
        }
        Some(ScramKeys {
            iterations,
            salt: self.take(salt)?.to_vec(),
            stored_key: self.take(hash.size())?.to_vec(),
            server_key: self.take(hash.size())?.to_vec(),
        })
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

impl Drop for ScramKeys {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}
