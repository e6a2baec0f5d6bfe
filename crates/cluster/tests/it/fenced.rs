//! The store knows of a later home, and the router does not.

use crate::people::{Client, Edge};
use crate::site::{Site, jid, until};
use futures::future::select_all;
use starling_store::{Position, Reign, Store};
use std::time::Duration;
use tokio::time::timeout;

/// Its clients are sent away instead of waiting for ever, and so is the router.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_the_store_turns_away_holds_nobody() {
    let site = Site::start(3).await;
    let edge = Edge::start(&site, 1).await;
    site.account("alice").await;
    let mut alice = Client::managed(&edge, "alice", "phone").await;
    alice.until("her presence is handled", |seen| seen.handled == 1).await;
    let later = Reign { epoch: u64::MAX / 2, floor: Position(u64::MAX / 4) };
    site.store.load(&jid("alice"), later).await.unwrap();
    alice.tell("alice", "one");
    let all = usize::from(site.shards().count());
    until(Duration::from_secs(3), "edges do not read her any more", || edge.uplink.load().0 < all).await;
    until(Duration::from_secs(8), "she is sent away", || edge.desk.has_cut(alice.conn)).await;
    assert_eq!(alice.open(), 1, "nothing was promised");
    let failed = select_all(site.running().map(|router| Box::pin(router.failed())));
    let (why, ..) = timeout(Duration::from_secs(8), failed).await.unwrap();
    assert!(why.to_string().contains("the store takes nothing of shard"), "{why}");
}
