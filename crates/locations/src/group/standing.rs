//! How a group stands at this router, for people and gauges.

use super::Core;
use crate::lease::AHEAD;
use starling_wire::{Epoch, RouterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is known here of one shard's group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Who leads it with the promise of a quorum, as far as that was heard here within the last second.
    pub leader: Option<RouterId>,
    /// The term of the last vote.
    pub term: u64,
    /// Index of the last entry that is in the log here.
    pub last: u64,
    /// Index of the last entry that has been applied here.
    pub applied: u64,
    /// Index up to which there is a snapshot here.
    pub snapshot: u64,
    /// Who votes.
    pub voters: BTreeSet<RouterId>,
    /// Who takes part and does not vote yet.
    pub learners: BTreeSet<RouterId>,
    /// How far each router has the log; at the leader only.
    pub replicated: BTreeMap<RouterId, u64>,
    /// How long ago a quorum last confirmed a leader, as far as it was heard here since this router was started.
    pub confirmed: Duration,
    /// The last reign.
    pub epoch: Epoch,
    /// How many sessions are recorded.
    pub rows: u64,
}

impl Standing {
    pub(super) fn of(core: &Core) -> Self {
        let figures = core.figures.borrow().clone();
        let index = |id: Option<crate::types::LogId>| id.map_or(0, |id| id.index);
        let membership = figures.membership_config.membership();
        let voters: BTreeSet<_> = membership.voter_ids().map(RouterId).collect();
        let learners = membership.nodes().map(|(id, _)| RouterId(*id)).filter(|id| !voters.contains(id));
        let replicated = figures
            .replication
            .as_ref()
            .map(|others| others.iter().map(|(id, upto)| (RouterId(*id), index(*upto))).collect());
        let heard = core.confirmed.lock().map_or(core.began, |(_, at)| at);
        // Of itself this router knows it to the moment.
        let own = core.reign.borrow().as_ref().map_or(Duration::ZERO, |reign| {
            Duration::from_micros(reign.until.load(Ordering::Acquire)).saturating_sub(AHEAD)
        });
        let (epoch, rows) = {
            let machine = core.state.machine.lock();
            (machine.head().epoch, machine.len())
        };
        Self {
            leader: core.led_by(),
            term: figures.current_term,
            last: figures.last_log_index.unwrap_or(0),
            applied: index(figures.last_applied),
            snapshot: index(figures.snapshot),
            learners: learners.collect(),
            voters,
            replicated: replicated.unwrap_or_default(),
            confirmed: core.clock.monotonic().saturating_sub(heard.max(own)),
            epoch,
            rows,
        }
    }
}
