//! X15 to X21, X23: more of everything than anybody needs.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use starling_tests::client::Incoming;

use crate::scene::{ALONE, Case, Phase, Scene, cases, flood, shorten};

use Phase::{Bound, Clear, Secure};

const POLICY: &[&str] = &["policy-violation"];
/// What a flood may add to the server's memory.
const ROOM: u64 = 48 << 20;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        x15_depth,
        x15_depth_without_end with ALONE,
        x16_attributes,
        x16_attributes_without_end with ALONE,
        x17_namespaces,
        x17_namespaces_without_end with ALONE,
        x18_long_name with ALONE,
        x18_long_attribute with ALONE,
        x18_text_without_end with ALONE,
        x19_many_children,
        x20_largest_stanza,
        x20_too_large_stanza,
        x21_white_space with ALONE,
        x23_slow_header with QUICK,
        x23_slow_login with QUICK,
        x23_slow_stanza with QUICK,
        strangers_text with PATIENT,
        strangers_attributes with PATIENT,
    ]
}

const PATIENT: [(&str, &str); 2] =
    [("limits.stream.tls_to_auth", "5min"), ("limits.stream.pre_auth_total", "5min")];

const QUICK: [(&str, &str); 5] = [
    ("limits.stream.tcp_accept_to_header", "1s"),
    ("limits.stream.header_to_tls", "1s"),
    ("limits.stream.tls_to_auth", "1500ms"),
    ("limits.stream.pre_auth_total", "3s"),
    ("limits.stream.stanza", "1500ms"),
];

fn nested(depth: usize) -> String {
    format!("<message>{}{}</message>", "<a>".repeat(depth), "</a>".repeat(depth))
}

async fn x15_depth(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    scene.ends_with(&[Bound], nested(40).as_bytes(), POLICY).await?;
    // Before login an element that nobody knows may be refused at its first tag.
    let early = &["policy-violation", "unsupported-stanza-type"];
    scene.ends_with(&[Clear, Secure], "<a>".repeat(40).as_bytes(), early).await?;
    // What people send is fine.
    let mut alice = scene.client("alice").await?;
    let jid = alice.jid().to_owned();
    alice.send_raw(nested(20).replace("<message>", &format!("<message to='{jid}'>")).as_bytes()).await?;
    ensure!(alice.next().await?.name == "message");
    Ok(())
}

async fn overflow(scene: &Scene, phases: &[Phase], head: &[u8], chunk: &[u8], total: usize) -> Result<()> {
    for phase in phases {
        let mut stream = scene.stream(*phase, "mallory").await?;
        let before = scene.server.resident()?;
        stream.send(head).await?;
        if let Some(condition) = flood(&mut stream, chunk, total).await? {
            ensure!(POLICY.contains(&condition.as_str()), "{phase:?}: {condition}");
        }
        let grown = scene.server.resident()?.saturating_sub(before);
        ensure!(grown < ROOM, "{phase:?}: memory grew by {grown} bytes");
    }
    Ok(())
}

async fn x15_depth_without_end(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    overflow(scene, &[Clear, Bound], b"<message>", "<a>".repeat(4096).as_bytes(), 3_000_000).await
}

async fn x16_attributes(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let many: String = (0..65).map(|n| format!(" a{n}='{n}'")).collect();
    let xml = format!("<message{many}/>");
    scene.ends_with(&[Clear, Bound], xml.as_bytes(), POLICY).await?;
    scene.ends_with(&[Bound], format!("<message><x xmlns='urn:x'{many}/></message>").as_bytes(), POLICY).await
}

async fn x16_attributes_without_end(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let many: String = (0..2000).map(|n| format!(" a{n}='{n}'")).collect();
    overflow(scene, &[Clear, Bound], b"<message", many.as_bytes(), 8_000_000).await
}

async fn x17_namespaces(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let many: String = (0..40).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect();
    scene.ends_with(&[Clear, Bound], format!("<message{many}/>").as_bytes(), POLICY).await
}

async fn x17_namespaces_without_end(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let many: String = (0..2000).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect();
    overflow(scene, &[Clear, Bound], b"<message", many.as_bytes(), 8_000_000).await
}

async fn x18_long_name(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    overflow(scene, &[Clear, Bound], b"<", "a".repeat(16_384).as_bytes(), 2_000_000).await
}

async fn x18_long_attribute(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    overflow(scene, &[Clear, Bound], b"<message id='", "a".repeat(16_384).as_bytes(), 2_000_000).await
}

async fn x18_text_without_end(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    overflow(scene, &[Clear, Secure, Bound], b"<message><body>", "a".repeat(16_384).as_bytes(), 64 << 20)
        .await
}

async fn x19_many_children(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let jid = alice.jid().to_owned();
    let xml = format!("<message to='{jid}' id='x19'>{}</message>", "<a/>".repeat(4_200));
    alice.send_raw(xml.as_bytes()).await?;
    match alice.stream().next().await? {
        Incoming::Node(node) => {
            let condition = node.condition().or_else(|| node.children().next().map(|c| c.name.clone()));
            let condition = condition.unwrap_or_default();
            ensure!(condition.ends_with("policy-violation"), "{}", shorten(&node.to_string()));
        }
        other => bail!("{other:?}"),
    }
    scene.account("mallory").await?;
    let early = format!("<a xmlns='urn:x'>{}</a>", "<b/>".repeat(40));
    scene.ends_with(&[Clear, Secure], early.as_bytes(), POLICY).await
}

/// A message to oneself of exactly so many bytes.
fn sized(to: &str, bytes: usize) -> String {
    let head = format!("<message to='{to}' id='big' type='chat'><body>");
    let tail = "</body></message>";
    format!("{head}{}{tail}", "a".repeat(bytes - head.len() - tail.len()))
}

async fn x20_largest_stanza(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let jid = alice.jid().to_owned();
    let xml = sized(&jid, 262_144);
    alice.send_raw(xml.as_bytes()).await?;
    let message = alice.next().await?;
    let length = message.body().map(|b| b.len()).unwrap_or_default();
    ensure!(length > 262_000, "only {length} bytes came: {}", shorten(&message.to_string()));
    Ok(())
}

async fn x20_too_large_stanza(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let jid = alice.jid().to_owned();
    for size in [262_145, 400_000] {
        alice.send_raw(sized(&jid, size).as_bytes()).await?;
        let answer = alice.next().await?;
        ensure!(answer.attribute("id") == Some("big"), "{}", shorten(&answer.to_string()));
        let condition = answer.condition().unwrap_or_default();
        ensure!(condition.ends_with("policy-violation") || condition.ends_with("not-allowed"), "{condition}");
        let names = ["urn:xmpp:errors", "urn:xmpp:stream-limits:0"];
        let told = names.iter().any(|ns| answer.find_deep(ns, "stanza-too-big").is_some());
        ensure!(told, "no <stanza-too-big/> in {}", shorten(&answer.to_string()));
        // The stream lives on and is in step.
        alice.ping().await?;
    }
    // Before authentication there is no second chance.
    scene.account("mallory").await?;
    let auth = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        "A".repeat(9_000)
    );
    scene.ends_with(&[Clear, Secure], auth.as_bytes(), POLICY).await
}

async fn x21_white_space(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let before = scene.server.resident()?;
    let blank = " \n".repeat(32 * 1024);
    for _ in 0..256 {
        alice.send_raw(blank.as_bytes()).await?;
    }
    alice.ping().await?;
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < ROOM, "memory grew by {grown} bytes");

    // Nobody has authenticated here: it may be cut off, but costs nothing.
    scene.account("mallory").await?;
    let mut stream = scene.stream(Clear, "mallory").await?;
    for _ in 0..64 {
        if stream.send(blank.as_bytes()).await.is_err() {
            break;
        }
    }
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < ROOM, "memory grew by {grown} bytes");
    Ok(())
}

/// Sends one byte every tenth of a second until the server has had enough.
async fn drip(stream: &mut starling_tests::client::Stream, text: &str) -> Result<String> {
    for byte in text.as_bytes() {
        if stream.send(std::slice::from_ref(byte)).await.is_err() {
            break;
        }
        match stream.receive(Duration::from_millis(100)).await? {
            Some(Incoming::Node(node)) if node.name == "error" => {
                return Ok(node.children().next().map(|c| c.name.clone()).unwrap_or_default());
            }
            Some(Incoming::Closed) => bail!("closed without an error"),
            _ => {}
        }
    }
    bail!("the server was patient for {} bytes", text.len())
}

async fn x23_slow_header(scene: &mut Scene) -> Result<()> {
    let mut stream = scene.raw().await?;
    let condition = drip(&mut stream, &crate::scene::usual_header().repeat(2)).await?;
    ensure!(condition == "connection-timeout", "{condition}");
    let mut stream = scene.raw().await?;
    stream.open("localhost").await?;
    let condition = drip(&mut stream, &" ".repeat(100)).await?;
    ensure!(condition == "connection-timeout", "white space keeps it open: {condition}");
    Ok(())
}

async fn x23_slow_login(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let mut stream = scene.stream(Secure, "mallory").await?;
    let slow =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}", "A".repeat(200));
    let condition = drip(&mut stream, &slow).await?;
    ensure!(condition == "connection-timeout", "{condition}");
    Ok(())
}

async fn x23_slow_stanza(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let mut stream = scene.stream(Bound, "mallory").await?;
    let condition = drip(&mut stream, &format!("<message><body>{}", "a".repeat(200))).await?;
    ensure!(condition == "connection-timeout", "{condition}");
    Ok(())
}

/// What a connection costs before anybody has logged in, beyond its TLS session: at most four times what it has sent.
/// An average over a thousand connections, each sending `pieces` of an element that never ends.
async fn strangers(scene: &Scene, pieces: &[String]) -> Result<()> {
    const STRANGERS: usize = 1_000;
    let files = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(files)?;
    nix::sys::resource::setrlimit(files, hard, hard)?;
    let mut streams = Vec::new();
    for _ in 0..STRANGERS {
        streams.push(scene.stream(Secure, "nobody").await?);
    }
    let idle = scene.server.resident()?;
    let mut sent = 0;
    for piece in pieces {
        for stream in &mut streams {
            stream.send(piece.as_bytes()).await?;
        }
        sent += piece.len();
        let each = settled(scene).await?.saturating_sub(idle) / STRANGERS as u64;
        ensure!(each <= 4 * sent as u64, "{each} bytes for {sent} received");
    }
    for mut stream in streams {
        let open = stream.receive(Duration::ZERO).await?;
        ensure!(open.is_none(), "not what was to be measured: {open:?}");
    }
    Ok(())
}

/// The server's memory once it has taken all that was sent: when it has not grown for a while.
async fn settled(scene: &Scene) -> Result<u64> {
    let mut last = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = scene.server.resident()?;
        if now <= last {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

async fn strangers_text(scene: &mut Scene) -> Result<()> {
    let head =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}", "A".repeat(1_000));
    strangers(scene, &[head, "A".repeat(1_000), "A".repeat(2_000), "A".repeat(3_000)]).await
}

/// The most that attributes can be before login: five elements with sixty each. (Memory comes in pages of up to 2 MiB: a
/// smaller sum could not be measured.)
async fn strangers_attributes(scene: &mut Scene) -> Result<()> {
    let attributes: String = (0..60).map(|n| format!(" attribute{n}='value {n}'")).collect();
    let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'{attributes}>");
    let inner = format!("<x xmlns='u'{attributes}>").repeat(2);
    strangers(scene, &[format!("{auth}{inner}"), inner]).await
}
