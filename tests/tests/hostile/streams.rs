//! T01 to T09: streams that begin wrong, or do things in the wrong order.

use std::time::Duration;

use anyhow::{Result, ensure};
use starling_tests::client::{Incoming, Stream};

use crate::scene::{Case, Phase, Scene, cases, header_ends_with, odd_header, usual_header};

use Phase::{Bound, Clear, Secure};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        t01_other_protocols,
        t01_plain_text_on_the_tls_port,
        t02_silence with [("limits.stream.tcp_accept_to_header", "500ms")],
        t02_silence_after_header with [("limits.stream.header_to_tls", "500ms")],
        t02_silence_after_tls with [("limits.stream.tls_to_auth", "500ms")],
        t03_to,
        t04_stream_namespace,
        t05_version,
        t06_early_from,
        t07_stanza_before_login,
        t08_starttls_again,
        t09_pipelined_after_starttls,
    ]
}

/// The server says a stream error and closes, or just closes; it does not hang and does not talk on.
async fn gone(stream: &mut Stream) -> Result<()> {
    stream.closed(Duration::from_secs(8)).await
}

async fn t01_other_protocols(scene: &mut Scene) -> Result<()> {
    let client_hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 194]].concat();
    let garbage: Vec<u8> = (0..2_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO localhost\r\n",
        b"{\"jsonrpc\": \"2.0\"}",
        b"\0\0\0\0\0\0\0\0",
        b"</stream:stream>",
        &client_hello,
        &garbage,
    ] {
        let mut stream = scene.raw().await?;
        stream.send(bytes).await?;
        gone(&mut stream).await?;
    }
    Ok(())
}

async fn t01_plain_text_on_the_tls_port(scene: &mut Scene) -> Result<()> {
    let Some(address) = scene.server.target().c2s_tls else { anyhow::bail!("no direct TLS address") };
    for bytes in [usual_header().as_bytes(), b"GET / HTTP/1.1\r\n\r\n", &[0; 64]] {
        let mut stream = Stream::connect(address).await?;
        stream.send(bytes).await?;
        gone(&mut stream).await?;
    }
    Ok(())
}

async fn t02_silence(scene: &mut Scene) -> Result<()> {
    let mut silent = scene.raw().await?;
    let mut half = scene.raw().await?;
    half.send(b"<?xml version='1.0'?><stream:st").await?;
    silent.closed(Duration::from_secs(4)).await?;
    half.closed(Duration::from_secs(4)).await?;
    // Gone before a word was said.
    for _ in 0..50 {
        drop(scene.raw().await?);
    }
    Ok(())
}

async fn t02_silence_after_header(scene: &mut Scene) -> Result<()> {
    let mut stream = scene.stream(Clear, "nobody").await?;
    let condition = stream.stream_error().await?;
    ensure!(condition == "connection-timeout", "{condition}");
    // The handshake begun and left alone.
    let mut stream = scene.stream(Clear, "nobody").await?;
    stream.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
    ensure!(stream.node().await?.name == "proceed");
    stream.closed(Duration::from_secs(4)).await
}

async fn t02_silence_after_tls(scene: &mut Scene) -> Result<()> {
    let mut stream = scene.stream(Secure, "nobody").await?;
    let condition = stream.stream_error().await?;
    ensure!(condition == "connection-timeout", "{condition}");
    Ok(())
}

async fn t03_to(scene: &mut Scene) -> Result<()> {
    let header = |to: &str| {
        odd_header(&format!(
            "{to} version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
        ))
    };
    let addressing = &["host-unknown", "improper-addressing"];
    header_ends_with(scene, header("").as_bytes(), addressing).await?;
    header_ends_with(scene, header("to='elsewhere.example'").as_bytes(), &["host-unknown"]).await?;
    for to in ["alice@localhost", "localhost/x", "", "@", "loc alhost", "[::1", "..", "&#x1F426;.example"] {
        header_ends_with(scene, header(&format!("to='{to}'")).as_bytes(), addressing).await?;
    }
    // The same name in other clothes is the same (RFC 7622 section 3.2).
    for to in ["LOCALHOST", "localhost."] {
        let mut stream = scene.raw().await?;
        stream.send(header(&format!("to='{to}'")).as_bytes()).await?;
        stream.next().await?;
        ensure!(stream.node().await?.name == "features", "{to} is not taken for localhost");
    }
    Ok(())
}

async fn t04_stream_namespace(scene: &mut Scene) -> Result<()> {
    for attributes in [
        "to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='urn:wrong'",
        "to='localhost' version='1.0' xmlns='jabber:wrong' xmlns:stream='http://etherx.jabber.org/streams'",
        "to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/stream'",
        "to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='HTTP://etherx.jabber.org/streams'",
    ] {
        header_ends_with(scene, odd_header(attributes).as_bytes(), &["invalid-namespace"]).await?;
    }
    let wrong_root = usual_header().replace("<stream:stream", "<stream:river");
    header_ends_with(
        scene,
        wrong_root.as_bytes(),
        &["bad-format", "invalid-namespace", "unsupported-stanza-type"],
    )
    .await?;
    // The prefix is free (RFC 6120 section 4.8.5).
    let mut stream = scene.raw().await?;
    let header = usual_header().replace("stream:stream", "s:stream").replace("xmlns:stream", "xmlns:s");
    stream.send(header.as_bytes()).await?;
    stream.next().await?;
    ensure!(stream.node().await?.name == "features");
    Ok(())
}

async fn t05_version(scene: &mut Scene) -> Result<()> {
    for version in
        ["version='0.9'", "", "version='x'", "version='1'", "version='-1.0'", "version='99999999999.0'"]
    {
        let header =
            usual_header().replacen("'localhost' version='1.0'", &format!("'localhost' {version}"), 1);
        let mut stream = scene.raw().await?;
        stream.send(header.as_bytes()).await?;
        let Incoming::Header(answer) = stream.next().await? else { anyhow::bail!("{version}: no header") };
        ensure!(answer.attribute("version") == Some("1.0"), "{version}: {answer}");
        let next = stream.node().await?;
        let condition = next.children().next().map(|c| c.name.clone());
        let refused = condition.as_deref() == Some("unsupported-version");
        ensure!(next.name == "features" || refused, "{version}: {next}");
        if refused {
            gone(&mut stream).await?;
        }
    }
    // Newer than ours: we answer with ours (section 4.7.5).
    let mut stream = scene.raw().await?;
    stream
        .send(usual_header().replacen("'localhost' version='1.0'", "'localhost' version='1.1'", 1).as_bytes())
        .await?;
    let Incoming::Header(answer) = stream.next().await? else { anyhow::bail!("no header") };
    ensure!(answer.attribute("version") == Some("1.0"), "{answer}");
    ensure!(stream.node().await?.name == "features");
    Ok(())
}

async fn t06_early_from(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    scene.account("victim").await?;
    let target = scene.server.target();
    let victim = scene.jid("victim");
    let mut stream = scene.raw().await?;
    let header = usual_header().replacen("to='localhost'", &format!("to='localhost' from='{victim}'"), 1);
    stream.send(header.as_bytes()).await?;
    stream.next().await?;
    stream.node().await?;
    stream.starttls(target.tls.clone(), &target.domain).await?;
    stream.open(&target.domain).await?;
    let login = scene.login("alice");
    login.exchange(&mut stream).await?;
    stream.restart();
    stream.open(&target.domain).await?;
    let client = login.bind(stream).await?;
    ensure!(client.bare() == scene.jid("alice"), "logged in as {}", client.jid());
    ensure!(!scene.server.log().contains(&victim), "the log names an identity that nobody proved");
    Ok(())
}

async fn t07_stanza_before_login(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for stanza in [
        "<message to='localhost'><body>x</body></message>",
        "<presence/>",
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
    ] {
        scene.ends_with(&[Clear, Secure], stanza.as_bytes(), &["not-authorized"]).await?;
    }
    Ok(())
}

async fn t08_starttls_again(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let starttls = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    for phase in [Secure, Bound] {
        let mut stream = scene.stream(phase, "mallory").await?;
        stream.send(starttls).await?;
        let answer = stream.node().await?;
        let failed = answer.is("urn:ietf:params:xml:ns:xmpp-tls", "failure");
        let error = answer.is(starling_tests::xml::STREAMS, "error");
        ensure!(failed || error, "{phase:?}: {answer}");
        gone(&mut stream).await?;
    }
    // Twice in one segment: what follows the first is not part of any stream.
    let mut stream = scene.stream(Clear, "mallory").await?;
    stream.send(&[starttls.as_slice(), starttls].concat()).await?;
    let answer = stream.node().await?;
    ensure!(matches!(answer.name.as_str(), "proceed" | "failure" | "error"), "{answer}");
    Ok(())
}

/// CVE-2011-0411 and its kin: what was sent in clear behind `<starttls/>` must never count as said under TLS.
async fn t09_pipelined_after_starttls(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let target = scene.server.target();
    let user = scene.name("mallory");
    let auth = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD
            .encode(format!("\0{user}\0{}", starling_tests::server::PASSWORD))
    };
    let injected = [
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{auth}</auth>"),
        format!(
            "{}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{auth}</auth>",
            usual_header()
        ),
        " \n ".to_owned(),
    ];
    for text in injected {
        let mut stream = scene.stream(Clear, "mallory").await?;
        stream.send(format!("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{text}").as_bytes()).await?;
        let answer = stream.node().await?;
        if answer.name != "proceed" {
            gone(&mut stream).await?;
            continue;
        }
        // The handshake may fail, for the server may take the clear bytes for a part of it.
        if stream.handshake(target.tls.clone(), &target.domain).await.is_err() {
            continue;
        }
        let (_, features) = stream.open(&target.domain).await?;
        let sasl = features.find("urn:ietf:params:xml:ns:xmpp-sasl", "mechanisms");
        ensure!(sasl.is_some(), "logged in by clear text: {features}");
        let more = stream.receive(starling_tests::SILENCE).await?;
        ensure!(more.is_none(), "an answer to clear text: {more:?}");
    }
    Ok(())
}
