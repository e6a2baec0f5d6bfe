//! S01 to S10, S14, S15: addresses and stanzas that must not get through, or not as they are.

use std::time::Duration;

use anyhow::{Result, ensure};
use starling_tests::client::Received;
use starling_tests::{Client, SILENCE};

use crate::scene::{Case, Phase, Scene, bounced, cases, refused};

use Phase::Bound;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        s01_forged_from,
        s02_jid_lengths,
        s02_jid_separators,
        s03_local_parts,
        s03_equal_local_parts,
        s03_resources_keep_their_case,
        s04_domains,
        s05_broken_iq,
        s06_answers_to_nothing,
        s07_errors_to_errors,
        s08_unknown_payload,
        s09_no_harvest,
        s10_presence_flood with [("limits.session.directed_presence", "100")],
        s10_stanza_flood with [("limits.rate.c2s_stanzas", "50/s"), ("limits.rate.c2s_stanzas_burst", "100")],
        s14_requests_for_others,
        s15_blocked_everywhere,
    ]
}

async fn s01_forged_from(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let mut bob = scene.client("bob").await?;
    bob.come_online().await?;
    let to = bob.jid().to_owned();
    let other = format!("{}/another", scene.jid("mallory"));
    for from in [bob.bare(), bob.jid(), "localhost", "somebody@elsewhere.example", &other, "@", ""] {
        for name in ["message", "presence"] {
            let xml = format!("<{name} from='{from}' to='{to}'/>");
            scene.ends_with(&[Bound], xml.as_bytes(), &["invalid-from"]).await?;
        }
        let iq = format!("<iq type='get' id='1' from='{from}' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>");
        scene.ends_with(&[Bound], iq.as_bytes(), &["invalid-from"]).await?;
    }
    bob.silence(SILENCE).await
}

/// Sends a message to each address and expects `jid-malformed` for it.
async fn malformed(client: &mut Client, addresses: &[String]) -> Result<()> {
    for (n, to) in addresses.iter().enumerate() {
        let id = format!("j{n}");
        let to = starling_tests::xml::escape(to);
        client
            .send_raw(format!("<message to='{to}' id='{id}' type='chat'><body>x</body></message>").as_bytes())
            .await?;
        let shown: String = to.chars().take(60).collect();
        bounced(client, &id, &["modify jid-malformed"]).await.map_err(|e| e.context(shown))?;
    }
    client.ping().await
}

async fn s02_jid_lengths(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let (long, longer) = ("n".repeat(1_023), "n".repeat(1_024));
    malformed(
        &mut alice,
        &[format!("{longer}@localhost"), format!("a@localhost/{longer}"), format!("a@{longer}")],
    )
    .await?;
    // Exactly as long as allowed: an address like any other, of nobody.
    for (n, to) in [format!("{long}@localhost"), format!("a@localhost/{long}")].iter().enumerate() {
        alice.send(&format!("<message to='{to}' id='l{n}' type='chat'><body>x</body></message>")).await?;
        bounced(&mut alice, &format!("l{n}"), &["cancel service-unavailable"]).await?;
    }
    Ok(())
}

async fn s02_jid_separators(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let bad =
        ["@localhost", "a@", "a@localhost/", "@@localhost", "a@@localhost", "//", "/x", "@", "@/x", "a@/x"];
    malformed(&mut alice, &bad.map(str::to_owned)).await?;
    // In a resource both are just characters (RFC 7622 section 3.4).
    let mut odd = scene.account("odd").await?.resource("a@b//c").connect(scene.server.target()).await?;
    ensure!(odd.jid() == format!("{}/a@b//c", scene.jid("odd")), "{}", odd.jid());
    let to = odd.jid().to_owned();
    alice.send(&format!("<message to='{to}' id='s' type='chat'><body>x</body></message>")).await?;
    ensure!(odd.next().await?.attribute("to") == Some(to.as_str()));
    Ok(())
}

async fn s03_local_parts(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let bad: Vec<String> = [
        "a b",
        "a\"b",
        "a&b",
        "a'b",
        "a:b",
        "a<b",
        "a>b",
        "a\u{7F}b",
        "a\u{85}b",
        "a\u{200D}b",
        "a\u{202E}b",
        "a\u{378}b",
        "\u{FFFD}",
        "\u{1F426}",
        "a\u{2665}",
        "\u{3000}",
        "a\u{5D0}",
        "\u{660}\u{6F0}",
        "a\u{AD}b",
    ]
    .iter()
    .map(|local| format!("{local}@localhost"))
    .collect();
    malformed(&mut alice, &bad).await
}

/// Spellings of one name reach one account.
async fn s03_equal_local_parts(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let name = scene.name("s\u{e9}ance");
    scene.server.add_user(&name).await?;
    let mut seance = scene.server.login(&name).connect(scene.server.target()).await?;
    seance.come_online().await?;
    let number = name.trim_start_matches("s\u{e9}ance");
    for (n, spelling) in [
        format!("S\u{c9}ANCE{number}"),
        format!("se\u{301}ance{number}"),
        format!("\u{FF33}\u{e9}ance{number}"),
    ]
    .iter()
    .enumerate()
    {
        let id = format!("e{n}");
        alice
            .send(&format!(
                "<message to='{spelling}@LOCALHOST' id='{id}' type='chat'><body>x</body></message>"
            ))
            .await?;
        let message = seance.next().await?;
        ensure!(message.attribute("id") == Some(&id), "{spelling}: {message}");
    }
    // A look-alike of another script is another name, and nobody's.
    let cyrillic = name.replace('c', "\u{441}");
    alice
        .send(&format!("<message to='{cyrillic}@localhost' id='c' type='chat'><body>x</body></message>"))
        .await?;
    bounced(&mut alice, "c", &["cancel service-unavailable", "modify jid-malformed"]).await?;
    Ok(())
}

async fn s03_resources_keep_their_case(scene: &mut Scene) -> Result<()> {
    let login = scene.account("alice").await?;
    let mut lower = login.clone().resource("phone").connect(scene.server.target()).await?;
    let mut upper = login.resource("Phone").connect(scene.server.target()).await?;
    ensure!(lower.jid() != upper.jid());
    let to = upper.jid().to_owned();
    lower.send(&format!("<message to='{to}' id='r' type='chat'><body>x</body></message>")).await?;
    ensure!(upper.next().await?.attribute("id") == Some("r"));
    lower.silence(SILENCE).await
}

async fn s04_domains(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let own = alice.jid().to_owned();
    let (local, resource) = (scene.name("alice"), own.rsplit('/').next().unwrap_or_default().to_owned());
    for (n, domain) in ["LOCALHOST", "localhost.", "LocalHost"].iter().enumerate() {
        alice
            .send(&format!(
                "<message to='{local}@{domain}/{resource}' id='d{n}' type='chat'><body>x</body></message>"
            ))
            .await?;
        let message = alice.next().await?;
        ensure!(
            message.attribute("id") == Some(&format!("d{n}")) && message.condition().is_none(),
            "{domain}: {message}"
        );
    }
    let label = "a".repeat(64);
    let bad =
        ["a@..", "a@.localhost", "a@local host", "a@[::1", "a@[x]", "a@xn--abc-.example", "a@-", "a@a_\u{0}"]
            .iter()
            .filter(|d| !d.contains('\0'))
            .map(|d| (*d).to_owned())
            .chain([format!("a@{label}.example")]);
    for (n, to) in bad.enumerate() {
        alice
            .send_raw(format!("<message to='{to}' id='b{n}' type='chat'><body>x</body></message>").as_bytes())
            .await?;
        let errors = &["modify jid-malformed", "cancel remote-server-not-found"];
        bounced(&mut alice, &format!("b{n}"), errors).await.map_err(|e| e.context(to))?;
    }
    // Addresses of numbers are domains that are not ours.
    for (n, to) in
        ["a@127.0.0.1", "a@[::1]", "a@b\u{fc}cher.example", "a@xn--bcher-kva.example"].iter().enumerate()
    {
        alice.send(&format!("<message to='{to}' id='n{n}' type='chat'><body>x</body></message>")).await?;
        bounced(&mut alice, &format!("n{n}"), &["cancel remote-server-not-found"])
            .await
            .map_err(|e| e.context(*to))?;
    }
    Ok(())
}

async fn s05_broken_iq(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let bad = &["modify bad-request"];
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    for (id, iq) in [
        ("t0", format!("<iq id='t0' to='localhost'>{ping}</iq>")),
        ("t1", format!("<iq id='t1' type='put'>{ping}</iq>")),
        ("t2", "<iq id='t2' type='get'/>".to_owned()),
        ("t3", format!("<iq id='t3' type='get'>{ping}{ping}</iq>")),
        ("t4", "<iq id='t4' type='set' to='localhost'>text</iq>".to_owned()),
        ("t5", format!("<iq id='t5' type='' to='localhost'>{ping}</iq>")),
    ] {
        alice.send_raw(iq.as_bytes()).await?;
        bounced(&mut alice, id, bad).await?;
    }
    alice.send_raw(format!("<iq type='get' to='localhost'>{ping}</iq>").as_bytes()).await?;
    let answer = alice.next().await?;
    ensure!(
        answer.attribute("id").is_none() && answer.condition().as_deref() == Some("modify bad-request"),
        "{answer}"
    );
    Ok(())
}

async fn s06_answers_to_nothing(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let bob = scene.client("bob").await?;
    let error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for to in [
        "",
        "to='localhost'",
        "to='nobody@localhost'",
        "to='nobody@localhost/x'",
        &format!("to='{}'", bob.bare()),
    ] {
        for iq in
            [format!("<iq {to} type='result' id='x'/>"), format!("<iq {to} type='error' id='x'>{error}</iq>")]
        {
            alice.send_raw(iq.as_bytes()).await?;
        }
        alice.send_raw(format!("<iq {to} type='result'/>").as_bytes()).await?;
    }
    alice.silence(SILENCE).await?;
    alice.ping().await
}

async fn s07_errors_to_errors(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for to in ["nobody@localhost", "nobody@localhost/x", "localhost", "a@elsewhere.example", "@", ""] {
        for name in ["message", "presence"] {
            alice
                .send_raw(format!("<{name} to='{to}' type='error' id='x'>{error}</{name}>").as_bytes())
                .await?;
            alice.send_raw(format!("<{name} to='{to}' type='error'/>").as_bytes()).await?;
        }
    }
    alice.silence(SILENCE).await?;
    alice.ping().await
}

async fn s08_unknown_payload(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let own = alice.bare().to_owned();
    for to in [
        String::new(),
        "to='localhost'".to_owned(),
        format!("to='{own}'"),
        "to='nobody@localhost'".to_owned(),
    ] {
        for kind in ["get", "set"] {
            let iq = format!("<iq {to} type='{kind}' id='{{id}}'><x xmlns='urn:example:unknown'/></iq>");
            refused(&mut alice, &iq, &["cancel service-unavailable"]).await?;
        }
    }
    Ok(())
}

/// An account that blocks, one that is not there, a resource that is not there: the same answer, byte for byte but for
/// the address.
async fn s09_no_harvest(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let block = format!(
        "<iq type='set' id='{{id}}'><block xmlns='urn:xmpp:blocking'><item jid='{}'/></block></iq>",
        alice.bare()
    );
    ensure!(bob.iq(&block).await?.attribute("type") == Some("result"));
    let mut answers = Vec::new();
    for account in [scene.jid("bob"), scene.jid("ghost")] {
        let mut said = String::new();
        for xml in [
            format!("<message to='{account}' id='h' type='chat'><body>x</body></message>"),
            format!("<message to='{account}/x' id='h'><body>x</body></message>"),
            format!("<iq to='{account}' id='h' type='get'><ping xmlns='urn:xmpp:ping'/></iq>"),
            format!("<iq to='{account}/bob' id='h' type='get'><x xmlns='urn:x'/></iq>"),
            format!(
                "<iq to='{account}' id='h' type='get'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
            ),
        ] {
            alice.send(&xml).await?;
            let answer = bounced(&mut alice, "h", &["cancel service-unavailable"]).await?;
            said.push_str(&answer.to_string());
        }
        answers.push(said.replace(&account, "ACCOUNT"));
    }
    ensure!(answers[0] == answers[1], "a blocking account can be told from none: {answers:#?}");
    Ok(())
}

async fn s10_presence_flood(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    alice.come_online().await?;
    let before = scene.server.resident()?;
    let mut limited = 0;
    for n in 0..400 {
        alice.send(&format!("<presence to='stranger{n}@elsewhere.example' id='d{n}'/>")).await?;
    }
    for n in 0..400 {
        alice.send(&format!("<presence to='nobody{n}@localhost' id='e{n}'/>")).await?;
    }
    alice.send("<presence id='last'/>").await?;
    loop {
        let node = alice.next().await?;
        if node.attribute("id") == Some("last") {
            break;
        }
        match node.condition().as_deref() {
            Some("wait resource-constraint" | "wait policy-violation" | "modify policy-violation") => {
                limited += 1
            }
            Some("cancel remote-server-not-found") | None => {}
            other => anyhow::bail!("{other:?} in {node}"),
        }
    }
    ensure!(limited > 0, "directed presence to 800 strangers at a limit of 100");
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < 16 << 20, "memory grew by {grown} bytes");
    Ok(())
}

/// Who sends faster than allowed is read slower; nothing is lost and nobody else waits.
async fn s10_stanza_flood(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let own = alice.jid().to_owned();
    let start = std::time::Instant::now();
    for n in 0..200 {
        alice.send(&format!("<message to='{own}' id='f{n}' type='headline'/>")).await?;
    }
    for n in 0..200 {
        let message = alice.next().await?;
        ensure!(message.attribute("id") == Some(&format!("f{n}")), "{message}");
    }
    let took = start.elapsed();
    ensure!(took > Duration::from_millis(1_200), "200 stanzas at 50/s with a burst of 100 took {took:?}");
    Ok(())
}

/// Requests that only the owner of an account may make, to another's account, and to another's client.
async fn s14_requests_for_others(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    bob.come_online().await?;
    let (bare, full) = (bob.bare().to_owned(), bob.jid().to_owned());
    let errors = &["auth forbidden", "cancel service-unavailable", "cancel not-allowed"];
    for payload in [
        "<query xmlns='jabber:iq:roster'><item jid='evil@localhost' subscription='both'/></query>",
        "<enable xmlns='urn:xmpp:carbons:2'/>",
        "<disable xmlns='urn:xmpp:carbons:2'/>",
        "<query xmlns='urn:xmpp:mam:2'/>",
        "<prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs>",
        "<block xmlns='urn:xmpp:blocking'><item jid='x@localhost'/></block>",
        "<unblock xmlns='urn:xmpp:blocking'/>",
        "<query xmlns='jabber:iq:register'><remove/></query>",
    ] {
        let iq = format!("<iq to='{bare}' type='set' id='{{id}}'>{payload}</iq>");
        refused(&mut alice, &iq, errors).await?;
    }
    for payload in [
        "<query xmlns='jabber:iq:roster'/>",
        "<blocklist xmlns='urn:xmpp:blocking'/>",
        "<prefs xmlns='urn:xmpp:mam:2'/>",
        "<metadata xmlns='urn:xmpp:mam:2'/>",
    ] {
        let iq = format!("<iq to='{bare}' type='get' id='{{id}}'>{payload}</iq>");
        refused(&mut alice, &iq, errors).await?;
    }
    // A roster push of a stranger never reaches a client (CVE-2015-8688 and others).
    for payload in [
        "<query xmlns='jabber:iq:roster'><item jid='evil@localhost' subscription='both'/></query>",
        "<block xmlns='urn:xmpp:blocking'><item jid='x@localhost'/></block>",
    ] {
        let iq = format!("<iq to='{full}' type='set' id='{{id}}'>{payload}</iq>");
        refused(&mut alice, &iq, errors).await?;
    }
    bob.silence(SILENCE).await?;
    let roster = bob.iq("<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>").await?;
    ensure!(!roster.to_string().contains("evil"), "{roster}");
    Ok(())
}

/// Whatever way a blocked one takes: to the bare and the full JID, presence of each type, requests, while away, by carbon.
async fn s15_blocked_everywhere(scene: &mut Scene) -> Result<()> {
    let mut mallory = scene.client("mallory").await?;
    mallory.come_online().await?;
    let login = scene.account("alice").await?;
    let mut phone = login.clone().resource("phone").connect(scene.server.target()).await?;
    let mut desk = login.resource("desk").connect(scene.server.target()).await?;
    let block = format!(
        "<iq type='set' id='{{id}}'><block xmlns='urn:xmpp:blocking'><item jid='{}'/></block></iq>",
        mallory.bare()
    );
    ensure!(phone.iq(&block).await?.attribute("type") == Some("result"));
    for device in [&mut phone, &mut desk] {
        device.iq("<iq type='set' id='{id}'><enable xmlns='urn:xmpp:carbons:2'/></iq>").await?;
        device.iq("<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>").await?;
        device.come_online().await?;
    }
    for device in [&mut phone, &mut desk] {
        while let Some(Received::Element(_)) = device.receive(SILENCE).await? {}
    }
    let bare = phone.bare().to_owned();
    let full = phone.jid().to_owned();
    let mut tries = Vec::new();
    for to in [&bare, &full] {
        for kind in ["chat", "normal", "headline", "groupchat", "error"] {
            tries.push(format!("<message to='{to}' type='{kind}' id='b'><body>x</body></message>"));
        }
        for kind in
            ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "unavailable", "probe", "error"]
        {
            tries.push(format!("<presence to='{to}' type='{kind}'/>"));
        }
        tries.push(format!("<presence to='{to}'/>"));
        tries.push(format!("<iq to='{to}' type='get' id='i'><x xmlns='urn:x'/></iq>"));
        tries.push(format!("<iq to='{to}' type='result' id='i'/>"));
    }
    for xml in &tries {
        mallory.send(xml).await?;
    }
    mallory.ping().await?;
    phone.silence(SILENCE).await?;
    desk.silence(SILENCE).await?;
    phone.close().await?;
    desk.close().await?;
    for xml in &tries {
        mallory.send(xml).await?;
    }
    mallory.ping().await?;
    let mut back = scene.login("alice").resource("back").connect(scene.server.target()).await?;
    back.come_online().await?;
    back.silence(SILENCE).await?;
    let archive = back.iq("<iq type='set' id='{id}'><query xmlns='urn:xmpp:mam:2'/></iq>").await?;
    ensure!(archive.find_deep("http://jabber.org/protocol/rsm", "last").is_none(), "{archive}");
    back.silence(SILENCE).await
}
