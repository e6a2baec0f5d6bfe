//! The suite on a real CQL server: `STARLING_TEST_CQL=address:9042 cargo test -p starling-store-scylla --test real --
//! --ignored`. The cases run one after the other in one keyspace, which is emptied before each:
//! two runs at once on one server are in each other's way.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // a test that cannot go on panics

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use starling_node::{SystemClock, Telemetry};
use starling_store::testing::{BackEnd, SharedBackEnd};
use starling_store::{Now, Retention, SharedStore};
use starling_store_scylla::driver::Driver;
use starling_store_scylla::migrations;
use starling_store_scylla::options::{Options, Replication};
use starling_store_scylla::{ScyllaStore, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// What a case empties before it begins. `cluster` stays: it says which datacenter the store belongs to.
const TABLES: [&str; 8] =
    ["accounts", "account_names", "account_data", "log_buckets", "log", "log_by_peer", "purges", "reigns"];

static TURN: Mutex<()> = Mutex::const_new(());
static KEYSPACE: OnceCell<Options> = OnceCell::const_new();

/// The server, for one case at a time.
struct Real {
    options: Options,
    begun: Instant,
    _turn: MutexGuard<'static, ()>,
}

impl Real {
    async fn start() -> Self {
        let turn = TURN.lock().await;
        let options = KEYSPACE.get_or_init(keyspace).await.clone();
        let session = session(&options).await;
        for table in TABLES {
            session.query_unpaged(format!("TRUNCATE {}.{table}", options.keyspace), &[]).await.unwrap();
        }
        Self { options, begun: Instant::now(), _turn: turn }
    }
}

async fn session(options: &Options) -> Session {
    SessionBuilder::new().known_nodes(&options.contact_points).build().await.unwrap()
}

async fn keyspace() -> Options {
    let address = std::env::var("STARLING_TEST_CQL").expect("STARLING_TEST_CQL names the server");
    let options = Options {
        contact_points: vec![address],
        keyspace: "starling_suite".to_owned(),
        replication: Replication(BTreeMap::from([("datacenter1".to_owned(), 1)])),
        ..Options::default()
    };
    // What an earlier run has left may be of another version.
    let drop = format!("DROP KEYSPACE IF EXISTS {}", options.keyspace);
    session(&options).await.query_unpaged(drop, &[]).await.unwrap();
    migrations::apply(&options, "test", Duration::from_secs(10), &mut |_| ()).await.unwrap();
    options
}

impl BackEnd for Real {
    async fn open(&mut self, now: Now, retention: Retention) -> SharedStore {
        let driver = Driver::connect(&self.options, &Telemetry::off(), SystemClock::shared()).await.unwrap();
        // A machine that does other things beside is no failure.
        let (read_deadline, commit_deadline) = (Duration::from_secs(60), Duration::from_secs(60));
        let attempt_timeout = Duration::from_secs(15);
        let settings =
            Settings { retention, read_deadline, commit_deadline, attempt_timeout, ..Settings::default() };
        Arc::new(ScyllaStore::open(Arc::new(driver), settings, now))
    }
}

impl SharedBackEnd for Real {
    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn elapsed(&self) -> Option<Duration> {
        Some(self.begun.elapsed())
    }
}

starling_store::conformance!(Real::start().await; #[ignore = "needs a CQL server: STARLING_TEST_CQL"]);
starling_store::conformance!(shared: Real::start().await; #[ignore = "needs a CQL server: STARLING_TEST_CQL"]);
