//! S16 to S18: binding, stream management and signs that are used wrong.

use anyhow::{Context, Result, ensure};
use starling_tests::client::{Incoming, SM, Stream};
use starling_tests::{Client, Node};

use crate::scene::{ALONE, Case, Phase, Scene, cases, refused};

use Phase::Bound;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        s16_too_many_resources with [("limits.session.max_resources", "3")],
        s16_bad_resources,
        s16_conflict,
        s16_bind_twice,
        s16_refuse_policy with [("session.conflict", "refuse")],
        s17_acknowledged_too_much,
        s17_odd_counters,
        s17_enabling_wrong,
        s17_resuming_wrong,
        s17_resumed_twice,
        s17_request_flood with ALONE,
        s18_sign_flood,
        s18_unknown_sign,
    ]
}

fn bind(resource: &str) -> String {
    format!(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
    )
}

/// Binds on an authenticated stream and gives the answer.
async fn try_bind(stream: &mut Stream, resource: &str) -> Result<Node> {
    stream.send(bind(resource).as_bytes()).await?;
    stream.node().await
}

async fn s16_too_many_resources(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?;
    let mut kept = Vec::new();
    for n in 0..3 {
        kept.push(login.clone().resource(&format!("r{n}")).connect(scene.server.target()).await?);
    }
    let mut stream = login.authenticate(scene.server.target()).await?;
    let answer = try_bind(&mut stream, "r3").await?;
    ensure!(answer.condition().as_deref() == Some("wait resource-constraint"), "{answer}");
    // The stream stays: one goes, and the next try works.
    if let Some(one) = kept.pop() {
        one.close().await?;
    }
    let answer = try_bind(&mut stream, "r3").await?;
    ensure!(answer.attribute("type") == Some("result"), "{answer}");
    for mut client in kept {
        client.ping().await?;
    }
    Ok(())
}

async fn s16_bad_resources(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?;
    for resource in ["r".repeat(1_024), "a\u{7F}b".to_owned(), "\u{FFF9}".to_owned(), "a\u{85}".to_owned()] {
        let mut stream = login.authenticate(scene.server.target()).await?;
        let answer = try_bind(&mut stream, &resource).await?;
        ensure!(answer.condition().as_deref() == Some("modify bad-request"), "{answer}");
        let answer = try_bind(&mut stream, &"r".repeat(1_023)).await?;
        ensure!(answer.attribute("type") == Some("result"), "{answer}");
    }
    // Payloads that are none.
    for payload in [
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource/></bind>",
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
    ] {
        let mut stream = login.authenticate(scene.server.target()).await?;
        stream.send(format!("<iq type='set' id='b'>{payload}</iq>").as_bytes()).await?;
        let answer = stream.node().await?;
        ensure!(answer.attribute("type") == Some("result"), "{answer}");
    }
    let mut stream = login.authenticate(scene.server.target()).await?;
    stream.send(b"<iq type='get' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>").await?;
    let answer = stream.next().await?;
    ensure!(
        matches!(&answer, Incoming::Node(n) if n.name == "error" || n.condition().is_some()),
        "{answer:?}"
    );
    Ok(())
}

async fn s16_conflict(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?.resource("same");
    let mut old = login.connect(scene.server.target()).await?;
    for _ in 0..5 {
        let new = login.connect(scene.server.target()).await?;
        let condition = old.stream_error().await?;
        ensure!(condition == "conflict", "{condition}");
        old = new;
    }
    old.ping().await
}

async fn s16_bind_twice(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    refused(&mut alice, &bind("other").replace("id='b'", "id='{id}'"), &["cancel not-allowed"]).await?;
    alice.ping().await
}

async fn s16_refuse_policy(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?;
    let mut old = login.clone().resource("same").connect(scene.server.target()).await?;
    let mut stream = login.authenticate(scene.server.target()).await?;
    let answer = try_bind(&mut stream, "same").await?;
    ensure!(answer.condition().as_deref() == Some("cancel conflict"), "{answer}");
    old.ping().await?;
    let answer = try_bind(&mut stream, "other").await?;
    ensure!(answer.attribute("type") == Some("result"), "{answer}");
    Ok(())
}

async fn managed(scene: &Scene, user: &str) -> Result<Client> {
    scene.account(user).await?.resource(user).managed().connect(scene.server.target()).await
}

async fn s17_acknowledged_too_much(scene: &mut Scene) -> Result<()> {
    for h in ["1000", "4294967295", "5"] {
        let mut alice = managed(scene, &format!("alice{h}")).await?;
        alice.send_raw(format!("<a xmlns='{SM}' h='{h}'/>").as_bytes()).await?;
        let told = match alice.stream().next().await? {
            Incoming::Node(node) => node,
            other => anyhow::bail!("{other:?}"),
        };
        ensure!(told.children().next().is_some_and(|c| c.name == "undefined-condition"), "{told}");
        let detail = told.find(SM, "handled-count-too-high");
        ensure!(
            detail.is_some_and(|d| d.attribute("h") == Some(h) && d.attribute("send-count") == Some("0")),
            "{told}"
        );
        alice.stream().closed(starling_tests::PATIENCE).await?;
    }
    Ok(())
}

async fn s17_odd_counters(scene: &mut Scene) -> Result<()> {
    for (n, h) in ["-1", "4294967296", "x", "", "1.0", "0x1"].iter().enumerate() {
        let mut alice = managed(scene, &format!("alice{n}x")).await?;
        alice.send_raw(format!("<a xmlns='{SM}' h='{h}'/>").as_bytes()).await?;
        let condition = alice.stream_error().await.with_context(|| format!("h={h:?}"))?;
        let known = ["undefined-condition", "bad-format", "policy-violation", "invalid-xml"];
        ensure!(known.contains(&condition.as_str()), "h={h:?}: {condition}");
    }
    let mut alice = managed(scene, "alice").await?;
    alice.send_raw(format!("<a xmlns='{SM}'/>").as_bytes()).await?;
    alice.stream_error().await.context("no h")?;
    Ok(())
}

/// The next element must be `<failed/>` with one of these conditions.
async fn failed(stream: &mut Stream, conditions: &[&str]) -> Result<()> {
    let answer = stream.node().await?;
    let got = answer.condition().unwrap_or_default();
    ensure!(answer.is(SM, "failed") && conditions.contains(&got.as_str()), "{answer}");
    Ok(())
}

async fn s17_enabling_wrong(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?;
    let mut stream = login.authenticate(scene.server.target()).await?;
    stream.send(format!("<enable xmlns='{SM}'/>").as_bytes()).await?;
    failed(&mut stream, &["unexpected-request"]).await?;
    let answer = try_bind(&mut stream, "r").await?;
    ensure!(answer.attribute("type") == Some("result"), "{answer}");
    stream.send(format!("<enable xmlns='{SM}'/>").as_bytes()).await?;
    let answer = stream.node().await?;
    ensure!(answer.is(SM, "enabled"), "{answer}");
    // Not resumable unless asked for.
    ensure!(!matches!(answer.attribute("resume"), Some("true" | "1")), "{answer}");
    stream.send(format!("<enable xmlns='{SM}' resume='true'/>").as_bytes()).await?;
    failed(&mut stream, &["unexpected-request"]).await?;
    stream.send(b"<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
    ensure!(stream.node().await?.attribute("id") == Some("p"));

    // Asking and acknowledging without having enabled anything.
    let mut stream = scene.stream(Bound, "alice").await?;
    stream.send(format!("<r xmlns='{SM}'/><a xmlns='{SM}' h='0'/>").as_bytes()).await?;
    stream.send(b"<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
    let answer = stream.node().await?;
    ensure!(answer.name != "a", "an answer to <r/> without stream management");
    Ok(())
}

async fn s17_resuming_wrong(scene: &mut Scene) -> Result<()> {
    let alice = managed(scene, "alice").await?;
    let id = alice.management().and_then(|m| m.id()).unwrap_or_default().to_owned();
    ensure!(id.len() >= 16, "a guessable id: {id}");
    let login = scene.account("mallory").await?;
    let request = |id: &str, h: &str| {
        format!("<resume xmlns='{SM}' previd='{}' h='{h}'/>", starling_tests::xml::escape(id))
    };

    // Of somebody else, of nobody, cut short, longer, twice as long as sense.
    let long = "x".repeat(5_000);
    for previd in
        [id.as_str(), "", "x", &id[..id.len() - 1], &format!("{id}0"), "../../etc/passwd", "\u{1F426}", &long]
    {
        let mut stream = login.authenticate(scene.server.target()).await?;
        stream.send(request(previd, "0").as_bytes()).await?;
        failed(&mut stream, &["item-not-found", "bad-request", "unexpected-request"]).await?;
        // A fresh session can follow on the same stream (section 5).
        let answer = try_bind(&mut stream, "again").await?;
        ensure!(answer.attribute("type") == Some("result"), "{answer}");
    }
    // Without h, with a nonsensical one; the session survives all that.
    let own = scene.login("alice");
    for bad in [format!("<resume xmlns='{SM}' previd='{id}'/>"), request(&id, "-1"), request(&id, "x")] {
        let mut stream = own.authenticate(scene.server.target()).await?;
        stream.send(bad.as_bytes()).await?;
        let answer = stream.next().await?;
        let told = matches!(&answer, Incoming::Node(n) if n.is(SM, "failed") || n.name == "error");
        ensure!(told, "{bad}: {answer:?}");
    }
    // Before login.
    let mut stream = own.secure(scene.server.target()).await?.0;
    stream.send(request(&id, "0").as_bytes()).await?;
    let answer = stream.next().await?;
    ensure!(!matches!(&answer, Incoming::Node(n) if n.is(SM, "resumed")), "resumed without login");
    let mut alice = alice;
    alice.ping().await
}

async fn s17_resumed_twice(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?.resource("phone").managed();
    let mut old = login.connect(scene.server.target()).await?;
    let id = old.management().and_then(|m| m.id()).unwrap_or_default().to_owned();
    let request = format!("<resume xmlns='{SM}' previd='{id}' h='0'/>");
    // While the old connection is alive: it gets conflict, the new one goes on.
    let mut first = login.authenticate(scene.server.target()).await?;
    first.send(request.as_bytes()).await?;
    ensure!(first.node().await?.is(SM, "resumed"));
    let condition = old.stream_error().await?;
    ensure!(condition == "conflict", "{condition}");
    // Again by another connection.
    let mut second = login.authenticate(scene.server.target()).await?;
    second.send(request.as_bytes()).await?;
    ensure!(second.node().await?.is(SM, "resumed"));
    let condition = first.stream_error().await?;
    ensure!(condition == "conflict", "{condition}");
    // Twice on one stream.
    second.send(request.as_bytes()).await?;
    failed(&mut second, &["unexpected-request"]).await?;
    second.send(b"<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
    ensure!(second.node().await?.attribute("id") == Some("p"));
    Ok(())
}

async fn s17_request_flood(scene: &mut Scene) -> Result<()> {
    let mut alice = managed(scene, "alice").await?;
    let before = scene.server.resident()?;
    let many = format!("<r xmlns='{SM}'/>").repeat(1_000);
    for _ in 0..50 {
        alice.send_raw(many.as_bytes()).await?;
        while let Some(starling_tests::client::Received::Acknowledged(_)) =
            alice.receive(std::time::Duration::from_millis(1)).await?
        {}
    }
    alice.ping().await?;
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < 48 << 20, "memory grew by {grown} bytes");
    Ok(())
}

async fn s18_sign_flood(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let many = "<inactive xmlns='urn:xmpp:csi:0'/><active xmlns='urn:xmpp:csi:0'/>".repeat(1_000);
    for _ in 0..20 {
        alice.send_raw(many.as_bytes()).await?;
    }
    alice.ping().await?;
    // Pings by the thousand are answered one by one.
    let mut wanted = 0;
    for n in 0..2_000 {
        alice
            .send_raw(format!("<iq type='get' id='f{n}'><ping xmlns='urn:xmpp:ping'/></iq>").as_bytes())
            .await?;
        wanted += 1;
    }
    for n in 0..wanted {
        let answer = alice.next().await?;
        ensure!(answer.attribute("id") == Some(&format!("f{n}")), "{answer}");
    }
    Ok(())
}

async fn s18_unknown_sign(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in [
        "<sleepy xmlns='urn:xmpp:csi:0'/>",
        "<nonza xmlns='urn:xmpp:sm:3'/>",
        "<enable xmlns='urn:xmpp:sm:2'/>",
        "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
        "<stream:nonza/>",
    ] {
        scene
            .ends_with(&[Bound], xml.as_bytes(), &["unsupported-stanza-type", "unsupported-feature"])
            .await?;
    }
    Ok(())
}
