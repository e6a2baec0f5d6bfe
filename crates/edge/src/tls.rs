//! Certificates: one per domain by SNI, replaced while streams are open.

mod exporter;
mod handshake;
mod identity;
mod self_signed;
mod stream;

pub(crate) use handshake::accept;
pub(crate) use identity::Identity;
pub(crate) use stream::TlsStream;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use starling_node::Config;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A chain cannot be read or does not fit its key.
    #[error("cannot use certificate {path}: {reason}", path = path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key cannot be read.
    #[error("cannot use private key {path}: {reason}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Only one of `cert` and `key` is set.
    #[error("{0}.cert and {0}.key must be set together")]
    Half(String),
    /// The self-signed pair cannot be written.
    #[error("cannot write {path}: {reason}", path = path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The self-signed pair cannot be made, e.g. for a domain that no certificate can name.
    #[error("cannot make a self-signed certificate: {0}")]
    Make(String),
    /// The TLS library refuses to start.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    fn write(path: &Path, error: &std::io::Error) -> Self {
        Self::Write { path: path.into(), reason: error.to_string() }
    }
}

/// What is served now, and how to read it again.
#[derive(Debug)]
pub(crate) struct Certificates {
    served: ArcSwap<Served>,
}

#[derive(Debug)]
struct Served {
    by_name: HashMap<String, Arc<Identity>>,
    default: Arc<Identity>,
    files: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Certificates {
    /// Reads what the configuration names; makes a self-signed pair where it names nothing.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsError> {
        Ok(Self { served: ArcSwap::from_pointee(read(config)?) })
    }

    /// Settings for handshakes that serve these certificates, also after a reload.
    pub(crate) fn settings(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        Ok(Arc::new(handshake::config(Arc::clone(self), Ticketer::new()?)?))
    }

    /// Reads everything again. On an error the old certificates stay.
    pub(crate) fn reload(&self, config: &Config) -> Result<(), TlsError> {
        self.served.store(Arc::new(read(config)?));
        Ok(())
    }

    /// Whether a file has another time stamp than when it was read.
    pub(crate) fn changed(&self) -> bool {
        self.served.load().files.iter().any(|(path, seen)| modified(path) != *seen)
    }

    /// The earliest end of a certificate that is served, seconds since the Unix epoch.
    pub(crate) fn first_expiry(&self) -> i64 {
        let served = self.served.load();
        let all = served.by_name.values().chain([&served.default]);
        all.map(|identity| identity.not_after).min().unwrap_or_default()
    }

    /// The certificate for a name of SNI; the default one for no name or a name that is not ours.
    pub(crate) fn choose(&self, name: Option<&str>) -> Arc<Identity> {
        let served = self.served.load();
        let found = name
            .and_then(|name| served.by_name.get(name.trim_end_matches('.').to_ascii_lowercase().as_str()));
        Arc::clone(found.unwrap_or(&served.default))
    }
}

fn read(config: &Config) -> Result<Served, TlsError> {
    let mut files = Vec::new();
    let mut load = |cert: &Path, key: &Path| {
        for path in [cert, key] {
            files.push((path.to_owned(), modified(path)));
        }
        Identity::load(cert, key).map(Arc::new)
    };
    let common = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => Some(load(cert, key)?),
        (None, None) => None,
        _ => return Err(TlsError::Half("tls".to_owned())),
    };
    let mut own = HashMap::new();
    for (domain, pair) in &config.tls.domains.0 {
        match (&pair.cert, &pair.key) {
            (Some(cert), Some(key)) => own.insert(ascii(domain), load(cert, key)?),
            (None, None) => continue,
            _ => return Err(TlsError::Half(format!("tls.domains.\"{domain}\""))),
        };
    }
    let bare = || config.domains.iter().any(|domain| !own.contains_key(&ascii(domain)));
    let common = match common {
        None if bare() => {
            let pair = self_signed::ensure(&config.data_dir.join("tls"), &config.domains)?;
            Some(load(&pair.cert, &pair.key)?)
        }
        common => common,
    };
    let mut by_name = HashMap::new();
    for domain in &config.domains {
        let domain = ascii(domain);
        if let Some(identity) = own.get(&domain).or(common.as_ref()) {
            by_name.insert(domain, Arc::clone(identity));
        }
    }
    let first = config.domains.first().map(|domain| ascii(domain)).unwrap_or_default();
    let default = by_name.get(&first).or(common.as_ref()).cloned();
    let default = default.ok_or_else(|| TlsError::Make("no domain is configured".to_owned()))?;
    Ok(Served { by_name, default, files })
}

/// A domain as SNI and certificates spell it: A-labels, lower case.
fn ascii(domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_ascii_lowercase())
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        let mut config = Config::default();
        config.data_dir = dir.into();
        config.domains = vec!["one.example".to_owned(), "bücher.example".to_owned()];
        config
    }

    #[test]
    fn serves_by_name_and_the_first_domain_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        let other = self_signed::ensure(&dir.path().join("other"), &["bücher.example".to_owned()]).unwrap();
        let pair = starling_node::config::CertificateFiles { cert: Some(other.cert), key: Some(other.key) };
        config.tls.domains.0.insert("bücher.example".to_owned(), pair);
        let certificates = Certificates::load(&config).unwrap();
        let default = certificates.choose(None).fingerprint;
        let own = certificates.choose(Some("xn--bcher-kva.example")).fingerprint;
        assert_ne!(own, default);
        assert_eq!(certificates.choose(Some("ONE.example")).fingerprint, default);
        assert_eq!(certificates.choose(Some("nobody.example")).fingerprint, default);
        assert_eq!(certificates.choose(None).end_point.as_ref().unwrap().len(), 32);
    }

    #[test]
    fn a_bad_reload_keeps_what_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        let certificates = Certificates::load(&config).unwrap();
        let before = certificates.choose(None).fingerprint;
        config.tls.cert = Some(dir.path().join("missing.pem"));
        assert!(matches!(certificates.reload(&config), Err(TlsError::Half(_))));
        config.tls.key = Some(dir.path().join("missing.key"));
        let error = certificates.reload(&config).unwrap_err().to_string();
        assert!(error.contains("missing.pem"), "{error}");
        assert_eq!(certificates.choose(None).fingerprint, before);
    }

    #[test]
    fn notices_new_files_and_serves_them_after_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let certificates = Certificates::load(&config).unwrap();
        let before = certificates.choose(None).fingerprint;
        assert!(!certificates.changed());
        std::fs::remove_dir_all(dir.path().join("tls")).unwrap();
        assert!(certificates.changed());
        certificates.reload(&config).unwrap();
        assert!(!certificates.changed());
        assert_ne!(certificates.choose(None).fingerprint, before);
    }
}
