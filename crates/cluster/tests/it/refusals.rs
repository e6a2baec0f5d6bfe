//! Processes that do not go together: who is wrong ends and says why, who is right goes on.

use crate::people::Edge;
use crate::site::{Site, jid, until};
use starling_cluster::{EdgeNode, RouterNode};
use starling_node::config::ClusterTls;
use starling_node::listen::Listen;
use starling_node::{Config, Telemetry};
use starling_store::SharedStore;
use starling_wire::RouterLink;
use starling_wire::Shard;
use starling_wire::tls::Role;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(40);

async fn run(site: &Site, config: Config) -> RouterNode {
    let store: SharedStore = Arc::new(site.store.clone());
    Box::pin(RouterNode::start_on(store, config, Telemetry::off())).await.unwrap()
}

/// A router that has ended, in another directory: this process may hold on to the one that it had.
async fn run_again(site: &Site, number: usize) -> RouterNode {
    let mut config = site.config(number);
    let from = std::mem::replace(&mut config.data_dir, site.data_dir(number).with_extension("again"));
    copy(&from, &config.data_dir);
    Box::pin(run(site, config)).await
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Waits for its end; what it says then.
async fn end(node: &RouterNode) -> String {
    timeout(SOON, node.failed()).await.expect("it goes on").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_does_not_go_with_the_others_ends_and_they_go_on() {
    let mut site = Site::empty(5).await;
    for number in 0..3 {
        site.run(number).await;
    }
    site.settled(Duration::from_secs(30)).await;
    let edge = Edge::start(&site, 1).await;

    // One of that name is there.
    let mut config = site.config(3);
    config.cluster.node = Some("router-1".to_owned());
    config.cluster.tls = site.config(1).cluster.tls;
    let namesake = Box::pin(run(&site, config)).await;
    let said = end(&namesake).await;
    assert!(said.contains("refuse this router") && said.contains("is called \"router-1\" already"), "{said}");
    assert!(said.contains("cluster.node"), "what to do: {said}");
    // Another number of shards, which the disk does not know yet.
    let mut config = site.config(4);
    config.cluster.shards = 8;
    let odd = Box::pin(run(&site, config)).await;
    let said = end(&odd).await;
    // Either of the two may have found it out.
    assert!(said.contains("number of shards differs: ") && said.contains(r#"8 at "router-4""#), "{said}");
    assert!((0..3).any(|one| said.contains(&format!(r#"16 at "router-{one}""#))), "{said}");
    for wrong in [namesake, odd] {
        assert_eq!((wrong.serves(), wrong.is_ready()), (0, false), "a lone router serves nobody");
        wrong.abort().await;
    }
    // Nobody took the place of anybody.
    for node in site.running() {
        assert_eq!(node.locations().members().len(), 3);
    }
    site.settled(Duration::from_secs(30)).await;
    assert!(edge.uplink.account(&jid("nobody")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_was_only_restarted_has_its_place_and_its_namesake_ends() {
    let mut site = Site::empty(4).await;
    for number in 0..3 {
        site.run(number).await;
    }
    site.settled(Duration::from_secs(30)).await;
    let own = site.routers[1].as_ref().unwrap().locations().id();
    site.routers[1].take().unwrap().stop().await;
    let mut config = site.config(3);
    config.cluster.node = Some("router-1".to_owned());
    config.cluster.tls = site.config(1).cluster.tls;
    let namesake = Box::pin(run(&site, config)).await;
    until(SOON, "it waits for the place", || namesake.locations().kept_out().is_some()).await;
    assert!(!namesake.locations().has_its_part());
    site.routers[1] = Some(Box::pin(run_again(&site, 1)).await);
    let said = end(&namesake).await;
    assert!(said.contains("router-1\" already") && said.contains("cluster.node"), "{said}");
    namesake.abort().await;
    for node in site.running() {
        let members = node.locations().members();
        assert!(members.len() == 3 && members.contains_key(&own), "{members:?}");
    }
    site.settled(Duration::from_secs(30)).await;
}

/// Settings of an edge.
fn edge_config(site: &Site, name: &str) -> Config {
    let mut config = site.config(0);
    config.data_dir = site.data_dir(0).with_file_name(name);
    config.cluster.node = Some(name.to_owned());
    let files = site.files(Role::Edge, name);
    config.cluster.tls = ClusterTls { ca: Some(files.ca), cert: Some(files.cert), key: Some(files.key) };
    config.listen.cluster = Listen(Vec::new());
    config.listen.c2s = Listen(vec![([127, 0, 0, 1], 0).into()]);
    config.listen.c2s_tls = Listen(Vec::new());
    config.drain.lb_settle = Duration::from_millis(700);
    config.drain.window = Duration::from_millis(700);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_does_not_go_with_the_routers_ends() {
    let site = Site::start(3).await;
    let mut config = edge_config(&site, "edge-8");
    config.cluster.shards = 8;
    let refused = timeout(SOON, EdgeNode::start(config, Telemetry::off())).await.expect("it waits for ever");
    let said = refused.err().expect("it serves").to_string();
    assert!(said.contains("refuse this edge") && said.contains(r#"8 at "edge-8""#), "{said}");
}

/// Asks whether a process is ready until it says so.
async fn until_ready(probes: SocketAddr, is_it: impl Fn(&str) -> bool) {
    let asked = async {
        loop {
            let mut stream = TcpStream::connect(probes).await.unwrap();
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            if is_it(&answer) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, asked).await.expect("it says something else");
}

/// `ctl drain NODE`, asked at a router that is neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_processes_are_sent_away_through_a_router() {
    let mut site = Site::start(3).await;
    let mut config = edge_config(&site, "edge-9");
    config.listen.admin = Listen(vec![([127, 0, 0, 1], 0).into()]);
    let edge = EdgeNode::start(config, Telemetry::off()).await.unwrap();
    let address = |name: &str| edge.listeners().iter().find(|one| one.name == name).unwrap().address;
    let probes = address("admin");
    until_ready(probes, |answer| answer.starts_with("HTTP/1.1 200")).await;
    let mut admin = starling_admin::Client::connect(&site.data_dir(0)).await.unwrap();
    let code = |result: Result<starling_admin::api::DrainBody, starling_admin::ClientError>| match result {
        Err(starling_admin::ClientError::Refused(body)) => body.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(admin.drain(Some("nobody")).await), "not_found");
    // It may not be linked to this router yet.
    let mut looks = 0;
    let begun = loop {
        match admin.drain(Some("edge-9")).await {
            Ok(begun) => break begun,
            Err(error) => {
                looks += 1;
                assert!(looks < 200, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    assert_eq!(begun.phase, "settling");
    timeout(SOON, edge.leaving()).await.expect("it is not told");
    // Nobody is led to it any more.
    until_ready(probes, |answer| answer.starts_with("HTTP/1.1 503") && answer.contains("draining")).await;
    let ending = tokio::spawn(edge.stop());
    let mut phases = Vec::new();
    let ended = loop {
        match admin.draining(Some("edge-9")).await {
            Ok(now) if phases.last() != Some(&now.phase) => phases.push(now.phase),
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            error => break code(error),
        }
    };
    assert_eq!(ended, "not_found");
    assert!(phases.iter().any(|phase| phase == "settling" || phase == "leaving"), "{phases:?}");
    ending.await.unwrap();

    let leaving = site.routers[2].take().unwrap();
    let left = admin.drain(Some("router-2")).await.unwrap();
    assert_eq!(left.phase, "settling");
    timeout(SOON, leaving.leaving()).await.expect("it is not told");
    let ending = tokio::spawn(leaving.stop());
    let gone = async {
        while admin.draining(Some("router-2")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, gone).await.expect("it does not end");
    ending.await.unwrap();
    until(SOON, "the others serve all", || site.running().map(RouterNode::serves).sum::<usize>() == 16).await;

    // Who is silent is named, if it leads anything, and the rest is told.
    let stopped = site.routers[1].take().unwrap();
    if stopped.serves() == 0 {
        let locations = site.routers[0].as_ref().unwrap().locations();
        locations.give(Shard(0), stopped.id()).await.unwrap();
    }
    stopped.abort().await;
    let status = admin.status().await.unwrap();
    let named =
        |name: &str| status.details.iter().filter(move |detail| detail.name == name).collect::<Vec<_>>();
    let is_it = |detail: &&starling_admin::api::Detail| detail.value.starts_with("router router-1: ");
    assert!(named("silent").iter().any(is_it), "{status:?}");
    assert_eq!(named("role").len(), 1, "{status:?}");
}
