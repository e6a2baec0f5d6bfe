//! The one place that knows which store it is.

use anyhow::Result;
use starling_node::config::StoreKind;
use starling_node::{Config, Probe, SharedClock, Telemetry};
use starling_store::SharedStore;
use starling_store_embedded::{EmbeddedStore, Options};
use starling_xmpp::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;

/// The store of this process.
#[derive(Clone)]
pub(crate) enum BackEnd {
    /// A directory.
    Embedded(Arc<EmbeddedStore>),
}

impl BackEnd {
    /// Opens it.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub(crate) async fn open(config: &Config, clock: &SharedClock, _telemetry: &Telemetry) -> Result<Self> {
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
            StoreKind::Scylla => anyhow::bail!("store.kind = \"scylla\" is not there yet"),
        }
    }

    /// For everybody else.
    pub(crate) fn shared(&self) -> SharedStore {
        match self {
            Self::Embedded(store) => store.clone(),
        }
    }

    /// Whether nobody else can write to it while this process lives.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// What its trouble means. A disk that failed is not used again; servers that are away come back, and a restart would not
    /// bring them.
    pub(crate) fn probes(&self) -> &'static [Probe] {
        match self {
            Self::Embedded(_) => &[Probe::Ready, Probe::Live],
        }
    }

    /// Why nothing can be written now, if that is so.
    pub(crate) fn trouble(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Embedded(store) => {
                store.failed().then_some("a write to the disk has failed; restart when it is well".into())
            }
        }
    }

    /// Closes it, when everybody else has let go of it.
    pub(crate) async fn close(self) {
        match self {
            // Closing waits for the disk.
            Self::Embedded(store) => {
                let _ = tokio::task::spawn_blocking(move || drop(store)).await;
            }
        }
    }
}
