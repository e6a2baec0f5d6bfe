//! PLAIN (RFC 4616).

use std::fmt;

use zeroize::Zeroizing;

use super::{MAX_PASSWORD, SaslFailure};
use crate::jid::MAX_JID;

/// What a client says with PLAIN: `[authzid] NUL authcid NUL password`.
pub struct PlainMessage {
    /// The identity to act as, as it came; `None` when it is the account's own. The caller must compare it.
    pub authzid: Option<String>,
    /// The user name, as it came: a localpart that is not enforced yet.
    pub authcid: String,
    /// The password, as it came.
    pub password: Zeroizing<String>,
}

impl PlainMessage {
    /// Reads the message.
    ///
    /// # Errors
    /// [`SaslFailure::MalformedRequest`] unless it is UTF-8 with exactly two NULs, a user name and a password;
    /// [`SaslFailure::NotAuthorized`] if the password is longer than any password can be.
    pub fn parse(message: &[u8]) -> Result<Self, SaslFailure> {
        let malformed = SaslFailure::MalformedRequest;
        let mut fields = message.splitn(3, |&byte| byte == 0);
        let (Some(authzid), Some(authcid), Some(password)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(malformed);
        };
        if authzid.len() > MAX_JID || authcid.is_empty() || authcid.len() > MAX_JID || password.is_empty() {
            return Err(malformed);
        }
        if password.len() > MAX_PASSWORD {
            return Err(SaslFailure::NotAuthorized);
        }
        if password.contains(&0) {
            return Err(malformed);
        }
        let text = |field| std::str::from_utf8(field).map_err(|_| malformed);
        Ok(Self {
            authzid: Some(text(authzid)?).filter(|authzid| !authzid.is_empty()).map(str::to_owned),
            authcid: text(authcid)?.to_owned(),
            password: Zeroizing::new(text(password)?.to_owned()),
        })
    }
}

impl fmt::Debug for PlainMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainMessage").finish_non_exhaustive()
    }
}
