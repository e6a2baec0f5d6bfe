//! TLS to the server, from files.

use crate::options::{Names, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::{path::Path, sync::Arc};

/// Files that TLS cannot be made of.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what} {path}: {reason}")]
pub struct TlsError {
    /// What the file should be, e.g. `store.tls.ca`.
    pub what: &'static str,
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What every connection is made with.
pub(super) fn config(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let Some(ca) = &tls.ca else {
        return Err(error("ca", Path::new(""), "no authority is named"));
    };
    for certificate in certificates("ca", ca)? {
        roots.add(certificate).map_err(|reason| error("ca", ca, reason))?;
    }
    let names = match &tls.names {
        Names::Address => Expect::Address,
        Names::Any => Expect::Anything,
        Names::Named(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|reason| error("names", ca, reason))?;
            Expect::Name(name)
        }
    };
    let verifier = Verifier { roots, names, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|reason| error("ca", ca, reason))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("cert", cert)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|reason| error("key", key, reason))?;
            builder.with_client_auth_cert(chain, private).map_err(|reason| error("cert", cert, reason))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|reason| error(what, path, reason))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|reason| error(what, path, reason))?;
    if found.is_empty() { Err(error(what, path, "there is no certificate in it")) } else { Ok(found) }
}

fn error(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError { what, path: path.display().to_string(), reason: reason.to_string() }
}

/// What a certificate must be made out to.
#[derive(Debug)]
enum Expect {
    Address,
    Name(ServerName<'static>),
    Anything,
}

/// Checks that the authority has signed, then the name that was asked for: the driver itself only knows addresses.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    names: Expect,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        match &self.names {
            Expect::Address => verify_server_name(&certificate, server_name)?,
            Expect::Name(name) => verify_server_name(&certificate, name)?,
            Expect::Anything => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
