//! A raw client: text in, text out, and just enough of SASL to log in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub(crate) const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// How the client shakes hands.
pub(crate) struct Tls {
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) name: &'static str,
    pub(crate) alpn: Vec<&'static str>,
    /// Bytes of a record at most.
    pub(crate) record: Option<usize>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { versions: TLS13, name: "localhost", alpn: Vec::new(), record: None }
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Gone,
}

pub(crate) struct Client {
    io: Io,
    seen: String,
}

impl Client {
    pub(crate) async fn tcp(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { io: Io::Plain(tcp), seen: String::new() }
    }

    /// TLS from the first byte.
    pub(crate) async fn direct(address: SocketAddr, tls: Tls) -> std::io::Result<Self> {
        let mut client = Self::tcp(address).await;
        client.handshake(tls).await?;
        Ok(client)
    }

    /// STARTTLS up to the features under TLS.
    pub(crate) async fn secured(address: SocketAddr) -> Self {
        Self::secured_with(address, Tls::default()).await
    }

    pub(crate) async fn secured_with(address: SocketAddr, tls: Tls) -> Self {
        let mut client = Self::tcp(address).await;
        client.open().await;
        client
            .expect(
                "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>",
            )
            .await;
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        client.handshake(tls).await.unwrap();
        client.open().await;
        client.expect("</stream:features>").await;
        client
    }

    /// Authenticated as alice, features seen, nothing bound.
    pub(crate) async fn authenticated(address: SocketAddr) -> Self {
        let mut client = Self::secured(address).await;
        client.plain("alice", "secret").await;
        client.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
        client.open().await;
        client.expect("</stream:features>").await;
        client
    }

    /// Bound as alice with this resource.
    pub(crate) async fn bound(address: SocketAddr, resource: &str) -> Self {
        let mut client = Self::authenticated(address).await;
        client.send(&bind(resource)).await;
        client.expect(&format!("<jid>alice@localhost/{resource}</jid></bind></iq>")).await;
        client
    }

    pub(crate) async fn handshake(&mut self, tls: Tls) -> std::io::Result<()> {
        let Io::Plain(tcp) = std::mem::replace(&mut self.io, Io::Gone) else { panic!("under TLS already") };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(tls.versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        config.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.max_fragment_size = tls.record;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from(tls.name).unwrap(), tcp).await?;
        self.io = Io::Tls(Box::new(stream));
        self.seen.clear();
        Ok(())
    }

    pub(crate) async fn open(&mut self) {
        self.send(&header("localhost")).await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.io {
            Io::Plain(tcp) => tcp.write_all(bytes).await,
            Io::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
            Io::Gone => panic!("no transport"),
        }
    }

    /// Reads until `text` comes, and returns all up to its end.
    pub(crate) async fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let read = tokio::time::timeout(Duration::from_secs(10), self.read()).await;
            match read {
                Ok(true) => {}
                Ok(false) => panic!("the end came before {text:?}: {}", self.seen),
                Err(_) => panic!("nothing came that has {text:?}: {}", self.seen),
            }
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        let all = async { while self.read().await {} };
        let ended = tokio::time::timeout(Duration::from_secs(10), all).await;
        assert!(ended.is_ok(), "the connection stays open: {}", self.seen);
        std::mem::take(&mut self.seen)
    }

    /// What comes within this time.
    pub(crate) async fn within(&mut self, time: Duration) -> String {
        let _ = tokio::time::timeout(time, async { while self.read().await {} }).await;
        std::mem::take(&mut self.seen)
    }

    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        let read = match &mut self.io {
            Io::Plain(tcp) => tcp.read(&mut buffer).await,
            Io::Tls(tls) => tls.read(&mut buffer).await,
            Io::Gone => Ok(0),
        };
        let count = read.unwrap_or(0);
        self.seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        count > 0
    }

    /// Vanishes without a word.
    pub(crate) fn cut(self) {
        let tcp = match self.io {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.into_inner().0,
            Io::Gone => return,
        };
        drop(tcp);
    }

    pub(crate) async fn plain(&mut self, user: &str, password: &str) {
        let message = STANDARD.encode(format!("\0{user}\0{password}"));
        self.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>"
        ))
        .await;
    }

    /// SCRAM with a GS2 header such as `n,,`; `binding` is what the type it names binds to. Returns the server's
    /// last words, `success` or `failure`.
    pub(crate) async fn scram(
        &mut self,
        mechanism: &str,
        gs2: &str,
        binding: &[u8],
        user: &str,
        password: &str,
    ) -> String {
        let bare = format!("n={user},r=client-nonce-0123456789");
        let first = STANDARD.encode(format!("{gs2}{bare}"));
        self.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{first}</auth>"
        ))
        .await;
        let answer = self.element().await;
        let Some(challenge) = answer.strip_prefix("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>")
        else {
            return answer;
        };
        let challenge = STANDARD.decode(challenge.strip_suffix("</challenge>").unwrap()).unwrap();
        let server_first = String::from_utf8(challenge).unwrap();
        let field = |name: &str| {
            server_first.split(',').find_map(|field| field.strip_prefix(name)).unwrap().to_owned()
        };
        let (nonce, salt) = (field("r="), STANDARD.decode(field("s=")).unwrap());
        let iterations: u32 = field("i=").parse().unwrap();
        let bound = STANDARD.encode([gs2.as_bytes(), binding].concat());
        let without_proof = format!("c={bound},r={nonce}");
        let about = format!("{bare},{server_first},{without_proof}");
        let (proof, signature) = if mechanism.contains("SHA-512") {
            keys::<Hmac<Sha512>, Sha512>(password, &salt, iterations, &about)
        } else if mechanism.contains("SHA-256") {
            keys::<Hmac<Sha256>, Sha256>(password, &salt, iterations, &about)
        } else {
            keys::<Hmac<Sha1>, Sha1>(password, &salt, iterations, &about)
        };
        let last = STANDARD.encode(format!("{without_proof},p={}", STANDARD.encode(proof)));
        self.send(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{last}</response>")).await;
        let answer = self.element().await;
        if let Some(data) = answer.strip_prefix("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>") {
            let data = STANDARD.decode(data.strip_suffix("</success>").unwrap()).unwrap();
            assert_eq!(
                data,
                format!("v={}", STANDARD.encode(signature)).into_bytes(),
                "the server proves itself"
            );
        }
        answer
    }

    /// The next SASL element.
    pub(crate) async fn element(&mut self) -> String {
        loop {
            for end in ["</challenge>", "</success>", "</failure>", "</stream:stream>"] {
                if self.seen.contains(end) {
                    return self.expect(end).await;
                }
            }
            assert!(self.read().await, "the end came early: {}", self.seen);
        }
    }

    pub(crate) fn exporter(&self) -> Vec<u8> {
        let Io::Tls(tls) = &self.io else { panic!("no TLS") };
        tls.get_ref().1.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(&[])).unwrap()
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        let Io::Tls(tls) = &self.io else { panic!("no TLS") };
        tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Begins new keys (RFC 8446 §4.6.3).
    pub(crate) fn renew_keys(&mut self) {
        let Io::Tls(tls) = &mut self.io else { panic!("no TLS") };
        tls.get_mut().1.refresh_traffic_keys().unwrap();
    }

    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        let Io::Tls(tls) = &self.io else { panic!("no TLS") };
        tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }
}

/// Client proof and server signature (RFC 5802 §3), written out here instead of taken from the server.
fn keys<M: Mac + KeyInit + Clone, D: Digest>(
    password: &str,
    salt: &[u8],
    iterations: u32,
    about: &str,
) -> (Vec<u8>, Vec<u8>) {
    let keyed = |key: &[u8]| <M as KeyInit>::new_from_slice(key).unwrap();
    let mac = |mac: &M, data: &[u8]| {
        let mut mac = mac.clone();
        mac.update(data);
        mac.finalize().into_bytes().to_vec()
    };
    let by_password = keyed(password.as_bytes());
    let mut round = mac(&by_password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut salted = round.clone();
    for _ in 1..iterations {
        round = mac(&by_password, &round);
        salted.iter_mut().zip(&round).for_each(|(a, b)| *a ^= b);
    }
    let by_salted = keyed(&salted);
    let client_key = mac(&by_salted, b"Client Key");
    let signature = mac(&keyed(&D::digest(&client_key)), about.as_bytes());
    let proof = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    (proof, mac(&keyed(&mac(&by_salted, b"Server Key")), about.as_bytes()))
}

pub(crate) fn header(to: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream to='{to}' version='1.0' xml:lang='de' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

pub(crate) fn bind(resource: &str) -> String {
    format!(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
    )
}

/// Trusts any certificate.
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
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
