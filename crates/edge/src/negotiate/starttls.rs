//! TLS: after `<starttls/>` (RFC 6120 §5) or from the first byte (XEP-0368).

use super::wire::Wire;
use super::{End, features, header, timed_out};
use crate::io::Io;
use rustls::ProtocolVersion;
use rustls::server::Acceptor;
use starling_node::StanzaKind;
use starling_node::telemetry::Step;
use starling_node::telemetry::metrics::{Observe, Outcome, TlsVersion};
use starling_xmpp::sasl::{Bindings, SaslFailure};
use starling_xmpp::stream::Event;
use starling_xmpp::{Element, StreamCondition, ns};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Proof that TLS is up, and what authentication can be bound to.
pub(super) struct Secured {
    pub(super) bindings: Bindings,
}

/// The first stream, in the clear: header and features.
pub(super) async fn header(wire: &mut Wire) -> Result<(), End> {
    header::open(wire, None).await?;
    features::in_the_clear(wire);
    wire.flush().await
}

/// Waits for `<starttls/>`, which is the only thing there is to do, and shakes hands.
pub(super) async fn upgrade(wire: &mut Wire) -> Result<Secured, End> {
    let mut refused = 0;
    loop {
        match wire.event().await? {
            Event::Nonza(element) if element.is(ns::TLS, "starttls") => break,
            Event::Nonza(element) if element.is(ns::SASL, "auth") => {
                refused += 1;
                if refused > wire.settings.limits.auth.attempts_per_stream {
                    return Err(StreamCondition::PolicyViolation.into());
                }
                let condition = Element::new(ns::SASL, SaslFailure::EncryptionRequired.as_str());
                wire.say(&Element::new(ns::SASL, "failure").child(condition));
            }
            Event::Nonza(_) => return Err(StreamCondition::UnsupportedStanzaType.into()),
            Event::Stanza(_) => return Err(StreamCondition::NotAuthorized.into()),
            _ => return Err(StreamCondition::BadFormat.into()),
        }
    }
    wire.say_raw(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    wire.flush().await?;
    // What came in the clear behind <starttls/> was put there by anybody (RFC 6120 §5.4.3.3).
    wire.reader.clear();
    wire.reader.restart();
    handshake(wire).await
}

/// TLS before anything else.
pub(super) async fn direct(wire: &mut Wire) -> Result<Secured, End> {
    handshake(wire).await
}

async fn handshake(wire: &mut Wire) -> Result<Secured, End> {
    let Some(Io::Plain(tcp)) = wire.io.take() else { return Err(End::Silent) };
    let shared = wire.shared.clone();
    let telemetry = &shared.telemetry;
    let mut span = telemetry.tracer.span(telemetry.tracer.start(StanzaKind::Login), Step::TlsHandshake);
    let began = shared.clock.monotonic();
    let deadline = wire.deadline;
    let shake = accept(tcp, wire);
    let result = match deadline {
        Some(deadline) => timeout_at(deadline, shake).await.unwrap_or_else(|_| {
            timed_out(&shared);
            Err(End::Silent)
        }),
        None => shake.await,
    };
    let took = shared.clock.monotonic().saturating_sub(began);
    let version = match &result {
        Ok((tls, _)) if tls.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
            TlsVersion::V13
        }
        Ok(_) => TlsVersion::V12,
        Err(_) => TlsVersion::None,
    };
    let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
    telemetry.metrics.tls_handshake.at(version, outcome).took(took);
    let (tls, bindings) = result.inspect_err(|_| span.fail("handshake"))?;
    wire.io = Some(Io::Tls(Box::new(tls)));
    Ok(Secured { bindings })
}

async fn accept(tcp: TcpStream, wire: &Wire) -> Result<(TlsStream<TcpStream>, Bindings), End> {
    let failed = |error: std::io::Error| {
        tracing::debug!(%error, "tls handshake failed");
        End::Silent
    };
    let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await.map_err(failed)?;
    // Chosen here and not by a resolver, so that we know afterwards which one was served.
    let identity = wire.shared.certificates.choose(start.client_hello().server_name());
    let tls = start
        .into_stream_with(identity.config.clone(), |connection| connection.set_buffer_limit(Some(BUFFER)))
        .await
        .map_err(failed)?;
    let connection = tls.get_ref().1;
    let bindings = Bindings {
        exporter: (connection.protocol_version() == Some(ProtocolVersion::TLSv1_3))
            .then(|| {
                connection.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(&[])).ok()
            })
            .flatten(),
        end_point: identity.end_point.as_deref().map(<[u8]>::to_vec),
    };
    Ok((tls, bindings))
}

/// Bytes that TLS holds for a socket that takes no more: so much a stuck write must move to count as progress.
const BUFFER: usize = 32 * 1024;
