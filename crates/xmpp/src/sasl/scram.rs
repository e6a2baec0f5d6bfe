//! SCRAM (RFC 5802), with or without channel binding.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

use super::message::{ClientFinal, ClientFirst, Flag, is_nonce};
use super::payload::{base64, from_base64};
use super::{Bindings, Credentials, Hash, SaslFailure, ScramKeys};

/// An exchange of which the client's first message is read. Next come the account's keys.
pub struct ScramServer {
    hash: Hash,
    username: String,
    authzid: Option<String>,
    client_first_bare: String,
    client_nonce: String,
    /// What the client must repeat in its final message, in base64.
    binding: String,
}

/// An exchange of which the challenge is sent.
pub struct ScramChallenge {
    hash: Hash,
    keys: ScramKeys,
    binding: String,
    nonce: String,
    /// The server's part of the nonce is a nonce. Without one an old proof would be good again.
    fresh: bool,
    /// Both first messages and the comma behind them: the proof is about these and the final one.
    auth_message: String,
}

impl ScramServer {
    /// Reads the client's first message. `plus` tells whether the client chose the `-PLUS` form, `plus_offered`
    /// whether the server offered one on this stream.
    ///
    /// # Errors
    /// [`SaslFailure::MalformedRequest`] if it breaks the syntax, demands an extension, or says another thing on channel
    /// binding than its mechanism. [`SaslFailure::NotAuthorized`] if it asks for a type of binding that is not there,
    /// or has seen no `-PLUS` offered while there was one: somebody took it out on the way (RFC 5802 §6).
    pub fn start(
        hash: Hash,
        plus: bool,
        bindings: &Bindings,
        plus_offered: bool,
        client_first: &[u8],
    ) -> Result<Self, SaslFailure> {
        let first = ClientFirst::parse(client_first)?;
        let mut bound = first.gs2_header.as_bytes().to_vec();
        match (first.flag, plus) {
            (Flag::None, false) => {}
            (Flag::Unused, false) if plus_offered => return Err(SaslFailure::NotAuthorized),
            (Flag::Unused, false) => {}
            (Flag::Type(name), true) => {
                bound.extend_from_slice(bindings.data(name).ok_or(SaslFailure::NotAuthorized)?);
            }
            (Flag::Type(_), false) | (Flag::None | Flag::Unused, true) => {
                return Err(SaslFailure::MalformedRequest);
            }
        }
        Ok(Self {
            hash,
            username: first.username,
            authzid: first.authzid,
            client_first_bare: first.bare.to_owned(),
            client_nonce: first.nonce.to_owned(),
            binding: base64(&bound),
        })
    }

    /// The user name, as it came: a localpart that is not enforced yet.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The identity to act as, as it came; `None` when it is the account's own. The caller must compare it.
    pub fn authzid(&self) -> Option<&str> {
        self.authzid.as_deref()
    }

    /// Makes the challenge for an account (or for none: [`Credentials::fake`]). The server's nonce must be random and
    /// new: visible ASCII without a comma, with 128 bits of entropy or more. With any other the exchange will fail.
    pub fn challenge(self, credentials: &Credentials, server_nonce: &str) -> (ScramChallenge, Vec<u8>) {
        let keys = credentials.keys(self.hash).clone();
        let nonce = format!("{}{server_nonce}", self.client_nonce);
        let server_first = format!("r={nonce},s={},i={}", base64(&keys.salt), keys.iterations);
        let auth_message = format!("{},{server_first},", self.client_first_bare);
        let challenge = ScramChallenge {
            hash: self.hash,
            keys,
            binding: self.binding,
            nonce,
            fresh: is_nonce(server_nonce),
            auth_message,
        };
        (challenge, server_first.into_bytes())
    }
}

impl ScramChallenge {
    /// Checks the client's final message. Gives the data of `success`: the server's own proof.
    ///
    /// # Errors
    /// [`SaslFailure::MalformedRequest`] if it breaks the syntax. [`SaslFailure::NotAuthorized`] if the channel binding,
    /// the nonce or the proof is wrong; which one, neither the answer nor its time tells.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        let last = ClientFinal::parse(client_final)?;
        let proof = from_base64(last.proof).ok_or(SaslFailure::MalformedRequest)?;

        let about = [self.auth_message.as_bytes(), last.without_proof.as_bytes()];
        let signature = self.hash.hmac(&self.keys.stored_key, &about);
        let good = self.binding.as_bytes().ct_eq(last.binding.as_bytes())
            & self.nonce.as_bytes().ct_eq(last.nonce.as_bytes())
            & Choice::from(u8::from(self.fresh))
            & Choice::from(u8::from(proof.len() == self.hash.size()))
            & Choice::from(u8::from(self.keys.fits(self.hash, &signature.xor(&proof))));
        if !bool::from(good) {
            return Err(SaslFailure::NotAuthorized);
        }
        let signature = self.hash.hmac(&self.keys.server_key, &about);
        Ok(format!("v={}", base64(&signature)).into_bytes())
    }
}

impl fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramServer").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl fmt::Debug for ScramChallenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramChallenge").field("hash", &self.hash).finish_non_exhaustive()
    }
}
