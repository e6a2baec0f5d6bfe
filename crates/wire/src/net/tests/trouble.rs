//! Links that break, stall, or are too slow.

use super::super::dial::{Outcome, ROUTER, connect, supervise};
use super::super::*;
use super::stage::*;
use crate::codec;
use crate::frame::{EdgeHello, EdgeItem};
use crate::proto::uplink_client::UplinkClient;
use crate::{EdgeId, proto};
use futures::StreamExt;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// A wire that can be held, in both directions, with nobody the wiser.
async fn wire(to: SocketAddr, held: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            for (mut read, mut write) in [(near_read, far_write), (far_read, near_write)] {
                let held = Arc::clone(&held);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = read.read(&mut buffer).await {
                        while held.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        if write.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_link_is_dead_after_three_seconds_at_both_ends() {
    let site = Site::new();
    let router = Router::new(1);
    let server = serve(&site, &router).await;
    let held = Arc::new(AtomicBool::new(false));
    let through = wire(server.address(), Arc::clone(&held)).await;
    let edge = Edge::new(7);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[through]));
    until(|| edge.link(1).is_some()).await;
    // Idle for longer than that, and alive.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!((edge.count("ended"), router.ends().len()), (0, 0));
    let link = edge.link(1).unwrap();
    let slow = link.questions.account(&starling_xmpp::BareJid::parse("slow@example.org").unwrap());
    held.store(true, Ordering::Relaxed);
    let began = Instant::now();
    until(|| edge.count("ended") == 1).await;
    let edges = began.elapsed();
    until(|| !router.ends().is_empty()).await;
    let routers = began.elapsed();
    for took in [edges, routers] {
        assert!((1_500..6_000).contains(&took.as_millis()), "{edges:?} and {routers:?}");
    }
    println!("dead after {edges:?} at the edge, {routers:?} at the router");
    assert!(slow.await.is_err());
    assert!(!link.outlet.push(say(1, "late")), "nothing more is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_link_of_an_edge_ends_the_old_before_it_is_answered() {
    let site = Site::new();
    let (router, server, edge, _client) = pair(&site).await;
    let old = edge.link(1).unwrap().outlet.clone();
    // The old link is busy all the time.
    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut sequence = 0;
            while !stop.load(Ordering::Relaxed) && old.push(say(sequence, "flood")) {
                sequence += 1;
                if sequence % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        })
    };
    until(|| router.heard().len() > 1_000).await;
    let twin = Edge::new(7);
    let second = dial(site.tls("starling://one/edge/*"), &twin, &Book::of(&[server.address()]));
    until(|| twin.link(1).is_some()).await;
    let answered = router.events.lock().len();
    until(|| edge.count("ended: superseded") >= 1).await;
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    drop(second);
    let events = router.events.lock();
    let second = events.iter().position(|event| *event == Event::Edge(1)).unwrap();
    assert_eq!(events[second - 1], Event::EdgeEnded(0, End::Superseded), "it has ended before");
    let late = events[second..].iter().filter(|event| matches!(event, Event::Heard(0, _))).count();
    assert_eq!(late, 0, "and nothing of it is taken afterwards");
    assert!(second < answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_does_not_read_is_cut_off_and_holds_nobody_up() {
    let site = Site::new();
    let router = Router::new(1);
    let tls = site.tls("starling://one/router/r1");
    let limit = 2 << 20;
    let server = serve_with(tls, &router, Options { outlet: limit, ..options() }, 0).await;
    // One that takes the hello and then nothing.
    let connection =
        connect(server.address(), ROUTER, &site.tls("starling://one/edge/*"), &options()).await.unwrap();
    let mut client = UplinkClient::with_origin(connection.channel.clone(), "https://router".parse().unwrap());
    let hello = EdgeHello { version: version(), edge: EdgeId(66), name: "deaf".to_owned() };
    let first = proto::EdgeFrame { hello: Some(codec::edge_hello(&hello)), ..Default::default() };
    let frames = futures::stream::iter([first]).chain(futures::stream::pending());
    let stream = client.connect(frames).await.unwrap().into_inner();
    let edge = Edge::new(7);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[server.address()]));
    until(|| edge.link(1).is_some()).await;

    let deaf = router.edges.lock()[&66].clone();
    let text = "x".repeat(10_000);
    let mut sent = 0usize;
    let mut most = 0;
    let good = router.edges.lock()[&7].clone();
    let mut stalled = 0;
    loop {
        // At the pace at which the connection takes it, until it takes no more.
        if deaf.waiting() > limit / 2 && stalled < 100 {
            stalled += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        if deaf.waiting() == 0 {
            stalled = 0;
        }
        if !deaf.push(tell(EdgeId(66), sent as u64 + 1, &text)) {
            break;
        }
        sent += 1;
        most = most.max(deaf.waiting());
        if sent.is_multiple_of(100) {
            assert!(good.push(tell(EdgeId(7), sent as u64 / 100, "hi")));
        }
        assert!(sent < 5_000, "it takes all");
    }
    // The window, what is on its way to it, and the bound.
    assert!(most <= limit, "{most}");
    assert!(sent * 10_000 > 4 << 20, "{sent}: the window is used");
    assert!(sent * 10_000 < (4 << 20) * 2 + 2 * limit + (4 << 20), "{sent}");
    assert!(!deaf.is_open());
    until(|| router.ends().contains(&End::Overflow)).await;
    // And it is given back.
    until(|| deaf.waiting() == 0).await;
    until(|| edge.numbers.lock().len() == sent / 100).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_router_is_seen_and_bounded() {
    let site = Site::new();
    let router = Router::new(1);
    let server = serve(&site, &router).await;
    let held = Arc::new(AtomicBool::new(false));
    let through = wire(server.address(), Arc::clone(&held)).await;
    let edge = Edge::new(7);
    let _client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[through]));
    until(|| edge.link(1).is_some()).await;
    let outlet = edge.link(1).unwrap().outlet.clone();
    assert!(!outlet.is_pressed());
    held.store(true, Ordering::Relaxed);
    let text = "x".repeat(100_000);
    let mut sequence = 0;
    while !outlet.is_pressed() {
        sequence += 1;
        assert!(outlet.push(say(sequence, &text)), "told before it is too late");
        if sequence % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    held.store(false, Ordering::Relaxed);
    until(|| !outlet.is_pressed()).await;
    until(|| router.heard().len() as u64 == sequence).await;
    assert_eq!(router.heard(), (1..=sequence).collect::<Vec<_>>());
    assert!(outlet.push(EdgeItem::AttachEnd(HOME)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_killed_is_noticed_at_once() {
    let site = Site::new();
    let (_router, server, edge, _client) = pair(&site).await;
    let began = Instant::now();
    drop(server);
    until(|| edge.count("ended") == 1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// An address where nobody answers, not even with a refusal, while the listener and these connections live.
async fn swallowing() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut full = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        full.push(connected.unwrap());
    }
    (address, listener, full)
}

#[tokio::test(start_paused = true)]
async fn a_router_that_cannot_be_reached_is_tried_often() {
    let (address, _listener, _full) = swallowing().await;
    let tls = Site::new().tls("starling://one/edge/*");
    let tries = Arc::new(Mutex::new(vec![Instant::now()]));
    let attempt = {
        let tries = Arc::clone(&tries);
        move |address, _| {
            let (tries, tls) = (Arc::clone(&tries), Arc::clone(&tls));
            async move {
                tries.lock().push(Instant::now());
                let reached = connect(address, ROUTER, &tls, &Options::default()).await;
                Outcome::Ended(reached.map_or_else(|end| end.to_string(), |_| "reached".to_owned()))
            }
        }
    };
    let dialling = supervise(Arc::new(Book::of(&[address])), Options::default(), attempt);
    assert!(tokio::time::timeout(Duration::from_secs(60), dialling).await.is_err());
    let tries = tries.lock();
    let longest = tries.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    // With what follows a link is there within two seconds after the network is.
    assert!(longest < Duration::from_millis(1_600), "{longest:?}");
    assert!(tries.len() > 35, "{}", tries.len());
}

#[tokio::test(start_paused = true)]
async fn whoever_refuses_is_asked_less_often_and_again() {
    let tries = Arc::new(Mutex::new(Vec::new()));
    let attempt = {
        let tries = Arc::clone(&tries);
        move |_, _| {
            let tries = Arc::clone(&tries);
            async move {
                tries.lock().push(Instant::now());
                Outcome::Refused("another one is called so".to_owned())
            }
        }
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let dialling = supervise(Arc::new(Book::of(&[address])), Options::default(), attempt);
    assert!(tokio::time::timeout(Duration::from_secs(60), dialling).await.is_err());
    let tries = tries.lock();
    let pauses: Vec<_> = tries.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] < Duration::from_millis(200), "the first one may have passed: {:?}", pauses[0]);
    // Who remembers a refusal for six seconds takes it for one that stands.
    assert!(pauses.iter().max() <= Some(&Duration::from_secs(2)) && pauses.len() < 70, "{pauses:?}");
}
