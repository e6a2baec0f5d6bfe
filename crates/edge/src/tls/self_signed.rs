//! A certificate of our own, for the first minutes of a server.

use super::TlsError;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the pair is kept.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// The self-signed pair in `dir`, made now if there is none or if it lacks one of the domains.
pub(crate) fn ensure(dir: &Path, domains: &[String]) -> Result<Pair, TlsError> {
    let pair = Pair { cert: dir.join("self-signed.pem"), key: dir.join("self-signed.key") };
    let names = dir.join("self-signed.domains");
    let wanted = domains.join("\n");
    let covered = std::fs::read_to_string(&names).is_ok_and(|listed| {
        let listed: Vec<&str> = listed.lines().collect();
        domains.iter().all(|domain| listed.contains(&domain.as_str()))
    });
    if covered && pair.cert.exists() && pair.key.exists() {
        return Ok(pair);
    }
    let (cert, key) = make(domains)?;
    std::fs::create_dir_all(dir).map_err(|error| TlsError::write(dir, &error))?;
    // The list of names goes last: a crash before that makes the pair anew.
    write(&pair.key, &key, 0o600)?;
    write(&pair.cert, &cert, 0o644)?;
    write(&names, &wanted, 0o644)?;
    Ok(pair)
}

/// PEM of a P-256 certificate for all domains, and of its key.
fn make(domains: &[String]) -> Result<(String, String), TlsError> {
    let failed = |error: rcgen::Error| TlsError::Make(error.to_string());
    let names: Vec<String> = domains.iter().map(|domain| super::ascii(domain)).collect();
    let mut params = CertificateParams::new(names).map_err(failed)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "Starling self-signed");
    params.distinguished_name = subject;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Writes a whole file under another name and moves it into place.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), TlsError> {
    let unfinished = path.with_extension("new");
    let attempt = || {
        let _ = std::fs::remove_file(&unfinished);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    attempt().map_err(|error| TlsError::write(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_made_once_and_again_for_a_new_domain() {
        let dir = tempfile::tempdir().unwrap();
        let domains = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "bücher.example".to_owned()];
        let pair = ensure(dir.path(), &domains).unwrap();
        let first = std::fs::read(&pair.cert).unwrap();
        assert_eq!(std::fs::metadata(&pair.key).unwrap().permissions().mode() & 0o777, 0o600);
        ensure(dir.path(), &domains[..1]).unwrap();
        assert_eq!(std::fs::read(&pair.cert).unwrap(), first);
        ensure(dir.path(), &["other.example".to_owned()]).unwrap();
        assert_ne!(std::fs::read(&pair.cert).unwrap(), first);
    }
}
