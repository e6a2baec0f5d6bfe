//! Looking after the other routers: pings, the failure detector, and whose timers may elect.

use super::Inner;
use crate::attention::Attention;
use crate::call::{Answer, Call, Ping, has};
use crate::detector::{self, Sight, Verdict, judge};
use crate::group::Core;
use crate::lease::{GRANTED, is_quorum};
use crate::peers::NO_GROUP;
use crate::types::Vote;
use starling_wire::RouterId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long the answer to a ping may take.
const PONG_WITHIN: Duration = Duration::from_millis(300);
/// How old a ping may be that says that a router hears a leader.
const FRESH: Duration = GRANTED;
/// The watch looks again at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A group that was asked a moment ago whether it runs has hardly had the time to say so.
const PROBED: Duration = Duration::from_millis(20);
/// A leader that has done nothing for so long asks nobody to wait for it any more: its disk is dead, or it is itself.
pub(super) const STUCK: Duration = Duration::from_secs(2);
/// One that has done nothing for so long takes no leadership.
pub(super) const STILL: Duration = GRANTED;
/// A voter that has said nothing for so long is not there, link or no link: at the least.
const ABSENT: Duration = Duration::from_secs(1);
/// So many pings to one router may be under way: what a lease needs does not wait for the answer to the last one.
const PINGS: usize = 4;

/// Has the heartbeats of all groups sent, for ever. All at once: so they go in one frame, and cost next to nothing.
pub(super) async fn pulse(inner: Arc<Inner>) {
    let mut tick = interval(inner.options.times.heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = inner.clock.monotonic();
        let present = inner.present(now);
        for group in &inner.groups {
            let core = group.core();
            if !inner.reaches_quorum(core, &present) {
                continue;
            }
            // One that does nothing at present would only have more to do afterwards.
            if core.leads().is_some() && !core.quiet.load(Ordering::Acquire) && core.stuck(now) < PROBED {
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
    let mut under_way: BTreeMap<RouterId, JoinSet<()>> = BTreeMap::new();
    let mut lapses = Lapses::default();
    loop {
        tick.tick().await;
        let linked: Vec<RouterId> = links.borrow().keys().copied().collect();
        under_way.retain(|id, _| linked.contains(id));
        // Those that others lead as well: a disk that stands still is seen by nothing else.
        inner.groups.iter().for_each(|group| group.core().probe());
        let leads = inner.renewable();
        lapses.look(&inner);
        let ping = inner.ping();
        for router in linked {
            let tasks = under_way.entry(router).or_default();
            while tasks.try_join_next().is_some() {}
            if tasks.len() < PINGS {
                // One that is no member of a group must not believe that it still hears its leader.
                let led = leads.iter().filter(|led| led.members.contains(&router.0));
                let led: Vec<_> = led.map(|led| (led.group, led.vote)).collect();
                tasks.spawn(ping_one(Arc::clone(&inner), router, ping.clone(), led));
            }
        }
    }
}

async fn ping_one(inner: Arc<Inner>, router: RouterId, ping: Ping, leads: Vec<(u16, Vote)>) {
    let renews = leads.iter().map(|(group, vote)| (*group, vote.leader_id.term)).collect();
    let body = Call::Ping(Ping { renews, ..ping }).encode(inner.limits.cluster());
    let sent = inner.clock.monotonic();
    let pong = inner.peers.call(router, NO_GROUP, body, PONG_WITHIN).await;
    let Some(Answer::Pong(pong)) = pong.ok().and_then(|pong| Answer::decode(pong).ok()) else { return };
    for (group, vote) in leads.iter().filter(|(group, _)| has(&pong.promised, *group)) {
        if let Some(group) = inner.groups.get(usize::from(*group)) {
            group.core().lease.taken(*vote, router.0, sent);
        }
    }
    let rtt = inner.clock.monotonic().saturating_sub(sent);
    inner.pinged(router, pong, Some(rtt));
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

/// A group whose leader asks the others to wait for it.
struct Renewable {
    group: u16,
    vote: Vote,
    members: BTreeSet<u64>,
}

/// Tells why leases were lost.
#[derive(Debug, Default)]
struct Lapses {
    /// When it was looked last: who looks late may have lost them himself.
    looked: Duration,
    /// The groups without a lease that were told of.
    told: BTreeSet<u16>,
}

impl Lapses {
    fn look(&mut self, inner: &Inner) {
        let now = inner.clock.monotonic();
        let late = now.saturating_sub(std::mem::replace(&mut self.looked, now));
        let mut lapsed = BTreeSet::new();
        for group in &inner.groups {
            let core = group.core();
            let (Some(vote), Some(reign)) = (core.leads(), core.reign.borrow().clone()) else { continue };
            let until = Duration::from_micros(reign.until.load(Ordering::Acquire));
            // Before the first answer there is none to lose.
            if until.is_zero() || now < until {
                continue;
            }
            lapsed.insert(group.shard().0);
            if self.told.is_empty() && lapsed.len() == 1 {
                let mut ages = String::new();
                for (peer, at) in core.lease.acks(vote) {
                    let _ = write!(ages, "{peer:016x}: {:?} ", now.saturating_sub(at));
                }
                tracing::info!(
                    event = "lease_lapsed",
                    shard = group.shard().0,
                    since = ?now.saturating_sub(until),
                    answered = ages.trim_end(),
                    raft_waits = ?core.stuck(now),
                    looked = ?late,
                    linked = inner.peers.links().borrow().len(),
                    "no quorum has answered in time"
                );
            }
        }
        self.told = lapsed;
    }
}

impl Inner {
    /// The routers that are linked and have lately said something.
    pub(super) fn present(&self, now: Duration) -> BTreeSet<u64> {
        let links = self.peers.links().borrow().clone();
        let present = links.keys().filter(|id| {
            let (heard, patience) = self.heard(**id, now);
            now < heard + patience.max(ABSENT)
        });
        present.map(|id| id.0).collect()
    }

    /// Those of them that can take an entry, this router among them: not where a disk stands still.
    pub(super) fn able(&self) -> BTreeSet<u64> {
        let now = self.clock.monotonic();
        let mut able = self.present(now);
        let seen = self.seen.lock();
        able.retain(|id| seen.get(&RouterId(*id)).is_none_or(|seen| !seen.ping.stuck));
        drop(seen);
        able.extend((self.stuck(now) < STILL).then_some(self.own.0));
        able
    }

    /// For how long openraft's task has done nothing, of the group where that is longest.
    pub(super) fn stuck(&self, now: Duration) -> Duration {
        self.groups.iter().map(|group| group.core().stuck(now)).max().unwrap_or_default()
    }

    /// Whether a leader here could have the promise of a quorum. One that could not says nothing as the leader, neither asks
    /// for promises nor sends heartbeats: it would only keep those who hear it from electing another one with the rest.
    fn reaches_quorum(&self, core: &Core, present: &BTreeSet<u64>) -> bool {
        let server = core.server.borrow();
        let configs = server.membership_config.membership().get_joint_config();
        is_quorum(configs, |id| id == self.own.0 || present.contains(&id))
    }

    /// The groups that are led here with a quorum in reach, and are not about to be given away or to be given up.
    fn renewable(&self) -> Vec<Renewable> {
        let now = self.clock.monotonic();
        let present = self.present(now);
        let renewable = self.groups.iter().filter_map(|group| {
            let core = group.core();
            let vote = core.leads()?;
            if !self.reaches_quorum(core, &present) {
                return None;
            }
            let given = core.quiet.load(Ordering::Acquire) || core.heir.load(Ordering::Acquire) != 0;
            if given || core.stuck(now) >= STUCK {
                return None;
            }
            let server = core.server.borrow();
            let members = server.membership_config.membership().nodes().map(|(id, _)| *id).collect();
            Some(Renewable { group: group.shard().0, vote, members })
        });
        renewable.collect()
    }

    async fn look(
        &self,
        linked: &BTreeSet<u64>,
        since: &BTreeMap<RouterId, Duration>,
        watched: &mut [Watched],
        fair: Duration,
    ) -> Duration {
        let mut wait = LOOK_EVERY;
        let leaving = self.leaving.load(Ordering::Acquire);
        let telling = self.telling(linked);
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
            let heard_by_any = linked.iter().any(|id| hears(*id));
            let may_elect = !leaving && detector::may_elect(self.own.0, &configs, &telling, heard_by_any);
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
                telling: &telling,
                taken: core.promised_to(leader.map(RouterId)),
                heard,
                patience,
                fair,
                heard_elsewhere: linked.iter().any(|id| Some(*id) != leader && hears(*id)),
                campaigned: watched.campaigned == Some(vote),
            });
            match verdict {
                Verdict::Wait(until) => wait = wait.min(until.saturating_sub(now)),
                Verdict::Elect if !leaving => {
                    tracing::info!(
                        event = "campaign",
                        shard = number,
                        leader = leader.map(|leader| tracing::field::display(RouterId(leader))),
                        linked = leader.is_some_and(|leader| linked.contains(&leader)),
                        silent = ?now.saturating_sub(heard),
                        "the leader is gone, campaigning"
                    );
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

    /// Who of these has lately told what it hears, and when.
    fn telling(&self, linked: &BTreeSet<u64>) -> BTreeMap<u64, Duration> {
        let (now, seen, least) = (self.clock.monotonic(), self.seen.lock(), self.options.times.election);
        let seen = seen.iter().filter(|(id, _)| linked.contains(&id.0));
        let telling = seen.filter(|(_, seen)| now < seen.pinged + seen.gaps.patience(now, least));
        telling.map(|(id, seen)| (id.0, seen.pinged)).collect()
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
