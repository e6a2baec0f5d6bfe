//! What can happen to a cluster: a list, each with its row in the catalogue of faults.
//!
//! A fault only breaks things and lets some time go by; whoever lets it happen mends everything afterwards.

mod clocks;
mod disks;
mod lines;
mod owners;
mod processes;
mod quorum;
mod versions;

use std::future::Future;
use std::pin::Pin;

use anyhow::Result;

use crate::drill::Drill;

/// Why a fault was not made: this machine cannot.
#[derive(Debug)]
pub(crate) struct NotDone(String);

impl std::fmt::Display for NotDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotDone {}

/// Breaks something, lets time go by and tells what was done. An error if nobody can have felt anything of it.
type Strike = for<'a> fn(&'a mut Drill) -> Pin<Box<dyn Future<Output = Result<String>> + Send + 'a>>;

/// A kind of fault.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Its row.
    pub(crate) row: &'static str,
    pub(crate) name: &'static str,
    pub(crate) strike: Strike,
}

impl Fault {
    /// An edge is gone, or cannot tell what it knows: a home that moves meanwhile loses the edge's sessions.
    pub(crate) fn loses_an_edge(&self) -> bool {
        LOSE_AN_EDGE.contains(&self.name)
    }
}

macro_rules! faults {
    ($($row:literal $module:ident::$name:ident),* $(,)?) => {
        &[$(Fault {
            row: $row,
            name: stringify!($name),
            strike: |drill| Box::pin($module::$name(drill)),
        }),*]
    };
}

const LOSE_AN_EDGE: &[&str] = &[
    "an_edge_is_killed",
    "an_edge_is_killed_at_a_moment",
    "an_edge_stands_still",
    "an_edge_is_cut_off",
    "an_edge_is_not_heard",
    "an_edge_hears_nothing",
    "an_edge_and_a_router_are_cut_off",
    "an_edge_is_drained",
    "all_are_started_anew_in_turn",
    "all_are_upgraded_in_turn",
    "all_edges_are_killed",
    "an_edge_and_a_router_are_killed",
    "an_edge_knows_one_router",
    "an_edges_clock_jumps",
    "a_session_is_left_behind",
    "a_name_is_taken_at_two_edges",
    "two_resume_what_a_dead_edge_had",
    "two_things_at_once",
];

/// All kinds.
pub(crate) static ALL: &[Fault] = faults![
    "C01" processes::an_edge_is_killed,
    "C02" processes::an_edge_is_killed_at_a_moment,
    "C03" processes::the_leader_is_killed,
    "C03" processes::a_router_is_killed_at_a_moment,
    "C04" processes::a_router_is_away_for_long,
    "C05" quorum::two_routers_are_killed,
    "C05" quorum::two_routers_stand_still,
    "C06" disks::all_routers_lose_their_disks,
    "C07" processes::the_leader_stands_still,
    "C07" processes::an_edge_stands_still,
    "C08" lines::an_edge_is_cut_off,
    "C09" lines::an_edge_is_not_heard,
    "C09" lines::an_edge_hears_nothing,
    "C09" lines::a_router_is_not_heard,
    "C09" lines::a_router_hears_nothing,
    "C10" lines::edges_are_cut_off_from_each_other,
    "C11" lines::two_routers_are_cut_off_from_each_other,
    "C11" lines::the_leader_is_cut_off,
    "C11" lines::an_edge_and_a_router_are_cut_off,
    "C12" lines::packets_are_lost,
    "C12" lines::a_router_is_slow_to_reach,
    "C16" disks::a_bit_flips_in_the_log,
    "C16" disks::the_log_loses_its_end,
    "C17" clocks::a_routers_clock_jumps,
    "C17" clocks::an_edges_clock_jumps,
    "C17" clocks::clocks_drift,
    "C25" lines::answers_are_lost,
    "C26" lines::links_overtake_each_other,
    "C27" lines::connections_of_a_router_are_reset,
    "C28" owners::a_session_is_left_behind,
    "C29" owners::a_name_is_taken_at_two_edges,
    "C30" owners::two_resume_what_a_dead_edge_had,
    "C31" lines::haproxy_loses_an_edge,
    "C32" processes::an_edge_is_drained,
    "C32" processes::a_router_is_drained,
    "C33" processes::all_are_started_anew_in_turn,
    "C33" versions::all_are_upgraded_in_turn,
    "C34" disks::a_router_is_replaced,
    "C35" processes::all_edges_are_killed,
    "C41" processes::an_edge_and_a_router_are_killed,
    "C42" processes::an_edge_knows_one_router,
    "C20" processes::the_store_stands_still,
    "C20" lines::a_router_loses_the_store,
    "LB" processes::haproxy_is_killed,
    "C44" processes::two_things_at_once,
];
