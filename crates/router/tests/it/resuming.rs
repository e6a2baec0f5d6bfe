//! How soon sessions go on over other edges.

use crate::site::Site;
use starling_node::Clock;
use starling_wire::Down;
use std::time::Duration;

/// What its client waits for after the edge of a session was killed, so long after a new home has begun.
fn waits(after: Duration) -> Duration {
    let mut site = Site::new(2);
    site.lively = true;
    let mut alice = site.managed(0, "alice", "phone");
    site.chat(&mut alice, "bob", "1");
    site.succeed("alice");
    site.advance(after);
    site.kill_edge(0);
    site.told(&alice);
    let alice = site.resume(&alice, 1, 0);
    let start = site.clock.monotonic();
    loop {
        site.advance(Duration::from_millis(10));
        let waited = site.clock.monotonic() - start;
        if site.told(&alice).iter().any(|down| matches!(down, Down::Resumed { .. })) {
            return waited;
        }
        assert!(waited < Duration::from_secs(10), "never");
    }
}

#[test]
fn nobody_waits_for_an_edge_that_has_said_all_to_a_new_home() {
    for after in [5_000, 2_500] {
        let waited = waits(Duration::from_millis(after));
        assert!(waited <= Duration::from_millis(100), "{waited:?} when killed after {after} ms");
    }
    let waited = waits(Duration::from_millis(100));
    assert!(waited <= Duration::from_millis(2_100), "{waited:?}");
}
