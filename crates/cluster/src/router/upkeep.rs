//! What a router does from time to time, and at its end.

use super::house::House;
use super::reigns::{THERE, flush};
use super::switchboard::Switchboard;
use crate::refusals::{kept_out, refused};
use futures::future::join_all;
use starling_locations::{Locations, Standing};
use starling_node::{Check, Health, Probe};
use starling_setup::BackEnd;
use starling_store::Retention;
use starling_wire::Shard;
use starling_xmpp::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a router that leaves waits until it has nothing more to say.
const SAID_WITHIN: Duration = Duration::from_secs(2);
/// A router that is no member and is refused for so long ends. Longer than the place of one that has gone is kept for it.
const REFUSED_FOR: Duration = Duration::from_secs(12);
/// How often edges without a link are looked at.
const EDGES_EVERY: Duration = Duration::from_millis(250);
/// How often the health of the parts is looked at.
const HEALTH_EVERY: Duration = Duration::from_millis(250);
/// How often rows that have expired are looked for, and how soon again while there are more.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_AGAIN: Duration = Duration::from_millis(200);
/// How long a router that leaves waits for sessions whose edge was lost, and how often it looks.
const MISSED: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Tells homes of dead edges, for ever.
pub(super) async fn edges(board: Arc<Switchboard>) {
    loop {
        sleep(EDGES_EVERY).await;
        board.bury();
        board.clear_out();
    }
}

/// The checks of [`watch`]: of shards, of the router itself and of its store. What was not looked at yet is not ready.
pub(super) fn checks(health: &Health) -> [Check; 3] {
    [
        health.check("shards", &[Probe::Ready]),
        health.check("router", &[Probe::Ready, Probe::Live]),
        health.check("store", &[Probe::Ready]),
    ]
}

/// Keeps probes and gauges true, for ever.
pub(super) async fn watch(
    [groups, whole, kept]: [Check; 3],
    house: Arc<House>,
    locations: Locations,
    store: Option<BackEnd>,
) {
    let (failed, broken) = (locations.failed(), house.board.failed.subscribe());
    let mut leaders = BTreeMap::new();
    let mut alone = Alone::default();
    loop {
        let standings: BTreeMap<u16, Standing> =
            locations.groups().iter().map(|group| (group.shard().0, group.standing())).collect();
        // An empty disk replaces another one shard by shard. Whoever takes a second one away before it has, as an upgrade
        // would that goes by readiness, has taken the majority.
        if locations.is_ready() && locations.has_its_part() {
            groups.pass();
        } else if !locations.is_member() && locations.kept_out().is_some() {
            groups.fail("another router of this name was here a moment ago: its place is not given away yet");
        } else if locations.is_ready() {
            groups.fail("it is not taken in yet: it does not vote in every shard");
        } else if locations.stands_still() {
            groups.fail("the disk of the Raft log does not answer: this router's vote does not count");
        } else if locations.cluster() == 0 {
            groups.fail("waiting for other routers");
        } else {
            groups.fail("a shard has no leader that a quorum has confirmed");
        }
        let why = failed
            .borrow()
            .as_ref()
            .map(ToString::to_string)
            .or_else(|| broken.borrow().as_ref().map(ToString::to_string));
        match why {
            None => whole.pass(),
            Some(why) => whole.fail(why),
        }
        match store.as_ref().and_then(BackEnd::trouble) {
            None => kept.pass(),
            Some(trouble) => kept.fail(trouble),
        }
        let board = &house.board;
        // A member goes on, whatever a newcomer says of it.
        if !locations.is_member() {
            if let Some(refusal) = board.refusals.standing(REFUSED_FOR, house.clock.monotonic()) {
                board.fail(refused("router", refusal));
            } else if locations.kept_out().is_some_and(|so_long| so_long >= REFUSED_FOR) {
                board.fail(kept_out(&board.own.name));
            }
        }
        let linked = board.peers().len();
        if let Some(why) = alone
            .look(!locations.is_ready() && (linked == 0 || locations.cluster() == 0), || {
                in_vain(linked, board.refusals.told(house.clock.monotonic()))
            })
        {
            tracing::warn!(
                event = "waiting_for_routers",
                linked,
                why,
                "too few routers have answered yet; nobody is served before they do"
            );
        }
        board.figures.young(board.young());
        board.figures.waits(board.waiting());
        board.figures.linked(board.edges().len(), board.peers().len());
        board.figures.stand(&standings, &mut leaders);
        board.figures.stuck(locations.waits());
        board.figures.short_of_room(locations.is_short_of_room());
        sleep(HEALTH_EVERY).await;
    }
}

/// For how many looks this router has waited for others.
#[derive(Debug, Default)]
struct Alone(u32);

impl Alone {
    /// What is to be told of it: after 1.5 s, and then every half a minute.
    fn look(&mut self, waits: bool, why: impl FnOnce() -> String) -> Option<String> {
        self.0 = if waits { self.0.wrapping_add(1) } else { 0 };
        (self.0 % 120 == 6).then(why)
    }
}

/// Why others are waited for, when so many are linked and this was heard of the rest.
fn in_vain(linked: usize, told: String) -> String {
    match told {
        told if !told.is_empty() => told,
        _ if linked > 0 => {
            "those that are linked wait as well: `cluster.initial_routers` has to be there to found a cluster"
                .to_owned()
        }
        _ => "no address of theirs is known: they cannot be looked up".to_owned(),
    }
}

/// Removes rows whose time has come, where the first shard is led, for ever.
pub(super) async fn sweep(house: Arc<House>, retention: Retention) {
    let mut pause = SWEEP_EVERY;
    loop {
        sleep(pause).await;
        pause = SWEEP_EVERY;
        if !house.board.chart.here(Shard(0)).is_some_and(|gate| gate.door.holds()) {
            continue;
        }
        match house.store.sweep(Timestamp(house.clock.now_micros()), retention).await {
            Ok(0) => {}
            // There may be more: soon, but not at the expense of those who wait for a commit.
            Ok(_) => pause = SWEEP_AGAIN,
            Err(error) => {
                tracing::warn!(event = "sweep_failed", %error, "expired rows stay for now");
            }
        }
    }
}

/// Gives everything away that is led here; what cannot be given is written down.
pub(super) async fn leave(house: &House, locations: &Locations, grace: Duration) {
    // Clients of an edge that was just lost come back within moments, to another one: until then only the homes have their
    // sessions. Of one that is silent it is not known yet that it is lost.
    let shards = || house.board.chart.homes().iter().map(|home| home.shard).collect::<Vec<_>>();
    let patience = MISSED.min(grace / 2);
    house.board.waits_until(house.clock.monotonic() + patience);
    let calm = async {
        while house.board.misses(&shards(), THERE).await {
            sleep(LOOK_AGAIN).await;
        }
    };
    if timeout(patience, calm).await.is_err() {
        tracing::warn!(
            event = "sessions_left",
            "sessions of an edge that was lost, or is silent, are given up with this router"
        );
    }
    if !locations.leave(grace).await {
        tracing::warn!(event = "leave_late", "not all shards could be given to other routers");
    }
    let gates = house.board.chart.doors();
    if timeout(grace, join_all(gates.iter().map(|gate| flush(&gate.door)))).await.is_err() {
        tracing::warn!(
            event = "flush_late",
            "homes were not written down in time; messages may be delivered a second time"
        );
    }
    // What waits here for the next homes goes there when they begin, and what links have yet to take goes before they end.
    let said = async {
        while !house.board.has_said_all() {
            sleep(LOOK_AGAIN).await;
        }
        sleep(LOOK_AGAIN).await;
    };
    if timeout(SAID_WITHIN.min(grace), said).await.is_err() {
        tracing::warn!(
            event = "words_left",
            "what was for homes that have yet to begin is lost with this router"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_others_says_so_now_and_then() {
        let mut alone = Alone::default();
        let why = || in_vain(0, "10.0.0.1:5270: lost: refused".to_owned());
        let told: Vec<usize> = (1..=300).filter(|_| alone.look(true, why).is_some()).collect();
        assert_eq!(told, [6, 126, 246]);
        assert_eq!(alone.look(false, why), None);
        assert!((0..5).all(|_| alone.look(true, why).is_none()), "it waits anew");
        assert_eq!(alone.look(true, why).as_deref(), Some("10.0.0.1:5270: lost: refused"));
        assert!(in_vain(0, String::new()).contains("looked up"));
        assert!(in_vain(1, String::new()).contains("initial_routers"));
    }
}
