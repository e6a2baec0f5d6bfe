//! A clock that is set, forward or back, makes no message new (promise 2).

use crate::bench::chat;
use crate::stage::{Client, START, Stage};
use starling_wire::{Leave, Up};
use starling_xmpp::{Element, ns};
use std::time::Duration;

const HOUR: u64 = 3_600_000_000;

/// A message that its client may send again.
fn send(stage: &mut Stage, client: &mut Client, n: usize) {
    let id = Element::new(ns::SID, "origin-id").attr("id", format!("o{n}"));
    stage.send(client, chat("bob@localhost", &n.to_string()).child(id));
    stage.run();
}

fn story(crash: bool, jump: impl Fn(&Stage)) {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    stage.advance(Duration::from_secs(100));
    for n in 0..3 {
        send(&mut stage, &mut alice, n);
    }
    // Between two of those that are sent again.
    jump(&stage);
    stage.advance(Duration::from_secs(3));
    send(&mut stage, &mut alice, 3);
    assert_eq!(stage.handled(&alice), (5, vec![]));
    if crash {
        stage.crash();
        jump(&stage);
    } else {
        stage.say(&alice, Up::Gone(Leave::Closed));
        stage.advance(Duration::from_secs(5));
        jump(&stage);
    }
    let mut alice = stage.client("alice");
    stage.advance(Duration::from_secs(5));
    for n in 0..4 {
        send(&mut stage, &mut alice, n);
    }
    assert_eq!(stage.handled(&alice), (5, vec![]));
    for account in ["alice", "bob"] {
        assert_eq!(stage.rows(account), ["0", "1", "2", "3"], "{account}");
    }
    // It is not for ever.
    stage.advance(Duration::from_secs(1_000));
    send(&mut stage, &mut alice, 2);
    assert_eq!(stage.rows("alice").len(), 5);
}

#[test]
fn a_message_that_is_sent_again_is_recognised_whatever_the_clock_does() {
    for crash in [false, true] {
        story(crash, |_| {});
        let jumps = std::cell::Cell::new(0);
        story(crash, |stage| {
            jumps.set(jumps.get() + 1);
            stage.clock.step_to_micros(START + jumps.get() * HOUR);
        });
        story(crash, |stage| stage.clock.step_to_micros(START - HOUR));
    }
}
