//! The handshake, and what has to be known of it afterwards: which certificate was served, and what the connection
//! can be bound to.

use super::exporter;
use super::stream::TlsStream;
use super::{Certificates, Identity};
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{KeyLog, ProtocolVersion, ServerConfig};
use starling_xmpp::sasl::Bindings;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

/// A connection whose handshake is done.
pub(crate) struct Shaken {
    pub(crate) stream: TlsStream,
    pub(crate) bindings: Bindings,
    /// TLS 1.3; otherwise 1.2.
    pub(crate) is_13: bool,
}

/// Settings of every handshake. Certificates are asked for anew each time, so a reload needs no new settings.
pub(super) fn config(
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    // The provider is named, not taken from the process: with two in the build the implicit one panics.
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(certificates)));
    // XEP-0368: a client whose list does not have it is refused, one without a list is accepted.
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.send_tls13_tickets = 1;
    // No 0-RTT: what is replayed must not log in (XEP-0198, RFC 8446 §8).
    config.max_early_data_size = 0;
    config.key_log = Arc::new(Exporters);
    Ok(config)
}

/// Shakes hands over a fresh socket.
pub(crate) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Shaken> {
    let mut stream = TlsStream::new(tcp, config).map_err(io::Error::other)?;
    let mut notes = Notes::default();
    poll_fn(|cx| stream.poll_handshake(cx, &mut notes)).await?;
    let is_13 = stream.connection().protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let bindings = Bindings {
        // On TLS 1.2 it takes an extended master secret to be safe; there the certificate has to do.
        exporter: notes.binding.filter(|_| is_13),
        end_point: notes.identity.and_then(|identity| identity.end_point.as_deref().map(<[u8]>::to_vec)),
    };
    Ok(Shaken { stream, bindings, is_13 })
}

/// What the library tells during one handshake, through settings that all handshakes share.
#[derive(Default)]
pub(super) struct Notes {
    identity: Option<Arc<Identity>>,
    binding: Option<Vec<u8>>,
}

thread_local! {
    /// Of the handshake that this thread is working at.
    static NOTES: RefCell<Notes> = RefCell::new(Notes::default());
}

impl Notes {
    /// Runs a part of a handshake, which is synchronous, and keeps what it tells.
    pub(super) fn during<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let result = run();
        let told = NOTES.take();
        self.identity = told.identity.or_else(|| self.identity.take());
        self.binding = told.binding.or_else(|| self.binding.take());
        result
    }
}

#[derive(Debug)]
struct Resolver(Arc<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.choose(hello.server_name());
        let key = identity.key.clone();
        NOTES.with_borrow_mut(|notes| notes.identity = Some(identity));
        Some(key)
    }
}

/// Takes the one secret that channel binding needs, and no other.
#[derive(Debug)]
struct Exporters;

impl KeyLog for Exporters {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if self.will_log(label) {
            NOTES.with_borrow_mut(|notes| notes.binding = exporter::channel_binding(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == exporter::SECRET
    }
}
