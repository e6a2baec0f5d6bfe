//! The store under test: the real one, on the model of a server.

use crate::clock::SimClock;
use crate::planted;
use crate::stage::Stage;
use starling_node::Metrics;
use starling_store::{Retention, SharedStore};
use starling_store_scylla::model::Process;
use starling_store_scylla::{ScyllaStore, Settings};
use std::sync::{Arc, LazyLock};

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new()));

/// Opens it for a process.
pub(crate) fn open(stage: &Arc<Stage>, process: &Process, clock: &SimClock) -> SharedStore {
    let settings = Settings {
        bucket_rows: stage.plan.bucket_rows,
        retention: Retention { max_age_secs: Some(365 * 86_400), max_rows: None },
        volume_buckets: stage.plan.volume_buckets,
        window: stage.plan.window,
        owners: stage.plan.owners,
        metrics: METRICS.clone(),
        entropy: || [9; 32],
        ..Settings::default()
    };
    let cql = planted::cql(stage, stage.model.connect(process), clock);
    Arc::new(ScyllaStore::open(Arc::new(cql), settings, clock.now()))
}
