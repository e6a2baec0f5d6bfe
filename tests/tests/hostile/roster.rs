//! R01: rosters that are too large, too long, or about the wrong people.

use anyhow::{Result, ensure};
use starling_tests::Client;

use crate::scene::{Case, Scene, cases, refused};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        r01_too_many_contacts with [("limits.roster.max_items", "20")],
        r01_groups,
        r01_wrong_items,
        r01_long_names,
        r01_pending_flood,
    ]
}

fn set(items: &str) -> String {
    format!("<iq type='set' id='{{id}}'><query xmlns='jabber:iq:roster'>{items}</query></iq>")
}

async fn size(client: &mut Client) -> Result<usize> {
    let roster = client.iq("<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>").await?;
    Ok(roster.find("jabber:iq:roster", "query").map_or(0, |q| q.children().count()))
}

async fn r01_too_many_contacts(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    for n in 0..20 {
        let answer = alice.iq(&set(&format!("<item jid='c{n}@localhost'/>"))).await?;
        ensure!(answer.attribute("type") == Some("result"), "{answer}");
    }
    let full = &["wait resource-constraint", "modify not-acceptable"];
    refused(&mut alice, &set("<item jid='one-more@localhost'/>"), full).await?;
    // By a subscription neither.
    alice.send("<presence to='another@localhost' type='subscribe' id='s'/>").await?;
    alice.ping().await?;
    ensure!(size(&mut alice).await? == 20);
    // Changing one that is there works, and so does making room.
    let answer = alice.iq(&set("<item jid='c3@localhost' name='Three'/>")).await?;
    ensure!(answer.attribute("type") == Some("result"), "{answer}");
    alice.iq(&set("<item jid='c3@localhost' subscription='remove'/>")).await?;
    let answer = alice.iq(&set("<item jid='one-more@localhost'/>")).await?;
    ensure!(answer.attribute("type") == Some("result"), "{answer}");
    Ok(())
}

async fn r01_groups(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    refused(&mut alice, &set("<item jid='b@localhost'><group/></item>"), &["modify not-acceptable"]).await?;
    refused(
        &mut alice,
        &set("<item jid='b@localhost'><group>a</group><group>a</group></item>"),
        &["modify bad-request"],
    )
    .await?;
    let many: String = (0..33).map(|n| format!("<group>{n}</group>")).collect();
    let full = &["modify not-acceptable", "wait resource-constraint"];
    refused(&mut alice, &set(&format!("<item jid='b@localhost'>{many}</item>")), full).await?;
    ensure!(size(&mut alice).await? == 0);
    Ok(())
}

async fn r01_wrong_items(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let own = alice.bare().to_owned();
    refused(&mut alice, &set(&format!("<item jid='{own}'/>")), &["cancel not-allowed"]).await?;
    refused(&mut alice, &set(""), &["modify bad-request"]).await?;
    refused(&mut alice, &set("<item jid='a@localhost'/><item jid='b@localhost'/>"), &["modify bad-request"])
        .await?;
    refused(&mut alice, &set("<item name='x'/>"), &["modify bad-request"]).await?;
    for jid in ["", "@", "a@", "a b@localhost", "a@localhost/"] {
        refused(
            &mut alice,
            &set(&format!("<item jid='{jid}'/>")),
            &["modify jid-malformed", "modify bad-request"],
        )
        .await?;
    }
    refused(&mut alice, &set("<item jid='a@localhost/phone'/>"), &["modify bad-request"]).await?;
    refused(
        &mut alice,
        &set("<item jid='ghost@localhost' subscription='remove'/>"),
        &["cancel item-not-found"],
    )
    .await?;
    let get =
        "<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'><item jid='a@localhost'/></query></iq>";
    refused(&mut alice, get, &["modify bad-request"]).await?;
    ensure!(size(&mut alice).await? == 0);
    Ok(())
}

async fn r01_long_names(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let long = "n".repeat(1_024);
    refused(
        &mut alice,
        &set(&format!("<item jid='b@localhost' name='{long}'/>")),
        &["modify not-acceptable"],
    )
    .await?;
    let group = format!("<item jid='b@localhost'><group>{long}</group></item>");
    refused(&mut alice, &set(&group), &["modify not-acceptable"]).await?;
    let fits = "n".repeat(1_023);
    let answer = alice.iq(&set(&format!("<item jid='b@localhost' name='{fits}'/>"))).await?;
    ensure!(answer.attribute("type") == Some("result"), "{answer}");
    Ok(())
}

/// Requests by the hundred from one sender are one request; the roster of the other end shows none of it.
async fn r01_pending_flood(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let to = bob.bare().to_owned();
    for n in 0..300 {
        alice
            .send(&format!("<presence to='{to}' type='subscribe' id='s{n}'><status>{n}</status></presence>"))
            .await?;
    }
    alice.ping().await?;
    ensure!(size(&mut bob).await? == 0);
    bob.come_online().await?;
    let first = bob.next_that(|n| n.attribute("type") == Some("subscribe")).await?;
    ensure!(first.attribute("from") == Some(alice.bare()), "{first}");
    bob.silence(starling_tests::SILENCE).await
}
