//! Commits whose outcome nobody knows: whoever waits gets an answer, and the home takes over what the store has.

use crate::bench::{chat, jid};
use crate::stage::{Client, Stage, condition, now};
use starling_store::{Position, Reign, Store};
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Element, IqType, PresenceType, Stanza, ns};
use std::time::Duration;

pub(crate) const REFUSED: &str = "!resource-constraint wait";

/// What becomes of a commit that is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Written,
    Lost,
    Late,
}

impl Fate {
    /// Of the next commit.
    pub(crate) fn befalls(self, stage: &Stage) {
        match self {
            Self::Written => stage.store.inner.doubt_next(1),
            Self::Lost => stage.store.inner.fail_next(1),
            Self::Late => stage.store.inner.late_next(1),
        }
    }
}

/// A message from alice to bob whose row at bob's is not confirmed.
fn doubtful(stage: &mut Stage, alice: &mut Client, body: &str, fate: Fate) {
    stage.store.hold("alice");
    stage.chat(alice, "bob", body);
    fate.befalls(stage);
    stage.store.release("alice");
    stage.run();
}

#[test]
fn a_row_that_turns_out_to_be_there_comes_like_any_other() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let (bob, tablet) = (stage.client("bob"), stage.device("bob", "tablet"));
    stage.chat(&mut alice, "bob", "before");
    assert_eq!(stage.messages(&bob), ["before"]);
    assert_eq!(stage.messages(&tablet), ["before"]);
    stage.handled(&alice);
    stage.store.hold("alice");
    stage.chat(&mut alice, "bob", "written");
    stage.chat(&mut alice, "bob", "meanwhile");
    stage.store.inner.hold();
    stage.store.inner.doubt_next(1);
    stage.store.answer("alice", 0);
    stage.run();
    // This one is confirmed, by a home that is in doubt on the one before.
    stage.store.release("alice");
    stage.run();
    assert_eq!(stage.store.inner.held(), 2);
    stage.store.inner.release_next(1);
    stage.run();
    assert_eq!(stage.handled(&alice).1, [REFUSED]);
    stage.store.inner.release_next(1);
    stage.store.inner.fail_next_reads(1);
    stage.run();
    assert_eq!(stage.handled(&alice), (4, vec![]));
    assert!(stage.messages(&bob).is_empty(), "overtook what is in doubt");
    stage.store.inner.release();
    stage.chat(&mut alice, "bob", "after");
    stage.advance(Duration::from_secs(1));
    // The one that its sender was not promised comes first, as it stands in the log.
    for device in [&bob, &tablet] {
        assert_eq!(stage.messages(device), ["written", "meanwhile", "after"]);
    }
    assert_eq!(stage.handled(&alice), (5, vec![]));
    assert_eq!(stage.rows("bob"), ["before", "written", "meanwhile", "after"]);
}

#[test]
fn a_row_that_was_not_written_never_comes() {
    for fate in [Fate::Lost, Fate::Late] {
        let mut stage = Stage::new();
        let mut alice = stage.client("alice");
        let bob = stage.client("bob");
        doubtful(&mut stage, &mut alice, "lost", fate);
        stage.chat(&mut alice, "bob", "next");
        stage.store.inner.arrive();
        stage.chat(&mut alice, "bob", "last");
        assert_eq!(stage.messages(&bob), ["next", "last"]);
        assert_eq!(stage.handled(&alice), (4, vec![REFUSED.to_owned()]));
        assert_eq!(stage.rows("bob"), ["next", "last"]);
        let floors = stage.store.floors("bob");
        assert_eq!(floors.len(), 2, "loaded once more");
        assert!(floors[1] > floors[0]);
    }
}

#[test]
fn a_message_that_may_have_been_sent_before_does_not_wait_for_ever() {
    for away in [0, 1] {
        let mut stage = Stage::new();
        let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
        stage.chat(&mut alice, "bob", "first");
        stage.store.hold("alice");
        stage.store.inner.fail_next(1);
        stage.chat(&mut alice, "carol", "in doubt");
        // The tail is to be read for this one, behind what turns out to be in doubt.
        let id = Element::new(ns::SID, "origin-id").attr("id", "o1");
        stage.send(&mut alice, chat("bob@localhost", "behind").child(id));
        stage.run();
        stage.store.inner.fail_next_reads(away);
        stage.store.release("alice");
        stage.run();
        stage.chat(&mut alice, "bob", "after");
        stage.advance(Duration::from_secs(1));
        let behind = if away == 0 { vec!["behind"] } else { vec![] };
        assert_eq!(stage.messages(&bob), [vec!["first"], behind, vec!["after"]].concat());
        assert_eq!(stage.handled(&alice), (5, vec![REFUSED.to_owned(); 1 + away]));
    }
}

#[test]
fn what_was_refused_one_by_one_is_recognised_by_one_look_at_the_log() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.advance(Duration::from_secs(2_000));
    let message = |n: usize| {
        let id = Element::new(ns::SID, "origin-id").attr("id", format!("m{n}"));
        chat("bob@localhost", &format!("m{n}")).child(id)
    };
    stage.chat(&mut alice, "bob", "before");
    stage.advance(Duration::from_secs(2));
    for n in 0..20 {
        stage.store.inner.fail_next(1);
        stage.send(&mut alice, message(n));
        stage.advance(Duration::from_secs(2));
        stage.reads(&alice);
    }
    assert_eq!(stage.messages(&alice), vec![REFUSED; 20]);
    let before = stage.store.tails();
    for n in 0..20 {
        stage.send(&mut alice, message(n));
        stage.advance(Duration::from_millis(10));
    }
    stage.advance(Duration::from_secs(2));
    assert_eq!(stage.rows("bob").len(), 21);
    assert_eq!(stage.rows("alice").len(), 21);
    assert_eq!(stage.messages(&bob).len(), 21);
    let read = stage.store.tails() - before;
    assert!((1..=4).contains(&read), "{read} pages for each of two homes");
}

#[test]
fn what_was_refused_and_is_sent_again_stays_one_message() {
    for fate in [Fate::Written, Fate::Lost] {
        for at_recipient in [true, false] {
            for to in ["bob", "alice"] {
                let mut stage = Stage::new();
                let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
                // Nobody's session was lost, and the last life was long ago.
                stage.advance(Duration::from_secs(2_000));
                let again = |text: &str| {
                    let id = Element::new(ns::SID, "origin-id").attr("id", text);
                    chat(&format!("{to}@localhost"), text).child(id)
                };
                stage.store.hold("alice");
                if !at_recipient || to == "alice" {
                    fate.befalls(&stage);
                }
                stage.send(&mut alice, again("m"));
                stage.run();
                if at_recipient && to == "bob" {
                    fate.befalls(&stage);
                }
                stage.store.release("alice");
                stage.run();
                let mut seen = stage.messages(&alice);
                assert!(seen.contains(&REFUSED.to_owned()), "{seen:?}");
                stage.reads(&alice);
                stage.send(&mut alice, again("other"));
                stage.send(&mut alice, again("m"));
                stage.advance(Duration::from_secs(2));
                let (handled, more) = stage.handled(&alice);
                assert_eq!(handled, 4);
                seen.extend(more);
                seen.extend(stage.messages(&bob));
                seen.retain(|text| text != REFUSED);
                seen.sort();
                assert_eq!(seen, ["m", "other"], "{fate:?} {at_recipient} {to}");
                for account in ["alice", to] {
                    assert_eq!(stage.rows(account).len(), 2, "{account} {fate:?} {at_recipient} {to}");
                }
            }
        }
    }
}

#[test]
fn what_follows_a_refusal_is_refused_until_its_client_has_heard_of_that() {
    for how in ["reads", "says it again", "is deaf"] {
        let mut stage = Stage::new();
        let mut alice = stage.client("alice");
        stage.advance(Duration::from_secs(2_000));
        let message = |to: &str, text: &str| {
            let id = Element::new(ns::SID, "origin-id").attr("id", text);
            chat(&format!("{to}@localhost"), text).child(id)
        };
        stage.store.inner.fail_next(1);
        stage.send(&mut alice, message("bob", "0"));
        stage.run();
        assert_eq!(stage.messages(&alice), [REFUSED]);
        stage.send(&mut alice, message("bob", "1"));
        stage.send(&mut alice, message("carol", "to somebody else"));
        stage.run();
        assert_eq!(stage.messages(&alice), [REFUSED]);
        assert_eq!(stage.rows("carol"), ["to somebody else"]);
        match how {
            "reads" => stage.reads(&alice),
            "says it again" => stage.send(&mut alice, message("bob", "0")),
            _ => stage.advance(Duration::from_secs(5)),
        }
        for text in ["1", "2"] {
            stage.send(&mut alice, message("bob", text));
        }
        stage.run();
        assert!(stage.messages(&alice).is_empty(), "{how}");
        let rows = if how == "says it again" { vec!["0", "1", "2"] } else { vec!["1", "2"] };
        assert_eq!(stage.rows("bob"), rows, "{how}");
    }
}

#[test]
fn nothing_is_acknowledged_first_and_refused_later() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let _bob = stage.client("bob");
    stage.chat(&mut alice, "bob", "fine");
    stage.told(&alice);
    // Her own home is slow with something else when the answer comes.
    doubtful(&mut stage, &mut alice, "lost", Fate::Lost);
    stage.store.hold("alice");
    stage.chat(&mut alice, "alice", "slow");
    let downs = stage.told(&alice);
    let error =
        downs.iter().position(|down| matches!(down, Down::Stanza { stanza, .. } if stanza.is_error()));
    let handled = downs.iter().position(|down| matches!(down, Down::Handled { sequence: 3 }));
    assert!(error.is_some() && error < handled, "{downs:?}");
    // The same when her home is in doubt itself.
    stage.store.release("alice");
    stage.run();
    stage.store.hold("bob");
    doubtful(&mut stage, &mut alice, "lost too", Fate::Lost);
    Fate::Lost.befalls(&stage);
    stage.store.inner.fail_next_reads(100);
    stage.chat(&mut alice, "alice", "makes her doubt");
    assert_eq!(stage.messages(&alice), ["slow", REFUSED]);
    stage.store.release("bob");
    stage.run();
    let downs = stage.told(&alice);
    let error =
        downs.iter().position(|down| matches!(down, Down::Stanza { stanza, .. } if stanza.is_error()));
    let handled = downs.iter().position(|down| matches!(down, Down::Handled { sequence: 6 }));
    assert!(error.is_some() && error < handled, "{downs:?}");
}

#[test]
fn what_was_refused_is_not_acknowledged_where_there_is_no_room_to_say_so() {
    for resumed in [false, true] {
        let mut stage = Stage::new();
        let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
        stage.say(&alice, Up::EnableSm { resume: true, max: None });
        for _ in 0..1_000 {
            let mut presence = Stanza::presence(PresenceType::Available);
            presence.to = Some(jid("alice").into());
            stage.send(&mut bob, presence);
        }
        stage.run();
        stage.told(&alice);
        stage.store.hold("alice");
        stage.chat(&mut alice, "bob", "refused");
        if resumed {
            alice.conn = starling_wire::ConnId::local(77);
            stage.say(&alice, Up::Resume { token: starling_wire::Token(1), handled: 0 });
            stage.run();
        }
        stage.store.hold("bob");
        stage.store.release("alice");
        stage.run();
        stage.advance(Duration::from_secs(11));
        let downs = stage.told(&alice);
        let counted = |down: &Down| matches!(down, Down::Handled { sequence: 2 } | Down::Resumed { .. });
        assert!(!downs.iter().any(counted), "{downs:?}");
        assert!(matches!(downs.last(), Some(Down::Close(Some(_)))), "{downs:?}");
        stage.store.release("bob");
    }
}

#[test]
fn what_was_missed_and_what_turns_up_come_in_the_order_of_the_log() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.say(&bob, Up::EnableSm { resume: true, max: None });
    // More than the window, then one in doubt, one that is confirmed meanwhile, and another in doubt.
    for n in 0..260 {
        stage.chat(&mut alice, "bob", &n.to_string());
    }
    stage.store.hold("alice");
    for body in ["first in doubt", "confirmed", "second in doubt"] {
        stage.chat(&mut alice, "bob", body);
    }
    stage.store.inner.hold();
    for doubt in [1, 0, 1] {
        stage.store.inner.doubt_next(doubt);
        stage.store.answer("alice", 0);
        stage.run();
    }
    assert_eq!(stage.store.inner.held(), 3);
    stage.store.release("alice");
    stage.store.inner.release();
    let (mut seen, mut handled) = (Vec::new(), 0);
    for _ in 0..10 {
        stage.run();
        let more = stage.messages(&bob);
        handled += more.len() as u32;
        seen.extend(more);
        stage.say(&bob, Up::Acknowledged { handled });
    }
    let rows = stage.rows("bob");
    assert_eq!(rows.len(), 263);
    assert_eq!(seen, rows);
}

#[test]
fn while_the_store_is_away_everybody_gets_an_answer_and_it_is_used_again_soon() {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    stage.say(&bob, Up::EnableSm { resume: true, max: None });
    stage.run();
    stage.told(&bob);
    stage.store.inner.fail_next(usize::MAX);
    stage.store.inner.fail_next_reads(usize::MAX);
    stage.chat(&mut alice, "bob", "one");
    assert_eq!(stage.handled(&alice), (2, vec![REFUSED.to_owned()]), "her own row");
    // From now on her home is in doubt.
    stage.send(&mut alice, chat("bob@localhost", "two"));
    stage.send(&mut alice, question("1"));
    stage.advance(Duration::from_millis(300));
    let downs = stage.told(&alice);
    assert_eq!(answers(&downs), [REFUSED; 2], "{downs:?}");
    assert!(downs.iter().any(|down| matches!(down, Down::Handled { sequence: 4 })));
    // What needs no store goes on.
    bob.conn = starling_wire::ConnId::local(77);
    stage.say(&bob, Up::Resume { token: starling_wire::Token(2), handled: 0 });
    stage.run();
    assert!(matches!(stage.told(&bob).first(), Some(Down::Resumed { .. })));
    for n in 0..20 {
        stage.chat(&mut alice, "bob", &n.to_string());
        stage.advance(Duration::from_secs(1));
        assert_eq!(stage.messages(&alice), [REFUSED], "{n}");
    }
    assert!(stage.store.floors("alice").len() <= 1 + 4 * 22, "tried too often");
    let quiet = stage.store.floors("alice").len();
    stage.advance(Duration::from_secs(40));
    assert!(stage.store.floors("alice").len() <= quiet + 21, "tried often though nobody waits");

    stage.store.inner.fail_next(0);
    stage.store.inner.fail_next_reads(0);
    stage.chat(&mut alice, "bob", "back");
    stage.advance(Duration::from_millis(300));
    assert_eq!(stage.messages(&bob), ["back"]);
    assert_eq!(stage.messages(&alice), Vec::<String>::new());
    assert_eq!(stage.rows("alice"), ["back"]);
}

#[test]
fn what_a_device_acknowledges_meanwhile_is_not_forgotten() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let bob = stage.client("bob");
    stage.chat(&mut alice, "bob", "one");
    assert_eq!(stage.messages(&bob), ["one"]);
    stage.store.inner.fail_next_reads(1);
    doubtful(&mut stage, &mut alice, "lost", Fate::Lost);
    stage.say(&bob, Up::Written { count: 100 });
    stage.advance(Duration::from_secs(9));
    stage.say(&bob, Up::Gone(Leave::Closed));
    stage.advance(Duration::from_secs(3));
    let bob = stage.client("bob");
    assert!(stage.messages(&bob).is_empty(), "delivered a second time");
    // And it is on disk.
    let state = now(stage.store.load(&jid("bob"), Reign { epoch: 1, floor: Position(u64::MAX / 4) }));
    assert!(state.unwrap().unwrap().cursor.through > Position(0));
}

#[test]
fn a_cursor_that_was_not_written_is_written_later() {
    for overloaded in [true, false] {
        let mut stage = Stage::new();
        let mut alice = stage.client("alice");
        let bob = stage.client("bob");
        stage.chat(&mut alice, "bob", "one");
        stage.say(&bob, Up::Written { count: 100 });
        stage.run();
        if overloaded {
            stage.store.inner.overload_next(1);
        } else {
            stage.store.inner.fail_next(1);
        }
        stage.advance(Duration::from_secs(10));
        assert_eq!(stage.store.floors("bob").len(), if overloaded { 1 } else { 2 });
        let state = now(stage.store.load(&jid("bob"), Reign { epoch: 1, floor: Position(u64::MAX / 4) }));
        assert!(state.unwrap().unwrap().cursor.through > Position(0));
    }
}

/// An IQ that the account's own home would answer.
fn question(id: &str) -> Stanza {
    let mut question = Stanza::iq(IqType::Get).child(Element::new("urn:example", "query"));
    question.id = Some(id.into());
    question
}

/// Conditions of all errors among these.
pub(crate) fn answers(downs: &[Down]) -> Vec<String> {
    let errors = downs.iter().filter_map(|down| match down {
        Down::Stanza { stanza, .. } if stanza.is_error() => Some(condition(stanza)),
        _ => None,
    });
    errors.collect()
}

#[test]
fn nothing_is_taken_behind_a_message_that_was_refused_while_it_was_on_its_way() {
    let mut stage = Stage::new();
    let (mut alice, bob) = (stage.client("alice"), stage.client("bob"));
    stage.advance(Duration::from_secs(2_000));
    let message = |text: &str| {
        let id = Element::new(ns::SID, "origin-id").attr("id", text);
        chat("bob@localhost", text).child(id)
    };
    stage.store.hold("alice");
    for text in ["0", "1", "2"] {
        stage.send(&mut alice, message(text));
        stage.run();
    }
    stage.store.hold("bob");
    stage.store.inner.fail_next(1);
    stage.store.answer("alice", 0);
    stage.run();
    // The second leaves at the moment at which the first is refused, the third later.
    stage.store.answer("bob", 0);
    stage.store.answer("alice", 0);
    stage.store.release("bob");
    stage.run();
    stage.store.release("alice");
    stage.run();
    assert_eq!(stage.messages(&alice), [REFUSED; 3]);
    assert_eq!(stage.rows("bob"), [""; 0]);
    stage.say(&alice, Up::Gone(Leave::Lost));
    stage.run();
    let mut alice = stage.client("alice");
    for text in ["0", "1", "2", "3"] {
        stage.send(&mut alice, message(text));
    }
    stage.run();
    assert_eq!(stage.rows("bob"), ["0", "1", "2", "3"]);
    assert_eq!(stage.rows("alice"), ["0", "1", "2", "3"]);
    assert_eq!(stage.messages(&bob), ["0", "1", "2", "3"]);
}

#[test]
fn a_commit_says_which_one_before_it_has_no_answer_yet() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    stage.store.hold("alice");
    for text in ["0", "1", "2"] {
        stage.chat(&mut alice, "bob", text);
    }
    stage.store.answer("alice", 0);
    stage.run();
    stage.chat(&mut alice, "bob", "3");
    stage.store.release("alice");
    stage.run();
    stage.chat(&mut alice, "bob", "4");
    let (at, open): (Vec<_>, Vec<_>) = stage.store.commits("alice").into_iter().unzip();
    assert_eq!(open, [None, Some(at[0]), Some(at[0]), Some(at[1]), None]);
}
