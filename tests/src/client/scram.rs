//! The client's side of SCRAM (RFC 5802, 7677); channel binding is what the test says it is.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hmac::digest::Digest;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1
    Sha1,
    /// SHA-256
    Sha256,
    /// SHA-512
    Sha512,
}

macro_rules! by_hash {
    ($hash:expr, $f:ident($($arg:expr),*)) => {
        match $hash {
            Hash::Sha1 => $f::<Sha1, Hmac<Sha1>>($($arg),*),
            Hash::Sha256 => $f::<Sha256, Hmac<Sha256>>($($arg),*),
            Hash::Sha512 => $f::<Sha512, Hmac<Sha512>>($($arg),*),
        }
    };
}

/// One exchange in progress.
#[derive(Clone, Debug)]
pub struct Scram {
    hash: Hash,
    gs2: String,
    binding: Vec<u8>,
    first_bare: String,
    password: String,
    server_signature: Vec<u8>,
}

impl Scram {
    /// Starts an exchange for a user name (already fit for SCRAM: no `=` or `,`).
    pub fn new(hash: Hash, user: &str, password: &str, nonce: &str) -> Self {
        Self::with_gs2(hash, "n,,", user, password, nonce)
    }

    /// Starts with a GS2 header of the test's choice (`y,,`, `n,a=other,`).
    pub fn with_gs2(hash: Hash, gs2: &str, user: &str, password: &str, nonce: &str) -> Self {
        Self {
            hash,
            gs2: gs2.to_owned(),
            binding: Vec::new(),
            first_bare: format!("n={user},r={nonce}"),
            password: password.to_owned(),
            server_signature: Vec::new(),
        }
    }

    /// Adds channel-binding data for a GS2 header that announces it.
    pub fn bound_to(mut self, binding: &[u8]) -> Self {
        self.binding = binding.to_vec();
        self
    }

    /// The client-first-message.
    pub fn first(&self) -> String {
        format!("{}{}", self.gs2, self.first_bare)
    }

    /// The client-final-message for this server-first-message.
    pub fn answer(&mut self, server_first: &str) -> Result<String> {
        let nonce = field(server_first, "r=")?;
        let salt = BASE64.decode(field(server_first, "s=")?)?;
        let iterations: u32 = field(server_first, "i=")?.parse()?;
        ensure!(iterations <= 1_000_000, "server asks for {iterations} iterations");
        let own = field(&self.first_bare, "r=")?;
        ensure!(nonce.starts_with(own) && nonce.len() > own.len(), "server nonce does not extend ours");
        let channel = [self.gs2.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={nonce}", BASE64.encode(channel));
        let text = format!("{},{server_first},{without_proof}", self.first_bare);
        let (proof, signature) =
            by_hash!(self.hash, keys(self.password.as_bytes(), &salt, iterations, text.as_bytes()))?;
        self.server_signature = signature;
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    /// Checks the server-final-message.
    pub fn check(&self, server_final: &str) -> Result<()> {
        let signature = BASE64.decode(field(server_final, "v=")?)?;
        if self.server_signature.is_empty() || signature != self.server_signature {
            bail!("the server did not prove that it knows the password");
        }
        Ok(())
    }
}

fn field<'a>(message: &'a str, name: &str) -> Result<&'a str> {
    message
        .split(',')
        .find_map(|f| f.strip_prefix(name))
        .with_context(|| format!("no {name} in SCRAM message {message:?}"))
}

fn keys<D: Digest, M: Mac + KeyInit + Clone>(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    text: &[u8],
) -> Result<(Vec<u8>, Vec<u8>)> {
    let keyed = |key: &[u8]| <M as KeyInit>::new_from_slice(key).context("HMAC takes any key length");
    let mac = |mac: &M, data: &[u8]| {
        let mut mac = mac.clone();
        mac.update(data);
        mac.finalize().into_bytes().to_vec()
    };
    // RFC 5802 section 2.2, Hi(): written out here instead of taken from the crate that the server uses.
    let by_password = keyed(password)?;
    let mut round = mac(&by_password, &[salt, &1u32.to_be_bytes()].concat());
    let mut salted = round.clone();
    for _ in 1..iterations {
        round = mac(&by_password, &round);
        salted.iter_mut().zip(&round).for_each(|(a, b)| *a ^= b);
    }
    let by_salted = keyed(&salted)?;
    let client_key = mac(&by_salted, b"Client Key");
    let signature = mac(&keyed(&D::digest(&client_key))?, text);
    let proof = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let server_key = mac(&by_salted, b"Server Key");
    Ok((proof, mac(&keyed(&server_key)?, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_rfc_5802() {
        let mut scram = Scram::new(Hash::Sha1, "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL");
        let first = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        assert_eq!(
            scram.answer(first).unwrap(),
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="
        );
        scram.check("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=").unwrap();
        assert!(scram.check("v=AAAA").is_err());
    }

    #[test]
    fn agrees_with_rfc_7677() {
        let mut scram = Scram::new(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert!(scram.answer(first).unwrap().ends_with("p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
        scram.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    }
}
