//! Moving a shard to another router, and to whom.

use super::Inner;
use crate::call::{Answer, Call, Ping, Refusal};
use crate::detector::voters;
use crate::group::{Control, Core, GiveError, nearly_caught_up};
use starling_wire::{RouterId, Shard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a home may take to finish what it has begun, and to find out that all it gave away has come.
const DRAINED_WITHIN: Duration = Duration::from_secs(4);
/// How long a leader may take to say that it still waits: on a slow link there and back is longer than an election is given.
const ANSWERED_WITHIN: Duration = Duration::from_millis(300);
/// How old a ping may be.
const FRESH: Duration = Duration::from_secs(1);
/// For how long nobody is given a shard, if it can be helped, after one could not be moved there: each try stops a home that
/// works, and what the other one lacks may be nothing that it says.
const SHUNNED: Duration = Duration::from_secs(60);

/// How it goes at a router that could lead more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// How many shards it leads.
    pub(super) leads: usize,
    /// How many of the edges that are linked here are not linked there: whatever it leads, they cannot serve.
    pub(super) lacks: usize,
}

impl Inner {
    /// Moves a shard that is led here, and remembers to whom that did not work.
    pub(super) async fn give(&self, shard: Shard, to: RouterId) -> Result<(), GiveError> {
        let mut given = self.try_to_give(shard, to).await;
        let core = self.groups.get(usize::from(shard.0)).map(super::Group::core);
        if given.is_err() && core.is_none_or(|core| core.leads().is_none()) {
            // Whatever it was that the other one did not do, this router could not have had it done.
            given = Err(GiveError::NotLeader);
        }
        let now = self.clock.monotonic();
        match given {
            Ok(()) => {
                self.unmoved.lock().remove(&to);
                self.late.lock().remove(&shard);
            }
            Err(GiveError::Behind | GiveError::NotElected) => drop(self.unmoved.lock().insert(to, now)),
            // The other one has done nothing yet.
            Err(GiveError::Late) => drop(self.late.lock().insert(shard, now)),
            Err(GiveError::NotLeader | GiveError::NoVoter | GiveError::Unsafe) => {}
        }
        if let Err(error @ (GiveError::Late | GiveError::Unsafe)) = given {
            self.tell_of_kept(shard, error);
        }
        given
    }

    /// Says now and then why a shard stays here. A router that leaves says it itself, in the end.
    fn tell_of_kept(&self, shard: Shard, error: GiveError) {
        let (now, mut kept) = (self.clock.monotonic(), self.kept.lock());
        if self.leaving.load(Ordering::Acquire) || kept.get(&shard).is_some_and(|at| now < *at + SHUNNED) {
            return;
        }
        kept.insert(shard, now);
        tracing::warn!(
            event = "shard_kept",
            shard = shard.0,
            %error,
            "a shard that is to be moved stays here: sessions of an edge that is lost or silent may be known here only"
        );
    }

    async fn try_to_give(&self, shard: Shard, to: RouterId) -> Result<(), GiveError> {
        let core = self.groups.get(usize::from(shard.0)).ok_or(GiveError::NotLeader)?.core();
        // Should another one give it away and fail, its home goes on: it has to finish once more.
        let _giving = core.giving.lock().await;
        if core.leads().is_none() {
            return Err(GiveError::NotLeader);
        }
        if to == self.own || !voters(&core.configs()).contains(&to.0) {
            return Err(GiveError::NoVoter);
        }
        nearly_caught_up(core, to).await?;
        let reign = core.reign.borrow().clone();
        let epoch = reign.as_ref().map(|reign| reign.epoch);
        let home = reign.zip(self.options.drain.as_ref());
        if let Some((reign, drain)) = &home {
            match tokio::time::timeout(DRAINED_WITHIN, drain.drain(shard, reign.epoch)).await {
                Ok(true) => {}
                Ok(false) => return Err(GiveError::Unsafe),
                Err(_) if !self.leaving.load(Ordering::Acquire) => {
                    // Nobody knows whether its edges have taken what it gave away.
                    drain.resume(shard, reign.epoch);
                    return Err(GiveError::Late);
                }
                Err(_) => tracing::warn!(
                    event = "drain_late",
                    shard = shard.0,
                    "the home did not finish in time; messages may be delivered a second time"
                ),
            }
        }
        if let Some((_, lacks @ 1..)) = self.edges_of(to) {
            tracing::warn!(
                event = "edges_missing",
                shard = shard.0,
                to = %to,
                lacks,
                "edges that are linked here are not linked to the router that is to lead the shard: they do not serve its accounts until they are"
            );
        }
        let (done, given) = oneshot::channel();
        let given = match core.control.send(Control::Give { to, epoch, done }).await {
            Ok(()) => given.await.unwrap_or(Err(GiveError::NotLeader)),
            Err(_) => Err(GiveError::NotLeader),
        };
        if let (Some((reign, drain)), Err(_)) = (home, &given) {
            drain.resume(shard, reign.epoch);
        }
        given
    }

    /// Whether a shard could not be moved there a while ago.
    pub(super) fn failed_lately(&self, to: RouterId) -> bool {
        let now = self.clock.monotonic();
        self.unmoved.lock().get(&to).is_some_and(|at| now < *at + SHUNNED)
    }

    /// Whether the home of a shard did not finish in time a while ago. Nobody stops it again by himself before that is over: its
    /// accounts wait each time. Who asks for this one shard to be moved, or leaves, does.
    pub(super) fn was_late(&self, shard: Shard) -> bool {
        let now = self.clock.monotonic();
        self.late.lock().get(&shard).is_some_and(|at| now < *at + SHUNNED)
    }

    /// Whether this router is to be elected as it was asked to: one that leaves would have to give the shard away again.
    pub(super) async fn may_campaign(&self, leader: RouterId, group: u16) -> bool {
        let leaves = || self.leaving.load(Ordering::Acquire);
        // It may have begun to leave while the leader was asked.
        !leaves() && self.is_heir(leader, group).await && !leaves()
    }

    /// Whether the leader of a shard still waits for this router to be elected. It asks when it was told to campaign: that may
    /// have been on its way for long, or this router has not run, and a leader that went on would lose its reign for nothing.
    async fn is_heir(&self, leader: RouterId, group: u16) -> bool {
        let call = Call::Heir.encode(self.limits.cluster());
        let answer = self.peers.call(leader, group, call, ANSWERED_WITHIN).await;
        match answer.ok().and_then(|answer| Answer::decode(answer).ok()) {
            Some(Answer::Done) => true,
            // One of an earlier version cannot read the question.
            Some(Answer::Refused(why)) => why == Refusal::Malformed,
            _ => false,
        }
    }

    /// The edges that are linked here.
    pub(super) fn edges(&self) -> Option<BTreeSet<u64>> {
        let drain = self.options.drain.as_ref()?;
        Some(drain.edges().into_iter().map(|edge| edge.0).collect())
    }

    /// How many edges a router has, and how many of those here it lacks.
    pub(super) fn edges_of(&self, router: RouterId) -> Option<(usize, usize)> {
        let here = self.edges()?;
        let seen = self.seen.lock();
        let there = seen.get(&router)?.ping.edges.as_ref()?;
        Some((there.len(), here.difference(there).count()))
    }

    /// Each other router that could lead more.
    pub(super) fn loads(&self) -> BTreeMap<RouterId, Load> {
        let now = self.clock.monotonic();
        let here = self.edges().unwrap_or_default();
        let links = self.peers.links().borrow().clone();
        let seen = self.seen.lock();
        let able = seen.iter().filter(|(id, seen)| {
            let ping = &seen.ping;
            links.contains_key(id) && now < seen.pinged + FRESH && !ping.leaving && !ping.stuck
        });
        let load = |ping: &Ping| Load {
            leads: usize::try_from(ping.reigns).unwrap_or(usize::MAX),
            // One of an earlier version is not held to have none.
            lacks: ping.edges.as_ref().map_or(0, |there| here.difference(there).count()),
        };
        able.map(|(id, seen)| (*id, load(&seen.ping))).collect()
    }

    /// Who is best to lead this shard in one's stead.
    pub(super) fn heir(&self, core: &Core) -> Option<RouterId> {
        self.heir_of(core, |_| true)
    }

    /// The same among some.
    pub(super) fn heir_of(&self, core: &Core, among: impl Fn(RouterId) -> bool) -> Option<RouterId> {
        self.heir_with(&self.loads(), core, among)
    }

    /// The same when each leads so many.
    fn heir_with(
        &self,
        loads: &BTreeMap<RouterId, Load>,
        core: &Core,
        among: impl Fn(RouterId) -> bool,
    ) -> Option<RouterId> {
        let voters = voters(&core.configs());
        let able = loads.iter().filter(|(id, _)| **id != self.own && voters.contains(&id.0) && among(**id));
        let best = able.min_by_key(|(id, load)| {
            (self.failed_lately(**id), load.lacks, load.leads, id.0 ^ u64::from(core.shard.0))
        });
        best.map(|(id, _)| *id)
    }

    /// To whom each of these shards goes, one after the other: none of them is told in pings before it is there.
    pub(super) fn heirs<'a>(&self, led: &[&'a Arc<Core>]) -> Vec<(&'a Arc<Core>, RouterId)> {
        let mut loads = self.loads();
        let heirs = led.iter().filter_map(|core| {
            let to = self.heir_with(&loads, core, |_| true)?;
            loads.entry(to).or_default().leads += 1;
            Some((*core, to))
        });
        heirs.collect()
    }
}
