//! A certificate authority of our own, made anew for each server, so that clients verify as they would in the wild.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, RootCertStore};

/// An authority and the files of one server certificate that it signed.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// PEM of the authority, for clients to trust.
    pub authority: PathBuf,
    /// PEM of the server's certificate, followed by the authority's.
    pub chain: PathBuf,
    /// PEM of the server's private key.
    pub key: PathBuf,
    /// Chain and key in one file, as ejabberd wants it.
    pub both: PathBuf,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl Certificate {
    /// Makes an authority and a certificate for `domains`, and writes their files into `dir`.
    pub fn make(dir: &Path, domains: &[&str]) -> Result<Self> {
        let mut params = lasting(CertificateParams::new(Vec::new())?);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Starling test authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let names: Vec<String> = domains.iter().map(|d| (*d).to_owned()).collect();
        let mut params = lasting(CertificateParams::new(names)?);
        params.distinguished_name.push(DnType::CommonName, "Starling test server");
        // Python's ssl module in strict mode refuses a leaf without the authority key identifier.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &authority)?;

        let path = |name: &str| dir.join(name);
        let chain_pem = format!("{}{}", leaf.pem(), authority.pem());
        let made = Self {
            authority: path("ca.pem"),
            chain: path("cert.pem"),
            key: path("key.pem"),
            both: path("both.pem"),
            root: authority.der().clone(),
        };
        for (file, text) in [
            (&made.authority, authority.pem()),
            (&made.chain, chain_pem.clone()),
            (&made.key, key.serialize_pem()),
            (&made.both, key.serialize_pem() + &chain_pem),
        ] {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(made)
    }

    /// A client configuration that trusts this authority and nothing else.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// A validity that every library can read: the default ends in a year that not all of them take.
fn lasting(mut params: CertificateParams) -> CertificateParams {
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 1, 1);
    params
}
