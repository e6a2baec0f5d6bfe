//! Sessions go on when their home moves, when links break, and over another edge.

use crate::bench::body;
use crate::site::{Client, Site};
use starling_router::RecordError;
use starling_wire::{Down, Leave, Token, Up};
use starling_xmpp::{Element, IqType, Jid, MessageType, PresenceType, Stanza, ns};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_session_goes_on_in_the_next_reign() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    for n in 0..3 {
        site.chat(&mut alice, "bob", &format!("before {n}"));
    }
    assert_eq!(site.messages(&bob), ["before 0", "before 1", "before 2"]);
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.succeed("bob");
    assert!(site.told(&bob).is_empty(), "nobody is told anything");
    site.chat(&mut alice, "bob", "after");
    assert_eq!(site.messages(&bob), ["after"], "it is available, and nothing comes twice");
    assert_eq!(site.handled(&alice), 5);
    site.chat(&mut bob, "alice", "answer");
    assert_eq!(site.messages(&alice), ["answer"]);
    // What was not acknowledged is kept over it.
    site.lose(&bob);
    let bob = site.resume(&bob, 0, 2);
    site.run();
    assert_eq!(site.messages(&bob), ["before 2", "after"]);
    site.say(&bob, Up::Acknowledged { handled: 4 });
    site.advance(5 * SECOND);
    assert!(site.saved > 0);
    // And what was acknowledged is not sent to the next session.
    site.say(&bob, Up::Gone(Leave::Closed));
    site.run();
    let mut tablet = site.connect(0, "bob", "tablet");
    site.run();
    site.send(&mut tablet, Stanza::presence(PresenceType::Available));
    site.run();
    assert!(site.messages(&tablet).is_empty());
    assert_eq!(site.kept(0) + site.kept(1), 2, "the edges have forgotten what is over");
}

#[test]
fn what_was_acknowledged_before_the_cursor_was_written_does_not_come_again() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(0, "bob", "phone");
    for n in 0..4 {
        site.chat(&mut alice, "bob", &format!("{n}"));
    }
    assert_eq!(site.messages(&bob).len(), 4);
    site.say(&bob, Up::Acknowledged { handled: 3 });
    site.run();
    site.succeed("bob");
    site.lose(&bob);
    let bob = site.resume(&bob, 0, 3);
    site.run();
    assert_eq!(site.messages(&bob), ["3"]);
    site.say(&bob, Up::Gone(Leave::Closed));
    site.run();
    let mut bob = site.connect(0, "bob", "tablet");
    site.run();
    site.send(&mut bob, Stanza::presence(PresenceType::Available));
    site.run();
    assert_eq!(site.messages(&bob), ["3"], "and only that");
}

#[test]
fn what_was_committed_and_not_delivered_is_delivered_once() {
    for restarts in 1..3 {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        site.chat(&mut alice, "bob", "first");
        assert_eq!(site.messages(&bob), ["first"]);
        // The edge of bob hears nothing more of this reign.
        site.cut(1);
        for n in 0..3 {
            site.chat(&mut alice, "bob", &format!("lost {n}"));
        }
        for _ in 0..restarts {
            site.succeed("bob");
        }
        site.link(1);
        site.run();
        assert!(site.messages(&bob).is_empty(), "the account is not touched yet");
        site.chat(&mut alice, "bob", "next");
        assert_eq!(site.messages(&bob), ["lost 0", "lost 1", "lost 2", "next"]);
        assert_eq!(site.rows("bob"), ["first", "lost 0", "lost 1", "lost 2", "next"]);
    }
}

#[test]
fn a_broken_link_loses_and_doubles_nothing() {
    for managed in [false, true] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let mut bob = if managed { site.managed(1, "bob", "phone") } else { site.client(1, "bob", "phone") };
        site.chat(&mut alice, "bob", "one");
        assert_eq!(site.messages(&bob), ["one"]);
        site.post(&mut alice, "bob", "on its way");
        site.post(&mut bob, "alice", "taken");
        site.decide();
        site.cut(1);
        site.post(&mut bob, "alice", "said to nobody");
        site.chat(&mut alice, "bob", "while it is cut");
        assert!(site.messages(&bob).is_empty());
        site.link(1);
        site.run();
        assert_eq!(site.messages(&bob), ["on its way", "while it is cut"], "managed: {managed}");
        assert_eq!(site.messages(&alice), ["taken", "said to nobody"]);
        site.chat(&mut bob, "alice", "last");
        assert_eq!((site.handled(&bob), site.messages(&alice)), (bob.sequence, vec!["last".to_owned()]));
        site.chat(&mut alice, "bob", "after");
        assert_eq!(site.messages(&bob), ["after"]);
        assert_eq!(site.rows("alice").len(), 7);
    }
}

#[test]
fn what_no_home_has_handled_comes_again_and_has_one_row() {
    for lost in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        site.post(&mut alice, "bob", "hello");
        if lost {
            // The home dies before it has read it.
            site.crash("alice");
        } else {
            // It has its rows at both ends; alice's edge does not learn of it.
            for _ in 0..4 {
                site.decide();
                let mail: Vec<_> = site.mail().drain(..).collect();
                for (shard, item) in mail {
                    site.hand_mail(shard, item);
                }
            }
            site.forget_downs();
            assert_eq!((site.rows("alice").len(), site.rows("bob").len()), (1, 1));
            site.crash("alice");
        }
        let shard = site.shard("alice");
        site.begin(shard);
        site.run();
        assert_eq!(site.handled(&alice), 2);
        assert_eq!(
            (site.rows("alice"), site.rows("bob")),
            (vec!["hello".to_owned()], vec!["hello".to_owned()])
        );
        if lost {
            assert_eq!(site.messages(&bob), ["hello"]);
        }
    }
}

#[test]
fn a_session_is_resumed_over_another_edge() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let old = site.managed(0, "bob", "phone");
    site.chat(&mut alice, "bob", "one");
    site.told(&old);
    assert_eq!(site.books[usize::from(site.shard("bob").0)].edges(), [("bob@localhost/phone".to_owned(), 1)]);
    let new = site.resume(&old, 1, 0);
    site.run();
    let downs = site.told(&new);
    assert!(matches!(downs.first(), Some(Down::Resumed { .. })), "{downs:?}");
    assert_eq!(site.books[usize::from(site.shard("bob").0)].edges(), [("bob@localhost/phone".to_owned(), 2)]);
    let downs = site.told(&old);
    assert!(matches!(downs[..], [Down::Close(Some(_))]), "{downs:?}");
    assert_eq!((site.kept(0), site.kept(1)), (1, 1), "alice's, and the one that goes on");
    // The home moves: the new edge has it all.
    site.succeed("bob");
    site.chat(&mut alice, "bob", "two");
    assert_eq!(site.messages(&new), ["two"]);
    site.say(&new, Up::Acknowledged { handled: 2 });
    site.run();
    assert!(site.messages(&new).is_empty());
}

#[test]
fn a_resumption_outlives_the_home_that_was_asked() {
    for steps in 0..3 {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let old = site.managed(0, "bob", "phone");
        for n in 0..3 {
            site.chat(&mut alice, "bob", &format!("{n}"));
        }
        assert_eq!(site.messages(&old).len(), 3);
        site.lose(&old);
        let new = site.resume(&old, 1, 1);
        for _ in 0..steps {
            site.decide();
        }
        site.forget_downs();
        site.succeed("bob");
        let downs = site.told(&new);
        assert!(matches!(downs.first(), Some(Down::Resumed { .. })), "{steps}: {downs:?}");
        let queued = downs.iter().filter(|down| matches!(down, Down::Stanza { .. })).count();
        assert_eq!(queued, 2, "{steps}: {downs:?}");
        site.chat(&mut alice, "bob", "next");
        assert_eq!(site.messages(&new), ["next"]);
        site.say(&new, Up::Acknowledged { handled: 4 });
        site.run();
        assert_eq!(site.kept(0), 1, "{steps}: the old edge has forgotten it");
    }
}

#[test]
fn what_was_acknowledged_by_resuming_never_comes_again() {
    for (alive, count) in [true, false].into_iter().flat_map(|alive| (0..9).map(move |count| (alive, count)))
    {
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let old = site.managed(0, "bob", "phone");
        for n in 0..5 {
            site.chat(&mut alice, "bob", &format!("{n}"));
        }
        assert_eq!(site.messages(&old).len(), 5);
        site.lose(&old);
        if !alive {
            site.kill_edge(0);
        }
        let new = site.resume(&old, 1, 3);
        for _ in 0..4 {
            site.decide();
        }
        // The home is lost while its answer is on its way.
        site.deliver_only(count);
        site.succeed("bob");
        site.advance(6 * SECOND);
        let downs = site.told(&new);
        let resumed = downs.iter().any(|down| matches!(down, Down::Resumed { .. }));
        assert!(resumed || !alive, "{alive} {count}: {downs:?}");
        if resumed {
            let bodies = downs.iter().filter_map(|down| match down {
                Down::Stanza { stanza, .. } => Some(body(stanza)),
                _ => None,
            });
            let bodies: Vec<_> = bodies.filter(|body| !body.is_empty()).collect();
            assert_eq!(bodies, ["3", "4"], "{alive} {count}");
            site.say(&new, Up::Acknowledged { handled: 5 });
            site.say(&new, Up::Gone(Leave::Closed));
            site.run();
            let next = site.client(2, "bob", "phone");
            assert!(site.messages(&next).is_empty(), "{alive} {count}: nothing waits");
        }
    }
}

#[test]
fn what_an_edge_keeps_of_long_ago_is_not_the_session() {
    for dead in [false, true] {
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let first = site.managed(0, "bob", "phone");
        // The first edge does not learn that it goes on elsewhere.
        site.cut(0);
        let second = site.resume(&first, 1, 0);
        site.run();
        for n in 0..3 {
            site.chat(&mut alice, "bob", &format!("{n}"));
        }
        assert_eq!(site.messages(&second).len(), 3);
        site.cut(1);
        site.succeed("bob");
        site.link(0);
        site.advance(SECOND / 2);
        let third = site.resume(&second, 0, 3);
        site.run();
        let downs = site.told(&third);
        assert!(
            matches!(downs.first(), Some(Down::Close(Some(_)))),
            "the second edge may yet come: {downs:?}"
        );
        if dead {
            site.advance(6 * SECOND);
        } else {
            site.link(1);
            site.run();
        }
        let third = site.resume(&second, 0, 3);
        site.advance(3 * SECOND);
        let downs = site.told(&third);
        match downs.first() {
            Some(Down::NotResumed) => assert!(dead),
            Some(Down::Resumed { .. }) => assert!(!dead),
            _ => panic!("{downs:?}"),
        }
        site.chat(&mut alice, "bob", "next");
        assert_eq!(site.messages(&third).len(), usize::from(!dead));
    }
}

#[test]
fn however_much_was_not_delivered_comes_in_order() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.cut(1);
    let most = 700;
    for n in 0..most {
        site.chat(&mut alice, "bob", &n.to_string());
    }
    site.succeed("bob");
    site.link(1);
    site.advance(SECOND);
    let mut got = Vec::new();
    while got.len() < most {
        let more = site.messages(&bob);
        assert!(!more.is_empty(), "{}", got.len());
        got.extend(more);
        site.say(&bob, Up::Acknowledged { handled: u32::try_from(got.len()).unwrap() });
        site.run();
    }
    assert!((0..most).map(|n| n.to_string()).eq(got), "all of them, each once");
    // What was never for it is not read again: alice has sent much, and was sent nothing.
    site.succeed("alice");
    site.chat(&mut alice, "bob", "last");
    assert_eq!(site.messages(&bob), ["last"]);
}

#[test]
fn what_the_edge_before_has_to_say_comes_before_the_client_says_it_again() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    // It has its rows at both ends, and nobody was told.
    site.post(&mut alice, "bob", "hello");
    for _ in 0..4 {
        site.decide();
        let mail: Vec<_> = site.mail().drain(..).collect();
        for (shard, item) in mail {
            site.hand_mail(shard, item);
        }
    }
    site.forget_downs();
    site.crash("alice");
    site.lose(&alice);
    let mut alice = site.resume(&alice, 1, 0);
    let shard = site.shard("alice");
    // The edge that is asked finds the home first.
    site.cut(0);
    site.begin(shard);
    site.decide();
    site.link(0);
    site.run();
    let resumed = site.told(&alice).into_iter().find_map(|down| match down {
        Down::Resumed { sequence, .. } => Some(sequence),
        _ => None,
    });
    // Its client need not say it again.
    assert_eq!(resumed, Some(2));
    alice.sequence = 2;
    site.chat(&mut alice, "bob", "next");
    assert_eq!(site.rows("alice"), ["hello", "next"]);
    assert_eq!(site.rows("bob"), ["hello", "next"]);
    assert_eq!(site.messages(&bob).last().map(String::as_str), Some("next"));
}

#[test]
fn a_resource_is_taken_over_by_a_session_of_another_edge() {
    let mut site = Site::new(2);
    let old = site.managed(0, "bob", "phone");
    let _new = site.client(1, "bob", "phone");
    let downs = site.told(&old);
    assert!(matches!(downs[..], [Down::Close(Some(_)), ..]), "{downs:?}");
    assert_eq!(site.books[usize::from(site.shard("bob").0)].edges(), [("bob@localhost/phone".to_owned(), 2)]);
    assert_eq!((site.kept(0), site.kept(1)), (0, 1));
}

#[test]
fn a_session_waits_for_its_client_when_its_edge_is_dead() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    let plain = site.client(1, "bob", "plain");
    site.told(&plain);
    site.kill_edge(1);
    site.chat(&mut alice, "bob", "while nobody knows");
    site.declare_dead(1);
    site.chat(&mut alice, "bob", "when it is dead");
    let bob = site.resume(&bob, 0, 0);
    site.run();
    let messages = site.messages(&bob);
    assert_eq!(messages, ["while nobody knows", "when it is dead"]);
    let rows = site.books[usize::from(site.shard("bob").0)].edges();
    assert_eq!(rows, [("bob@localhost/phone".to_owned(), 1)], "what cannot be resumed has ended");
}

#[test]
fn an_edge_that_was_not_dead_goes_on() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.cut(1);
    site.chat(&mut alice, "bob", "one");
    site.declare_dead(1);
    site.chat(&mut alice, "bob", "two");
    site.link(1);
    site.run();
    assert_eq!(site.messages(&bob), ["one", "two"]);
    site.say(&bob, Up::Acknowledged { handled: 2 });
    site.chat(&mut alice, "bob", "three");
    assert_eq!(site.messages(&bob), ["three"]);
}

#[test]
fn what_nobody_has_any_more_is_unbound() {
    let mut site = Site::new(2);
    let _alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    let _ = bob;
    site.kill_edge(1);
    site.succeed("bob");
    let book = site.books[usize::from(site.shard("bob").0)].clone();
    assert_eq!(book.edges().len(), 1);
    site.advance(4 * SECOND);
    assert_eq!(book.edges().len(), 1, "the edge may come back");
    site.advance(4 * SECOND);
    assert_eq!(book.edges(), []);
}

/// Thousands of contacts are to be told of each: not all in one turn.
#[test]
fn what_is_lost_with_an_edge_ends_at_a_pace() {
    const ALL: usize = 100;
    let mut site = Site::new(2);
    site.lively = true;
    let one = site.shard("n0");
    let names: Vec<_> =
        (0..).map(|n| format!("n{n}")).filter(|name| site.shard(name) == one).take(ALL).collect();
    for (nth, name) in names.iter().enumerate() {
        site.create(name);
        let resumable = nth % 2 == 0;
        let _ = if resumable { site.managed(1, name, "phone") } else { site.client(1, name, "phone") };
    }
    let book = site.books[usize::from(one.0)].clone();
    site.kill_edge(1);
    let mut passed = Duration::ZERO;
    for (left, before) in [(ALL / 2, 4 * SECOND), (0, 300 * SECOND)] {
        site.advance(before - passed);
        passed = before;
        let mut there = book.edges().len();
        assert_eq!(there, left + ALL / 2);
        while there > left {
            site.advance(Duration::from_millis(10));
            passed += Duration::from_millis(10);
            let now = book.edges().len();
            assert!(there - now <= 8, "{} end at once", there - now);
            there = now;
            assert!(passed < before + 10 * SECOND, "{there} are left");
        }
    }
}

#[test]
fn a_silent_edge_is_not_waited_for_long() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.cut(1);
    site.succeed("bob");
    site.post(&mut alice, "bob", "hello");
    site.advance(Duration::from_millis(200));
    assert_eq!(site.handled(&alice), 0, "bob's edge may yet name his session");
    site.advance(Duration::from_millis(200));
    assert_eq!(site.handled(&alice), 2);
    site.link(1);
    site.run();
    assert_eq!(site.messages(&bob), ["hello"], "it is named late, and gets what it has missed");
}

/// Its client is there, and its edge names it in a moment: nothing final is said of it.
#[test]
fn who_has_not_been_named_yet_is_not_gone() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let _bob = site.managed(1, "bob", "phone");
    site.cut(1);
    site.succeed("bob");
    let to = Jid::parse("bob@localhost/phone").unwrap();
    let ping = Element::new("urn:xmpp:ping", "ping");
    site.send(&mut alice, Stanza::iq(IqType::Get).id("ask").to(to.clone()).child(ping));
    let hello = Element::new(ns::CLIENT, "body").text("hello");
    site.send(&mut alice, Stanza::message(MessageType::Normal).id("say").to(to).child(hello));
    site.advance(Duration::from_millis(500));
    let errors: Vec<_> = site.told(&alice).into_iter().filter_map(error).collect();
    assert_eq!(errors, ["wait recipient-unavailable"], "what was asked waits for its edge");
    site.advance(6 * SECOND);
    assert_eq!(site.told(&alice).into_iter().filter_map(error).count(), 1, "and not for ever");
}

pub(crate) fn error(down: Down) -> Option<String> {
    let Down::Stanza { stanza, .. } = down else { return None };
    let text = stanza.to_element().to_string();
    let kind = ["wait", "cancel"].into_iter().find(|kind| text.contains(&format!("type='{kind}'")))?;
    let condition =
        ["recipient-unavailable", "service-unavailable"].into_iter().find(|name| text.contains(name))?;
    Some(format!("{kind} {condition}"))
}

#[test]
fn what_is_not_recorded_is_not_bound() {
    let mut site = Site::new(2);
    let book = site.books[usize::from(site.shard("bob").0)].clone();
    *book.failing.lock() = Some(RecordError::NotLeader);
    let bob = site.connect(0, "bob", "phone");
    site.run();
    let downs = site.told(&bob);
    assert!(matches!(downs[..], [Down::Refused(_)]), "{downs:?}");
    *book.failing.lock() = None;
    let bob = site.managed(0, "bob", "phone");
    // A resumption that is not recorded fails for now; the session is there.
    *book.failing.lock() = Some(RecordError::Busy);
    let first = site.resume(&bob, 1, 0);
    site.run();
    let downs = site.told(&first);
    assert!(matches!(downs[..], [Down::Close(Some(_)), Down::Released]), "{downs:?}");
    *book.failing.lock() = None;
    let second = site.resume(&bob, 1, 0);
    site.run();
    assert!(matches!(site.told(&second).first(), Some(Down::Resumed { .. })));
}

#[test]
fn a_short_lapse_of_the_lease_is_waited_for() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.end_lease("bob");
    site.post(&mut alice, "bob", "hello");
    site.advance(SECOND / 2);
    assert!(site.messages(&bob).is_empty());
    site.renew_lease("bob");
    site.advance(SECOND / 10);
    assert_eq!(site.messages(&bob), ["hello"]);
    assert_eq!(site.handled(&alice), 2);
}

/// A home whose lease has lapsed does not know what another has taken in meanwhile: whoever does not fit what is known here
/// is sent to ask again, and not told that the session is gone, or that it has lost count.
#[test]
fn nobody_is_unknown_without_a_lease() {
    let told = |token: Option<Token>, handled: u32, lapsed: bool| {
        let mut site = Site::new(1);
        let bob = site.managed(0, "bob", "phone");
        // A young table sends everybody to ask again.
        site.advance(8 * SECOND);
        if lapsed {
            site.end_lease("bob");
        }
        let again = site.resume(&Client { token: token.unwrap_or(bob.token), ..bob }, 0, handled);
        site.advance(6 * SECOND);
        format!("{:?}", site.told(&again))
    };
    for (token, handled, answer) in [(Some(Token(77)), 0, "NotResumed"), (None, 99, "too-high")] {
        let (sure, unsure) = (told(token, handled, false), told(token, handled, true));
        assert!(sure.contains(answer), "{sure}");
        assert!(unsure.contains("SystemShutdown") && unsure.contains("Released"), "{unsure}");
    }
}
