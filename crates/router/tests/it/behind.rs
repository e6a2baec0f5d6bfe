//! What stands behind something that was refused is refused with it, whichever of them the store has answered first: its client
//! says all of it again, and in that order it is to be in the log (promise 4).

use crate::bench::chat;
use crate::site::{Mood, Site};
use crate::stage::Stage;
use starling_wire::Up;
use starling_xmpp::{Element, Stanza, ns};
use std::time::Duration;

const REFUSED: &str = "!resource-constraint wait";

fn message(text: &str) -> Stanza {
    chat("bob@localhost", text).child(Element::new(ns::SID, "origin-id").attr("id", text))
}

/// The refusal is known, and waits for the answer to what was decided before.
#[test]
fn nothing_is_written_behind_what_is_known_to_have_failed() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.store.hold("alice");
    stage.send(&mut alice, message("0"));
    stage.run();
    stage.store.inner.overload_next(1);
    stage.send(&mut alice, message("1"));
    stage.run();
    stage.store.answer("alice", 1);
    stage.run();
    stage.send(&mut alice, message("2"));
    stage.run();
    assert_eq!(stage.store.commits("alice").len(), 2);
    stage.store.release("alice");
    stage.run();
    assert_eq!(stage.messages(&alice), [REFUSED; 2]);
    assert_eq!((stage.messages(&bob), stage.rows("alice")), (vec!["0".to_owned()], vec!["0".to_owned()]));
    stage.say(&alice, Up::Gone(starling_wire::Leave::Lost));
    let mut alice = stage.client("alice");
    for text in ["1", "2"] {
        stage.send(&mut alice, message(text));
    }
    stage.run();
    assert_eq!(stage.messages(&bob), ["1", "2"]);
    assert_eq!(stage.rows("bob"), ["0", "1", "2"]);
}

/// A session is recorded together with the first message. Its commit and the next one's come back in time, the record does not.
#[test]
fn what_came_back_in_time_is_not_confirmed_behind_what_did_not() {
    let mut site = Site::new(1);
    let (mut alice, bob) = (site.managed(0, "alice", "phone"), site.client(0, "bob", "phone"));
    let shard = usize::from(site.shard("alice").0);
    site.books[shard].next(Mood::Late);
    site.post(&mut alice, "bob", "0");
    site.connect(0, "alice", "desk");
    site.run();
    site.chat(&mut alice, "bob", "1");
    assert!(site.messages(&bob).is_empty(), "it waits for the record");
    site.end_lease("alice");
    site.advance(Duration::from_secs(2));
    site.books[shard].calm();
    site.run();
    site.renew_lease("alice");
    site.advance(Duration::from_secs(5));
    assert_eq!((site.messages(&bob), site.messages(&alice)), (vec![], vec![REFUSED.to_owned(); 2]));
}

/// It has no place, and its answer follows what was decided before it: that fails, and what followed it with it.
#[test]
fn what_has_no_place_is_refused_once() {
    let mut site = Site::new(1);
    let (mut alice, bob) = (site.managed(0, "alice", "phone"), site.client(0, "bob", "phone"));
    site.store.hold();
    site.send(&mut alice, message("0"));
    site.decide();
    site.grant("alice", false);
    site.send(&mut alice, message("1"));
    site.decide();
    site.grant("alice", true);
    site.store.drop_held();
    site.run();
    assert_eq!((site.messages(&bob), site.messages(&alice)), (vec![], vec![REFUSED.to_owned(); 2]));
}

/// The same where what has failed waits for its record.
#[test]
fn nothing_is_written_behind_what_has_failed_and_waits_for_its_record() {
    let mut site = Site::new(1);
    let (mut alice, bob) = (site.managed(0, "alice", "phone"), site.client(0, "bob", "phone"));
    let shard = usize::from(site.shard("alice").0);
    site.books[shard].next(Mood::Late);
    site.store.overload_next(1);
    site.send(&mut alice, message("0"));
    site.connect(0, "alice", "desk");
    site.run();
    site.send(&mut alice, message("1"));
    site.run();
    site.books[shard].calm();
    site.run();
    assert_eq!((site.messages(&bob), site.messages(&alice)), (vec![], vec![REFUSED.to_owned(); 2]));
    for text in ["0", "1"] {
        site.send(&mut alice, message(text));
    }
    site.run();
    assert_eq!(
        (site.messages(&bob), site.rows("alice")),
        (vec!["0".into(), "1".into()], vec!["0".into(), "1".into()])
    );
}
