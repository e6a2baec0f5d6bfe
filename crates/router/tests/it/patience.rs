//! How long a sender waits for an answer, whatever the store does.

use crate::bench::chat;
use crate::stage::{Client, Stage};
use starling_wire::Down;
use starling_xmpp::{Element, Stanza, ns};
use std::time::Duration;

const REFUSED: &str = "!resource-constraint wait";
const STEP: Duration = Duration::from_millis(100);

/// A message that can be recognised.
fn message(to: &str, text: &str) -> Stanza {
    chat(&format!("{to}@localhost"), text).child(Element::new(ns::SID, "origin-id").attr("id", text))
}

/// Lets time pass until this client is told of a message; what it was told, and how long that took.
fn until_answered(stage: &mut Stage, client: &Client) -> (Vec<String>, Duration) {
    let mut took = Duration::ZERO;
    loop {
        stage.advance(STEP);
        took += STEP;
        let messages = stage.messages(client);
        if !messages.is_empty() || took > Duration::from_secs(60) {
            return (messages, took);
        }
    }
}

#[test]
fn what_waits_for_a_home_to_be_loaded_is_answered_while_it_is() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    stage.store.hold_loads("bob");
    stage.chat(&mut alice, "bob", "one");
    let (messages, took) = until_answered(&mut stage, &alice);
    assert_eq!((messages, took), (vec![REFUSED.to_owned()], Duration::from_secs(5)));
    stage.chat(&mut alice, "bob", "two");
    stage.store.release_loads("bob");
    stage.advance(STEP);
    assert_eq!(stage.handled(&alice), (3, vec![]));
    assert_eq!(stage.rows("bob"), ["two"]);
}

#[test]
fn what_waits_for_a_home_in_doubt_is_answered_while_it_is_loaded() {
    for to in ["bob", "alice"] {
        let mut stage = Stage::new();
        let (mut alice, _bob) = (stage.client("alice"), stage.client("bob"));
        stage.store.hold_loads(to);
        if to == "bob" {
            stage.store.hold("alice");
            stage.chat(&mut alice, to, "in doubt");
        }
        stage.store.inner.fail_next(1);
        stage.store.release("alice");
        if to == "alice" {
            stage.chat(&mut alice, to, "in doubt");
        }
        stage.run();
        assert_eq!(stage.messages(&alice), [REFUSED]);
        stage.chat(&mut alice, to, "behind");
        let (messages, took) = until_answered(&mut stage, &alice);
        assert_eq!((messages, took), (vec![REFUSED.to_owned()], Duration::from_secs(5)));
        stage.store.release_loads(to);
        stage.chat(&mut alice, to, "after");
        assert_eq!(stage.handled(&alice).0, 4);
        assert!(stage.rows(to).contains(&"after".to_owned()));
    }
}

#[test]
fn a_sender_is_answered_whatever_commits_do_and_once() {
    for slow in ["alice", "bob"] {
        for to in ["alice", "bob"] {
            let mut stage = Stage::new();
            let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
            stage.store.hold(slow);
            stage.send(&mut alice, message(to, "m"));
            stage.send(&mut alice, message("bob", "other"));
            let (messages, took) = until_answered(&mut stage, &alice);
            if (slow, to) == ("bob", "alice") {
                assert_eq!(messages, ["m"]);
                continue;
            }
            assert_eq!((messages, took), (vec![REFUSED.to_owned(); 2], Duration::from_secs(10)));
            // What was answered is not answered again; what is sent again is the same message.
            stage.send(&mut alice, message(to, "m"));
            stage.store.release(slow);
            stage.advance(STEP);
            let seen = if to == "alice" { stage.messages(&alice) } else { stage.messages(&bob) };
            assert_eq!(seen.iter().filter(|text| *text == "m").count(), 1, "{slow} {to} {seen:?}");
            assert!(stage.messages(&alice).is_empty());
            for account in ["alice", to] {
                let rows = stage.rows(account);
                assert_eq!(rows.iter().filter(|text| *text == "m").count(), 1, "{slow} {to} {rows:?}");
            }
        }
    }
}

#[test]
fn nothing_overtakes_what_was_refused_out_of_the_same_line() {
    let mut stage = Stage::new();
    let (mut alice, mut carol) = (stage.client("alice"), stage.client("carol"));
    stage.store.hold_loads("bob");
    for text in ["one", "two", "three"] {
        stage.chat(&mut alice, "bob", text);
        stage.chat(&mut carol, "bob", &format!("{text} of carol's"));
        stage.advance(Duration::from_secs(2));
        if text == "one" {
            // What waits as long as that one is refused, and no more.
            assert!(stage.messages(&alice).is_empty() && stage.messages(&carol).is_empty());
            stage.chat(&mut alice, "carol", "elsewhere");
            assert_eq!(stage.messages(&carol), ["elsewhere"]);
        }
    }
    assert_eq!(stage.messages(&alice), [REFUSED; 3]);
    assert_eq!(stage.messages(&carol), [REFUSED; 3]);
    let mut desk = stage.device("alice", "desk");
    stage.chat(&mut alice, "bob", "one");
    stage.advance(Duration::from_secs(4));
    stage.chat(&mut alice, "bob", "two");
    stage.chat(&mut desk, "bob", "of another session");
    stage.advance(Duration::from_secs(1));
    assert_eq!((stage.messages(&alice), stage.messages(&desk).len()), (vec![REFUSED.to_owned(); 2], 0));
    stage.store.release_loads("bob");
    stage.advance(STEP);
    assert_eq!(stage.rows("bob"), ["of another session"]);
}

#[test]
fn all_that_a_message_waits_for_counts_together() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    // Her own home is in doubt, then slow; the recipient's cannot be loaded, then is slow.
    stage.store.hold_loads("alice");
    stage.store.inner.fail_next(1);
    stage.chat(&mut alice, "alice", "doubt");
    assert_eq!(stage.messages(&alice), [REFUSED]);
    stage.send(&mut alice, message("bob", "m"));
    stage.advance(Duration::from_secs(4));
    stage.store.hold("alice");
    stage.store.release_loads("alice");
    stage.advance(Duration::from_secs(4));
    stage.store.hold_loads("bob");
    stage.store.hold("bob");
    stage.store.release("alice");
    let (messages, took) = until_answered(&mut stage, &alice);
    assert_eq!((messages, took), (vec![REFUSED.to_owned()], Duration::from_secs(2)));
    stage.store.release_loads("bob");
    stage.advance(Duration::from_secs(4));
    stage.store.release("bob");
    stage.run();
    let downs = stage.told(&alice);
    assert!(!downs.iter().any(|down| matches!(down, Down::Stanza { .. })), "{downs:?}");
}

#[test]
fn a_receipt_does_not_wait_for_a_doubt() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.store.hold("bob");
    stage.chat(&mut alice, "bob", "confirmed");
    stage.store.hold_loads("alice");
    stage.store.inner.fail_next(1);
    stage.chat(&mut alice, "alice", "in doubt");
    assert_eq!(stage.messages(&alice), [REFUSED]);
    stage.store.release("bob");
    stage.run();
    assert_eq!(stage.messages(&bob), ["confirmed"]);
    assert_eq!(stage.handled(&alice), (3, vec![]));
}
