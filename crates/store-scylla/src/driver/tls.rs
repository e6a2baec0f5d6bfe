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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConnection, ServerConfig, ServerConnection};
    use std::path::PathBuf;

    /// An authority with a server and a client, as files.
    struct World {
        directory: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let world = Self { directory: tempfile::tempdir().unwrap() };
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            std::fs::write(world.at("ca"), authority.pem()).unwrap();
            let other = rcgen::generate_simple_self_signed([]).unwrap();
            std::fs::write(world.at("other"), other.cert.pem()).unwrap();
            for (name, names) in
                [("server", ["10.0.0.1", "cql.example.net"]), ("client", ["starling", "host"])]
            {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(names.map(str::to_owned)).unwrap();
                let certificate = params.signed_by(&key, &authority).unwrap();
                std::fs::write(world.at(name), certificate.pem()).unwrap();
                std::fs::write(world.at(&format!("{name}.key")), key.serialize_pem()).unwrap();
            }
            world
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn tls(&self, ca: &str, names: Names) -> Tls {
            let (cert, key) = (Some(self.at("client")), Some(self.at("client.key")));
            Tls { ca: Some(self.at(ca)), cert, key, names }
        }

        /// A handshake with a server that wants a certificate, reached at this address.
        fn meet(&self, tls: &Tls, address: &str) -> Result<(), String> {
            let mut roots = RootCertStore::empty();
            for authority in certificates("ca", &self.at("ca")).unwrap() {
                roots.add(authority).unwrap();
            }
            let provider = Arc::new(aws_lc_rs::default_provider());
            let roots = Arc::new(roots);
            let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            let server = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(clients.unwrap())
                .with_single_cert(
                    certificates("cert", &self.at("server")).unwrap(),
                    PrivateKeyDer::from_pem_file(self.at("server.key")).unwrap(),
                );
            let mut server = ServerConnection::new(Arc::new(server.unwrap())).unwrap();
            let name = ServerName::try_from(address.to_owned()).unwrap();
            let mut client = ClientConnection::new(config(tls).unwrap(), name).unwrap();
            for _ in 0..8 {
                let mut wire = Vec::new();
                client.write_tls(&mut wire).unwrap();
                server.read_tls(&mut wire.as_slice()).unwrap();
                server.process_new_packets().map_err(|error| error.to_string())?;
                wire.clear();
                server.write_tls(&mut wire).unwrap();
                client.read_tls(&mut wire.as_slice()).unwrap();
                client.process_new_packets().map_err(|error| error.to_string())?;
            }
            assert!(!client.is_handshaking() && !server.is_handshaking());
            Ok(())
        }
    }

    #[test]
    fn names_are_checked_as_asked_for() {
        let world = World::new();
        let named = |name: &str| Names::Named(name.to_owned());
        world.meet(&world.tls("ca", Names::Address), "10.0.0.1").unwrap();
        world.meet(&world.tls("ca", named("cql.example.net")), "10.0.0.9").unwrap();
        world.meet(&world.tls("ca", Names::Any), "10.0.0.9").unwrap();
        for (names, address) in [(Names::Address, "10.0.0.9"), (named("other.example.net"), "10.0.0.1")] {
            let error = world.meet(&world.tls("ca", names), address).unwrap_err();
            assert!(error.contains("not valid for name"), "{error}");
        }
    }

    #[test]
    fn nobody_else_is_trusted() {
        let world = World::new();
        for names in [Names::Address, Names::Any] {
            let error = world.meet(&world.tls("other", names), "10.0.0.1").unwrap_err();
            assert!(error.contains("invalid peer certificate"), "{error}");
        }
        let without = Tls { cert: None, key: None, ..world.tls("ca", Names::Any) };
        assert!(world.meet(&without, "10.0.0.1").is_err());
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_named() {
        let world = World::new();
        let right = world.tls("ca", Names::Any);
        std::fs::write(world.at("empty"), "").unwrap();
        for (tls, what, file) in [
            (Tls { ca: Some(world.at("nowhere")), ..right.clone() }, "ca", "nowhere"),
            (Tls { ca: Some(world.at("empty")), ..right.clone() }, "ca", "empty"),
            (Tls { cert: Some(world.at("client.key")), ..right.clone() }, "cert", "client.key"),
            (Tls { key: Some(world.at("client")), ..right.clone() }, "key", "client"),
            (Tls { key: Some(world.at("server.key")), ..right }, "cert", "client"),
        ] {
            let error = config(&tls).unwrap_err();
            assert!(error.what == what && error.path.ends_with(file), "{error}");
        }
    }
}
