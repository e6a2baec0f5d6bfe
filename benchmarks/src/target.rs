//! The server under load, and how to reach it.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::sasl::{KeyCache, Mechanism};
use crate::usage::Watched;

/// Where to connect and as whom.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TargetArguments {
    /// Address of the server: its port for direct TLS, or with --starttls the one for STARTTLS
    #[arg(long, default_value = "127.0.0.1:5223")]
    pub(crate) address: SocketAddr,
    /// The domain of the accounts
    #[arg(long, default_value = "localhost")]
    pub(crate) domain: String,
    /// Begin in the clear and ask for STARTTLS
    #[arg(long)]
    pub(crate) starttls: bool,
    /// PEM file of the authority to trust; without it any certificate is taken
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// SASL mechanism
    #[arg(long, value_enum, default_value_t = Mechanism::ScramSha1)]
    pub(crate) mechanism: Mechanism,
    /// Accounts are named by this and a number from 0
    #[arg(long, default_value = "bench")]
    pub(crate) prefix: String,
    /// The password of all accounts
    #[arg(long, default_value = PASSWORD)]
    pub(crate) password: String,
    /// Loopback addresses to connect from, in turn
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) sources: u8,
    /// Process id of the server: tells its CPU time and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Process id of the server's database
    #[arg(long)]
    pub(crate) store_pid: Option<u32>,
}

/// The password that accounts have unless told otherwise.
pub(crate) const PASSWORD: &str = "sesame-42";

/// A server to put load on.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) domain: String,
    pub(crate) starttls: bool,
    pub(crate) mechanism: Mechanism,
    pub(crate) password: String,
    pub(crate) watched: Watched,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    pub(crate) keys: Rc<KeyCache>,
    prefix: String,
    sources: u8,
    connections: Cell<u64>,
}

impl Target {
    pub(crate) fn new(arguments: &TargetArguments) -> Result<Self> {
        let TargetArguments {
            address,
            domain,
            starttls,
            authority,
            mechanism,
            prefix,
            password,
            sources,
            pid,
            store_pid,
        } = arguments.clone();
        Ok(Self {
            name: ServerName::try_from(domain.clone())?,
            tls: Arc::new(client_config(authority)?),
            keys: Rc::default(),
            connections: Cell::new(0),
            address,
            domain,
            starttls,
            mechanism,
            password,
            watched: Watched { server: pid.into_iter().collect(), store: store_pid },
            prefix,
            sources,
        })
    }

    /// The same, made up of these processes.
    pub(crate) fn watching(mut self, processes: Vec<u32>) -> Self {
        self.watched.server = processes;
        self
    }

    /// Another address of the same server.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The local part of an account.
    pub(crate) fn user(&self, number: usize) -> String {
        user(&self.prefix, number)
    }

    /// The number of a new connection, and the address it shall come from.
    ///
    /// On loopback several addresses are used: one has no more than 28,000 ports, and each stays in use for a while
    /// after its connection.
    pub(crate) fn source(&self) -> (u64, Option<SocketAddr>) {
        let number = self.connections.replace(self.connections.get() + 1);
        let last = 1 + (number % u64::from(self.sources)) as u8;
        let source = match self.address.ip() {
            IpAddr::V4(address) if address.is_loopback() => Some((Ipv4Addr::new(127, 0, 7, last), 0).into()),
            _ => None,
        };
        (number, source)
    }
}

/// The local part of an account.
pub(crate) fn user(prefix: &str, number: usize) -> String {
    format!("{prefix}{number}")
}

/// TLS 1.3 with one cipher suite, one curve and no resumption: each handshake costs every server the same.
fn client_config(authority: Option<PathBuf>) -> Result<ClientConfig> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match authority {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            let certificates = CertificateDer::pem_file_iter(&file)
                .with_context(|| format!("cannot read {}", file.display()))?
                .collect::<Result<Vec<_>, _>>()?;
            let (added, _) = roots.add_parsable_certificates(certificates);
            ensure!(added > 0, "{} has no certificate", file.display());
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    Ok(config)
}

/// Takes any certificate, but checks that the server has its key: that is part of what a handshake costs.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not used here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
