//! A shard moves on purpose: nothing is lost, doubled or refused.

use crate::site::{Client, Site};
use crate::stage::condition;
use starling_router::RouterConfig;
use starling_wire::{Down, Leave, Token, Up};
use starling_xmpp::{Element, IqType, Jid, Kind, PresenceType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn to(stanza: Stanza, to: &str) -> Stanza {
    stanza.to(Jid::parse(to).unwrap())
}

fn presence(kind: PresenceType) -> Stanza {
    to(Stanza::presence(kind), "bob@localhost")
}

/// A request for one of bob's devices.
fn ask(id: &str) -> Stanza {
    let ask = Stanza::iq(IqType::Get).id(id).child(Element::new("urn:example:ask", "ask"));
    to(ask, "bob@localhost/phone")
}

/// Presence and IQ stanzas that a client was told.
fn told(site: &mut Site, client: &Client) -> Vec<String> {
    let name = |down| match down {
        Down::Stanza { stanza, .. } => match stanza.kind {
            Kind::Presence(kind) => Some(format!("{kind:?}")),
            Kind::Iq(IqType::Error) => Some(condition(&stanza)),
            Kind::Iq(kind) => Some(format!("{kind:?} {}", stanza.id.unwrap_or_default())),
            Kind::Message(_) => None,
        },
        _ => None,
    };
    site.told(client).into_iter().filter_map(name).collect()
}

#[test]
fn what_waits_while_nobody_looks_goes_to_the_edge() {
    for moves in 1..3 {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        site.say(&bob, Up::ClientState { active: false });
        site.send(&mut alice, presence(PresenceType::Unavailable));
        site.run();
        assert_eq!(told(&mut site, &bob), [""; 0], "it is held back");
        for _ in 0..moves {
            site.hand_on("bob");
        }
        site.say(&bob, Up::ClientState { active: true });
        site.run();
        assert_eq!(told(&mut site, &bob), ["Unavailable"]);
    }
}

/// It says it and is gone: its edge has not been told what follows from that.
#[test]
fn what_a_client_said_last_holds_at_the_next_home() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let mut bob = site.connect(1, "bob", "phone");
    site.say(&bob, Up::EnableSm { resume: true, max: None });
    site.run();
    site.send(&mut bob, Stanza::presence(PresenceType::Available));
    site.say(&bob, Up::Gone(Leave::Lost));
    site.run();
    site.hand_on("bob");
    let bob = site.resume(&bob, 1, 0);
    site.advance(SECOND);
    site.told(&bob);
    site.chat(&mut alice, "bob", "hello");
    assert_eq!(site.messages(&bob), ["hello"]);
}

#[test]
fn what_a_session_without_connection_is_sent_goes_to_the_edge_that_keeps_it() {
    for (edge, moves) in [(1, 1), (1, 2), (0, 1), (0, 2)] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        site.lose(&bob);
        site.send(&mut alice, presence(PresenceType::Unavailable));
        site.chat(&mut alice, "bob", "hello");
        site.send(&mut alice, ask("one"));
        site.run();
        for _ in 0..moves {
            site.hand_on("bob");
        }
        site.send(&mut alice, ask("two"));
        site.run();
        let bob = site.resume(&bob, edge, 0);
        site.run();
        let downs = site.told(&bob);
        let kinds = downs.iter().filter_map(|down| match down {
            Down::Stanza { stanza, .. } => Some(format!("{:?}", stanza.kind)),
            _ => None,
        });
        let all = ["Presence(Unavailable)", "Message(Chat)", "Iq(Get)", "Iq(Get)"];
        assert_eq!(kinds.collect::<Vec<_>>(), all, "edge {edge}, {moves} moves");
        assert_eq!(told(&mut site, &alice), [""; 0]);
        assert_eq!(site.rows("bob"), ["hello"]);
    }
}

#[test]
fn what_waits_for_a_slow_client_goes_to_the_edge() {
    let config = RouterConfig { max_unacked: 4, ..RouterConfig::default() };
    let mut site = Site::with(2, config);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    let kinds = [PresenceType::Subscribe, PresenceType::Unsubscribed, PresenceType::Unavailable];
    for kind in kinds {
        site.send(&mut alice, presence(kind));
        site.send(&mut alice, to(Stanza::presence(PresenceType::Available), "bob@localhost/phone"));
        site.run();
    }
    let before = told(&mut site, &bob);
    assert!(!before.is_empty() && before.len() < 4, "{before:?}");
    site.hand_on("bob");
    let after = told(&mut site, &bob);
    assert!(!after.is_empty());
    site.hand_on("bob");
    let handled = u32::try_from(before.len() + after.len()).unwrap();
    site.say(&bob, Up::Acknowledged { handled });
    site.run();
    assert_eq!(told(&mut site, &bob), [""; 0], "{before:?} {after:?}");
    assert_eq!(after.last().map(String::as_str), Some("Available"));
}

#[test]
fn what_its_link_takes_no_more_of_goes_there_all_the_same() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.lose(&bob);
    for n in 0..3 {
        site.send(&mut alice, ask(&n.to_string()));
    }
    site.run();
    site.press(true);
    let bob = site.resume(&bob, 1, 0);
    site.run();
    assert_eq!(told(&mut site, &bob), [""; 0], "the link has much to do");
    site.hand_on("bob");
    assert_eq!(told(&mut site, &bob), ["Get 0", "Get 1", "Get 2"]);
    site.press(false);
    site.advance(SECOND);
    assert_eq!(told(&mut site, &bob), [""; 0]);
}

#[test]
fn what_waits_for_its_home_is_passed_on() {
    let mut site = Site::new(3);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    let _silent = site.managed(2, "bob", "desk");
    site.told(&bob);
    // For a moment the home waits for the edge of the other device.
    site.cut(2);
    site.succeed("bob");
    site.send(&mut alice, presence(PresenceType::Subscribe));
    site.send(&mut alice, ask("one"));
    site.run();
    assert_eq!(told(&mut site, &bob), [""; 0], "it waits");
    site.hand_on("bob");
    site.advance(SECOND);
    assert_eq!(told(&mut site, &bob), ["Subscribe", "Get one"]);
    assert_eq!(told(&mut site, &alice), [""; 0]);
}

#[test]
fn what_waits_for_a_session_that_is_not_named_yet_is_passed_on() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let _desk = site.managed(0, "bob", "desk");
    let bob = site.managed(1, "bob", "phone");
    site.cut(1);
    site.succeed("bob");
    site.advance(Duration::from_millis(400));
    site.send(&mut alice, ask("one"));
    site.send(&mut alice, presence(PresenceType::Unavailable));
    site.run();
    site.hand_on("bob");
    site.advance(Duration::from_millis(400));
    assert_eq!(told(&mut site, &bob), [""; 0]);
    site.link(1);
    site.run();
    assert_eq!(told(&mut site, &bob), ["Get one", "Unavailable"]);
}

#[test]
fn a_request_that_comes_while_its_home_leaves_is_answered_by_the_next() {
    for own in [true, false] {
        let mut site = Site::new(2);
        let mut alice = site.managed(0, "alice", "phone");
        let mut bob = site.managed(1, "bob", "phone");
        site.begin_to_leave("alice");
        let list = Stanza::iq(IqType::Get).id("list").child(Element::new("urn:xmpp:blocking", "blocklist"));
        site.send(&mut alice, if own { list } else { ask("list") });
        site.run();
        site.end_to_leave("alice");
        if !own {
            assert_eq!(told(&mut site, &bob), ["Get list"]);
            site.send(&mut bob, to(Stanza::iq(IqType::Result).id("list"), "alice@localhost/phone"));
            site.run();
        }
        assert_eq!(told(&mut site, &alice), ["Result list"]);
        assert_eq!(site.handled(&alice), 0, "it was told before");
    }
}

/// What is said behind a message that has no answer is not called handled yet, though it is done.
#[test]
fn what_is_done_is_not_done_again_by_the_next_home() {
    for after in [false, true] {
        let mut site = Site::new(2);
        let mut alice = site.managed(0, "alice", "phone");
        let mut bob = site.managed(1, "bob", "phone");
        site.close_post("bob", true);
        site.chat(&mut alice, "bob", "hello");
        site.close_post("bob", false);
        site.send(&mut alice, ask("one"));
        site.send(&mut alice, to(Stanza::presence(PresenceType::Available), "bob@localhost/phone"));
        site.run();
        assert_eq!(told(&mut site, &bob), ["Get one", "Available"]);
        let answer = || to(Stanza::iq(IqType::Result).id("one"), "alice@localhost/phone");
        if !after {
            site.send(&mut bob, answer());
            site.run();
        }
        site.hand_on("alice");
        if after {
            site.send(&mut bob, answer());
        }
        site.advance(20 * SECOND);
        assert_eq!(told(&mut site, &bob), [""; 0]);
        assert_eq!(told(&mut site, &alice), ["Result one"]);
        assert_eq!(site.rows("bob"), ["hello"]);
    }
}

#[test]
fn an_answer_behind_a_message_is_given_once() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.send(&mut alice, ask("one"));
    site.run();
    site.close_post("alice", true);
    site.chat(&mut bob, "alice", "hello");
    site.close_post("alice", false);
    site.send(&mut bob, to(Stanza::iq(IqType::Result).id("one"), "alice@localhost/phone"));
    site.run();
    assert_eq!(told(&mut site, &alice), ["Result one"]);
    site.hand_on("bob");
    site.advance(20 * SECOND);
    assert_eq!(told(&mut site, &alice), [""; 0]);
    assert_eq!(site.rows("alice"), ["hello"]);
}

/// One router is the home of both, and its loss takes with it what it knew. The answer's sender was told of none of it.
#[test]
fn an_answer_is_given_once_though_both_homes_are_lost() {
    for read in [false, true] {
        let mut site = Site::new(2);
        let mut alice = site.managed(0, "alice", "phone");
        let mut bob = site.managed(1, "bob", "phone");
        site.send(&mut alice, ask("one"));
        site.run();
        site.close_post("alice", true);
        site.chat(&mut bob, "alice", "hello");
        site.close_post("alice", false);
        site.send(&mut bob, to(Stanza::iq(IqType::Result).id("one"), "alice@localhost/phone"));
        site.run();
        assert_eq!(told(&mut site, &alice), ["Result one"]);
        if read {
            // It does not stand in her queue any more.
            site.say(&alice, Up::Acknowledged { handled: 1 });
            site.run();
        }
        site.crash("bob");
        site.succeed("alice");
        let shard = site.shard("bob");
        site.begin(shard);
        site.advance(SECOND);
        assert_eq!(told(&mut site, &alice), [""; 0], "read: {read}");
    }
}

/// Its client was told that it has none.
#[test]
fn an_answer_that_comes_too_late_is_not_given_by_the_next_home_either() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.send(&mut alice, ask("one"));
    site.run();
    site.succeed("bob");
    site.advance(6 * SECOND);
    assert_eq!(told(&mut site, &alice).len(), 1);
    site.hand_on("alice");
    site.send(&mut bob, to(Stanza::iq(IqType::Result).id("one"), "alice@localhost/phone"));
    site.run();
    assert_eq!(told(&mut site, &alice), [""; 0]);
}

/// A client that never reads has more waiting for it at each home.
#[test]
fn what_goes_to_an_edge_is_bounded_however_often_its_home_moves() {
    const BYTES: usize = 2_000;
    let config = RouterConfig { max_unacked_bytes: BYTES, ..RouterConfig::default() };
    let mut site = Site::with(2, config);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    let (mut taken, mut closed) = (0, 0);
    for _ in 0..8 {
        for _ in 0..8 {
            let fleeting = Stanza::message(starling_xmpp::MessageType::Chat)
                .child(Element::new("urn:example", "signal").text("x".repeat(50)));
            site.send(&mut alice, to(fleeting, "bob@localhost/phone"));
        }
        site.run();
        site.hand_on("bob");
        let downs = site.told(&bob);
        let size =
            |down: &Down| if let Down::Stanza { stanza, .. } = down { stanza.encoded_len() } else { 0 };
        taken += downs.iter().map(size).sum::<usize>();
        closed += downs.iter().filter(|down| matches!(down, Down::Close(_))).count();
    }
    assert!(closed > 0 && taken < 4 * BYTES, "{taken} bytes, told {closed} times");
}

#[test]
fn a_home_that_leaves_and_stays_goes_on() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.lose(&bob);
    site.send(&mut alice, ask("one"));
    site.run();
    site.leave_and_stay("bob");
    site.send(&mut alice, ask("two"));
    site.chat(&mut alice, "bob", "hello");
    let bob = site.resume(&bob, 1, 0);
    site.run();
    assert_eq!(told(&mut site, &bob), ["Get one", "Get two"]);
    site.leave_and_stay("alice");
    site.say(&bob, Up::Gone(Leave::Closed));
    site.chat(&mut alice, "bob", "more");
    assert_eq!((told(&mut site, &alice).len(), site.rows("bob").len()), (2, 2));
}

#[test]
fn a_home_that_goes_on_from_an_old_one_knows_who_is_lost() {
    for (age, known) in [(0, false), (4, false), (5, true)] {
        let mut site = Site::new(1);
        let bob = site.managed(0, "bob", "phone");
        site.age = age * SECOND;
        site.hand_on("bob");
        let stranger = site.resume(&Client { token: Token(999), ..bob }, 0, 0);
        site.run();
        let told = site.told(&stranger);
        let lost = told.iter().any(|down| matches!(down, Down::NotResumed));
        assert!(lost == known && !told.is_empty(), "{age} s: {told:?}");
    }
}

/// Its edge has kept what was said before the client was gone.
#[test]
fn what_an_edge_has_of_a_session_is_not_said_to_it_again() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    for n in 0..3 {
        site.chat(&mut alice, "bob", &n.to_string());
    }
    site.lose(&bob);
    for moves in 0..3 {
        site.send(&mut alice, ask("more"));
        site.run();
        let before = site.stanzas();
        site.begin_to_leave("bob");
        site.end_to_leave("bob");
        assert_eq!(site.stanzas() - before, 1, "{moves} moves");
    }
    let bob = site.resume(&bob, 1, 0);
    site.run();
    let downs = site.told(&bob);
    let numbers = downs.iter().filter(|down| matches!(down, Down::Stanza { number: 1.., .. }));
    assert_eq!(numbers.count(), 3 + 3);
}

/// Its link breaks, and what was said last with it. Its client is not back when it is.
#[test]
fn what_an_edge_has_not_of_a_session_is_said_to_it() {
    for stays in [false, true] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        if stays {
            // What is given away is lost on its way.
            site.lose(&bob);
            site.send(&mut alice, presence(PresenceType::Unavailable));
            site.run();
            site.leave_and_stay("bob");
        }
        site.cut(1);
        site.send(&mut alice, presence(PresenceType::Unavailable));
        site.run();
        site.say(&bob, Up::Gone(Leave::Lost));
        site.declare_dead(1);
        site.link(1);
        site.run();
        site.send(&mut alice, ask("one"));
        site.run();
        site.hand_on("bob");
        let bob = site.resume(&bob, 1, 0);
        site.run();
        let all = ["Unavailable", "Unavailable", "Get one"];
        assert_eq!(told(&mut site, &bob), all[usize::from(!stays)..]);
    }
}

/// Nobody hears of a home that stays: who waits for it is told.
#[test]
fn what_waits_for_a_home_that_stays_comes_soon() {
    let mut site = Site::new(3);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    let _silent = site.managed(2, "bob", "desk");
    // For a moment the home waits for the edge of the other device.
    site.cut(2);
    site.succeed("bob");
    site.chat(&mut alice, "bob", "hello");
    assert_eq!(site.messages(&bob), [""; 0], "it waits");
    site.leave_and_stay("bob");
    site.advance(SECOND);
    assert_eq!(site.messages(&bob), ["hello"]);
    assert_eq!(site.handled(&alice), 2);
}
