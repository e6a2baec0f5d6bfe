//! Edges find all routers, whomever they were told to ask.

use crate::people::Edge;
use crate::site::{Site, until};
use starling_admin::Client as Admin;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The edge is linked to this router.
async fn is_linked(site: &Site, router: usize, edge: &str, within: Duration) {
    let mut admin = Admin::connect(&site.data_dir(router)).await.unwrap();
    let end = Instant::now() + within;
    let name = format!("edge {edge}");
    loop {
        let details = admin.status().await.map(|status| status.details);
        if details.as_ref().is_ok_and(|details| details.iter().any(|detail| detail.name == name)) {
            return;
        }
        assert!(Instant::now() < end, "router {router} has no link: {details:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_with_one_seed_that_lives_links_to_all() {
    let mut site = Site::empty(4).await;
    for number in 0..3 {
        site.run(number).await;
    }
    site.settled(Duration::from_secs(30)).await;
    let seeds = vec!["127.0.0.1:1".to_owned(), site.addresses()[0].clone()];
    // It waits until all homes are there.
    let edge = Edge::with_seeds(&site, 1, seeds).await;
    for router in 0..3 {
        is_linked(&site, router, "edge-1", Duration::from_secs(5)).await;
    }
    // The seed goes, a new router comes: those that are known tell of it.
    site.kill(0).await;
    site.run(3).await;
    is_linked(&site, 3, "edge-1", Duration::from_secs(20)).await;
    until(Duration::from_secs(10), "all shards have a home", || edge.uplink.load().0 == 16).await;
}
