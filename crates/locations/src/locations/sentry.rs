//! Looking after the other routers: pings, the failure detector, and whose timers may elect.

use super::Inner;
use crate::attention::Attention;
use crate::call::{Answer, Call, has};
use crate::detector::{self, Sight, Verdict, judge};
use crate::lease::GRANTED;
use crate::peers::NO_GROUP;
use crate::types::Vote;
use starling_wire::RouterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long the answer to a ping may take.
const PONG_WITHIN: Duration = Duration::from_millis(300);
/// How old a ping may be that says that a router hears a leader.
const FRESH: Duration = GRANTED;
/// The watch looks again at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Has the heartbeats of all groups sent, for ever. All at once: so they go in one frame, and cost next to nothing.
pub(super) async fn pulse(inner: Arc<Inner>) {
    let mut tick = interval(inner.options.times.heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for group in &inner.groups {
            let core = group.core();
            if core.leads().is_some() && !core.quiet.load(Ordering::Acquire) {
                // It fails only when the group has stopped, which is noticed elsewhere.
                let _ = core.raft.trigger().heartbeat().await;
            }
        }
    }
}

/// Pings all linked routers, for ever.
pub(super) async fn ping(inner: Arc<Inner>) {
    let mut tick = interval(inner.options.times.heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let links = inner.peers.links();
    let mut under_way: BTreeMap<RouterId, tokio::task::JoinHandle<()>> = BTreeMap::new();
    loop {
        tick.tick().await;
        let linked: Vec<RouterId> = links.borrow().keys().copied().collect();
        under_way.retain(|_, task| !task.is_finished());
        let body = Call::Ping(inner.ping()).encode(inner.limits.cluster());
        for router in linked {
            if under_way.contains_key(&router) {
                continue;
            }
            let (inner, body) = (Arc::clone(&inner), body.clone());
            let task = tokio::spawn(async move {
                let sent = inner.clock.monotonic();
                let pong = inner.peers.call(router, NO_GROUP, body, PONG_WITHIN).await;
                if let Some(Answer::Pong(pong)) = pong.ok().and_then(|pong| Answer::decode(pong).ok()) {
                    let rtt = inner.clock.monotonic().saturating_sub(sent);
                    inner.pinged(router, pong, Some(rtt));
                }
            });
            under_way.insert(router, task);
        }
    }
}

/// Judges all groups whenever a link changes and as often as is needed, for ever.
pub(super) async fn watch(inner: Arc<Inner>) {
    let mut links = inner.peers.links();
    let mut watched = vec![Watched::default(); inner.groups.len()];
    let mut since: BTreeMap<RouterId, Duration> = BTreeMap::new();
    let mut attention = Attention::default();
    loop {
        let missed = attention.look(inner.clock.monotonic());
        if !missed.is_zero() {
            tracing::debug!(?missed, "this router did not run");
            inner.excuse(missed, &mut since);
        }
        let linked: BTreeSet<u64> = links.borrow_and_update().keys().map(|id| id.0).collect();
        since.retain(|id, _| {
            let stays = linked.contains(&id.0);
            if !stays && let Some(seen) = inner.seen.lock().get_mut(id) {
                seen.gaps.unlinked();
            }
            stays
        });
        for id in &linked {
            since.entry(RouterId(*id)).or_insert_with(|| inner.clock.monotonic());
        }
        let began = inner.clock.monotonic();
        let wait = inner.look(&linked, &since, &mut watched, attention.fair()).await;
        // From when it began to look: to be stopped in the midst of it is to be away as well.
        attention.plan(began + wait);
        tokio::select! {
            changed = links.changed() => if changed.is_err() { return },
            () = sleep(wait) => {}
        }
    }
}

/// What the watch remembers of a group.
#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    /// The leader against whom this voter has campaigned.
    campaigned: Option<Vote>,
    may_elect: bool,
}

impl Inner {
    async fn look(
        &self,
        linked: &BTreeSet<u64>,
        since: &BTreeMap<RouterId, Duration>,
        watched: &mut [Watched],
        fair: Duration,
    ) -> Duration {
        let mut wait = LOOK_EVERY;
        let leaving = self.leaving.load(Ordering::Acquire);
        for (group, watched) in self.groups.iter().zip(watched) {
            let core = group.core();
            let (leader, vote, configs) = {
                let server = core.server.borrow();
                let configs = server.membership_config.membership().get_joint_config().clone();
                (server.current_leader, server.vote, configs)
            };
            let now = self.clock.monotonic();
            let number = group.shard().0;
            // One that was linked a moment ago has not said yet what it hears.
            let hears = |id| {
                let linked = since.get(&RouterId(id)).copied().unwrap_or(now);
                self.hears(RouterId(id), number, now).unwrap_or(now < linked + FRESH)
            };
            let may_elect = !leaving && detector::may_elect(self.own.0, &configs, linked, hears);
            if may_elect != watched.may_elect {
                core.raft.runtime_config().elect(may_elect);
                watched.may_elect = may_elect;
            }
            let (heard, patience) = leader.map_or_else(Default::default, |leader| {
                let linked = since.get(&RouterId(leader)).copied().unwrap_or_default();
                let (heard, patience) = self.heard(RouterId(leader), now);
                (heard.max(linked), patience)
            });
            let verdict = judge(&Sight {
                now,
                own: self.own.0,
                group: number,
                leader,
                configs: &configs,
                linked,
                taken: core.taken_from(leader.map(RouterId)),
                heard,
                patience,
                fair,
                heard_elsewhere: linked.iter().any(|id| Some(*id) != leader && hears(*id)),
                campaigned: watched.campaigned == Some(vote),
            });
            match verdict {
                Verdict::Wait(until) => wait = wait.min(until.saturating_sub(now)),
                Verdict::Elect if !leaving => {
                    tracing::info!(shard = number, leader, "the leader is gone, campaigning");
                    watched.campaigned = Some(vote);
                    // It fails only when the group has stopped, which is noticed elsewhere.
                    let _ = core.raft.trigger().elect().await;
                }
                Verdict::Elect | Verdict::Rest => {}
            }
        }
        // Never so short that it spins.
        wait.max(Duration::from_millis(1))
    }

    /// Whether a router has lately said that it hears the leader of a group; `None` if it has said nothing lately.
    fn hears(&self, router: RouterId, group: u16, now: Duration) -> Option<bool> {
        let (seen, least) = (self.seen.lock(), self.options.times.election);
        seen.get(&router)
            .filter(|seen| now < seen.pinged + seen.gaps.patience(now, least))
            .map(|seen| has(&seen.ping.hears, group))
    }

    /// When something was last heard of a router, and how long it may be silent.
    fn heard(&self, router: RouterId, now: Duration) -> (Duration, Duration) {
        let (seen, least) = (self.seen.lock(), self.options.times.election);
        let one = seen.get(&router);
        one.map_or((Duration::ZERO, least), |seen| (seen.heard, seen.gaps.patience(now, least)))
    }

    /// This router was away: nobody is the worse for what he said meanwhile.
    fn excuse(&self, missed: Duration, since: &mut BTreeMap<RouterId, Duration>) {
        let now = self.clock.monotonic();
        self.seen.lock().values_mut().for_each(|seen| seen.excuse(missed, now));
        since.values_mut().for_each(|since| *since = (*since + missed).min(now));
    }
}
