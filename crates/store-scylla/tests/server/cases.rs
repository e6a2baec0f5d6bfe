//! The list of cases.

use crate::{drive, faults, look, migrate};
use futures::FutureExt;
use futures::future::BoxFuture;

/// A case takes the address of the server.
pub(crate) type Case = fn(String) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($( $module:ident :: $name:ident, )+) => {
        vec![$( (concat!(stringify!($module), "::", stringify!($name)), |address| $module::$name(address).boxed()), )+]
    };
}

/// All of them.
pub(crate) fn all() -> Vec<(&'static str, Case)> {
    cases![
        migrate::a_fresh_server_gets_all_of_it_and_then_nothing,
        migrate::two_at_once_are_one_after_the_other,
        migrate::what_was_killed_half_way_is_begun_anew,
        migrate::somebody_who_does_not_end_is_named,
        migrate::a_server_refuses_what_it_does_not_fit,
        migrate::what_was_dropped_is_noticed_and_comes_back_as_planned,
        migrate::more_copies_than_nodes_are_refused_before_anything_is_made,
        migrate::other_copies_are_said_and_left,
        migrate::a_store_belongs_to_one_datacenter,
        drive::data_is_written_and_read_as_one,
        drive::a_higher_timestamp_holds_whatever_comes_last,
        drive::rows_come_from_both_ends_and_over_pages,
        drive::ranges_and_partitions_go,
        drive::rows_end_by_themselves,
        drive::the_index_and_the_buckets_are_kept,
        drive::names_and_purges_are_listed,
        drive::accounts_are_conditional,
        drive::settings_and_reigns_are_conditional,
        drive::what_cannot_be_read_names_the_column_only,
        drive::a_traced_write_has_a_client_span,
        look::everything_is_looked_at,
        look::what_is_missing_is_said,
        faults::no_answer_is_unknown,
        faults::no_server_is_refused_and_it_is_used_again_at_once,
        faults::a_paused_server_is_used_again_at_once,
        faults::nobody_there_and_wrong_options_are_told_apart,
    ]
}
