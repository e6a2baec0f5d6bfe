//! A keyspace of its own for each case, and the rows they write.

use bytes::Bytes;
use parking_lot::Mutex;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use starling_node::telemetry::EndedSpans;
use starling_node::{SystemClock, Telemetry};
use starling_store::{AccountRow, Direction, LogRow, Origin, Position};
use starling_store_scylla::cql::{Change, Cql, DataKind, DataRow, Mutation, Owner, Partition, StoredRow};
use starling_store_scylla::driver::Driver;
use starling_store_scylla::migrations;
use starling_store_scylla::options::{Options, Replication};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static MADE: Mutex<Vec<Options>> = Mutex::new(Vec::new());

/// Removes the keyspaces of a case: a small server does not hold many.
pub(crate) async fn tidy() {
    let made = std::mem::take(&mut *MADE.lock());
    for options in made {
        let session = raw(&options).await;
        let text = format!("DROP KEYSPACE IF EXISTS {}", options.keyspace);
        session.query_unpaged(text, ()).await.unwrap();
    }
}

/// A session for what the seam has no words for.
pub(crate) async fn raw(options: &Options) -> Session {
    SessionBuilder::new().known_nodes(&options.contact_points).build().await.unwrap()
}

/// Options for a keyspace that nobody else has.
pub(crate) fn options(address: &str) -> Options {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let options = Options {
        contact_points: vec![address.to_owned()],
        keyspace: format!("t{}_{}_{number}", now % 100_000_000, std::process::id()),
        replication: Replication(BTreeMap::from([("datacenter1".to_owned(), 1)])),
        attempt_timeout: Duration::from_secs(5),
        ..Options::default()
    };
    MADE.lock().push(options.clone());
    options
}

/// A driver on a schema that is there.
pub(crate) async fn driver(options: &Options) -> Driver {
    let patience = Duration::from_secs(10);
    migrations::apply(options, "test", patience, &mut |_| ()).await.unwrap();
    connect(options).await
}

/// One more.
pub(crate) async fn connect(options: &Options) -> Driver {
    Driver::connect(options, &Telemetry::off(), SystemClock::shared()).await.unwrap()
}

/// A driver whose spans are kept.
pub(crate) async fn traced(options: &Options) -> (Driver, Telemetry, EndedSpans) {
    let mut settings = starling_node::config::TelemetrySettings::default();
    settings.sample.message = 1.0;
    settings.sample.iq = 1.0;
    let (telemetry, spans) = Telemetry::in_memory(&settings, SystemClock::shared());
    migrations::apply(options, "test", Duration::from_secs(10), &mut |_| ()).await.unwrap();
    let driver = Driver::connect(options, &telemetry, SystemClock::shared()).await.unwrap();
    (driver, telemetry, spans)
}

pub(crate) fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

pub(crate) fn owner() -> Owner {
    Owner { jid: jid("romeo@example.net"), generation: u64::MAX - 5 }
}

pub(crate) fn account(generation: u64) -> AccountRow {
    AccountRow { generation, credentials: credentials("secret"), created: Timestamp(7), disabled: false }
}

pub(crate) fn credentials(password: &str) -> Credentials {
    Credentials::derive(password, [7; 16], 1).unwrap()
}

pub(crate) fn row(position: u64) -> StoredRow {
    StoredRow {
        row: LogRow {
            owner: owner().jid,
            position: Position(position),
            origin: Origin { session: u128::MAX - u128::from(position), sequence: u64::MAX },
            origin_id: position.is_multiple_of(2).then(|| "a-b".into()),
            direction: [Direction::In, Direction::Out, Direction::Own][position as usize % 3],
            with: jid(if position.is_multiple_of(5) { "example.net" } else { "juliet@example.net" }),
            archived: position.is_multiple_of(2),
            offline: position.is_multiple_of(3),
            expires: position.is_multiple_of(4).then_some(Timestamp(9)),
            stanza: Bytes::from(vec![0xff, 0, position as u8]),
        },
        nth: position as u32,
        filled: 7,
        safe: Position(position - 1),
    }
}

pub(crate) fn data(kind: DataKind, name: &str, number: u64, body: &str) -> DataRow {
    DataRow { kind, name: name.to_owned(), number, body: Bytes::copy_from_slice(body.as_bytes()) }
}

pub(crate) fn mutation(partition: Partition, at: u64, changes: Vec<Change>) -> Mutation {
    Mutation { partition, at: Position(at), changes, traces: Vec::new(), attempt: 1 }
}

pub(crate) async fn write(driver: &Driver, partition: Partition, at: u64, changes: Vec<Change>) {
    driver.write(mutation(partition, at, changes)).await.unwrap();
}
