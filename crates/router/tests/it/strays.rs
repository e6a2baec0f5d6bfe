//! Sessions that are not where somebody believes, or not any more.

use crate::site::{Mood, Site};
use starling_wire::{Down, Leave, Up};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Without a lease nobody knows whether the session is elsewhere by now.
#[test]
fn a_home_that_has_been_succeeded_resumes_nothing() {
    let mut site = Site::new(2);
    let alice = site.managed(0, "alice", "phone");
    // Edge 0 has not heard of the next home.
    site.usurp("alice", &[0]);
    site.run();
    site.clock.advance(2 * SECOND);
    site.run();
    site.say(&alice, Up::Gone(Leave::Lost));
    let again = site.resume(&alice, 0, 0);
    site.run();
    let told = site.told(&again);
    assert!(!told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
    assert!(told.iter().any(|down| matches!(down, Down::Close(_))), "it comes back: {told:?}");
    // Which it does, to the next home.
    site.bury();
    site.run();
    let again = site.resume(&again, 0, 0);
    site.advance(2 * SECOND);
    let told = site.told(&again);
    assert!(told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
}

/// What was lost with the table is recorded anew, once: should nobody know whether it was, and the session have moved on, that
/// is where it is.
#[test]
fn what_is_recorded_anew_does_not_come_back_behind_a_move() {
    let mut site = Site::new(2);
    let alice = site.managed(0, "alice", "phone");
    let shard = usize::from(site.shard("alice").0);
    for book in &site.books {
        book.next(Mood::Unknown);
    }
    site.lose_table();
    site.run();
    site.lose(&alice);
    let alice = site.resume(&alice, 1, 0);
    site.run();
    site.advance(2 * SECOND);
    let told = site.told(&alice);
    assert!(told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
    let edge = site.edge(1).0;
    assert_eq!(site.books[shard].edges(), [("alice@localhost/phone".to_owned(), edge)]);
}
