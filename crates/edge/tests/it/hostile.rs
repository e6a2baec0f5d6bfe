//! A bad client next to a good one: whatever it sends, the good one does not notice.

use crate::Site;
use crate::client::{Client, header};
use std::time::Duration;

#[tokio::test]
async fn each_byte_alone_says_the_same() {
    let site = Site::start().await;
    let mut client = Client::tcp(site.c2s()).await;
    for byte in header("localhost").bytes() {
        client.send_bytes(&[byte]).await.unwrap();
    }
    client.expect("</stream:features>").await;
    let mut client = Client::bound(site.c2s(), "slow").await;
    for byte in "<message><body>one by one</body></message>".bytes() {
        client.send_bytes(&[byte]).await.unwrap();
    }
    client.expect("<body>one by one</body>").await;
}

#[tokio::test]
async fn a_good_client_does_not_notice_a_hundred_bad_ones() {
    let site = Site::start().await;
    let mut good = Client::bound(site.c2s(), "good").await;
    let mut bad = Vec::new();
    for number in 0..100 {
        let mut client = Client::tcp(site.c2s()).await;
        let text = match number % 4 {
            0 => "<".repeat(10_000),
            1 => header("localhost") + &"<a>".repeat(3_000),
            2 => header("localhost") + "<message " + &"a='1' ".repeat(1_000),
            _ => "\0".repeat(100),
        };
        let _ = client.send_bytes(text.as_bytes()).await;
        bad.push(client);
    }
    good.send("<message><body>hi</body></message>").await;
    good.expect("<body>hi</body>").await;
    for mut client in bad {
        let end = client.rest().await;
        assert!(end.is_empty() || end.ends_with("</stream:error></stream:stream>"), "{end}");
    }
}

#[tokio::test]
async fn requests_without_end_are_answered_at_the_clients_own_pace() {
    let site = Site::with(|config| config.limits.rate.c2s_stanzas_burst = 50).await;
    let mut client = Client::bound(site.c2s(), "flood").await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.send(&"<r xmlns='urn:xmpp:sm:3'/>".repeat(2_000)).await;
    let answered = client.within(Duration::from_millis(600)).await.matches("<a ").count();
    assert!((40..200).contains(&answered), "{answered}");
}
