//! What tests need of a store: the [suite](crate::conformance) that every back end passes, rows to fill one with, and a
//! [store that fails on command](FaultyStore).
//!
//! A back end runs the suite with a few lines in a test module; each case becomes a test of its own with a fresh
//! [`BackEnd`]. The crate that does so needs `tokio` for its tests.
//!
//! ```text
//! starling_store::conformance!(MyBackEnd::new());           // what every store does
//! starling_store::conformance!(sweeping: MyBackEnd::new()); // one that removes rows in `sweep` and counts them
//! starling_store::conformance!(shared: MyBackEnd::new());   // one that several processes open at once
//! starling_store::conformance!(late: MyBackEnd::new());     // one whose commits can be made late
//! ```

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

pub mod accounts;
pub mod archive;
mod back_end;
mod faulty;
mod home;
pub mod late;
pub mod log;
pub mod order;
pub mod reigns;
pub mod retention;
pub mod shards;
pub mod shared;
pub mod sweep;

pub use back_end::{BackEnd, Late, LateBackEnd, SharedBackEnd};
pub use faulty::FaultyStore;
pub use home::{Home, batch, claim, reign, rising};

use crate::log::{Direction, LogFilter, LogRow, Origin, Page, Position};
use crate::rows::{AccountRow, Write};
use crate::{Now, Result, Retention, SharedStore};
use bytes::Bytes;
use futures::future::join_all;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Makes a test of each case of the suite. The expression gives a fresh [`BackEnd`](testing::BackEnd); it may be awaited for.
/// Attributes after it (`; #[ignore = "..."]`) are put on each test.
#[macro_export]
macro_rules! conformance {
    (sweeping: $make:expr $(; $(#[$attribute:meta])+)?) => {
        $crate::conformance!(@cases [$($(#[$attribute])+)?] $make;
            sweep: expired_rows_are_removed, old_rows_are_removed, surplus_rows_are_removed_oldest_first,
                waiting_rows_stay, no_retention_removes_nothing, late_rows_are_counted, bounds_hold_after_reopening;
        );
    };
    (shared: $make:expr $(; $(#[$attribute:meta])+)?) => {
        $crate::conformance!(@cases [$($(#[$attribute])+)?] $make;
            shared: a_reign_is_held_while_it_is_granted, a_silent_reign_is_taken_over,
                several_processes_hold_one_reign, secrets_are_the_same_for_all,
                what_was_confirmed_is_read_by_the_next_reign, an_earlier_reign_leaves_nothing_behind,
                an_account_is_made_again_under_another_reign;
            shards: a_shard_moves_and_comes_back, a_commit_is_of_the_reign_that_decided_it,
                an_account_is_made_again_across_reigns;
        );
    };
    (late: $make:expr $(; $(#[$attribute:meta])+)?) => {
        $crate::conformance!(@cases [$($(#[$attribute])+)?] $make;
            late: a_load_decides_what_was_written, a_late_row_may_be_the_first, a_late_row_may_open_a_bucket,
                a_late_row_may_be_one_too_many_for_its_bucket, commits_under_way_at_once_may_all_be_late,
                what_is_late_stays_below_what_came_after, a_late_write_finds_no_account_made_again,
                a_later_reign_decides_too, a_later_reign_makes_the_account_again,
                an_account_in_doubt_leaves_others_alone, a_shard_moves_while_a_commit_is_in_doubt;
        );
    };
    (@cases $attributes:tt $make:expr; $($module:ident: $($case:ident),* ;)*) => {
        $($crate::conformance!(@module $attributes $make; $module: $($case),*);)*
    };
    (@module $attributes:tt $make:expr; $module:ident: $($case:ident),*) => {
        $($crate::conformance!(@case $attributes $make; $module $case);)*
    };
    (@case [$(#[$attribute:meta])*] $make:expr; $module:ident $case:ident) => {
        #[tokio::test]
        $(#[$attribute])*
        async fn $case() {
            $crate::testing::$module::$case(&mut $make).await;
        }
    };
    ($make:expr $(; $(#[$attribute:meta])+)?) => {
        $crate::conformance!(@cases [$($(#[$attribute])+)?] $make;
            accounts: an_account_is_created_once, accounts_are_listed_by_domain_in_order, keys_are_replaced,
                a_disabled_account_stays_disabled, a_deleted_account_leaves_nothing,
                a_recreated_account_sees_nothing_of_the_old_one, writes_without_an_account_are_ignored,
                a_large_account_is_deleted_whole, rosters_keep_every_field, removals_are_remembered_up_to_a_bound,
                documents_are_replaced_and_removed, the_cursor_is_what_was_written_last,
                secrets_are_made_once, everything_survives_reopening;
            archive: many_rows_are_read_in_pages, rows_far_apart_are_read_in_pages;
            log: rows_keep_every_field, appending_again_changes_nothing, a_row_is_the_same_after_every_retry,
                a_replaced_row_leaves_no_trace,
                a_lower_position_may_come_late, pages_go_forward, pages_go_backward, a_page_knows_whether_it_is_the_last,
                bounds_are_exact, filters_combine, a_peer_is_the_whole_address, offline_rows_end_with_the_cursor,
                expired_rows_do_not_appear, rows_are_found_by_position, logs_do_not_mix,
                the_tail_has_what_was_confirmed, random_logs_read_as_the_reference_does,
                random_logs_over_years_read_as_the_reference_does;
            order: commits_of_one_account_take_effect_in_order, creation_and_removal_are_in_order_with_commits,
                unpolled_commits_take_effect, a_load_waits_for_the_commits_before_it,
                a_batch_may_touch_many_accounts, a_batch_may_write_a_row_twice;
            reigns: reigns_rise_above_all_that_was_granted, a_released_reign_is_nobodys,
                a_release_is_for_its_own_reign;
            shards: reigns_of_shards_go_on_side_by_side;
            retention: old_rows_are_not_seen, surplus_rows_go_and_waiting_ones_stay;
        );
    };
}

/// A time that stands still until it is set. Clones share it.
#[derive(Debug, Clone)]
pub struct TestTime(Arc<AtomicU64>);

impl TestTime {
    /// Stands at this many seconds after the epoch.
    pub fn at(secs: u64) -> Self {
        Self(Arc::new(AtomicU64::new(secs * 1_000_000)))
    }

    /// Moves to this many seconds after the epoch.
    pub fn set(&self, secs: u64) {
        self.0.store(secs * 1_000_000, Ordering::SeqCst);
    }

    /// Goes on by so much.
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
    }

    /// As a store wants it.
    pub fn now(&self) -> Now {
        let time = self.0.clone();
        Arc::new(move || Timestamp(time.load(Ordering::SeqCst)))
    }
}

/// A bare address from a literal.
pub fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

/// An account's row with cheap keys of this password.
pub fn account(generation: u64, password: &str) -> AccountRow {
    AccountRow {
        generation,
        credentials: keys(password),
        created: Timestamp::from_secs(1_000),
        disabled: false,
    }
}

/// SCRAM keys made with few iterations.
pub fn keys(password: &str) -> Credentials {
    Credentials::derive(password, [7; 16], 16).unwrap()
}

/// A position this many seconds after the epoch.
pub fn at(secs: u64) -> Position {
    Position(secs * 1_000_000)
}

/// A received, archived row that waits for a device.
pub fn row(owner: &BareJid, position: Position, with: &BareJid) -> LogRow {
    LogRow {
        owner: owner.clone(),
        position,
        origin: Origin { session: u128::from(position.0) << 64 | 0xabcd, sequence: position.0 % 1_000 },
        origin_id: None,
        direction: Direction::In,
        with: with.clone(),
        archived: true,
        offline: true,
        expires: None,
        stanza: Bytes::from(format!("<message xmlns='jabber:client'><body>{}</body></message>", position.0)),
    }
}

/// The same, as a write.
pub fn append(row: LogRow) -> Write {
    Write::Append(Box::new(row))
}

/// Opens a back end that keeps everything; the time stands at 2,000 s.
async fn open(back_end: &mut impl BackEnd) -> Home {
    open_at(back_end, &TestTime::at(2_000)).await
}

/// Opens a back end that keeps everything.
async fn open_at(back_end: &mut impl BackEnd, time: &TestTime) -> Home {
    Home::open(back_end.open(time.now(), Retention::default()).await).await
}

/// Opens a back end and creates these accounts; the time stands at 2,000 s.
async fn with_accounts(back_end: &mut impl BackEnd, jids: &[&BareJid]) -> Home {
    let store = open(back_end).await;
    for (generation, jid) in jids.iter().enumerate() {
        store.create_account(jid, account(generation as u64 + 1, "secret")).await.unwrap();
    }
    store
}

/// Commits many rows as a busy home does: so many in a commit, a few commits under way at once.
async fn append_all(store: &Home, rows: impl IntoIterator<Item = LogRow>) {
    const ROWS: usize = 100;
    const COMMITS: usize = 4;
    let mut rows = rows.into_iter().map(append).peekable();
    while rows.peek().is_some() {
        let commits: Vec<_> =
            (0..COMMITS).map(|_| store.commit(rows.by_ref().take(ROWS).collect())).collect();
        join_all(commits).await.into_iter().collect::<Result<()>>().unwrap();
    }
}

/// A filter that lets everything through.
fn all() -> LogFilter {
    LogFilter::default()
}

/// Rows with this peer.
fn with(peer: &BareJid) -> LogFilter {
    LogFilter { with: Some(peer.clone()), ..all() }
}

/// Positions of all rows that a filter lets through.
async fn positions(store: &SharedStore, owner: &BareJid, filter: LogFilter) -> Vec<Position> {
    let page = store.log_page(owner, filter, Page::First(usize::MAX)).await.unwrap();
    assert!(page.complete, "a page without a limit is complete");
    page.rows.iter().map(|row| row.position).collect()
}
