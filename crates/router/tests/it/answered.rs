//! What has its answer is not decided on again by the next home.

use crate::bench::{chat, jid};
use crate::site::{Client, Site};
use starling_wire::{Down, Up};
use starling_xmpp::{Element, IqType, Kind, MessageType, PresenceType, Stanza};
use std::time::Duration;

fn question() -> Stanza {
    let mut ask = Stanza::iq(IqType::Get).child(Element::new("urn:xmpp:blocking", "blocklist"));
    ask.id = Some("q1".into());
    ask
}

/// What the client was answered, and up to where its stanzas are handled.
fn answers(site: &mut Site, client: &Client) -> (Vec<&'static str>, u64) {
    let (mut answers, mut handled) = (Vec::new(), 0);
    for down in site.told(client) {
        match down {
            Down::Stanza { stanza, .. } => match stanza.kind {
                Kind::Iq(IqType::Result) => answers.push("result"),
                Kind::Iq(IqType::Error) => answers.push("error"),
                Kind::Message(MessageType::Error) => answers.push("refused"),
                _ => {}
            },
            Down::Handled { sequence } => handled = sequence,
            _ => {}
        }
    }
    (answers, handled)
}

#[test]
fn what_is_answered_behind_what_has_no_answer_yet() {
    for homes in 1..3 {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let (bob, carol) = (site.client(0, "bob", "phone"), site.client(0, "carol", "phone"));
        site.close_post("bob", true);
        site.chat(&mut alice, "bob", "one");
        site.send(&mut alice, question());
        site.run();
        // Its row cannot be written at this moment.
        site.grant("alice", false);
        site.chat(&mut alice, "carol", "refused");
        site.grant("alice", true);
        site.send(&mut alice, chat("elsewhere.example", "nowhere"));
        site.run();
        assert_eq!(answers(&mut site, &alice), (vec!["result", "refused", "refused"], 0));
        for _ in 0..homes {
            site.succeed("alice");
        }
        assert_eq!(answers(&mut site, &alice), (Vec::new(), 0), "it was told all of that");
        site.close_post("bob", false);
        let shard = site.shard("bob");
        site.begin(shard);
        site.run();
        assert_eq!(answers(&mut site, &alice), (Vec::new(), 5));
        assert_eq!((site.messages(&bob), site.messages(&carol).len()), (vec!["one".to_owned()], 0));
        assert_eq!(site.rows("alice"), ["one"]);
        // It goes on from there.
        site.chat(&mut alice, "carol", "two");
        assert_eq!((site.messages(&carol), site.handled(&alice)), (vec!["two".to_owned()], 6));
    }
}

#[test]
fn whatever_arrives_of_an_answer_there_is_one() {
    for (count, again) in (0..6).flat_map(|count| [(count, false), (count, true)]) {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let carol = site.client(0, "carol", "phone");
        site.grant("alice", false);
        site.post(&mut alice, "carol", "refused");
        site.grant("alice", true);
        site.send(&mut alice, question());
        for _ in 0..3 {
            site.decide();
        }
        if again {
            // All that is lost with the link, and comes once more.
            site.cut(0);
            site.forget_downs();
            site.link(0);
            for _ in 0..3 {
                site.decide();
            }
        }
        site.deliver_only(count);
        site.succeed("alice");
        let (answers, handled) = answers(&mut site, &alice);
        let all = |answer| answers.iter().filter(|other| **other == answer).count();
        assert_eq!((all("result") + all("error"), handled), (1, 3), "{count} {again}: {answers:?}");
        assert_eq!(all("refused") + site.messages(&carol).len(), 1, "{count} {again}: {answers:?}");
    }
}

/// Whoever asks for something about a session, as for the roster, is told of changes from then on.
#[test]
fn what_an_answer_says_of_a_session_is_so_at_the_next_home() {
    let mut kept = 0;
    for (count, large) in (0..8).flat_map(|count| [(count, false), (count, true)]) {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let mut desk = site.client(0, "alice", "desk");
        if large {
            // So many bytes are not remembered as often as they change.
            for n in 0..200 {
                let address = format!("{}{n}@elsewhere.example", "x".repeat(60));
                let mut presence = Stanza::presence(PresenceType::Available);
                presence.to = Some(starling_xmpp::Jid::parse(&address).unwrap());
                site.send(&mut alice, presence);
            }
            site.run();
        }
        site.told(&alice);
        site.send(&mut alice, question());
        for _ in 0..3 {
            site.decide();
        }
        site.deliver_only(count);
        site.succeed("alice");
        let (answers, _) = answers(&mut site, &alice);
        if answers != ["result"] {
            continue;
        }
        kept += 1;
        let mut subscribe = Stanza::presence(PresenceType::Subscribe);
        subscribe.to = Some(jid("bob").into());
        site.send(&mut desk, subscribe);
        site.run();
        let pushed = |down: &Down| matches!(down, Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Iq(IqType::Set)));
        assert!(site.told(&alice).iter().any(pushed), "{count} arrived, large: {large}");
    }
    assert!(kept > 0);
}

/// A message that its client may send again.
fn named(to: &str, body: &str) -> Stanza {
    let id = Element::new("urn:xmpp:sid:0", "origin-id").attr("id", format!("o-{body}"));
    chat(&format!("{to}@localhost"), body).child(id)
}

/// How often each account has this message.
fn rows(site: &Site, accounts: [&str; 2], message: &str) -> [usize; 2] {
    accounts.map(|account| site.rows(account).iter().filter(|body| *body == message).count())
}

/// Sessions are so old that their clients have nothing to say again of what was before them. Under how many sequences they have
/// spoken since.
fn grows_old(site: &mut Site, alice: &mut Client, old: bool) -> u64 {
    if old {
        site.advance(Duration::from_secs(2_000));
        site.send(alice, named("alice", "to herself"));
        site.run();
        assert_eq!(site.messages(alice), ["to herself"]);
        site.say(alice, Up::Acknowledged { handled: 1 });
        site.run();
    }
    u64::from(old)
}

#[test]
fn what_was_refused_behind_what_has_no_answer_yet_is_known_when_it_comes_again() {
    [false, true].into_iter().for_each(what_was_refused_behind_what_has_no_answer_yet);
}

fn what_was_refused_behind_what_has_no_answer_yet(old: bool) {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let (bob, carol) = (site.client(0, "bob", "phone"), site.client(0, "carol", "phone"));
    let more = grows_old(&mut site, &mut alice, old);
    site.close_post("bob", true);
    site.chat(&mut alice, "bob", "open");
    // It is written, and nobody knows.
    site.store.doubt_next(1);
    site.send(&mut alice, named("carol", "refused"));
    site.run();
    assert_eq!(answers(&mut site, &alice).0, ["refused"]);
    site.say(&alice, Up::Acknowledged { handled: 1 + u32::try_from(more).unwrap() });
    site.succeed("alice");
    site.send(&mut alice, named("carol", "refused"));
    site.close_post("bob", false);
    let shard = site.shard("bob");
    site.begin(shard);
    site.run();
    assert_eq!(answers(&mut site, &alice), (Vec::new(), 4 + more));
    assert_eq!(rows(&site, ["alice", "carol"], "refused"), [1, 1], "old: {old}");
    assert_eq!(
        (site.messages(&carol), site.messages(&bob)),
        (vec!["refused".to_owned()], vec!["open".to_owned()])
    );
}

#[test]
fn what_could_not_be_looked_for_and_was_refused_is_known_when_it_comes_again() {
    [false, true].into_iter().for_each(what_could_not_be_looked_for_and_was_refused);
}

fn what_could_not_be_looked_for_and_was_refused(old: bool) {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let mut carol = site.client(1, "carol", "phone");
    let more = grows_old(&mut site, &mut alice, old);
    site.send(&mut alice, named("carol", "one"));
    for _ in 0..4 {
        site.decide();
        let mail: Vec<_> = site.mail().drain(..).collect();
        for (shard, item) in mail {
            site.hand_mail(shard, item);
        }
    }
    // It has its rows, and its edge is told nothing.
    site.cut(0);
    assert_eq!(rows(&site, ["alice", "carol"], "one"), [1, 1]);
    site.crash("alice");
    let shard = site.shard("alice");
    site.begin(shard);
    // Somebody has the account loaded before her edge is there.
    site.send(&mut carol, Stanza::presence(PresenceType::Probe).to(jid("alice")));
    site.advance(Duration::from_millis(400));
    site.link(0);
    // The log cannot be read for long.
    site.store.fail_next_reads(1_000);
    site.advance(Duration::from_secs(6));
    assert_eq!(answers(&mut site, &alice).0, ["refused"]);
    site.store.fail_next_reads(0);
    site.advance(Duration::from_secs(1));
    site.say(&alice, Up::Acknowledged { handled: 1 + u32::try_from(more).unwrap() });
    site.send(&mut alice, named("carol", "one"));
    site.run();
    assert_eq!(answers(&mut site, &alice), (Vec::new(), 3 + more));
    assert_eq!(rows(&site, ["alice", "carol"], "one"), [1, 1]);
}

#[test]
fn what_was_refused_and_comes_again_more_than_once_is_known() {
    for (at_recipient, old) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let carol = site.client(0, "carol", "phone");
        let more = u32::try_from(grows_old(&mut site, &mut alice, old)).unwrap();
        site.send(&mut alice, named("carol", "one"));
        if at_recipient {
            site.decide();
        }
        // It is written, and nobody knows.
        site.store.doubt_next(1);
        site.run();
        assert_eq!(answers(&mut site, &alice).0, ["refused"]);
        site.succeed("alice");
        // The first time before it says that it has the error.
        site.send(&mut alice, named("carol", "one"));
        site.run();
        let (again, _) = answers(&mut site, &alice);
        site.say(&alice, Up::Acknowledged { handled: 1 + more + u32::try_from(again.len()).unwrap() });
        site.send(&mut alice, named("carol", "one"));
        site.run();
        assert_eq!(answers(&mut site, &alice), (Vec::new(), alice.sequence), "{again:?}");
        assert_eq!(rows(&site, ["alice", "carol"], "one"), [1, 1], "{again:?}");
        assert_eq!(site.messages(&carol), ["one"]);
    }
}
