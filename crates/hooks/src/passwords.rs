//! New passwords, worked out off the home: PBKDF2 takes milliseconds, a decision takes microseconds.

use futures::future::BoxFuture;
use starling_xmpp::StanzaError;
use starling_xmpp::sasl::Credentials;
use std::fmt;

/// Turns a new password into keys, on a bounded pool of its own. Implemented by the process that owns the pool.
pub trait Passwords: Send + Sync + 'static {
    /// The keys of this password with a fresh salt.
    ///
    /// # Errors
    /// `not-acceptable` for a password that SASLprep refuses (RFC 4013) or that is too long, `resource-constraint` of type
    /// `wait` when the pool is full.
    fn derive(&self, password: String) -> BoxFuture<'static, Result<Credentials, StanzaError>>;
}

/// Keys that replace an account's present ones; compared by their stored form, never shown.
#[derive(Clone)]
pub struct NewCredentials(pub Credentials);

impl PartialEq for NewCredentials {
    fn eq(&self, other: &Self) -> bool {
        self.0.encode() == other.0.encode()
    }
}

impl fmt::Debug for NewCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewCredentials(..)")
    }
}
