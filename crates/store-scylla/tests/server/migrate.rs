//! Migrations on a server.

use crate::world::{driver, options, raw};
use starling_node::{SystemClock, Telemetry};
use starling_store_scylla::driver::Driver;
use starling_store_scylla::driver::connect::ConnectError;
use starling_store_scylla::migrations::{self, Fitness, MigrateError, Progress, list::LIST};
use starling_store_scylla::options::{Options, Replication};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

async fn run(options: &Options, text: &str) {
    let text = text.replace("{k}", &options.keyspace);
    raw(options).await.query_unpaged(text, ()).await.unwrap();
}

async fn start(options: &Options) -> String {
    match Driver::connect(options, &Telemetry::off(), SystemClock::shared()).await {
        Err(ConnectError::Schema(refusal)) => refusal.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => String::new(),
    }
}

pub(crate) async fn a_fresh_server_gets_all_of_it_and_then_nothing(address: String) {
    let options = options(&address);
    let before = migrations::status(&options).await.unwrap();
    assert_eq!((before.fitness, before.pending.len()), (Fitness::NoKeyspace, LIST.len()));
    assert!(start(&options).await.contains("starling migrate apply"));
    let plan = migrations::plan(&options).await.unwrap();
    assert!(plan.statements[0].starts_with("CREATE KEYSPACE"), "{:?}", plan.statements);
    assert!(plan.statements.iter().any(|text| text.contains(&format!("{}.log_by_peer", options.keyspace))));

    let mut seen = Vec::new();
    let done =
        migrations::apply(&options, "host:1", PATIENCE, &mut |progress| seen.push(progress)).await.unwrap();
    assert_eq!(done.len(), LIST.len());
    assert_eq!(seen[0], Progress::Created(options.replication.clone()));
    assert!(matches!(seen.last(), Some(Progress::Applied { .. })));

    let after = migrations::status(&options).await.unwrap();
    assert_eq!((after.fitness, after.pending.len(), after.unwritten.len()), (Fitness::Fits, 0, 0));
    assert_eq!((after.replication, after.held_by), (Some(options.replication.clone()), None));
    assert_eq!((after.applied.len(), after.applied[0].by.as_str()), (LIST.len(), "host:1"));
    assert!(after.applied[0].at_millis > 1_700_000_000_000);
    assert_eq!(migrations::plan(&options).await.unwrap().statements, Vec::<String>::new());
    let again = migrations::apply(&options, "host:2", PATIENCE, &mut |_| ()).await.unwrap();
    assert!(again.is_empty());
    assert_eq!(start(&options).await, "");
}

pub(crate) async fn two_at_once_are_one_after_the_other(address: String) {
    let options = options(&address);
    let mut waited = (Vec::new(), Vec::new());
    let mut one = |progress| waited.0.push(progress);
    let mut other = |progress| waited.1.push(progress);
    let (one, other) = tokio::join!(
        migrations::apply(&options, "host:1", PATIENCE, &mut one),
        migrations::apply(&options, "host:2", PATIENCE, &mut other),
    );
    let done = one.unwrap().len() + other.unwrap().len();
    assert_eq!(done, LIST.len(), "each migration was applied once");
    let holder = |progress: &Progress| matches!(progress, Progress::Waiting { .. });
    let waiting = waited.0.iter().chain(&waited.1).filter(|progress| holder(progress)).count();
    assert!(waiting <= 1);
    driver(&options).await;
}

pub(crate) async fn what_was_killed_half_way_is_begun_anew(address: String) {
    let options = options(&address);
    for statements in [1, 4, 7] {
        let (said, mut heard) = tokio::sync::mpsc::channel(64);
        let task = {
            let options = options.clone();
            tokio::spawn(async move {
                let mut progress = |progress| {
                    if matches!(progress, Progress::Statement { .. }) {
                        said.try_send(()).unwrap();
                    }
                };
                migrations::apply(&options, "killed", PATIENCE, &mut progress).await.map(|done| done.len())
            })
        };
        for _ in 0..statements {
            heard.recv().await.unwrap();
        }
        task.abort();
        let _ = task.await;
        assert!(matches!(migrations::status(&options).await.unwrap().fitness, Fitness::TooOld(1)));
        assert!(start(&options).await.contains("lacks version 1"));
        // Its lock would end by itself.
        run(&options, "DELETE FROM {k}.schema_lock WHERE name = 'apply' IF EXISTS").await;
    }
    driver(&options).await;
}

pub(crate) async fn somebody_who_does_not_end_is_named(address: String) {
    let options = options(&address);
    driver(&options).await;
    run(
        &options,
        "INSERT INTO {k}.schema_lock (name, holder, ticket) VALUES ('apply', 'elsewhere:7', 0x00) IF NOT EXISTS USING TTL 4",
    )
    .await;
    assert_eq!(migrations::status(&options).await.unwrap().held_by.as_deref(), Some("elsewhere:7"));
    let mut seen = Vec::new();
    let patience = Duration::from_secs(1);
    let error = migrations::apply(&options, "host:1", patience, &mut |progress| seen.push(progress))
        .await
        .unwrap_err();
    assert!(matches!(&error, MigrateError::Held { holder, .. } if holder == "elsewhere:7"), "{error:?}");
    assert!(error.to_string().starts_with("elsewhere:7 is applying migrations"), "{error}");
    assert_eq!(seen, [Progress::Waiting { holder: "elsewhere:7".to_owned() }]);
    // It has gone: its lock ends, and the next one that waits gets it.
    assert!(migrations::apply(&options, "host:1", PATIENCE, &mut |_| ()).await.unwrap().is_empty());
    assert_eq!(migrations::status(&options).await.unwrap().held_by, None);
}

pub(crate) async fn a_server_refuses_what_it_does_not_fit(address: String) {
    let options = options(&address);
    driver(&options).await;
    let later = migrations::newest() + 1;
    let insert = |version: u32, kind: &str| {
        format!(
            "INSERT INTO {{k}}.schema_versions (family, version, name, kind, applied_at, checksum, applied_by) \
             VALUES ('starling', {version}, 'later', '{kind}', 0, '', '')"
        )
    };
    run(&options, &insert(later, "expand")).await;
    assert_eq!(start(&options).await, "", "an expansion does no harm");
    let plan = migrations::plan(&options).await.unwrap();
    assert!(plan.refusal.is_none() && plan.remarks[0].contains("the schema is newer"), "{plan:?}");
    run(&options, &insert(later + 1, "contract")).await;
    let text = start(&options).await;
    assert!(text.contains(&format!("{} (later)", later + 1)) && text.contains("newer than this"), "{text}");
    assert!(text.contains("run the newer starling") && !text.contains("migrate apply"), "{text}");
    refused(&options, "newer than this server").await;
    run(
        &options,
        &format!("DELETE FROM {{k}}.schema_versions WHERE family = 'starling' AND version = {}", later + 1),
    )
    .await;
    run(
        &options,
        &format!("INSERT INTO {{k}}.schema_versions (family, version) VALUES ('starling', {})", later + 1),
    )
    .await;
    assert!(start(&options).await.contains("newer than this"), "nobody says that it only adds");
    run(
        &options,
        &format!("DELETE FROM {{k}}.schema_versions WHERE family = 'starling' AND version = {}", later + 1),
    )
    .await;
    run(&options, "UPDATE {k}.schema_versions SET checksum = 'x' WHERE family = 'starling' AND version = 1")
        .await;
    assert!(start(&options).await.contains("another text"));
    refused(&options, "another text").await;
    run(&options, "DELETE FROM {k}.schema_versions WHERE family = 'starling'").await;
    let text = start(&options).await;
    assert!(text.contains("too old") && text.contains("starling migrate apply"), "{text}");
    run(&options, "DROP KEYSPACE {k}").await;
    assert!(start(&options).await.contains("there is no keyspace"));
}

/// `plan` and `apply` do nothing, and say why.
async fn refused(options: &Options, words: &str) -> Vec<String> {
    let plan = migrations::plan(options).await.unwrap();
    let why = plan.refusal.map(|refusal| refusal.why).unwrap_or_default();
    assert!(why.contains(words), "{why}");
    match migrations::apply(options, "host:1", PATIENCE, &mut |_| ()).await {
        Err(MigrateError::Refused(refusal)) => assert_eq!(refusal.why, why),
        other => panic!("{other:?}"),
    }
    assert_eq!(migrations::status(options).await.unwrap().held_by, None);
    plan.statements
}

pub(crate) async fn what_was_dropped_is_noticed_and_comes_back_as_planned(address: String) {
    let options = options(&address);
    driver(&options).await;
    run(&options, "ALTER TABLE {k}.log DROP stanza").await;
    run(&options, "DROP TABLE {k}.log_by_peer").await;
    let text = start(&options).await;
    assert!(text.contains("column log.stanza is missing, table log_by_peer is missing"), "{text}");
    assert!(text.contains("backup") && text.contains("starling migrate plan"), "{text}");
    let statements = refused(&options, "table log_by_peer is missing").await;
    assert_eq!(statements.len(), 2, "{statements:?}");
    for statement in statements {
        run(&options, &statement).await;
    }
    assert_eq!(start(&options).await, "");
    assert!(migrations::plan(&options).await.unwrap().refusal.is_none());
    // Without the books nobody could apply anything; they are made again.
    run(&options, "DROP TABLE {k}.schema_lock").await;
    assert_eq!(start(&options).await, "");
    let plan = migrations::plan(&options).await.unwrap();
    assert!(plan.statements.len() == 1 && plan.statements[0].contains("schema_lock"), "{plan:?}");
    assert!(migrations::apply(&options, "host:1", PATIENCE, &mut |_| ()).await.unwrap().is_empty());
    assert!(migrations::status(&options).await.unwrap().unwritten.is_empty());
    // One with another key can only be taken from a backup.
    run(&options, "DROP TABLE {k}.reigns").await;
    run(&options, "CREATE TABLE {k}.reigns (name text, epoch bigint, ceiling bigint, instance blob, holder text, grants bigint, PRIMARY KEY (name, epoch))").await;
    let text = start(&options).await;
    assert!(text.contains("column reigns.epoch is another one") && !text.contains("plan"), "{text}");
    assert_eq!(refused(&options, "reigns.epoch").await, Vec::<String>::new());
}

pub(crate) async fn more_copies_than_nodes_are_refused_before_anything_is_made(address: String) {
    let options = options(&address);
    let copies = |name: &str, copies| Replication(BTreeMap::from([(name.to_owned(), copies)]));
    for (replication, words) in [
        (copies("datacenter1", 3), "3 copies in datacenter1, which has 1 node"),
        (copies("dc9", 1), "1 copy in dc9, a datacenter that there is not: there is datacenter1 with 1 node"),
    ] {
        let options = Options { replication, ..options.clone() };
        assert_eq!(refused(&options, words).await, Vec::<String>::new());
        assert_eq!(migrations::status(&options).await.unwrap().fitness, Fitness::NoKeyspace);
    }
    // Made by somebody else: a quorum of two never answers.
    run(
        &options,
        "CREATE KEYSPACE {k} WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 3}",
    )
    .await;
    refused(&options, "a quorum of 2 can never answer").await;
}

pub(crate) async fn other_copies_are_said_and_left(address: String) {
    let options = options(&address);
    driver(&options).await;
    let wanted = Replication(BTreeMap::from([("datacenter1".to_owned(), 3)]));
    let other = Options { replication: wanted.clone(), ..options.clone() };
    let plan = migrations::plan(&other).await.unwrap();
    assert!(plan.remarks[0].contains("{\"datacenter1\": 1}"), "{:?}", plan.remarks);
    let mut seen = Vec::new();
    migrations::apply(&other, "host:1", PATIENCE, &mut |progress| seen.push(progress)).await.unwrap();
    assert_eq!(seen, [Progress::Differs { wanted, there: options.replication.clone() }]);
    assert_eq!(migrations::status(&options).await.unwrap().replication, Some(options.replication));
}

pub(crate) async fn a_store_belongs_to_one_datacenter(address: String) {
    let options = options(&address);
    driver(&options).await;
    let status = migrations::status(&options).await.unwrap();
    assert_eq!(status.datacenter.as_deref(), Some("datacenter1"));
    run(&options, "DELETE FROM {k}.cluster WHERE name = 'datacenter' IF EXISTS").await;
    assert!(start(&options).await.contains("starling migrate apply"));
    assert!(migrations::apply(&options, "host:1", PATIENCE, &mut |_| ()).await.unwrap().is_empty());
    assert_eq!(start(&options).await, "");
    // Somebody has begun in another one.
    run(&options, "UPDATE {k}.cluster SET body = textAsBlob('dc9') WHERE name = 'datacenter' IF EXISTS")
        .await;
    let error = Driver::connect(&options, &Telemetry::off(), SystemClock::shared()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Datacenter(_)), "{text}");
    assert!(text.contains("belongs to datacenter dc9") && text.contains("starling migrate move"), "{text}");
    assert!(migrations::apply(&options, "host:1", PATIENCE, &mut |_| ()).await.is_err());
    assert_eq!(migrations::status(&options).await.unwrap().held_by, None);
    assert_eq!(migrations::move_here(&options, "host:1", PATIENCE, &mut |_| ()).await.unwrap(), "dc9");
    assert_eq!(start(&options).await, "");
}
