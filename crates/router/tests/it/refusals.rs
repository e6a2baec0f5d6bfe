//! Refusals between homes of different shards: nothing that followed a message comes before it, once its client says all again.

use crate::between::named;
use crate::site::{Client, Site};
use starling_wire::Shard;
use starling_wire::frame::PeerItem;
use starling_xmpp::{Element, Jid, Kind, MessageType, Stanza, ns};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A client gives its session up, and says these in another one.
fn say_again(site: &mut Site, alice: &Client, numbers: std::ops::Range<usize>) -> Client {
    site.say(alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
    site.run();
    let mut alice = site.client(0, "alice", "phone");
    for n in numbers {
        site.send(&mut alice, named(n));
    }
    site.run();
    alice
}

#[test]
fn nothing_stays_before_what_was_refused_and_its_client_has_not_heard_of() {
    for moved in [false, true] {
        for at_recipient in [false, true] {
            let mut site = Site::new(1);
            let mut alice = site.managed(0, "alice", "phone");
            let bob = site.client(0, "bob", "phone");
            site.chat(&mut alice, "bob", "before");
            site.send(&mut alice, named(0));
            if at_recipient {
                site.decide();
            }
            site.store.fail_next(1);
            site.run();
            assert_eq!(site.messages(&alice), ["!resource-constraint wait"]);
            if moved {
                site.succeed("alice");
            }
            // These were said before, and wait at the edge for a home.
            for n in 1..3 {
                site.send(&mut alice, named(n));
            }
            site.run();
            site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
            site.run();
            // Its client has given the session up, and read nothing.
            let mut alice = site.client(0, "alice", "phone");
            for n in 0..4 {
                site.send(&mut alice, named(n));
            }
            site.run();
            let all = ["before", "0", "1", "2", "3"];
            assert_eq!(site.rows("bob"), all, "moved: {moved}, at recipient: {at_recipient}");
            assert_eq!(site.rows("alice"), all, "moved: {moved}, at recipient: {at_recipient}");
            assert_eq!(site.messages(&bob), all);
        }
    }
}

/// Acknowledgements go on while a home cannot decide, what was said before them waits.
#[test]
fn nothing_is_taken_that_was_said_before_its_client_had_the_error() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.chat(&mut alice, "bob", "before");
    site.store.fail_next(1);
    site.send(&mut alice, named(0));
    site.run();
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"]);
    site.succeed("alice");
    site.advance(SECOND);
    // Her next home has to read its log for what she says, and cannot at first.
    site.store.fail_next_reads(1);
    for n in 1..3 {
        site.send(&mut alice, named(n));
    }
    site.run();
    site.say(&alice, starling_wire::Up::Acknowledged { handled: 1 });
    site.advance(2 * SECOND);
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 2]);
    site.say(&alice, starling_wire::Up::Acknowledged { handled: 3 });
    for n in 0..3 {
        site.send(&mut alice, named(n));
    }
    site.run();
    let all = ["before", "0", "1", "2"];
    assert_eq!(site.rows("alice"), all);
    assert_eq!(site.rows("bob"), all);
    assert_eq!(site.messages(&bob), all);
}

/// It waits for a home that cannot decide, or for one that is not there, while its client acknowledges the error.
#[test]
fn nor_does_the_next_home_take_it() {
    for how in ["it is lost", "it is moved", "it was lost"] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        site.chat(&mut alice, "bob", "before");
        // Nothing is looked for in the log any more.
        site.advance(2_000 * SECOND);
        site.store.fail_next(1);
        site.store.fail_next_reads(99);
        site.send(&mut alice, named(0));
        site.run();
        assert_eq!(site.messages(&alice), ["!resource-constraint wait"], "{how}");
        if how == "it was lost" {
            site.crash("alice");
        }
        for n in 1..3 {
            site.send(&mut alice, named(n));
        }
        site.run();
        site.say(&alice, starling_wire::Up::Acknowledged { handled: 1 });
        site.run();
        assert_eq!(site.messages(&alice), [""; 0], "{how}");
        site.store.fail_next_reads(0);
        if how == "it is moved" {
            site.hand_on("alice");
        } else {
            site.succeed("alice");
        }
        // This it says when it has heard of the first.
        site.send(&mut alice, named(0));
        site.run();
        assert_eq!(site.messages(&alice).len(), 3, "{how}");
        site.say(&alice, starling_wire::Up::Acknowledged { handled: 4 });
        for n in 0..4 {
            site.send(&mut alice, named(n));
        }
        site.run();
        assert_eq!(site.messages(&alice), [""; 0], "{how}");
        let all = ["before", "0", "1", "2", "3"];
        assert_eq!(
            (site.rows("alice"), site.rows("bob")),
            (all.map(str::to_owned).into(), all.map(str::to_owned).into()),
            "{how}"
        );
        assert_eq!(site.messages(&bob), all, "{how}");
    }
}

/// What was refused has its row at the sender's, and is said again to a home that knows nothing of that and refuses it as well: in
/// the same session, and then in another one.
#[test]
fn what_several_homes_have_refused_has_one_row() {
    for at_recipient in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        site.chat(&mut alice, "bob", "before");
        for n in 0..2 {
            site.send(&mut alice, named(n));
        }
        site.decide();
        if at_recipient {
            // It has its row there, too, and only its receipt is lost.
            let mail: Mail = site.mail().drain(..).collect();
            mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
            site.decide();
        }
        assert_eq!(site.lose_mail(), 2);
        site.close_post("bob", true);
        site.advance(11 * SECOND);
        assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 2]);
        site.succeed("alice");
        for n in 0..2 {
            site.send(&mut alice, named(n));
        }
        site.run();
        site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
        site.run();
        site.close_post("bob", false);
        let mut alice = site.client(0, "alice", "phone");
        for n in 0..3 {
            site.send(&mut alice, named(n));
        }
        site.run();
        let all = ["before", "0", "1", "2"];
        assert_eq!(site.rows("alice"), all, "at recipient: {at_recipient}");
        assert_eq!(site.rows("bob"), all, "at recipient: {at_recipient}");
        assert_eq!(site.messages(&bob), all, "at recipient: {at_recipient}");
    }
}

type Mail = Vec<(Shard, PeerItem)>;

/// The recipient's home has what is under way, and cannot keep the first of it: its refusal, and the rest.
fn refuse_the_first(site: &mut Site) -> (Mail, Mail) {
    let mut mail: Mail = site.mail().drain(..).collect();
    let (shard, first) = mail.remove(0);
    site.store.fail_next(1);
    site.hand_mail(shard, first);
    site.decide();
    let refusal: Mail = site.mail().drain(..).collect();
    assert!(matches!(refusal[..], [(_, PeerItem::Receipt(_))]), "{refusal:?}");
    (refusal, mail)
}

#[test]
fn nothing_is_taken_behind_what_the_recipients_home_has_refused() {
    for how in ["they come later", "they come first", "its home is lost", "both are lost", "one has no name"]
    {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "before");
        for n in 0..4 {
            if n == 1 && how == "one has no name" {
                site.post(&mut alice, "bob", "1");
            } else {
                site.send(&mut alice, named(n));
            }
            site.decide();
        }
        let (refusal, mail) = refuse_the_first(&mut site);
        // The others are on their way, and its doubt is over.
        match how {
            "its home is lost" | "both are lost" => {
                refusal.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
                site.decide();
                if how == "both are lost" {
                    site.run();
                    site.succeed("alice");
                }
                site.succeed("bob");
            }
            "they come first" => {
                mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
                site.decide();
                refusal.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
            }
            _ => refusal.into_iter().chain(mail).for_each(|(shard, item)| site.hand_mail(shard, item)),
        }
        site.run();
        let refused = site.messages(&alice);
        let kept = usize::from(how == "one has no name");
        assert_eq!(refused, vec!["!resource-constraint wait"; 4 - kept], "{how}");
        assert_eq!(site.rows("bob").len(), 1 + kept, "{how}");
        // Its client gives the session up, and has read nothing.
        let alice = say_again(&mut site, &alice, 0..5);
        if kept == 0 {
            let all = ["before", "0", "1", "2", "3", "4"];
            assert_eq!(site.rows("bob"), all, "{how}");
            assert_eq!(site.messages(&bob), all, "{how}");
            assert_eq!(site.rows("alice"), all, "{how}");
        } else {
            assert_eq!(site.rows("bob"), ["before", "1", "0", "1", "2", "3", "4"]);
        }
        assert_eq!(site.messages(&alice), [""; 0], "{how}");
    }
}

/// It is being written when that is refused, and by then its session is over.
#[test]
fn nor_does_it_leave_when_its_session_is_over() {
    for how in ["its home is there", "its home is lost"] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "before");
        site.send(&mut alice, named(0));
        site.decide();
        let (refusal, _) = refuse_the_first(&mut site);
        site.store.hold();
        site.send(&mut alice, named(1));
        site.decide();
        site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
        let mut alice = site.connect(0, "alice", "phone");
        site.decide();
        refusal.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
        site.decide();
        if how == "its home is lost" {
            site.succeed("bob");
        }
        site.store.release();
        site.run();
        assert_eq!(site.rows("bob"), ["before"], "{how}");
        for n in 0..2 {
            site.send(&mut alice, named(n));
        }
        site.run();
        let all = ["before", "0", "1"];
        assert_eq!(site.rows("bob"), all, "{how}");
        assert_eq!(site.rows("alice"), all, "{how}");
        assert_eq!(site.messages(&bob), all, "{how}");
    }
}

#[test]
fn what_a_client_says_when_it_has_heard_of_a_refusal_is_taken() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    for n in 0..3 {
        site.send(&mut alice, named(n));
        site.decide();
    }
    let (refusal, mail) = refuse_the_first(&mut site);
    // Of the refusals of those behind it nothing is heard.
    mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
    site.decide();
    assert_eq!(site.lose_mail(), 2);
    refusal.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
    site.run();
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 3]);
    for n in 0..4 {
        site.send(&mut alice, named(n));
    }
    site.run();
    assert_eq!(site.messages(&alice), [""; 0]);
    assert_eq!(site.rows("bob"), ["0", "1", "2", "3"]);
    assert_eq!(site.messages(&bob), ["0", "1", "2", "3"]);
}

#[test]
fn who_is_not_answered_in_time_has_nothing_taken_behind_that() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.close_post("bob", true);
    site.send(&mut alice, named(0));
    site.advance(4 * SECOND);
    site.send(&mut alice, named(1));
    site.advance(7 * SECOND);
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 2]);
    site.close_post("bob", false);
    site.succeed("bob");
    say_again(&mut site, &alice, 0..3);
    assert_eq!(site.rows("bob"), ["0", "1", "2"]);
    assert_eq!(site.messages(&bob), ["0", "1", "2"]);
}

#[test]
fn nothing_is_decided_behind_what_is_about_to_be_refused() {
    // The answer to the first follows what was decided before it, and that is not confirmed yet.
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    // Nothing is looked for in the log any more.
    site.advance(2_000 * SECOND);
    site.store.hold();
    site.post(&mut alice, "carol", "under way");
    site.decide();
    for n in 0..2 {
        site.grant("alice", n > 0);
        site.send(&mut alice, named(n));
        site.decide();
    }
    site.store.release();
    site.run();
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 2]);
    assert_eq!(site.rows("alice"), ["under way"]);
}

#[test]
fn nor_is_it_at_the_recipients_home() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.client(0, "bob", "phone");
    site.advance(2_000 * SECOND);
    for n in 0..2 {
        site.send(&mut alice, named(n));
        site.decide();
    }
    let mail: Vec<_> = site.mail().drain(..).collect();
    site.store.hold();
    site.post(&mut bob, "carol", "under way");
    site.decide();
    for (n, (shard, item)) in mail.into_iter().enumerate() {
        site.grant("bob", n > 0);
        site.hand_mail(shard, item);
        site.decide();
    }
    site.store.release();
    site.run();
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 2]);
    assert_eq!(site.rows("bob"), ["under way"]);
}

#[test]
fn a_message_that_was_refused_does_not_come_behind_what_followed_it() {
    for moved in [false, true] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.client(0, "bob", "phone");
        for n in 0..2 {
            site.post(&mut alice, "bob", &n.to_string());
            site.decide();
        }
        let (_lost, mail) = refuse_the_first(&mut site);
        mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
        site.decide();
        site.lose_mail();
        assert_eq!(site.rows("bob"), ["1"]);
        if moved {
            site.succeed("bob");
        }
        site.advance(6 * SECOND);
        assert_eq!(site.messages(&alice), ["!resource-constraint wait"], "moved: {moved}");
        assert_eq!(site.rows("bob"), ["1"], "moved: {moved}");
        assert_eq!(site.messages(&bob), ["1"], "moved: {moved}");
        assert_eq!(site.handled(&alice), 0);
        site.chat(&mut alice, "bob", "2");
        assert_eq!(site.messages(&bob), ["2"]);
    }
}

#[test]
fn a_client_that_resumes_has_not_heard_of_what_was_refused_before() {
    for moved in [false, true] {
        let mut site = Site::new(2);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.client(1, "bob", "phone");
        site.store.fail_next(1);
        site.send(&mut alice, named(0));
        site.run();
        assert_eq!(site.messages(&alice), ["!resource-constraint wait"]);
        site.lose(&alice);
        if moved {
            site.succeed("alice");
        }
        site.advance(20 * SECOND);
        let mut alice = site.resume(&alice, 1, 0);
        site.advance(3 * SECOND);
        // These it had said, too, and says again before it reads on.
        for n in 1..3 {
            site.send(&mut alice, named(n));
        }
        site.run();
        assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 3], "moved: {moved}");
        if moved {
            // The next home does not know what the last one has refused.
            for n in 0..3 {
                site.send(&mut alice, named(n));
            }
            site.run();
            assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 3]);
            site.say(&alice, starling_wire::Up::Acknowledged { handled: 6 });
        }
        for n in 0..3 {
            site.send(&mut alice, named(n));
        }
        site.run();
        assert_eq!(site.messages(&bob), ["0", "1", "2"], "moved: {moved}");
        assert_eq!(site.rows("bob"), ["0", "1", "2"], "moved: {moved}");
    }
}

/// The store is away, and its client has acknowledged all errors but the last.
#[test]
fn a_client_has_as_long_for_the_last_refusal_as_for_the_first() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.chat(&mut alice, "bob", "before");
    for n in 0..5 {
        site.store.fail_next_reads(99);
        site.send(&mut alice, named(n));
        site.advance(2 * SECOND);
        assert_eq!(site.messages(&alice), ["!resource-constraint wait"], "{n}");
        if n < 4 {
            site.say(&alice, starling_wire::Up::Acknowledged { handled: n as u32 + 1 });
        }
    }
    site.store.fail_next_reads(0);
    site.advance(SECOND);
    site.send(&mut alice, named(5));
    site.run();
    let alice = say_again(&mut site, &alice, 4..7);
    assert_eq!(
        (site.messages(&bob), site.messages(&alice)),
        (vec!["before".to_owned(), "4".into(), "5".into(), "6".into()], vec![])
    );
}

/// It has read the first error only, when it says the first one again and something new.
#[test]
fn who_has_heard_of_one_refusal_has_not_heard_of_all() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.chat(&mut alice, "bob", "before");
    site.store.overload_next(1);
    site.send(&mut alice, named(0));
    site.run();
    for n in [1, 0, 2] {
        site.send(&mut alice, named(n));
    }
    site.run();
    say_again(&mut site, &alice, 1..4);
    let all = ["before", "0", "1", "2", "3"];
    assert_eq!(
        (site.messages(&bob), site.rows("alice")),
        (all.map(str::to_owned).into(), all.map(str::to_owned).into())
    );
}

/// It has no row at its sender's that could fail with that one's.
#[test]
fn what_follows_a_message_without_a_row_of_its_own_does_not_overtake_it() {
    let mut site = Site::new(1);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.chat(&mut alice, "bob", "before");
    let fleeting = |n| named(n).child(Element::new(ns::HINTS, "no-permanent-store"));
    site.store.overload_next(1);
    site.send(&mut alice, named(0));
    site.send(&mut alice, fleeting(1));
    site.run();
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"; 2]);
    site.send(&mut alice, named(0));
    site.send(&mut alice, fleeting(1));
    site.run();
    assert_eq!(site.messages(&bob), ["before", "0", "1"]);
}

/// Its recipient's edge has yet to name the session that it is for; its sender's log has it all the same.
#[test]
fn what_is_to_wait_for_a_session_has_one_row_at_its_sender_however_often_it_is_sent() {
    for case in ["here", "another home", "another session"] {
        let mut site = Site::new(2);
        // Nothing of before could be said again.
        site.advance(2_000 * SECOND);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        site.cut(1);
        site.succeed("bob");
        site.advance(Duration::from_millis(500));
        let to = Jid::parse("bob@localhost/phone").unwrap();
        let normal = |n| Stanza { kind: Kind::Message(MessageType::Normal), ..named(n).to(to.clone()) };
        for _ in 0..3 {
            site.send(&mut alice, normal(0));
            site.run();
            let errors = site.told(&alice).into_iter().filter_map(crate::moves::error).collect::<Vec<_>>();
            assert_eq!(errors, ["wait recipient-unavailable"], "{case}");
            match case {
                "here" => {}
                "another home" => site.succeed("alice"),
                _ => {
                    site.say(&alice, starling_wire::Up::Gone(starling_wire::Leave::Lost));
                    site.run();
                    alice = site.managed(0, "alice", "phone");
                }
            }
            assert_eq!(site.rows("alice"), ["0"], "{case}");
        }
        // Nothing else is refused for that.
        site.send(&mut alice, normal(1));
        site.send(&mut alice, named(2));
        site.run();
        site.link(1);
        site.run();
        site.send(&mut alice, normal(0));
        site.send(&mut alice, normal(1));
        site.run();
        assert_eq!(site.rows("alice"), ["0", "1", "2"], "{case}");
        assert_eq!(site.rows("bob"), ["2", "0", "1"], "{case}");
        assert_eq!(site.messages(&bob), ["2", "0", "1"], "{case}");
    }
}
