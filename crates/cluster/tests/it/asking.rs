//! What is asked of one router about accounts of any.

use crate::people::{Client, Edge};
use crate::site::{Site, jid, until};
use starling_admin::Client as Admin;
use starling_cluster::EdgeNode;
use starling_node::Telemetry;
use starling_store::AccountRow;
use starling_wire::{Registration, RouterLink};
use starling_xmpp::sasl::Credentials;
use std::time::Duration;

/// As SASL asks, and a client that is told to try again.
async fn account_row(edge: &Edge, name: &str) -> Option<AccountRow> {
    for _ in 0..20 {
        if let Ok(row) = edge.uplink.account(&jid(name)).await {
            return row;
        }
    }
    panic!("nobody knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_router_knows_all_accounts() {
    let site = Site::start(3).await;
    let edge = Edge::start(&site, 1).await;
    let mut admin = Admin::connect(&site.data_dir(1)).await.unwrap();
    let names: Vec<_> = (0..8).map(|one| format!("user{one}")).collect();
    for name in &names {
        admin.user_add(&format!("{name}@localhost"), "secret").await.unwrap();
        assert!(admin.user_add(&format!("{name}@localhost"), "secret").await.is_err(), "it is there");
        let row = account_row(&edge, name).await.unwrap();
        admin.user_passwd(&format!("{name}@localhost"), "another").await.unwrap();
        let after = account_row(&edge, name).await.unwrap();
        assert_ne!(row.credentials, after.credentials);
    }
    let derived = Credentials::derive("secret", [7; 16], 4_096).unwrap();
    let registered = edge.uplink.register(&jid("carol"), derived.clone()).await;
    assert!(matches!(registered, Ok(Registration::Created)));
    assert!(matches!(edge.uplink.register(&jid("carol"), derived).await, Ok(Registration::Conflict)));

    let mut clients = Vec::new();
    for name in &names {
        clients.push(Client::managed(&edge, name, "phone").await);
    }
    clients[0].lose();
    // Where a home has just moved its sessions are there again in a moment.
    let mut looks = 0;
    loop {
        let listed = admin.sessions(None, 100).await.map(|page| page.sessions);
        if listed.as_ref().is_ok_and(|listed| listed.len() == names.len()) {
            break;
        }
        looks += 1;
        assert!(looks < 200, "{listed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(admin.sessions(Some("user3@localhost"), 100).await.unwrap().sessions.len(), 1);
    let status = admin.status().await.unwrap();
    assert_eq!((status.sessions, status.detached), (8, 1), "{status:?}");

    // Who is where, and who leads.
    let place = admin.find("user2@localhost").await.unwrap().places.remove(0);
    assert_eq!(
        (place.jid.as_str(), place.edge.as_str(), place.moves),
        ("user2@localhost/phone", "edge-1", 0)
    );
    let standing = admin.raft().await.unwrap();
    assert!(standing.routers.iter().all(|router| router.votes && router.linked), "{standing:?}");
    assert_eq!(standing.routers.iter().map(|router| router.leads).sum::<usize>(), 16);
    assert_eq!(standing.shards.iter().map(|shard| shard.sessions).sum::<u64>(), 8);
    let heir = standing.routers.iter().min_by_key(|router| router.leads).unwrap().name.clone();
    // A busy machine may not get it done the first time.
    let mut attempts = 0;
    while let Err(error) = admin.raft_transfer(place.shard, &heir).await {
        attempts += 1;
        assert!(attempts < 10, "{error}");
    }
    assert!(admin.raft_transfer(place.shard, "nobody").await.is_err());
    assert!(admin.raft_transfer(99, &heir).await.is_err());
    until(Duration::from_secs(5), "the shard is led by its heir", || edge.uplink.load().0 == 16).await;
    clients[2].tell("user5", "after the move");
    clients[5].until("it is told", |seen| seen.messages == ["after the move"]).await;
    // The router that is asked may hear of it a moment later.
    let mut looks = 0;
    loop {
        let moved = admin.find("user2@localhost").await.unwrap().places.remove(0);
        if moved.home.as_ref() == Some(&heir) && moved.epoch > place.epoch {
            break;
        }
        looks += 1;
        assert!(looks < 100, "{moved:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admin.raft_snapshot(None).await.unwrap();

    admin.user_delete("user3@localhost").await.unwrap();
    clients[3].until("it is sent away", |seen| seen.closed).await;
    assert!(account_row(&edge, "user3").await.is_none());
    assert!(admin.user_delete("user3@localhost").await.is_err(), "it is gone");
    for router in site.routers.into_iter().flatten() {
        router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_names_the_domains_that_it_serves_now() {
    let site = Site::start(3).await;
    let mut config = site.edge_config("edge-1");
    let edge = EdgeNode::start(config.clone(), Telemetry::off()).await.unwrap();
    config.domains.push("other.example".to_owned());
    edge.reload(&config).unwrap();
    let mut admin = Admin::connect(&config.data_dir).await.unwrap();
    assert_eq!(admin.status().await.unwrap().domains, config.domains);
    edge.stop().await;
}
