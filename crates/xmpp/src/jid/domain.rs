//! The domainpart (RFC 7622 §3.2): a name in U-labels, an IPv4 address, or an IPv6 address in brackets.
//!
//! Names go through UTS 46 without transitional processing, which is IDNA2008 with the mappings that users expect
//! (case, width, normal form), and refuses Punycode of what needs none. ASCII is held to letters, digits and hyphens;
//! symbols, which UTS 46 lets through, are refused as IDNA2008 has it.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::{JidError, MAX_PART, MAX_RAW_PART, fast, precis};

/// The most octets of one label in its A-form (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// Enforces a domain that stands alone: in the configuration, in the `to` of a stream.
///
/// # Errors
/// It is empty, too long, or no domain.
pub fn domain(s: &str) -> Result<String, JidError> {
    enforce(s).map(Cow::into_owned)
}

pub(super) fn enforce(s: &str) -> Result<Cow<'_, str>, JidError> {
    match fast::domain_is_plain(s) {
        Some(true) => Ok(Cow::Borrowed(s)),
        Some(false) => Ok(Cow::Owned(s.to_ascii_lowercase())),
        None => slow(s).map(Cow::Owned),
    }
}

pub(super) fn slow(s: &str) -> Result<String, JidError> {
    if s.is_empty() || s == "." {
        return Err(JidError::EmptyDomain);
    }
    if s.len() > MAX_RAW_PART {
        return Err(JidError::TooLong);
    }
    if s.starts_with('[') {
        return ipv6(s);
    }
    let uts46 = Uts46::new();
    let (name, checked) = uts46.to_unicode(s.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    checked.map_err(|_| JidError::Domain)?;
    // After the mapping, which makes a dot of other full stops too.
    let name = name.strip_suffix('.').unwrap_or(&name);
    if name.len() > MAX_PART {
        return Err(JidError::TooLong);
    }
    // Code points and contexts of U-labels (RFC 5892) are those of PRECIS identifiers.
    if !name.is_ascii() && !name.split('.').all(precis::is_identifier) {
        return Err(JidError::Domain);
    }
    let ascii = uts46
        .to_ascii(name.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Ignore)
        .map_err(|_| JidError::Domain)?;
    if ascii.split('.').any(|label| label.is_empty() || label.len() > MAX_LABEL) {
        return Err(JidError::Domain);
    }
    Ok(name.to_owned())
}

/// One address has one spelling (RFC 5952). Zones mean nothing outside of a host, and are refused.
fn ipv6(s: &str) -> Result<String, JidError> {
    let address = s.strip_prefix('[').and_then(|s| s.strip_suffix(']')).ok_or(JidError::Domain)?;
    let address: Ipv6Addr = address.parse().map_err(|_| JidError::Domain)?;
    Ok(format!("[{address}]"))
}
