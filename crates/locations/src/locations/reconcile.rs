//! Bringing the number of voters to what is wanted, in all shards. Who is asked says who they are; whoever leads a shard
//! does it there, when no step costs a quorum.

use super::Inner;
use super::joining::{Admission, MOST_VOTERS};
use crate::call::{Answer, Call, Refusal, Wanted};
use crate::detector::voters;
use crate::group::Core;
use crate::lease::is_quorum;
use crate::peers::NO_GROUP;
use crate::types::Member;
use openraft::ChangeMembers;
use starling_wire::RouterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Who has said nothing for so long is gone for good, if it is said that so few are to be there.
const GONE: Duration = Duration::from_secs(30);
/// How long it may take until every shard has a leader: one may just be elected.
const ELECTED_WITHIN: Duration = Duration::from_secs(3);
/// How often the leaders are asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long another router may take to say that it will.
const WITHIN: Duration = Duration::from_secs(1);

/// Why the voters are not those that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Nobody could vote, too many would, or one that does not help.
    #[error("the number of voters is an odd one, at most {MOST_VOTERS}")]
    Number,
    /// There are not so many.
    #[error("only {0} routers are there")]
    Few(usize),
    /// A router may come back, and cannot once it was removed.
    #[error(
        "{0} is not linked and was heard of {1} s ago: when that is half a minute, it is taken to be gone"
    )]
    Away(String, u64),
    /// The same, and another router hears it.
    #[error("{0} hears one that this router does not: it is not gone")]
    Linked(String),
    /// Without a leader that a quorum has confirmed nobody can change anything.
    #[error("shard {0} has no leader that a quorum has confirmed")]
    NoQuorum(u16),
    /// It is not done yet; part of it may be.
    #[error(
        "it was not done in time: a router may be away or have a disk that stands still, or sessions of an edge that is \
         lost or silent may wait at a home that would have to move (see `voters_kept` and \
         `shard_kept` in the logs of routers); ask again"
    )]
    Late,
}

/// Who votes now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// In all shards.
    pub voters: BTreeMap<RouterId, Member>,
    /// They take part without a vote.
    pub spare: BTreeMap<RouterId, Member>,
    /// They were removed.
    pub gone: BTreeMap<RouterId, Member>,
}

/// What is known of a member.
struct Known {
    member: Member,
    /// In how many shards it votes.
    votes: usize,
    silent: Option<Duration>,
}

/// Who is to vote, and who is gone.
fn choose(members: &BTreeMap<RouterId, Known>, wanted: usize) -> Result<Wanted, ReconcileError> {
    if wanted.is_multiple_of(2) || wanted > MOST_VOTERS {
        return Err(ReconcileError::Number);
    }
    let living = members.iter().filter(|(_, one)| one.silent.is_none());
    let mut living: Vec<_> = living
        .map(|(id, one)| {
            let name = &one.member.name;
            // Of `router-2` and `router-10` the first stays, as where they are scaled down.
            ((usize::MAX - one.votes, one.member.spare, name.len(), name), *id)
        })
        .collect();
    if living.len() < wanted {
        return Err(ReconcileError::Few(living.len()));
    }
    let mut gone = BTreeSet::new();
    for (id, one) in members {
        match one.silent {
            Some(silent) if silent < GONE => {
                return Err(ReconcileError::Away(one.member.name.clone(), silent.as_secs()));
            }
            Some(_) => drop(gone.insert(*id)),
            None => {}
        }
    }
    living.sort();
    Ok(Wanted { voters: living.into_iter().take(wanted).map(|(_, id)| id).collect(), gone })
}

pub(super) async fn reconcile(
    inner: &Arc<Inner>,
    wanted: usize,
    within: Duration,
) -> Result<Reconciled, ReconcileError> {
    let members = inner.known();
    let wanted = choose(&members, wanted)?;
    inner.ask_whether_gone(&wanted).await?;
    let begun = inner.clock.monotonic();
    while let Some(shard) = inner.without_leader() {
        if inner.clock.monotonic() >= begun + ELECTED_WITHIN {
            return Err(ReconcileError::NoQuorum(shard));
        }
        sleep(ASK_EVERY).await;
    }
    let end = inner.clock.monotonic() + within;
    let call = Call::Reconcile(wanted.clone()).encode(inner.limits.cluster());
    while !inner.is_brought_to(&wanted) {
        if inner.clock.monotonic() >= end {
            return Err(ReconcileError::Late);
        }
        let linked: Vec<RouterId> = inner.peers.links().borrow().keys().copied().collect();
        for router in linked {
            let _ = inner.peers.call(router, NO_GROUP, call.clone(), WITHIN).await;
        }
        if let Answer::Refused(_) = inner.ask(Admission::Reconcile(wanted.clone())) {
            tracing::debug!("too much is asked at once");
        }
        sleep(ASK_EVERY).await;
    }
    let mut done = Reconciled::default();
    for (id, one) in members {
        let list = match () {
            () if wanted.voters.contains(&id) => &mut done.voters,
            () if wanted.gone.contains(&id) => &mut done.gone,
            () => &mut done.spare,
        };
        list.insert(id, one.member);
    }
    Ok(done)
}

impl Inner {
    fn known(&self) -> BTreeMap<RouterId, Known> {
        let links = self.peers.links().borrow().clone();
        let mut known: BTreeMap<RouterId, Known> = BTreeMap::new();
        for group in &self.groups {
            let server = group.core().server.borrow();
            let membership = server.membership_config.membership();
            for (id, member) in membership.nodes() {
                let id = RouterId(*id);
                let there = id == self.own || links.contains_key(&id);
                let one = known.entry(id).or_insert_with(|| Known {
                    member: member.clone(),
                    votes: 0,
                    silent: (!there).then(|| self.silent(id)),
                });
                one.votes += usize::from(membership.voter_ids().any(|voter| voter == id.0));
            }
        }
        known
    }

    /// Whether any of these is linked here, or is this router.
    pub(super) fn is_there(&self, routers: &BTreeSet<RouterId>) -> bool {
        let links = self.peers.links().borrow().clone();
        routers.iter().any(|router| *router == self.own || links.contains_key(router))
    }

    /// Asks the others whether they hear one that is to be removed because this router does not.
    async fn ask_whether_gone(&self, wanted: &Wanted) -> Result<(), ReconcileError> {
        if wanted.gone.is_empty() {
            return Ok(());
        }
        let asked = Wanted { voters: BTreeSet::new(), gone: wanted.gone.clone() };
        let call = Call::Reconcile(asked).encode(self.limits.cluster());
        let links = self.peers.links().borrow().clone();
        for (router, member) in links.iter() {
            let answer = self.peers.call(*router, NO_GROUP, call.clone(), WITHIN).await;
            if let Some(Answer::Refused(Refusal::Linked)) =
                answer.ok().and_then(|answer| Answer::decode(answer).ok())
            {
                return Err(ReconcileError::Linked(member.name.clone()));
            }
        }
        Ok(())
    }

    /// A shard of which nobody here knows that it is led.
    fn without_leader(&self) -> Option<u16> {
        self.groups.iter().find(|group| group.core().led_by().is_none()).map(|group| group.shard().0)
    }

    fn is_brought_to(&self, wanted: &Wanted) -> bool {
        self.groups.iter().all(|group| {
            let server = group.core().server.borrow();
            let membership = server.membership_config.membership();
            let configs = membership.get_joint_config();
            let gone = |(id, _): (&u64, _)| wanted.gone.contains(&RouterId(*id));
            configs.len() == 1
                && voters(configs).into_iter().map(RouterId).collect::<BTreeSet<_>>() == wanted.voters
                && !membership.nodes().any(gone)
        })
    }

    /// Has these and no others vote in a shard that this router leads. One step of it: to be asked until it is done.
    pub(super) async fn bring_to(&self, core: &Core, wanted: &Wanted) {
        if core.leads_with_lease().is_none() {
            return;
        }
        let stored = Arc::clone(&core.server.borrow().membership_config);
        let membership = stored.membership();
        let [before] = &membership.get_joint_config()[..] else {
            return;
        };
        let after: BTreeSet<u64> = wanted.voters.iter().map(|id| id.0).collect();
        // What is asked may be old by now: neither those who vote nor those who will may be without a quorum.
        let able = self.able();
        let there = |id: u64| able.contains(&id);
        if self.is_there(&wanted.gone) {
            tracing::warn!(
                event = "voters_kept",
                shard = core.shard.0,
                "the voters are not changed: one that is to be removed is linked"
            );
            return;
        }
        let known = after.iter().all(|id| membership.get_node(id).is_some());
        if !known || !is_quorum(&[before.clone(), after.clone()], there) {
            tracing::warn!(
                event = "voters_kept",
                shard = core.shard.0,
                "the voters are not changed: there would be no quorum"
            );
            return;
        }
        let spare = membership.nodes().filter_map(|(id, node)| {
            let spare = !after.contains(id) && !wanted.gone.contains(&RouterId(*id));
            (node.spare != spare).then(|| (*id, Member { spare, ..node.clone() }))
        });
        let spare: BTreeMap<u64, Member> = spare.collect();
        if !spare.is_empty() && !self.change(core, ChangeMembers::SetNodes(spare), false).await {
            return;
        }
        for id in after.difference(before) {
            if !self.caught_up(core, RouterId(*id)).await {
                // It is asked again, and who waits for it is told when that has been for too long.
                tracing::debug!(shard = core.shard.0, router = %RouterId(*id), "a router that is to vote lacks entries");
                return;
            }
        }
        if !after.contains(&self.own.0) {
            // The next leader goes on; one without a vote would leave the shard without any for a while.
            if let Some(to) = self.heir_of(core, |id| after.contains(&id.0)) {
                if self.was_late(core.shard) {
                    return;
                }
                let _ = self.give(core.shard, to).await;
                return;
            }
            // None of them could take it now, which may last for a moment only. Without its vote this router would lead no more,
            // and its home would not have finished what it has begun.
            if !before.is_disjoint(&after) {
                return;
            }
        }
        if *before != after {
            let (from, to) = (before.len(), after.len());
            if !self.change(core, ChangeMembers::ReplaceAllVoters(after), true).await {
                return;
            }
            tracing::info!(
                event = "voters_changed",
                shard = core.shard.0,
                from,
                to,
                "the voters were changed"
            );
        }
        let gone = membership.nodes().map(|(id, _)| *id).filter(|id| wanted.gone.contains(&RouterId(*id)));
        let gone: BTreeSet<u64> = gone.collect();
        if !gone.is_empty() {
            self.change(core, ChangeMembers::RemoveNodes(gone), false).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(u64, &str, usize, Option<u64>)]) -> BTreeMap<RouterId, Known> {
        let known = |(id, name, votes, silent): &(u64, &str, usize, Option<u64>)| {
            let member = Member::new(*name, "host:1");
            (RouterId(*id), Known { member, votes: *votes, silent: silent.map(Duration::from_secs) })
        };
        all.iter().map(known).collect()
    }

    fn ids(ids: &[u64]) -> BTreeSet<RouterId> {
        ids.iter().copied().map(RouterId).collect()
    }

    #[test]
    fn those_that_vote_stay_and_those_that_are_gone_go() {
        let all = [(9, "r-0", 16, None), (8, "r-1", 16, Some(60)), (7, "r-2", 16, None), (6, "r-3", 3, None)];
        let wanted = choose(&members(&all), 3).unwrap();
        assert_eq!(wanted, Wanted { voters: ids(&[9, 7, 6]), gone: ids(&[8]) });
        assert_eq!(choose(&members(&all), 5), Err(ReconcileError::Few(3)));
        for number in [0, 2, 4, 7] {
            assert_eq!(choose(&members(&all), number), Err(ReconcileError::Number));
        }
        let away = [(9, "r-0", 16, None), (8, "r-1", 16, Some(3))];
        assert_eq!(choose(&members(&away), 1), Err(ReconcileError::Away("r-1".to_owned(), 3)));
    }

    #[test]
    fn of_those_that_are_too_many_the_last_ones_lose_their_votes() {
        let all: Vec<(u64, String)> = (0..11).map(|n| (20 - n, format!("r-{n}"))).collect();
        let all: Vec<_> = all.iter().map(|(id, name)| (*id, name.as_str(), 16, None)).collect();
        let wanted = choose(&members(&all), 3).unwrap();
        assert_eq!(wanted, Wanted { voters: ids(&[20, 19, 18]), gone: ids(&[]) });
    }
}
