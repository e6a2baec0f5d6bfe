//! Who may speak over the links of a cluster: mutual TLS under a CA of one's own.
//!
//! A certificate says who it is for in one URI: `starling://CLUSTER/router/NAME` or `starling://CLUSTER/edge/NAME`; as
//! the name, `*` allows any, for tiers that share one certificate. Host names and addresses play no part: a peer is
//! what its certificate says, wherever it was found. Both ends check the CA, the dates, the cluster and the role.
//! TLS 1.3 only, and no resumption, so that every new link is judged by the files as they are then.

mod authority;
mod identity;
mod verify;

pub use authority::{Authority, Pair};
pub use identity::{Identity, Role};
pub(crate) use verify::reason;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use starling_node::SharedClock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The files of one process, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// One or more certificates of CAs: while one follows another, both.
    pub ca: PathBuf,
    /// Its own certificate, and what lies between it and the CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("cannot use {path}: {reason}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate is for something else.
    #[error("{path} is a certificate for {found}, and this is {wanted}", path = path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// Whom it names.
        found: String,
        /// Whom it should.
        wanted: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
    /// The TLS library refuses.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }
}

/// The identity of this process, and how to read it again.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    cluster: String,
    role: Role,
    clock: SharedClock,
    current: ArcSwap<Current>,
    /// `starling_cluster_certificate_expiry_timestamp_seconds`.
    expiry: Gauge,
}

#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    identity: Identity,
    not_after: u64,
    stamps: [Option<SystemTime>; 3],
}

impl Tls {
    /// Reads the files; the certificate must be one for this cluster and role, under the CA, and of the present.
    ///
    /// # Errors
    /// Which file, and what is wrong with it.
    pub fn load(files: Files, cluster: &str, role: Role, clock: SharedClock) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(read(&files, cluster, role, &clock)?);
        let (cluster, expiry) = (cluster.to_owned(), Gauge::default());
        let tls = Self { files, cluster, role, clock, current, expiry };
        tls.note_expiry();
        Ok(Arc::new(tls))
    }

    /// Reads everything again. New links use it, open ones go on.
    ///
    /// # Errors
    /// As [`Self::load`]; then what was read before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(read(&self.files, &self.cluster, self.role, &self.clock)?));
        self.note_expiry();
        Ok(())
    }

    /// Makes the end of the certificate part of what is scraped.
    pub fn register(&self, to: &mut Registry) {
        to.register_with_unit(
            "starling_cluster_certificate_expiry_timestamp",
            "The end of the certificate for links to other processes",
            Unit::Seconds,
            self.expiry.clone(),
        );
    }

    fn note_expiry(&self) {
        self.expiry.set(i64::try_from(self.not_after()).unwrap_or(i64::MAX));
    }

    /// How much longer the certificate can be used.
    pub(crate) fn left(&self) -> Duration {
        let end = Duration::from_secs(self.not_after());
        end.saturating_sub(Duration::from_micros(self.clock.now_micros()))
    }

    /// Whether a file has another time stamp than when it was read.
    pub fn changed(&self) -> bool {
        stamps(&self.files) != self.current.load().stamps
    }

    /// End of the certificate, seconds since the Unix epoch.
    pub fn not_after(&self) -> u64 {
        self.current.load().not_after
    }

    /// Whom its own certificate names.
    pub fn identity(&self) -> Identity {
        self.current.load().identity.clone()
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().client)
    }
}

fn read(files: &Files, cluster: &str, role: Role, clock: &SharedClock) -> Result<Current, TlsError> {
    let stamps = stamps(files);
    let roots = Arc::new(roots(&files.ca)?);
    let chain = chain(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::file(&files.key, error))?;
    let leaf = chain.first().ok_or_else(|| TlsError::file(&files.cert, "it holds no certificate"))?;
    let identity = Identity::of(leaf).map_err(|reason| TlsError::file(&files.cert, reason))?;
    if identity.cluster != cluster || identity.role != role {
        let wanted = format!("starling://{cluster}/{}", role.as_str());
        return Err(TlsError::Other { path: files.cert.clone(), found: identity.to_string(), wanted });
    }
    let now = UnixTime::since_unix_epoch(Duration::from_micros(clock.now_micros()));
    verify::chain(&roots, leaf, chain.get(1..).unwrap_or_default(), now).map_err(|error| {
        TlsError::file(&files.cert, format_args!("{} (CA: {})", reason(&error), files.ca.display()))
    })?;
    let not_after = identity::not_after(leaf);

    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::file(&files.ca, error))?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(|error| TlsError::file(&files.key, error))?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // the name is judged by `Routers`, not by where the peer was found
        .with_custom_certificate_verifier(Arc::new(verify::Routers::new(roots, provider, cluster)))
        .with_client_auth_cert(chain, key)
        .map_err(|error| TlsError::file(&files.key, error))?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Current { server: Arc::new(server), client: Arc::new(client), identity, not_after, stamps })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::file(path, error))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in chain(path)? {
        roots.add(cert).map_err(|error| TlsError::file(path, error))?;
    }
    if roots.is_empty() {
        return Err(TlsError::file(path, "it holds no certificate"));
    }
    Ok(roots)
}

fn stamps(files: &Files) -> [Option<SystemTime>; 3] {
    [&files.ca, &files.cert, &files.key]
        .map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

#[cfg(test)]
mod tests;
