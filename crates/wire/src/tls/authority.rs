//! A CA for one cluster: for those who have none of their own.

use super::{Identity, TlsError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate and its private key, PEM. The key's debug form is not its content.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key: whoever reads it is whom the certificate names.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Issues certificates for the processes of a cluster.
pub struct Authority {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA that is valid from `now` (seconds since the Unix epoch) for so long.
    ///
    /// # Errors
    /// The name of the cluster cannot stand in a certificate.
    pub fn create(cluster: &str, now: u64, valid: Duration) -> Result<Self, TlsError> {
        let key = generate()?;
        let mut params = params(&subject(cluster));
        dates(&mut params, now, valid);
        let cert = params.self_signed(&key).map_err(made)?;
        let pair = Pair { cert: cert.pem(), key: key.serialize_pem() };
        Ok(Self { pair, issuer: Issuer::new(params, key) })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// The pair is no CA, or not of one another.
    pub fn load(pair: Pair) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(&pair.key).map_err(made)?;
        let bad = |reason: &str| TlsError::Make(reason.to_owned());
        let der = CertificateDer::from_pem_slice(pair.cert.as_bytes())
            .map_err(|error| TlsError::Make(error.to_string()))?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|error| TlsError::Make(error.to_string()))?;
        if !cert.is_ca() {
            return Err(bad("the certificate is not that of a CA"));
        }
        if cert.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(bad("the key is not that of the CA's certificate"));
        }
        let name = cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let params = params(name.ok_or_else(|| bad("the CA's certificate has no common name"))?);
        Ok(Self { issuer: Issuer::new(params, key), pair })
    }

    /// Its own certificate and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Issues a certificate that is valid from `now` (seconds since the Unix epoch) for so long. `names` are DNS names
    /// besides, for other software that looks at them.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &[String],
        now: u64,
        valid: Duration,
    ) -> Result<Pair, TlsError> {
        let key = generate()?;
        let mut params = CertificateParams::new(names).map_err(made)?;
        params.distinguished_name = called(&format!("{} {}", identity.role.as_str(), identity.name));
        let uri = identity.to_string().try_into().map_err(made)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        dates(&mut params, now, valid);
        let cert = params.signed_by(&key, &self.issuer).map_err(made)?;
        Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// The longest common name that a certificate may have (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Each has a name of its own: by that a peer finds the one that a certificate stands under.
fn subject(cluster: &str) -> String {
    format!("Starling CA {:08x} of {cluster}", rand::random::<u32>())
}

fn called(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    let short: String = name.chars().take(MAX_COMMON_NAME).collect();
    subject.push(DnType::CommonName, short);
    subject
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = called(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn dates(params: &mut CertificateParams, now: u64, valid: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    // Machines whose clocks are behind, by an hour of summer time for example, accept it at once, too. After 9999 a
    // certificate cannot say when.
    const LAST: u64 = 253_402_300_799;
    const BEHIND: u64 = 86_400;
    let from = now.saturating_sub(BEHIND).min(LAST);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(now.saturating_add(valid.as_secs()).min(LAST));
}

fn generate() -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)
}

fn made(error: rcgen::Error) -> TlsError {
    TlsError::Make(error.to_string())
}
