//! TLS: after `<starttls/>` (RFC 6120 §5) or from the first byte (XEP-0368).

use super::wire::Wire;
use super::{End, features, header, timed_out};
use crate::io::Io;
use crate::tls;
use starling_node::telemetry::Step;
use starling_node::telemetry::metrics::{Observe, Outcome, TlsVersion};
use starling_xmpp::sasl::{Bindings, SaslFailure};
use starling_xmpp::stream::Event;
use starling_xmpp::{Element, StreamCondition, ns};
use tokio::time::timeout_at;

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
    let mut span = wire.span(Step::TlsHandshake);
    let began = shared.clock.monotonic();
    let deadline = wire.deadline;
    let shake = tls::accept(tcp, shared.tls.clone());
    let result = match deadline {
        Some(deadline) => timeout_at(deadline, shake).await.unwrap_or_else(|_| {
            timed_out(&shared);
            Err(std::io::ErrorKind::TimedOut.into())
        }),
        None => shake.await,
    };
    let took = shared.clock.monotonic().saturating_sub(began);
    let version = match &result {
        Ok(shaken) if shaken.is_13 => TlsVersion::V13,
        Ok(_) => TlsVersion::V12,
        Err(_) => TlsVersion::None,
    };
    let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
    telemetry.metrics.tls_handshake.at(version, outcome).took(took);
    match result {
        Ok(shaken) => {
            wire.io = Some(Io::Tls(Box::new(shaken.stream)));
            Ok(Secured { bindings: shaken.bindings })
        }
        Err(error) => {
            tracing::debug!(%error, "tls handshake failed");
            span.fail("handshake");
            Err(End::Silent)
        }
    }
}
