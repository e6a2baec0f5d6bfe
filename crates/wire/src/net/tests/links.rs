//! Links that work.

use super::super::*;
use super::stage::*;
use crate::frame::{EdgeItem, PeerItem, RouterItem};
use crate::{EdgeId, LinkError, Registration};
use bytes::Bytes;
use starling_xmpp::BareJid;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_and_a_router_speak() {
    let site = Site::new();
    let (router, _server, edge, _client) = pair(&site).await;
    let link = edge.link(1).unwrap();
    assert_eq!(link.hello.homes, [HOME]);
    assert_eq!(&*link.hello.decoy_secret, b"secret");
    for sequence in 1..=3 {
        assert!(link.outlet.push(say(sequence, "hi")));
    }
    until(|| router.heard() == [1, 2, 3]).await;
    let outlet = router.edges.lock()[&7].clone();
    outlet.append(&mut vec![tell(EdgeId(7), 1, "hi"), RouterItem::Home(HOME), tell(EdgeId(7), 2, "ho")]);
    until(|| *edge.numbers.lock() == [1, 2] && edge.count("Home") == 1).await;

    let ask = |name: &str| link.questions.account(&BareJid::parse(&format!("{name}@example.org")).unwrap());
    assert_eq!(ask("alice").await.unwrap().unwrap().generation, 4);
    assert!(ask("nobody").await.unwrap().is_none());
    assert!(matches!(ask("busy").await, Err(LinkError::Busy)));
    assert!(matches!(ask("elsewhere").await, Err(LinkError::NoHome)));
    assert!(matches!(ask("slow").await, Err(LinkError::Busy)), "it has a deadline");
    let credentials = starling_xmpp::sasl::Credentials::derive("secret", [1; 16], 1).unwrap();
    let register = |name: &str| {
        let account = BareJid::parse(&format!("{name}@example.org")).unwrap();
        link.questions.register(&account, &credentials)
    };
    assert_eq!(register("alice").await, Ok(Registration::Conflict));
    assert_eq!(register("bob").await, Ok(Registration::Created));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_says_when_it_has_taken_what_it_was_told() {
    const ALL: u64 = 10_000;
    let site = Site::new();
    let (router, _server, edge, _client) = pair(&site).await;
    let down = router.edges.lock()[&7].clone();
    let taken = |ask| router.count(|event| *event == Event::Taken(7, ask)) > 0;
    // Nothing else is there to be said.
    assert!(down.push(RouterItem::Ask(1)));
    until(|| taken(1)).await;
    for number in 1..=ALL {
        assert!(down.push(tell(EdgeId(7), number, "hi")));
    }
    assert!(down.push(RouterItem::Ask(2)));
    until(|| taken(2)).await;
    assert_eq!(edge.numbers.lock().len() as u64, ALL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_a_second_arrive_in_order_in_both_directions() {
    const RATE: u64 = 10_000;
    const ALL: u64 = 30_000;
    let site = Site::new();
    let (router, _server, edge, _client) = pair(&site).await;
    let up = edge.link(1).unwrap().outlet.clone();
    let down = router.edges.lock()[&7].clone();
    let began = Instant::now();
    let mut sent = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while sent < ALL {
        tick.tick().await;
        let due = (began.elapsed().as_micros() as u64 * RATE / 1_000_000).min(ALL);
        while sent < due {
            sent += 1;
            assert!(up.push(say(sent, "a message of usual length, forty-eight octets")));
            assert!(down.push(tell(EdgeId(7), sent, "a message of usual length, forty-eight octets")));
        }
    }
    let took = began.elapsed();
    until(|| edge.numbers.lock().len() == ALL as usize && router.heard().len() == ALL as usize).await;
    let expected: Vec<u64> = (1..=ALL).collect();
    assert_eq!(router.heard(), expected);
    assert_eq!(*edge.numbers.lock(), expected);
    assert!(took < Duration::from_secs(5), "sent at {} a second", ALL * 1000 / took.as_millis() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_speak_and_know_themselves() {
    let site = Site::new();
    let (one, two) = (Router::new(1), Router::new(2));
    let (first, second) = (serve(&site, &one).await, serve(&site, &two).await);
    let book = Book::of(&[first.address(), second.address()]);
    let start = |router: &Arc<Router>| {
        let tls = site.tls(&format!("starling://one/router/r{}", router.id));
        PeerClient::start(Arc::new(book.clone()), tls, options(), Arc::new(Host(Arc::clone(router))))
    };
    let _clients = (start(&one), start(&two));
    until(|| one.peers.lock().contains_key(&2) && two.peers.lock().contains_key(&1)).await;
    let item = |id| PeerItem::Question { id, body: Bytes::from_static(b"?") };
    let to_two = one.peers.lock()[&2].clone();
    to_two.append(&mut (1..=100).map(item).collect());
    until(|| two.count(|event| matches!(event, Event::Item(1, _))) == 100).await;
    let heard: Vec<Event> =
        two.events.lock().iter().filter(|e| matches!(e, Event::Item(..))).cloned().collect();
    assert_eq!(heard, (1..=100).map(|id| Event::Item(1, item(id))).collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!one.peers.lock().contains_key(&1), "nobody links to itself");
    assert_eq!(two.count(|event| matches!(event, Event::Peer(1))), 1, "and once is enough");
    // What a router says when a link begins is of that moment, and for whom has begun it.
    to_two.close(End::Lost("cut".to_owned()));
    until(|| one.told_heard.lock().len() == 2).await;
    assert_eq!(*one.told_heard.lock(), [Some(0), Some(100)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_disk_is_refused() {
    let site = Site::new();
    let (one, copy) = (Router::new(1), Router::new(1));
    copy.incarnation.store(999, Ordering::Relaxed);
    let server = serve(&site, &one).await;
    let book = Arc::new(Book::of(&[server.address()]));
    let host = Arc::new(Host(Arc::clone(&copy)));
    let _client = PeerClient::start(book, site.tls("starling://one/router/r1"), options(), host);
    // Both are told, whichever of them asked: neither can be believed.
    let is_told = |router: &Router| router.events.lock().contains(&Event::Doubled);
    until(|| is_told(&one) && is_told(&copy)).await;
    let others = |router: &Router| router.count(|event| !matches!(event, Event::Doubled));
    assert_eq!((others(&one), others(&copy)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_for_a_copied_disk_has_told_the_other_one() {
    let site = Site::new();
    let (one, copy) = (Router::new(1), Router::new(1));
    copy.incarnation.store(999, Ordering::Relaxed);
    let server = serve(&site, &one).await;
    let book = Arc::new(Book::of(&[server.address()]));
    *one.server.lock() = Some(server);
    let host = Arc::new(Host(Arc::clone(&copy)));
    let _client = PeerClient::start(book, site.tls("starling://one/router/r1"), options(), host);
    let is_told = |router: &Router| router.events.lock().contains(&Event::Doubled);
    // Nobody would answer it any more.
    until(|| one.server.lock().is_none() && is_told(&copy)).await;
    assert!(is_told(&one));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_links_live() {
    let site = Site::new();
    let clock: starling_node::SharedClock = starling_node::SystemClock::shared();
    let now = seconds(&clock);
    let ca = site.authority.pair().cert.clone();
    let files = site.files(&ca, &site.authority, "starling://one/router/r1", now);
    let tls = role_tls(&site, files.clone(), "one", crate::tls::Role::Router, clock.clone());
    let router = Router::new(1);
    let server = serve_with(Arc::clone(&tls), &router, options(), 0).await;
    let book = Book::of(&[server.address()]);
    let old = Edge::new(7);
    let _old = dial(site.tls("starling://one/edge/*"), &old, &book);
    until(|| old.link(1).is_some()).await;

    // Another CA; the edges that come have it, too.
    let next = crate::tls::Authority::create("one", now, DAY).unwrap();
    let fresh = site.files(&next.pair().cert, &next, "starling://one/router/r1", now);
    std::fs::write(&files.ca, format!("{ca}{}", next.pair().cert)).unwrap();
    std::fs::copy(&fresh.key, &files.key).unwrap();
    std::fs::copy(&fresh.cert, &files.cert).unwrap();
    until(|| !tls.changed()).await;
    let new = Edge::new(8);
    let files = site.files(&next.pair().cert, &next, "starling://one/edge/*", now);
    let _new = dial(role_tls(&site, files, "one", crate::tls::Role::Edge, clock), &new, &book);
    until(|| new.link(1).is_some()).await;
    assert!(old.link(1).unwrap().outlet.push(say(1, "still here")));
    until(|| router.heard() == [1]).await;
    assert_eq!(old.count("ended"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_ends_no_link_and_a_router_that_comes_back_is_found() {
    let site = Site::new();
    let router = Router::new(1);
    let server = serve(&site, &router).await;
    let address = server.address();
    let edge = Edge::new(7);
    let book = Book::of(&[address]);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &book);
    until(|| edge.link(1).is_some()).await;
    for answer in [Some(Vec::new()), None] {
        *book.0.lock() = answer;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((edge.count("linked"), edge.count("ended")), (1, 0));
    }
    drop(server);
    until(|| edge.count("ended") == 1).await;
    let tls = site.tls("starling://one/router/r1");
    let began = Instant::now();
    let _server = serve_with(tls, &router, options(), address.port()).await;
    until(|| edge.link(1).is_some()).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let link = edge.link(1).unwrap();
    assert!(link.link.number > 1 && link.outlet.push(EdgeItem::AttachBegin(HOME)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_router_make_one_link() {
    let site = Site::new();
    let router = Router::new(1);
    let (one, two) = (serve(&site, &router).await, serve(&site, &router).await);
    let edge = Edge::new(7);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[one.address(), two.address()]));
    until(|| edge.link(1).is_some()).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(edge.count("linked") <= 2, "they do not take turns: {:?}", edge.told.lock());
    assert!(edge.link(1).unwrap().outlet.is_open());
    // The one that is dropped second carries the link then, and the other one has rested.
    let again = one.address().port();
    drop(one);
    until(|| edge.link(1).is_some_and(|link| link.outlet.is_open())).await;
    let _one = serve_with(site.tls("starling://one/router/r1"), &router, options(), again).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let ended = edge.count("ended");
    drop(two);
    until(|| edge.count("ended") > ended).await;
    until(|| edge.link(1).is_some_and(|link| link.outlet.is_open())).await;
}

/// One listener more: a peer has one link, by whichever of them it comes.
async fn serve_twice(site: &Site, router: &Arc<Router>) -> Server {
    let listen = async || tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Arc::new(Host(Arc::clone(router)));
    let tls = site.tls(&format!("starling://one/router/r{}", router.id));
    Server::on(vec![listen().await, listen().await], tls, options(), host.clone(), host).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_of_one_router_make_one_link_of_each_kind_between_routers() {
    let site = Site::new();
    let (one, two) = (Router::new(1), Router::new(2));
    let server = serve_twice(&site, &two).await;
    let book = Arc::new(Book::of(server.addresses()));
    let host = Arc::new(Host(Arc::clone(&one)));
    let client = PeerClient::start(book, site.tls("starling://one/router/r1"), options(), host);
    let raft = client.raft().clone();
    raft.states().wait_for(|states| !states.is_empty()).await.unwrap();
    // They may take each other's place until it is known where they lead.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let begun = two.count(|event| matches!(event, Event::Peer(1)));
    let (to, deadline) = (crate::RouterId(2), Duration::from_secs(60));
    let waits = tokio::spawn(async move { raft.call(to, 3, Bytes::new(), deadline).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!waits.is_finished(), "the link that carries Raft has ended: {:?}", waits.await);
    assert_eq!(two.count(|event| matches!(event, Event::Peer(1))), begun, "they take turns");
    assert!(one.peers.lock()[&2].is_open());
}
