//! What a session may be lost with: its home together with the edge that it was at. Then, and only then, nobody has it.

use super::Cluster;
use starling_wire::{EdgeId, Shard};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long before an edge was away a home may have begun without having heard from it.
const UNHEARD: Duration = Duration::from_secs(4);

/// When edges were away, and when reigns began.
#[derive(Default)]
pub(super) struct Losses {
    openings: Vec<(Shard, Duration)>,
    /// Of each edge, from when to when it was not linked to all routers.
    away: BTreeMap<EdgeId, Vec<(Duration, Option<Duration>)>>,
}

impl Losses {
    pub(super) fn opened(&mut self, shard: Shard, now: Duration) {
        self.openings.push((shard, now));
    }

    fn see(&mut self, edge: EdgeId, is_away: bool, now: Duration) {
        let spans = self.away.entry(edge).or_default();
        match spans.last_mut() {
            Some((_, end @ None)) if !is_away => *end = Some(now),
            Some((_, None)) => {}
            _ if is_away => spans.push((now, None)),
            _ => {}
        }
    }

    /// Whether a session of this shard that was at this edge from then on is somewhere in any case.
    fn keeps(&self, edge: EdgeId, since: Duration, shard: Shard) -> bool {
        let Some(spans) = self.away.get(&edge) else { return true };
        !spans.iter().any(|(from, to)| {
            let to = to.map_or(Duration::MAX, |to| to + UNHEARD);
            let lost = |(of, at): &(Shard, Duration)| {
                *of == shard && *at >= since && *at + UNHEARD >= *from && *at <= to
            };
            self.openings.iter().any(lost)
        })
    }
}

impl Cluster {
    /// Notes which edges are away.
    pub(super) fn keep_losses(self: &Arc<Self>) {
        let now = self.stage.world.now();
        for tip in self.tips() {
            let is_away = !tip.runs() || !self.is_linked(&tip);
            self.losses.lock().see(tip.id, is_away, now);
        }
    }

    /// An edge is away from now on.
    pub(super) fn lose(&self, edge: EdgeId) {
        self.losses.lock().see(edge, true, self.stage.world.now());
    }

    /// Whether an account's session that was at this edge is to be had.
    pub(super) fn keeps(&self, edge: EdgeId, since: Duration, account: &BareJid) -> bool {
        self.losses.lock().keeps(edge, since, self.shards.of(account))
    }
}
