//! Certificates change, and end, while links stand (row C38).

use super::super::dial::{ROUTER, connect};
use super::super::*;
use super::stage::*;
use crate::tls::{Authority, Files, Identity, Role, Tls};
use starling_node::{SharedClock, SystemClock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Writes a certificate of this authority, in the place of what is there.
fn issue(files: &Files, ca: &str, authority: &Authority, identity: &str, life: Duration) {
    let clock: SharedClock = SystemClock::shared();
    let identity = Identity::parse(identity).unwrap();
    let pair = authority.issue(&identity, &[], seconds(&clock), life).unwrap();
    for (path, text) in [(&files.ca, ca), (&files.cert, &pair.cert), (&files.key, &pair.key)] {
        // At once, as those do who care: half a file is no certificate.
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

fn load(files: &Files, role: Role) -> Arc<Tls> {
    Tls::load(files.clone(), "one", role, SystemClock::shared()).unwrap()
}

/// Whether a new connection comes as far as a request, or why not.
async fn reaches(tls: &Arc<Tls>, address: SocketAddr) -> Result<(), String> {
    let connection = connect(address, ROUTER, tls, &options()).await.map_err(|end| end.to_string())?;
    // The other side judges after this one has.
    match connection.cause().await {
        Some(end) => Err(end.to_string()),
        None => Ok(()),
    }
}

async fn until_reached(tls: &Arc<Tls>, address: SocketAddr) {
    for _ in 0..100 {
        if reaches(tls, address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never taken: {:?}", reaches(tls, address).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c38_an_authority_is_changed_while_links_stand() {
    const SERVER: &str = "starling://one/router/r1";
    const CLIENT: &str = "starling://one/edge/*";
    let site = Site::new();
    let now = seconds(&SystemClock::shared());
    let (old, new) = (&site.authority, Authority::create("one", now, DAY * 365).unwrap());
    let (old_ca, new_ca) = (old.pair().cert.clone(), new.pair().cert.clone());
    let both = format!("{old_ca}{new_ca}");
    let server_files = site.files(&old_ca, old, SERVER, now);
    let client_files = site.files(&old_ca, old, CLIENT, now);
    let router = Router::new(1);
    let server = serve_with(load(&server_files, Role::Router), &router, options(), 0).await;
    let address = server.address();
    let edge = Edge::new(7);
    let _client = dial(load(&client_files, Role::Edge), &edge, &Book::of(&[address]));
    until(|| edge.link(1).is_some()).await;
    let newcomer = load(&site.files(&both, &new, CLIENT, now), Role::Edge);
    assert!(reaches(&newcomer, address).await.is_err(), "of an authority that nobody knows yet");
    let oldtimer = load(&site.files(&both, old, CLIENT, now), Role::Edge);

    // Both are believed; then the certificates are of the new one; then the old one is believed no more.
    for (ca, authority) in [(&both, old), (&both, &new), (&new_ca, &new)] {
        issue(&server_files, ca, authority, SERVER, DAY);
        issue(&client_files, ca, authority, CLIENT, DAY);
        until_reached(&newcomer, address).await;
    }
    for _ in 0..100 {
        if reaches(&oldtimer, address).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let why = reaches(&oldtimer, address).await.unwrap_err();
    assert!(why.contains("UnknownCA"), "{why}");
    // All the while the same link stood.
    assert_eq!((edge.count("linked"), edge.count("ended")), (1, 0));
    assert!(edge.link(1).unwrap().outlet.push(say(1, "hi")));
    until(|| router.heard() == [1]).await;

    // What cannot be read changes nothing.
    std::fs::write(&server_files.cert, "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(reaches(&newcomer, address).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c38_a_certificate_ends_while_its_link_stands() {
    let site = Site::new();
    let ca = site.authority.pair().cert.clone();
    let now = seconds(&SystemClock::shared());
    let files = site.files(&ca, &site.authority, "starling://one/edge/*", now);
    issue(&files, &ca, &site.authority, "starling://one/edge/*", Duration::from_secs(4));
    let router = Router::new(1);
    let refused = Refused::default();
    let all = Options { refused: refused.clone(), ..options() };
    let server = serve_with(site.tls("starling://one/router/r1"), &router, all, 0).await;
    let short = load(&files, Role::Edge);
    let edge = Edge::new(7);
    let _client = dial(Arc::clone(&short), &edge, &Book::of(&[server.address()]));
    until(|| edge.link(1).is_some()).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(edge.count("ended"), 0, "the link goes on");
    assert!(edge.link(1).unwrap().outlet.push(say(1, "hi")));
    until(|| router.heard() == [1]).await;
    let before = refused.of("handshake");
    let why = reaches(&short, server.address()).await.unwrap_err();
    assert!(why.contains("CertificateExpired") || why.contains("expired"), "{why}");
    until(|| refused.of("handshake") > before).await;
}
