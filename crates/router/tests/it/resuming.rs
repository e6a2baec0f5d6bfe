//! Sessions go on over other edges: how soon, and what homes know of them then.

use crate::bench::{body, chat};
use crate::site::Site;
use starling_node::Clock;
use starling_router::RouterConfig;
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Element, Kind, PresenceType, Stanza, ns};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// What its client waits for after the edge of a session was killed, so long after a new home has begun.
fn waits(after: Duration) -> Duration {
    let mut site = Site::new(2);
    site.lively = true;
    let mut alice = site.managed(0, "alice", "phone");
    site.chat(&mut alice, "bob", "1");
    site.succeed("alice");
    site.advance(after);
    site.kill_edge(0);
    site.told(&alice);
    let alice = site.resume(&alice, 1, 0);
    let start = site.clock.monotonic();
    loop {
        site.advance(Duration::from_millis(10));
        let waited = site.clock.monotonic() - start;
        if site.told(&alice).iter().any(|down| matches!(down, Down::Resumed { .. })) {
            return waited;
        }
        assert!(waited < Duration::from_secs(10), "never");
    }
}

#[test]
fn nobody_waits_for_an_edge_that_has_said_all_to_a_new_home() {
    for after in [5_000, 2_500] {
        let waited = waits(Duration::from_millis(after));
        assert!(waited <= Duration::from_millis(100), "{waited:?} when killed after {after} ms");
    }
    let waited = waits(Duration::from_millis(100));
    assert!(waited <= Duration::from_millis(2_100), "{waited:?}");
}

#[test]
fn what_another_session_left_behind_does_not_follow_what_is_newer() {
    // How often the home is another one after the resumption, and whether its edge is sent something over the new connection.
    for (homes, more) in [(0, false), (1, false), (2, false), (1, true)] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let (phone, mut tablet) = (site.managed(0, "bob", "phone"), site.managed(0, "bob", "tablet"));
        site.send(&mut alice, chat("bob@localhost/tablet", "older"));
        site.send(&mut alice, chat("bob@localhost/phone", "newer"));
        site.run();
        let downs = site.told(&phone);
        let count = downs.iter().filter(|down| matches!(down, Down::Stanza { counts: true, .. })).count();
        assert!(matches!(downs.last(), Some(Down::Stanza { stanza, .. }) if body(stanza) == "newer"));
        site.lose(&phone);
        let phone = site.resume(&phone, 1, u32::try_from(count).unwrap());
        site.run();
        if more {
            site.send(&mut alice, chat("bob@localhost/phone", "newest"));
            site.run();
            assert_eq!(site.messages(&phone), ["newest"]);
        }
        for _ in 0..homes {
            site.succeed("bob");
            // Somebody needs the account.
            site.chat(&mut tablet, "alice", "");
        }
        site.told(&phone);
        site.say(&tablet, Up::Gone(Leave::Closed));
        site.advance(SECOND);
        assert!(site.messages(&phone).is_empty(), "{homes} {more}: it is older");
        site.say(&phone, Up::Gone(Leave::Closed));
        site.run();
        let mut next = site.connect(0, "bob", "next");
        site.run();
        site.send(&mut next, Stanza::presence(PresenceType::Available));
        site.run();
        assert_eq!(site.messages(&next).first().map(String::as_str), Some("older"));
    }
}

#[test]
fn nor_when_it_has_been_away_in_between() {
    for homes in 0..3 {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let (mut phone, mut tablet) = (site.managed(0, "bob", "phone"), site.managed(0, "bob", "tablet"));
        site.send(&mut alice, chat("bob@localhost/tablet", "older"));
        site.send(&mut alice, chat("bob@localhost/phone", "newer"));
        site.run();
        assert_eq!(site.messages(&phone), ["newer"]);
        site.send(&mut phone, Stanza::presence(PresenceType::Unavailable));
        site.run();
        for _ in 0..homes {
            site.succeed("bob");
            site.chat(&mut tablet, "alice", "");
        }
        site.say(&tablet, Up::Gone(Leave::Closed));
        site.run();
        site.send(&mut phone, Stanza::presence(PresenceType::Available));
        site.advance(SECOND);
        assert!(site.messages(&phone).is_empty(), "{homes}: it is older");
        site.chat(&mut alice, "bob", "newest");
        assert_eq!(site.messages(&phone), ["newest"]);
    }
}

#[test]
fn the_edge_before_may_forget_a_session_whose_new_edge_was_cut_off_as_it_came() {
    for count in 0..8 {
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let old = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "one");
        site.lose(&old);
        let new = site.resume(&old, 1, 0);
        for _ in 0..4 {
            site.decide();
        }
        // So much of what the home says arrives, and nothing that the edge says to that.
        site.deaf = true;
        site.deliver_only(count);
        site.cut(1);
        site.deaf = false;
        site.link(1);
        site.run();
        let downs = site.told(&new);
        assert!(downs.iter().any(|down| matches!(down, Down::Resumed { .. })), "{count}: {downs:?}");
        site.chat(&mut alice, "bob", "two");
        assert_eq!(site.messages(&new), ["two"], "{count}");
        assert_eq!((site.kept(0), site.kept(1)), (0, 1), "{count}");
    }
}

#[test]
fn what_was_acknowledged_does_not_come_again_when_home_and_edge_are_lost_at_once() {
    // So much of what the home says to the resumption arrives before both are lost.
    for (count, acknowledged) in (0..8).flat_map(|count| [(count, 0), (count, 1), (count, 2)]) {
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let mut tablet = site.client(2, "bob", "tablet");
        let old = site.managed(0, "bob", "phone");
        for text in ["one", "two"] {
            site.send(&mut alice, chat("bob@localhost/phone", text));
        }
        site.run();
        assert_eq!(site.messages(&old), ["one", "two"]);
        site.say(&old, Up::Acknowledged { handled: acknowledged });
        site.advance(3 * SECOND);
        site.lose(&old);
        let new = site.resume(&old, 1, 2);
        for _ in 0..4 {
            site.decide();
        }
        site.deliver_only(count);
        let is_resumed = site.told(&new).iter().any(|down| matches!(down, Down::Resumed { .. }));
        site.kill_edge(0);
        site.succeed("bob");
        site.chat(&mut tablet, "alice", "");
        site.advance(10 * SECOND);
        site.send(&mut alice, chat("bob@localhost/phone", "three"));
        site.advance(10 * SECOND);
        let messages = site.messages(&new);
        if is_resumed {
            assert_eq!(messages, ["three"], "{count} {acknowledged}");
        }
    }
}

/// The bodies of what a client was told.
fn bodies(downs: Vec<Down>) -> Vec<String> {
    let message = |down: &Down| match down {
        Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Message(_)) => Some(body(stanza)),
        _ => None,
    };
    downs.iter().filter_map(message).collect()
}

#[test]
fn nor_where_more_waits_than_there_is_room_for() {
    let mut covered = 0;
    for count in 0..8 {
        let mut site = Site::with(3, RouterConfig { window: 2, ..RouterConfig::default() });
        let mut alice = site.client(2, "alice", "phone");
        let mut tablet = site.client(2, "bob", "tablet");
        let old = site.managed(0, "bob", "phone");
        for text in ["1", "2", "3", "4", "5"] {
            site.send(&mut alice, chat("bob@localhost/phone", text));
        }
        site.run();
        site.say(&old, Up::Acknowledged { handled: 2 });
        site.advance(3 * SECOND);
        site.lose(&old);
        // With nothing newly acknowledged.
        let new = site.resume(&old, 1, 2);
        for _ in 0..4 {
            site.decide();
        }
        site.deliver_only(count);
        let mut downs = site.told(&new);
        if !downs.iter().any(|down| matches!(down, Down::Resumed { .. })) {
            continue;
        }
        covered += 1;
        site.kill_edge(0);
        site.succeed("bob");
        site.chat(&mut tablet, "alice", "");
        site.advance(10 * SECOND);
        site.say(&new, Up::Acknowledged { handled: 4 });
        site.advance(10 * SECOND);
        downs.extend(site.told(&new));
        assert_eq!(bodies(downs), ["3", "4", "5"], "{count}");
    }
    assert!(covered > 3, "{covered}");
}

#[test]
fn nor_where_something_is_in_doubt() {
    let mut covered = 0;
    for (count, saved) in (0..8).flat_map(|count| [(count, false), (count, true)]) {
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let mut tablet = site.client(2, "bob", "tablet");
        let old = site.managed(0, "bob", "phone");
        for text in ["one", "two"] {
            site.send(&mut alice, chat("bob@localhost/phone", text));
        }
        site.run();
        site.say(&old, Up::Acknowledged { handled: 2 });
        if saved {
            site.advance(3 * SECOND);
        }
        site.store.doubt_next(1);
        site.store.fail_next_reads(1);
        site.send(&mut tablet, chat("bob@localhost/phone", "doubtful"));
        site.run();
        site.lose(&old);
        let new = site.resume(&old, 1, 2);
        for _ in 0..4 {
            site.decide();
        }
        site.deliver_only(count);
        let mut downs = site.told(&new);
        if !downs.iter().any(|down| matches!(down, Down::Resumed { .. })) {
            continue;
        }
        covered += 1;
        site.kill_edge(0);
        site.succeed("bob");
        site.chat(&mut tablet, "alice", "");
        site.advance(10 * SECOND);
        site.send(&mut alice, chat("bob@localhost/phone", "three"));
        site.advance(10 * SECOND);
        downs.extend(site.told(&new));
        assert_eq!(bodies(downs), ["doubtful", "three"], "{count} {saved}");
    }
    assert!(covered > 3, "{covered}");
}

#[test]
fn who_asks_once_more_is_told_that_it_is_bound_before_anything_else() {
    let mut site = Site::new(2);
    let mut alice = site.client(1, "alice", "phone");
    let bob = site.connect(0, "bob", "phone");
    for _ in 0..4 {
        site.decide();
    }
    // It was bound, and the answer is lost.
    site.forget_downs();
    site.send(&mut alice, chat("bob@localhost/phone", "one"));
    site.decide();
    site.cut(0);
    let Some((shard, item)) = site.mail().pop_front() else { panic!("nothing was sent") };
    site.hand_mail(shard, item);
    site.link(0);
    site.run();
    let downs = site.told(&bob);
    assert!(matches!(downs.first(), Some(Down::Bound { .. })), "{downs:?}");
}

#[test]
fn who_was_to_acknowledge_over_a_link_that_broke_is_asked_again() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.post(&mut alice, "bob", "one");
    for _ in 0..4 {
        site.decide();
        let mail: Vec<_> = site.mail().drain(..).collect();
        for (shard, item) in mail {
            site.hand_mail(shard, item);
        }
    }
    // It goes to a link that is gone, and so does the question.
    site.cut(1);
    site.run();
    site.link(1);
    site.run();
    let asked = |downs: &[Down]| downs.iter().any(|down| matches!(down, Down::RequestAck));
    assert!(asked(&site.told(&bob)), "or it would be taken for dead");
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.advance(120 * SECOND);
    let downs = site.told(&bob);
    assert!(!downs.iter().any(|down| matches!(down, Down::Close(_))), "{downs:?}");
}

#[test]
fn a_session_that_was_not_all_there_waits_for_the_edge_before() {
    for is_slow in [false, true] {
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let mut tablet = site.client(2, "bob", "tablet");
        let old = site.managed(0, "bob", "phone");
        for text in ["one", "two"] {
            site.send(&mut alice, chat("bob@localhost/phone", text));
        }
        // Its edge is told now that it was given all that there is.
        site.say(&old, Up::EnableSm { resume: true, max: None });
        site.advance(3 * SECOND);
        assert_eq!(site.messages(&old), ["one", "two"]);
        site.lose(&old);
        let new = site.resume(&old, 1, 0);
        for _ in 0..4 {
            site.decide();
        }
        // The answer arrives, and nothing after it.
        site.deliver_only(2);
        assert!(site.told(&new).iter().any(|down| matches!(down, Down::Resumed { .. })));
        if is_slow {
            site.cut(0);
        }
        site.succeed("bob");
        site.chat(&mut tablet, "alice", "");
        site.advance(SECOND);
        site.send(&mut alice, chat("bob@localhost/phone", "three"));
        site.run();
        if is_slow {
            assert!(site.messages(&new).is_empty(), "it has yet to be sent what is older");
            site.link(0);
        }
        site.advance(SECOND);
        assert_eq!(site.messages(&new), ["one", "two", "three"], "{is_slow}");
    }
}

/// Its client has given up to resume elsewhere, before it had an answer: that is no place where the next home finds it.
#[test]
fn who_did_not_wait_for_the_answer_is_where_it_was() {
    for (steps, cut) in (0..6).flat_map(|steps| [(steps, false), (steps, true)]) {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let old = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "one");
        assert_eq!(site.messages(&old), ["one"]);
        site.lose(&old);
        let new = site.resume(&old, 1, 0);
        for _ in 0..4 {
            site.decide();
        }
        // The answer is on its way, or lost with the link.
        if cut {
            site.cut(1);
        }
        site.lose(&new);
        if cut {
            site.link(1);
            site.run();
        }
        let back = site.resume(&new, 0, 0);
        for _ in 0..steps {
            site.decide();
        }
        site.forget_downs();
        site.succeed("bob");
        site.advance(10 * SECOND);
        let downs = site.told(&back);
        assert!(matches!(downs.first(), Some(Down::Resumed { .. })), "{steps} {cut}: {downs:?}");
        site.chat(&mut alice, "bob", "two");
        assert_eq!(site.messages(&back).last().map(String::as_str), Some("two"));
    }
}

#[test]
fn who_came_online_as_its_home_was_lost_gets_copies() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let phone = site.client(0, "bob", "phone");
    let mut desk = site.connect(1, "bob", "desk");
    site.run();
    site.post(&mut alice, "bob", "one");
    site.decide();
    let mail: Vec<_> = site.mail().drain(..).collect();
    assert!(!mail.is_empty());
    site.store.hold();
    for (shard, item) in mail {
        site.hand_mail(shard, item);
    }
    site.decide();
    // It is decided, and its edge remembers that; what follows from it waits for the message.
    let priority = Element::new(ns::CLIENT, "priority").text("-1");
    site.send(&mut desk, Stanza::presence(PresenceType::Available).child(priority));
    site.run();
    site.crash("bob");
    site.store.release();
    let shard = site.shard("bob");
    site.begin(shard);
    site.advance(SECOND);
    assert_eq!(site.messages(&phone), ["one"]);
    assert_eq!(site.messages(&desk), ["copy"]);
}

/// An account opens, and what waits for its log does so longer than who has asked for its sessions.
#[test]
fn who_asked_before_its_session_was_built_does_not_take_it_later() {
    for repeats in [false, true] {
        let mut site = Site::new(3);
        let mut bob = site.client(1, "bob", "phone");
        let mut phone = site.managed(0, "alice", "phone");
        let _desk = site.managed(2, "alice", "desk");
        site.chat(&mut bob, "alice", "one");
        // It is waited for.
        site.cut(2);
        site.post(&mut phone, "bob", "said again");
        site.succeed("alice");
        site.say(&phone, Up::Gone(Leave::Lost));
        let first = site.resume(&phone, 0, 0);
        site.run();
        site.store.fail_next_reads(1);
        site.advance(Duration::from_millis(400));
        if repeats {
            site.cut(0);
            site.link(0);
            site.run();
        }
        site.lose(&first);
        let second = site.resume(&first, 1, 0);
        site.advance(6 * SECOND);
        let told = site.told(&second);
        assert!(matches!(told.first(), Some(Down::Resumed { .. })), "{repeats} {told:?}");
        assert!(
            !told.iter().any(|down| matches!(down, Down::Close(_) | Down::Released)),
            "{repeats} {told:?}"
        );
        site.chat(&mut bob, "alice", "two");
        assert_eq!(site.messages(&second).last().map(String::as_str), Some("two"), "{repeats}");
    }
}
