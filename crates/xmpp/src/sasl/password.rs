//! SASLprep of passwords (RFC 4013, as RFC 5802 §5.1 asks for).

use zeroize::Zeroizing;

use super::{MAX_PASSWORD, SaslError};

/// The password in the one form from which keys are derived. Unassigned code points are refused here as for a stored
/// string: a form that may change with the next version of Unicode must not become a key.
pub(super) fn prepare(password: &str) -> Result<Zeroizing<String>, SaslError> {
    if password.len() > MAX_PASSWORD {
        return Err(SaslError::LongPassword);
    }
    let prepared = stringprep::saslprep(password).map_err(|_| SaslError::Password)?;
    let prepared = Zeroizing::new(prepared.into_owned());
    if prepared.is_empty() {
        return Err(SaslError::EmptyPassword);
    }
    Ok(prepared)
}
