//! Finishing changes of voters that were begun, and clearing up after those that came to nothing.
//!
//! Such a change is two entries: one after which a quorum of both the old and the new voters is needed, and one after which
//! the new ones are enough. openraft leaves the second to whoever asked for the change. When that router was killed, or did
//! not lead any more, nobody makes it: the shard would go on needing a disk that may be lost for good.

use super::Inner;
use super::joining::{AT_ONCE, GONE};
use crate::group::{Core, Group};
use crate::types::{LogId, Member, Membership};
use futures::{StreamExt, stream};
use openraft::ChangeMembers;
use starling_wire::RouterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked. A change that is found half done twice in a row is nobody's any more, or one whose second step is
/// made twice, which does no harm.
const EVERY: Duration = Duration::from_secs(1);

/// A disk without a vote that has been silent for so long is not missed where another one has its place.
const LONG: Duration = Duration::from_secs(30);

/// Does both where this router leads, for ever.
pub(super) async fn finish(inner: Arc<Inner>) {
    let mut seen: BTreeMap<u16, LogId> = BTreeMap::new();
    loop {
        sleep(EVERY).await;
        let half: BTreeMap<u16, LogId> = inner.groups.iter().filter_map(half_done).collect();
        let again = |(shard, id): &(&u16, &LogId)| seen.get(*shard) == Some(*id);
        let again: Vec<u16> = half.iter().filter(again).map(|(shard, _)| *shard).collect();
        let groups = again.iter().filter_map(|shard| inner.groups.get(usize::from(*shard)));
        let each = stream::iter(groups);
        each.for_each_concurrent(AT_ONCE, |group| inner.finish_change(group.core())).await;
        let each = stream::iter(&inner.groups);
        each.for_each_concurrent(AT_ONCE, |group| inner.clear_out(group.core())).await;
        seen = half;
    }
}

/// A shard that is led here and needs two quorums: the entry that has brought it about, once it is committed.
fn half_done(group: &Group) -> Option<(u16, LogId)> {
    let core = group.core();
    core.leads_with_lease()?;
    let stored = Arc::clone(&core.server.borrow().membership_config);
    let (entry, applied) = (*stored.log_id(), core.figures.borrow().last_applied);
    let two = stored.membership().get_joint_config().len() > 1;
    // Before that nothing more can be asked for.
    entry.filter(|_| two && entry <= applied).map(|entry| (group.shard().0, entry))
}

impl Inner {
    /// Removes disks that have no vote, are gone, and in whose place another one is: each costs entries that nobody takes.
    async fn clear_out(&self, core: &Core) {
        if core.leads_with_lease().is_none() {
            return;
        }
        let stored = Arc::clone(&core.server.borrow().membership_config);
        let membership = stored.membership();
        let applied = *stored.log_id() <= core.figures.borrow().last_applied;
        if membership.get_joint_config().len() > 1 || !applied {
            return;
        }
        let over = left_over(membership, |id| self.silent(RouterId(id)));
        if !over.is_empty() {
            let number = over.len();
            if self.change(core, ChangeMembers::RemoveNodes(over), true).await {
                tracing::info!(
                    event = "disks_replaced",
                    shard = core.shard.0,
                    number,
                    "disks that were replaced are no members any more"
                );
            }
        }
    }

    async fn finish_change(&self, core: &Core) {
        let stored = Arc::clone(&core.server.borrow().membership_config);
        let membership = stored.membership();
        let [_, .., wanted] = &membership.get_joint_config()[..] else { return };
        if core.leads_with_lease().is_none() {
            return;
        }
        if !wanted.contains(&self.own.0) {
            // As ever: one without a vote would leave the shard without a leader for a while.
            let to = self.heir_of(core, |id| wanted.contains(&id.0));
            if let Some(to) = to.filter(|_| !self.was_late(core.shard)) {
                let _ = self.give(core.shard, to).await;
            }
            return;
        }
        let replaced = replaced(membership, wanted, |id| self.silent(RouterId(id)) >= GONE);
        if self.change(core, ChangeMembers::ReplaceAllVoters(wanted.clone()), !replaced).await {
            tracing::info!(
                event = "change_finished",
                shard = core.shard.0,
                voters = wanted.len(),
                "a change of voters that was half done is finished"
            );
        }
    }
}

/// Those without a vote that have been silent for long while one of the same name is there.
fn left_over(membership: &Membership, silent: impl Fn(u64) -> Duration) -> BTreeSet<u64> {
    let there: BTreeSet<&str> = membership
        .nodes()
        .filter(|(id, _)| silent(**id) < GONE)
        .map(|(_, member)| member.name.as_str())
        .collect();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let over = membership.nodes().filter(|(id, member)| {
        !voters.contains(id) && silent(**id) >= LONG && there.contains(member.name.as_str())
    });
    over.map(|(id, _)| *id).collect()
}

/// Whether all that lose their votes are gone, and another disk votes in the place of each: they are to be members no more.
/// Why others lose theirs is not known any more; they stay without a vote.
fn replaced(membership: &Membership, wanted: &BTreeSet<u64>, gone: impl Fn(u64) -> bool) -> bool {
    let name = |id: u64| membership.get_node(&id).map(|member: &Member| member.name.as_str());
    let names: BTreeSet<&str> = wanted.iter().filter_map(|id| name(*id)).collect();
    let mut leaving = membership.voter_ids().filter(|id| !wanted.contains(id));
    leaving.all(|id| gone(id) && name(id).is_some_and(|name| names.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_were_replaced_before_they_had_a_vote_are_left_over() {
        let names = [(1, "r-0"), (2, "r-1"), (3, "r-2"), (4, "r-2"), (5, "r-2"), (6, "r-3"), (7, "r-1")];
        let members: BTreeMap<u64, Member> =
            names.into_iter().map(|(id, name)| (id, Member::new(name, "host:1"))).collect();
        let membership = Membership::new(vec![[1, 2, 3].into()], members);
        let silent =
            |gone: &'static [u64]| move |id: u64| if gone.contains(&id) { LONG } else { Duration::ZERO };
        let left_over = |gone| left_over(&membership, silent(gone)).into_iter().collect::<Vec<_>>();
        assert_eq!(left_over(&[3, 4, 6]), [4], "one votes, and of one there is no other");
        assert_eq!(left_over(&[3, 4, 5, 7]), [7], "nobody is in that place");
        assert!(left_over(&[2, 7]).is_empty());
    }

    #[test]
    fn whose_place_another_disk_has_is_no_member_any_more_and_others_are() {
        let names = [(1, "r-0"), (2, "r-1"), (3, "r-2"), (4, "r-2"), (5, "r-3")];
        let members: BTreeMap<u64, Member> =
            names.into_iter().map(|(id, name)| (id, Member::new(name, "host:1"))).collect();
        let joint = |before: &[u64], after: &[u64]| {
            let sets = vec![before.iter().copied().collect(), after.iter().copied().collect()];
            Membership::new(sets, members.clone())
        };
        let after = |wanted: &[u64]| wanted.iter().copied().collect::<BTreeSet<u64>>();
        let gone = |these: &'static [u64]| move |id: u64| these.contains(&id);
        assert!(replaced(&joint(&[1, 2, 3], &[1, 2, 4]), &after(&[1, 2, 4]), gone(&[3])));
        assert!(!replaced(&joint(&[1, 2, 3], &[1, 2, 4]), &after(&[1, 2, 4]), gone(&[])), "it lives");
        assert!(!replaced(&joint(&[1, 2, 5], &[1, 2, 4]), &after(&[1, 2, 4]), gone(&[5])), "another place");
        assert!(!replaced(&joint(&[1, 2, 3, 5], &[1, 2, 4]), &after(&[1, 2, 4]), gone(&[3, 5])));
    }
}
