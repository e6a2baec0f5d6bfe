//! The seam, statement by statement.

use crate::world::*;
use bytes::Bytes;
use futures::future::join_all;
use starling_node::StanzaKind;
use starling_store::Position;
use starling_store_scylla::cql::{
    Bucket, BucketRow, Change, Cql, CqlError, DataKind, Found, Level, Owner, Partition, PurgeRow, ReignRow,
    Slice, StoredRow, Volume,
};
use std::time::Duration;

const BUCKET: Bucket = Bucket(Position(1_000));

fn log() -> Partition {
    Partition::Log(owner(), BUCKET)
}

fn slice(low: u64, high: u64, newest: bool, limit: usize) -> Slice {
    Slice { low: Position(low), high: Position(high), newest, limit }
}

fn numbers(rows: &[Found]) -> Vec<u64> {
    rows.iter().map(|row| row.position().0).collect()
}

fn found(rows: &[StoredRow]) -> Vec<Found> {
    rows.iter().cloned().map(Found::Row).collect()
}

pub(crate) async fn data_is_written_and_read_as_one(address: String) {
    let driver = driver(&options(&address)).await;
    assert_eq!(driver.data(&owner()).await.unwrap(), []);
    let rows = [
        data(DataKind::Contact, "juliet@example.net", 3, "item"),
        data(DataKind::Cursor, "", u64::MAX, ""),
        data(DataKind::Doc, "block-list", 0, "\u{0}\u{1f600}"),
        data(DataKind::Mark, "log", 1, ""),
    ];
    let puts = rows.iter().cloned().map(Change::PutData).collect();
    write(&driver, Partition::Data(owner()), 10, puts).await;
    assert_eq!(driver.data(&owner()).await.unwrap(), rows);
    let other = Owner { generation: 1, ..owner() };
    assert_eq!(driver.data(&other).await.unwrap(), []);

    let changes = vec![
        Change::DropData(DataKind::Contact, "juliet@example.net".to_owned()),
        Change::DropKind(DataKind::Mark),
        Change::PutData(data(DataKind::Removed, "juliet@example.net", 4, "")),
    ];
    write(&driver, Partition::Data(owner()), 11, changes).await;
    let kinds: Vec<_> = driver.data(&owner()).await.unwrap().into_iter().map(|row| row.kind).collect();
    assert_eq!(kinds, [DataKind::Cursor, DataKind::Doc, DataKind::Removed]);
    write(&driver, Partition::Data(owner()), 12, vec![Change::DropAll]).await;
    assert_eq!(driver.data(&owner()).await.unwrap(), []);
}

pub(crate) async fn a_higher_timestamp_holds_whatever_comes_last(address: String) {
    let driver = driver(&options(&address)).await;
    let put = |number| vec![Change::PutData(data(DataKind::Doc, "block-list", number, "x"))];
    write(&driver, Partition::Data(owner()), 20, put(20)).await;
    write(&driver, Partition::Data(owner()), 10, put(10)).await;
    write(&driver, Partition::Data(owner()), 19, vec![Change::DropKind(DataKind::Doc)]).await;
    assert_eq!(driver.data(&owner()).await.unwrap()[0].number, 20);
    // What is closed stays closed: a delete hides what is written later with a lower timestamp.
    write(&driver, Partition::Data(owner()), 30, vec![Change::DropKind(DataKind::Doc)]).await;
    write(&driver, Partition::Data(owner()), 29, put(29)).await;
    assert_eq!(driver.data(&owner()).await.unwrap(), []);
    write(&driver, Partition::Data(owner()), 31, put(31)).await;
    assert_eq!(driver.data(&owner()).await.unwrap()[0].number, 31);
}

pub(crate) async fn rows_come_from_both_ends_and_over_pages(address: String) {
    let driver = driver(&options(&address)).await;
    let rows: Vec<StoredRow> = (1_000..1_500).map(row).collect();
    for rows in rows.chunks(50) {
        let puts = rows.iter().map(|row| Change::PutRow(Box::new(row.clone()), None)).collect();
        write(&driver, log(), 2_000, puts).await;
    }
    let oldest = driver.rows(&owner(), BUCKET, slice(0, u64::MAX, false, 450)).await.unwrap();
    assert_eq!(oldest, found(&rows[..450]));
    let newest = driver.rows(&owner(), BUCKET, slice(0, u64::MAX, true, 450)).await.unwrap();
    assert_eq!(numbers(&newest), (1_050..1_500).rev().collect::<Vec<_>>());
    let some = driver.rows(&owner(), BUCKET, slice(1_003, 1_005, true, 10)).await.unwrap();
    assert_eq!(numbers(&some), [1_005, 1_004, 1_003]);
    let one = driver.rows(&owner(), BUCKET, slice(1_003, 1_005, false, 1)).await.unwrap();
    assert_eq!(one, found(&rows[3..4]));
    assert_eq!(driver.rows(&owner(), BUCKET, slice(0, 999, true, 10)).await.unwrap(), []);
    assert_eq!(driver.rows(&owner(), Bucket(Position(1)), slice(0, u64::MAX, true, 1)).await.unwrap(), []);

    let wanted = [1_100, 7, 1_001, u64::MAX].map(Position).to_vec();
    let mut found = numbers(&driver.rows_at(&owner(), BUCKET, wanted).await.unwrap());
    found.sort_unstable();
    assert_eq!(found, [1_001, 1_100]);
    assert_eq!(driver.rows_at(&owner(), BUCKET, Vec::new()).await.unwrap(), []);
    let hundred = (1_000..1_100).map(Position).collect();
    assert_eq!(driver.rows_at(&owner(), BUCKET, hundred).await.unwrap().len(), 100);
    let too_many = (1_000..1_101).map(Position).collect();
    assert!(matches!(driver.rows_at(&owner(), BUCKET, too_many).await, Err(CqlError::Invalid(_))));
}

pub(crate) async fn ranges_and_partitions_go(address: String) {
    let driver = driver(&options(&address)).await;
    let all = || driver.rows(&owner(), BUCKET, slice(0, u64::MAX, false, 100));
    let put = |position| Change::PutRow(Box::new(row(position)), None);
    write(&driver, log(), 100, (1_001..=1_006).map(put).collect()).await;
    write(&driver, log(), 101, vec![Change::DropRows(Position(1_002), Position(1_003))]).await;
    assert_eq!(numbers(&all().await.unwrap()), [1_001, 1_004, 1_005, 1_006]);
    write(&driver, log(), 101, vec![Change::DropRows(Position(1_006), Position(u64::MAX))]).await;
    assert_eq!(numbers(&all().await.unwrap()), [1_001, 1_004, 1_005]);
    // Closing: what was read is written again above the range that goes; what comes late stays unseen.
    let changes = vec![Change::PutRow(Box::new(row(1_005)), None)];
    write(&driver, log(), 200, changes).await;
    write(&driver, log(), 199, vec![Change::DropRows(Position(1_002), Position(2_000))]).await;
    write(&driver, log(), 150, vec![put(1_500)]).await;
    assert_eq!(numbers(&all().await.unwrap()), [1_001, 1_005]);
    write(&driver, log(), 300, vec![Change::DropAll]).await;
    assert_eq!(all().await.unwrap(), []);
}

pub(crate) async fn rows_end_by_themselves(address: String) {
    let driver = driver(&options(&address)).await;
    let put = |position, life| Change::PutRow(Box::new(row(position)), life);
    let lives =
        vec![put(1_001, Some(2)), put(1_002, None), put(1_003, Some(u32::MAX)), put(1_004, Some(3_600))];
    // Written with timestamps of long ago: lives count from the write.
    write(&driver, log(), 100, lives).await;
    let peer = Partition::Peer(owner(), jid("juliet@example.net"), Volume(BUCKET.0));
    let entries = vec![
        Change::PutPeer(Position(1_001), BUCKET, Some(2)),
        Change::PutPeer(Position(1_002), BUCKET, None),
    ];
    write(&driver, peer, 100, entries).await;
    let rows = || driver.rows(&owner(), BUCKET, slice(0, u64::MAX, false, 100));
    assert_eq!(rows().await.unwrap().len(), 4);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(numbers(&rows().await.unwrap()), [1_002, 1_003, 1_004]);
    let juliet = jid("juliet@example.net");
    let entries =
        driver.peers(&owner(), &juliet, Volume(BUCKET.0), slice(0, u64::MAX, true, 9)).await.unwrap();
    assert_eq!(entries, [(Position(1_002), BUCKET)]);
}

pub(crate) async fn the_index_and_the_buckets_are_kept(address: String) {
    let driver = driver(&options(&address)).await;
    let (juliet, volume) = (jid("juliet@example.net"), Volume(Position(1_000)));
    let peer = || Partition::Peer(owner(), juliet.clone(), volume);
    let entries = (1..=300).map(|at| Change::PutPeer(Position(1_000 + at), BUCKET, None)).collect();
    write(&driver, peer(), 5, entries).await;
    let newest = driver.peers(&owner(), &juliet, volume, slice(0, u64::MAX, true, 250)).await.unwrap();
    assert_eq!((newest.len(), newest[0], newest[249].0), (250, (Position(1_300), BUCKET), Position(1_051)));
    let oldest = driver.peers(&owner(), &juliet, volume, slice(1_010, 1_011, false, 250)).await.unwrap();
    assert_eq!(oldest, [(Position(1_010), BUCKET), (Position(1_011), BUCKET)]);
    write(&driver, peer(), 6, vec![Change::DropPeers(Position(1_002), Position(1_400))]).await;
    let left = driver.peers(&owner(), &juliet, volume, slice(0, u64::MAX, true, 250)).await.unwrap();
    assert_eq!(left, [(Position(1_001), BUCKET)]);
    let other = driver.peers(&owner(), &jid("nurse@example.net"), volume, slice(0, u64::MAX, true, 9)).await;
    assert_eq!(other.unwrap(), []);
    write(&driver, peer(), 7, vec![Change::DropAll]).await;
    assert_eq!(driver.peers(&owner(), &juliet, volume, slice(0, u64::MAX, true, 9)).await.unwrap(), []);

    let listed = |at, rows| BucketRow { bucket: Bucket(Position(at)), volume, rows };
    let puts =
        [(1_000, 5_000), (2_000, 12), (3_000, 0)].map(|(at, rows)| Change::PutBucket(listed(at, rows)));
    write(&driver, Partition::Buckets(owner()), 5, puts.to_vec()).await;
    let all = driver.buckets(&owner(), None, 10).await.unwrap();
    assert_eq!(all, [listed(3_000, 0), listed(2_000, 12), listed(1_000, 5_000)]);
    let some = driver.buckets(&owner(), Some(Bucket(Position(2_500))), 1).await.unwrap();
    assert_eq!(some, [listed(2_000, 12)]);
    let from = Some(Bucket(Position(u64::MAX)));
    assert_eq!(driver.buckets(&owner(), from, 9).await.unwrap().len(), 3);
    let range = Change::DropBuckets(Bucket(Position(2_001)), Bucket(Position(u64::MAX)));
    write(&driver, Partition::Buckets(owner()), 6, vec![range]).await;
    assert_eq!(driver.buckets(&owner(), None, 9).await.unwrap(), [listed(2_000, 12), listed(1_000, 5_000)]);
    write(&driver, Partition::Buckets(owner()), 7, vec![Change::DropAll]).await;
    assert_eq!(driver.buckets(&owner(), None, 9).await.unwrap(), []);
}

pub(crate) async fn names_and_purges_are_listed(address: String) {
    let driver = driver(&options(&address)).await;
    let names = || Partition::Names("example.net".to_owned(), 7);
    let put = ["romeo", "juliet", "ünder", "0"].map(|name| Change::PutName(name.to_owned())).to_vec();
    write(&driver, names(), 5, put).await;
    assert_eq!(driver.names("example.net", 7, None, 10).await.unwrap(), ["0", "juliet", "romeo", "ünder"]);
    assert_eq!(driver.names("example.net", 7, Some("juliet"), 1).await.unwrap(), ["romeo"]);
    assert_eq!(driver.names("example.net", 8, None, 10).await.unwrap(), Vec::<String>::new());
    write(&driver, names(), 6, vec![Change::DropName("romeo".to_owned())]).await;
    assert_eq!(driver.names("example.net", 7, Some("juliet"), 9).await.unwrap(), ["ünder"]);
    write(&driver, names(), 7, vec![Change::DropAll]).await;
    assert_eq!(driver.names("example.net", 7, None, 9).await.unwrap(), Vec::<String>::new());

    let now = 1_790_000_000_000_000;
    let again = Owner { generation: 3, ..owner() };
    let other = Owner { jid: jid("juliet@example.net"), ..owner() };
    let purge = |owner: &Owner, since, removed| PurgeRow { owner: owner.clone(), since, removed };
    let all = [purge(&other, 76, false), purge(&owner(), 77, false), purge(&again, 78, true)];
    let puts = all.iter().cloned().map(Change::PutPurge).collect();
    write(&driver, Partition::Purges(20_000, 15), now, puts).await;
    assert_eq!(driver.purges(20_000, 15, None, 10).await.unwrap(), all);
    assert_eq!(driver.purges(20_000, 15, None, 1).await.unwrap(), all[..1]);
    assert_eq!(driver.purges(20_000, 15, Some(&other), 10).await.unwrap(), all[1..]);
    assert_eq!(driver.purges(20_000, 15, Some(&owner()), 10).await.unwrap(), all[2..]);
    assert_eq!(driver.purges(20_001, 15, None, 10).await.unwrap(), []);
    let removed = purge(&owner(), 77, true);
    write(&driver, Partition::Purges(20_000, 15), now + 1, vec![Change::PutPurge(removed.clone())]).await;
    assert_eq!(driver.purges(20_000, 15, Some(&other), 1).await.unwrap(), [removed]);
    write(&driver, Partition::Purges(20_000, 15), now + 2, vec![Change::DropAll]).await;
    assert_eq!(driver.purges(20_000, 15, None, 10).await.unwrap(), []);
}

pub(crate) async fn accounts_are_conditional(address: String) {
    let driver = driver(&options(&address)).await;
    let romeo = owner().jid;
    for level in [Level::Quorum, Level::Serial] {
        assert!(driver.account(&romeo, level).await.unwrap().is_none());
    }
    let mine = owner();
    let other = Owner { generation: 6, ..owner() };
    assert!(!driver.set_credentials(&mine, credentials("secret"), credentials("new")).await.unwrap());
    assert!(driver.create_account(&romeo, account(mine.generation)).await.unwrap());
    assert!(!driver.create_account(&romeo, account(6)).await.unwrap());
    let found = driver.account(&romeo, Level::Serial).await.unwrap().unwrap();
    assert_eq!((found.generation, found.created.0, found.disabled), (mine.generation, 7, false));
    assert!(found.credentials == credentials("secret"));
    assert!(!driver.set_credentials(&other, credentials("secret"), credentials("no")).await.unwrap());
    assert!(!driver.set_credentials(&mine, credentials("older"), credentials("no")).await.unwrap());
    assert!(driver.set_credentials(&mine, credentials("secret"), credentials("new")).await.unwrap());
    let found = driver.account(&romeo, Level::Quorum).await.unwrap().unwrap();
    assert!(found.credentials == credentials("new"));
    assert!(!driver.delete_account(&other).await.unwrap());
    assert!(driver.delete_account(&mine).await.unwrap());
    assert!(driver.account(&romeo, Level::Serial).await.unwrap().is_none());
    // Nothing of it is left to a late password change.
    assert!(!driver.set_credentials(&mine, credentials("new"), credentials("late")).await.unwrap());
    assert!(driver.account(&romeo, Level::Serial).await.unwrap().is_none());
    assert!(driver.create_account(&romeo, account(6)).await.unwrap());
    assert!(!driver.delete_account(&mine).await.unwrap());
    // Of many who create one account, one does.
    let nurse = jid("nurse@example.net");
    let tries = (0..6).map(|generation| driver.create_account(&nurse, account(generation)));
    let done = join_all(tries).await.into_iter().filter(|made| matches!(made, Ok(true))).count();
    assert!(done <= 1, "{done}");
}

pub(crate) async fn settings_and_reigns_are_conditional(address: String) {
    let driver = driver(&options(&address)).await;
    let value = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(driver.setting("salt", Level::Serial).await.unwrap(), None);
    assert!(driver.create_setting("salt", value("one")).await.unwrap());
    assert!(!driver.create_setting("salt", value("two")).await.unwrap());
    for level in [Level::Quorum, Level::Serial] {
        assert_eq!(driver.setting("salt", level).await.unwrap(), Some(value("one")));
    }
    assert_eq!(driver.reign().await.unwrap(), None);
    let reign = |epoch, grants| ReignRow {
        epoch,
        ceiling: Position(epoch * 10),
        instance: u128::MAX - 9,
        name: "host:1".to_owned(),
        grants,
    };
    assert!(!driver.set_reign(Some((0, 0)), reign(1, 0)).await.unwrap());
    assert!(driver.set_reign(None, reign(1, 0)).await.unwrap());
    assert!(!driver.set_reign(None, reign(9, 0)).await.unwrap());
    assert_eq!(driver.reign().await.unwrap(), Some(reign(1, 0)));
    assert!(driver.set_reign(Some((1, 0)), reign(1, 1)).await.unwrap());
    assert!(!driver.set_reign(Some((1, 0)), reign(2, 0)).await.unwrap());
    assert!(driver.set_reign(Some((1, 1)), reign(2, 0)).await.unwrap());
    assert_eq!(driver.reign().await.unwrap(), Some(reign(2, 0)));
    let late = driver.set_reign(Some((2, 0)), ReignRow { ceiling: Position(u64::MAX), ..reign(2, 1) }).await;
    assert!(matches!(late, Err(CqlError::Invalid(_))));
}

pub(crate) async fn what_cannot_be_read_names_the_column_only(address: String) {
    let options = options(&address);
    let driver = driver(&options).await;
    let session = raw(&options).await;
    let keyspace = &options.keyspace;
    for (set, column) in [
        ("peer = 'not an@address@at all'", "log.peer"),
        ("direction = 9", "log.direction"),
        ("session = 0x00", "log.session"),
        ("safe = -1", "log.safe"),
        ("nth = -1", "log.nth"),
        ("stanza = null", "log.stanza"),
        ("archived = null", "log.archived"),
    ] {
        let put = |position| Change::PutRow(Box::new(row(position)), None);
        write(&driver, log(), 10, vec![put(1_001), put(1_002)]).await;
        let text = format!(
            "UPDATE {keyspace}.log USING TIMESTAMP 11 SET {set} WHERE jid = 'romeo@example.net' AND generation = -6 \
             AND bucket = 1000 AND position = 1001"
        );
        session.query_unpaged(text, ()).await.unwrap();
        let rows = driver.rows(&owner(), BUCKET, slice(0, u64::MAX, false, 9)).await.unwrap();
        assert_eq!(rows, [Found::Unreadable(Position(1_001), column), Found::Row(row(1_002))]);
        session.query_unpaged(format!("TRUNCATE {keyspace}.log"), ()).await.unwrap();
    }
    let text = format!(
        "INSERT INTO {keyspace}.account_data (jid, generation, kind, name, number, body) \
         VALUES ('romeo@example.net', -6, 'later', '', 1, 0x)"
    );
    session.query_unpaged(text, ()).await.unwrap();
    assert!(
        driver.data(&owner()).await.unwrap().is_empty(),
        "what a newer version keeps is not for this one"
    );
}

pub(crate) async fn a_traced_write_has_a_client_span(address: String) {
    let options = options(&address);
    let (driver, telemetry, spans) = traced(&options).await;
    let trace = telemetry.tracer.start(StanzaKind::Message);
    let put = |position| Change::PutRow(Box::new(row(position)), None);
    let mut one = mutation(log(), 10, vec![put(1_001)]);
    one.traces.extend(trace);
    driver.write(one.clone()).await.unwrap();
    one.attempt = 2;
    driver.write(one).await.unwrap();
    let mut two = mutation(log(), 10, vec![put(1_001), put(1_002)]);
    let other = telemetry.tracer.start(StanzaKind::Message);
    two.traces.extend([trace, other].into_iter().flatten());
    driver.write(two).await.unwrap();
    driver.write(mutation(log(), 10, vec![put(1_003)])).await.unwrap();
    driver.data(&owner()).await.unwrap();

    let mut spans = spans.all();
    let read = spans.pop().unwrap();
    assert_eq!(read.name, format!("SELECT {}.account_data", options.keyspace));
    assert_ne!(read.span_context.trace_id().to_bytes(), trace.unwrap().trace_id, "a trace of its own");
    let keyspace = &options.keyspace;
    let names: Vec<_> = spans.iter().map(|span| span.name.to_string()).collect();
    let insert = format!("INSERT {keyspace}.log");
    assert_eq!(names, [insert.clone(), insert.clone(), format!("BATCH {insert}")]);
    let linked = spans.iter().map(|span| span.links.links.len()).collect::<Vec<_>>();
    assert_eq!(linked, [0, 0, 1], "what was written for another one, too, is linked with that");
    let value = |index: usize, key: &str| {
        let attributes = &spans[index].attributes;
        let found = attributes.iter().find(|attribute| attribute.key.as_str() == key);
        found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
    };
    for (key, wanted) in [
        ("db.system.name", "cassandra"),
        ("db.namespace", keyspace),
        ("db.collection.name", "log"),
        ("db.operation.name", "INSERT"),
        ("db.query.summary", &insert),
        ("cassandra.consistency.level", "local_quorum"),
        ("cassandra.coordinator.dc", "datacenter1"),
        ("server.port", address.rsplit(':').next().unwrap()),
        ("server.address", address.split(':').next().unwrap()),
    ] {
        assert_eq!(value(0, key), wanted, "{key}");
    }
    assert_eq!(
        (value(2, "db.operation.name"), value(2, "db.operation.batch.size")),
        ("BATCH".into(), "2".into())
    );
    assert_eq!(spans[0].events.events.len(), 0);
    assert_eq!(spans[1].events.events[0].name, "retry");
    assert!(spans.iter().all(|span| span.span_context.trace_id().to_bytes() == trace.unwrap().trace_id));
    let shown = format!("{spans:?}");
    assert!(!shown.contains("romeo") && !shown.contains("juliet") && !shown.contains("@example"));

    let metrics = &telemetry.metrics;
    let text = metrics.encode();
    let count = "db_client_operation_duration_seconds_count{db_operation_name=\"INSERT\",db_collection_name=\"log\",result=\"ok\"} 3";
    assert!(text.contains(count), "{text}");
}
