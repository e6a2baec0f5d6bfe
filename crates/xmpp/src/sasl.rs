//! SASL, the server's side (RFC 6120 §6): PLAIN and SCRAM with all their checks, without I/O, randomness or a clock.
//!
//! An exchange is a chain of values that consume each other ([`ScramServer`], [`ScramChallenge`]), so that no step can
//! be taken twice. What identity is asked for beside the account's own (`authzid`) is handed out as it came: whoever
//! runs the exchange compares it. An unknown account goes through the same steps with [`Credentials::fake`].
//! Secrets are wiped when dropped, compared in constant time, and absent from every `Debug`.

mod binding;
mod credentials;
mod digest;
mod mechanism;
mod message;
mod password;
mod payload;
mod plain;
mod scram;

pub use binding::Bindings;
pub use credentials::{Credentials, ScramKeys};
pub use mechanism::{Hash, Mechanism};
pub use payload::{decode, encode};
pub use plain::PlainMessage;
pub use scram::{ScramChallenge, ScramServer};

/// PBKDF2 iterations for new passwords unless configured otherwise.
pub const DEFAULT_ITERATIONS: u32 = 10_000;

/// The fewest iterations that a configuration may ask for (RFC 5802 §5.1, RFC 7677 §4). Keys with fewer are still read.
pub const MIN_ITERATIONS: u32 = 4096;

/// The most iterations that are ever computed: a bound on the cost of one login.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// The most octets of a password, as it is typed: looked at before any other work is done for it.
pub const MAX_PASSWORD: usize = 1024;

/// Why an exchange ends without success (RFC 6120 §6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum SaslFailure {
    /// The client gave up.
    Aborted,
    /// The identity is right, the account is switched off.
    AccountDisabled,
    /// The password is too old.
    CredentialsExpired,
    /// The mechanism needs TLS.
    EncryptionRequired,
    /// The data is not base64.
    IncorrectEncoding,
    /// The `authzid` is malformed, or not for this account.
    InvalidAuthzid,
    /// The mechanism is unknown or was not offered.
    InvalidMechanism,
    /// The data breaks the syntax of the mechanism.
    MalformedRequest,
    /// The account asks for a stronger mechanism.
    MechanismTooWeak,
    /// Wrong credentials, wrong channel binding, or any other refusal.
    NotAuthorized,
    /// The server cannot tell now.
    TemporaryAuthFailure,
}

impl SaslFailure {
    /// The name of the element inside `failure`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::AccountDisabled => "account-disabled",
            Self::CredentialsExpired => "credentials-expired",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::MechanismTooWeak => "mechanism-too-weak",
            Self::NotAuthorized => "not-authorized",
            Self::TemporaryAuthFailure => "temporary-auth-failure",
        }
    }
}

/// Why credentials cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The password is empty, or nothing is left of it after SASLprep.
    #[error("the password is empty")]
    EmptyPassword,
    /// The password has more than [`MAX_PASSWORD`] octets.
    #[error("the password is too long")]
    LongPassword,
    /// SASLprep (RFC 4013) prohibits a character of the password, or does not know it.
    #[error("the password has a character that is not allowed")]
    Password,
    /// The iterations are not within 1 and [`MAX_ITERATIONS`].
    #[error("the iteration count is out of range")]
    Iterations,
    /// Stored credentials are damaged or of an unknown version.
    #[error("the stored credentials cannot be read")]
    Corrupt,
}

#[cfg(test)]
mod tests;
