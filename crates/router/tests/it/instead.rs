//! What clients say behind a resumption, where a home before may have decided what no edge could say again.

use crate::bench::chat;
use crate::site::{Client, Site};
use starling_wire::{Down, Up};
use starling_xmpp::{Element, IqType, Kind, PresenceType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// All homes decide, and no edge hears of it.
fn nobody_is_told(site: &mut Site) {
    for _ in 0..4 {
        site.decide();
        let mail: Vec<_> = site.mail().drain(..).collect();
        for (shard, item) in mail {
            site.hand_mail(shard, item);
        }
    }
    site.forget_downs();
}

/// All goes on, and her edge hears nothing of it.
fn it_is_not_told(site: &mut Site, edge: usize) {
    site.cut(edge);
    site.run();
}

/// Her next home hears of her session, and not what it has said; then that edge is lost, and she comes over another one.
fn moves(site: &mut Site, alice: &Client, from: usize, to: usize) -> Client {
    let shard = site.shard("alice");
    site.mute = true;
    site.crash("alice");
    site.link(from);
    site.begin(shard);
    site.run();
    site.mute = false;
    site.kill_edge(from);
    let mut alice = site.resume(alice, to, 0);
    site.advance(15 * SECOND);
    goes_on(site, &mut alice);
    alice
}

/// Her session is resumed; only her presence is covered.
fn goes_on(site: &mut Site, alice: &mut Client) {
    let downs = site.told(alice);
    let resumed = downs.iter().find_map(|down| match down {
        Down::Resumed { sequence, .. } => Some(*sequence),
        _ => None,
    });
    assert_eq!(resumed, Some(1), "{downs:?}");
    alice.sequence = 1;
}

fn to_bob(body: &str) -> Stanza {
    chat("bob@localhost", body)
}

fn named(body: &str) -> Stanza {
    to_bob(body).child(Element::new("urn:xmpp:sid:0", "origin-id").attr("id", format!("o-{body}")))
}

/// No log keeps it.
fn state(name: &str) -> Stanza {
    let mut state = Stanza::message(starling_xmpp::MessageType::Chat);
    state.to = to_bob("").to;
    state.child(Element::new("http://jabber.org/protocol/chatstates", name))
}

/// Alice's home is lost, and her edge after it has named her session to the next one and before it has said the rest again.
fn lose_what_was_said(site: &mut Site) {
    let shard = site.shard("alice");
    site.mute = true;
    site.crash("alice");
    site.begin(shard);
    site.run();
    site.mute = false;
    site.kill_edge(0);
}

#[test]
fn what_is_said_instead_is_new() {
    let said: [(Stanza, &[&str]); 3] =
        [(to_bob("one"), &["one", "two"]), (named("one"), &["one", "two"]), (state("active"), &["two"])];
    for ((first, expected), homes) in said.iter().flat_map(|said| (0..3).map(move |homes| (said, homes))) {
        for second in [to_bob("two"), named("two")] {
            let mut site = Site::new(3);
            site.lively = true;
            let mut alice = site.managed(0, "alice", "phone");
            site.send(&mut alice, first.clone());
            nobody_is_told(&mut site);
            let bob = site.client(2, "bob", "phone");
            let mut alice = moves(&mut site, &alice, 0, 1);
            for _ in 0..homes {
                site.succeed("alice");
            }
            site.send(&mut alice, second);
            site.run();
            assert_eq!(site.rows("alice"), *expected, "{homes} {first:?}");
            assert_eq!(site.rows("bob"), *expected, "{homes} {first:?}");
            assert_eq!(site.handled(&alice), 2);
            assert_eq!(site.messages(&bob).last().map(String::as_str), Some("two"));
            // And its place is known from then on.
            site.succeed("alice");
            site.send(&mut alice, to_bob("three"));
            site.run();
            assert_eq!(site.rows("bob")[expected.len()..], ["three"]);
            assert_eq!(site.handled(&alice), 3);
        }
    }
}

#[test]
fn what_is_said_again_without_what_was_before_it_is_known() {
    for (message, homes) in [to_bob("one"), named("one")].iter().flat_map(|one| (0..3).map(move |n| (one, n)))
    {
        let mut site = Site::new(2);
        site.lively = true;
        let mut alice = site.managed(0, "alice", "phone");
        site.send(&mut alice, Stanza::presence(PresenceType::Available));
        site.send(&mut alice, message.clone());
        nobody_is_told(&mut site);
        let mut alice = moves(&mut site, &alice, 0, 1);
        for _ in 0..homes {
            site.succeed("alice");
        }
        site.send(&mut alice, message.clone());
        site.send(&mut alice, to_bob("two"));
        site.run();
        assert_eq!(site.rows("alice"), ["one", "two"], "{homes} {message:?}");
        assert_eq!(site.rows("bob"), ["one", "two"], "{homes} {message:?}");
        assert_eq!(site.handled(&alice), 3);
    }
}

#[test]
fn what_has_its_answer_is_covered_though_it_was_not_said_again() {
    let is_answer = |down: &&Down| {
        let answer = Kind::Iq(IqType::Result);
        matches!(down, Down::Stanza { stanza, .. } if stanza.kind == answer)
    };
    let mut cases = 0;
    for (count, has) in (0..4).flat_map(|count| [(count, false), (count, true)]) {
        let mut site = Site::new(2);
        site.lively = true;
        let mut alice = site.managed(0, "alice", "phone");
        let list = Element::new("urn:xmpp:blocking", "blocklist");
        site.send(&mut alice, Stanza::iq(IqType::Get).id("ask").child(list));
        site.decide();
        site.deliver_only(count);
        let downs = site.told(&alice);
        let is_handled = downs.iter().any(|down| matches!(down, Down::Handled { sequence: 2 }));
        if is_handled || downs.iter().filter(is_answer).count() == 0 {
            continue;
        }
        // Her edge has the answer, and has not heard that it is handled.
        cases += 1;
        lose_what_was_said(&mut site);
        let alice = site.resume(&alice, 1, u32::from(has));
        site.advance(15 * SECOND);
        let downs = site.told(&alice);
        assert!(downs.iter().any(|down| matches!(down, Down::Resumed { sequence: 2, .. })), "{downs:?}");
        assert_eq!(downs.iter().filter(is_answer).count(), usize::from(!has));
    }
    assert!(cases > 0);
}

#[test]
fn what_says_the_same_is_as_many_messages_as_there_were() {
    let mut site = Site::new(2);
    site.lively = true;
    let mut alice = site.managed(0, "alice", "phone");
    for _ in 0..2 {
        site.send(&mut alice, to_bob("ok"));
    }
    nobody_is_told(&mut site);
    let mut alice = moves(&mut site, &alice, 0, 1);
    for _ in 0..3 {
        site.send(&mut alice, to_bob("ok"));
    }
    site.run();
    assert_eq!((site.rows("alice").len(), site.rows("bob").len()), (3, 3));
}

/// What is not kept is sent once at most.
#[test]
fn what_no_log_keeps_comes_once() {
    let mut site = Site::new(5);
    site.lively = true;
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(4, "bob", "phone");
    for message in [state("active"), state("composing")] {
        site.send(&mut alice, message);
    }
    it_is_not_told(&mut site, 0);
    assert_eq!(site.messages(&bob).len(), 2);
    for edge in 0..2 {
        alice = moves(&mut site, &alice, edge, edge + 1);
        for message in [state("active"), state("composing")] {
            site.send(&mut alice, message);
        }
        it_is_not_told(&mut site, edge + 1);
        assert_eq!(site.messages(&bob), [""; 0]);
    }
    alice = moves(&mut site, &alice, 2, 3);
    for message in [state("active"), state("active"), to_bob("two")] {
        site.send(&mut alice, message);
    }
    site.run();
    assert_eq!(site.messages(&bob), ["", "two"], "one of them is new");
}

#[test]
fn what_is_said_a_third_time_is_known() {
    for message in [to_bob("one"), named("one")] {
        let mut site = Site::new(3);
        site.lively = true;
        let mut alice = site.managed(0, "alice", "phone");
        site.send(&mut alice, message.clone());
        nobody_is_told(&mut site);
        let mut alice = moves(&mut site, &alice, 0, 1);
        site.send(&mut alice, message.clone());
        nobody_is_told(&mut site);
        let mut alice = moves(&mut site, &alice, 1, 2);
        site.send(&mut alice, message);
        site.send(&mut alice, to_bob("two"));
        site.run();
        assert_eq!(site.rows("alice"), ["one", "two"]);
        assert_eq!(site.rows("bob"), ["one", "two"]);
    }
}

#[test]
fn what_the_edge_before_could_not_say_again_is_known_however_often_the_home_changes() {
    for homes in 0..3 {
        let mut site = Site::new(2);
        site.lively = true;
        let mut alice = site.managed(0, "alice", "phone");
        // It has its rows at both ends, and nobody was told.
        site.post(&mut alice, "bob", "hello");
        nobody_is_told(&mut site);
        let mut alice = moves(&mut site, &alice, 0, 1);
        for _ in 0..homes {
            site.succeed("alice");
        }
        // Its client says it again.
        site.chat(&mut alice, "bob", "hello");
        site.advance(SECOND);
        assert_eq!(site.rows("alice"), ["hello"], "{homes}");
        assert_eq!(site.rows("bob"), ["hello"], "{homes}");
        assert_eq!(site.handled(&alice), 2, "{homes}");
    }
}

#[test]
fn what_its_sender_does_not_keep_and_says_again_over_another_connection_is_known() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    // It has no id, and is known by its place alone.
    let hint = || Element::new("urn:xmpp:hints", "no-permanent-store");
    let unkept = |n: usize| chat("bob@localhost", &n.to_string()).child(hint());
    site.send(&mut alice, unkept(0));
    nobody_is_told(&mut site);
    assert_eq!((site.rows("alice").len(), site.rows("bob").len()), (0, 1));
    // What her old connection says again is lost, for the account cannot be loaded.
    site.crash("alice");
    site.lose(&alice);
    let shard = site.shard("alice");
    site.store.fail_next_reads(1);
    site.begin(shard);
    site.run();
    site.succeed("bob");
    let mut alice = site.resume(&alice, 1, 0);
    site.advance(3 * SECOND);
    goes_on(&mut site, &mut alice);
    site.send(&mut alice, unkept(0));
    site.send(&mut alice, unkept(1));
    site.run();
    assert_eq!(site.rows("bob"), ["0", "1"]);
    assert_eq!(site.messages(&bob), ["0", "1"]);
}

fn ask(id: &str) -> Stanza {
    Stanza::iq(IqType::Get).id(id).child(Element::new("urn:xmpp:blocking", "blocklist"))
}

/// How many answers it was told since the last time.
fn answers(site: &mut Site, client: &Client) -> usize {
    let is_answer = |down: &Down| matches!(down, Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Iq(IqType::Result | IqType::Error)));
    site.told(client).iter().filter(|down| is_answer(down)).count()
}

#[test]
fn a_request_that_has_its_answer_is_not_refused_either() {
    let mut site = Site::new(2);
    site.lively = true;
    let mut alice = site.managed(0, "alice", "phone");
    site.chat(&mut alice, "bob", "before");
    // One before it has no answer yet.
    site.close_post("bob", true);
    site.send(&mut alice, named("one"));
    site.send(&mut alice, ask("first"));
    site.run();
    assert_eq!(answers(&mut site, &alice), 1);
    site.say(&alice, Up::Acknowledged { handled: 1 });
    site.run();
    lose_what_was_said(&mut site);
    let mut alice = site.resume(&alice, 1, 1);
    site.advance(15 * SECOND);
    assert_eq!(answers(&mut site, &alice), 0);
    alice.sequence = 2;
    // What she may have said before is not to be found for now, and all behind it waits for that.
    site.store.fail_next_reads(1_000);
    site.send(&mut alice, named("one"));
    site.send(&mut alice, ask("first"));
    site.send(&mut alice, ask("second"));
    site.advance(6 * SECOND);
    assert_eq!(answers(&mut site, &alice), 1, "the one that had none");
    site.store.fail_next_reads(0);
    site.advance(SECOND);
    site.send(&mut alice, ask("first"));
    site.run();
    assert_eq!(answers(&mut site, &alice), 1, "it is another one of the same name");
}

/// It is known again behind a resumption, and its edge is not told while something before it is open.
#[test]
fn what_was_known_to_have_its_answer_is_known_to_the_homes_after_that() {
    for (news, homes) in [(false, 1), (true, 1), (true, 2)] {
        let mut site = Site::new(2);
        site.lively = true;
        let mut alice = site.managed(0, "alice", "phone");
        site.close_post("bob", true);
        site.send(&mut alice, to_bob("one"));
        site.send(&mut alice, ask("first"));
        site.run();
        assert_eq!(answers(&mut site, &alice), 1);
        site.say(&alice, Up::Acknowledged { handled: 1 });
        site.run();
        lose_what_was_said(&mut site);
        let mut alice = site.resume(&alice, 1, 1);
        site.advance(15 * SECOND);
        goes_on(&mut site, &mut alice);
        site.send(&mut alice, to_bob("one"));
        site.send(&mut alice, ask("first"));
        site.run();
        if news {
            // There is something for its edge to remember.
            site.send(&mut alice, Stanza::presence(PresenceType::Available));
            site.run();
        }
        for _ in 0..homes {
            site.succeed("alice");
        }
        assert_eq!(answers(&mut site, &alice), 0, "{news} {homes}");
        site.close_post("bob", false);
        let shard = site.shard("bob");
        site.begin(shard);
        site.advance(SECOND);
        site.send(&mut alice, ask("first"));
        site.run();
        assert_eq!(answers(&mut site, &alice), 1, "it is another one of the same name: {news} {homes}");
    }
}

#[test]
fn a_request_that_has_its_answer_is_not_answered_again() {
    // Whether her client has the answer, and has said so, and how many homes there are before it says the request again.
    let cases = [(false, false, 0), (true, false, 0), (true, true, 0), (true, true, 1), (true, true, 2)];
    for (there, acknowledged, homes) in cases {
        let mut site = Site::new(2);
        site.lively = true;
        let mut alice = site.managed(0, "alice", "phone");
        // One before it has no answer yet.
        site.close_post("bob", true);
        site.send(&mut alice, to_bob("one"));
        site.send(&mut alice, ask("first"));
        site.run();
        assert_eq!(answers(&mut site, &alice), 1);
        if acknowledged {
            site.say(&alice, Up::Acknowledged { handled: 1 });
            site.run();
        }
        lose_what_was_said(&mut site);
        let mut alice = site.resume(&alice, 1, u32::from(there));
        site.advance(15 * SECOND);
        for _ in 0..homes {
            site.succeed("alice");
        }
        let downs = site.told(&alice);
        let is_answer =
            |down: &&Down| matches!(down, Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Iq(_)));
        assert_eq!(downs.iter().filter(is_answer).count(), usize::from(!there), "{downs:?}");
        alice.sequence = 1;
        site.close_post("bob", false);
        site.send(&mut alice, to_bob("one"));
        site.send(&mut alice, ask("first"));
        site.run();
        assert_eq!(answers(&mut site, &alice), 0, "{there} {acknowledged} {homes}");
        site.send(&mut alice, ask("second"));
        site.run();
        assert_eq!(answers(&mut site, &alice), 1);
    }
}
