//! One trace per stanza, end to end, and nothing personal in it (design, section 6).
#![allow(clippy::unwrap_used)]

use starling_all_in_one::Running;
use starling_node::listen::Listen;
use starling_node::{Config, SystemClock, Telemetry};
use starling_tests::certificate::Certificate;
use starling_tests::{Login, Target};
use std::collections::HashMap;
use std::time::Duration;

const PASSWORD: &str = "marker-password";
const BODY: &str = "marker-body";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_one_trace_from_socket_to_socket() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::make(dir.path(), &["localhost"]).unwrap();
    let mut config = Config::default();
    config.data_dir = dir.path().join("data");
    let anywhere = || Listen(vec!["127.0.0.1:0".parse().unwrap()]);
    (config.listen.c2s, config.listen.c2s_tls, config.listen.admin) = (anywhere(), anywhere(), anywhere());
    (config.tls.cert, config.tls.key) = (Some(certificate.chain.clone()), Some(certificate.key.clone()));
    config.telemetry.sample.message = 1.0;
    let (telemetry, spans) = Telemetry::in_memory(&config.telemetry, SystemClock::shared());
    let running = Running::start(config.clone(), telemetry.clone()).await.unwrap();
    let address =
        |name: &str| running.listeners().iter().find(|listener| listener.name == name).unwrap().address;

    let mut admin = starling_admin::Client::connect(&config.data_dir).await.unwrap();
    for user in ["marker-alice", "marker-bob"] {
        admin.user_add(&format!("{user}@localhost"), PASSWORD).await.unwrap();
    }
    let target = Target {
        c2s: address("c2s"),
        c2s_tls: Some(address("c2s_tls")),
        domain: "localhost".to_owned(),
        tls: certificate.client_config().unwrap(),
    };
    let mut alice =
        Login::new("marker-alice", PASSWORD).resource("phone").managed().connect(&target).await.unwrap();
    let mut bob = Login::new("marker-bob", PASSWORD).resource("phone").connect(&target).await.unwrap();
    bob.come_online().await.unwrap();
    let message = format!("<message to='marker-bob@localhost' type='chat'><body>{BODY}</body></message>");
    alice.send_stanza(message).await.unwrap();
    bob.next_that(|node| node.name == "message").await.unwrap();
    alice.settle().await.unwrap();

    let wanted = ["edge receive", "home sent", "store write", "home received", "store write", "edge deliver"];
    let all = within(Duration::from_secs(5), || {
        let all: Vec<_> =
            spans.all().into_iter().filter(|span| wanted.contains(&span.name.as_ref())).collect();
        (all.len() >= wanted.len()).then_some(all)
    })
    .await
    .unwrap_or_else(|| panic!("only these ended: {:?}", spans.names()));

    let trace = all[0].span_context.trace_id();
    assert!(all.iter().all(|span| span.span_context.trace_id() == trace), "more than one trace");
    let by_id: HashMap<_, _> = all.iter().map(|span| (span.span_context.span_id(), span)).collect();
    let mut leaf = all.iter().find(|span| span.name == "edge deliver").unwrap();
    let mut path = vec![leaf.name.to_string()];
    while let Some(parent) = by_id.get(&leaf.parent_span_id) {
        path.push(parent.name.to_string());
        leaf = parent;
    }
    path.reverse();
    assert_eq!(path, wanted, "not one line of parents and children");

    let told = format!("{:?} {}", spans.all(), telemetry.metrics.encode());
    for marker in ["marker-alice", "marker-bob", BODY, PASSWORD] {
        assert!(!told.contains(marker), "{marker} is in spans or metrics");
    }
    running.stop().await;
}

async fn within<T>(patience: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    for _ in 0..patience.as_millis() / 20 {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    look()
}

/// Both halves of the process go down with it: nothing holds on to the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_lets_go_of_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.data_dir = dir.path().join("data");
    let anywhere = || Listen(vec!["127.0.0.1:0".parse().unwrap()]);
    (config.listen.c2s, config.listen.c2s_tls, config.listen.admin) = (anywhere(), anywhere(), anywhere());
    for _ in 0..2 {
        let running = Running::start(config.clone(), Telemetry::off()).await.unwrap();
        let second = Running::start(config.clone(), Telemetry::off()).await;
        let error = format!("{:#}", second.err().unwrap());
        assert!(error.contains("in use") || error.contains("process"), "{error}");
        running.stop().await;
    }
}
