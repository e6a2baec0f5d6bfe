//! Mistakes in modules and stores: what they cost is one home, or one answer.

use crate::bench::{POISON, chat};
use crate::site::Site;
use crate::stage::{Client, Stage};
use starling_wire::Down;
use starling_xmpp::{Element, Stanza, ns};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A message that its client can send again.
fn marked(to: &str, text: &str) -> Stanza {
    chat(&format!("{to}@localhost"), text).child(Element::new(ns::SID, "origin-id").attr("id", text))
}

fn is_closed(stage: &Stage, client: &Client) -> bool {
    stage.told(client).iter().any(|down| matches!(down, Down::Close(Some(_))))
}

#[test]
fn a_panic_at_a_deadline_costs_one_account_its_home() {
    let mut site = Site::new(2);
    let mut bob = site.client(0, "bob", "phone");
    let mut alice = site.managed(0, "alice", "phone");
    let desk = site.managed(1, "alice", "desk");
    // What the account was asked waits for an edge that is silent, until it is waited for no longer.
    site.cut(1);
    site.succeed("alice");
    site.post(&mut alice, "bob", POISON);
    site.run();
    assert!(site.told(&alice).iter().all(|down| !matches!(down, Down::Close(_))));
    site.advance(2 * SECOND);
    assert!(site.told(&alice).iter().any(|down| matches!(down, Down::Close(Some(_)))), "its session ends");
    site.chat(&mut bob, "carol", "nobody else has noticed");
    assert_eq!(site.rows("carol"), ["nobody else has noticed"]);
    let mut alice = site.client(0, "alice", "tablet");
    site.chat(&mut alice, "bob", "again");
    assert_eq!(site.messages(&bob), ["again"]);
    drop(desk);
}

#[test]
fn what_a_session_says_again_after_a_panic_is_known() {
    let mut stage = Stage::new();
    // Nothing of the reign's beginning counts any more.
    stage.advance(Duration::from_secs(3_600));
    let mut alice = stage.client("alice");
    stage.send(&mut alice, marked("bob", "one"));
    stage.run();
    stage.send(&mut alice, chat("bob@localhost", POISON));
    stage.run();
    assert!(is_closed(&stage, &alice));
    let mut alice = stage.device("alice", "tablet");
    stage.send(&mut alice, marked("bob", "one"));
    stage.run();
    assert_eq!((stage.rows("alice"), stage.rows("bob")), (vec!["one".to_owned()], vec!["one".to_owned()]));
}

#[test]
fn a_load_that_panics_is_one_that_fails() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    stage.store.panic_at_load();
    stage.chat(&mut alice, "bob", "one");
    assert_eq!(stage.messages(&alice), ["!resource-constraint wait"], "it is told at once");
    stage.reads(&alice);
    stage.chat(&mut alice, "bob", "two");
    assert_eq!((stage.handled(&alice).0, stage.rows("bob")), (3, vec!["two".to_owned()]));
}

#[test]
fn a_commit_that_panics_is_one_that_is_not_confirmed() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let bob = stage.client("bob");
    stage.store.panic_at_commit();
    stage.chat(&mut alice, "bob", "one");
    assert_eq!(stage.messages(&alice), ["!resource-constraint wait"]);
    stage.reads(&alice);
    stage.chat(&mut alice, "bob", "two");
    assert_eq!(stage.messages(&bob), ["two"]);
}
