//! A link that is full: what can wait does.

use crate::site::Site;
use starling_wire::{Down, Up};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_sent_again_waits_for_the_link_to_take_it() {
    // In the midst of it all goes well; the home is lost; its link is; it is lost and so is the edge before.
    for trouble in 0..4 {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(0, "bob", "phone");
        for text in ["1", "2", "3"] {
            site.chat(&mut alice, "bob", text);
        }
        assert_eq!(site.messages(&bob), ["1", "2", "3"]);
        site.press(true);
        let bob = site.resume(&bob, 1, 1);
        site.run();
        site.advance(SECOND);
        site.chat(&mut alice, "bob", "4");
        let told = site.told(&bob);
        assert!(matches!(told[..], [Down::Resumed { .. }]), "{told:?}");
        assert_eq!((site.kept(0), site.kept(1)), (2, 1), "the edge before has what this one has not");
        match trouble {
            1 => site.succeed("bob"),
            2 => {
                site.cut(1);
                site.link(1);
            }
            3 => {
                site.press(false);
                site.advance(SECOND);
                site.press(true);
                site.kill_edge(0);
                site.succeed("bob");
            }
            _ => {}
        }
        site.run();
        site.press(false);
        site.advance(SECOND);
        assert_eq!(site.messages(&bob), ["2", "3", "4"], "{trouble}");
        if trouble < 3 {
            assert_eq!((site.kept(0), site.kept(1)), (1, 1), "it may forget it now");
            site.chat(&mut alice, "bob", "5");
            assert_eq!(site.messages(&bob), ["5"]);
            site.say(&bob, Up::Acknowledged { handled: 5 });
            site.run();
        }
        site.succeed("bob");
        assert!(site.messages(&bob).is_empty());
    }
}

#[test]
fn what_waits_in_the_log_waits_for_the_link_to_take_it() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    site.chat(&mut alice, "bob", "1");
    site.chat(&mut alice, "bob", "2");
    site.press(true);
    let bob = site.managed(1, "bob", "phone");
    site.advance(SECOND);
    site.chat(&mut alice, "bob", "3");
    assert!(site.messages(&bob).is_empty(), "nothing overtakes what waits");
    site.press(false);
    site.advance(SECOND);
    assert_eq!(site.messages(&bob), ["1", "2", "3"]);
    site.chat(&mut alice, "bob", "4");
    assert_eq!(site.messages(&bob), ["4"]);
}
