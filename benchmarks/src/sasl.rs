//! SCRAM-SHA-1 (RFC 5802) and PLAIN (RFC 4616) from the client's side.
//!
//! The keys that PBKDF2 gives are kept by (salt, iterations), as a client does that logs in again: otherwise a login
//! test would measure the generator.

use std::cell::RefCell;
use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mechanism {
    /// SCRAM-SHA-1, without channel binding.
    ScramSha1,
    /// PLAIN.
    Plain,
}

impl Mechanism {
    /// As SASL names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::Plain => "PLAIN",
        }
    }
}

/// The initial response of PLAIN.
pub(crate) fn plain(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("\0{user}\0{password}"))
}

/// What a password becomes with a salt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    client: [u8; 20],
    server: [u8; 20],
}

impl Keys {
    /// Derives both keys.
    pub(crate) fn derive(password: &str, salt: &[u8], iterations: u32) -> Result<Self> {
        let mut salted = [0; 20];
        pbkdf2::pbkdf2::<Hmac<Sha1>>(password.as_bytes(), salt, iterations, &mut salted)?;
        Ok(Self { client: hmac(&salted, b"Client Key")?, server: hmac(&salted, b"Server Key")? })
    }

    /// The hash of the client key, which a server keeps.
    pub(crate) fn stored(&self) -> [u8; 20] {
        Sha1::digest(self.client).into()
    }

    /// The key by which a server proves itself.
    pub(crate) fn server(&self) -> [u8; 20] {
        self.server
    }
}

/// Keys that were derived before, for one password.
#[derive(Debug, Default)]
pub(crate) struct KeyCache(RefCell<HashMap<(Vec<u8>, u32), Keys>>);

impl KeyCache {
    fn keys(&self, password: &str, salt: Vec<u8>, iterations: u32) -> Result<Keys> {
        let mut cache = self.0.borrow_mut();
        if let Some(keys) = cache.get(&(salt.clone(), iterations)) {
            return Ok(*keys);
        }
        let keys = Keys::derive(password, &salt, iterations)?;
        cache.insert((salt, iterations), keys);
        Ok(keys)
    }
}

/// One exchange of SCRAM-SHA-1.
#[derive(Debug)]
pub(crate) struct Scram {
    bare: String,
    nonce: String,
}

impl Scram {
    /// Begins; a nonce must be new each time, but hides nothing here.
    pub(crate) fn new(user: &str, nonce: u64) -> Self {
        let nonce = format!("starlingbench{nonce:016x}");
        Self { bare: format!("n={user},r={nonce}"), nonce }
    }

    /// The client's first message.
    pub(crate) fn first(&self) -> String {
        BASE64_STANDARD.encode(format!("n,,{}", self.bare))
    }

    /// The client's final message to a challenge, and the server's signature to expect.
    pub(crate) fn last(
        &self,
        challenge: &[u8],
        password: &str,
        cache: &KeyCache,
    ) -> Result<(String, String)> {
        let challenge = String::from_utf8(BASE64_STANDARD.decode(challenge)?)?;
        let field = |key: &str| {
            let found = challenge.split(',').find_map(|field| field.strip_prefix(key));
            found.with_context(|| format!("a SCRAM challenge without {key}: {challenge}"))
        };
        let nonce = field("r=")?;
        ensure!(nonce.starts_with(&self.nonce), "a SCRAM challenge with somebody else's nonce");
        let salt = BASE64_STANDARD.decode(field("s=")?)?;
        let keys = cache.keys(password, salt, field("i=")?.parse()?)?;
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.bare);
        let mut proof = hmac(&keys.stored(), signed.as_bytes())?;
        proof.iter_mut().zip(keys.client).for_each(|(proof, key)| *proof ^= key);
        let last = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
        let signature = format!("v={}", BASE64_STANDARD.encode(hmac(&keys.server, signed.as_bytes())?));
        Ok((BASE64_STANDARD.encode(last), BASE64_STANDARD.encode(signature)))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Result<[u8; 20]> {
    Ok(Hmac::<Sha1>::new_from_slice(key)?.chain_update(message).finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 5802 section 5.
    #[test]
    fn the_example_of_the_rfc() {
        let scram = Scram {
            bare: "n=user,r=fyko+d2lbbFgONRv9qkxdawL".to_owned(),
            nonce: "fyko+d2lbbFgONRv9qkxdawL".to_owned(),
        };
        assert_eq!(BASE64_STANDARD.decode(scram.first()).unwrap(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let challenge =
            BASE64_STANDARD.encode("r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096");
        let (last, signature) = scram.last(challenge.as_bytes(), "pencil", &KeyCache::default()).unwrap();
        assert_eq!(
            BASE64_STANDARD.decode(last).unwrap(),
            b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        assert_eq!(BASE64_STANDARD.decode(signature).unwrap(), b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }
}
