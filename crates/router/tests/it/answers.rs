//! Answers to requests: each gets one, or its session ends.

use crate::site::Site;
use crate::stage::{Client, Stage};
use starling_router::RouterConfig;
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Element, IqType, Jid, Kind, PresenceType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn ask(stage: &mut Stage, client: &mut Client, id: &str, messages: usize, bytes: usize) {
    let page = Element::new("test:pages", "page")
        .attr("messages", messages.to_string())
        .attr("bytes", bytes.to_string());
    stage.send(client, Stanza::iq(IqType::Get).id(id).child(page));
}

/// Alice, who may have 100,000 bytes unacknowledged.
fn alice() -> (Stage, Client) {
    let config = RouterConfig { max_unacked_bytes: 100_000, ..RouterConfig::default() };
    let mut stage = Stage::under(config, ["alice".to_owned()]);
    let alice = stage.client("alice");
    stage.say(&alice, Up::EnableSm { resume: true, max: None });
    stage.run();
    stage.told(&alice);
    (stage, alice)
}

/// How many messages she is told, and what of requests: `id` or `!id`.
fn told(downs: &[Down]) -> (usize, Vec<String>) {
    let stanzas = downs.iter().filter_map(|down| match down {
        Down::Stanza { stanza, .. } => Some(stanza),
        _ => None,
    });
    let answers = stanzas.clone().filter_map(|stanza| match stanza.kind {
        Kind::Iq(IqType::Result) => stanza.id.as_ref().map(ToString::to_string),
        Kind::Iq(IqType::Error) => stanza.id.as_ref().map(|id| format!("!{id}")),
        _ => None,
    });
    (stanzas.clone().filter(|stanza| stanza.is_message()).count(), answers.collect())
}

#[test]
fn a_page_for_which_there_is_no_room_in_bytes_does_not_come_with_holes() {
    let (mut stage, mut alice) = alice();
    ask(&mut stage, &mut alice, "one", 3, 20_000);
    stage.run();
    assert_eq!(told(&stage.told(&alice)), (3, vec!["one".to_owned()]));
    ask(&mut stage, &mut alice, "two", 3, 20_000);
    stage.run();
    assert_eq!(told(&stage.told(&alice)), (0, vec!["!two".to_owned()]));
    stage.say(&alice, Up::Acknowledged { handled: 5 });
    ask(&mut stage, &mut alice, "three", 3, 20_000);
    stage.run();
    assert_eq!(told(&stage.told(&alice)), (3, vec!["three".to_owned()]));
}

#[test]
fn a_session_that_has_no_room_for_an_answer_ends() {
    let (mut stage, mut alice) = alice();
    // For each there would be room, by itself.
    ask(&mut stage, &mut alice, "one", 3, 30_000);
    ask(&mut stage, &mut alice, "two", 3, 30_000);
    stage.run();
    let downs = stage.told(&alice);
    let (_, answers) = told(&downs);
    let closed = downs.iter().any(|down| matches!(down, Down::Close(Some(_))));
    assert!(answers == ["one", "two"] || answers == ["one", "!two"] || closed, "{answers:?}");
    let handled = downs.iter().any(|down| matches!(down, Down::Handled { sequence: 3 }));
    assert!(!handled || answers.len() == 2, "a request is called handled that has no answer");
}

/// A question of alice's phone to bob's, and the answer.
fn question(id: &str) -> Stanza {
    let ping = Element::new("urn:xmpp:ping", "ping");
    Stanza::iq(IqType::Get).id(id).to(Jid::parse("bob@localhost/phone").unwrap()).child(ping)
}

fn answer(id: &str) -> Stanza {
    Stanza::iq(IqType::Result).id(id).to(Jid::parse("alice@localhost/phone").unwrap())
}

#[test]
fn a_request_that_is_lost_with_another_home_is_answered() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.run();
    for lost in ["the request", "the answer"] {
        site.send(&mut alice, question(lost));
        site.decide();
        if lost == "the answer" {
            site.run();
            site.send(&mut bob, answer(lost));
            site.decide();
            assert_eq!(site.lose_mail(), 1);
            site.run();
        }
        site.succeed("bob");
        site.advance(SECOND);
        assert_eq!(told(&site.told(&alice)).1, [""; 0], "it may yet come");
        site.advance(5 * SECOND);
        assert_eq!(told(&site.told(&alice)).1, [format!("!{lost}")]);
        // One that comes nevertheless is no second one.
        site.send(&mut bob, answer(lost));
        site.advance(SECOND);
        assert_eq!(told(&site.told(&alice)).1, [""; 0]);
    }
}

#[test]
fn an_answer_that_is_given_after_a_move_comes_once() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.send(&mut alice, question("one"));
    site.run();
    site.succeed("bob");
    site.advance(4 * SECOND);
    site.send(&mut bob, answer("one"));
    site.advance(10 * SECOND);
    assert_eq!(told(&site.told(&alice)).1, ["one"]);
    // Without a move nobody is told anything but what its peer says, whenever that is.
    site.send(&mut alice, question("two"));
    site.advance(30 * SECOND);
    site.send(&mut bob, answer("two"));
    site.run();
    assert_eq!(told(&site.told(&alice)).1, ["two"]);
}

#[test]
fn a_request_whose_own_home_is_lost_is_answered_once() {
    let cases = ["request", "answer", "nothing", "told"].into_iter().flat_map(|case| [(case, 1), (case, 2)]);
    for (case, homes) in cases.chain([("unhandled", 1)]) {
        let mut site = Site::new(2);
        let mut alice = site.managed(0, "alice", "phone");
        let mut bob = site.managed(1, "bob", "phone");
        site.run();
        site.send(&mut alice, question("one"));
        site.decide();
        match case {
            "request" => assert_eq!(site.lose_mail(), 1),
            // Her edge says it once more.
            "unhandled" => site.forget_downs(),
            _ => {}
        }
        site.run();
        if case == "answer" || case == "told" {
            site.send(&mut bob, answer("one"));
            site.decide();
            if case == "answer" {
                assert_eq!(site.lose_mail(), 1);
            }
            site.run();
        }
        for _ in 0..homes {
            site.succeed("alice");
        }
        site.advance(SECOND);
        if case == "nothing" || case == "unhandled" {
            site.send(&mut bob, answer("one"));
        }
        site.advance(20 * SECOND);
        let expected = if case == "nothing" || case == "told" { "one" } else { "!one" };
        assert_eq!(told(&site.told(&alice)).1, [expected], "{case}, {homes}");
    }
}

/// Of a request that its device has answered and not acknowledged, and of one that it has not.
#[test]
fn who_has_an_answer_gets_no_other_when_the_device_goes() {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    stage.say(&bob, Up::EnableSm { resume: true, max: None });
    let [to_alice, to_bob] =
        ["alice", "bob"].map(|name| Jid::parse(&format!("{name}@localhost/phone")).unwrap());
    for id in ["one", "two"] {
        let mut question = Stanza::iq(IqType::Get).id(id).child(Element::new("urn:xmpp:ping", "ping"));
        question.to = Some(to_bob.clone());
        stage.send(&mut alice, question);
    }
    stage.run();
    stage.send(&mut bob, Stanza::iq(IqType::Result).id("one").to(to_alice));
    stage.run();
    assert_eq!(told(&stage.told(&alice)).1, ["one"]);
    stage.say(&bob, Up::Gone(Leave::Closed));
    stage.run();
    assert_eq!(told(&stage.told(&alice)).1, ["!two"]);
}

/// An edge says an answer once more to the next home of its device, and that passes it on.
#[test]
fn an_answer_that_is_said_again_comes_once() {
    let mut site = Site::new(2);
    let (mut alice, mut bob) = (site.client(0, "alice", "phone"), site.client(1, "bob", "phone"));
    let [to_alice, to_bob] =
        ["alice", "bob"].map(|name| Jid::parse(&format!("{name}@localhost/phone")).unwrap());
    let mut question = Stanza::iq(IqType::Get).id("one").child(Element::new("urn:xmpp:ping", "ping"));
    question.to = Some(to_bob);
    site.send(&mut alice, question);
    site.run();
    let answer = Stanza::iq(IqType::Result).id("one").to(to_alice);
    site.send(&mut bob, answer.clone());
    site.run();
    assert_eq!(told(&site.told(&alice)).1, ["one"]);
    site.succeed("bob");
    site.send(&mut bob, answer);
    site.advance(SECOND);
    assert_eq!(told(&site.told(&alice)).1, [""; 0]);
}

#[test]
fn an_open_request_is_answered_by_the_next_home() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let mut ask = Stanza::iq(IqType::Get).child(Element::new("urn:xmpp:blocking", "blocklist"));
    ask.id = Some("q1".into());
    site.send(&mut alice, ask);
    site.crash("alice");
    let shard = site.shard("alice");
    site.begin(shard);
    site.run();
    let downs = site.told(&alice);
    let answers = downs.iter().filter_map(|down| match down {
        Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Iq(_)) => {
            Some(crate::stage::condition(stanza))
        }
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), ["!resource-constraint wait"]);
    assert!(downs.iter().any(|down| matches!(down, Down::Handled { sequence: 2 })));
}

#[test]
fn answers_that_were_lost_are_given_once_more() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let mut bob = site.connect(0, "bob", "phone");
    site.decide();
    site.decide();
    site.cut(0);
    site.run();
    site.link(0);
    site.run();
    let downs = site.told(&bob);
    assert!(matches!(downs[..], [Down::Bound { .. }]), "{downs:?}");
    site.send(&mut bob, Stanza::presence(PresenceType::Available));
    site.say(&bob, Up::EnableSm { resume: true, max: None });
    site.decide();
    site.post(&mut alice, "bob", "counted");
    site.decide();
    site.cut(0);
    site.run();
    site.link(0);
    site.run();
    let downs = site.told(&bob);
    let enabled = downs.iter().position(|down| matches!(down, Down::SmEnabled { base: 1, .. }));
    let message = downs.iter().position(|down| matches!(down, Down::Stanza { counts: true, .. }));
    assert!(enabled.is_some() && enabled < message, "{downs:?}");
    assert_eq!(downs.iter().filter(|down| matches!(down, Down::SmEnabled { .. })).count(), 1);
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.run();
    assert!(!site.told(&bob).iter().any(|down| matches!(down, Down::Close(_))));
}

/// The edge has taken, and written, some of what came before it could count.
#[test]
fn what_was_lost_before_a_session_is_managed_comes_before_it_is() {
    let mut site = Site::new(1);
    let mut bob = site.client(0, "bob", "phone");
    site.chat(&mut bob, "bob", "one");
    site.told(&bob);
    site.post(&mut bob, "bob", "two");
    (0..4).for_each(|_| site.decide());
    site.say(&bob, Up::EnableSm { resume: true, max: None });
    site.decide();
    site.post(&mut bob, "bob", "three");
    (0..4).for_each(|_| site.decide());
    assert!(site.told(&bob).is_empty(), "it is on its way");
    site.cut(0);
    site.run();
    site.say(&bob, Up::Written { count: 2 });
    site.link(0);
    site.run();
    let told = site.told(&bob);
    let told = told.iter().filter_map(|down| match down {
        Down::SmEnabled { .. } => Some("enabled"),
        Down::Stanza { counts: true, .. } => Some("counted"),
        Down::Stanza { counts: false, .. } => Some("early"),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), ["early", "enabled", "counted"]);
}
