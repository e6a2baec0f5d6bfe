//! Back to a server that was gone.
//!
//! The driver waits longer and longer between its attempts to connect, up to ten seconds. While it has no connection at
//! all, sessions are tried for here, several times a second, and the first that works takes over. What is under way in
//! the old one ends there.

use super::{Connection, Inner, Live};
use crate::options::Options;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// For one connection of an attempt: what does not answer within this time is not back yet.
const CONNECT: Duration = Duration::from_millis(1_000);

/// Runs until the last clone of the driver is dropped.
pub(super) async fn run(driver: Weak<Inner>, lost: Arc<Notify>) {
    loop {
        // Woken now and then to see whether the driver is still there.
        let _ = tokio::time::timeout(Duration::from_secs(60), lost.notified()).await;
        let Some(inner) = driver.upgrade() else { return };
        if inner.is_connected() {
            continue;
        }
        let options =
            Options { connect_timeout: inner.options.connect_timeout.min(CONNECT), ..inner.options.clone() };
        drop(inner);
        tracing::warn!(event = "database_away", "no CQL server can be reached");
        loop {
            let Some(inner) = driver.upgrade() else { return };
            if inner.is_connected() {
                break;
            }
            if let Ok(connection) = Connection::open(&options).await
                && let Ok(live) = Live::open(&options, connection, &inner.second).await
            {
                inner.live.store(Arc::new(live));
                inner.observer.metrics.store_reconnects.inc();
                break;
            }
            drop(inner);
            tokio::time::sleep(PAUSE).await;
        }
        tracing::info!(event = "database_back", "a CQL server can be reached again");
    }
}
