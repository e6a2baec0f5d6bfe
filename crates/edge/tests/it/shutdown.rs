//! An edge that stops tells everybody, in every state, and waits for them.

use crate::Site;
use crate::client::Client;
use std::time::Duration;

#[tokio::test]
async fn every_stream_hears_of_the_shutdown_and_the_home_of_every_end() {
    let site = Site::start().await;
    let (c2s, c2s_tls) = (site.c2s(), site.c2s_tls());
    let mut fresh = Client::tcp(c2s).await;
    let mut secured = Client::secured(c2s).await;
    let mut authenticated = Client::authenticated(c2s).await;
    let mut bound = Client::bound(c2s, "bound").await;
    let stop = tokio::spawn(async move { (site.edge.stop().await, site) });
    for client in [&mut fresh, &mut secured, &mut authenticated, &mut bound] {
        let end = client.rest().await;
        assert!(end.ends_with("<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"), "{end}");
    }
    drop((fresh, secured, authenticated, bound));
    let (drained, site) = tokio::time::timeout(Duration::from_secs(8), stop).await.unwrap().unwrap();
    assert!(drained, "all are gone within the grace period");
    assert_eq!(site.home.count("gone"), 1);
    assert_eq!(site.home.heard("gone").await, "gone Closed");
    assert_eq!(site.edge.connections(), 0);
    assert!(!site.edge.ready());
    for address in [c2s, c2s_tls] {
        let refused = tokio::net::TcpStream::connect(address).await;
        assert!(refused.is_err(), "nobody listens any more");
    }
}

#[tokio::test]
async fn a_client_that_does_not_go_is_not_waited_for_beyond_the_grace_period() {
    let site = Site::with(|config| {
        config.shutdown.grace = Duration::from_millis(700);
        config.limits.stream.close = Duration::from_secs(60);
    })
    .await;
    let _stays = Client::bound(site.c2s(), "stays").await;
    let began = std::time::Instant::now();
    assert!(!site.edge.stop().await);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(site.home.heard("gone").await, "gone Closed");
}
