//! The door for those who look after a process.

use anyhow::Result;
use starling_admin::{ListenerStatus, Probes};
use starling_node::health::Health;
use starling_node::{Config, Telemetry};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Answers probes and scrapers on `listen.admin`. Must be called within a tokio runtime.
///
/// # Errors
/// An address cannot be listened on.
pub fn serve(
    config: &Config,
    health: &Health,
    telemetry: &Telemetry,
) -> Result<(Vec<JoinHandle<()>>, Vec<ListenerStatus>)> {
    let (mut tasks, mut listeners) = (Vec::new(), Vec::new());
    for listener in config.listen.admin.open()? {
        listeners.extend(listening("admin", &[listener.local_addr()?]));
        let probes = Probes { health: health.clone(), metrics: Arc::clone(&telemetry.metrics) };
        tasks.push(tokio::spawn(async move {
            if let Err(error) = probes.serve(listener).await {
                tracing::error!(event = "probes_failed", %error, "probes and metrics are not served");
            }
        }));
    }
    Ok((tasks, listeners))
}

/// Where clients are listened for.
pub fn for_clients(c2s: &[SocketAddr], c2s_tls: &[SocketAddr]) -> Vec<ListenerStatus> {
    [listening("c2s", c2s), listening("c2s_tls", c2s_tls)].concat()
}

/// Addresses under the name of their key.
pub fn listening(name: &str, addresses: &[SocketAddr]) -> Vec<ListenerStatus> {
    addresses.iter().map(|address| ListenerStatus { name: name.to_owned(), address: *address }).collect()
}
