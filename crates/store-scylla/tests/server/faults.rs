//! A server that does not answer, is gone, and comes back.

use crate::proxy::{Flow, Proxy};
use crate::world::*;
use starling_store_scylla::cql::{Change, Cql, CqlError, DataKind, Partition};
use starling_store_scylla::driver::Driver;
use starling_store_scylla::driver::connect::{ConnectError, Connection};
use starling_store_scylla::options::{Options, Password, Tls};
use std::time::{Duration, Instant};

fn put(number: u64) -> Vec<Change> {
    vec![Change::PutData(data(DataKind::Doc, "block-list", number, "x"))]
}

pub(crate) async fn no_answer_is_unknown(address: String) {
    let proxy = Proxy::before(&address).await;
    let options = options(&address);
    driver(&options).await;
    let (contact_points, attempt_timeout) = (vec![proxy.address.to_string()], Duration::from_millis(500));
    let driver = connect(&Options { contact_points, attempt_timeout, ..options.clone() }).await;
    write(&driver, Partition::Data(owner()), 1, put(1)).await;
    proxy.set(Flow::Mute);
    let begun = Instant::now();
    let answer = driver.write(mutation(Partition::Data(owner()), 2, put(2))).await;
    assert!(matches!(answer, Err(CqlError::Unknown(_))), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // It was written: whoever reads it has it, and writing it again changes nothing.
    let beside = connect(&options).await;
    assert_eq!(beside.data(&owner()).await.unwrap()[0].number, 2);
    proxy.set(Flow::Open);
    let begun = Instant::now();
    while driver.write(mutation(Partition::Data(owner()), 2, put(2))).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    assert_eq!(driver.data(&owner()).await.unwrap()[0].number, 2);
}

/// How long until a write succeeds.
async fn back(driver: &Driver) -> Duration {
    let begun = Instant::now();
    while driver.write(mutation(Partition::Data(owner()), 3, put(3))).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

pub(crate) async fn no_server_is_refused_and_it_is_used_again_at_once(address: String) {
    let proxy = Proxy::before(&address).await;
    let options = options(&address);
    driver(&options).await;
    let driver = driver(&Options { contact_points: vec![proxy.address.to_string()], ..options }).await;
    for seconds in [1, 15] {
        proxy.set(Flow::Gone);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let begun = Instant::now();
            let answer = driver.write(mutation(Partition::Data(owner()), 2, put(2))).await;
            assert!(matches!(answer, Err(CqlError::Refused(_))), "{answer:?}");
            assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        proxy.set(Flow::Open);
        let took = back(&driver).await;
        println!("  back {took:?} after {seconds} s");
        assert!(took < Duration::from_secs(2), "{took:?} after {seconds} s");
    }
}

pub(crate) async fn a_paused_server_is_used_again_at_once(address: String) {
    let proxy = Proxy::before(&address).await;
    let keep_alive = Duration::from_secs(1);
    let options = options(&address);
    driver(&options).await;
    let contact_points = vec![proxy.address.to_string()];
    let attempt_timeout = Duration::from_millis(500);
    let driver = connect(&Options { contact_points, attempt_timeout, keep_alive, ..options }).await;
    for seconds in [1, 12] {
        proxy.set(Flow::Still);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let answer = driver.write(mutation(Partition::Data(owner()), 2, put(2))).await;
            assert!(matches!(answer, Err(CqlError::Refused(_) | CqlError::Unknown(_))), "{answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        proxy.set(Flow::Open);
        let took = back(&driver).await;
        println!("  back {took:?} after {seconds} s");
        assert!(took < Duration::from_secs(2), "{took:?} after {seconds} s");
    }
}

pub(crate) async fn nobody_there_and_wrong_options_are_told_apart(address: String) {
    let server = options(&address);
    let nobody = Options { contact_points: vec!["127.0.0.1:1".to_owned()], ..server.clone() };
    let error = Connection::open(&nobody).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");

    let elsewhere = Options { local_datacenter: Some("dc9".to_owned()), ..server.clone() };
    let error = Connection::open(&elsewhere).await.unwrap_err();
    assert!(error.to_string().contains("one of datacenter1"), "{error}");

    let ca = Some("/nowhere/ca.pem".into());
    let files = Options { tls: Some(Tls { ca, ..Tls::default() }), ..server.clone() };
    let error = Connection::open(&files).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Tls(_)), "{error:?}");
    assert!(
        error.to_string().contains("store.tls.ca") && error.to_string().contains("/nowhere/ca.pem"),
        "{error}"
    );

    let keyspace = "Not One".to_owned();
    let error = Connection::open(&Options { keyspace, ..server.clone() }).await.unwrap_err();
    assert!(matches!(error, ConnectError::Options(_)), "{error:?}");

    // A server that asks for no name takes any.
    let named =
        Options { username: Some("starling".to_owned()), password: Password::new("x".to_owned()), ..server };
    Connection::open(&named).await.unwrap();
}
