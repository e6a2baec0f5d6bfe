//! What is asked of one router about accounts of any.

use crate::people::{Client, Edge};
use crate::site::{Site, jid};
use starling_admin::Client as Admin;
use starling_wire::{Registration, RouterLink};
use starling_xmpp::sasl::Credentials;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_router_knows_all_accounts() {
    let site = Site::start(3).await;
    let edge = Edge::start(&site, 1).await;
    let mut admin = Admin::connect(&site.data_dir(1)).await.unwrap();
    let names: Vec<_> = (0..8).map(|one| format!("user{one}")).collect();
    for name in &names {
        admin.user_add(&format!("{name}@localhost"), "secret").await.unwrap();
        assert!(admin.user_add(&format!("{name}@localhost"), "secret").await.is_err(), "it is there");
        let row = edge.uplink.account(&jid(name)).await.unwrap().unwrap();
        admin.user_passwd(&format!("{name}@localhost"), "another").await.unwrap();
        let after = edge.uplink.account(&jid(name)).await.unwrap().unwrap();
        assert_ne!(row.credentials, after.credentials);
    }
    let keys = Credentials::derive("secret", [7; 16], 4_096).unwrap();
    let registered = edge.uplink.register(&jid("carol"), keys.clone()).await;
    assert!(matches!(registered, Ok(Registration::Created)));
    assert!(matches!(edge.uplink.register(&jid("carol"), keys).await, Ok(Registration::Conflict)));

    let mut clients = Vec::new();
    for name in &names {
        clients.push(Client::managed(&edge, name, "phone").await);
    }
    clients[0].lose();
    let listed = admin.sessions(None, 100).await.unwrap().sessions;
    assert_eq!(listed.len(), names.len(), "{listed:?}");
    assert_eq!(admin.sessions(Some("user3@localhost"), 100).await.unwrap().sessions.len(), 1);
    let status = admin.status().await.unwrap();
    assert_eq!((status.sessions, status.detached), (8, 1), "{status:?}");

    admin.user_delete("user3@localhost").await.unwrap();
    clients[3].until("it is sent away", |seen| seen.closed).await;
    assert!(edge.uplink.account(&jid("user3")).await.unwrap().is_none());
    assert!(admin.user_delete("user3@localhost").await.is_err(), "it is gone");
    for router in site.routers.into_iter().flatten() {
        router.stop().await;
    }
}
