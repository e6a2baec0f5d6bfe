//! What a router counts about its shards and links.

use crate::level;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use starling_locations::Standing;
use starling_node::Metrics;
use starling_wire::RouterId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

type Count = Gauge<i64, AtomicI64>;
type Seconds = Gauge<f64, AtomicU64>;
/// The number of a shard: there are as many as are configured.
type Shard = [(&'static str, u16); 1];
type Reason = [(&'static str, &'static str); 1];

/// Names are those of the operator's guide.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// `starling_shard_home{shard}`: the epoch of the reign that this router serves, or 0.
    homes: Family<Shard, Count>,
    /// `starling_router_young_homes`: of those, how many tell nobody yet that a session is lost.
    young: Count,
    /// `starling_router_links{to}`.
    links: Family<[(&'static str, &'static str); 1], Count>,
    /// `starling_router_not_home_total`: what came for a home that is not here.
    pub(super) not_home: Counter,
    /// `starling_router_dropped_total{reason}`.
    dropped: Family<Reason, Counter>,
    /// `starling_router_inbox_items`: what waits to be taken by homes, of the shard with the most.
    inbox: Count,
    /// `starling_router_lookup_entries`: sessions that are recorded.
    entries: Count,
    /// `starling_router_apply_lag_entries`: the most that any group has in its log and not applied.
    lag: Count,
    /// `starling_raft_leader_changes_total`.
    changes: Counter,
    /// `starling_raft_quorum_ack_age_seconds`: the oldest of all groups.
    age: Seconds,
    /// `starling_raft_stuck_seconds`: the longest that any group has waited for the disk.
    stuck: Seconds,
    /// `starling_raft_snapshot_short_of_space`.
    room: Count,
    /// `starling_router_shards_without_leader`.
    leaderless: Count,
}

impl Figures {
    /// Makes them part of what is scraped.
    pub(super) fn register(&self, metrics: &Metrics) {
        metrics.register(|to| {
            to.register(
                "starling_shard_home",
                "Epoch of the reign that is served here, or 0",
                self.homes.clone(),
            );
            to.register(
                "starling_router_young_homes",
                "Shards served here whose table has just begun: that a session is lost is not believed yet",
                self.young.clone(),
            );
            to.register("starling_router_links", "Links of this router", self.links.clone());
            to.register(
                "starling_router_not_home",
                "What came for a home that is not here",
                self.not_home.clone(),
            );
            to.register(
                "starling_router_dropped",
                "Presence and requests for other shards that were given up",
                self.dropped.clone(),
            );
            to.register(
                "starling_router_inbox_items",
                "What waits to be taken by homes here, of the shard with the most",
                self.inbox.clone(),
            );
            to.register("starling_router_lookup_entries", "Sessions that are recorded", self.entries.clone());
            to.register(
                "starling_router_apply_lag_entries",
                "Entries in the log that are not applied, of the group with the most",
                self.lag.clone(),
            );
            to.register("starling_raft_leader_changes", "Changes of leaders seen here", self.changes.clone());
            to.register_with_unit(
                "starling_raft_quorum_ack_age",
                "Since a quorum last confirmed a leader, of the group where that is longest ago",
                Unit::Seconds,
                self.age.clone(),
            );
            to.register_with_unit(
                "starling_raft_stuck",
                "For how long a group has waited for the disk of the Raft log, of the one that has waited longest",
                Unit::Seconds,
                self.stuck.clone(),
            );
            to.register(
                "starling_raft_snapshot_short_of_space",
                "1 while a snapshot is due that does not fit on the disk",
                self.room.clone(),
            );
            to.register(
                "starling_router_shards_without_leader",
                "Shards of which no leader is known here that a quorum has confirmed within the last second",
                self.leaderless.clone(),
            );
        });
    }

    /// A reign is served here, or is not any more.
    pub(super) fn serves(&self, shard: starling_wire::Shard, epoch: Option<starling_wire::Epoch>) {
        let epoch = epoch.map_or(0, |epoch| level(epoch.0));
        self.homes.get_or_create(&[("shard", shard.0)]).set(epoch);
    }

    /// How much waits to be taken by the homes of one shard.
    pub(super) fn waits(&self, most: usize) {
        self.inbox.set(level(most));
    }

    /// Something that its sender does not keep was given up.
    pub(super) fn dropped(&self, reason: &'static str, many: u64) {
        self.dropped.get_or_create(&[("reason", reason)]).inc_by(many);
    }

    /// How many were, for this reason.
    #[cfg(test)]
    pub(super) fn has_dropped(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&[("reason", reason)]).get()
    }

    /// How many homes tell nobody yet that a session is lost.
    pub(super) fn young(&self, homes: usize) {
        self.young.set(level(homes));
    }

    /// How many links there are.
    pub(super) fn linked(&self, edges: usize, routers: usize) {
        for (to, links) in [("edge", edges), ("router", routers)] {
            self.links.get_or_create(&[("to", to)]).set(level(links));
        }
    }

    /// For how long the disk has not answered.
    pub(super) fn stuck(&self, waits: Duration) {
        self.stuck.set(waits.as_secs_f64());
    }

    /// Whether a snapshot does not fit on the disk.
    pub(super) fn short_of_room(&self, short: bool) {
        self.room.set(i64::from(short));
    }

    /// How the groups stand; `leaders` is who led them when it was looked last.
    pub(super) fn stand(&self, all: &BTreeMap<u16, Standing>, leaders: &mut BTreeMap<u16, RouterId>) {
        self.entries.set(level(all.values().map(|one| one.rows).sum::<u64>()));
        let lag = all.values().map(|one| one.last.saturating_sub(one.applied)).max();
        self.lag.set(level(lag.unwrap_or(0)));
        let age: Option<Duration> = all.values().map(|one| one.confirmed).max();
        self.age.set(age.unwrap_or_default().as_secs_f64());
        self.leaderless.set(level(all.values().filter(|one| one.leader.is_none()).count()));
        for (shard, leader) in all.iter().filter_map(|(shard, one)| Some((*shard, one.leader?))) {
            if leaders.insert(shard, leader).is_some_and(|before| before != leader) {
                self.changes.inc();
            }
        }
    }
}
