//! H01, H02: archive queries that ask for too much, for what is not there, or for what is not theirs.

use anyhow::{Result, ensure};
use starling_tests::client::Received;
use starling_tests::{Client, Node, SILENCE};

use crate::scene::{Case, Scene, cases, refused, shorten};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        h01_page_sizes,
        h01_unknown_ids,
        h01_archive_of_another,
        h01_wrong_forms,
        h01_many_at_a_time,
        h02_largest_message,
    ]
}

const MAM: &str = "urn:xmpp:mam:2";

async fn fill(client: &mut Client, count: usize) -> Result<()> {
    for n in 0..count {
        client
            .send(&format!("<message to='away@localhost' type='chat' id='m{n}'><body>{n}</body></message>"))
            .await?;
    }
    client.ping().await
}

/// A query and its answer: how many results came before it, and the IQ.
async fn query(client: &mut Client, inner: &str) -> Result<(usize, Node)> {
    client.send(&format!("<iq type='set' id='query'><query xmlns='{MAM}'>{inner}</query></iq>")).await?;
    let mut results = 0;
    loop {
        let node = client.next().await?;
        if node.attribute("id") == Some("query") {
            return Ok((results, node));
        }
        if node.find(MAM, "result").is_some() {
            results += 1;
        }
    }
}

fn page(inner: &str) -> String {
    format!("<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>")
}

async fn h01_page_sizes(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    scene.server.add_user("away").await.ok();
    fill(&mut alice, 300).await?;
    // More than a page may hold: as much as it may.
    for max in ["1000000000", "4294967295", "251"] {
        let (results, answer) = query(&mut alice, &page(&format!("<max>{max}</max>"))).await?;
        ensure!(results == 250, "max={max}: {results} results, {answer}");
        let complete = answer.find(MAM, "fin").and_then(|f| f.attribute("complete"));
        ensure!(complete != Some("true"), "{answer}");
    }
    for max in ["-1", "x", "", "1.5", "99999999999999999999999", "0x10"] {
        let (results, answer) = query(&mut alice, &page(&format!("<max>{max}</max>"))).await?;
        let refused = answer.condition().as_deref() == Some("modify bad-request");
        ensure!((refused && results == 0) || results <= 250, "max={max:?}: {results} results, {answer}");
    }
    let (results, _) = query(&mut alice, &page("<max>0</max>")).await?;
    ensure!(results == 0);
    let (results, _) = query(&mut alice, "").await?;
    ensure!(results <= 250, "{results} results without a page");
    Ok(())
}

async fn h01_unknown_ids(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    scene.server.add_user("away").await.ok();
    fill(&mut alice, 3).await?;
    let (_, answer) = query(&mut alice, "").await?;
    let last = answer.find_deep("http://jabber.org/protocol/rsm", "last").map(Node::text).unwrap_or_default();
    // One's own id with a letter changed, ids of another's archive, and nonsense.
    let mut other = scene.client("other").await?;
    fill(&mut other, 1).await?;
    let (_, answer) = query(&mut other, "").await?;
    let theirs =
        answer.find_deep("http://jabber.org/protocol/rsm", "last").map(Node::text).unwrap_or_default();
    let flipped: String = last
        .chars()
        .enumerate()
        .map(|(n, c)| if n + 1 == last.len() { if c == '0' { '1' } else { '0' } } else { c })
        .collect();
    let long = "a".repeat(4_000);
    for id in [flipped.as_str(), &theirs, "0", "never-given", "' OR 1=1 --", "\u{1F426}", &long] {
        let id = starling_tests::xml::escape(id);
        for inner in [format!("<after>{id}</after>"), format!("<before>{id}</before>")] {
            let (results, answer) = query(&mut alice, &page(&inner)).await?;
            ensure!(results == 0, "{inner}: {results} results");
            let got = answer.condition().unwrap_or_default();
            ensure!(got == "cancel item-not-found", "{}: {got}", shorten(&inner));
        }
    }
    Ok(())
}

async fn h01_archive_of_another(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    scene.account("bob").await?;
    for to in [scene.jid("bob"), scene.jid("ghost"), "localhost".to_owned()] {
        let iq = format!("<iq to='{to}' type='set' id='{{id}}'><query xmlns='{MAM}'/></iq>");
        refused(&mut alice, &iq, &["auth forbidden", "cancel service-unavailable"]).await?;
    }
    alice.silence(SILENCE).await
}

async fn h01_wrong_forms(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let form = |fields: &str| {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>{MAM}</value></field>\
             {fields}</x>"
        )
    };
    let bad = [
        "modify bad-request",
        "modify jid-malformed",
        "cancel feature-not-implemented",
        "modify not-acceptable",
    ];
    for fields in [
        "<field var='start'><value>tomorrow</value></field>",
        "<field var='start'><value>2026-02-30T00:00:00Z</value></field>",
        "<field var='end'><value>99999-01-01T00:00:00Z</value></field>",
        "<field var='with'><value>a b@localhost</value></field>",
        "<field var='with'><value/></field>",
        "<field var='nonsense'><value>x</value></field>",
    ] {
        let (results, answer) = query(&mut alice, &form(fields)).await?;
        let got = answer.condition().unwrap_or_default();
        ensure!(results == 0 && bad.contains(&got.as_str()), "{fields}: {got} in {answer}");
    }
    let wrong =
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:other</value></field></x>";
    let (_, answer) = query(&mut alice, wrong).await?;
    ensure!(answer.condition().is_some_and(|c| bad.contains(&c.as_str())), "{answer}");
    let (_, answer) = query(&mut alice, &format!("{}{}", page("<after/>"), page("<max>1</max>"))).await?;
    ensure!(answer.name == "iq", "{answer}");
    Ok(())
}

async fn h01_many_at_a_time(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    scene.server.add_user("away").await.ok();
    fill(&mut alice, 60).await?;
    for n in 0..500 {
        alice.send(&format!("<iq type='set' id='p{n}'><query xmlns='{MAM}'/></iq>")).await?;
    }
    let (mut answered, mut refusals) = (0, 0);
    while answered + refusals < 500 {
        match alice.receive(starling_tests::PATIENCE).await? {
            Some(Received::Element(node)) if node.name == "iq" => match node.condition().as_deref() {
                None => answered += 1,
                Some("wait resource-constraint" | "wait policy-violation") => refusals += 1,
                Some(other) => anyhow::bail!("{other} in {node}"),
            },
            Some(Received::Element(_)) => {}
            other => anyhow::bail!("{other:?} after {answered} answers and {refusals} refusals"),
        }
    }
    ensure!(answered > 0, "none of 500 queries was answered");
    Ok(())
}

/// What was accepted at the limit of size comes back, though the archive wraps it.
async fn h02_largest_message(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    bob.come_online().await?;
    let to = bob.jid().to_owned();
    let head = format!("<message to='{to}' id='big' type='chat'><body>");
    let tail = "</body></message>";
    let text = "&lt;".repeat((262_144 - head.len() - tail.len()) / 4);
    alice.send_raw(format!("{head}{text}{tail}").as_bytes()).await?;
    let message = bob.next_that(|n| n.name == "message").await?;
    let length = message.body().map(|b| b.len()).unwrap_or_default();
    ensure!(length == text.len() / 4, "{length} characters came live");
    for client in [&mut bob, &mut alice] {
        client.send(&format!("<iq type='set' id='query'><query xmlns='{MAM}'/></iq>")).await?;
        let result = client.next_that(|n| n.find(MAM, "result").is_some()).await?;
        let body = result.find_deep("jabber:client", "body").map(Node::text).unwrap_or_default();
        ensure!(body.len() == text.len() / 4, "{} characters came from the archive", body.len());
    }
    Ok(())
}
