//! Spreading the leaderships evenly, and giving all of them away before the process ends.

use super::Inner;
use crate::detector::voters;
use crate::group::{Core, GiveError};
use futures::{StreamExt, stream};
use starling_wire::RouterId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked, at the least; as much again at random, so that two routers do not give to one at once.
const EVERY: Duration = Duration::from_millis(500);
/// How long all must have been there, and all leaders the same, before anything is moved: where leaders are lost again and
/// again, moving them does not help.
const SETTLED: Duration = Duration::from_secs(10);
/// How many shards a router that leaves gives away at the same time: with many voters each takes as long as a promise.
const AT_ONCE: usize = 8;
/// How long a router that leaves looks for others.
const ALONE: Duration = Duration::from_secs(2);

/// Moves one leadership at a time while they are spread unevenly, for ever.
pub(super) async fn spread(inner: Arc<Inner>) {
    let mut links = inner.peers.links();
    let mut since = inner.clock.monotonic();
    // Who was last known to lead each shard.
    let mut known = vec![None; inner.groups.len()];
    loop {
        sleep(EVERY + EVERY.mul_f64(rand::random::<f64>())).await;
        let moved = inner.learn(&mut known);
        if links.has_changed().unwrap_or(true) || moved {
            links.mark_unchanged();
            since = inner.clock.monotonic();
        }
        let settled = inner.clock.monotonic() >= since + SETTLED;
        if !inner.options.spread || !settled || inner.leaving.load(Ordering::Acquire) {
            continue;
        }
        if let Some((core, to)) = inner.next_move() {
            match inner.give(core.shard, to).await {
                Ok(()) => {
                    tracing::info!(
                        event = "shard_spread",
                        shard = core.shard.0,
                        to = %to,
                        "a shard was moved to spread the load"
                    );
                    // That it leads now is no news.
                    known[usize::from(core.shard.0)] = Some(to);
                }
                Err(error) => {
                    tracing::warn!(event = "move_failed", shard = core.shard.0, %error, "a shard could not be moved")
                }
            }
        }
    }
}

/// Gives everything away that is led here; ends when nothing is, or when for a while nobody could have taken any of it.
pub(super) async fn leave(inner: &Arc<Inner>) -> bool {
    if !inner.led().is_empty() {
        // Until others know it, and this router of others that leave with it: two would give to each other.
        sleep(inner.options.times.heartbeat * 2).await;
    }
    let mut alone = inner.clock.monotonic();
    loop {
        let led = inner.led();
        if led.is_empty() {
            return true;
        }
        let heirs = inner.heirs(&led);
        let any = !heirs.is_empty();
        // Of many shards one after the other the last ones would end as in a crash.
        let each = stream::iter(heirs).for_each_concurrent(AT_ONCE, |(core, to)| async move {
            // Much may have happened since it was chosen, and each try stops a home.
            let able = !inner.failed_lately(to) && inner.loads().contains_key(&to);
            let to = if able { Some(to) } else { inner.heir(core) };
            let Some(to) = to else { return };
            match inner.give(core.shard, to).await {
                // Its home says why, and it is tried again at once.
                Ok(()) | Err(GiveError::Unsafe) => {}
                Err(error) => {
                    tracing::warn!(event = "move_failed", shard = core.shard.0, %error, "a shard could not be moved");
                }
            }
        });
        each.await;
        // All of a round can take longer than others are looked for.
        if any {
            alone = inner.clock.monotonic();
        } else if inner.clock.monotonic() >= alone + ALONE {
            return inner.led().is_empty();
        }
        sleep(Duration::from_millis(50)).await;
    }
}

impl Inner {
    /// Notes who leads; whether any shard has changed hands.
    fn learn(&self, known: &mut [Option<RouterId>]) -> bool {
        let mut moved = false;
        for (group, known) in self.groups.iter().zip(known) {
            if let Some(leader) = group.leader() {
                moved |= known.replace(leader).is_some_and(|before| before != leader);
            }
        }
        moved
    }

    /// A shard to move only to spread the load, and where to: to one that votes in it, whoever else leads nothing, and that all
    /// edges here have reached.
    fn next_move(&self) -> Option<(&Arc<Core>, RouterId)> {
        let (led, loads) = (self.led(), self.loads());
        led.iter().rev().find_map(|core| {
            let voters = voters(&core.configs());
            let able = loads
                .iter()
                .filter(|(id, load)| voters.contains(&id.0) && load.lacks == 0 && !self.failed_lately(**id));
            let to = heir_of_one(self.own, led.len(), &able.map(|(id, load)| (*id, load.leads)).collect())?;
            let calm = self.options.drain.as_ref().is_none_or(|drain| drain.is_calm(core.shard));
            (calm && !self.was_late(core.shard)).then_some((*core, to))
        })
    }

    fn led(&self) -> Vec<&Arc<Core>> {
        self.groups.iter().map(super::Group::core).filter(|core| core.leads().is_some()).collect()
    }
}

/// To whom a router that leads `led` shards gives one of them: to the one that leads the fewest, if it leads two less. Only
/// who leads the most gives: two that give at once give too much.
fn heir_of_one(own: RouterId, led: usize, others: &BTreeMap<RouterId, usize>) -> Option<RouterId> {
    let others = || others.iter().filter(|(id, _)| **id != own);
    let (least, load) = others().min_by_key(|(id, load)| (**load, id.0))?;
    let most = others().all(|(_, load)| *load <= led);
    (most && led >= load + 2).then_some(*least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_by_one_all_lead_the_same() {
        for (routers, shards) in [(3usize, 16usize), (5, 16), (2, 7), (3, 1), (1, 16)] {
            let mut loads: BTreeMap<RouterId, usize> =
                (1..=routers as u64).map(|id| (RouterId(id), 0)).collect();
            *loads.get_mut(&RouterId(1)).unwrap() = shards;
            let mut moves = 0;
            while let Some((from, to)) =
                loads.iter().find_map(|(id, led)| Some((*id, heir_of_one(*id, *led, &loads)?)))
            {
                *loads.get_mut(&from).unwrap() -= 1;
                *loads.get_mut(&to).unwrap() += 1;
                moves += 1;
                assert!(moves <= shards, "it must end");
            }
            let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
            assert!(most - least <= 1, "{loads:?}");
        }
    }
}
