//! Copies of messages for other devices of an account (XEP-0280).

use crate::bench::chat;
use crate::site::Site;
use crate::stage::Stage;
use starling_wire::{Leave, Up};
use starling_xmpp::{Element, PresenceType, Stanza, ns};

fn available(priority: &str) -> Stanza {
    Stanza::presence(PresenceType::Available).child(Element::new(ns::CLIENT, "priority").text(priority))
}

#[test]
fn copies_come_once_too() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let mut phone = site.managed(0, "bob", "phone");
    let mut tablet = site.managed(0, "bob", "tablet");
    site.send(&mut tablet, available("-1"));
    site.run();
    site.told(&tablet);
    site.chat(&mut alice, "bob", "one");
    assert_eq!(
        (site.messages(&phone), site.messages(&tablet)),
        (vec!["one".to_owned()], vec!["copy".to_owned()])
    );
    site.succeed("bob");
    site.send(&mut phone, Stanza::presence(PresenceType::Available));
    site.run();
    assert!(site.messages(&phone).is_empty() && site.messages(&tablet).is_empty());
    site.cut(0);
    site.run();
    assert!(site.messages(&tablet).is_empty());
    site.link(0);
    site.run();
    site.chat(&mut alice, "bob", "two");
    assert_eq!(
        (site.messages(&phone), site.messages(&tablet)),
        (vec!["two".to_owned()], vec!["copy".to_owned()])
    );
}

/// As itself or as a copy, and not before what is older.
#[test]
fn what_waits_comes_once_when_a_device_is_available() {
    for old in [true, false] {
        for (priority, due) in [("-1", vec!["copy", "copy"]), ("0", vec!["new", "newer"])] {
            let mut site = Site::new(1);
            let mut alice = site.client(0, "alice", "phone");
            if old {
                site.chat(&mut alice, "bob", "old");
            }
            let mut copies = site.connect(0, "bob", "copies");
            site.run();
            for body in ["new", "newer"] {
                site.chat(&mut alice, "bob", body);
            }
            assert!(site.messages(&copies).is_empty());
            site.send(&mut copies, available(priority));
            site.run();
            let mut seen = site.messages(&copies);
            if old && priority == "0" {
                assert_eq!(seen.remove(0), "old");
            }
            assert_eq!(seen, due, "old {old}, priority {priority}");
            let _phone = site.client(0, "bob", "phone");
            site.chat(&mut alice, "bob", "last");
            let last = if priority == "0" { "last" } else { "copy" };
            assert_eq!(site.messages(&copies), [last], "old {old}, priority {priority}");
        }
    }
}

#[test]
fn a_copy_that_was_not_sent_comes_when_its_device_says_again_that_it_is_available() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let phone = site.managed(1, "bob", "phone");
    let mut copies = site.connect(1, "bob", "copies");
    site.run();
    site.say(&copies, Up::EnableSm { resume: true, max: None });
    site.run();
    site.told(&copies);
    // Its edge says to nobody that it is available, and hears nothing more of this reign.
    site.cut(1);
    site.send(&mut copies, available("-1"));
    site.chat(&mut alice, "bob", "one");
    site.succeed("bob");
    site.link(1);
    site.run();
    site.chat(&mut alice, "bob", "two");
    assert_eq!(site.messages(&phone), ["one", "two"]);
    assert_eq!(site.messages(&copies), ["copy", "copy"]);
}

/// What others have is not kept from it for ever.
#[test]
fn who_never_says_that_it_is_available_gets_copies_of_what_others_have() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    site.chat(&mut alice, "bob", "waits");
    let mut phone = site.connect(0, "bob", "phone");
    site.run();
    site.send(&mut phone, available("-1"));
    let copies = site.connect(0, "bob", "copies");
    site.run();
    site.told(&copies);
    for n in 0..66 {
        site.send(&mut alice, chat("bob@localhost/phone", &format!("{n}")));
        site.run();
        assert_eq!(site.messages(&phone), [format!("{n}")]);
        let due = if n == 64 { 65 } else { usize::from(n > 64) };
        assert_eq!(site.messages(&copies).len(), due, "after {n}");
    }
    // That one does not have it yet, and the other may be there first.
    let _tablet = site.connect(0, "bob", "tablet");
    site.run();
    site.send(&mut alice, chat("bob@localhost/tablet", "later"));
    site.run();
    assert!(site.messages(&copies).is_empty());
}

#[test]
fn copies_wait_no_longer_than_there_is_something_to_wait_for() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let copies = site.connect(0, "bob", "copies");
    site.run();
    site.told(&copies);
    site.chat(&mut alice, "bob", "first");
    assert!(site.messages(&copies).is_empty());
    let phone = site.client(0, "bob", "phone");
    assert_eq!(site.messages(&phone).len(), 0, "told with its binding");
    site.chat(&mut alice, "bob", "second");
    assert_eq!(site.messages(&phone), ["second"]);
    assert_eq!(site.messages(&copies), ["copy", "copy"]);
}

/// It says both at once.
#[test]
fn who_is_available_for_a_moment_has_what_waits_later() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let mut copies = site.connect(0, "bob", "copies");
    site.run();
    for kind in [PresenceType::Available, PresenceType::Unavailable] {
        site.send(&mut copies, Stanza::presence(kind));
    }
    site.run();
    site.told(&copies);
    site.chat(&mut alice, "bob", "waits");
    assert!(site.messages(&copies).is_empty());
    site.send(&mut copies, available("0"));
    site.run();
    assert_eq!(site.messages(&copies), ["waits"]);
}

/// What was decided when it was there before does not say that it is there.
#[test]
fn who_is_away_for_a_moment_has_what_came_meanwhile_once() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let mut copies = stage.bound("bob", "copies");
    stage.run();
    stage.told(&copies);
    stage.store.hold("bob");
    stage.chat(&mut alice, "bob", "before");
    stage.send(&mut copies, available("0"));
    stage.send(&mut copies, Stanza::presence(PresenceType::Unavailable));
    stage.run();
    stage.chat(&mut alice, "bob", "meanwhile");
    stage.send(&mut copies, available("0"));
    stage.run();
    stage.store.answer("bob", 0);
    stage.run();
    stage.store.release("bob");
    stage.run();
    assert_eq!(stage.messages(&copies), ["before", "meanwhile"]);
    stage.chat(&mut alice, "bob", "last");
    assert_eq!(stage.messages(&copies), ["last"]);
}

/// It knows the message.
#[test]
fn who_has_a_copy_for_one_that_has_ended_does_not_get_the_message_as_well() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let (phone, copies) = (stage.device("bob", "phone"), stage.device("bob", "copies"));
    stage.store.hold("bob");
    stage.send(&mut alice, chat("bob@localhost/phone", "hello"));
    stage.run();
    stage.say(&phone, Up::Gone(Leave::Closed));
    stage.run();
    stage.store.release("bob");
    stage.run();
    assert_eq!(stage.messages(&copies).len(), 1);
}

/// What is held for a device that is there, behind something older, is nobody else's.
#[test]
fn what_one_device_is_to_have_waits_for_it() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let (phone, tablet) = (site.managed(0, "bob", "phone"), site.managed(0, "bob", "tablet"));
    for (to, body) in [("phone", "older"), ("tablet", "newer")] {
        site.send(&mut alice, chat(&format!("bob@localhost/{to}"), body));
        site.run();
    }
    assert_eq!(
        (site.messages(&phone), site.messages(&tablet)),
        (vec!["older".to_owned()], vec!["newer".to_owned()])
    );
    site.say(&phone, Up::Gone(Leave::Closed));
    let mut laptop = site.connect(0, "bob", "laptop");
    site.run();
    site.send(&mut alice, chat("bob@localhost/laptop", "last"));
    site.run();
    assert!(site.messages(&tablet).is_empty());
    site.send(&mut laptop, available("0"));
    site.run();
    assert_eq!(site.messages(&laptop), ["older", "last"]);
}
