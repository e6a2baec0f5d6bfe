//! One edge, one router and a store, embedded or on CQL servers, in one process: `starling serve`.
//!
//! Wiring and nothing else. The edge and the router meet in the channel form of `starling-wire`; what is different in
//! a cluster is different there, not here.

#![forbid(unsafe_code)]

mod control;
mod running;

pub use running::Running;

use anyhow::Result;
use starling_node::{Config, Shutdown, Telemetry};

/// Serves until `shutdown` is triggered, then stops in order. Must be called within a tokio runtime.
///
/// # Errors
/// What keeps the server from starting: an address, a certificate, the store.
pub async fn run(config: Config, telemetry: Telemetry, shutdown: Shutdown) -> Result<()> {
    let running = Running::start(config, telemetry).await?;
    shutdown.requested().await;
    running.stop().await;
    Ok(())
}
