//! What a bound session does with what its client says (RFC 6120 §8, XEP-0198, XEP-0352).

use crate::Site;
use crate::client::Client;
use starling_wire::Down;
use starling_xmpp::{MessageType, Stanza};
use std::time::Duration;

const FAILED: &str = "<failed xmlns='urn:xmpp:sm:3'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";

#[tokio::test]
async fn a_stanza_goes_to_the_home_stamped_and_what_it_says_comes_back() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<message to='bob@localhost' id='1'><body>hi</body></message><presence/><iq type='get' id='2'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    client.expect("id='2' type='result'").await;
    let log = site.home.log();
    let stanzas: Vec<&String> = log.iter().filter(|line| line.starts_with("stanza")).collect();
    assert!(
        stanzas[0].contains("from='alice@localhost/phone'")
            && stanzas[0].contains("xml:lang='de'")
            && stanzas[0].contains("<body>hi</body>"),
        "{stanzas:?}"
    );
    assert!(stanzas[1].contains("<presence ") && stanzas[1].contains("xml:lang='de'"), "{stanzas:?}");
    assert!(stanzas[2].contains("<iq ") && !stanzas[2].contains("xml:lang"), "{stanzas:?}");
}

#[tokio::test]
async fn s01_a_from_is_ones_own_or_the_stream_ends() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<message from='alice@localhost'><body>1</body></message><message from='alice@localhost/phone'><body>2</body></message>").await;
    client.expect("<body>2</body>").await;
    client.send("<message from='alice@localhost/other'><body>3</body></message>").await;
    assert!(client.rest().await.ends_with("<stream:error><invalid-from xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"));
    assert_eq!(site.home.heard("gone").await, "gone Closed");
    assert!(!site.home.log().iter().any(|line| line.contains("<body>3")));
}

#[tokio::test]
async fn s05_a_stanza_with_a_fault_is_numbered_and_answered_by_the_home() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<enabled xmlns='urn:xmpp:sm:3'/>").await;
    client.send("<iq type='nonsense' id='1'/><message to='@@' id='2'/><r xmlns='urn:xmpp:sm:3'/>").await;
    let said = client.expect("<a xmlns='urn:xmpp:sm:3' h='2'/>").await;
    assert!(said.contains("<bad-request ") && said.contains("<jid-malformed "), "{said}");
}

#[tokio::test]
async fn x20_a_stanza_that_is_too_large_is_answered_and_the_stream_lives() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    let message = |size: usize| {
        format!("<message to='bob@localhost' id='big'><body>{}</body></message>", "x".repeat(size))
    };
    client.send(&message(262_200)).await;
    let said = client.expect("</message>").await;
    assert!(
        said.contains("<policy-violation ") && said.contains("stanza-too-big") && said.contains("id='big'"),
        "{said}"
    );
    client.send(&message(10_000)).await;
    client.expect("</body></message>").await;
}

#[tokio::test]
async fn an_h_never_runs_ahead_of_the_home() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<presence/><enable xmlns='urn:xmpp:sm:3'/><r xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<enabled xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<a xmlns='urn:xmpp:sm:3' h='0'/>").await;
    site.home.hold();
    client
        .send("<presence/><presence/><r xmlns='urn:xmpp:sm:3'/><presence/><r xmlns='urn:xmpp:sm:3'/>")
        .await;
    site.home.heard("enable").await;
    assert_eq!(client.within(Duration::from_millis(300)).await, "", "no answer while nothing is handled");
    site.home.release();
    client.expect("<a xmlns='urn:xmpp:sm:3' h='3'/><a xmlns='urn:xmpp:sm:3' h='3'/>").await;
}

#[tokio::test]
async fn s17_stream_management_in_the_wrong_state_fails() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    for early in [
        "<r xmlns='urn:xmpp:sm:3'/>",
        "<a xmlns='urn:xmpp:sm:3' h='0'/>",
        "<resume xmlns='urn:xmpp:sm:3' h='0' previd='x'/>",
    ] {
        client.send(early).await;
        client.expect(FAILED).await;
    }
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='1' max='60'/>").await;
    let enabled = client.expect("/>").await;
    assert!(
        enabled.contains(" resume='true'") && enabled.contains(" max='300'") && enabled.contains(" id='"),
        "{enabled}"
    );
    assert_eq!(site.home.heard("enable").await, "enable true Some(60)");
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.expect(FAILED).await;
    client.send("<a xmlns='urn:xmpp:sm:3' h='0'/><a xmlns='urn:xmpp:sm:3' h='0'/>").await;
    site.home.heard("acknowledged 0").await;
    client.send("<presence/><r xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("h='1'/>").await;
    assert_eq!(site.home.count("acknowledged"), 1, "what is no news is not passed on");
}

#[tokio::test]
async fn s17_an_h_that_cannot_be_ends_the_stream() {
    let site = Site::start().await;
    for (h, condition) in
        [("-1", "undefined-condition"), ("4294967296", "undefined-condition"), ("x", "bad-format")]
    {
        let mut client = Client::bound(site.c2s(), "phone").await;
        client.send(&format!("<enable xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='{h}'/>")).await;
        let end = client.rest().await;
        assert!(end.contains(&format!("<{condition} ")), "{h}: {end}");
        assert_eq!(
            end.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3'/>"),
            condition == "undefined-condition",
            "{end}"
        );
    }
}

#[tokio::test]
async fn s18_x26_what_is_not_known_ends_the_stream() {
    let site = Site::start().await;
    for (input, condition) in [
        ("<stream:what/>", "unsupported-stanza-type"),
        ("<what xmlns='urn:example:what'/>", "unsupported-stanza-type"),
        ("<message xmlns='jabber:server'/>", "invalid-namespace"),
        ("text", "bad-format"),
        ("<!-- -->", "restricted-xml"),
        ("<message><body>&foo;</body></message>", "restricted-xml"),
        ("<message><body>&#0;</body></message>", "not-well-formed"),
        ("<message a='1' a='2'/>", "not-well-formed"),
        ("<message></stream:stream>", "not-well-formed"),
    ] {
        let mut client = Client::bound(site.c2s(), "phone").await;
        client.send(input).await;
        let end = client.rest().await;
        assert!(
            end.contains(&format!("<stream:error><{condition} ")) && end.ends_with("</stream:stream>"),
            "{input}: {end}"
        );
    }
}

#[tokio::test]
async fn client_state_is_passed_on_when_it_changes() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<active xmlns='urn:xmpp:csi:0'/><inactive xmlns='urn:xmpp:csi:0'/><inactive xmlns='urn:xmpp:csi:0'/>").await;
    site.home.heard("active false").await;
    let metrics = site.telemetry.metrics.encode();
    assert!(
        metrics.contains("xmpp_server_sessions{transport=\"starttls\",state=\"csi_inactive\"} 1"),
        "{metrics}"
    );
    client.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    site.home.heard("active true").await;
    assert_eq!(site.home.count("active"), 2);
}

#[tokio::test]
async fn a_stream_that_is_closed_is_closed_back_after_what_came_before() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<enabled xmlns='urn:xmpp:sm:3'/>").await;
    site.home.hold();
    client.send("<message><body>last</body></message><r xmlns='urn:xmpp:sm:3'/></stream:stream>").await;
    client.expect("<body>last</body></message>").await;
    assert_eq!(client.within(Duration::from_millis(200)).await, "");
    assert_eq!(site.home.count("gone"), 0);
    site.home.release();
    assert_eq!(client.rest().await, "<a xmlns='urn:xmpp:sm:3' h='1'/></stream:stream>");
    assert_eq!(site.home.heard("gone").await, "gone Closed");
}

#[tokio::test]
async fn t14_a_connection_that_breaks_is_lost_and_half_a_stanza_is_nothing() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<message><body>half").await;
    client.cut();
    assert_eq!(site.home.heard("gone").await, "gone Lost");
    assert_eq!(site.home.count("stanza"), 0);
    for _ in 0..100 {
        if site.edge.connections() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection stays in the table");
}

#[tokio::test]
async fn a_quiet_client_is_asked_and_then_let_go() {
    let site = Site::with(|config| {
        config.limits.stream.idle = Duration::from_millis(500);
        config.limits.sm.ack_timeout = Duration::from_millis(500);
    })
    .await;
    let mut plain = Client::bound(site.c2s(), "plain").await;
    let mut managed = Client::bound(site.c2s(), "managed").await;
    managed.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    managed.expect("<r xmlns='urn:xmpp:sm:3'/>").await;
    managed.send("<a xmlns='urn:xmpp:sm:3' h='0'/>").await;
    site.home.heard("idle").await;
    let end = plain.rest().await;
    assert!(end.ends_with("<stream:error><connection-timeout xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"), "{end}");
    assert_eq!(site.home.heard("gone").await, "gone Lost");
    managed.send(" ").await;
    managed.expect("<r xmlns='urn:xmpp:sm:3'/>").await;
}

#[tokio::test]
async fn x23_a_stanza_may_not_take_for_ever() {
    let site = Site::with(|config| config.limits.stream.stanza = Duration::from_millis(400)).await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    for byte in "<message><body>slowly, slowly, slowly".bytes() {
        if client.send_bytes(&[byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(client.rest().await.contains("<connection-timeout "));
}

#[tokio::test]
async fn what_is_written_is_told_with_the_next_word_or_soon() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    let say = || Down::Stanza {
        number: 0,
        position: None,
        waits: false,
        counts: false,
        stanza: Stanza::message(MessageType::Headline),
        answers: 0,
        trace: None,
    };
    site.home.say(say);
    client.expect("<message type='headline'/>").await;
    site.home.heard("written 1").await;
    site.home.say(say);
    site.home.say(say);
    client.expect("<message type='headline'/><message type='headline'/>").await;
    client.send("<presence/>").await;
    site.home.heard("written 3").await;
}

#[tokio::test]
async fn the_home_can_end_a_stream() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    let error = || starling_xmpp::StreamError::new(starling_xmpp::StreamCondition::Conflict);
    site.home.say(|| Down::Close(Some(Box::new(error()))));
    assert!(client.rest().await.ends_with(
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
    ));
}
