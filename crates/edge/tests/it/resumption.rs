//! A session that goes on over another connection (XEP-0198 §5).

use crate::Site;
use crate::client::{Client, bind};
use crate::pressure::large;
use starling_node::config::MOST_GIVEN;

async fn enabled(site: &Site) -> (Client, String) {
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<presence/><enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    let enabled = client.expect("/>").await;
    let id = enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    (client, id)
}

fn resume(id: &str, h: &str) -> String {
    format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>")
}

fn failed(condition: &str) -> String {
    format!(
        "<failed xmlns='urn:xmpp:sm:3'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
}

#[tokio::test]
async fn goes_on_where_it_was() {
    let site = Site::start().await;
    let (mut client, id) = enabled(&site).await;
    client.send("<message><body>one</body></message>").await;
    client.expect("<body>one</body>").await;
    client.cut();
    assert_eq!(site.home.heard("gone").await, "gone Lost");
    let mut client = Client::authenticated(site.c2s()).await;
    client.send(&resume(&id, "1")).await;
    assert_eq!(client.expect("/>").await, format!("<resumed xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    site.home.heard("resume 1").await;
    client.send("<message><body>two</body></message><r xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.expect(&failed("unexpected-request")).await;
}

#[tokio::test]
async fn all_that_a_home_gives_away_has_room_where_it_is_resumed() {
    let site = Site::with(|config| config.limits.sm.max_unacked_bytes = 1 << 20).await;
    let (client, id) = enabled(&site).await;
    client.cut();
    site.home.heard("gone").await;
    let count = (MOST_GIVEN << 20) / 60_000;
    site.home.leave_waiting((0..=count).map(|_| large()));
    let mut client = Client::authenticated(site.c2s()).await;
    client.send(&resume(&id, "0")).await;
    client.expect("<resumed xmlns='urn:xmpp:sm:3'").await;
    for _ in 0..=count {
        client.expect("</body></message>").await;
    }
}

#[tokio::test]
async fn what_cannot_be_resumed_fails_and_leaves_room_to_bind() {
    let site = Site::start().await;
    site.home.add("bob@localhost", "secret");
    let (client, id) = enabled(&site).await;
    client.cut();
    site.home.heard("gone").await;
    let mut bob = Client::secured(site.c2s()).await;
    bob.plain("bob", "secret").await;
    bob.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    bob.open().await;
    bob.expect("</stream:features>").await;
    bob.send(&resume(&id, "0")).await;
    bob.expect(&failed("item-not-found")).await;
    bob.send(&resume("not one of ours", "0")).await;
    bob.expect(&failed("item-not-found")).await;
    bob.send(&resume(&id, "many")).await;
    bob.expect(&failed("bad-request")).await;
    bob.send(&bind("phone")).await;
    bob.expect("<jid>bob@localhost/phone</jid>").await;
}

#[tokio::test]
async fn nobody_resumes_before_authentication() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    client.send(&resume("AAAAAAAAAAAAAAAAAAAAAA", "0")).await;
    client.expect(&failed("unexpected-request")).await;
    assert_eq!(site.home.count("resume"), 0);
}
