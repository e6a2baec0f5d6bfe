//! Between homes of different shards: each message once and in order, whatever is lost on its way.

use crate::bench::chat;
use crate::site::Site;
use starling_wire::Down;
use starling_wire::frame::{Pair, PeerItem};
use starling_xmpp::{Kind, MessageType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn forwards_that_are_lost_go_again_in_order() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.chat(&mut alice, "bob", "0");
    for n in 1..5 {
        site.post(&mut alice, "bob", &n.to_string());
        site.decide();
        if n < 3 {
            assert_eq!(site.lose_mail(), 1);
        }
    }
    site.run();
    assert_eq!(site.messages(&bob), ["0", "1", "2", "3", "4"], "what came too early asked for what had not");
    assert_eq!(site.handled(&alice), 6);
}

#[test]
fn what_has_no_receipt_goes_again_after_a_while() {
    for receipt in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        site.post(&mut alice, "bob", "hello");
        site.decide();
        if receipt {
            let mail: Vec<_> = site.mail().drain(..).collect();
            for (shard, item) in mail {
                site.hand_mail(shard, item);
            }
            site.decide();
            assert!(matches!(site.mail().front(), Some((_, PeerItem::Receipt(_)))));
        }
        assert_eq!(site.lose_mail(), 1);
        site.advance(4 * SECOND);
        assert_eq!(site.handled(&alice), 0);
        site.advance(2 * SECOND);
        assert_eq!(site.handled(&alice), 2, "receipt: {receipt}");
        assert_eq!(site.messages(&bob), ["hello"]);
        assert_eq!(site.rows("bob"), ["hello"]);
    }
}

#[test]
fn a_refusal_whose_receipt_is_lost_stays_one() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    let mut refused = Stanza::message(MessageType::Groupchat);
    refused.to = Some(starling_xmpp::Jid::parse("bob@localhost").unwrap());
    site.send(&mut alice, refused);
    site.post(&mut alice, "bob", "behind it");
    site.decide();
    let mail: Vec<_> = site.mail().drain(..).collect();
    for (shard, item) in mail {
        site.hand_mail(shard, item);
    }
    site.decide();
    assert_eq!(site.lose_mail(), 2);
    site.advance(6 * SECOND);
    let errors: Vec<_> = site.messages(&alice);
    assert!(errors.len() == 1 && errors[0].contains("service-unavailable"), "{errors:?}");
    assert_eq!(site.messages(&bob), ["behind it"]);
    assert_eq!(site.rows("bob"), ["behind it"]);
}

#[test]
fn the_next_home_of_the_recipient_decides_each_once() {
    for committed in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "first");
        for n in 0..3 {
            site.post(&mut alice, "bob", &n.to_string());
        }
        site.decide();
        if committed {
            let mail: Vec<_> = site.mail().drain(..).collect();
            for (shard, item) in mail {
                site.hand_mail(shard, item);
            }
            site.decide();
            site.decide();
            site.forget_downs();
            assert_eq!(site.rows("bob").len(), 4);
        }
        site.lose_mail();
        site.succeed("bob");
        assert_eq!(site.messages(&bob), ["first", "0", "1", "2"], "committed: {committed}");
        assert_eq!(site.rows("bob"), ["first", "0", "1", "2"]);
        assert_eq!(site.handled(&alice), 5);
    }
}

#[test]
fn both_homes_may_move() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    for n in 0..5 {
        site.post(&mut alice, "bob", &n.to_string());
        site.decide();
        match n {
            0 => site.succeed("alice"),
            1 => site.succeed("bob"),
            2 => {
                site.crash("bob");
                site.succeed("alice");
                let shard = site.shard("bob");
                site.begin(shard);
            }
            3 => {
                site.lose_mail();
                site.succeed("alice");
            }
            _ => {}
        }
        site.run();
    }
    site.advance(6 * SECOND);
    assert_eq!(site.messages(&bob), ["0", "1", "2", "3", "4"]);
    assert_eq!(site.rows("alice"), ["0", "1", "2", "3", "4"]);
    assert_eq!(site.rows("bob"), ["0", "1", "2", "3", "4"]);
    assert_eq!(site.handled(&alice), 6);
}

#[test]
fn requests_to_a_shard_without_a_home_are_answered() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    site.close_post("bob", true);
    let mut ask =
        Stanza::iq(starling_xmpp::IqType::Get).child(starling_xmpp::Element::new("urn:xmpp:ping", "ping"));
    (ask.id, ask.to) = (Some("q1".into()), Some(starling_xmpp::Jid::parse("bob@localhost/phone").unwrap()));
    site.send(&mut alice, ask);
    site.run();
    let downs = site.told(&alice);
    let answered = downs.iter().any(|down| match down {
        Down::Stanza { stanza, .. } => {
            matches!(stanza.kind, Kind::Iq(_))
                && crate::stage::condition(stanza) == "!resource-constraint wait"
        }
        _ => false,
    });
    assert!(answered, "{downs:?}");
    // A message waits for the home, and its sender is answered in time.
    site.chat(&mut alice, "bob", "hello");
    site.advance(7 * SECOND);
    assert!(site.messages(&alice).is_empty());
    site.advance(4 * SECOND);
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"]);
}

#[test]
fn what_a_session_had_said_arrives_when_it_has_ended() {
    for moved in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        let book = site.books[usize::from(site.shard("alice").0)].clone();
        for n in 0..3 {
            site.post(&mut alice, "bob", &n.to_string());
        }
        site.decide();
        assert_eq!(site.lose_mail(), 3);
        site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Closed));
        site.decide();
        site.lose_mail();
        if moved {
            site.succeed("alice");
        }
        site.advance(6 * SECOND);
        assert_eq!(site.messages(&bob), ["0", "1", "2"], "moved: {moved}");
        assert_eq!(site.rows("bob"), ["0", "1", "2"]);
        assert_eq!(site.rows("alice"), ["0", "1", "2"]);
        site.advance(SECOND);
        assert_eq!((site.kept(0), book.edges().len()), (1, 0), "nothing is left of it");
    }
}

/// A message that its client may send again.
pub(crate) fn named(n: usize) -> Stanza {
    let id = starling_xmpp::Element::new(starling_xmpp::ns::SID, "origin-id").attr("id", format!("o{n}"));
    chat("bob@localhost", &n.to_string()).child(id)
}

#[test]
fn the_log_is_not_read_for_every_message_after_a_session_was_lost() {
    let mut site = Site::new(1);
    let bob = site.client(0, "bob", "phone");
    let mut alice = site.client(0, "alice", "phone");
    for n in 0..3 {
        site.send(&mut alice, named(n));
    }
    site.run();
    site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
    site.run();
    let mut alice = site.client(0, "alice", "phone");
    let before = site.store.pages();
    for n in 1..40 {
        site.send(&mut alice, named(n));
        site.decide();
        // Each is a little longer on its way: to the recipient's home, its session seems to have been lost a little later.
        site.clock.advance(Duration::from_millis(n as u64));
        site.run();
    }
    let all: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!((site.rows("bob"), site.messages(&bob)), (all.clone(), all));
    let read = site.store.pages() - before - 1;
    assert!((1..=6).contains(&read), "{read} pages");
    // What was decided since is looked for when it comes once more.
    site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
    site.run();
    let mut alice = site.client(0, "alice", "phone");
    let before = site.store.pages();
    for n in 20..60 {
        site.send(&mut alice, named(n));
        site.decide();
        site.clock.advance(Duration::from_millis(n as u64));
        site.run();
    }
    let all: Vec<_> = (0..60).map(|n| n.to_string()).collect();
    assert_eq!((site.rows("alice"), site.rows("bob")), (all.clone(), all));
    let read = site.store.pages() - before - 2;
    assert!((1..=6).contains(&read), "{read} pages");
}

/// The time without a home is not to grow with the log: of a session that was there before its home, no more is looked for than
/// what it had under way.
#[test]
fn the_next_home_does_not_read_the_log_for_what_is_new() {
    for lost in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.managed(0, "bob", "phone");
        site.advance(Duration::from_secs(2_000));
        for n in 0..3 {
            site.send(&mut alice, named(n));
            site.run();
        }
        assert_eq!(site.messages(&bob), ["0", "1", "2"]);
        if lost {
            // Another session of hers, of which this one's client may say something again.
            let mut tablet = site.client(0, "alice", "tablet");
            site.send(&mut tablet, named(3));
            site.run();
            site.say(&tablet, starling_wire::Up::Gone(starling_wire::Leave::Lost));
            site.run();
            assert_eq!(site.messages(&bob), ["3"]);
        }
        site.say(&bob, starling_wire::Up::Acknowledged { handled: 3 + u32::from(lost) });
        site.advance(5 * SECOND);
        site.succeed("alice");
        site.succeed("bob");
        site.advance(SECOND);
        let before = site.store.pages();
        for n in [3, 4, 5] {
            site.send(&mut alice, named(n));
            site.run();
        }
        assert_eq!(site.store.pages() > before, lost, "lost: {lost}");
        let all: Vec<_> = (0..6).map(|n| n.to_string()).collect();
        assert_eq!((site.rows("alice"), site.rows("bob")), (all.clone(), all.clone()));
        assert_eq!(site.messages(&bob), all[3 + usize::from(lost)..]);
    }
}

/// The same, which its sender does not keep.
fn unkept(n: usize) -> Stanza {
    named(n).child(starling_xmpp::Element::new("urn:xmpp:hints", "no-permanent-store"))
}

#[test]
fn what_a_home_before_refused_and_is_said_again_in_the_same_session_is_known() {
    for message in [named, unkept] {
        for (at_recipient, both) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut site = Site::new(1);
            let mut alice = site.managed(0, "alice", "phone");
            let bob = site.client(0, "bob", "phone");
            site.send(&mut alice, message(0));
            if at_recipient {
                site.decide();
            }
            // It is written, and nobody knows.
            site.store.doubt_next(1);
            site.run();
            assert_eq!(site.messages(&alice), ["!resource-constraint wait"]);
            site.say(&alice, starling_wire::Up::Acknowledged { handled: 1 });
            site.run();
            site.succeed("alice");
            if both {
                site.succeed("bob");
            }
            site.send(&mut alice, message(1));
            site.send(&mut alice, message(0));
            site.send(&mut alice, message(2));
            site.run();
            let case = format!("{at_recipient}, {both}, {}", site.rows("alice").len());
            let mut rows = site.rows("bob");
            rows.sort_unstable();
            assert_eq!(rows, ["0", "1", "2"], "{case}");
            let mut rows = site.rows("alice");
            rows.sort_unstable();
            rows.dedup();
            assert!(rows.len() == site.rows("alice").len(), "{case}");
            let mut seen = site.messages(&bob);
            seen.sort_unstable();
            assert_eq!(seen, ["0", "1", "2"], "{case}");
            assert_eq!(site.messages(&alice), [""; 0]);
        }
    }
}

#[test]
fn what_a_client_means_anew_is_new() {
    for moved in [true, false] {
        let mut site = Site::new(1);
        if !moved {
            // Nobody has lost anything.
            site.advance(2_000 * SECOND);
        }
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        if moved {
            site.succeed("alice");
        }
        // Not what XEP-0359 asks for, but no reason to lose anything.
        for _ in 0..2 {
            site.send(&mut alice, named(0));
            site.run();
        }
        assert_eq!(site.messages(&bob), ["0", "0"]);
    }
}

/// What a session has sent goes on without it, whatever other devices of its account do.
#[test]
fn what_was_sent_before_a_session_ended_goes_on_when_another_device_comes() {
    for (managed, comes) in [false, true].into_iter().flat_map(|managed| {
        ["nobody", "tablet", "phone", "phone again", "other again"].map(|comes| (managed, comes))
    }) {
        let mut site = Site::new(1);
        let mut alice =
            if managed { site.managed(0, "alice", "phone") } else { site.client(0, "alice", "phone") };
        let bob = site.client(0, "bob", "phone");
        site.send(&mut alice, named(0));
        site.decide();
        assert_eq!(site.lose_mail(), 1);
        site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Closed));
        site.run();
        let mut expected = vec!["0", "1"];
        if comes != "nobody" {
            let (resource, again) = comes.split_once(' ').unwrap_or((comes, ""));
            let mut next = site.client(0, "alice", resource);
            if again == "again" {
                site.send(&mut next, named(0));
            } else if managed && comes == "phone" {
                // Its client has had no answer, and does not want to say it again.
                expected.remove(0);
            }
            site.send(&mut next, named(1));
            site.run();
        } else {
            expected.pop();
        }
        if comes == "tablet" {
            // There is no order between devices.
            expected.reverse();
        }
        site.advance(6 * SECOND);
        assert_eq!(site.messages(&bob), expected, "{comes}, managed: {managed}");
        assert_eq!(site.rows("bob"), expected, "{comes}, managed: {managed}");
    }
}

/// It has told the sender's home, which is lost before its client has heard of that.
#[test]
fn what_a_home_before_has_refused_is_not_taken_for_done() {
    for unsure in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let before = alice.sequence;
        let mut message = chat("bob@localhost", "refused");
        if !unsure {
            message.kind = Kind::Message(MessageType::Groupchat);
        }
        site.send(&mut alice, message);
        site.decide();
        if unsure {
            site.store.fail_next(1);
        }
        for _ in 0..2 {
            let mail: Vec<_> = site.mail().drain(..).collect();
            assert_eq!(mail.len(), 1);
            mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
            site.decide();
        }
        site.forget_downs();
        site.succeed("bob");
        site.post(&mut alice, "bob", "behind it");
        site.decide();
        let mail: Vec<_> = site.mail().drain(..).collect();
        mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
        site.decide();
        assert_eq!(site.lose_mail(), 1);
        site.forget_downs();
        // Its edge says both again.
        site.succeed("alice");
        let told = site.told(&alice);
        let refused = told.iter().filter(|down| matches!(down, Down::Stanza { .. })).count();
        assert_eq!(refused, 1, "unsure: {unsure}, {told:?}");
        let all = |down: &Down| matches!(down, Down::Handled { sequence } if *sequence == before + 2);
        let handled = told.iter().any(all);
        assert!(handled, "unsure: {unsure}, {told:?}");
        assert_eq!(site.rows("bob"), ["behind it"], "unsure: {unsure}");
    }
}

/// What is lost on its way, or has found no room, goes again; what its address says in its next session does not come before it.
#[test]
fn what_the_session_before_had_sent_is_not_overtaken() {
    for how in ["nothing", "the first", "both", "no room", "a new home", "the first, in a third session"] {
        let mut site = Site::new(1);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        site.chat(&mut alice, "bob", "before");
        for n in 0..2 {
            site.send(&mut alice, named(n));
        }
        site.decide();
        assert_eq!(site.lose_mail(), 2);
        site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
        site.run();
        let mut next = site.client(0, "alice", "phone");
        site.send(&mut next, named(2));
        site.decide();
        if how == "the first, in a third session" {
            site.say(&next, starling_wire::Up::Gone(starling_wire::Leave::Lost));
            site.decide();
            next = site.connect(0, "alice", "phone");
            site.decide();
        }
        site.send(&mut next, named(3));
        site.decide();
        let lost = match how {
            "nothing" | "a new home" => 0,
            "both" => 2,
            _ => 1,
        };
        let lost: Vec<_> = (0..lost).filter_map(|_| site.mail().pop_front()).collect();
        if how == "no room" {
            for (_, item) in lost {
                let PeerItem::Forward(forward) = item else { panic!("{item:?}") };
                let (ticket, shard) = (forward.ticket.unwrap(), site.shard("alice"));
                let (sender, token, recipient) = (ticket.sender, ticket.token, forward.account);
                let pair = Pair { shard, sender, token, recipient };
                site.hand_mail(shard, PeerItem::Busy(Box::new(pair), ticket.sequence));
            }
        }
        if how == "a new home" {
            site.succeed("bob");
        }
        site.run();
        site.advance(if how == "nothing" { Duration::ZERO } else { 6 * SECOND });
        let all = ["before", "0", "1", "2", "3"];
        assert_eq!(site.rows("bob"), all, "{how}");
        assert_eq!(site.messages(&bob), all, "{how}");
    }
}

/// It waits for what the session before had sent, and goes for the first time then.
#[test]
fn what_no_log_keeps_comes_behind_what_the_session_before_had_sent() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.send(&mut alice, named(0));
    site.decide();
    site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
    let mut alice = site.connect(0, "alice", "phone");
    site.decide();
    let mut state = Stanza::message(MessageType::Chat);
    state.to = Some(starling_xmpp::Jid::parse("bob@localhost/phone").unwrap());
    site.send(
        &mut alice,
        state.child(starling_xmpp::Element::new("http://jabber.org/protocol/chatstates", "composing")),
    );
    site.run();
    assert_eq!(site.messages(&bob), ["0", ""]);
}
