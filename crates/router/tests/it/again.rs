//! What a client says once more has one row, whichever way it comes first (promise 2).

use crate::bench::chat;
use crate::between::named;
use crate::site::Site;
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Element, PresenceType, Stanza, ns};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The store is away for longer than a refusal is remembered, and the client does what it is told.
#[test]
fn what_is_refused_again_and_again_is_remembered() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(0, "bob", "phone");
    site.advance(2_000 * SECOND);
    site.store.doubt_next(1);
    site.send(&mut alice, named(0));
    site.run();
    for _ in 0..22 {
        // Its row is there, and cannot be looked for.
        site.store.fail_next_reads(99);
        site.advance(30 * SECOND);
        site.send(&mut alice, named(0));
        site.advance(SECOND);
        assert!(site.messages(&bob).is_empty());
    }
    site.store.fail_next_reads(0);
    site.advance(20 * SECOND);
    site.send(&mut alice, named(0));
    site.run();
    site.advance(SECOND);
    assert_eq!((site.rows("alice"), site.rows("bob")), (vec!["0".to_owned()], vec!["0".to_owned()]));
    assert_eq!(site.messages(&bob), ["0"]);
}

/// What a home that is lost has sent to another shard is held up on its way there, and nobody but its client knows of it.
#[test]
fn what_comes_after_it_was_said_again_has_its_row() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.client(1, "bob", "phone");
    site.chat(&mut alice, "bob", "before");
    site.send(&mut alice, named(0));
    site.decide();
    let first: Vec<_> = site.mail().drain(..).collect();
    assert_eq!(first.len(), 1);
    site.kill_edge(0);
    site.succeed("alice");
    site.declare_dead(0);
    let mut alice = site.client(1, "alice", "phone");
    site.send(&mut alice, named(0));
    site.run();
    first.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
    site.run();
    let all = ["before", "0"];
    assert_eq!(site.messages(&bob), all);
    assert_eq!(
        (site.rows("alice"), site.rows("bob")),
        (all.map(str::to_owned).into(), all.map(str::to_owned).into())
    );
}

/// It waits at an edge that is cut off, and its client says it over another one, by another name.
#[test]
fn what_an_edge_says_late_was_said_by_another_session() {
    for moved in ["", "before", "after"] {
        let mut site = Site::new(2);
        // Nobody has any reason to look for anything.
        site.advance(2_000 * SECOND);
        let mut phone = site.managed(0, "alice", "phone");
        let bob = site.client(1, "bob", "phone");
        site.chat(&mut phone, "bob", "before");
        site.cut(0);
        site.send(&mut phone, named(0));
        if moved == "before" {
            site.succeed("alice");
        }
        site.advance(SECOND / 2);
        let mut tablet = site.client(1, "alice", "tablet");
        site.send(&mut tablet, named(0));
        site.run();
        if moved == "after" {
            // Both are built at once.
            site.succeed("alice");
        }
        site.link(0);
        site.run();
        let all = ["before", "0"];
        assert_eq!(site.rows("alice"), all, "moved: {moved}");
        assert_eq!(site.rows("bob"), all, "moved: {moved}");
        assert_eq!(site.messages(&bob), all, "moved: {moved}");
    }
}

/// A home has refused it while something before it had no answer, and the next one cannot read the account in time: so its client
/// says both again behind a resumption, and the latter once more because of the error.
#[test]
fn what_is_said_twice_behind_a_resumption_is_one_message() {
    let mut site = Site::new(2);
    let mut alice = site.managed(0, "alice", "phone");
    let bob = site.client(1, "bob", "phone");
    site.close_post("carol", true);
    site.post(&mut alice, "carol", "waits");
    site.run();
    site.store.fail_next(1);
    site.send(&mut alice, named(0));
    site.run();
    assert_eq!(site.messages(&alice), ["!resource-constraint wait"]);
    site.close_post("carol", false);
    site.store.fail_next_reads(100_000);
    site.succeed("alice");
    site.lose(&alice);
    site.advance(6 * SECOND);
    site.store.fail_next_reads(0);
    site.advance(SECOND);
    let mut alice = site.resume(&alice, 1, 1);
    site.advance(4 * SECOND);
    let told = site.told(&alice);
    let handled = told.iter().find_map(|down| match down {
        Down::Resumed { sequence, .. } => Some(*sequence),
        _ => None,
    });
    assert_eq!(handled, Some(1), "{told:?}");
    alice.sequence = 1;
    site.post(&mut alice, "carol", "waits");
    site.send(&mut alice, named(0));
    site.run();
    site.send(&mut alice, named(0));
    site.run();
    assert_eq!(site.rows("bob"), ["0"]);
    assert_eq!(site.messages(&bob), ["0"]);
    assert_eq!(site.rows("alice"), ["waits", "0"]);
}

/// What was refused and said again is twice in what its client had under way as it lost its session. It says all of that again as
/// it stands.
#[test]
fn what_a_lost_session_had_said_twice_is_one_message() {
    let body = |n: usize, text: &str| {
        let id = Element::new(ns::SID, "origin-id").attr("id", format!("o{n}"));
        chat("bob@localhost", text).child(id)
    };
    let unkept = |n: usize| named(n).child(Element::new("urn:xmpp:hints", "no-permanent-store"));
    for (kept, homes) in [true, false].into_iter().flat_map(|kept| (0..3).map(move |homes| (kept, homes))) {
        let mut site = Site::new(2);
        let mut alice = site.managed(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        let message = |n: usize| if kept { named(n) } else { unkept(n) };
        site.store.fail_next(1);
        site.send(&mut alice, message(0));
        site.run();
        site.cut(0);
        site.send(&mut alice, message(0));
        site.kill_edge(0);
        site.succeed("alice");
        site.declare_dead(0);
        assert_eq!(site.messages(&bob), [""; 0]);
        let mut alice = site.client(1, "alice", "phone");
        for n in [0, 1, 0] {
            site.send(&mut alice, message(n));
        }
        site.run();
        if homes > 0 {
            site.succeed("bob");
        }
        if homes > 1 {
            site.succeed("alice");
        }
        // Whatever its client thinks of ids.
        site.send(&mut alice, body(1, "another"));
        site.send(&mut alice, message(1));
        site.run();
        let all = ["0", "1", "another"];
        assert_eq!(site.rows("bob"), all, "kept {kept}, homes {homes}");
        assert_eq!(site.rows("alice"), if kept { &all[..] } else { &all[2..] }, "kept {kept}, homes {homes}");
        site.advance(SECOND);
        assert_eq!(site.messages(&bob), all, "kept {kept}, homes {homes}");
    }
}

/// Nobody knows whether its row was written, until it is looked for.
#[test]
fn what_was_in_doubt_has_one_copy_for_other_devices() {
    for (written, lost) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let mut desk = site.managed(0, "alice", "desk");
        let bob = site.client(0, "bob", "phone");
        let priority = Element::new(ns::CLIENT, "priority").text("-1");
        site.send(&mut desk, Stanza::presence(PresenceType::Available).child(priority));
        site.advance(SECOND);
        site.told(&alice);
        if written {
            site.store.doubt_next(1);
        } else {
            site.store.fail_next(1);
        }
        site.send(&mut alice, named(0));
        site.advance(SECOND);
        assert_eq!(site.messages(&alice).len(), 1, "refused");
        if lost {
            site.say(&alice, Up::Gone(Leave::Closed));
            site.run();
            alice = site.client(0, "alice", "phone");
        } else {
            site.say(&alice, Up::Acknowledged { handled: 1 });
        }
        for n in [0, 1] {
            site.send(&mut alice, named(n));
            site.advance(SECOND);
        }
        let all = ["0", "1"];
        assert_eq!(
            (site.rows("alice"), site.rows("bob")),
            (all.map(str::to_owned).into(), all.map(str::to_owned).into())
        );
        assert_eq!(site.messages(&bob), all);
        assert_eq!(site.messages(&desk), ["copy", "copy"], "written {written}, lost {lost}");
    }
}

/// Its sender keeps no row of it: whoever it is for has one, and knows it by that.
#[test]
fn what_its_sender_does_not_keep_has_one_copy_too() {
    for lost in [true, false] {
        let mut site = Site::new(1);
        let mut alice = site.client(0, "alice", "phone");
        let mut desk = site.client(0, "alice", "desk");
        let bob = site.client(0, "bob", "phone");
        let priority = Element::new(ns::CLIENT, "priority").text("-1");
        site.send(&mut desk, Stanza::presence(PresenceType::Available).child(priority));
        site.advance(SECOND);
        let said = |n| named(n).child(Element::new("urn:xmpp:hints", "no-permanent-store"));
        site.close_post("bob", !lost);
        site.send(&mut alice, said(0));
        site.run();
        if lost {
            site.say(&alice, Up::Gone(Leave::Lost));
            site.run();
            alice = site.client(0, "alice", "phone");
        } else {
            site.told(&alice);
            site.advance(11 * SECOND);
            assert_eq!(site.messages(&alice).len(), 1, "refused");
            site.close_post("bob", false);
            let shard = site.shard("bob");
            site.begin(shard);
        }
        for n in [0, 1] {
            site.send(&mut alice, said(n));
            site.advance(SECOND);
        }
        assert_eq!(site.messages(&bob), ["0", "1"], "lost {lost}");
        assert_eq!(site.messages(&desk), ["copy", "copy"], "lost {lost}");
    }
}

/// The same with what the recipient's devices get.
#[test]
fn what_was_in_doubt_comes_to_all_it_is_for() {
    for written in [true, false] {
        let mut site = Site::new(1);
        let mut alice = site.managed(0, "alice", "phone");
        let mut devices = ["phone", "tab", "desk"].map(|device| site.managed(0, "bob", device));
        let priority = Element::new(ns::CLIENT, "priority").text("-1");
        site.send(&mut devices[2], Stanza::presence(PresenceType::Available).child(priority));
        site.advance(SECOND);
        // Its sender keeps no row of it: the only one that is written is bob's.
        let said = |n| named(n).child(Element::new("urn:xmpp:hints", "no-permanent-store"));
        if written {
            site.store.doubt_next(1);
        } else {
            site.store.fail_next(1);
        }
        site.send(&mut alice, said(0));
        site.advance(SECOND);
        assert_eq!(site.messages(&alice).len(), 1, "refused");
        site.say(&alice, Up::Acknowledged { handled: 1 });
        for n in [0, 1] {
            site.send(&mut alice, said(n));
            site.advance(SECOND);
        }
        assert_eq!(site.rows("bob"), ["0", "1"].map(str::to_owned));
        for (device, had) in devices.iter().zip([["0", "1"], ["0", "1"], ["copy", "copy"]]) {
            assert_eq!(site.messages(device), had, "written {written}");
            site.say(device, Up::Acknowledged { handled: 9 });
        }
        // Nothing waits for a device that comes anew.
        for device in devices {
            site.say(&device, Up::Gone(Leave::Closed));
        }
        site.advance(SECOND);
        let bob = site.client(0, "bob", "phone");
        site.advance(SECOND);
        assert_eq!(site.messages(&bob), [] as [&str; 0]);
    }
}
