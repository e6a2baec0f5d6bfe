//! A client that is there and has much unacknowledged: what cannot wait in the log waits at its home, or its session ends.

use crate::bench::chat;
use crate::stage::{Client, Stage};
use starling_router::RouterConfig;
use starling_wire::{Down, Up};
use starling_xmpp::{Element, IqType, Jid, Kind, MessageType, PresenceType, Stanza};

const ALICE: &str = "alice@localhost/phone";

/// Alice may have so many stanzas unacknowledged; of others there are so many.
fn stage(max_unacked: usize, others: usize) -> (Stage, Client, Vec<Client>) {
    let config = RouterConfig { max_unacked, max_unacked_bytes: 60_000, ..RouterConfig::default() };
    let names: Vec<_> = (0..others).map(|n| format!("n{n}")).collect();
    let mut stage = Stage::under(config, names.iter().cloned().chain(["alice".to_owned()]));
    let mut alice = stage.client("alice");
    stage.say(&alice, Up::EnableSm { resume: true, max: None });
    // Whoever asks something hears of changes.
    stage.send(&mut alice, Stanza::iq(IqType::Get).child(Element::new("urn:xmpp:blocking", "blocklist")));
    stage.run();
    stage.say(&alice, Up::Acknowledged { handled: 1 });
    stage.run();
    stage.told(&alice);
    let others = names.iter().map(|name| stage.client(name)).collect();
    (stage, alice, others)
}

fn presence(kind: PresenceType) -> Stanza {
    let mut presence = Stanza::presence(kind);
    presence.to = Some(Jid::parse(ALICE).unwrap());
    presence
}

/// What she is told, in words.
fn told(stage: &Stage, alice: &Client) -> Vec<String> {
    let word = |down: Down| match down {
        Down::Stanza { stanza, .. } => {
            let from = || stanza.from.as_ref().and_then(Jid::local).unwrap_or_default().to_owned();
            Some(match stanza.kind {
                Kind::Presence(PresenceType::Available) => format!("{} is here", from()),
                Kind::Presence(PresenceType::Unavailable) => format!("{} is gone", from()),
                Kind::Presence(_) => format!("{} asks", from()),
                Kind::Iq(IqType::Set) => "push".to_owned(),
                Kind::Iq(_) => stanza.id.as_ref().map(ToString::to_string).unwrap_or_default(),
                Kind::Message(_) => crate::bench::body(&stanza),
            })
        }
        Down::Close(_) => Some("over".to_owned()),
        _ => None,
    };
    stage.told(alice).into_iter().filter_map(word).collect()
}

/// She acknowledges all that she has been told, until she is told no more.
fn reads_on(stage: &mut Stage, alice: &Client, mut handled: u32, room: usize) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let some = told(stage, alice);
        assert!(some.len() <= room, "{} at once", some.len());
        if some.is_empty() {
            return all;
        }
        handled += u32::try_from(some.len()).unwrap();
        all.extend(some);
        stage.say(alice, Up::Acknowledged { handled });
        stage.run();
    }
}

#[test]
fn presence_for_which_there_is_no_room_comes_when_there_is() {
    let (mut stage, alice, mut others) = stage(20, 50);
    for other in &mut others {
        stage.send(other, presence(PresenceType::Available));
    }
    stage.run();
    // Of each the last is enough.
    stage.send(&mut others[40], presence(PresenceType::Unavailable));
    stage.run();
    stage.send(&mut others[30], chat(ALICE, "behind them"));
    stage.run();
    let all = reads_on(&mut stage, &alice, 1, 20);
    let mut expected: Vec<_> = (0..50).filter(|n| *n != 40).map(|n| format!("n{n} is here")).collect();
    expected.extend(["n40 is gone".to_owned(), "behind them".to_owned()]);
    assert_eq!(all, expected);
}

#[test]
fn pushes_answers_and_what_is_not_kept_come_too() {
    let (mut stage, mut alice, mut others) = stage(20, 30);
    let mut desk = stage.device("alice", "desk");
    for other in &mut others {
        stage.send(other, presence(PresenceType::Available));
    }
    stage.run();
    let mut question = Stanza::iq(IqType::Get).id("question").child(Element::new("urn:xmpp:ping", "ping"));
    question.to = Some(Jid::parse("n3@localhost/phone").unwrap());
    stage.send(&mut alice, question);
    stage.run();
    let mut answer = Stanza::iq(IqType::Result).id("answer");
    answer.to = Some(Jid::parse(ALICE).unwrap());
    stage.send(&mut others[3], answer);
    stage.run();
    let mut subscribe = Stanza::presence(PresenceType::Subscribe);
    subscribe.to = Some(Jid::parse("n4@localhost").unwrap());
    stage.send(&mut desk, subscribe);
    stage.run();
    let mut words = Stanza::message(MessageType::Chat).id("words");
    words.to = Some(Jid::parse(ALICE).unwrap());
    words = words.child(Element::new("urn:example", "signal"));
    stage.send(&mut others[5], words);
    stage.run();
    let all = reads_on(&mut stage, &alice, 1, 20);
    assert_eq!(all.iter().filter(|word| word.ends_with("is here")).count(), 30 + 1, "{all:?}");
    let rest: Vec<_> = all.iter().filter(|word| !word.ends_with("is here")).collect();
    assert_eq!(rest, ["answer", "push", ""], "{all:?}");
}

#[test]
fn a_request_for_which_there_is_no_room_is_answered() {
    let (mut stage, alice, mut others) = stage(20, 30);
    for other in &mut others {
        stage.send(other, presence(PresenceType::Available));
    }
    let mut question = Stanza::iq(IqType::Get).id("question").child(Element::new("urn:xmpp:ping", "ping"));
    question.to = Some(Jid::parse(ALICE).unwrap());
    stage.run();
    stage.told(&others[3]);
    stage.send(&mut others[3], question);
    stage.run();
    assert_eq!(told(&stage, &others[3]), ["question"]);
    assert_eq!(reads_on(&mut stage, &alice, 1, 20).len(), 30);
}

/// Nothing is lost with a request that was answered: the session goes on.
#[test]
fn a_request_that_is_answered_does_not_end_a_session_without_a_connection() {
    let (mut stage, alice, mut others) = stage(4, 8);
    for other in &mut others {
        stage.chat(other, "alice", "hello");
    }
    stage.run();
    stage.say(&alice, Up::Gone(starling_wire::Leave::Lost));
    stage.run();
    stage.told(&others[3]);
    let mut question = Stanza::iq(IqType::Get).id("question").child(Element::new("urn:xmpp:ping", "ping"));
    question.to = Some(Jid::parse(ALICE).unwrap());
    stage.send(&mut others[3], question);
    stage.run();
    assert_eq!(told(&stage, &others[3]), ["question"]);
    let alice = stage.resume(&alice, 1);
    stage.run();
    assert!(stage.told(&alice).iter().any(|down| matches!(down, Down::Resumed { .. })));
}

#[test]
fn what_waits_goes_on_after_a_resumption() {
    let (mut stage, mut alice, mut others) = stage(20, 30);
    for other in &mut others {
        stage.send(other, presence(PresenceType::Available));
    }
    stage.run();
    assert_eq!(told(&stage, &alice).len(), 20);
    stage.say(&alice, Up::Gone(starling_wire::Leave::Lost));
    stage.run();
    alice = stage.resume(&alice, 16);
    stage.run();
    let mut all = told(&stage, &alice);
    let expected = |from: usize| (from..30).map(|n| format!("n{n} is here")).collect::<Vec<_>>();
    assert_eq!(all, expected(15), "those that were unacknowledged first");
    stage.say(&alice, Up::Acknowledged { handled: 31 });
    stage.run();
    all = told(&stage, &alice);
    assert!(all.is_empty(), "{all:?}");
}

#[test]
fn a_session_for_which_too_much_waits_ends() {
    let (mut stage, alice, mut others) = stage(20, 30);
    let long = "x".repeat(4_000);
    for other in &mut others {
        stage.send(
            other,
            presence(PresenceType::Available).child(Element::new("urn:example", "l").text(&long)),
        );
    }
    stage.run();
    let all = told(&stage, &alice);
    assert!(all.last().is_some_and(|word| word == "over"), "{all:?}");
}
