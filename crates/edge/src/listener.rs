//! Accepting connections, for ever: no error of one of them or of the system ends it.

use crate::negotiate;
use crate::shared::Shared;
use crate::source::Source;
use starling_node::telemetry::metrics::{Limit, Transport};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Accepts until shutdown. Each connection gets a task.
pub(crate) async fn accept(listener: TcpListener, transport: Transport, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let admission = match shared.gate.admit(Source::from(peer.ip())) {
                    Ok(admission) => admission,
                    Err(refusal) => {
                        shared.telemetry.metrics.limits.at(refusal.label()).inc();
                        continue;
                    }
                };
                // Nagle and a delayed acknowledgement together cost 40 ms at every turn.
                if tcp.set_nodelay(true).is_err() {
                    continue;
                }
                let connection = negotiate::connection(tcp, transport, admission, Arc::clone(&shared));
                let working = shared.shutdown.working();
                tokio::spawn(async move {
                    connection.await;
                    drop(working);
                });
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                shared.telemetry.metrics.limits.at(Limit::ConnTotal).inc();
                // Out of descriptors or memory: what is open goes on, and its end makes room.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The connection went away before we took it.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

const PAUSE: Duration = Duration::from_millis(200);
