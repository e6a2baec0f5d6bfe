//! T10 to T12 and T18: TLS as it should not be, and a peer that does not read.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use starling_tests::client::Stream;
use starling_tests::{Client, Login, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scene::{ALONE, Case, Scene, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        t10_old_versions,
        t10_weak_ciphers,
        t10_protocol_names,
        t10_server_names,
        t10_versions_that_are_fine,
        t11_fragmented_hello,
        t11_huge_extension with ALONE,
        t11_garbage_after_hello,
        t12_key_update_flood with ALONE,
        t12_renegotiation,
        t18_peer_that_does_not_read with [
            ("limits.stream.send_timeout", "2s"),
            ("limits.sm.max_unacked", "50"),
            ("limits.sm.max_unacked_bytes", "65536"),
            ("limits.sm.resume_timeout", "2s"),
        ],
    ]
}

/// A ClientHello, made by hand: this version, these cipher suites, these extensions.
fn hello(record: u16, version: u16, suites: &[u16], extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([0x5A; 32]);
    body.push(0);
    body.extend(u16::try_from(suites.len() * 2).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(suites.iter().flat_map(|s| s.to_be_bytes()));
    body.extend([1, 0]);
    if !extensions.is_empty() {
        body.extend(u16::try_from(extensions.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend(extensions);
    }
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(body);
    let mut out = Vec::new();
    for part in message.chunks(16_000) {
        out.push(22);
        out.extend(record.to_be_bytes());
        out.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(part);
    }
    out
}

/// The type of the first record that comes back: 21 an alert, 22 a handshake, or nothing at all.
async fn first_record(address: std::net::SocketAddr, bytes: &[u8]) -> Result<Option<u8>> {
    let mut socket = TcpStream::connect(address).await?;
    // The server may refuse before it has read everything.
    let _ = timeout(Duration::from_secs(5), socket.write_all(bytes)).await.context("it does not read")?;
    let mut answer = [0; 5];
    match timeout(Duration::from_secs(15), socket.read_exact(&mut answer)).await {
        Ok(Ok(_)) => Ok(Some(answer[0])),
        Ok(Err(_)) => Ok(None),
        Err(_) => bail!("no answer to a ClientHello"),
    }
}

fn tls_address(scene: &Scene) -> Result<std::net::SocketAddr> {
    scene.server.target().c2s_tls.context("no direct TLS address")
}

const MODERN: &[u16] = &[0xC02F, 0xC030, 0xC02B, 0xC02C];

async fn t10_old_versions(scene: &mut Scene) -> Result<()> {
    for version in [0x0300, 0x0301, 0x0302] {
        let record = first_record(tls_address(scene)?, &hello(version, version, MODERN, &[])).await?;
        ensure!(record != Some(22), "version {version:#x} was taken");
    }
    Ok(())
}

async fn t10_weak_ciphers(scene: &mut Scene) -> Result<()> {
    // NULL, export, anonymous, RC4, single DES, triple DES, plain RSA key exchange.
    for suite in
        [0x0000, 0x0001, 0x0003, 0x0018, 0x0004, 0x0005, 0x0009, 0x000A, 0x002F, 0x009C, 0xC007, 0xC012]
    {
        let record = first_record(tls_address(scene)?, &hello(0x0301, 0x0303, &[suite], &[])).await?;
        ensure!(record != Some(22), "cipher suite {suite:#06x} was taken");
    }
    Ok(())
}

fn with_protocols(target: &Target, names: &[&str]) -> Arc<ClientConfig> {
    let mut config = (*target.tls).clone();
    config.alpn_protocols = names.iter().map(|n| n.as_bytes().to_vec()).collect();
    Arc::new(config)
}

async fn t10_protocol_names(scene: &mut Scene) -> Result<()> {
    let target = scene.server.target();
    let address = tls_address(scene)?;
    for wrong in [&["h2", "http/1.1"][..], &["xmpp-server"]] {
        let stream = Stream::connect_tls(address, with_protocols(target, wrong), "localhost").await;
        ensure!(stream.is_err(), "ALPN {wrong:?} was taken");
    }
    for right in [&["xmpp-client"][..], &["h2", "xmpp-client"], &[]] {
        let mut stream = Stream::connect_tls(address, with_protocols(target, right), "localhost").await?;
        stream.open("localhost").await.with_context(|| format!("ALPN {right:?}"))?;
    }
    Ok(())
}

async fn t10_server_names(scene: &mut Scene) -> Result<()> {
    let target = scene.server.target();
    let address = tls_address(scene)?;
    // A name that is not served: an alert, or a certificate that proves another name, which a client refuses.
    let stream = Stream::connect_tls(address, target.tls.clone(), "elsewhere.example").await;
    ensure!(stream.is_err(), "a certificate for elsewhere.example");
    // No name at all: the default domain.
    let mut config = (*target.tls).clone();
    config.enable_sni = false;
    let mut stream = Stream::connect_tls(address, Arc::new(config), "localhost").await?;
    stream.open("localhost").await?;
    Ok(())
}

async fn t10_versions_that_are_fine(scene: &mut Scene) -> Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anything))
            .with_no_client_auth();
        let mut target = scene.server.target().clone();
        target.tls = Arc::new(config);
        scene.account(&format!("v{:?}", version.version)).await?;
        let mut stream = Stream::connect_tls(tls_address(scene)?, target.tls.clone(), "localhost").await?;
        ensure!(stream.tls_version() == Some(version.version));
        stream.open("localhost").await?;
    }
    Ok(())
}

/// A real ClientHello of a real client.
fn real_hello(target: &Target) -> Result<Vec<u8>> {
    let mut client = ClientConnection::new(target.tls.clone(), ServerName::try_from("localhost")?)?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes)?;
    Ok(bytes)
}

async fn t11_fragmented_hello(scene: &mut Scene) -> Result<()> {
    let hello = real_hello(scene.server.target())?;
    let message = hello.get(5..).context("a record")?;
    let records: Vec<u8> = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    let record = first_record(tls_address(scene)?, &records).await?;
    ensure!(matches!(record, Some(22 | 21) | None), "{record:?}");
    // Each byte of the whole thing in a segment of its own is what slow networks do: it must work.
    let mut stream = TcpStream::connect(tls_address(scene)?).await?;
    stream.set_nodelay(true)?;
    for byte in &hello {
        stream.write_all(std::slice::from_ref(byte)).await?;
    }
    let mut answer = [0; 5];
    timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await.context("no ServerHello")??;
    ensure!(answer[0] == 22, "{answer:?}");
    Ok(())
}

async fn t11_huge_extension(scene: &mut Scene) -> Result<()> {
    let before = scene.server.resident()?;
    for size in [16_000usize, 60_000] {
        let mut extension = 21u16.to_be_bytes().to_vec();
        extension.extend(u16::try_from(size)?.to_be_bytes());
        extension.extend(vec![0; size]);
        first_record(tls_address(scene)?, &hello(0x0301, 0x0303, MODERN, &extension)).await?;
    }
    // A handshake message that claims 16 MB and never ends.
    let mut endless = vec![22, 3, 1, 0x3E, 0x80, 1, 0xFF, 0xFF, 0xFF];
    endless.extend(vec![0; 16_000 - 4]);
    let again = [&[22, 3, 1, 0x3E, 0x80][..], &[0; 16_000]].concat();
    let mut socket = TcpStream::connect(tls_address(scene)?).await?;
    let _ = socket.write_all(&endless).await;
    for _ in 0..500 {
        if socket.write_all(&again).await.is_err() {
            break;
        }
    }
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < 32 << 20, "memory grew by {grown} bytes");
    Ok(())
}

async fn t11_garbage_after_hello(scene: &mut Scene) -> Result<()> {
    for tail in
        [&[0xFFu8; 300][..], &[23, 3, 3, 0, 5, 1, 2, 3, 4, 5], &[21, 3, 3, 0, 2, 2, 40], b"<message/>"]
    {
        let mut socket = TcpStream::connect(tls_address(scene)?).await?;
        socket.write_all(&[real_hello(scene.server.target())?.as_slice(), tail].concat()).await?;
        let mut rest = Vec::new();
        // Whatever it says, it ends.
        timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await.context("left open")?.ok();
    }
    Ok(())
}

async fn t12_key_update_flood(scene: &mut Scene) -> Result<()> {
    let target = scene.server.target();
    let tcp = TcpStream::connect(tls_address(scene)?).await?;
    let connector = tokio_rustls::TlsConnector::from(target.tls.clone());
    let mut tls = connector.connect(ServerName::try_from("localhost")?, tcp).await?;
    let before = scene.server.resident()?;
    let flood = async {
        for _ in 0..20_000 {
            tls.get_mut().1.refresh_traffic_keys()?;
            tls.flush().await?;
        }
        let mut byte = [0; 1];
        tls.read_exact(&mut byte).await.context("closed")?;
        anyhow::Ok(())
    };
    // An alert and the end, or patience without effort: both are fine, growing is not.
    let _ = timeout(Duration::from_secs(10), flood).await;
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < 32 << 20, "memory grew by {grown} bytes");
    Ok(())
}

/// With the openssl command, for no library here can still do it.
async fn t12_renegotiation(scene: &mut Scene) -> Result<()> {
    let address = tls_address(scene)?.to_string();
    let mut said = String::new();
    // It does not tell when its session stands: a busy machine gets more time.
    for pause in [400, 2_000, 6_000] {
        let (address, pause) = (address.clone(), Duration::from_millis(pause));
        said = tokio::task::spawn_blocking(move || renegotiate(&address, pause)).await??;
        let refused = ["no renegotiation", "handshake failure", "unexpected message"];
        if said.contains("Cipher is") && refused.iter().any(|r| said.contains(r)) {
            return Ok(());
        }
    }
    bail!("{said}")
}

fn renegotiate(address: &str, pause: Duration) -> Result<String> {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", address, "-tls1_2", "-servername", "localhost"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the openssl command is needed")?;
    std::thread::sleep(pause);
    if let Some(stdin) = &mut child.stdin {
        let _ = stdin.write_all(b"R\n");
        let _ = stdin.flush();
    }
    std::thread::sleep(pause);
    let _ = child.kill();
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A receiver that reads nothing while megabytes wait for it: memory stays flat, the sender is not held up, and what was
/// accepted is there when the receiver comes back.
async fn t18_peer_that_does_not_read(scene: &mut Scene) -> Result<()> {
    let mut sender = scene.client("sender").await?;
    let login: Login = scene.account("victim").await?.resource("stuck").managed();
    let mut stuck: Client = login.connect(scene.server.target()).await?;
    stuck.come_online().await?;
    let victim = stuck.bare().to_owned();
    let filler = "x".repeat(8_000);
    let before = scene.server.resident()?;
    let count = 3_000;
    for n in 0..count {
        let xml = format!("<message to='{victim}' type='chat' id='n{n}'><body>{n} {filler}</body></message>");
        sender.send(&xml).await?;
        if n % 100 == 0 {
            sender.ping().await?;
        }
    }
    sender.ping().await?;
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < 96 << 20, "memory grew by {grown} bytes for {count} messages");
    // Nothing was bounced.
    sender.silence(Duration::from_millis(200)).await?;
    drop(stuck);

    // Its session is kept for a while, for it to resume; then what it has not acknowledged is for whoever comes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut back = scene.login("victim").resource("back").managed().connect(scene.server.target()).await?;
    back.send("<presence/>").await?;
    let mut next = 0;
    while next < count {
        let node = back.next().await.with_context(|| format!("after {next} of {count}"))?;
        let Some(body) = node.body() else { continue };
        let n: i32 = body.split(' ').next().context("a number")?.parse()?;
        // What was on its way to the stuck socket may come again, in order; a gap may not.
        ensure!(n <= next, "message {next} is missing, {n} came");
        next = next.max(n + 1);
    }
    Ok(())
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
