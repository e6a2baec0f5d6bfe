//! Sessions: conflict, windows, resumption.

use crate::bench::{POISON, World, body, chat, rows, stanza_id};
use crate::stage::Stage;
use starling_wire::{ConnId, Down, Leave, Up};
use starling_xmpp::{PresenceType, Stanza};
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_new_session_replaces_the_old_one() {
    let world = World::new().await;
    let mut old = world.available("alice", "phone").await;
    let new = world.client("alice", "phone").await;
    let closed = old.until(|down| matches!(down, Down::Close(Some(_)))).await;
    assert!(format!("{closed:?}").contains("Conflict"), "{closed:?}");
    drop(new);
    assert_eq!(world.router.sessions().await.len(), 1);
}

#[tokio::test]
async fn a_resumed_session_gets_what_it_missed_once_and_in_order() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    for n in 0..3 {
        alice.chat("bob@localhost", &format!("seen {n}"));
    }
    for _ in 0..3 {
        bob.message().await;
    }
    bob.chat("alice@localhost", "from bob");
    bob.gone(Leave::Lost);
    for n in 0..3 {
        alice.chat("bob@localhost", &format!("missed {n}"));
    }
    alice.settled().await;
    assert!(bob.messages_for(MOMENT).await.is_empty(), "sent to a connection that is gone");
    let token = bob.token;
    bob.conn = ConnId::local(9_001);
    bob.say(Up::Resume { token, handled: 2 });
    let resumed = bob.next().await;
    let Down::Resumed { sequence, base, jid } = resumed else { panic!("{resumed:?}") };
    assert_eq!((sequence - base, jid.as_str()), (1, "bob@localhost/phone"));
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(body(&bob.message().await));
    }
    assert_eq!(seen, ["seen 2", "missed 0", "missed 1", "missed 2"]);
    bob.say(Up::Acknowledged { handled: 6 });
    bob.gone(Leave::Closed);
    let mut bob = world.available("bob", "tablet").await;
    assert!(bob.messages_for(MOMENT).await.is_empty(), "came a second time");
}

#[tokio::test]
async fn resumption_waits_for_what_the_old_connection_sent() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    world.store.hold();
    bob.chat("alice@localhost", "in flight");
    let old = bob.conn;
    bob.conn = ConnId::local(9_002);
    let token = bob.token;
    bob.say(Up::Resume { token, handled: 0 });
    assert!(bob.messages_for(MOMENT).await.is_empty());
    assert!(bob.take().is_none(), "resumed before its count was sure");
    world.store.release();
    let resumed = bob.next().await;
    let Down::Resumed { sequence, base, .. } = resumed else { panic!("{resumed:?}") };
    assert_eq!(sequence - base, 1, "the message in flight counts");
    bob.conn = old;
    bob.until(|down| matches!(down, Down::Close(Some(_)))).await;
    assert_eq!(rows(&world, "alice").await.len(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_acknowledge_is_fed_from_the_log() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    for n in 0..600 {
        alice.chat("bob@localhost", &n.to_string());
    }
    alice.settled().await;
    let mut seen = bob.messages_for(MOMENT * 3).await;
    assert!(seen.len() <= 250, "{} unacknowledged messages are out", seen.len());
    while seen.len() < 600 {
        bob.say(Up::Acknowledged { handled: seen.len() as u32 });
        let more = bob.messages_for(MOMENT).await;
        assert!(!more.is_empty(), "stuck after {}", seen.len());
        seen.extend(more);
    }
    let bodies: Vec<_> = seen.iter().map(body).collect();
    assert_eq!(bodies, (0..600).map(|n| n.to_string()).collect::<Vec<_>>());
    let mut ids: Vec<_> = seen.iter().map(stanza_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 600);
}

#[tokio::test]
async fn an_unresumed_session_leaves_its_messages_to_the_next() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut phone = world.available("bob", "phone").await;
    phone.enable().await;
    alice.chat("bob@localhost", "hello");
    alice.settled().await;
    let id = stanza_id(&phone.message().await);
    let mut tablet = world.available("bob", "tablet").await;
    assert!(tablet.messages_for(MOMENT).await.is_empty(), "the phone still has it");
    phone.gone(Leave::Closed);
    let again = tablet.message().await;
    assert_eq!(stanza_id(&again), id);
    assert!(again.payload.has(starling_xmpp::ns::DELAY, "delay"));
}

#[tokio::test]
async fn an_acknowledgement_of_too_much_ends_the_stream() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    bob.say(Up::Acknowledged { handled: 5 });
    let closed = bob.until(|down| matches!(down, Down::Close(Some(_)))).await;
    assert!(format!("{closed:?}").contains("handled-count-too-high"), "{closed:?}");
}

#[tokio::test]
async fn a_panic_costs_the_sessions_of_one_account_and_no_message() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    alice.chat("carol@localhost", "before");
    alice.settled().await;
    alice.chat("carol@localhost", POISON);
    alice.chat("carol@localhost", "in the same breath");
    alice.until(|down| matches!(down, Down::Close(Some(_)))).await;
    bob.chat("carol@localhost", "hello");
    bob.settled().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat("carol@localhost", "again");
    alice.settled().await;
    let mut carol = world.available("carol", "phone").await;
    for expected in ["before", "hello", "again"] {
        assert_eq!(body(&carol.message().await), expected);
    }
}

#[test]
fn a_device_that_does_not_answer_brings_nothing_back_of_what_another_acknowledged() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let (stuck, phone) = (stage.device("bob", "stuck"), stage.device("bob", "phone"));
    let mut written = 0;
    let mut seen = 0;
    for n in 0..2_500 {
        if n % 1_000 == 0 {
            stage.send(&mut alice, chat("bob@localhost/stuck", &format!("stuck {n}")));
        }
        stage.send(&mut alice, chat("bob@localhost/phone", "seen"));
        if n % 50 == 49 {
            stage.run();
            let told = stage.told(&phone);
            let stanzas = told.iter().filter_map(|down| match down {
                Down::Stanza { stanza, .. } => Some(stanza),
                _ => None,
            });
            written += stanzas.clone().count() as u64;
            seen += stanzas.filter(|stanza| body(stanza) == "seen").count();
            stage.say(&phone, Up::Written { count: written + 2 }); // its own presence, and the other's
        }
    }
    assert_eq!((stage.messages(&stuck).len(), seen), (3, 2_500));
    stage.advance(Duration::from_secs(3));
    stage.crash();
    let mut bob = stage.bound("bob", "tablet");
    stage.send(&mut bob, Stanza::presence(PresenceType::Available));
    stage.run();
    assert_eq!(stage.messages(&bob), ["stuck 0", "stuck 1000", "stuck 2000"]);
}
