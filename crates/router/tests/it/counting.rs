//! How much waits for an account: known without asking the store where that is possible, and asked behind all others.

use crate::bench::{chat, jid};
use crate::stage::{Client, START, Stage, now};
use starling_router::RouterConfig;
use starling_store::{Batch, Direction, LogRow, Origin, Position, Store, Write};
use starling_wire::{Leave, Up};
use std::time::Duration;

const REFUSED: &str = "!resource-constraint wait";
const STEP: Duration = Duration::from_millis(25);
const LIMIT: usize = 10;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// So many messages for this account, from before the present life.
fn fill(stage: &Stage, account: &str, messages: u64) {
    let stanza = chat(&format!("{account}@localhost"), &"x".repeat(1_000)).encode();
    let row = |n: u64| LogRow {
        owner: jid(account),
        position: Position(START - 1_000_000 + n),
        origin: Origin { session: 1, sequence: n },
        origin_id: None,
        direction: Direction::In,
        with: jid("alice"),
        archived: true,
        offline: true,
        expires: None,
        stanza: stanza.clone(),
    };
    let writes = (1..=messages).map(|n| Write::Append(Box::new(row(n)))).collect();
    let batch = Batch::of(Position(START - 1_000_000 + messages), writes);
    now(stage.store.inner.commit(batch)).unwrap();
}

/// How long it takes until a message that is sent now is answered.
fn answered_after(stage: &mut Stage, client: &mut Client, to: &str) -> Duration {
    stage.send(client, chat(&format!("{to}@localhost"), "now"));
    let mut took = Duration::ZERO;
    while stage.handled(client).0 < client.sequence {
        stage.advance(STEP);
        took += STEP;
        assert!(took < secs(30), "no answer");
    }
    took
}

#[test]
fn a_store_that_is_back_serves_those_first_who_wait() {
    const BEES: usize = 40;
    const PAGES: usize = 15;
    let bee = |n: usize| format!("bee{}", n % BEES);
    let mut stage = Stage::of((0..BEES).map(bee).chain(["alice", "bob"].map(str::to_owned)));
    for n in 0..BEES {
        fill(&stage, &bee(n), 200 * PAGES as u64);
    }
    stage.crash();
    let (mut alice, _bob) = (stage.client("alice"), stage.client("bob"));
    let mut bees: Vec<_> = (0..BEES).map(|n| stage.bound(&bee(n), "hive")).collect();
    // It goes away, with a write of everybody under way, and nobody can be loaded.
    stage.store.inner.fail_next(BEES + 1);
    stage.store.inner.fail_next_reads(usize::MAX);
    stage.chat(&mut alice, "bob", "lost");
    for (n, client) in bees.iter_mut().enumerate() {
        stage.chat(client, &bee(n + 1), "lost");
        assert_eq!(stage.messages(client), [REFUSED]);
    }
    for _ in 0..10 {
        stage.advance(secs(1));
        for (n, client) in bees.iter_mut().enumerate() {
            stage.chat(client, &bee(n + 1), "refused");
        }
    }
    // It is back, and does one thing after the other.
    stage.store.inner.fail_next_reads(0);
    stage.store.toil(&stage.clock.clone());
    for _ in 0..40 {
        for (n, client) in bees.iter_mut().enumerate() {
            stage.send(client, chat(&format!("{}@localhost", bee(n + 1)), "kept"));
        }
        let took = answered_after(&mut stage, &mut alice, "bob");
        assert!(took <= secs(1), "{took:?}");
        stage.advance(STEP * 10);
    }
    // All are counted in the end, one after the other.
    stage.advance(secs(120));
    let (pages, at_once) = stage.store.counted();
    assert!((BEES * PAGES..=BEES * (PAGES + 1)).contains(&pages), "{pages}");
    assert_eq!(at_once, 1);
}

/// Sends so many; how many of them are kept.
fn kept(stage: &mut Stage, client: &mut Client, to: &str, messages: usize) -> usize {
    for _ in 0..messages {
        stage.chat(client, to, "m");
    }
    stage.advance(secs(1));
    let refused = stage.messages(client);
    assert!(refused.iter().all(|text| text.contains("service-unavailable")), "{refused:?}");
    messages - refused.len()
}

/// Bob's mailbox has a limit, and so much in it from an earlier life; alice writes to it.
fn mailbox(filled: u64) -> (Stage, Client) {
    let config = RouterConfig { offline_messages: LIMIT, ..RouterConfig::default() };
    let mut stage = Stage::under(config, ["alice", "bob"].map(str::to_owned));
    if filled > 0 {
        fill(&stage, "bob", filled);
        stage.crash();
    }
    let alice = stage.client("alice");
    (stage, alice)
}

#[test]
fn what_waits_is_counted_once_and_known_from_then_on() {
    for filled in [0, 6] {
        let (mut stage, mut alice) = mailbox(filled);
        let counted = (usize::from(filled > 0), usize::from(filled > 0));
        assert_eq!(kept(&mut stage, &mut alice, "bob", 1), 1);
        let room = LIMIT - filled as usize - 1;
        assert_eq!(kept(&mut stage, &mut alice, "bob", LIMIT), room);
        // He gets all of it, acknowledges nothing and is gone: all of it waits again.
        let bob = stage.client("bob");
        stage.say(&bob, Up::Gone(Leave::Closed));
        stage.run();
        assert_eq!(kept(&mut stage, &mut alice, "bob", 1), 0);
        // He acknowledges it.
        let bob = stage.client("bob");
        stage.say(&bob, Up::Written { count: 100 });
        stage.say(&bob, Up::Gone(Leave::Closed));
        stage.run();
        assert_eq!(kept(&mut stage, &mut alice, "bob", LIMIT + 3), LIMIT);
        assert_eq!(stage.store.counted(), counted);
        // His home leaves memory and comes back, as it was.
        let loads = stage.store.floors("bob").len();
        stage.advance(secs(200));
        assert_eq!(stage.store.floors("bob").len(), loads);
        assert_eq!(kept(&mut stage, &mut alice, "bob", 1), 0);
        assert_eq!(stage.store.floors("bob").len(), loads + 1);
    }
}

#[test]
fn a_count_that_fails_is_given_up_for_a_while() {
    let (mut stage, mut alice) = mailbox(6);
    stage.store.hold("bob");
    stage.chat(&mut alice, "bob", "m");
    stage.store.inner.fail_next_reads(1);
    stage.store.release("bob");
    stage.advance(secs(1));
    assert_eq!(stage.store.counted().0, 1);
    // Nobody knows what waits: no more are kept than might be.
    assert_eq!(kept(&mut stage, &mut alice, "bob", 2 * LIMIT), LIMIT - 1);
    assert_eq!(stage.store.counted().0, 1);
    stage.advance(secs(30));
    assert_eq!(kept(&mut stage, &mut alice, "bob", 1), 0);
    assert_eq!(stage.store.counted().0, 2);
}

#[test]
fn what_was_never_written_does_not_fill_a_mailbox() {
    for (doubtful, lost) in [(false, true), (true, true), (true, false)] {
        let (mut stage, mut alice) = mailbox(0);
        assert_eq!(kept(&mut stage, &mut alice, "bob", 1), 1);
        stage.store.hold("alice");
        for _ in 0..LIMIT - 1 {
            stage.chat(&mut alice, "bob", "m");
        }
        stage.store.hold("bob");
        match (doubtful, lost) {
            (false, _) => stage.store.inner.overload_next(LIMIT),
            (true, true) => stage.store.inner.fail_next(LIMIT),
            (true, false) => stage.store.inner.doubt_next(LIMIT),
        }
        stage.store.release("alice");
        stage.run();
        stage.store.inner.overload_next(0);
        stage.store.inner.fail_next(0);
        stage.store.inner.doubt_next(0);
        stage.store.release("bob");
        stage.advance(secs(5));
        stage.messages(&alice);
        // Those in doubt are counted when it matters; the first that comes then may be refused.
        kept(&mut stage, &mut alice, "bob", 1);
        kept(&mut stage, &mut alice, "bob", LIMIT + 3);
        let rows = stage.rows("bob").len();
        assert_eq!(rows, LIMIT, "{doubtful} {lost}");
    }
}
