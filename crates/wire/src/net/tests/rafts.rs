//! Raft's links.

use super::super::*;
use super::stage::*;
use crate::RouterId;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_find_their_questions() {
    let site = Site::new();
    let (one, two) = (Router::new(1), Router::new(2));
    let server = serve(&site, &two).await;
    let book = Arc::new(Book::of(&[server.address()]));
    let host = Arc::new(Host(Arc::clone(&one)));
    let client = PeerClient::start(book, site.tls("starling://one/router/r1"), options(), host);
    let raft = client.raft().clone();
    let mut states = raft.states();
    let known =
        states.wait_for(|states| states.get(&RouterId(2)).is_some_and(|s| &*s.notes == b"notes of 2")).await;
    let state = known.unwrap()[&RouterId(2)].clone();
    assert!(state.name == "r2" && state.incarnation.0 == 102 && state.round_trip < SECOND);

    // The first are answered last.
    let asked = (0..50u8).map(|n| raft.call(RouterId(2), 1, Bytes::from(vec![100 - n * 2, n]), SECOND));
    let answers = futures::future::join_all(asked).await;
    for (n, answer) in (0..50u8).zip(answers) {
        assert_eq!(answer.unwrap(), [&b"1 to 2: "[..], &[100 - n * 2, n]].concat());
    }
    let call = |group, body, deadline| raft.call(RouterId(2), group, body, deadline);
    assert_eq!(call(2, Bytes::new(), SECOND).await, Err(CallError::Failed("it is broken".to_owned())));
    assert_eq!(call(3, Bytes::new(), Duration::from_millis(30)).await, Err(CallError::Late));
    assert_eq!(call(0, Bytes::from(vec![0; 2 << 20]), SECOND).await, Err(CallError::TooLarge));
    assert_eq!(raft.call(RouterId(9), 0, Bytes::new(), SECOND).await, Err(CallError::Unlinked));
    let large = call(0, Bytes::from(vec![7; 1 << 20]), SECOND * 5).await.unwrap();
    assert_eq!(large.len(), (1 << 20) + 8);

    // All that waits fails at once when the link breaks.
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let raft = raft.clone();
            tokio::spawn(async move { raft.call(RouterId(2), 3, Bytes::new(), SECOND * 60).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    drop(server);
    for task in waiting {
        assert_eq!(task.await.unwrap(), Err(CallError::Unlinked));
    }
    assert!(began.elapsed() < SECOND * 10, "{:?}", began.elapsed());
    states.wait_for(|states| states.is_empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_questions_of_one_router_are_worked_on() {
    let site = Site::new();
    let (one, two) = (Router::new(1), Router::new(2));
    let server = serve(&site, &two).await;
    let book = Arc::new(Book::of(&[server.address()]));
    let host = Arc::new(Host(Arc::clone(&one)));
    let client = PeerClient::start(book, site.tls("starling://one/router/r1"), options(), host);
    let raft = client.raft().clone();
    raft.states().wait_for(|states| !states.is_empty()).await.unwrap();
    let _waiting: Vec<_> = (0..raft::AT_ONCE)
        .map(|_| {
            let raft = raft.clone();
            tokio::spawn(async move { raft.call(RouterId(2), 3, Bytes::new(), SECOND * 60).await })
        })
        .collect();
    let mut refused = false;
    for _ in 0..100 {
        refused |= raft.call(RouterId(2), 3, Bytes::new(), Duration::from_millis(20)).await
            == Err(CallError::Failed("busy".to_owned()));
    }
    assert!(refused);
}

#[tokio::test(flavor = "current_thread")]
async fn raft_goes_on_while_all_else_waits() {
    let site = Site::new();
    let (one, two) = (Router::new(1), Router::new(2));
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let own = Options { raft: Some(threads.handle().clone()), ..options() };
    let server = serve_with(site.tls("starling://one/router/r2"), &two, own.clone(), 0).await;
    let book = Arc::new(Book::of(&[server.address()]));
    let host = Arc::new(Host(Arc::clone(&one)));
    let client = PeerClient::start(book, site.tls("starling://one/router/r1"), own, host);
    let raft = client.raft().clone();
    raft.states().wait_for(|states| !states.is_empty()).await.unwrap();
    let asking = threads.spawn(async move {
        let began = Instant::now();
        for _ in 0..20 {
            raft.call(RouterId(2), 1, Bytes::from_static(&[1, 2]), SECOND).await.unwrap();
        }
        began.elapsed()
    });
    // The only thread that everything else has.
    let began = Instant::now();
    while !asking.is_finished() {
        assert!(began.elapsed() < 10 * SECOND, "it waits for this thread");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(asking.await.unwrap() < 10 * SECOND);
    drop((client, server));
    threads.shutdown_background();
}
