//! What comes of presence is bounded, however much of it is said at once to however many.

use crate::bench::jid;
use crate::stage::{Client, Stage, now};
use starling_store::{Batch, Position, RosterItem, Store, Subscription, Write};
use starling_wire::Down;
use starling_xmpp::{Kind, PresenceType, Stanza};
use std::task::Context;

const CONTACTS: usize = 2_000;
const SAID: usize = 30;
/// What a turn may make, and what has just been confirmed of the last one.
const MOST: usize = 2 * (16_384 + CONTACTS);

/// So many see this one; one of them is there.
fn befriend(store: &impl Store, who: &str) {
    let item = |owner: &str, contact: &str, subscription| {
        let item = RosterItem { subscription, visible: true, ..RosterItem::new(jid(contact)) };
        Write::RosterItem(jid(owner), Box::new(item))
    };
    let mut writes = vec![item("bob", who, Subscription::To), item(who, "bob", Subscription::From)];
    let others = (1..CONTACTS).map(|n| item(who, &format!("contact{n}"), Subscription::From));
    writes.extend(others);
    now(store.commit(Batch::of(Position(1), writes))).unwrap();
}

/// Goes on until nothing is to do; how much waited at the most.
fn go_on(stage: &mut Stage) -> usize {
    let (mut cx, mut most) = (Context::from_waker(futures::task::noop_waker_ref()), 0);
    while stage.homes.turn(&mut cx).is_ready() {
        most = most.max(stage.homes.door().waiting());
    }
    most
}

/// How much presence somebody was told.
fn presence(stage: &Stage, client: &Client) -> usize {
    let is_presence = |down: &&Down| {
        let Down::Stanza { stanza, .. } = down else { return false };
        matches!(stanza.kind, Kind::Presence(_))
    };
    stage.told(client).iter().filter(is_presence).count()
}

#[test]
fn what_comes_of_the_presence_of_many_is_bounded() {
    let many: Vec<_> = (0..SAID / 3).map(|n| format!("user{n}")).collect();
    let mut stage = Stage::of(many.iter().cloned().chain(["bob".to_owned()]));
    many.iter().for_each(|who| befriend(&stage.store.inner, who));
    let mut clients: Vec<_> = many.iter().map(|who| stage.bound(who, "phone")).collect();
    let bob = stage.client("bob");
    stage.told(&bob);
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| stage.send(client, Stanza::presence(PresenceType::Available)));
    }
    let most = go_on(&mut stage);
    assert!((CONTACTS..=MOST).contains(&most), "{most}");
    assert_eq!(presence(&stage, &bob), SAID);
}

#[test]
fn what_comes_of_the_presence_of_one_is_bounded() {
    for how in ["at once", "behind a commit", "when its home is there"] {
        let mut stage = Stage::new();
        befriend(&stage.store.inner, "alice");
        if how == "when its home is there" {
            stage.store.hold_loads("alice");
        }
        let bob = stage.client("bob");
        let mut alice = stage.bound("alice", "phone");
        if how == "behind a commit" {
            stage.store.hold("alice");
            stage.chat(&mut alice, "bob", "hello");
        }
        stage.told(&bob);
        for _ in 0..SAID {
            stage.send(&mut alice, Stanza::presence(PresenceType::Available));
        }
        if how != "at once" {
            stage.run();
        }
        stage.store.release("alice");
        stage.store.release_loads("alice");
        let most = go_on(&mut stage);
        assert!((CONTACTS..=MOST).contains(&most), "{how}: {most}");
        // His own question when he came may have waited for her, too.
        let count = presence(&stage, &bob);
        assert!((SAID..=SAID + 1).contains(&count), "{how}: {count}");
    }
}
