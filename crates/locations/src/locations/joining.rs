//! Taking routers in, in place of another disk or beside it, and removing them. Whoever leads a shard does it there.

use super::Inner;
use crate::call::{Answer, Call, Refusal, Wanted};
use crate::group::{Core, Group};
use crate::lease::is_quorum;
use crate::peers::NO_GROUP;
use crate::types::Member;
use futures::{StreamExt, stream};
use openraft::{ChangeMembers, Membership, RaftMetrics};
use starling_wire::RouterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a new router is waited for until it has all entries of one shard. Others are waiting for their turn meanwhile, and
/// it asks again all the time until it votes.
const CAUGHT_UP_WITHIN: Duration = Duration::from_millis(250);
/// How often it is told that a new router does not catch up.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How many entries it may lag behind then.
const CLOSE: u64 = 10;
/// How long a change of who votes may take.
const CHANGED_WITHIN: Duration = Duration::from_secs(10);
/// Who has said nothing for so long is gone.
pub(super) const GONE: Duration = Duration::from_secs(1);
/// Who has said nothing for so long is not just being restarted, and another disk may take its place.
const KEPT: Duration = Duration::from_secs(10);
/// A new router that has said nothing for so long is not taken in: it asks again when it is back.
const DEAD: Duration = Duration::from_secs(5);
/// So many vote in a shard; more routers take part without a vote. Each voter more is one more to wait for, and five bear
/// the loss of two.
pub const MOST_VOTERS: usize = 5;
/// A voter that has said nothing for so long gives its vote to a router that has none and is there.
const LOST: Duration = Duration::from_secs(300);
/// In how many groups a router is taken in at the same time: from each leader it gets as many snapshots.
pub(super) const AT_ONCE: usize = 4;

/// What routers ask of those who lead.
#[derive(Debug)]
pub(super) enum Admission {
    Join(RouterId, Member),
    Remove(RouterId),
    Reconcile(Wanted),
}

/// Does what is asked, one thing after the other, for ever.
pub(super) async fn admit(inner: Arc<Inner>, mut wanted: mpsc::Receiver<Admission>) {
    let mut late = BTreeMap::new();
    while let Some(first) = wanted.recv().await {
        let mut all = vec![first];
        while let Ok(more) = wanted.try_recv() {
            all.push(more);
        }
        let (mut joining, mut removing, mut wanted) = (BTreeMap::new(), BTreeSet::new(), None);
        for one in all {
            match one {
                Admission::Join(router, member) => drop(joining.insert(router, member)),
                Admission::Remove(router) => drop(removing.insert(router)),
                Admission::Reconcile(last) => wanted = Some(last),
            }
        }
        // First: who is to go may be the one that all others wait for. And what it asked before does not bring it back.
        for router in &removing {
            for group in &inner.groups {
                inner.take_out(group.core(), *router).await;
            }
        }
        joining.retain(|router, _| !removing.contains(router));
        for (router, member) in joining {
            let (inner, member) = (&inner, &member);
            let each = stream::iter(&inner.groups);
            each.for_each_concurrent(AT_ONCE, |group| inner.take_in(group.core(), router, member)).await;
            inner.tell_of_late(router, &mut late);
        }
        if let Some(wanted) = &wanted {
            let (inner, each) = (&inner, stream::iter(&inner.groups));
            each.for_each_concurrent(AT_ONCE, |group| inner.bring_to(group.core(), wanted)).await;
        }
    }
}

/// Why a router is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// Nobody could change that back afterwards, nor anything else.
    #[error(
        "of those that vote in shard {0} too many are away, or have a disk that stands still: without this one there would be no majority"
    )]
    Majority(u16),
}

/// Asks everybody, and does one's own part.
pub(super) async fn remove(inner: &Arc<Inner>, router: RouterId) -> Result<(), RemoveError> {
    let needed = inner.groups.iter().find(|group| inner.needs(group.core(), router));
    if let Some(group) = needed {
        return Err(RemoveError::Majority(group.shard().0));
    }
    let call = Call::Remove(router).encode(inner.limits.cluster());
    let linked: Vec<RouterId> = inner.peers.links().borrow().keys().copied().collect();
    for other in linked {
        let _ = inner.peers.call(other, NO_GROUP, call.clone(), Duration::from_secs(1)).await;
    }
    let _ = inner.ask_removal(router);
    Ok(())
}

/// In how many shards a router votes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Votes {
    /// In so many; one that is being taken in, or removed, is a member of some only.
    pub shards: usize,
    /// Of so many it is known who votes; a newcomer has not heard of all.
    pub known: usize,
    /// There are so many.
    pub all: usize,
}

impl Votes {
    /// Whether it votes in every shard.
    pub fn are_all(self) -> bool {
        self.shards == self.all
    }
}

/// Who is a member of any of these groups, and in how many of them it votes.
fn voting<'a>(
    groups: impl Iterator<Item = &'a Membership<u64, Member>>,
) -> BTreeMap<RouterId, (Member, Votes)> {
    let mut members: BTreeMap<RouterId, (Member, Votes)> = BTreeMap::new();
    let (mut known, mut all) = (0, 0);
    for membership in groups {
        for (id, member) in membership.nodes() {
            let votes = membership.voter_ids().any(|voter| voter == *id);
            let (_, of) = members.entry(RouterId(*id)).or_insert_with(|| (member.clone(), Votes::default()));
            of.shards += usize::from(votes);
        }
        known += usize::from(membership.nodes().next().is_some());
        all += 1;
    }
    members.values_mut().for_each(|(_, votes)| (votes.known, votes.all) = (known, all));
    members
}

impl Inner {
    pub(super) fn ask_admission(&self, router: RouterId, member: Member) -> Answer {
        let removed = |core: &Core| core.state.removed.lock().contains(&router.0);
        if self.groups.iter().any(|group| removed(group.core())) {
            return Answer::Refused(Refusal::Removed);
        }
        let is_member = self.members().contains_key(&router);
        if !is_member && self.groups.iter().any(|group| self.is_kept(group.core(), router, &member.name)) {
            return Answer::Refused(Refusal::Kept);
        }
        self.ask(Admission::Join(router, member))
    }

    /// Whether a router would take the place of one that lives, or may only be away for a restart.
    fn is_kept(&self, core: &Core, router: RouterId, name: &str) -> bool {
        let server = core.server.borrow();
        let mut nodes = server.membership_config.membership().nodes();
        nodes.any(|(id, member)| *id != router.0 && member.name == name && self.silent(RouterId(*id)) < KEPT)
    }

    /// As [`Locations::members`](super::Locations::members).
    pub(super) fn members(&self) -> BTreeMap<RouterId, (Member, Votes)> {
        let stored = |group: &Group| Arc::clone(&group.core().server.borrow().membership_config);
        let all: Vec<_> = self.groups.iter().map(stored).collect();
        voting(all.iter().map(|stored| stored.membership()))
    }

    pub(super) fn ask_removal(&self, router: RouterId) -> Answer {
        self.ask(Admission::Remove(router))
    }

    pub(super) fn ask(&self, admission: Admission) -> Answer {
        match self.admissions.try_send(admission) {
            Ok(()) => Answer::Done,
            Err(_) => Answer::Refused(Refusal::Busy),
        }
    }

    /// Makes a router a voter of a shard that this one leads, in place of a dead one of the same name.
    async fn take_in(&self, core: &Core, router: RouterId, member: &Member) {
        if core.leads_with_lease().is_none() || self.silent(router) >= DEAD {
            return;
        }
        let stored = Arc::clone(&core.server.borrow().membership_config);
        let membership = stored.membership();
        let [voters] = &membership.get_joint_config()[..] else { return };
        match membership.get_node(&router.0) {
            Some(there) if there.is_at(member) && (there.spare || voters.contains(&router.0)) => return,
            Some(there) if !there.is_at(member) => {
                // The same disk at another address.
                let nodes = BTreeMap::from([(router.0, Member { spare: there.spare, ..member.clone() })]);
                self.change(core, ChangeMembers::SetNodes(nodes), false).await;
                return;
            }
            Some(_) => {}
            // Its name's disk was heard by this one, and not by the one that was asked.
            None if self.is_kept(core, router, &member.name) => return,
            // Not more than it can have at once; those it lags behind in may be slow.
            None if self.lags_behind(router) >= AT_ONCE => return,
            None => {
                let spare = membership.nodes().any(|(_, other)| other.name == member.name && other.spare);
                let number = core.shard.0;
                // Others are looked at before it is a member in this one.
                self.adding.lock().insert(number);
                let added = core.raft.add_learner(router.0, Member { spare, ..member.clone() }, false);
                let added = timeout(CHANGED_WITHIN, added).await;
                self.adding.lock().remove(&number);
                if !matches!(added, Ok(Ok(_))) || spare {
                    return;
                }
            }
        }
        let namesakes: BTreeSet<u64> = membership
            .nodes()
            .filter(|(id, other)| **id != router.0 && other.name == member.name)
            .map(|(id, _)| *id)
            .collect();
        // It may have come back meanwhile.
        if namesakes.iter().any(|id| self.silent(RouterId(*id)) < GONE) {
            tracing::error!(event = "name_taken", shard = core.shard.0, name = %member.name, "two living routers have one name");
            return;
        }
        let mut after: BTreeSet<u64> = voters.difference(&namesakes).copied().collect();
        // Those that are members no more because another disk is there; one that is only lost may come back.
        let mut lost = None;
        if after.len() >= MOST_VOTERS {
            lost = after.iter().copied().find(|id| self.is_lost(RouterId(*id)));
            if lost.is_none_or(|lost| !after.remove(&lost)) {
                return;
            }
        }
        after.insert(router.0);
        if !self.caught_up(core, router).await {
            return;
        }
        if self.change(core, ChangeMembers::ReplaceAllVoters(after), lost.is_some()).await {
            tracing::info!(
                event = "router_taken_in",
                shard = core.shard.0,
                router = %router,
                replaced = namesakes.len(),
                lost = lost.map(|lost| tracing::field::display(RouterId(lost))),
                "a router was taken in"
            );
        }
    }

    /// Removes a router from a shard that this one leads.
    async fn take_out(&self, core: &Core, router: RouterId) {
        if core.leads_with_lease().is_none() {
            return;
        }
        let stored = Arc::clone(&core.server.borrow().membership_config);
        let membership = stored.membership();
        let [voters] = &membership.get_joint_config()[..] else { return };
        if membership.get_node(&router.0).is_none() || (voters.len() == 1 && voters.contains(&router.0)) {
            return;
        }
        if self.needs(core, router) {
            tracing::warn!(
                event = "router_kept",
                shard = core.shard.0,
                router = %router,
                "a router is not removed: there would be no majority without it"
            );
            return;
        }
        if router == self.own {
            // A leader that removes itself would leave the shard without one for a while.
            if let Some(to) = self.heir(core).filter(|_| !self.was_late(core.shard)) {
                let _ = self.give(core.shard, to).await;
            }
            return;
        }
        let gone = BTreeSet::from([router.0]);
        let change = if voters.contains(&router.0) {
            ChangeMembers::RemoveVoters(gone)
        } else {
            ChangeMembers::RemoveNodes(gone)
        };
        if self.change(core, change, false).await {
            tracing::info!(
                event = "router_out",
                shard = core.shard.0,
                router = %router,
                "a router was removed"
            );
        }
    }

    /// Whether too few of the others that vote can take an entry to go on without a router. The new voters count as soon as the entry
    /// that names them is in a log, and without their quorum it is never committed, nor is any after it.
    fn needs(&self, core: &Core, router: RouterId) -> bool {
        let before = core.configs();
        if !before.iter().any(|voters| voters.contains(&router.0)) {
            return false;
        }
        let able = self.able();
        let there = |id: u64| able.contains(&id);
        let mut after = before.clone();
        for voters in &mut after {
            voters.remove(&router.0);
        }
        !is_quorum(&before, there) || !is_quorum(&after, there)
    }

    /// `stay`: voters that are none any more take part without a vote.
    pub(super) async fn change(&self, core: &Core, change: ChangeMembers<u64, Member>, stay: bool) -> bool {
        let raft = core.raft.clone();
        // It is two steps: once the first is made it goes on, however long that takes.
        let changed = tokio::spawn(async move { raft.change_membership(change, stay).await });
        match timeout(CHANGED_WITHIN, changed).await {
            Ok(Ok(Ok(_))) => true,
            Ok(Ok(Err(error))) => {
                tracing::warn!(event = "voters_failed", shard = core.shard.0, %error, "who votes could not be changed");
                false
            }
            Ok(Err(_)) => false,
            Err(_) => {
                tracing::warn!(
                    event = "voters_failed",
                    shard = core.shard.0,
                    "who votes could not be changed in time"
                );
                false
            }
        }
    }

    /// Whether a router has all entries of a shard, or will in a moment.
    pub(super) async fn caught_up(&self, core: &Core, router: RouterId) -> bool {
        let mut figures = core.raft.metrics();
        let close = figures.wait_for(|figures| !lacks_entries(figures, router));
        timeout(CAUGHT_UP_WITHIN, close).await.is_ok_and(|result| result.is_ok()) && core.leads().is_some()
    }

    /// In how many shards that are led here a member lacks entries, or is just being made one.
    fn lags_behind(&self, router: RouterId) -> usize {
        let adding = self.adding.lock().clone();
        let lacks = |group: &&Group| {
            if adding.contains(&group.shard().0) {
                return true;
            }
            let figures = group.core().figures.borrow();
            let member = figures.membership_config.membership().get_node(&router.0).is_some();
            member && lacks_entries(&figures, router)
        };
        self.groups.iter().filter(lacks).count()
    }

    /// Tells now and then of a new router that lacks entries; `late` is since when, or when it was last told.
    fn tell_of_late(&self, router: RouterId, late: &mut BTreeMap<RouterId, Duration>) {
        late.retain(|other, _| self.lags_behind(*other) > 0);
        let (now, shards) = (self.clock.monotonic(), self.lags_behind(router));
        if shards == 0 {
            return;
        }
        let since = late.entry(router).or_insert(now);
        if now >= *since + TOLD_EVERY {
            *since = now;
            tracing::warn!(
                event = "late_router",
                router = %router,
                shards,
                "a new router does not catch up"
            );
        }
    }

    /// Whether a router has said nothing for long, as far as this one can know.
    fn is_lost(&self, router: RouterId) -> bool {
        self.silent(router) >= LOST
    }

    /// For how long a router has said nothing to this one, which has listened for as long at the least.
    pub(super) fn silent(&self, router: RouterId) -> Duration {
        if router == self.own {
            return Duration::ZERO;
        }
        let heard = self.seen.lock().get(&router).map_or(self.began, |seen| seen.heard.max(self.began));
        self.clock.monotonic().saturating_sub(heard)
    }
}

/// Whether a router has not nearly all entries of a shard, as its leader knows; nobody else does.
fn lacks_entries(figures: &RaftMetrics<u64, Member>, router: RouterId) -> bool {
    let Some(others) = &figures.replication else { return false };
    let there = others.get(&router.0).copied().flatten().map(|id| id.index);
    there.is_none_or(|there| there + CLOSE < figures.last_log_index.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_taken_in_votes_when_it_does_everywhere() {
        let all: BTreeMap<u64, Member> =
            [1, 2, 3].into_iter().map(|id| (id, Member::new("r", "h:1"))).collect();
        let group = |voters: &[u64], nodes: &[u64]| {
            let nodes: BTreeMap<u64, Member> = nodes.iter().map(|id| (*id, all[id].clone())).collect();
            Membership::new(vec![voters.iter().copied().collect()], nodes)
        };
        let groups = [group(&[1, 2, 3], &[1, 2, 3]), group(&[1], &[1, 2])];
        let votes =
            voting(groups.iter()).into_iter().map(|(id, (_, votes))| (id.0, votes.shards, votes.are_all()));
        assert_eq!(votes.collect::<Vec<_>>(), [(1, 2, true), (2, 1, false), (3, 1, false)]);
        let some = [groups[0].clone(), group(&[], &[])];
        let (_, of) = &voting(some.iter())[&RouterId(1)];
        assert_eq!(*of, Votes { shards: 1, known: 1, all: 2 });
        assert!(!of.are_all(), "who knows");
    }
}
