//! Cutting an address into its parts (RFC 7622 §3.1).

/// Localpart, domainpart and resourcepart as they are written. The first `/` ends the bare part: what follows may hold
/// `/` and `@` freely.
pub(super) fn split(s: &str) -> (Option<&str>, &str, Option<&str>) {
    let (bare, resource) = match s.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (s, None),
    };
    match bare.split_once('@') {
        Some((local, domain)) => (Some(local), domain, resource),
        None => (None, bare, resource),
    }
}
