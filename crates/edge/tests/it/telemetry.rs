//! What operators see: one trace for a stanza, one for a login, and never who it was.

use crate::Site;
use crate::client::Client;
use starling_node::config::TelemetrySettings;
use starling_node::{SystemClock, Telemetry};

#[tokio::test]
async fn a_stanza_is_one_trace_and_a_login_another() {
    let mut settings = TelemetrySettings::default();
    settings.sample.message = 1.0;
    settings.sample.login = 1.0;
    settings.traces_per_second = 1_000;
    let (telemetry, spans) = Telemetry::in_memory(&settings, SystemClock::shared());
    let site = Site::seen_by(telemetry, |_| {}).await;
    let mut client = Client::bound(site.c2s(), "traced").await;
    client.send("<message><body>marker-body</body></message>").await;
    client.expect("</message>").await;
    let spans = spans.all();
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no span {name:?}")).clone()
    };
    let (receive, deliver) = (named("edge receive"), named("edge deliver"));
    assert_eq!(deliver.parent_span_id, receive.span_context.span_id());
    let login = named("login");
    assert_eq!(login.parent_span_id.to_bytes(), [0; 8]);
    for step in ["tls handshake", "authenticate", "bind"].map(named) {
        assert_eq!(step.span_context.trace_id(), login.span_context.trace_id());
        assert_eq!(step.parent_span_id, login.span_context.span_id(), "{step:?}");
        assert!(login.start_time <= step.start_time && step.end_time <= login.end_time, "{step:?}");
    }
    assert_ne!(login.span_context.trace_id(), receive.span_context.trace_id());
    let all = format!("{spans:?}");
    assert!(!all.contains("alice") && !all.contains("marker-body"), "{all}");
}

#[tokio::test]
async fn what_is_open_and_what_was_tried_is_counted() {
    let site = Site::start().await;
    let client = Client::bound(site.c2s(), "one").await;
    let mut failing = Client::secured(site.c2s()).await;
    failing.plain("alice", "wrong").await;
    failing.expect("<not-authorized/>").await;
    let metrics = site.telemetry.metrics.encode();
    for line in [
        "xmpp_server_sessions{transport=\"starttls\",state=\"active\"} 1",
        "xmpp_server_connections{transport=\"starttls\"} 2",
        "xmpp_auth_attempts_total{mechanism=\"plain\",result=\"ok\"} 1",
        "xmpp_auth_attempts_total{mechanism=\"plain\",result=\"not_authorized\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    client.cut();
    failing.cut();
    site.home.heard("gone").await;
    for _ in 0..100 {
        let metrics = site.telemetry.metrics.encode();
        if metrics.contains("xmpp_server_sessions{transport=\"starttls\",state=\"active\"} 0")
            && metrics.contains("xmpp_server_connections{transport=\"starttls\"} 0")
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("what has ended is still counted");
}
