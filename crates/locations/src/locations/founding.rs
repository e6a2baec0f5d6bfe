//! How a router comes to belong to a cluster: it founds one, is founded with one, or finds one and joins it.
//!
//! Of the routers that may found, the one with the lowest identity does, when as many routers as it was told are linked and
//! the disks of all are empty: with a router left out that has state, the old cluster may live. A crash at any point is
//! repaired by going through it again: until the first group has state, all founders count as empty, whatever cluster they
//! have been told of. Should two found at once, because each is linked to others only, the store gives an era to one of them.

use super::joining::MOST_VOTERS;
use super::{Inner, write_cluster};
use crate::call::{Answer, Call, Ping, Refusal, has};
use crate::era::{Era, first_ceiling};
use crate::lease::micros;
use crate::peers::NO_GROUP;
use crate::places::Cluster;
use crate::types::Member;
use starling_store::StoreError;
use starling_wire::RouterId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked whether something is to be done.
const EVERY: Duration = Duration::from_millis(200);
/// How often a router that is no voter everywhere asks to be one.
const ASK_EVERY: u32 = 3;
/// How long another router may take.
const WITHIN: Duration = Duration::from_secs(2);
/// How old a ping may be on which a cluster is founded or joined.
const FRESH: Duration = Duration::from_secs(1);

/// How far positions may have been ahead of the clock.
const AHEAD: Duration = Duration::from_secs(60);

/// Why no cluster was founded in place of another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// This router, or one that is linked, has state.
    #[error("{0} belongs to a cluster: a cluster that lives needs no other in its place")]
    Lives(String),
    /// Too few are there.
    #[error("only {0} routers with empty disks are linked")]
    Few(usize),
    /// One did not want to: it is founded with by another one at the same moment.
    #[error("router {0} did not let itself be founded with")]
    Refused(RouterId),
    /// The store says no.
    #[error("no era can be begun: {0}")]
    Store(String),
    /// This router's disk says no.
    #[error("the cluster cannot be written down: {0}")]
    Disk(String),
}

/// Sees to it that this router belongs to a cluster and votes in all shards, for ever.
pub(super) async fn belong(inner: Arc<Inner>) {
    let mut known = BTreeMap::new();
    for round in 0u32.. {
        sleep(EVERY).await;
        let members: BTreeMap<RouterId, Member> =
            inner.members().into_iter().map(|(id, (member, _))| (id, member)).collect();
        if members != known {
            inner.peers.members(&members);
            known = members;
        }
        // Before another one is founded: what was written down may only have to be gone on with.
        inner.initialize().await;
        if inner.is_fresh() {
            match inner.options.found_with {
                Some(_) => inner.found().await,
                None => inner.find(),
            }
            inner.initialize().await;
        }
        if inner.limits.cluster() != 0 {
            // One that was removed still believes that it votes; but it hears no leader any more.
            if round.is_multiple_of(ASK_EVERY) && !(inner.votes_everywhere() && inner.hears_all()) {
                inner.ask_to_join().await;
            }
        }
    }
}

impl Inner {
    /// Founds a cluster, if all that are wanted are there and empty.
    async fn found(&self) {
        let Some(wanted) = self.options.found_with else { return };
        let now = self.clock.monotonic();
        let links = self.peers.links().borrow().clone();
        let mut founders = BTreeMap::from([(self.own, self.options.member.clone())]);
        let mut state_elsewhere = false;
        for (id, member) in links.iter() {
            if let Some(ping) = self.fresh_ping(*id, now) {
                state_elsewhere |= !ping.fresh;
                founders.insert(*id, member.clone());
            }
        }
        if state_elsewhere {
            // There is a cluster: this disk was replaced.
            self.find();
            return;
        }
        let first = founders.keys().next() == Some(&self.own);
        if founders.len() < wanted || !first {
            return;
        }
        // It is written down when it fails, too.
        let _ = self.found_with(founders, Era::default()).await;
    }

    /// Founds a cluster with these, or as many of them as are to vote.
    async fn found_with(&self, there: BTreeMap<RouterId, Member>, above: Era) -> Result<(), RestoreError> {
        let founders = first_voters(self.own, there);
        let id = rand::random::<u64>().max(1);
        let era = match self.options.eras.begin(id, above).await {
            Ok(era) => era,
            Err(error) => {
                tracing::warn!(event = "founding_failed", %error, "no era can be begun, so no cluster is founded");
                return Err(RestoreError::Store(error.to_string()));
            }
        };
        let call = Call::Found { cluster: id, era: era.number, floor: era.floor }.encode(id);
        for router in founders.keys().filter(|router| **router != self.own) {
            let answer = self.peers.call(*router, NO_GROUP, call.clone(), WITHIN).await;
            if !matches!(answer.ok().and_then(|answer| Answer::decode(answer).ok()), Some(Answer::Done)) {
                tracing::warn!(
                    event = "founding_failed",
                    router = %router,
                    "a router did not let itself be founded with"
                );
                return Err(RestoreError::Refused(*router));
            }
            // Nobody else does yet, and it is given up soon.
            if let Err(error) = self.hold(era).await {
                tracing::warn!(event = "founding_failed", %error, "the era is lost again, so no cluster is founded");
                return Err(RestoreError::Store(error.to_string()));
            }
        }
        let cluster = Cluster { id, era, shards: self.shards.count(), founders };
        tracing::info!(
            event = "cluster_founded",
            cluster = id,
            era = era.number,
            routers = cluster.founders.len(),
            "a cluster is founded"
        );
        write_cluster(self, &cluster).map_err(|error| {
            tracing::error!(event = "identity_failed", %error, "the cluster cannot be written down");
            RestoreError::Disk(error.to_string())
        })
    }

    /// Keeps an era for some seconds, if no later one has begun.
    async fn hold(&self, era: Era) -> Result<(), StoreError> {
        let ceiling = first_ceiling(era.floor, &self.clock);
        self.options.eras.extend(era.number, ceiling).await
    }

    /// Founds a cluster that comes after `above`, with the routers that are linked, of which no more than can vote.
    pub(super) async fn restore(&self, above: Era, routers: usize) -> Result<(), RestoreError> {
        let now = self.clock.monotonic();
        let links = self.peers.links().borrow().clone();
        let mut founders = BTreeMap::from([(self.own, self.options.member.clone())]);
        if !self.is_fresh() {
            return Err(RestoreError::Lives(self.options.member.name.clone()));
        }
        for (id, member) in links.iter() {
            let Some(ping) = self.fresh_ping(*id, now) else { continue };
            // One without state may have been told of a cluster; one that lives has its era.
            if !ping.fresh {
                return Err(RestoreError::Lives(member.name.clone()));
            }
            founders.insert(*id, member.clone());
        }
        if founders.len() < routers {
            return Err(RestoreError::Few(founders.len()));
        }
        // Positions follow the clock: those of the time since that was known are below what a clock may be ahead.
        let ahead = self.clock.now_micros().saturating_add(micros(AHEAD));
        let above = Era { floor: above.floor.max(ahead), ..above };
        self.found_with(founders, above).await
    }

    fn fresh_ping(&self, router: RouterId, now: Duration) -> Option<Ping> {
        let seen = self.seen.lock();
        seen.get(&router).filter(|seen| now < seen.pinged + FRESH).map(|seen| seen.ping.clone())
    }

    /// Another router founds a cluster with this one.
    pub(super) async fn be_founded(&self, from: RouterId, id: u64, era: Era) -> Answer {
        let own_turn = self.options.found_with.is_some() && self.own < from;
        if !self.is_fresh() || id == 0 || own_turn {
            return Answer::Refused(Refusal::Stranger);
        }
        let shards = self.shards.count();
        match write_cluster(self, &Cluster { id, era, shards, founders: BTreeMap::new() }) {
            Ok(()) => Answer::Done,
            Err(error) => {
                tracing::error!(event = "identity_failed", %error, "the cluster cannot be written down");
                Answer::Refused(Refusal::Stopped)
            }
        }
    }

    /// Finds the cluster that the others belong to.
    fn find(&self) {
        let now = self.clock.monotonic();
        let links = self.peers.links().borrow().clone();
        let mut found: BTreeMap<u64, Era> = BTreeMap::new();
        for ping in links.keys().filter_map(|id| self.fresh_ping(*id, now)) {
            if ping.cluster != 0 && !ping.fresh {
                found.insert(ping.cluster, Era { number: ping.era, floor: ping.floor });
            }
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some((id, era)), None) if id != self.limits.cluster() => {
                let shards = self.shards.count();
                tracing::info!(event = "joining", cluster = id, "joining a cluster");
                if let Err(error) =
                    write_cluster(self, &Cluster { id, era, shards, founders: BTreeMap::new() })
                {
                    tracing::error!(event = "identity_failed", %error, "the cluster cannot be written down");
                }
            }
            (Some(_), Some(_)) => {
                tracing::error!(
                    event = "several_clusters",
                    "there are links to routers of several clusters; none is joined"
                )
            }
            _ => {}
        }
    }

    /// At the founder: tells each group who votes in it, once.
    async fn initialize(&self) {
        if self.limits.cluster() == 0
            || !self.groups.iter().any(|group| group.core().fresh.load(Ordering::Acquire))
        {
            return;
        }
        let Cluster { era, founders, .. } = match self.places.cluster() {
            Ok(Some(cluster)) if !cluster.founders.is_empty() => cluster,
            _ => return,
        };
        // Where this was interrupted, another one may have been founded since, with the same routers.
        if self.is_fresh()
            && let Err(error) = self.hold(era).await
        {
            tracing::debug!(era = era.number, %error, "the founding of a cluster cannot be gone on with");
            return;
        }
        let members: BTreeMap<u64, Member> =
            founders.into_iter().map(|(id, member)| (id.0, member)).collect();
        for group in &self.groups {
            let raft = &group.core().raft;
            if !group.core().fresh.load(Ordering::Acquire) {
                continue;
            }
            group.core().fresh.store(false, Ordering::Release);
            if let Err(error) = raft.initialize(members.clone()).await {
                tracing::warn!(event = "founding_failed", shard = group.shard().0, %error, "a shard could not be founded");
            }
        }
    }

    fn votes_everywhere(&self) -> bool {
        self.groups.iter().all(|group| {
            let server = group.core().server.borrow();
            let membership = server.membership_config.membership();
            membership.voter_ids().any(|id| id == self.own.0)
                && membership.get_node(&self.own.0) == Some(&self.options.member)
        })
    }

    fn hears_all(&self) -> bool {
        let ping = self.ping();
        self.groups.iter().all(|group| has(&ping.hears, group.shard().0))
    }

    async fn ask_to_join(&self) {
        let Member { name, address, .. } = self.options.member.clone();
        let call = Call::Join { name, address }.encode(self.limits.cluster());
        let linked: Vec<RouterId> = self.peers.links().borrow().keys().copied().collect();
        let mut kept_by = None;
        for router in linked {
            let answer = self.peers.call(router, NO_GROUP, call.clone(), WITHIN).await;
            match answer.ok().and_then(|answer| Answer::decode(answer).ok()) {
                Some(Answer::Refused(Refusal::Removed)) => self.removed.store(true, Ordering::Release),
                Some(Answer::Refused(why @ Refusal::Name)) => {
                    tracing::warn!(event = "not_taken_in", router = %router, %why, "this router is not taken in");
                }
                Some(Answer::Refused(Refusal::Kept)) => kept_by = Some(router),
                _ => {}
            }
        }
        self.note_kept(kept_by);
        // Where this router leads, it can change its own address itself.
        let _ = self.ask_admission(self.own, self.options.member.clone());
    }
}

impl Inner {
    /// Notes whether this router's place is another one's still, as this router says.
    fn note_kept(&self, by: Option<RouterId>) {
        let now = self.clock.monotonic();
        let mut kept_out = self.kept_out.lock();
        let since = kept_out.map(|(since, _)| since);
        if let (Some(router), None) = (by, since) {
            tracing::warn!(
                event = "not_taken_in",
                router = %router,
                why = %Refusal::Kept,
                "this router waits: it takes that one's place when nobody has heard of it for a while"
            );
        }
        *kept_out = by.map(|_| (since.unwrap_or(now), now));
    }
}

/// Those that vote from the beginning: the one that founds, and of the others the first by number. Nobody would take the votes
/// of more away, and each bind waits for more disks. Who is left out joins without a vote, as one that comes later.
fn first_voters(own: RouterId, there: BTreeMap<RouterId, Member>) -> BTreeMap<RouterId, Member> {
    let mut all: Vec<_> = there.into_iter().collect();
    // Of `router-2` and `router-10` the first one votes.
    all.sort_by_key(|(id, member)| (*id != own, member.name.len(), member.name.clone()));
    all.into_iter().take(MOST_VOTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_founds_votes_and_of_the_others_the_first_by_number() {
        let there: BTreeMap<_, _> =
            (0..12).map(|n| (RouterId(20 - n), Member::new(format!("r-{n}"), "host:1"))).collect();
        let names = |own: u64| -> Vec<String> {
            let voters = first_voters(RouterId(own), there.clone());
            voters.into_values().rev().map(|member| member.name).collect()
        };
        assert_eq!(names(9), ["r-0", "r-1", "r-2", "r-3", "r-11"]);
        assert_eq!(names(20), ["r-0", "r-1", "r-2", "r-3", "r-4"]);
        let few: BTreeMap<_, _> = there.into_iter().take(3).collect();
        assert_eq!(first_voters(RouterId(9), few.clone()), few);
    }
}
