//! TLS as clients see it (XEP-0368, RFC 9325; rows T01 and T10 of the hostile inputs).

use crate::Site;
use crate::client::{Client, TLS12, Tls};
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

    site.config.tls.key = Some(dir.path().join("other.key"));
    let error = site.edge.reload(&site.config).unwrap_err().to_string();
    assert!(error.contains("new.pem"), "{error}");
    assert_eq!(Client::direct(site.c2s_tls(), Tls::default()).await.unwrap().certificate(), renewed);
}
