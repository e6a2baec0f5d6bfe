//! Promises 1, 2 and 4 of the design, at one router.

use crate::bench::{World, body, jid, rows, stanza_id};
use starling_store::{Position, Reign, SharedStore};
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Jid, Kind, MessageType, PresenceType, Stanza};
use std::sync::Arc;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn nothing_leaves_before_it_is_committed() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    let mut alice = world.available("alice", "phone").await;
    world.store.hold();
    alice.chat("bob@localhost", "hello");
    assert!(bob.messages_for(MOMENT).await.is_empty(), "delivered before any commit");
    assert!(alice.take().is_none(), "acknowledged before any commit");
    world.store.release_next(1); // alice's row
    assert!(bob.messages_for(MOMENT).await.is_empty(), "delivered before the recipient's commit");
    assert!(alice.take().is_none(), "acknowledged before the recipient's commit");
    world.store.release();
    assert_eq!(body(&bob.message().await), "hello");
    alice.settled().await;
    assert_eq!(rows(&world, "alice").await.len(), 1);
    assert_eq!(rows(&world, "bob").await.len(), 1);
}

#[tokio::test]
async fn a_failed_commit_is_told_and_not_delivered() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    let mut alice = world.available("alice", "phone").await;
    for skip in [0, 1] {
        // The sender's commit fails, then the recipient's.
        world.store.hold();
        alice.chat("bob@localhost", "lost");
        tokio::time::sleep(MOMENT).await;
        world.store.release_next(skip);
        tokio::time::sleep(MOMENT).await;
        world.store.drop_held();
        let error = alice.message().await;
        assert_eq!(error.kind, Kind::Message(MessageType::Error));
        let text = error.to_element().to_string();
        assert!(text.contains("resource-constraint") && text.contains("wait"), "{text}");
        alice.settled().await;
        assert!(bob.messages_for(MOMENT).await.is_empty());
    }
}

#[tokio::test]
async fn order_is_kept_from_one_sender_to_one_recipient() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    let mut alice = world.available("alice", "phone").await;
    let all: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for text in &all {
        alice.chat("bob@localhost", text);
    }
    let mut seen = Vec::new();
    while seen.len() < all.len() {
        seen.push(body(&bob.message().await));
        bob.say(Up::Written { count: seen.len() as u64 + 10 });
    }
    assert_eq!(seen, all);
    let log: Vec<String> =
        rows(&world, "bob").await.into_iter().map(|row| body(&Stanza::decode(row.stanza).unwrap())).collect();
    assert_eq!(log, all);
}

#[tokio::test]
async fn messages_wait_for_a_device_and_come_once() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let sent: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for text in &sent {
        alice.chat("bob@localhost", text);
    }
    alice.settled().await;
    let mut bob = world.available("bob", "phone").await;
    let mut seen = Vec::new();
    let mut count = 0;
    while seen.len() < sent.len() {
        let message = bob.message().await;
        assert!(message.payload.has(starling_xmpp::ns::DELAY, "delay"));
        seen.push(body(&message));
        count += 1;
        bob.say(Up::Written { count: count + 1 }); // its own presence comes first
    }
    assert_eq!(seen, sent);
    bob.gone(Leave::Closed);
    let mut bob = world.available("bob", "tablet").await;
    assert!(bob.messages_for(MOMENT).await.is_empty(), "acknowledged messages came again");
}

/// Waits until a cursor is.
async fn written(world: &World, account: &str) {
    let store: SharedStore = Arc::new(world.store.clone());
    let reign = Reign { epoch: 1, floor: Position(0) };
    for _ in 0..300 {
        let state = store.load(&jid(account), reign).await.unwrap().unwrap();
        if state.cursor.through > Position(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the cursor of {account} is not written");
}

#[tokio::test]
async fn what_no_device_acknowledged_survives_a_crash() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    alice.chat("bob@localhost", "one");
    alice.chat("bob@localhost", "two");
    alice.settled().await;
    let first = stanza_id(&bob.message().await);
    bob.message().await;
    bob.say(Up::Acknowledged { handled: 1 });
    // The cursor is written within two seconds.
    written(&world, "bob").await;
    let world = world.crash().await;
    let mut bob = world.available("bob", "phone").await;
    let again = bob.message().await;
    assert_eq!(body(&again), "two");
    assert_ne!(stanza_id(&again), first);
    assert!(bob.messages_for(MOMENT).await.is_empty());
}

#[tokio::test]
async fn what_was_acknowledged_is_written_when_its_session_leaves() {
    for leave in [Leave::Closed, Leave::Lost] {
        let world = World::new().await;
        let mut alice = world.available("alice", "phone").await;
        let mut bob = world.available("bob", "phone").await;
        bob.enable().await;
        alice.chat("bob@localhost", "one");
        alice.settled().await;
        bob.message().await;
        bob.say(Up::Acknowledged { handled: 1 });
        tokio::time::sleep(MOMENT).await;
        bob.say(Up::Gone(leave));
        tokio::time::sleep(MOMENT).await;
        let world = world.crash().await;
        let mut bob = world.available("bob", "phone").await;
        assert!(bob.messages_for(MOMENT).await.is_empty(), "{leave:?}: acknowledged messages came again");
    }
}

#[tokio::test]
async fn a_message_resent_after_a_crash_has_one_row() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.settled().await;
    let world = world.crash().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.chat_with_origin("bob@localhost", "hello", "o2");
    alice.settled().await;
    assert_eq!(rows(&world, "alice").await.len(), 2);
    assert_eq!(rows(&world, "bob").await.len(), 2);
    let mut bob = world.available("bob", "phone").await;
    assert_eq!(bob.messages_for(MOMENT).await.len(), 2);
}

#[tokio::test]
async fn a_resent_message_finds_the_half_that_was_written() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    // The sender's row is committed, the recipient's is not.
    world.store.hold();
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    tokio::time::sleep(MOMENT).await;
    world.store.release_next(1);
    tokio::time::sleep(MOMENT).await;
    world.store.drop_held();
    let world = world.crash().await;
    assert_eq!((rows(&world, "alice").await.len(), rows(&world, "bob").await.len()), (1, 0));
    let mut alice = world.available("alice", "phone").await;
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.settled().await;
    assert_eq!((rows(&world, "alice").await.len(), rows(&world, "bob").await.len()), (1, 1));
    assert_eq!(rows(&world, "alice").await[0].origin, rows(&world, "bob").await[0].origin);
}

#[tokio::test]
async fn a_message_to_oneself_is_one_row() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat("alice@localhost", "note");
    assert_eq!(body(&alice.message().await), "note");
    assert_eq!(rows(&world, "alice").await.len(), 1);
}

#[tokio::test]
async fn strangers_and_the_missing_get_the_same_answer() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    for to in ["nobody@localhost", "localhost"] {
        alice.chat(to, "hello");
        let error = alice.message().await.to_element().to_string();
        assert!(error.contains("service-unavailable"), "{to}: {error}");
    }
    alice.chat("someone@elsewhere.example", "hello");
    assert!(alice.message().await.to_element().to_string().contains("remote-server-not-found"));
    alice.settled().await;
    assert!(world.router.delete_account(&jid("bob")).await.unwrap());
    alice.chat("bob@localhost", "hello");
    assert!(alice.message().await.to_element().to_string().contains("service-unavailable"));
}

#[tokio::test]
async fn a_domain_denies_what_nobody_would_approve() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    alice.send(Stanza::presence(PresenceType::Subscribe).to(Jid::parse("localhost").unwrap()));
    let denied = |down: &Down| match down {
        Down::Stanza { stanza, .. } => stanza.kind == Kind::Presence(PresenceType::Unsubscribed),
        _ => false,
    };
    let Down::Stanza { stanza, .. } = alice.until(denied).await else { unreachable!() };
    assert_eq!(stanza.from, Some(Jid::parse("localhost").unwrap()));
}

#[tokio::test]
async fn a_message_to_a_full_address_does_not_overtake_what_waits() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat("bob@localhost", "old");
    alice.settled().await;
    let mut bob = world.client("bob", "phone").await;
    alice.chat("bob@localhost/phone", "new");
    alice.settled().await;
    assert!(bob.messages_for(MOMENT).await.is_empty(), "the newer one came first");
    bob.send(Stanza::presence(PresenceType::Available));
    assert_eq!(body(&bob.message().await), "old");
    assert_eq!(body(&bob.message().await), "new");
}
