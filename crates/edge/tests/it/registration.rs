//! In-band registration before authentication (XEP-0077; row A13 of the hostile inputs).

use crate::Site;
use crate::client::Client;

fn set(user: &str, password: &str) -> String {
    format!(
        "<iq type='set' id='s'><query xmlns='jabber:iq:register'><username>{user}</username><password>{password}</password></query></iq>"
    )
}

fn error(kind: &str, condition: &str) -> String {
    format!("<error type='{kind}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>")
}

#[tokio::test]
async fn makes_an_account_that_can_log_in() {
    let site = Site::with(|config| config.registration.enabled = true).await;
    let mut client = Client::tcp(site.c2s()).await;
    client.open().await;
    client.expect("<starttls").await;
    let mut client = Client::direct(site.c2s_tls(), Default::default()).await.unwrap();
    client.open().await;
    let features = client.expect("</stream:features>").await;
    assert!(features.contains("<register xmlns='http://jabber.org/features/iq-register'/>"), "{features}");
    client.send("<iq type='get' id='g' to='localhost'><query xmlns='jabber:iq:register'/></iq>").await;
    let form = client.expect("</iq>").await;
    assert!(
        form.contains("<username/><password/>")
            && form.contains("from='localhost'")
            && form.contains("id='g'"),
        "{form}"
    );
    client.send(&set("Bob", "pass word")).await;
    let made = client.expect("/>").await;
    assert_eq!(made, "<iq from='localhost' id='s' type='result'/>");
    // Who may make several makes them on one stream.
    client.send(&set("carol", "x")).await;
    let made = client.expect("/>").await;
    assert_eq!(made, "<iq from='localhost' id='s' type='result'/>");
    client.plain("bob", "pass word").await;
    client.expect("<success").await;
}

#[tokio::test]
async fn each_mistake_has_its_name_and_no_password_comes_back() {
    let site = Site::with(|config| config.registration.enabled = true).await;
    let mut client = Client::secured(site.c2s()).await;
    for (input, answer) in [
        (set("alice", "hunter2"), error("cancel", "conflict")),
        (set("dora", ""), error("modify", "not-acceptable")),
        (set("", "hunter2"), error("modify", "not-acceptable")),
        (set("not a name", "hunter2"), error("modify", "not-acceptable")),
        (set("dora", "hun\u{7}ter2").replace('\u{7}', "&#xFFFD;"), error("modify", "not-acceptable")),
        (
            set("dora", "hunter2").replace("<username>", "<remove/><username>"),
            error("wait", "unexpected-request"),
        ),
        (
            set("dora", "hunter2").replace("id='s'", "id='s' to='other.example'"),
            error("cancel", "service-unavailable"),
        ),
    ] {
        client.send(&input).await;
        let said = client.expect("</iq>").await;
        assert!(said.contains(&answer) && !said.contains("hunter2"), "{input}: {said}");
    }
}

#[tokio::test]
async fn an_address_makes_only_so_many_accounts() {
    let site = Site::with(|config| {
        config.registration.enabled = true;
        config.limits.registration.per_ip_per_hour = 1;
    })
    .await;
    let mut client = Client::secured(site.c2s()).await;
    client.send(&set("bob", "x")).await;
    client.expect("type='result'").await;
    let mut other = Client::secured(site.c2s()).await;
    other.send(&set("carol", "x")).await;
    other.expect(&error("wait", "resource-constraint")).await;
}

#[tokio::test]
async fn is_off_unless_it_is_on() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    for _ in 0..10 {
        client.send(&set("bob", "x")).await;
        client.expect(&error("cancel", "service-unavailable")).await;
    }
    client.send(&set("bob", "x")).await;
    assert!(client.rest().await.contains("<policy-violation"), "and asking for ever is no way to stay");
}
