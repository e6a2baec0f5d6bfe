//! What happens at the same time: ends, resumptions, removals and slow readers while messages are on their way.

use crate::bench::{Client, World, body, chat, jid, rows};
use crate::stage::Stage;
use starling_node::{ManualClock, SystemClock};
use starling_router::RouterConfig;
use starling_store::{Position, Reign};
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Element, IqType, Kind, PresenceType, Stanza, ns};
use std::sync::Arc;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(60);
/// The first one, for looking behind the router.
const REIGN: Reign = Reign { epoch: 1, floor: Position(0) };

fn bodies(messages: &[Stanza]) -> Vec<String> {
    messages.iter().map(body).collect()
}

fn presence(to: &str) -> Stanza {
    let mut stanza = Stanza::presence(PresenceType::Available);
    stanza.to = Some(starling_xmpp::Jid::parse(to).unwrap());
    stanza
}

fn unavailable() -> Stanza {
    Stanza::presence(PresenceType::Unavailable)
}

/// Whether presence of this sender comes soon.
async fn sees(client: &mut Client<'_>, from: &str) -> bool {
    tokio::time::sleep(MOMENT).await;
    let mut seen = false;
    while let Some(down) = client.take() {
        seen |= matches!(down, Down::Stanza { stanza, .. }
            if matches!(stanza.kind, Kind::Presence(_)) && stanza.from.as_ref().is_some_and(|jid| jid.as_str() == from));
    }
    seen
}

#[tokio::test]
async fn a_client_that_does_not_answer_can_come_back() {
    let config = RouterConfig { ack_timeout: Duration::from_millis(50), ..RouterConfig::default() };
    let world = World::with(config, SystemClock::shared()).await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    alice.chat("bob@localhost", "hello");
    bob.until(|down| matches!(down, Down::Close(Some(_)))).await;
    // So says the edge of a stream that it has ended with an error.
    bob.gone(Leave::Closed);
    bob.resume(9_100, 0);
    let answer = bob.next().await;
    assert!(matches!(answer, Down::Resumed { .. }), "{answer:?}");
    assert_eq!(body(&bob.message().await), "hello");
}

#[tokio::test]
async fn what_a_lost_session_had_is_not_forgotten_while_another_is_fed() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut tablet = world.available("bob", "tablet").await;
    tablet.enable().await;
    alice.chat("bob@localhost", "a");
    alice.chat("bob@localhost", "b");
    alice.settled().await;
    tablet.message().await;
    tablet.send(unavailable());
    tablet.settled().await;
    for n in 0..400 {
        alice.chat("bob@localhost", &n.to_string());
    }
    alice.settled().await;
    let mut phone = world.client("bob", "phone").await;
    phone.enable().await;
    phone.send(Stanza::presence(PresenceType::Available));
    // The window is full; more is to be read.
    let mut seen = bodies(&phone.messages_for(MOMENT * 4).await);
    assert!(seen.len() < 400, "{}", seen.len());
    tablet.gone(Leave::Closed);
    for _ in 0..20 {
        // Its own presence and the tablet's are counted too, if late.
        phone.say(Up::Acknowledged { handled: seen.len() as u32 + 1 });
        seen.extend(bodies(&phone.messages_for(MOMENT).await));
    }
    assert_eq!(seen.iter().filter(|text| *text == "a" || *text == "b").count(), 2, "lost");
    seen.retain(|text| text != "a" && text != "b");
    assert_eq!(seen, (0..400).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_removed_account_leaves_no_sender_without_an_answer() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let bob = world.available("bob", "phone").await;
    world.store.hold();
    alice.chat("bob@localhost", "hello");
    tokio::time::sleep(MOMENT).await;
    let bare = jid("bob");
    let (removed, ()) = tokio::join!(world.router.delete_account(&bare), async {
        tokio::time::sleep(MOMENT).await;
        // Alice's row: the message gets to a home that is being removed.
        world.store.release_next(1);
        tokio::time::sleep(MOMENT).await;
        world.store.release();
    });
    assert!(removed.unwrap());
    let error = alice.message().await;
    assert_eq!(error.kind, Kind::Message(starling_xmpp::MessageType::Error));
    alice.settled().await;
    assert!(rows(&world, "bob").await.is_empty());
    drop(bob);
}

#[tokio::test]
async fn an_account_that_could_not_be_removed_goes_on() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    world.store.hold();
    let bare = jid("bob");
    let (removed, ()) = tokio::join!(world.router.delete_account(&bare), async {
        tokio::time::sleep(MOMENT).await;
        alice.send(presence("bob@localhost/phone"));
        tokio::time::sleep(MOMENT).await;
        world.store.drop_held();
    });
    assert!(removed.is_err());
    assert!(sees(&mut bob, "alice@localhost/phone").await);
    alice.chat("bob@localhost", "hello");
    assert_eq!(body(&bob.message().await), "hello");
}

#[tokio::test]
async fn a_resumed_session_is_looked_at() {
    // XEP-0352 §5: new and resumed streams are active.
    let world = World::new().await;
    let mut carol = world.available("carol", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    bob.say(Up::ClientState { active: false });
    carol.send(presence("bob@localhost/phone"));
    assert!(!sees(&mut bob, "carol@localhost/phone").await, "was not held back");
    bob.gone(Leave::Lost);
    bob.resume(9_101, 0);
    assert!(sees(&mut bob, "carol@localhost/phone").await, "still held back");
    carol.send(presence("bob@localhost/phone"));
    assert!(sees(&mut bob, "carol@localhost/phone").await, "still thought inactive");
}

#[tokio::test]
async fn feeding_is_bounded_in_bytes() {
    let config = RouterConfig { max_unacked_bytes: 10_000, ..RouterConfig::default() };
    let world = World::with(config, SystemClock::shared()).await;
    let mut alice = world.available("alice", "phone").await;
    let long = "x".repeat(1_000);
    let sent: Vec<String> = (0..60).map(|n| format!("{n} {long}")).collect();
    for text in &sent {
        alice.chat("bob@localhost", text);
    }
    alice.settled().await;
    let mut bob = world.available("bob", "phone").await;
    let mut seen = Vec::new();
    for _ in 0..30 {
        let more = bodies(&bob.messages_for(MOMENT / 2).await);
        assert!(more.len() <= 11, "{} at once", more.len());
        seen.extend(more);
        bob.say(Up::Written { count: seen.len() as u64 + 1 });
    }
    assert_eq!(seen, sent);
}

#[tokio::test]
async fn a_detached_session_that_would_lose_a_stanza_ends() {
    let config = RouterConfig { max_unacked: 5, ..RouterConfig::default() };
    let world = World::with(config, SystemClock::shared()).await;
    let mut carol = world.available("carol", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    bob.gone(Leave::Lost);
    for _ in 0..9 {
        carol.send(presence("bob@localhost/phone"));
    }
    carol.settled().await;
    tokio::time::sleep(MOMENT).await;
    bob.resume(9_102, 0);
    let answer = bob.next().await;
    assert!(matches!(answer, Down::NotResumed), "{answer:?}");
}

#[tokio::test]
async fn a_session_that_has_left_gets_nothing_before_what_waits() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    bob.send(unavailable());
    bob.settled().await;
    alice.chat("bob@localhost", "old");
    alice.chat("bob@localhost/phone", "new");
    alice.settled().await;
    assert!(bob.messages_for(MOMENT).await.is_empty(), "the newer one came first");
    bob.send(Stanza::presence(PresenceType::Available));
    assert_eq!(body(&bob.message().await), "old");
    assert_eq!(body(&bob.message().await), "new");
}

#[tokio::test]
async fn a_failed_commit_takes_no_request_of_others_along() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    world.store.fail_next(1);
    let mut request = Stanza::iq(IqType::Get).child(Element::new("urn:example", "query"));
    request.to = Some(starling_xmpp::Jid::parse("bob@localhost/phone").unwrap());
    request.id = Some("1".into());
    alice.send_all(vec![chat("bob@localhost", "lost"), request]);
    bob.until(|down| matches!(down, Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Iq(_)))).await;
}

#[tokio::test]
async fn a_lost_session_is_remembered_longer_than_its_home() {
    let clock = ManualClock::at_micros(1_700_000_000_000_000);
    // Alone, positions need no grant that follows the clock.
    let config = RouterConfig { alone: true, ..RouterConfig::default() };
    let world = World::with(config, Arc::new(clock.clone())).await;
    clock.advance(Duration::from_secs(2_000));
    let mut alice = world.available("alice", "phone").await;
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.settled().await;
    alice.gone(Leave::Closed);
    for _ in 0..4 {
        clock.advance(Duration::from_secs(61));
        world.router.sessions().await;
    }
    let mut alice = world.available("alice", "phone").await;
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.settled().await;
    assert_eq!(rows(&world, "alice").await.len(), 1);
    assert_eq!(rows(&world, "bob").await.len(), 1);
}

#[tokio::test]
async fn a_client_without_acknowledgements_gets_many_stanzas_at_once() {
    let config = RouterConfig { max_unacked: 5, ..RouterConfig::default() };
    let world = World::with(config, SystemClock::shared()).await;
    let mut carol = world.available("carol", "phone").await;
    let mut bob = world.available("bob", "phone").await;
    for _ in 0..20 {
        carol.send(presence("bob@localhost/phone"));
    }
    carol.settled().await;
    tokio::time::sleep(MOMENT).await;
    let mut count = 0;
    while let Some(down) = bob.take() {
        count += usize::from(matches!(down, Down::Stanza { .. }));
    }
    assert_eq!(count, 20);
}

#[tokio::test]
async fn a_copy_is_no_delivery() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    let mut desk = world.client("bob", "desk").await;
    desk.send(
        Stanza::presence(PresenceType::Available).child(Element::new(ns::CLIENT, "priority").text("-1")),
    );
    desk.settled().await;
    alice.chat("bob@localhost", "one");
    alice.chat("bob@localhost", "two");
    alice.settled().await;
    for _ in 0..2 {
        assert!(desk.message().await.payload.has(ns::CARBONS, "received"));
    }
    // Read by the desk, and still waiting for a device of its own.
    desk.say(Up::Written { count: 100 });
    let mut phone = world.available("bob", "phone").await;
    assert_eq!(body(&phone.message().await), "one");
    assert_eq!(body(&phone.message().await), "two");
    assert!(desk.messages_for(MOMENT).await.is_empty());
}

#[tokio::test]
async fn what_is_read_back_after_a_failed_commit_undoes_nothing_newer() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    let mut alice = world.available("alice", "phone").await;
    world.store.hold();
    alice.chat("bob@localhost", "lost");
    tokio::time::sleep(MOMENT).await;
    let mut subscribe = Stanza::presence(PresenceType::Subscribe);
    subscribe.to = Some(jid("bob").into());
    alice.send(subscribe);
    tokio::time::sleep(MOMENT).await;
    world.store.drop_next(1);
    tokio::time::sleep(MOMENT).await;
    world.store.release();
    alice.settled().await;
    let mut subscribed = Stanza::presence(PresenceType::Subscribed);
    subscribed.to = Some(jid("alice").into());
    bob.send(subscribed);
    bob.settled().await;
    tokio::time::sleep(MOMENT).await;
    let alice = world.store.inner().load(&jid("alice"), REIGN).await.unwrap().unwrap();
    let item = alice.roster.items.get(&jid("bob")).expect("she has asked for it");
    assert!(item.subscription.is_to(), "{item:?}");
}

#[tokio::test]
async fn a_message_sent_again_beside_a_detached_session_has_one_row() {
    let clock = ManualClock::at_micros(1_700_000_000_000_000);
    let config = RouterConfig { alone: true, ..RouterConfig::default() };
    let world = World::with(config, Arc::new(clock.clone())).await;
    clock.advance(Duration::from_secs(2_000));
    let mut phone = world.available("alice", "phone").await;
    phone.enable().await;
    phone.chat_with_origin("bob@localhost", "hello", "o1");
    phone.settled().await;
    phone.gone(Leave::Lost);
    clock.advance(Duration::from_secs(1));
    // The client has lost its state and comes under another name.
    let mut other = world.available("alice", "other").await;
    other.chat_with_origin("bob@localhost", "hello", "o1");
    other.settled().await;
    assert_eq!(rows(&world, "alice").await.len(), 1);
    assert_eq!(rows(&world, "bob").await.len(), 1);
}

#[tokio::test]
async fn a_session_whose_client_counts_wrong_is_not_tried_for_ever() {
    let world = World::new().await;
    let mut bob = world.available("bob", "phone").await;
    bob.enable().await;
    bob.gone(Leave::Lost);
    bob.resume(9_103, 77);
    let closed = bob.next().await;
    assert!(format!("{closed:?}").contains("handled-count-too-high"), "{closed:?}");
    // So says the edge of a stream that never became a session.
    bob.gone(Leave::Lost);
    bob.resume(9_104, 77);
    let answer = bob.next().await;
    assert!(matches!(answer, Down::NotResumed), "{answer:?}");
}

#[tokio::test]
async fn a_message_waits_until_it_is_known_whether_it_was_there_before() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.settled().await;
    let world = world.crash().await;
    let _bob = world.available("bob", "phone").await;
    let mut alice = world.available("alice", "phone").await;
    world.store.fail_next_reads(1);
    alice.chat_with_origin("bob@localhost", "hello", "o1");
    alice.settled().await;
    assert_eq!(rows(&world, "alice").await.len(), 1);
    assert_eq!(rows(&world, "bob").await.len(), 1);
}

#[tokio::test]
async fn a_busy_store_is_asked_again_for_what_waits() {
    let world = World::new().await;
    let mut alice = world.available("alice", "phone").await;
    alice.chat("bob@localhost", "hello");
    alice.settled().await;
    let mut bob = world.client("bob", "phone").await;
    world.store.fail_next_reads(1);
    bob.send(Stanza::presence(PresenceType::Available));
    assert_eq!(body(&bob.message().await), "hello");
}

/// It does not wait yet when its recipient ends, and somebody else is there.
#[test]
fn what_is_on_its_way_to_who_ends_goes_to_another_device() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let phone = stage.device("bob", "phone");
    let tablet = stage.device("bob", "tablet");
    stage.store.hold("bob");
    stage.send(&mut alice, chat("bob@localhost/phone", "hello"));
    stage.run();
    stage.say(&phone, Up::Gone(Leave::Closed));
    stage.run();
    stage.store.release("bob");
    stage.run();
    assert_eq!(stage.messages(&tablet), ["hello"]);
    stage.chat(&mut alice, "bob", "newer");
    assert_eq!(stage.messages(&tablet), ["newer"]);
}
