//! A certificate chain with its key, ready to serve.

use super::TlsError;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256, Sha384, Sha512};
use std::path::Path;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What one domain serves.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The chain and what signs with its key.
    pub(crate) key: Arc<CertifiedKey>,
    /// `tls-server-end-point` (RFC 5929 §4.1); `None` where the signature's hash is not defined.
    pub(crate) end_point: Option<Box<[u8]>>,
    /// SHA-256 of the leaf.
    pub(crate) fingerprint: [u8; 32],
    /// End of the leaf's validity, seconds since the Unix epoch.
    pub(crate) not_after: i64,
}

impl Identity {
    /// Reads a chain (leaf first) and its key from PEM files.
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| TlsError::Certificate { path: cert.into(), reason: error.to_string() })?;
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| TlsError::Key { path: key.into(), reason: error.to_string() })?;
        Self::new(chain, private).map_err(|reason| TlsError::Certificate { path: cert.into(), reason })
    }

    /// From a chain in memory. The error is a reason to show to the operator.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, String> {
        let leaf = chain.first().ok_or_else(|| "no certificate in the file".to_owned())?.clone();
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| error.to_string())?;
        let end_point = end_point(&leaf, &parsed.signature_algorithm.algorithm.to_id_string());
        let not_after = parsed.validity().not_after.timestamp();
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| error.to_string())?;
        Ok(Self { key: Arc::new(key), end_point, fingerprint: Sha256::digest(&leaf).into(), not_after })
    }
}

/// RFC 5929 §4.1: the leaf under the hash of its own signature, SHA-256 in place of MD5 and SHA-1.
fn end_point(leaf: &[u8], algorithm: &str) -> Option<Box<[u8]>> {
    let digest: Box<[u8]> = match algorithm {
        MD5_RSA | SHA1_RSA | SHA1_ECDSA | SHA256_RSA | SHA256_ECDSA => Sha256::digest(leaf)[..].into(),
        SHA384_RSA | SHA384_ECDSA => Sha384::digest(leaf)[..].into(),
        SHA512_RSA | SHA512_ECDSA => Sha512::digest(leaf)[..].into(),
        _ => return None,
    };
    Some(digest)
}

const MD5_RSA: &str = "1.2.840.113549.1.1.4";
const SHA1_RSA: &str = "1.2.840.113549.1.1.5";
const SHA256_RSA: &str = "1.2.840.113549.1.1.11";
const SHA384_RSA: &str = "1.2.840.113549.1.1.12";
const SHA512_RSA: &str = "1.2.840.113549.1.1.13";
const SHA1_ECDSA: &str = "1.2.840.10045.4.1";
const SHA256_ECDSA: &str = "1.2.840.10045.4.3.2";
const SHA384_ECDSA: &str = "1.2.840.10045.4.3.3";
const SHA512_ECDSA: &str = "1.2.840.10045.4.3.4";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_point_follows_the_signature_hash() {
        let leaf = b"certificate";
        assert_eq!(end_point(leaf, SHA1_RSA).unwrap().len(), 32);
        assert_eq!(end_point(leaf, SHA384_ECDSA).unwrap().len(), 48);
        assert_eq!(&end_point(leaf, SHA512_RSA).unwrap()[..], &Sha512::digest(leaf)[..]);
        assert!(end_point(leaf, "1.3.101.112").is_none(), "Ed25519 has no hash of its own");
    }
}
