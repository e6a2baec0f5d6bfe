//! The lease: what is confirmed after it counts for nothing, and whoever has been succeeded ends.

use crate::bench::{World, jid};
use crate::stage::Stage;
use starling_store::StoreError;
use starling_wire::{ConnId, Down, Token, Up};
use starling_xmpp::{PresenceType, Stanza};
use std::time::Duration;

const REFUSED: &str = "!resource-constraint wait";

fn away() -> Option<StoreError> {
    Some(StoreError::Unavailable("away".to_owned()))
}

#[test]
fn what_is_confirmed_after_the_lease_counts_for_nothing() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let bob = stage.client("bob");
    stage.store.hold("alice");
    stage.chat(&mut alice, "alice", "late");
    stage.store.refuse_grants(away());
    // Nine seconds from the last grant that went well.
    stage.advance(Duration::from_secs(12));
    stage.store.release("alice");
    stage.run();
    assert_eq!(stage.handled(&alice), (2, vec![REFUSED.to_owned()]));
    assert!(stage.messages(&bob).is_empty());
    // Nor is anything new taken.
    stage.chat(&mut alice, "bob", "refused");
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.handled(&alice), (3, vec![REFUSED.to_owned()]));
    // It is used again as soon as it is back.
    stage.store.refuse_grants(None);
    stage.advance(Duration::from_millis(500));
    stage.chat(&mut alice, "bob", "again");
    stage.advance(Duration::from_millis(500));
    assert_eq!(stage.messages(&bob), ["again"]);
    // The row is there after all, and waits as any other.
    assert_eq!(stage.handled(&alice), (4, vec!["late".to_owned()]));
}

#[test]
fn a_short_absence_of_grants_is_not_noticed() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let bob = stage.client("bob");
    stage.store.refuse_grants(away());
    stage.advance(Duration::from_secs(6));
    stage.chat(&mut alice, "bob", "hello");
    assert_eq!(stage.messages(&bob), ["hello"]);
    stage.store.refuse_grants(None);
    stage.advance(Duration::from_secs(60));
    stage.chat(&mut alice, "bob", "still there");
    assert_eq!(stage.messages(&bob), ["still there"]);
}

#[test]
fn whoever_has_been_succeeded_ends() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.store.hold("alice");
    stage.chat(&mut alice, "bob", "under way");
    let report = stage.homes.delete_account(&jid("alice"));
    stage.store.refuse_grants(Some(StoreError::Fenced));
    stage.advance(Duration::from_secs(3));
    assert!(stage.homes.is_fenced() && stage.homes.is_empty());
    assert!(!stage.homes.link().ready());
    for client in [&alice, &bob] {
        let downs = stage.told(client);
        assert!(format!("{downs:?}").contains("SystemShutdown"), "{downs:?}");
        assert!(!downs.iter().any(|down| matches!(down, Down::Handled { .. })));
    }
    stage.store.release("alice");
    stage.chat(&mut alice, "bob", "later");
    stage.say(&bob, Up::Bind { token: Token(9), resource: None });
    stage.run();
    for client in [&alice, &bob] {
        let downs = stage.told(client);
        assert!(matches!(downs[..], [Down::Close(Some(_))]), "{downs:?}");
    }
    assert!(crate::stage::now(report).is_err());
    assert!(stage.rows("bob").is_empty());
    assert_eq!(stage.homes.deadline(), None);
}

/// What this client was told: whether presence, and whether its stream ends.
fn seen(stage: &Stage, client: &crate::stage::Client) -> (bool, bool) {
    let downs = stage.told(client);
    let seen = downs.iter().any(|down| matches!(down, Down::Stanza { .. }));
    (seen, downs.iter().any(|down| matches!(down, Down::Close(Some(_)))))
}

fn presence(to: &str) -> Stanza {
    let mut presence = Stanza::presence(PresenceType::Available);
    presence.to = Some(jid(to).into());
    presence
}

#[test]
fn whoever_wakes_up_asks_first_who_reigns() {
    for succeeded in [false, true] {
        let mut stage = Stage::new();
        let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
        // The machine sleeps; this came in before.
        stage.send(&mut alice, presence("bob"));
        stage.clock.advance(Duration::from_secs(3_600));
        stage.store.refuse_grants(succeeded.then_some(StoreError::Fenced));
        stage.store.hold_grants();
        stage.advance(Duration::from_millis(500));
        assert_eq!(seen(&stage, &bob), (false, false), "before it is known who reigns");
        stage.store.release_grants();
        stage.advance(Duration::from_millis(100));
        assert_eq!(seen(&stage, &bob), (!succeeded, succeeded));
    }
}

#[test]
fn whoever_gets_no_answer_does_not_stand_still_for_long() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.store.hold_grants();
    // Nine seconds from the last grant, which was asked for at the beginning.
    stage.advance(Duration::from_millis(9_100));
    stage.send(&mut alice, presence("bob"));
    stage.advance(Duration::from_millis(800));
    assert_eq!(seen(&stage, &bob), (false, false));
    stage.advance(Duration::from_millis(200));
    assert_eq!(seen(&stage, &bob), (true, false));
    stage.chat(&mut alice, "bob", "refused");
    assert_eq!(stage.messages(&alice), [REFUSED]);
}

#[test]
fn whoever_has_no_lease_for_long_sends_its_clients_away_until_it_is_back() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.say(&alice, Up::EnableSm { resume: true, max: None });
    stage.run();
    stage.told(&alice);
    stage.store.refuse_grants(away());
    assert!(stage.homes.link().ready());
    stage.advance(Duration::from_secs(12));
    assert!(!stage.homes.link().ready(), "the lease is over");
    // Sessions go on, new ones do not begin.
    let mut late = bob.clone();
    late.conn = ConnId::local(77);
    let bind = || Up::Bind { token: Token(77), resource: Some("tablet".into()) };
    stage.say(&late, bind());
    stage.send(&mut alice, presence("bob"));
    stage.run();
    assert!(
        matches!(&stage.told(&late)[..], [Down::Refused(error)] if format!("{error:?}").contains("Wait"))
    );
    assert_eq!(seen(&stage, &bob), (true, false));
    stage.advance(Duration::from_secs(896));
    assert_eq!((seen(&stage, &alice).1, seen(&stage, &bob).1), (false, false));
    stage.advance(Duration::from_secs(2));
    assert_eq!((seen(&stage, &alice).1, seen(&stage, &bob).1), (true, true));
    // Nobody gets in.
    alice.conn = ConnId::local(78);
    let resume = || Up::Resume { token: Token(1), handled: 0 };
    stage.say(&alice, resume());
    stage.say(&late, bind());
    stage.advance(Duration::from_secs(10));
    assert!(matches!(stage.told(&late)[..], [Down::Refused(_)]));
    assert_eq!(seen(&stage, &alice), (false, true));
    // Until it is back: who can resume has lost nothing.
    stage.store.refuse_grants(None);
    stage.advance(Duration::from_secs(1));
    assert!(stage.homes.link().ready());
    alice.conn = ConnId::local(79);
    stage.say(&alice, resume());
    stage.say(&late, bind());
    stage.run();
    assert!(matches!(stage.told(&alice).first(), Some(Down::Resumed { .. })));
    assert!(matches!(stage.told(&late).first(), Some(Down::Bound { .. })));
    stage.advance(Duration::from_secs(200));
    assert_eq!(seen(&stage, &alice), (false, false));
}

#[tokio::test]
async fn a_router_says_that_it_has_been_succeeded() {
    let world = World::new().await;
    assert!(world.router.is_whole());
    let mut bob = world.available("bob", "phone").await;
    // Another reign begins; this one learns of it with its next grant.
    let store: starling_store::SharedStore = std::sync::Arc::new(world.store.clone());
    store.open_reign(starling_store::Claim { instance: 1, name: "other".to_owned() }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(4), world.router.fenced()).await.expect("it learns of it");
    assert!(!world.router.is_whole());
    bob.until(|down| matches!(down, Down::Close(Some(_)))).await;
    world.router.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_reign_is_released_when_all_is_written() {
    let store = crate::stage::Gate::new();
    let shared: starling_store::SharedStore = std::sync::Arc::new(store.clone());
    let told = std::sync::Arc::new(crate::bench::Told::default());
    let parts = crate::bench::parts(
        shared,
        starling_router::RouterConfig::default(),
        starling_node::SystemClock::shared(),
        told,
    );
    let router = starling_router::Router::start(parts).await.unwrap();
    router.stop(Duration::from_secs(1)).await;
    assert_eq!(store.released(), [1]);
}
