//! TLS as clients see it (XEP-0368, RFC 9325; rows T01 and T10 of the hostile inputs).

use crate::Site;
use crate::client::{Client, TLS12, Tls, bind};
use sha2::{Digest, Sha256};
use starling_node::config::CertificateFiles;

#[tokio::test]
async fn direct_tls_takes_its_own_alpn_or_none_and_no_other() {
    let site = Site::start().await;
    let with = |alpn: &[&'static str]| Tls { alpn: alpn.to_vec(), ..Tls::default() };
    let client = Client::direct(site.c2s_tls(), with(&["xmpp-client"])).await.unwrap();
    assert_eq!(client.alpn().unwrap(), b"xmpp-client");
    let mut none = Client::direct(site.c2s_tls(), with(&[])).await.unwrap();
    none.open().await;
    none.expect("<mechanisms").await;
    assert!(Client::direct(site.c2s_tls(), with(&["h2", "http/1.1"])).await.is_err());
    assert!(Client::direct(site.c2s_tls(), with(&["h2", "xmpp-client"])).await.is_ok());
}

#[tokio::test]
async fn both_versions_work_and_are_counted() {
    let site = Site::start().await;
    for versions in [TLS12, crate::client::TLS13] {
        let mut client = Client::direct(site.c2s_tls(), Tls { versions, ..Tls::default() }).await.unwrap();
        client.open().await;
        client.expect("</stream:features>").await;
    }
    let metrics = site.telemetry.metrics.encode();
    for version in ["1.2", "1.3"] {
        let line =
            format!("xmpp_tls_handshake_duration_seconds_count{{version=\"{version}\",result=\"ok\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn t01_other_protocols_are_turned_away_on_both_ports() {
    let site = Site::start().await;
    for text in ["GET / HTTP/1.0\r\n\r\n", "SSH-2.0-x\r\n", "<?xml version='1.0'?><stream:stream>"] {
        let mut client = Client::tcp(site.c2s_tls()).await;
        client.send(text).await;
        // An alert, which is not text, or nothing.
        let _ = client.send_bytes(b"").await;
        client.cut();
    }
    assert!(Client::direct(site.c2s(), Tls::default()).await.is_err(), "a ClientHello is not XML");
    let mut good = Client::direct(site.c2s_tls(), Tls::default()).await.unwrap();
    good.open().await;
    good.expect("</stream:features>").await;
}

fn pair(dir: &std::path::Path, name: &str, domain: &str) -> CertificateFiles {
    let made = rcgen::generate_simple_self_signed(vec![domain.to_owned()]).unwrap();
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    CertificateFiles { cert: Some(cert), key: Some(key) }
}

#[tokio::test]
async fn the_certificate_follows_the_name_and_a_reload_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::with(|config| {
        config.domains = vec!["localhost".into(), "other.example".into()];
        config.tls.domains.0.insert("other.example".into(), pair(dir.path(), "other", "other.example"));
    })
    .await;
    let own = Client::direct(site.c2s_tls(), Tls::default()).await.unwrap().certificate();
    assert_eq!(site.edge.fingerprint().0, <[u8; 32]>::from(Sha256::digest(&own)));
    assert_eq!(site.edge.fingerprint().to_string().len(), 95);
    let other = Tls { name: "other.example", ..Tls::default() };
    let other = Client::direct(site.c2s_tls(), other).await.unwrap().certificate();
    assert_ne!(own, other);
    let unknown = Tls { name: "unknown.example", ..Tls::default() };
    assert_eq!(Client::direct(site.c2s_tls(), unknown).await.unwrap().certificate(), own);

    let mut open = Client::bound(site.c2s(), "open").await;
    let new = pair(dir.path(), "new", "localhost");
    let new_key = new.key.clone();
    (site.config.tls.cert, site.config.tls.key) = (new.cert, new.key);
    site.config.domains.push("third.example".into());
    site.edge.reload(&site.config).unwrap();
    let renewed = Client::direct(site.c2s_tls(), Tls::default()).await.unwrap().certificate();
    assert!(renewed != own && renewed != other);
    open.send("<message><body>still here</body></message>").await;
    open.expect("<body>still here</body>").await;
    let mut third = Client::tcp(site.c2s()).await;
    third.send(&crate::client::header("third.example")).await;
    third.expect("<starttls").await;
    assert_eq!(site.edge.domains(), site.config.domains);

    site.config.tls.key = Some(dir.path().join("other.key"));
    let error = site.edge.reload(&site.config).unwrap_err().to_string();
    assert!(error.contains("new.pem"), "{error}");
    assert_eq!(Client::direct(site.c2s_tls(), Tls::default()).await.unwrap().certificate(), renewed);

    site.config.tls.key = new_key;
    site.config.domains.retain(|domain| domain != "localhost");
    site.edge.reload(&site.config).unwrap();
    assert!(open.rest().await.contains("<host-gone "));
}

/// A session is not told of what was reloaded before it began.
#[tokio::test]
async fn a_domain_that_goes_while_a_stream_is_negotiated_has_no_session() {
    let mut site = Site::with(|config| config.domains.push("other.example".into())).await;
    let mut early = Client::secured(site.c2s()).await;
    let mut late = Client::authenticated(site.c2s()).await;
    site.config.domains.retain(|domain| domain != "localhost");
    site.edge.reload(&site.config).unwrap();
    early.plain("alice", "secret").await;
    early.expect("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    early.open().await;
    late.send(&bind("late")).await;
    assert!(late.rest().await.contains("<host-gone "));
    early.send(&bind("early")).await;
    assert!(early.rest().await.contains("<host-gone "));
}

#[tokio::test]
async fn t11_records_of_any_size_say_the_same() {
    let site = Site::start().await;
    // 32 bytes is the least a client of this library makes; the handshake comes in as many pieces.
    for record in [32, 33, 500] {
        let mut client =
            Client::direct(site.c2s_tls(), Tls { record: Some(record), ..Tls::default() }).await.unwrap();
        client.open().await;
        client.expect("</stream:features>").await;
        client.plain("alice", "secret").await;
        client.expect("<success").await;
    }
}

#[tokio::test]
async fn large_stanzas_cross_many_records_in_both_directions() {
    let site = Site::with(|config| config.limits.rate.c2s_bytes_burst = 100_000_000).await;
    let mut client = Client::bound(site.c2s(), "large").await;
    for size in [16_300, 16_384, 16_500, 100_000, 250_000] {
        let body = "0123456789".repeat(size / 10);
        client.send(&format!("<message><body>{body}</body></message>")).await;
        let said = client.expect("</body></message>").await;
        assert!(said.contains(&body), "{size}");
    }
}

#[tokio::test]
async fn t12_new_keys_are_taken_in_the_middle_of_everything() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "keys").await;
    for number in 0..20 {
        client.renew_keys();
        client.send(&format!("<message><body>{number}</body></message>")).await;
        client.expect(&format!("<body>{number}</body>")).await;
    }
}

#[tokio::test]
async fn a_flight_that_comes_byte_by_byte_is_a_handshake_all_the_same() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let site = Site::start().await;
    let (server, between) = (site.c2s_tls(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = between.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = between.accept().await.unwrap();
        let server = tokio::net::TcpStream::connect(server).await.unwrap();
        server.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        while let Ok(byte) = from_client.read_u8().await {
            to_server.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut client = Client::direct(address, Tls::default()).await.unwrap();
    client.open().await;
    client.expect("</stream:features>").await;
}

#[tokio::test]
async fn what_is_not_tls_gets_an_alert_and_a_message_without_end_the_door() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let site = Site::start().await;
    let mut tcp = tokio::net::TcpStream::connect(site.c2s_tls()).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
    // A ClientHello that says it has 16 MB.
    let mut tcp = tokio::net::TcpStream::connect(site.c2s_tls()).await.unwrap();
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    for _ in 0..8 {
        if tcp.write_all(&record).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(3), tcp.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "closed before any deadline");
}
