//! The table of locations is lost with the disks of all routers.

use crate::site::{Mood, Site};
use starling_wire::Down;
use starling_xmpp::{Jid, PresenceType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The disks of all routers are lost, and with them who is where: what edges hold is believed.
#[test]
fn sessions_outlive_the_table_of_locations() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    // It has moved before, and loses its socket while there is no home.
    let bob = site.resume(&bob, 0, 0);
    site.run();
    assert!(site.told(&bob).iter().any(|down| matches!(down, Down::Resumed { .. })));
    site.lose_table();
    site.lose(&bob);
    site.chat(&mut alice, "bob", "one");
    let bob = site.resume(&bob, 1, 0);
    site.advance(Duration::from_secs(1));
    assert_eq!(site.messages(&bob), ["one"]);
    assert_eq!(site.handled(&alice), 2);
    let recorded: usize = site.books.iter().map(|book| book.edges().len()).sum();
    assert_eq!(recorded, 2);
    // The next home finds them as any others.
    site.succeed("bob");
    site.chat(&mut alice, "bob", "two");
    site.advance(Duration::from_secs(1));
    assert_eq!(site.messages(&bob), ["two"]);
    assert_eq!((site.kept(0), site.kept(1)), (1, 1));
}

/// The same where the client had gone on elsewhere, at an edge that is lost with them.
#[test]
fn what_an_edge_kept_is_not_asked_for_for_ever() {
    for moves in 0..2 {
        let mut site = Site::new(3);
        let mut alice = site.managed(2, "alice", "phone");
        let first = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "0");
        assert_eq!(site.messages(&first).len(), 1);
        // That edge does not learn of it.
        site.cut(0);
        let second = site.resume(&first, 1, 1);
        site.run();
        // Of these there are no rows.
        let to = Jid::parse("bob@localhost/phone").unwrap();
        for _ in 0..3 {
            site.send(&mut alice, Stanza::presence(PresenceType::Available).to(to.clone()));
        }
        site.run();
        site.chat(&mut alice, "bob", "1");
        let had = site.told(&second).iter().filter(|down| matches!(down, Down::Stanza { .. })).count();
        assert_eq!(had, 4);
        site.advance(3 * SECOND);
        site.kill_edge(1);
        site.lose_table();
        site.link(0);
        site.advance(SECOND);
        for _ in 0..moves {
            site.succeed("bob");
            site.advance(SECOND);
        }
        let third = site.resume(&second, 2, 5);
        site.advance(SECOND);
        let downs = site.told(&third);
        assert!(matches!(downs.first(), Some(Down::NotResumed)), "{moves} moves: {downs:?}");
        site.advance(SECOND);
        assert_eq!((site.kept(0), site.books.iter().map(|book| book.edges().len()).sum()), (0, 1_usize));
        // What was not acknowledged is not lost with it.
        let mut bob = site.connect(2, "bob", "phone");
        site.run();
        site.send(&mut bob, Stanza::presence(PresenceType::Available));
        site.run();
        assert_eq!(site.messages(&bob), ["1"]);
    }
}

/// It had moved, and the table of locations is made anew, in parts: between them it is not taken for one that is elsewhere.
#[test]
fn a_session_is_not_over_while_it_is_recorded_in_parts() {
    let mut site = Site::new(2);
    let bob = site.managed(1, "bob", "phone");
    let bob = site.resume(&bob, 0, 0);
    site.run();
    let shard = site.shard("bob");
    site.lose_table_of(&[shard]);
    // Somebody looks at the account in between.
    site.cut(1);
    site.link(1);
    site.advance(Duration::from_millis(500));
    assert_eq!(site.kept(0), 1);
    site.books[usize::from(shard.0)].calm();
    site.advance(Duration::from_secs(1));
    site.lose(&bob);
    let bob = site.resume(&bob, 1, 0);
    site.advance(Duration::from_secs(1));
    assert!(site.told(&bob).iter().any(|down| matches!(down, Down::Resumed { .. })));
}

/// It could not be recorded again in time, and its client has bound its address anew: it does not get the row of that one.
#[test]
fn a_session_that_is_over_takes_no_row() {
    let mut site = Site::new(2);
    let mut alice = site.managed(1, "alice", "phone");
    let bob = site.managed(0, "bob", "phone");
    let shard = site.shard("bob");
    site.books[usize::from(shard.0)].next(Mood::Lost);
    site.lose_table();
    site.advance(Duration::from_secs(6));
    // The account is open without it, and says so.
    assert!(site.told(&bob).iter().any(|down| matches!(down, Down::Close(_))));
    let mut bob = site.managed(0, "bob", "phone");
    site.books[usize::from(shard.0)].calm();
    site.advance(SECOND);
    site.succeed("bob");
    site.advance(SECOND);
    site.send(&mut bob, Stanza::presence(PresenceType::Available));
    site.chat(&mut alice, "bob", "one");
    site.advance(SECOND);
    assert_eq!(site.messages(&bob), ["one"]);
    assert_eq!(site.books[usize::from(shard.0)].edges(), [("bob@localhost/phone".to_owned(), 1)]);
}
