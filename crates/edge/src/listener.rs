//! Accepting connections, for ever: no error of one of them or of the system ends it.

use crate::negotiate;
use crate::shared::Shared;
use crate::source::Source;
use nix::sys::socket::{setsockopt, sockopt};
use starling_node::Metrics;
use starling_node::shutdown::Working;
use starling_node::telemetry::metrics::{Limit, Transport};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// A listening socket, whose connections the kernel receives no more for than we may have to take at once.
///
/// # Errors
/// Those of the system.
pub(crate) fn bounded(socket: std::net::TcpListener) -> io::Result<std::net::TcpListener> {
    setsockopt(&socket, sockopt::RcvBuf, &RECEIVED)?;
    Ok(socket)
}

/// Accepts until the doors are closed. Each connection gets a task.
pub(crate) async fn accept(listener: TcpListener, transport: Transport, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.doors.requested() => return,
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
                let connected = Connected::new(transport, &shared);
                let connection = negotiate::connection(tcp, transport, admission, Arc::clone(&shared));
                tokio::spawn(async move {
                    connection.await;
                    drop(connected);
                });
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error, "cannot accept connections");
                shared.telemetry.metrics.limits.at(Limit::ConnTotal).inc();
                // Out of descriptors or memory: what is open goes on, and its end makes room.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Counts a socket while it is open; `Edge::stop` waits for it.
struct Connected {
    metrics: Arc<Metrics>,
    transport: Transport,
    _working: Working,
}

impl Connected {
    fn new(transport: Transport, shared: &Shared) -> Self {
        let metrics = Arc::clone(&shared.telemetry.metrics);
        metrics.connections.at(transport).inc();
        Self { metrics, transport, _working: shared.shutdown.working() }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.metrics.connections.at(self.transport).dec();
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
/// What the kernel keeps of a client that is not read, for want of credit or because it is too fast. Left to itself it takes
/// up to `net.ipv4.tcp_rmem` for each of them (6 to 32 MiB), and all of that is worked off before it is seen that the client
/// has gone. This is as much as a socket has before it is tuned, and more than 1 MB a second at a round trip of 100 ms. (The
/// kernel doubles the number, for its own bookkeeping.)
const RECEIVED: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_kernel_receives_no_more_than_it_is_told_to() {
        let listener = bounded(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(getsockopt(&accepted, sockopt::RcvBuf).unwrap(), 2 * RECEIVED);
    }

    #[test]
    fn only_what_the_peer_did_is_passed_over_at_once() {
        assert!(is_of_the_peer(&io::ErrorKind::ConnectionAborted.into()));
        // EMFILE, ENFILE, ENOBUFS, ENOMEM: without a pause they would spin.
        for code in [24, 23, 105, 12] {
            assert!(!is_of_the_peer(&io::Error::from_raw_os_error(code)));
        }
    }
}
