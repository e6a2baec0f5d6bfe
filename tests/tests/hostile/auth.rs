//! A01 to A11: authentication that must fail, and how.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use starling_tests::client::{Hash, Incoming, Scram, Stream};
use starling_tests::server::PASSWORD;
use starling_tests::{Login, Mechanism, Node};

use crate::scene::{Case, Phase, Scene, cases};

use Phase::{Bound, Clear, Secure};

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

pub(crate) fn cases() -> Vec<Case> {
    cases![
        a01_unknown_mechanism,
        a02_plain_before_tls,
        a03_malformed,
        a04_authorization_identity,
        a05_scram_nonce,
        a05_scram_extension,
        a05_scram_replay,
        a05_scram_downgrade,
        a05_scram_iterations,
        a05_unknown_user,
        a06_channel_binding,
        a06_old_client_falls_back,
        a07_attempts,
        a08_odd_passwords,
        a09_hash_flood with [("limits.auth.queue", "4"), ("auth.iterations", "50000")],
        a10_out_of_order,
        a11_no_tokens_yet,
    ]
}

fn auth(mechanism: &str, message: &[u8]) -> String {
    format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{}</auth>", BASE64.encode(message))
}

fn plain(authzid: &str, user: &str, password: &str) -> String {
    auth("PLAIN", format!("{authzid}\0{user}\0{password}").as_bytes())
}

/// Sends one request and gives the condition of the failure that must follow.
async fn failure(stream: &mut Stream, request: &str) -> Result<String> {
    stream.send(request.as_bytes()).await?;
    let answer = stream.node().await?;
    ensure!(answer.is(SASL, "failure"), "no failure but {answer}");
    answer.condition().context("a failure without condition")
}

/// On a fresh stream, `request` must fail with one of the conditions.
async fn fails(scene: &Scene, request: &str, conditions: &[&str]) -> Result<()> {
    let mut stream = scene.stream(Secure, "nobody").await?;
    let shown: String = request.chars().take(160).collect();
    let got = failure(&mut stream, request).await.with_context(|| shown.clone())?;
    ensure!(conditions.contains(&got.as_str()), "{shown}: got {got}");
    Ok(())
}

async fn a01_unknown_mechanism(scene: &mut Scene) -> Result<()> {
    for mechanism in
        ["ANONYMOUS", "EXTERNAL", "DIGEST-MD5", "CRAM-MD5", "LOGIN", "GSSAPI", "plain", "SCRAM-MD5", "", "X"]
    {
        fails(scene, &auth(mechanism, b"\0a\0b"), &["invalid-mechanism"]).await?;
    }
    fails(scene, &format!("<auth xmlns='{SASL}'/>"), &["invalid-mechanism", "malformed-request"]).await
}

async fn a02_plain_before_tls(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    for request in [plain("", &scene.name("alice"), PASSWORD), auth("SCRAM-SHA-1", b"n,,n=alice,r=abc")] {
        let mut stream = scene.stream(Clear, "alice").await?;
        let got = failure(&mut stream, &request).await?;
        ensure!(got == "encryption-required", "{got}");
    }
    Ok(())
}

async fn a03_malformed(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let name = scene.name("alice");
    let element = |text: &str| format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{text}</auth>");
    let encoding = &["incorrect-encoding", "malformed-request"];
    for text in ["!!!", "AGFsaWNl=AGJvYg==", "AGFs aWNl", "====", "A", "AGEAYg", "\u{1F426}", "AGEAYg==\n\n!"]
    {
        fails(scene, &element(text), encoding).await.with_context(|| text.to_owned())?;
    }
    let malformed = &["malformed-request", "not-authorized", "invalid-authzid", "incorrect-encoding"];
    for message in [
        b"\0".as_slice(),
        b"\0\0",
        b"\0\0\0",
        b"nothing",
        b"\0user",
        b"\0user\0",
        b"\0\0password",
        b"\0user\0pass\0word",
        b"\0us\0er\0pass\0word\0",
        b"\0\xFF\xFE\0password",
        b"\0user\0\xC0\x80",
    ] {
        fails(scene, &auth("PLAIN", message), malformed).await?;
    }
    // The right password with a NUL behind it is not the right password.
    fails(scene, &auth("PLAIN", format!("\0{name}\0{PASSWORD}\0").as_bytes()), malformed).await?;
    // `=` is an empty initial response (RFC 6120 section 6.4.2), for PLAIN a malformed one.
    fails(scene, &element("="), malformed).await?;
    for message in [
        "n",
        "n,,",
        "n,,r=abc",
        "n,,n=,r=abc",
        "n,,n=a",
        "x,,n=a,r=b",
        "n,,n=a=,r=b",
        "n,,n=a=2Z,r=b",
        "p=,,n=a,r=b",
        "n,b=x,n=a,r=b",
        ",,n=a,r=b",
    ] {
        fails(scene, &auth("SCRAM-SHA-1", message.as_bytes()), malformed)
            .await
            .with_context(|| message.to_owned())?;
    }
    Ok(())
}

/// The worst bug of its year elsewhere: whoever authenticates may only ever be himself.
async fn a04_authorization_identity(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    scene.account("victim").await?;
    let alice = scene.name("alice");
    let victim = scene.jid("victim");
    for other in
        [victim.as_str(), "admin@localhost", "localhost", "alice@elsewhere.example", "@", "victim", "*"]
    {
        let conditions = &["invalid-authzid", "malformed-request"];
        fails(scene, &plain(other, &alice, PASSWORD), conditions).await?;
        // By SCRAM: the refusal may come before or after the proof, but success may not.
        let mut stream = scene.stream(Secure, "nobody").await?;
        let gs2 = format!("n,a={},", other.replace('=', "=3D").replace(',', "=2C"));
        let answer =
            scram(&mut stream, Scram::with_gs2(Hash::Sha1, &gs2, &alice, PASSWORD, "0123456789abcdef"))
                .await?;
        let got = answer.condition().unwrap_or_else(|| answer.name.clone());
        ensure!(conditions.contains(&got.as_str()), "SCRAM for {other}: {got}");
    }
    // Oneself, by name, is fine.
    let own = scene.jid("alice");
    let mut stream = scene.stream(Secure, "nobody").await?;
    stream.send(plain(&own, &alice, PASSWORD).as_bytes()).await?;
    ensure!(stream.node().await?.is(SASL, "success"), "PLAIN with one's own authzid");
    let mut stream = scene.stream(Secure, "nobody").await?;
    let gs2 = format!("n,a={own},");
    let answer =
        scram(&mut stream, Scram::with_gs2(Hash::Sha1, &gs2, &alice, PASSWORD, "0123456789abcdef")).await?;
    ensure!(answer.is(SASL, "success"), "SCRAM with one's own authzid: {answer}");
    Ok(())
}

/// A whole SCRAM-SHA-1 exchange; gives the last answer.
async fn scram(stream: &mut Stream, scram: Scram) -> Result<Node> {
    scram_with(stream, "SCRAM-SHA-1", scram, |answer| answer).await
}

/// The same with the client-final-message put through `change`.
async fn scram_with(
    stream: &mut Stream,
    mechanism: &str,
    mut scram: Scram,
    change: impl FnOnce(String) -> String,
) -> Result<Node> {
    stream.send(auth(mechanism, scram.first().as_bytes()).as_bytes()).await?;
    let challenge = stream.node().await?;
    if !challenge.is(SASL, "challenge") {
        return Ok(challenge);
    }
    let first = String::from_utf8(BASE64.decode(challenge.text())?)?;
    let answer = change(scram.answer(&first)?);
    stream.send(format!("<response xmlns='{SASL}'>{}</response>", BASE64.encode(answer)).as_bytes()).await?;
    stream.node().await
}

fn refused(answer: &Node) -> Result<()> {
    let conditions = ["not-authorized", "malformed-request", "incorrect-encoding"];
    let got = answer.condition().unwrap_or_else(|| answer.name.clone());
    ensure!(answer.is(SASL, "failure") && conditions.contains(&got.as_str()), "{answer}");
    Ok(())
}

async fn a05_scram_nonce(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    let nonce = "fedcba9876543210";
    type Change = fn(String) -> String;
    let changes: [Change; 7] = [
        |m| m.replacen("r=f", "r=e", 1),
        |m| {
            let at = m.find(",p=").unwrap_or(m.len());
            format!("{}{}", &m[..at - 1], &m[at..])
        },
        |m| m.replace("r=fedcba9876543210", "r="),
        |m| m.split(",p=").next().unwrap_or_default().to_owned(),
        |m| format!("{m},x=1"),
        |m| m.replacen("c=", "d=", 1),
        |m| format!("{},p=", m.split(",p=").next().unwrap_or_default()),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut stream = scene.stream(Secure, "alice").await?;
        let exchange = Scram::new(Hash::Sha1, &user, PASSWORD, nonce);
        let answer = scram_with(&mut stream, "SCRAM-SHA-1", exchange, change).await?;
        refused(&answer).with_context(|| format!("change {n}"))?;
    }
    Ok(())
}

async fn a05_scram_extension(scene: &mut Scene) -> Result<()> {
    let user = scene.name("alice");
    scene.account("alice").await?;
    // A mandatory extension that nobody knows (RFC 5802 section 5.1).
    let first = format!("n,,m=future,n={user},r=0123456789");
    fails(scene, &auth("SCRAM-SHA-1", first.as_bytes()), &["malformed-request", "not-authorized"]).await
}

async fn a05_scram_replay(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    let mut old = String::new();
    let mut stream = scene.stream(Secure, "alice").await?;
    let exchange = || Scram::new(Hash::Sha1, &user, PASSWORD, "0123456789abcdef");
    let keep = |m: String| {
        old.clone_from(&m);
        m
    };
    let answer = scram_with(&mut stream, "SCRAM-SHA-1", exchange(), keep).await?;
    ensure!(answer.is(SASL, "success"), "{answer}");
    let mut stream = scene.stream(Secure, "alice").await?;
    let answer = scram_with(&mut stream, "SCRAM-SHA-1", exchange(), |_| old.clone()).await?;
    refused(&answer)
}

async fn a05_scram_downgrade(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    // "I could bind but you could not": we can, so somebody lied (RFC 5802 section 6).
    let mut stream = scene.stream(Secure, "alice").await?;
    let exchange = Scram::with_gs2(Hash::Sha1, "y,,", &user, PASSWORD, "0123456789abcdef");
    refused(&scram(&mut stream, exchange).await?)?;
    // Binding announced with a mechanism that has none, and the reverse.
    let mut stream = scene.stream(Secure, "alice").await?;
    let exchange = Scram::with_gs2(Hash::Sha1, "p=tls-exporter,,", &user, PASSWORD, "0123456789abcdef");
    refused(&scram(&mut stream, exchange).await?)?;
    let mut stream = scene.stream(Secure, "alice").await?;
    let exchange = Scram::new(Hash::Sha1, &user, PASSWORD, "0123456789abcdef");
    refused(&scram_with(&mut stream, "SCRAM-SHA-1-PLUS", exchange, |m| m).await?)
}

/// The server says how often to hash, not the client: a client that claims otherwise proves nothing.
async fn a05_scram_iterations(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let mut stream = scene.stream(Secure, "alice").await?;
    stream
        .send(
            auth("SCRAM-SHA-1", format!("n,,n={},r=abcdef0123456789", scene.name("alice")).as_bytes())
                .as_bytes(),
        )
        .await?;
    let challenge = stream.node().await?;
    let first = String::from_utf8(BASE64.decode(challenge.text())?)?;
    let iterations: u32 = first.split(",i=").nth(1).context("no iteration count")?.parse()?;
    ensure!(iterations >= 4_096, "{iterations} iterations");
    let lie = format!("c=biws,{},i=1,p=AAAA", first.split(',').next().unwrap_or_default());
    stream.send(format!("<response xmlns='{SASL}'>{}</response>", BASE64.encode(lie)).as_bytes()).await?;
    refused(&stream.node().await?)
}

/// An account that is not there looks like one that is: the same salt each time, the same count, the same answer, about
/// the same time.
async fn a05_unknown_user(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let mut seen = Vec::new();
    let mut times = Vec::new();
    for user in [scene.name("alice"), scene.name("ghost"), scene.name("ghost"), scene.name("phantom")] {
        let mut spent = Duration::ZERO;
        for _ in 0..5 {
            let mut stream = scene.stream(Secure, "alice").await?;
            let nonce = format!("{:016x}", rand::random::<u64>());
            let start = Instant::now();
            stream.send(auth("SCRAM-SHA-1", format!("n,,n={user},r={nonce}").as_bytes()).as_bytes()).await?;
            let challenge = stream.node().await?;
            spent += start.elapsed();
            ensure!(challenge.is(SASL, "challenge"), "{user}: {challenge}");
            let first = String::from_utf8(BASE64.decode(challenge.text())?)?;
            let salt =
                first.split(",s=").nth(1).and_then(|s| s.split(',').next()).context("no salt")?.to_owned();
            let count = first.split(",i=").nth(1).context("no count")?.to_owned();
            seen.push((user.clone(), salt, count));
            let exchange = Scram::new(Hash::Sha1, &user, "wrong", "0123456789abcdef");
            let mut stream = scene.stream(Secure, "alice").await?;
            let answer = scram(&mut stream, exchange).await?;
            ensure!(answer.condition().as_deref() == Some("not-authorized"), "{user}: {answer}");
        }
        times.push(spent);
    }
    for (user, salt, count) in &seen {
        let same = seen.iter().filter(|(u, s, c)| (u == user) == (s == salt) && c == count).count();
        ensure!(same == seen.len(), "{user} can be told from others: {seen:?}");
        ensure!(
            BASE64.decode(salt)?.len() == BASE64.decode(&seen[0].1)?.len(),
            "salts differ in length: {seen:?}"
        );
    }
    // By PLAIN as well; the time of a hash is spent for both. A loaded machine blurs this: only gross differences count.
    let mut spent = Vec::new();
    for user in [scene.name("alice"), scene.name("ghost")] {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let mut stream = scene.stream(Secure, "alice").await?;
            let start = Instant::now();
            let got = failure(&mut stream, &plain("", &user, "wrong")).await?;
            ensure!(got == "not-authorized", "{user}: {got}");
            best = best.min(start.elapsed());
        }
        spent.push(best);
    }
    let (fast, slow) = (spent[0].min(spent[1]), spent[0].max(spent[1]));
    ensure!(slow < fast * 4 + Duration::from_millis(5), "time tells: {spent:?}");
    Ok(())
}

/// Channel binding works when it is true, and only then: a mechanism list that somebody shortened on the way is noticed.
async fn a06_channel_binding(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    for (hash, mechanism) in [
        (Hash::Sha1, "SCRAM-SHA-1-PLUS"),
        (Hash::Sha256, "SCRAM-SHA-256-PLUS"),
        (Hash::Sha512, "SCRAM-SHA-512-PLUS"),
    ] {
        let exchange = |data: &[u8]| {
            Scram::with_gs2(hash, "p=tls-exporter,,", &user, PASSWORD, "0123456789abcdef").bound_to(data)
        };
        let mut stream = scene.stream(Secure, "alice").await?;
        let data = stream.exporter()?;
        let answer = scram_with(&mut stream, mechanism, exchange(&data), |m| m).await?;
        ensure!(answer.is(SASL, "success"), "{mechanism}: {answer}");
        for wrong in [&[0; 32][..], &data[..31], b""] {
            let mut stream = scene.stream(Secure, "alice").await?;
            let answer = scram_with(&mut stream, mechanism, exchange(wrong), |m| m).await?;
            refused(&answer)?;
        }
        for kind in ["tls-unique", "tls-nonsense"] {
            let mut stream = scene.stream(Secure, "alice").await?;
            let gs2 = format!("p={kind},,");
            let exchange = Scram::with_gs2(hash, &gs2, &user, PASSWORD, "0123456789abcdef").bound_to(&data);
            refused(&scram_with(&mut stream, mechanism, exchange, |m| m).await?)?;
        }
    }
    Ok(())
}

/// Clients of a few years ago try bindings that TLS 1.3 does not have, then claim that we have none, and then fall back to
/// PLAIN, all on one stream. No password was guessed on the way: they get in.
async fn a06_old_client_falls_back(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    let mut stream = scene.stream(Secure, "alice").await?;
    for mechanism in ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        let first = format!("p=tls-unique,,n={user},r=0123456789abcdef");
        failure(&mut stream, &auth(mechanism, first.as_bytes())).await.context(mechanism)?;
    }
    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"] {
        let first = format!("y,,n={user},r=0123456789abcdef");
        failure(&mut stream, &auth(mechanism, first.as_bytes())).await.context(mechanism)?;
    }
    stream.send(plain("", &user, PASSWORD).as_bytes()).await?;
    let answer = stream.node().await?;
    ensure!(answer.is(SASL, "success"), "{answer}");
    Ok(())
}

async fn a07_attempts(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    let mut stream = scene.stream(Secure, "alice").await?;
    let mut failures = 0;
    loop {
        if stream.send(plain("", &user, "wrong").as_bytes()).await.is_err() {
            break;
        }
        match stream.next().await? {
            Incoming::Node(node) if node.is(SASL, "failure") => failures += 1,
            Incoming::Node(node) => {
                let condition = node.children().next().map(|c| c.name.clone()).unwrap_or_default();
                ensure!(condition == "policy-violation", "{node}");
                break;
            }
            other => bail!("after {failures} failures: {other:?}"),
        }
        ensure!(failures < 6, "{failures} attempts on one stream");
    }
    ensure!(failures >= 2, "only {failures} attempts (RFC 6120 section 6.4.5 asks for two)");
    // Failures do not lock the account.
    scene.login("alice").connect(scene.server.target()).await?;
    Ok(())
}

async fn a08_odd_passwords(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    let user = scene.name("alice");
    let conditions = &["not-authorized", "malformed-request"];
    for password in ["", " ", "\u{7}", "\u{200B}", "a\u{202E}b", "\u{E0041}", "\u{378}", "\u{FFF9}", "\u{0}x"]
    {
        fails(scene, &plain("", &user, password), conditions)
            .await
            .with_context(|| format!("{password:?}"))?;
    }
    // As long as an element may be before login.
    fails(scene, &plain("", &user, &"x".repeat(5_000)), conditions).await?;
    for name in ["", "a@b", "a/b", "\u{0}", "\u{FFFD}", " ", "a b", "\u{130}\u{131}", &"n".repeat(2_000)] {
        fails(scene, &plain("", name, PASSWORD), conditions).await.with_context(|| format!("{name:?}"))?;
        let first = format!("n,,n={},r=0123456789", name.replace(',', "=2C"));
        let mut stream = scene.stream(Secure, "alice").await?;
        stream.send(auth("SCRAM-SHA-256", first.as_bytes()).as_bytes()).await?;
        let answer = stream.node().await?;
        ensure!(matches!(answer.name.as_str(), "failure" | "challenge"), "{name:?}: {answer}");
    }
    // A megabyte: cut off at the limit, long before anybody hashes it.
    let mut stream = scene.stream(Secure, "alice").await?;
    let huge = plain("", &user, &"x".repeat(1 << 20));
    let condition = crate::scene::flood(&mut stream, huge.as_bytes(), 1).await?;
    ensure!(condition.as_deref().is_none_or(|c| c == "policy-violation"), "{condition:?}");
    // What may look like another password is the same after preparation (RFC 8265): full-width digits are not.
    Login::new(&user, PASSWORD).mechanism(Mechanism::Plain).connect(scene.server.target()).await?;
    Ok(())
}

/// Many password hashes at a time: refused beyond the queue, and sessions go on.
async fn a09_hash_flood(scene: &mut Scene) -> Result<()> {
    let mut friend = scene.client("friend").await?;
    let user = scene.name("friend");
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(scene.stream(Secure, "friend").await?);
    }
    let request = plain("", &user, "wrong");
    for stream in &mut streams {
        stream.send(request.as_bytes()).await?;
    }
    let start = Instant::now();
    friend.ping().await?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(2), "a session waited {took:?} for a ping");
    let mut busy = 0;
    for stream in &mut streams {
        let answer = stream.node().await?;
        match answer.condition().as_deref() {
            Some("temporary-auth-failure") => busy += 1,
            Some("not-authorized") => {}
            other => bail!("{other:?} in {answer}"),
        }
    }
    ensure!(busy > 0, "all 40 were hashed at a queue of 4");
    Ok(())
}

async fn a10_out_of_order(scene: &mut Scene) -> Result<()> {
    scene.account("alice").await?;
    scene.account("mallory").await?;
    let user = scene.name("alice");
    // Again after success.
    let again = plain("", &user, PASSWORD);
    scene.ends_with(&[Bound], again.as_bytes(), &["policy-violation", "unsupported-stanza-type"]).await?;

    // Abort, and start anew (RFC 6120 section 6.4.4).
    let mut stream = scene.stream(Secure, "alice").await?;
    stream.send(auth("SCRAM-SHA-1", format!("n,,n={user},r=0123456789abcdef").as_bytes()).as_bytes()).await?;
    ensure!(stream.node().await?.is(SASL, "challenge"));
    let got = failure(&mut stream, &format!("<abort xmlns='{SASL}'/>")).await?;
    ensure!(got == "aborted", "{got}");
    stream.send(plain("", &user, PASSWORD).as_bytes()).await?;
    ensure!(stream.node().await?.is(SASL, "success"));

    // A response to nothing.
    let mut stream = scene.stream(Secure, "alice").await?;
    let got = failure(&mut stream, &format!("<response xmlns='{SASL}'>AAAA</response>")).await?;
    ensure!(matches!(got.as_str(), "malformed-request" | "not-authorized"), "{got}");

    // Another start in the middle: the old exchange is forgotten.
    let mut stream = scene.stream(Secure, "alice").await?;
    stream.send(auth("SCRAM-SHA-1", format!("n,,n={user},r=0123456789abcdef").as_bytes()).as_bytes()).await?;
    ensure!(stream.node().await?.is(SASL, "challenge"));
    stream.send(plain("", &user, PASSWORD).as_bytes()).await?;
    let answer = stream.node().await?;
    ensure!(matches!(answer.name.as_str(), "success" | "failure"), "{answer}");

    // A stanza in the middle.
    let mut stream = scene.stream(Secure, "alice").await?;
    stream.send(auth("SCRAM-SHA-1", format!("n,,n={user},r=0123456789abcdef").as_bytes()).as_bytes()).await?;
    ensure!(stream.node().await?.is(SASL, "challenge"));
    stream.send(b"<message to='localhost'/>").await?;
    let condition = stream.stream_error().await?;
    ensure!(condition == "not-authorized", "{condition}");

    // Success, and then another identity in the new stream header.
    let mut stream = scene.stream(Secure, "alice").await?;
    stream.send(plain("", &user, PASSWORD).as_bytes()).await?;
    ensure!(stream.node().await?.is(SASL, "success"));
    stream.restart();
    let other = scene.jid("mallory");
    let header =
        crate::scene::usual_header().replacen("to='localhost'", &format!("to='localhost' from='{other}'"), 1);
    stream.send(header.as_bytes()).await?;
    let condition = stream.stream_error().await?;
    ensure!(matches!(condition.as_str(), "invalid-from" | "not-authorized"), "{condition}");
    Ok(())
}

/// Tokens (XEP-0484) and SASL2 (XEP-0388) are not there yet: neither offered nor taken.
async fn a11_no_tokens_yet(scene: &mut Scene) -> Result<()> {
    fails(scene, &auth("HT-SHA-256-NONE", b"alice\0token"), &["invalid-mechanism"]).await?;
    fails(scene, &auth("HT-SHA-256-EXPR", b"alice\0token"), &["invalid-mechanism"]).await?;
    scene.account("mallory").await?;
    let sasl2 = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>AGEAYg==</initial-response>\
                 </authenticate>";
    scene.ends_with(&[Secure], sasl2.as_bytes(), &["unsupported-stanza-type", "not-authorized"]).await
}
