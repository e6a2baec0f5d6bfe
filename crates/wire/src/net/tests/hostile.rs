//! Peers that must not be spoken with, and messages that cannot be (rows G01, G03 and G05).

use super::super::dial::{Connection, ROUTER, connect};
use super::super::*;
use super::stage::*;
use crate::codec;
use crate::frame::{EdgeHello, PeerHello, Version};
use crate::proto::peer_client::PeerClient as PeerStub;
use crate::proto::uplink_client::UplinkClient;
use crate::tls::{Authority, Role, Tls};
use crate::{EdgeId, Incarnation, RouterId, proto};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body_util::Full;
use hyper::Request;
use starling_node::{ManualClock, SharedClock, SystemClock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Service;

fn hello() -> EdgeHello {
    EdgeHello { version: version(), edge: EdgeId(66), name: "e66".to_owned() }
}

fn opening(hello: &EdgeHello) -> proto::EdgeFrame {
    proto::EdgeFrame { hello: Some(codec::edge_hello(hello)), ..Default::default() }
}

fn then_silent(frames: Vec<proto::EdgeFrame>) -> impl Stream<Item = proto::EdgeFrame> + Send + 'static {
    futures::stream::iter(frames).chain(futures::stream::pending())
}

/// Sends these frames and tells how it ended.
async fn outcome(connection: &Connection, frames: Vec<proto::EdgeFrame>) -> (Code, String) {
    let mut client = UplinkClient::with_origin(connection.channel.clone(), "https://router".parse().unwrap());
    let attempt = async {
        let mut stream = client.connect(then_silent(frames)).await?.into_inner();
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    match tokio::time::timeout(Duration::from_secs(4), attempt).await {
        Ok(Ok(())) => (Code::Ok, String::new()),
        Ok(Err(status)) => (status.code(), status.message().to_owned()),
        Err(_) => (Code::Unknown, "still open".to_owned()),
    }
}

async fn try_with(tls: &Arc<Tls>, address: SocketAddr) -> String {
    match connect(address, ROUTER, tls, &options()).await {
        Err(end) => end.to_string(),
        Ok(connection) => {
            let (code, text) = outcome(&connection, vec![opening(&hello())]).await;
            let cause = connection.cause().await.map(|cause| cause.to_string());
            format!("{code:?} {text} {}", cause.unwrap_or_default())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g01_wrong_certificates_are_refused_with_a_reason() {
    let site = Site::new();
    let router = Router::new(1);
    let (server, refused) = counted(&site, &router).await;
    let address = server.address();
    let clock: SharedClock = SystemClock::shared();
    let now = seconds(&clock);
    let own = site.authority.pair().cert.clone();
    let expect = |why: String, words: &[&str]| {
        assert!(words.iter().any(|word| why.contains(word)), "{why:?} says none of {words:?}");
    };
    assert_eq!(try_with(&site.tls("starling://one/edge/*"), address).await, "Unknown still open ");

    // Of another CA: the peer's is not trusted, and the own one is not trusted by it.
    let other = Authority::create("one", now, DAY).unwrap();
    let files = site.files(&other.pair().cert, &other, "starling://one/edge/*", now);
    let stranger = role_tls(&site, files, "one", Role::Edge, clock.clone());
    expect(try_with(&stranger, address).await, &["the certificate is of another CA"]);
    let both = format!("{own}{}", other.pair().cert);
    let files = site.files(&both, &other, "starling://one/edge/*", now);
    let stranger = role_tls(&site, files, "one", Role::Edge, clock.clone());
    expect(try_with(&stranger, address).await, &["UnknownCA"]);

    // Of another cluster under the same CA.
    expect(
        try_with(&site.tls("starling://two/edge/*"), address).await,
        &["starling://one/router/r1, and not a router of two"],
    );

    // No TLS at all, and TLS without a certificate.
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut heard = Vec::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(5), plain.read_to_end(&mut heard)).await.expect("it closes");
    assert!(heard.len() < 64 && !heard.windows(4).any(|four| four == b"HTTP"), "{heard:?}");
    // The two of another authority, and the one without TLS. That of another cluster has turned away itself.
    until(|| refused.of("handshake") >= 3).await;
    assert_eq!(router.count(|event| matches!(event, Event::Edge(_))), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g01_an_expired_certificate_is_refused() {
    let clock: SharedClock = SystemClock::shared();
    let now = seconds(&clock);
    let past = now - 10 * 86_400;
    let site = Site::new();
    let authority = Authority::create("one", past, DAY * 365).unwrap();
    let ca = authority.pair().cert.clone();
    let router = Router::new(1);
    let files = site.files(&ca, &authority, "starling://one/router/r1", now);
    let server = serve_with(role_tls(&site, files, "one", Role::Router, clock), &router, options(), 0).await;
    let files = site.files(&ca, &authority, "starling://one/edge/*", past);
    let then: SharedClock = Arc::new(ManualClock::at_micros((past + 600) * 1_000_000));
    let late = role_tls(&site, files, "one", Role::Edge, then);
    let why = try_with(&late, server.address()).await;
    assert!(why.contains("CertificateExpired") || why.contains("expired"), "{why}");
    assert!(router.events.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g01_roles_are_kept_apart() {
    let site = Site::new();
    let router = Router::new(1);
    let (server, refused) = counted(&site, &router).await;
    let as_router =
        connect(server.address(), ROUTER, &site.tls("starling://one/router/r9"), &options()).await.unwrap();
    let (code, text) = outcome(&as_router, vec![opening(&hello())]).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(text.contains("starling://one/router/r9 may not speak as edge"), "{text}");
    let mut questions =
        UplinkClient::with_origin(as_router.channel.clone(), "https://router".parse().unwrap());
    let question = proto::AccountQuestion { account: "alice@example.org".to_owned() };
    assert_eq!(questions.account(question).await.unwrap_err().code(), Code::PermissionDenied);

    let as_edge =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/e1"), &options()).await.unwrap();
    let mut peer = PeerStub::with_origin(as_edge.channel.clone(), "https://router".parse().unwrap());
    let own = PeerHello {
        version: version(),
        router: RouterId(5),
        name: "e1".to_owned(),
        incarnation: Incarnation(1),
        homes: Vec::new(),
        notes: Bytes::new(),
        heard: None,
    };
    let first = proto::PeerFrame { hello: Some(codec::peer_hello(&own)), items: Vec::new() };
    let denied = peer.stanzas(futures::stream::iter([first])).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let first = proto::RaftFrame { hello: Some(codec::peer_hello(&own)), ..Default::default() };
    assert_eq!(peer.raft(futures::stream::iter([first])).await.unwrap_err().code(), Code::PermissionDenied);

    // Nor may it take another's name.
    let (code, text) = outcome(&as_edge, vec![opening(&hello())]).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(text.contains("may not call itself \"e66\""), "{text}");
    assert!(router.events.lock().is_empty());
    assert_eq!(refused.of("certificate"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g05_who_does_not_fit_is_told_why() {
    let site = Site::new();
    let router = Router::new(1);
    let (server, refused) = counted(&site, &router).await;
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    let own = version();
    for (version, word) in [
        (Version { major: 2, ..own.clone() }, r#"protocol version differs: 1 at "r1" and 2 at "e66""#),
        (Version { cluster: "two".to_owned(), ..own.clone() }, r#"cluster differs: "#),
        (Version { shards: 32, ..own.clone() }, r#"number of shards differs: 16 at "r1" and 32 at "e66""#),
        (Version { hash: "crc".to_owned(), ..own.clone() }, r#"and crc at "e66""#),
    ] {
        let (code, text) = outcome(&connection, vec![opening(&EdgeHello { version, ..hello() })]).await;
        assert_eq!((code, text.contains(word)), (Code::FailedPrecondition, true), "{text}");
    }
    assert!(router.events.lock().is_empty());
    *router.refuse.lock() = Some("not now".to_owned());
    let answer = outcome(&connection, vec![opening(&hello())]).await;
    assert_eq!(answer, (Code::FailedPrecondition, "not now".to_owned()));
    assert_eq!(refused.of("mismatch"), 5);
    *router.refuse.lock() = None;
    let newer = EdgeHello { version: Version { minor: 9, ..own }, ..hello() };
    assert_eq!(outcome(&connection, vec![opening(&newer)]).await.1, "still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_what_cannot_be_ends_that_link_and_no_other() {
    let site = Site::new();
    let router = Router::new(1);
    let (server, refused) = counted(&site, &router).await;
    let edge = Edge::new(7);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[server.address()]));
    until(|| edge.link(1).is_some()).await;
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    let batch = |ups| {
        let batches = vec![proto::UpBatch { shard: 3, epoch: 9, ups, ..Default::default() }];
        proto::EdgeFrame { batches, ..Default::default() }
    };
    let envelope =
        |up| proto::UpEnvelope { account: "alice@example.org".to_owned(), conn: 5, up, never: false };
    use proto::up_envelope::Up as Said;
    let cases = [
        batch(vec![envelope(None)]),
        batch(vec![envelope(Some(Said::Gone(77)))]),
        batch(vec![envelope(Some(Said::Bind(proto::Bind::default())))]),
        batch(vec![envelope(Some(Said::Stanza(proto::ClientStanza::default())))]),
        opening(&hello()),
    ];
    for case in cases {
        let (code, text) = outcome(&connection, vec![opening(&hello()), case.clone()]).await;
        assert_eq!(code, Code::InvalidArgument, "{text} for {case:?}");
    }
    assert_eq!(outcome(&connection, vec![batch(vec![])]).await.0, Code::InvalidArgument, "no hello");
    let silent = outcome(&connection, vec![]).await;
    assert_eq!(silent.0, Code::DeadlineExceeded);
    // Larger than a message may be.
    let huge = proto::ClientStanza { stanza: Bytes::from(vec![b'x'; 2 << 20]), ..Default::default() };
    let (code, text) =
        outcome(&connection, vec![opening(&hello()), batch(vec![envelope(Some(Said::Stanza(huge)))])]).await;
    assert!(matches!(code, Code::OutOfRange | Code::InvalidArgument), "{code:?} {text}");

    let malformed = router.ends().iter().filter(|end| matches!(end, End::Malformed(_))).count();
    assert_eq!(malformed, 6, "{:?}", router.ends());
    // And the one that did not begin as it should.
    assert_eq!((refused.of("malformed"), refused.of("no_hello")), (7, 1));
    assert_eq!(edge.count("ended"), 0);
    assert!(edge.link(1).unwrap().outlet.push(say(1, "hi")));
    until(|| router.heard() == [1]).await;
}

/// A message with its head.
fn framed(length: u32, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(length);
    out.put_slice(body);
    out.to_vec()
}

/// As [`framed`], the whole of it.
fn whole(message: &impl prost::Message, more: &[u8]) -> Vec<u8> {
    let body = [&message.encode_to_vec(), more].concat();
    framed(u32::try_from(body.len()).unwrap(), &body)
}

const CONNECT: &str = "/starling.cluster.v1.Uplink/Connect";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g05_what_a_newer_peer_adds_is_passed_over() {
    let site = Site::new();
    let router = Router::new(1);
    let (server, refused) = counted(&site, &router).await;
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    // Fields that there are not: a number, and some bytes.
    let unknown = [0x98, 0x06, 0x01, 0xa2, 0x06, 0x03, b'n', b'e', b'w'];
    let newer = EdgeHello { version: Version { minor: 9, ..version() }, ..hello() };
    let code = raw(&connection, CONNECT, whole(&opening(&newer), &unknown)).await;
    assert_ne!(code, Some(Code::InvalidArgument as i32));
    assert_eq!(router.count(|event| matches!(event, Event::Edge(_))), 1);
    // A kind of message that there is not is a fault: who is newer does not say it to who is older.
    let odd = proto::UpBatch {
        shard: 3,
        epoch: 9,
        ups: vec![proto::UpEnvelope {
            account: "alice@example.org".to_owned(),
            conn: 5,
            up: None,
            never: false,
        }],
        ..Default::default()
    };
    let odd = proto::EdgeFrame { batches: vec![odd], ..Default::default() };
    let both = [whole(&opening(&newer), &[]), whole(&odd, &[])].concat();
    raw(&connection, CONNECT, both).await;
    until(|| refused.of("malformed") == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_a_question_without_time_is_answered_or_given_up() {
    let site = Site::new();
    let (router, server, edge, _client) = pair(&site).await;
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    let path = "/starling.cluster.v1.Uplink/Account";
    let question = proto::AccountQuestion { account: "alice@example.org".to_owned() };
    for time in ["0n", "0H", "-1S", "99999999999999H", "soon"] {
        let asked = raw_within(&connection, path, whole(&question, &[]), Some(time)).await;
        assert!(asked.is_some(), "{time}: no answer");
    }
    // Nobody waits for these any more, and nothing of them stays.
    let question = proto::AccountQuestion { account: "slow@example.org".to_owned() };
    let asked = (0..200).map(|_| async {
        let asked = raw(&connection, path, whole(&question, &[]));
        tokio::time::timeout(Duration::from_millis(20), asked).await
    });
    assert!(futures::future::join_all(asked).await.iter().all(Result::is_err));
    assert!(edge.link(1).unwrap().outlet.push(say(1, "hi")));
    until(|| router.heard() == [1]).await;
}

/// A server, and what it counts.
async fn counted(site: &Site, router: &Arc<Router>) -> (Server, Refused) {
    let options = options();
    let refused = options.refused.clone();
    let tls = site.tls(&format!("starling://one/router/r{}", router.id));
    (serve_with(tls, router, options, 0).await, refused)
}

/// A request whose body is these bytes; the status that comes back.
async fn raw(connection: &Connection, path: &str, body: Vec<u8>) -> Option<i32> {
    raw_within(connection, path, body, None).await
}

async fn raw_within(connection: &Connection, path: &str, body: Vec<u8>, time: Option<&str>) -> Option<i32> {
    let mut request = Request::post(format!("https://router{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(Bytes::from(body))))
        .unwrap();
    if let Some(time) = time {
        request.headers_mut().insert("grpc-timeout", time.parse().unwrap());
    }
    let mut channel = connection.channel.clone();
    futures::future::poll_fn(|cx| channel.poll_ready(cx)).await.ok()?;
    let response = tokio::time::timeout(Duration::from_secs(5), channel.call(request)).await.ok()?.ok()?;
    let status = |headers: &hyper::HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
    if let Some(code) = status(response.headers()) {
        return Some(code);
    }
    let collected = http_body_util::BodyExt::collect(response.into_body());
    let collected = tokio::time::timeout(Duration::from_secs(5), collected).await.ok()?.ok()?;
    collected.trailers().and_then(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_bytes_of_any_kind_are_answered() {
    let site = Site::new();
    let (router, server, edge, _client) = pair(&site).await;
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    for (name, body) in [
        ("empty", Vec::new()),
        ("cut in the head", vec![0, 0]),
        ("cut in the body", framed(100, b"short")),
        ("a length of 4 GiB", framed(u32::MAX, b"")),
        ("no message", framed(4, &[0xff; 4])),
        ("a negative length", framed(11, &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])),
        ("groups without end", framed(200_000, &[0xc3, 0x3e].repeat(100_000))),
        ("a flag that there is not", [&[9u8][..], &[0, 0, 0, 0]].concat()),
    ] {
        let code = raw(&connection, CONNECT, body).await;
        assert!(code.is_some_and(|code| code != 0), "{name}: {code:?}");
    }
    assert_eq!(raw(&connection, "/starling.cluster.v1.Uplink/Nothing", Vec::new()).await, Some(12));
    assert_eq!(raw(&connection, "/elsewhere", Vec::new()).await, Some(12));
    // Very many requests at once: each is answered, or refused by HTTP/2.
    let many = (0..3_000).map(|_| raw(&connection, "/elsewhere", Vec::new()));
    let answered = futures::future::join_all(many).await.iter().filter(|code| **code == Some(12)).count();
    assert_eq!(answered, 3_000);
    assert!(edge.link(1).unwrap().outlet.push(say(1, "hi")));
    until(|| router.heard() == [1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_a_flood_of_pings_holds_nobody_up() {
    let site = Site::new();
    let (router, server, edge, _client) = pair(&site).await;
    let tls = site.tls("starling://one/edge/*");
    let socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("router.invalid").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(tls.client()).connect(name, socket).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // A ping that nobody reads the answer of, as often as it is taken.
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat().repeat(1_000);
    let flood = async {
        for _ in 0..10_000 {
            if stream.write_all(&ping).await.is_err() {
                return true;
            }
        }
        false
    };
    let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), flood), async {
        for sequence in 1..=100 {
            assert!(edge.link(1).unwrap().outlet.push(say(sequence, "hi")));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until(|| router.heard().len() == 100).await;
    });
    assert_eq!(ended, Ok(true), "who answers nothing is dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_who_asks_for_nothing_takes_no_room_for_long() {
    let site = Site::new();
    let router = Router::new(1);
    let options = Options { connections: 4, hello: Duration::from_millis(500), ..options() };
    let tls = site.tls("starling://one/router/r1");
    let server = serve_with(tls, &router, options.clone(), 0).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        let tls = site.tls("starling://one/edge/*");
        silent.push(connect(server.address(), ROUTER, &tls, &options).await.unwrap());
    }
    let edge = Edge::new(7);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[server.address()]));
    until(|| edge.link(1).is_some()).await;
    assert!(options.refused.of("no_hello") > 0);
    // A link is used, though nothing is said over it.
    tokio::time::sleep(options.hello * 3).await;
    assert_eq!(edge.count("ended"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_one_address_leaves_room_for_others() {
    let site = Site::new();
    let router = Router::new(1);
    let options = Options { of_one_address: 4, connections: 5, ..options() };
    let refused = options.refused.clone();
    let server = serve_with(site.tls("starling://one/router/r1"), &router, options, 0).await;
    // They show no certificate either.
    let mut silent = Vec::new();
    for _ in 0..5 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
        silent.push(socket.connect(server.address()).await.unwrap());
    }
    until(|| refused.of("too_many") == 1).await;
    connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &super::stage::options())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g03_a_connection_carries_the_links_of_one_process() {
    let site = Site::new();
    let router = Router::new(1);
    let server = serve(&site, &router).await;
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    let invented = EdgeHello { edge: EdgeId(67), ..hello() };
    let (first, second) = tokio::join!(outcome(&connection, vec![opening(&hello())]), async {
        until(|| router.edges.lock().contains_key(&66)).await;
        outcome(&connection, vec![opening(&invented)]).await
    });
    assert_eq!((first.1.as_str(), second.0), ("still open", Code::PermissionDenied));
}
