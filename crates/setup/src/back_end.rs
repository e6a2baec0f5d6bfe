//! The one place that knows which store it is.

use crate::cql;
use anyhow::Result;
use parking_lot::Mutex;
use starling_node::config::StoreKind;
use starling_node::{Config, Probe, SharedClock, Telemetry};
use starling_store::{Retention, SharedStore, Store};
use starling_store_embedded::{EmbeddedStore, Options};
use starling_store_scylla::driver::Driver;
use starling_store_scylla::{ScyllaStore, Settings};
use starling_xmpp::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Something that is always there.
const ASKED: &str = "archive-ids";
/// How often it is asked for while all is well.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// How often otherwise.
const ASKED_AGAIN: Duration = Duration::from_millis(500);
/// How long ended tasks may hold on to a store that is closed.
const LET_GO: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The store of this process.
#[derive(Clone)]
pub enum BackEnd {
    /// A directory.
    Embedded(Arc<EmbeddedStore>),
    /// A keyspace on CQL servers, the connections to them, and why they did not answer when they were asked last.
    Scylla(Arc<ScyllaStore<Driver>>, Driver, Arc<Mutex<Option<String>>>),
}

impl BackEnd {
    /// Opens it.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub async fn open(
        config: &Config,
        retention: Retention,
        clock: &SharedClock,
        telemetry: &Telemetry,
    ) -> Result<Self> {
        let now = {
            let clock = Arc::clone(clock);
            Arc::new(move || Timestamp(clock.now_micros()))
        };
        match config.store.kind {
            StoreKind::Embedded => {
                let options = Options::at(config.data_dir.join("store"));
                let opened =
                    tokio::task::spawn_blocking(move || EmbeddedStore::open(&options, now)).await??;
                Ok(Self::Embedded(Arc::new(opened)))
            }
            StoreKind::Scylla => {
                let options = cql::options(config)?;
                let driver = Driver::connect(&options, telemetry, Arc::clone(clock))
                    .await
                    .map_err(|error| cql::obstacle(config, &error))?;
                let settings = Settings {
                    retention,
                    attempt_timeout: config.store.request_timeout,
                    in_flight: config.store.requests_in_flight,
                    waiting: config.store.requests_waiting,
                    metrics: Arc::clone(&telemetry.metrics),
                    entropy: starling_node::ids::bytes,
                    ..Settings::default()
                };
                let store = ScyllaStore::open(Arc::new(driver.clone()), settings, now);
                Ok(Self::Scylla(Arc::new(store), driver, Arc::default()))
            }
        }
    }

    /// For everybody else.
    pub fn shared(&self) -> SharedStore {
        match self {
            Self::Embedded(store) => store.clone(),
            Self::Scylla(store, ..) => store.clone(),
        }
    }

    /// Whether nobody else can write to it while this process lives.
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// What its trouble means. A disk that failed is not used again; servers that are away come back, and a restart would not
    /// bring them.
    pub fn probes(&self) -> &'static [Probe] {
        match self {
            Self::Embedded(_) => &[Probe::Ready, Probe::Live],
            Self::Scylla(..) => &[Probe::Ready],
        }
    }

    /// Why nothing can be written now, if that is so.
    pub fn trouble(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Embedded(store) => {
                store.failed().then_some("a write to the disk has failed; restart when it is well".into())
            }
            Self::Scylla(_, driver, said) => driver.trouble().or_else(|| said.lock().clone()).map(Cow::from),
        }
    }

    /// Asks it now and then for something that a quorum has to answer. Never ends.
    pub async fn ask(self) {
        let Self::Scylla(store, _, said) = self else { return std::future::pending().await };
        loop {
            let trouble = store.secret(ASKED).await.err().map(|error| error.to_string());
            let pause = if trouble.is_none() { ASKED_EVERY } else { ASKED_AGAIN };
            *said.lock() = trouble;
            tokio::time::sleep(pause).await;
        }
    }

    /// Closes it, when everybody else has let go of it.
    pub async fn close(self) {
        match self {
            // Closing waits for the disk.
            Self::Embedded(store) => {
                // A task that was ended may still run on another thread, and lets go of it when it next waits.
                let patience = tokio::time::timeout(LET_GO, async {
                    while Arc::strong_count(&store) > 1 {
                        tokio::time::sleep(LOOK_AGAIN).await;
                    }
                });
                if patience.await.is_err() {
                    tracing::warn!(event = "store_held", "somebody still holds on to the store");
                }
                let _ = tokio::task::spawn_blocking(move || drop(store)).await;
            }
            Self::Scylla(store, driver, _) => drop((store, driver)),
        }
    }
}
