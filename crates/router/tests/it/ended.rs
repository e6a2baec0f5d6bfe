//! Sessions that are over: what their clients have acknowledged does not come again, whoever is lost (promise 3).

use crate::site::Site;
use starling_wire::{Leave, Up};
use std::time::Duration;

/// Its home is lost before the store has the cursor: the edge still knows, and tells the next home.
#[test]
fn what_was_acknowledged_before_the_end_does_not_come_again() {
    for linked in [true, false] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        site.chat(&mut alice, "bob", "once");
        assert_eq!(site.messages(&bob), ["once"]);
        site.store.hold();
        site.say(&bob, Up::Acknowledged { handled: 1 });
        site.say(&bob, Up::Gone(Leave::Closed));
        site.run();
        assert!(site.kept(1) > 0, "nobody else knows");
        if linked {
            // The cursor is on its way, and its answer comes.
            site.store.release();
            site.run();
            assert_eq!(site.kept(1), 0, "it is told as soon as the store does");
        } else {
            site.crash("bob");
            site.store.drop_held();
            site.store.release();
            let shard = site.shard("bob");
            site.begin(shard);
            site.run();
        }
        let bob = site.client(0, "bob", "desk");
        site.advance(Duration::from_secs(6));
        assert_eq!(site.messages(&bob), [""; 0]);
        assert_eq!(site.kept(1), 0);
    }
}

/// Its home ends it, and its socket goes after that.
#[test]
fn what_a_session_had_acknowledged_that_was_replaced_is_remembered_too() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.chat(&mut alice, "bob", "once");
    site.store.hold();
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.run();
    let other = site.connect(0, "bob", "phone");
    site.run();
    site.say(&bob, Up::Gone(Leave::Lost));
    site.run();
    assert!(site.kept(1) > 0);
    site.store.release();
    site.run();
    assert_eq!(site.kept(1), 0);
    assert!(site.is_there(&other));
}

/// It has ended, and waits for a receipt of another shard.
#[test]
fn its_edge_forgets_it_as_soon_as_its_last_message_has_its_receipt() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.chat(&mut alice, "bob", "once");
    site.close_post("alice", true);
    site.chat(&mut bob, "alice", "answer");
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.say(&bob, Up::Gone(Leave::Closed));
    site.advance(Duration::from_secs(3));
    assert!(site.kept(1) > 0, "it has yet to be sent");
    site.close_post("alice", false);
    site.advance(Duration::from_secs(4));
    assert_eq!(site.kept(1), 0);
    assert_eq!(site.messages(&alice), ["answer"]);
}
