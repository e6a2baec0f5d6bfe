//! S11 to S13: stanzas that are XML and yet not what they claim to be.

use anyhow::{Result, ensure};
use starling_tests::SILENCE;

use crate::scene::{Case, Scene, bounced, cases, say, shorten};

pub(crate) fn cases() -> Vec<Case> {
    cases![s11_priority, s11_many_shows, s12_long_language, s12_many_bodies, s13_forged_elements]
}

async fn s11_priority(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let to = bob.bare().to_owned();
    for (n, priority) in
        ["1000000000", "128", "-129", "NaN", "", "1.5", "99999999999999999999"].iter().enumerate()
    {
        bob.send(&format!("<presence id='p{n}'><priority>{priority}</priority></presence>")).await?;
        let answer = bob.next().await?;
        // Refused, or taken as zero and shown as it was sent; never taken for a high one, never a crash.
        let refused = answer.condition().as_deref() == Some("modify bad-request");
        let shown = answer.attribute("type").is_none() && answer.attribute("from") == Some(bob.jid());
        ensure!(refused || shown, "{priority:?}: {answer}");
    }
    // A sane priority wins over all of them.
    let mut sane = scene.login("bob").resource("sane").connect(scene.server.target()).await?;
    sane.send("<presence><priority>1</priority></presence>").await?;
    sane.ping().await?;
    alice.send(&format!("<message to='{to}' type='chat' id='m'><body>x</body></message>")).await?;
    let message = sane.next_that(|n| n.name == "message").await?;
    ensure!(message.attribute("id") == Some("m"));
    bob.ping().await?;
    while let Some(starling_tests::client::Received::Element(node)) = bob.receive(SILENCE).await? {
        ensure!(node.name != "message", "the insane priority won: {node}");
    }
    Ok(())
}

async fn s11_many_shows(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    alice.send(&format!("<presence id='s'>{}</presence>", "<show>away</show>".repeat(50))).await?;
    let answer = alice.next().await?;
    let refused = answer.condition().is_some_and(|c| c.ends_with("bad-request"));
    let shown = answer.attribute("from") == Some(alice.jid());
    ensure!(refused || shown, "{}", shorten(&answer.to_string()));
    alice.ping().await
}

async fn s12_long_language(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let to = bob.jid().to_owned();
    let language = "a".repeat(10_000);
    alice.send(&format!("<message to='{to}' id='l' xml:lang='{language}'><body>x</body></message>")).await?;
    bounced(&mut alice, "l", &["modify bad-request", "modify policy-violation", "modify not-acceptable"])
        .await?;
    bob.silence(SILENCE).await
}

async fn s12_many_bodies(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let to = bob.jid().to_owned();
    let bodies: String = (0..500).map(|n| format!("<body>{n}</body>")).collect();
    alice.send(&format!("<message to='{to}' id='b' type='chat'>{bodies}</message>")).await?;
    bounced(&mut alice, "b", &["modify bad-request", "modify policy-violation", "modify not-acceptable"])
        .await?;
    bob.silence(SILENCE).await?;
    // Two bodies in two languages are what RFC 6121 section 5.2.3 is about.
    let two = "<body>yes</body><body xml:lang='cs'>ano</body>";
    alice.send(&format!("<message to='{to}' id='c' type='chat'>{two}</message>")).await?;
    let message = bob.next().await?;
    ensure!(message.children().filter(|c| c.name == "body").count() == 2, "{message}");
    Ok(())
}

/// Server-made elements, several of each, in every place: what arrives has ours only.
async fn s13_forged_elements(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let (to, bare) = (bob.jid().to_owned(), bob.bare().to_owned());
    let forward = "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bank@localhost' \
                   to='x@localhost'><body>pay</body></message></forwarded>";
    let forged = [
        format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{bare}' id='forged'/>"),
        format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{}' id='forged'/>", bare.to_uppercase()),
        "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2001-01-01T00:00:00Z'>forged</delay>"
            .to_owned(),
        format!("<delay xmlns='urn:xmpp:delay' from='{bare}' stamp='2001-01-01T00:00:00Z'>forged</delay>"),
        format!("<received xmlns='urn:xmpp:carbons:2'>{forward}</received>"),
        format!("<sent xmlns='urn:xmpp:carbons:2'>{forward}</sent>"),
        format!("<result xmlns='urn:xmpp:mam:2' queryid='q' id='forged'>{forward}</result>"),
    ];
    for copies in 1..=5 {
        for (n, element) in forged.iter().enumerate() {
            let id = format!("f{copies}-{n}");
            let (before, after) = (element.repeat(copies / 2), element.repeat(copies - copies / 2));
            let xml = format!(
                "<message to='{to}' type='chat' id='{id}'>{before}<body>look</body>{after}</message>"
            );
            let message = say(&mut alice, &xml, &mut bob).await?;
            ensure!(message.attribute("id") == Some(&id), "{message}");
            ensure!(message.body().as_deref() == Some("look"), "{message}");
            let text = message.to_string();
            ensure!(!text.contains("forged") && !text.contains("bank@"), "{copies} of {element}: {message}");
            let ids = message.children().filter(|c| c.is("urn:xmpp:sid:0", "stanza-id")).count();
            ensure!(ids <= 1, "{copies} of {element}: {ids} ids in {message}");
        }
    }
    // Somebody else's delay is somebody else's business.
    let theirs = "<delay xmlns='urn:xmpp:delay' from='room@chat.example' stamp='2001-01-01T00:00:00Z'/>";
    let xml = format!("<message to='{to}' type='chat' id='d'><body>x</body>{theirs}</message>");
    let message = say(&mut alice, &xml, &mut bob).await?;
    ensure!(message.find("urn:xmpp:delay", "delay").is_some(), "{message}");
    Ok(())
}
