//! Headers, features and the order of steps (RFC 6120 §4, §5, §7; rows T and S16 of the hostile inputs).

use crate::Site;
use crate::client::{Client, Tls, bind, header};
use starling_node::config::Config;
use std::time::Duration;

fn ends_with(text: &str, condition: &str) {
    let error = format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
    let good = text.contains(&error) && text.ends_with("</stream:error></stream:stream>");
    assert!(good, "expected {condition}: {text}");
}

async fn after_header(site: &Site, header: &str) -> String {
    let mut client = Client::tcp(site.c2s()).await;
    client.send(header).await;
    client.rest().await
}

#[tokio::test]
async fn each_state_offers_its_features_and_no_other() {
    let site = Site::start().await;
    let mut client = Client::tcp(site.c2s()).await;
    client.open().await;
    let clear = client.expect("</stream:features>").await;
    assert!(
        clear.starts_with("<?xml version='1.0'?><stream:stream ")
            && clear.contains(" from='localhost' xml:lang='de'>"),
        "{clear}"
    );
    assert!(clear.contains("<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"), "{clear}");
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    client.handshake(Tls::default()).await.unwrap();
    client.open().await;
    let tls = client.expect("</stream:features>").await;
    for mechanism in [
        "SCRAM-SHA-512-PLUS",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "PLAIN",
    ] {
        assert!(tls.contains(&format!("<mechanism>{mechanism}</mechanism>")), "{tls}");
    }
    assert!(tls.contains("<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/><channel-binding type='tls-server-end-point'/></sasl-channel-binding>"), "{tls}");
    assert!(
        tls.contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>8192</max-bytes></limits>"),
        "{tls}"
    );
    assert!(!tls.contains("starttls") && !tls.contains("<bind") && !tls.contains("iq-register"), "{tls}");
    client.plain("alice", "secret").await;
    client.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    client.open().await;
    let authenticated = client.expect("</stream:features>").await;
    for feature in [
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
        "<sm xmlns='urn:xmpp:sm:3'/>",
        "<csi xmlns='urn:xmpp:csi:0'/>",
        "<ver xmlns='urn:xmpp:features:rosterver'/>",
        "<sub xmlns='urn:xmpp:features:pre-approval'/>",
        "<max-bytes>262144</max-bytes><idle-seconds>900</idle-seconds>",
    ] {
        assert!(authenticated.contains(feature), "{feature} is not in {authenticated}");
    }
    assert!(!authenticated.contains("mechanism"), "{authenticated}");
    let ids: Vec<&str> = [&clear, &tls, &authenticated]
        .map(|text| text.split(" id='").nth(1).unwrap().split('\'').next().unwrap())
        .into();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0].len() >= 12, "a new id each time: {ids:?}");
}

#[tokio::test]
async fn t03_t04_t05_a_bad_header_gets_a_header_and_its_error() {
    let site = Site::start().await;
    let good = header("localhost");
    for (header, condition) in [
        (good.replace("to='localhost' ", ""), "improper-addressing"),
        (header("alice@localhost"), "improper-addressing"),
        (header("nobody.example"), "host-unknown"),
        (good.replace("etherx", "ether"), "invalid-namespace"),
        (good.replace("jabber:client", "jabber:server"), "invalid-namespace"),
        (good.replace("version='1.0' xml", "version='0.9' xml"), "unsupported-version"),
        (good.replace("version='1.0' xml", "xml"), "unsupported-version"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "not-well-formed"),
        ("\u{16}\u{3}\u{1}".to_owned(), "not-well-formed"),
        ("<?xml version='1.0' encoding='UTF-16'?>".to_owned(), "unsupported-encoding"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>".to_owned(), "restricted-xml"),
    ] {
        let text = after_header(&site, &header).await;
        assert!(
            text.starts_with("<?xml version='1.0'?><stream:stream ") && text.contains(" from='localhost'"),
            "{header}: {text}"
        );
        ends_with(&text, condition);
    }
}

#[tokio::test]
async fn the_domain_is_compared_canonically_and_the_from_said_back() {
    let site = Site::start().await;
    let mut client = Client::tcp(site.c2s()).await;
    client
        .send(
            &header("LocalHost.").replace("version='1.0' xml", "from='Juliet@Example.org' version='1.0' xml"),
        )
        .await;
    let text = client.expect("</stream:features>").await;
    assert!(text.contains(" from='localhost' to='juliet@example.org' "), "{text}");
}

#[tokio::test]
async fn t07_nothing_but_tls_comes_first() {
    let site = Site::start().await;
    for (input, condition) in [
        ("<message/>", "not-authorized"),
        ("<iq type='set' id='r'><query xmlns='jabber:iq:register'/></iq>", "not-authorized"),
        ("<enable xmlns='urn:xmpp:sm:3'/>", "unsupported-stanza-type"),
        ("<stream:features/>", "unsupported-stanza-type"),
        ("hello", "bad-format"),
        ("<message></b>", "not-well-formed"),
    ] {
        let text = after_header(&site, &(header("localhost") + input)).await;
        ends_with(&text, condition);
    }
}

#[tokio::test]
async fn a02_authentication_in_the_clear_is_refused() {
    let site = Site::start().await;
    let mut client = Client::tcp(site.c2s()).await;
    client.open().await;
    client.expect("</stream:features>").await;
    for _ in 0..3 {
        client.plain("alice", "secret").await;
        client
            .expect("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><encryption-required/></failure>")
            .await;
    }
    client.plain("alice", "secret").await;
    ends_with(&client.rest().await, "policy-violation");
}

#[tokio::test]
async fn t08_starttls_inside_tls_ends_the_stream() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    assert_eq!(client.rest().await, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>");
}

#[tokio::test]
async fn t09_what_is_pipelined_behind_starttls_is_never_executed() {
    let site = Site::start().await;
    let mut client = Client::tcp(site.c2s()).await;
    client.open().await;
    client.expect("</stream:features>").await;
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>";
    let injected =
        format!("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{}{auth}", header("localhost"));
    client.send(&injected).await;
    client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    client.handshake(Tls::default()).await.unwrap();
    assert_eq!(client.within(Duration::from_millis(200)).await, "", "nothing was taken over into TLS");
    client.open().await;
    let features = client.expect("</stream:features>").await;
    assert!(features.contains("<mechanisms") && !features.contains("<success"), "{features}");
}

#[tokio::test]
async fn t15_t16_the_stream_restarts_only_where_it_may_and_to_the_same_domain() {
    let site = Site::with(|config| config.domains = vec!["localhost".into(), "other.example".into()]).await;
    let mut client = Client::secured(site.c2s()).await;
    client.plain("alice", "secret").await;
    client.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    client.send(&header("other.example")).await;
    ends_with(&client.rest().await, "not-authorized");

    let mut client = Client::secured(site.c2s()).await;
    client.plain("alice", "secret").await;
    client.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    client
        .send(&header("localhost").replace("version='1.0' xml", "from='bob@localhost' version='1.0' xml"))
        .await;
    ends_with(&client.rest().await, "invalid-from");

    let mut client = Client::secured(site.c2s()).await;
    client.send(&header("localhost")).await;
    let text = client.rest().await;
    assert!(text.contains("<stream:error>"), "{text}");
}

#[tokio::test]
async fn a_client_may_send_its_new_header_with_the_last_word_of_authentication() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>";
    client.send(&format!("{auth}{}{}", header("localhost"), bind("eager"))).await;
    client.expect("<jid>alice@localhost/eager</jid>").await;
}

#[tokio::test]
async fn s16_binding_answers_what_is_asked() {
    let site = Site::start().await;
    let mut client = Client::authenticated(site.c2s()).await;
    client.send("<iq type='get' id='g'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
    client.expect("<bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>").await;
    client.send(&bind("taken")).await;
    client.expect("<conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>").await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<failed xmlns='urn:xmpp:sm:3'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>").await;
    client.send("<iq type='set' id='n'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await;
    let answer = client.expect("</iq>").await;
    assert_eq!(
        answer,
        "<iq id='n' type='result'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>alice@localhost/made</jid></bind></iq>"
    );
    client.send(&bind("again")).await;
    client.expect("<not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>").await;
    assert!(
        site.home.heard("stanza ").await.ends_with(" not-allowed"),
        "the home numbers what the edge refuses"
    );
}

#[tokio::test]
async fn before_binding_no_stanza_goes_anywhere() {
    let site = Site::start().await;
    let mut client = Client::authenticated(site.c2s()).await;
    client.send("<message to='alice@localhost'><body>early</body></message>").await;
    ends_with(&client.rest().await, "not-authorized");
    let mut client = Client::authenticated(site.c2s()).await;
    for _ in 0..8 {
        client.send(&bind("taken")).await;
    }
    ends_with(&client.rest().await, "policy-violation");
    assert!(site.home.log().iter().all(|line| !line.starts_with("stanza")));
}

#[tokio::test]
async fn t02_x23_whoever_says_nothing_or_too_slowly_is_let_go() {
    let short = |config: &mut Config| {
        let stream = &mut config.limits.stream;
        stream.tcp_accept_to_header = Duration::from_millis(300);
        stream.header_to_tls = Duration::from_millis(300);
        stream.tls_to_auth = Duration::from_millis(300);
    };
    let site = Site::with(short).await;
    let mut silent = Client::tcp(site.c2s()).await;
    ends_with(&silent.rest().await, "connection-timeout");
    let mut slow = Client::tcp(site.c2s()).await;
    for byte in "<?xml version='1.0'?><stream".bytes() {
        if slow.send_bytes(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ends_with(&slow.rest().await, "connection-timeout");
    let mut idle = Client::tcp(site.c2s()).await;
    idle.open().await;
    ends_with(&idle.rest().await, "connection-timeout");
    let mut no_hello = Client::tcp(site.c2s_tls()).await;
    assert_eq!(no_hello.rest().await, "", "no error in the clear where TLS is spoken");
    let mut unauthenticated = Client::secured(site.c2s()).await;
    ends_with(&unauthenticated.rest().await, "connection-timeout");
    let mut unbound = Client::authenticated(site.c2s()).await;
    ends_with(&unbound.rest().await, "connection-timeout");
    assert!(
        site.telemetry
            .metrics
            .encode()
            .contains("starling_limit_rejections_total{reason=\"pre_auth_timeout\"} 6"),
        "each is counted"
    );
}

#[tokio::test]
async fn the_limits_before_authentication_are_tight() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    client
        .send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}",
            "A".repeat(9_000)
        ))
        .await;
    ends_with(&client.rest().await, "policy-violation");
}

#[tokio::test]
async fn an_address_has_only_so_many_connections() {
    let site = Site::with(|config| config.limits.conn.unauth_per_ip = 2).await;
    let mut first = Client::tcp(site.c2s()).await;
    let mut second = Client::secured(site.c2s()).await;
    assert_eq!(Client::tcp(site.c2s()).await.rest().await, "");
    second.plain("alice", "secret").await;
    second.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    let mut third = Client::tcp(site.c2s()).await;
    third.open().await;
    third.expect("</stream:features>").await;
    first.open().await;
    first.expect("</stream:features>").await;
}

#[tokio::test]
async fn a_home_that_is_away_is_said_so() {
    let site = Site::start().await;
    let mut client = Client::secured(site.c2s()).await;
    assert!(site.edge.ready());
    site.home.go_away();
    assert!(!site.edge.ready());
    client.plain("alice", "secret").await;
    client
        .expect("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/></failure>")
        .await;
}
