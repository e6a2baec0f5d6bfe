//! From an accepted socket to a bound session (RFC 6120 §4 to §7, XEP-0170), in steps that consume each other:
//! [`Wire`] (in the clear or fresh under TLS) → [`starttls::Secured`] → [`sasl::Authenticated`] → a [`Beginning`].

mod bind;
mod features;
mod header;
mod register;
mod sasl;
mod starttls;
mod wire;

use crate::gate::Admission;
use crate::session::{Beginning, Session};
use crate::shared::Shared;
use starling_node::telemetry::metrics::{Limit, Transport};
use starling_xmpp::{StreamCondition, StreamError};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use wire::Wire;

/// Why negotiation ends without a session.
#[derive(Debug)]
enum End {
    /// With this error.
    Fault(Box<StreamError>),
    /// In order, after the client's end tag or our last word.
    Closed,
    /// Without a word: the transport is gone, or TLS failed.
    Silent,
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        Self::Fault(Box::new(error))
    }
}

impl From<StreamCondition> for End {
    fn from(condition: StreamCondition) -> Self {
        StreamError::new(condition).into()
    }
}

/// Runs one connection from its first to its last byte.
pub(crate) async fn connection(
    tcp: TcpStream,
    transport: Transport,
    admission: Admission,
    shared: Arc<Shared>,
) {
    // In a box of its own: what negotiation needs is much more than what a session does, and ends before it.
    let beginning = Box::pin(negotiate(tcp, transport, admission, shared)).await;
    if let Some(beginning) = beginning {
        let session = Box::new(Session::new(*beginning));
        session.run().await;
    }
}

async fn negotiate(
    tcp: TcpStream,
    transport: Transport,
    mut admission: Admission,
    shared: Arc<Shared>,
) -> Option<Box<Beginning>> {
    let settings = shared.settings.load_full();
    let mut wire = Wire::new(tcp, &shared, settings);
    let result = steps(&mut wire, transport, &mut admission).await;
    match result {
        Ok(bound) => {
            let parts = wire.into_parts()?;
            Some(Box::new(Beginning {
                io: parts.io,
                reader: parts.reader,
                lang: parts.lang,
                settings: parts.settings,
                tenancy: bound.tenancy,
                admission,
                shared,
                jid: bound.jid,
                token: bound.token,
                transport,
                resumed: bound.resumed,
            }))
        }
        Err(end) => {
            wire.end(end).await;
            None
        }
    }
}

async fn steps(wire: &mut Wire, transport: Transport, admission: &mut Admission) -> Result<bind::Bound, End> {
    let stream = wire.settings.limits.stream.clone();
    let began = Instant::now();
    let last = began + stream.pre_auth_total;
    let by = |from: Instant, wait| Some((from + wait).min(last));
    wire.deadline = by(began, stream.tcp_accept_to_header);
    let secured = match transport {
        Transport::Starttls => {
            starttls::header(wire).await?;
            wire.deadline = by(Instant::now(), stream.header_to_tls);
            starttls::upgrade(wire).await?
        }
        Transport::Tls => {
            wire.deadline = by(began, stream.header_to_tls);
            starttls::direct(wire).await?
        }
    };
    wire.deadline = by(Instant::now(), stream.tls_to_auth);
    let authenticated = sasl::authenticate(wire, &secured, admission.source()).await?;
    admission.authenticated();
    // A client that has authenticated still has to bind; it gets as long as for authenticating.
    wire.deadline = Some(Instant::now() + stream.tls_to_auth);
    bind::bind(wire, authenticated).await
}

/// How long a home may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts a deadline that has passed before authentication.
fn timed_out(shared: &Shared) -> End {
    shared.telemetry.metrics.limits.at(Limit::PreAuthTimeout).inc();
    StreamCondition::ConnectionTimeout.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, B, C, D, R>(_: impl FnOnce(A, B, C, D) -> R) -> usize {
        size_of::<R>()
    }

    /// What a connection's task holds besides its session is there for as long as the session.
    #[test]
    fn a_task_is_small_and_a_negotiation_bounded() {
        assert!(size_of_output(connection) <= 256, "{}", size_of_output(connection));
        assert!(size_of_output(negotiate) <= 8_192, "{}", size_of_output(negotiate));
    }
}
