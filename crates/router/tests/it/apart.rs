//! A store that answers commits of different homes in any order: none waits for another, and each keeps its own.

use crate::stage::Stage;
use starling_wire::Up;
use std::time::Duration;

const REFUSED: &str = "!resource-constraint wait";

#[test]
fn no_home_waits_for_another() {
    let mut stage = Stage::new();
    let (mut alice, mut carol) = (stage.client("alice"), stage.client("carol"));
    let bob = stage.client("bob");
    stage.store.hold("alice");
    stage.chat(&mut alice, "bob", "slow");
    stage.chat(&mut carol, "bob", "fast");
    assert_eq!(stage.messages(&bob), ["fast"]);
    assert_eq!(stage.handled(&carol), (2, vec![]));
    assert_eq!(stage.handled(&alice), (0, vec![]), "acknowledged before it was confirmed");
    stage.store.release("alice");
    stage.run();
    assert_eq!(stage.messages(&bob), ["slow"]);
    assert_eq!(stage.handled(&alice), (2, vec![]));
}

#[test]
fn what_one_home_decided_leaves_in_that_order() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let bob = stage.client("bob");
    stage.store.hold("alice");
    for body in ["one", "two", "three"] {
        stage.chat(&mut alice, "bob", body);
    }
    assert_eq!(stage.store.waiting("alice"), 3, "commits of one home wait for each other");
    stage.store.answer("alice", 2);
    stage.run();
    stage.store.answer("alice", 1);
    stage.run();
    assert!(stage.messages(&bob).is_empty(), "overtook the first");
    stage.store.answer("alice", 0);
    stage.run();
    assert_eq!(stage.messages(&bob), ["one", "two", "three"]);
    assert_eq!(stage.handled(&alice).0, 4);
}

#[test]
fn few_rows_of_a_home_are_unconfirmed_at_once() {
    let mut stage = Stage::new();
    let (mut alice, mut carol) = (stage.client("alice"), stage.client("carol"));
    let bob = stage.client("bob");
    stage.store.hold("bob");
    for n in 0..400 {
        stage.chat(&mut alice, "bob", &format!("a{n}"));
        stage.chat(&mut carol, "bob", &format!("c{n}"));
    }
    assert_eq!(stage.store.most_rows(), 256);
    assert!(stage.messages(&bob).is_empty());
    // One by one: each lets one in.
    for _ in 0..10 {
        stage.store.answer("bob", 0);
        stage.run();
    }
    assert_eq!(stage.messages(&bob).len(), 10);
    assert_eq!(stage.store.waiting("bob"), 256);
    // A client that acknowledges, so that its window lets all of them through.
    stage.store.release("bob");
    let mut seen = Vec::new();
    for _ in 0..20 {
        stage.run();
        seen.extend(stage.messages(&bob));
        stage.say(&bob, Up::Written { count: 10_000 + seen.len() as u64 });
    }
    assert_eq!(stage.store.most_rows(), 256);
    assert_eq!(stage.rows("bob").len(), 800);
    assert_eq!((stage.handled(&alice).0, stage.handled(&carol).0), (401, 401));
    for sender in ["a", "c"] {
        let of: Vec<_> = stage.rows("bob").into_iter().filter(|body| body.starts_with(sender)).collect();
        assert_eq!(of, (0..400).map(|n| format!("{sender}{n}")).collect::<Vec<_>>());
    }
}

#[test]
fn a_home_that_is_stuck_takes_so_much_and_no_more() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let _bob = stage.client("bob");
    stage.store.hold("bob");
    for n in 0..5_000 {
        stage.chat(&mut alice, "bob", &n.to_string());
    }
    let (handled, answers) = stage.handled(&alice);
    assert_eq!(handled, 0, "the first of them is not confirmed");
    assert_eq!(answers.len(), 5_000 - 256 - 4_096);
    assert!(answers.iter().all(|answer| answer == REFUSED), "{:?}", answers[0]);
    stage.store.release("bob");
    stage.run();
    assert_eq!(stage.handled(&alice), (5_001, vec![]));
    assert_eq!(stage.rows("bob").len(), 256 + 4_096);
}

#[test]
fn so_many_commits_are_under_way_in_all() {
    let names = || (0..4_200).map(|n| format!("u{n}"));
    let mut stage = Stage::of(names());
    let mut clients: Vec<_> = names().map(|name| stage.client(&name)).collect();
    stage.store.hold_all();
    for (client, name) in clients.iter_mut().zip(names()) {
        stage.chat(client, &name, "note");
    }
    assert_eq!(stage.store.all_waiting(), 4_096);
    // What is answered makes room for the next.
    stage.store.answer("u7", 0);
    stage.run();
    assert_eq!((stage.store.all_waiting(), stage.store.waiting("u4096")), (4_096, 1));
    for name in names() {
        stage.store.release(&name);
        stage.run();
    }
    for client in &clients {
        assert_eq!(stage.handled(client), (2, vec!["note".to_owned()]));
    }
}

#[test]
fn positions_rise_whatever_the_clock_does() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    stage.chat(&mut alice, "bob", "one");
    // The home of bob, who is not there, leaves memory.
    stage.advance(Duration::from_secs(130));
    assert_eq!(stage.homes.len(), 1);
    stage.clock.step_to_micros(crate::stage::START + 1_000_000);
    stage.chat(&mut alice, "bob", "two");
    assert_eq!(stage.rows("bob"), ["one", "two"]);
    assert_eq!(stage.handled(&alice).0, 3);
}

#[test]
fn the_same_happens_every_time() {
    let story = || {
        let mut stage = Stage::new();
        let mut clients: Vec<_> = ["alice", "bob", "carol"].map(|name| stage.client(name)).into();
        for (n, to) in ["bob", "carol", "alice", "bob", "bob", "alice"].into_iter().enumerate() {
            stage.send(&mut clients[n % 3], crate::bench::chat(&format!("{to}@localhost"), &n.to_string()));
            if n == 3 {
                stage.store.hold("bob");
                stage.run();
            }
        }
        stage.run();
        stage.store.release("bob");
        drop(stage.homes.flush());
        stage.advance(Duration::from_secs(200));
        clients.iter().map(|client| format!("{:?}", stage.told(client))).collect::<Vec<_>>()
    };
    let once = story();
    for _ in 0..5 {
        assert_eq!(story(), once);
    }
}
