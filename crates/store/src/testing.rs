//! What tests need of a store: the [suite](crate::conformance) that every back end passes, rows to fill one with, and a
//! [store that fails on command](FaultyStore).
//!
//! A back end runs the suite with one line in a test module, `starling_store::conformance!(MyBackEnd::new())`; each
//! case becomes a test of its own with a fresh [`BackEnd`]. The crate that does so needs `tokio` for its tests.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

pub mod accounts;
mod faulty;
mod home;
pub mod log;
pub mod order;
pub mod sweep;

pub use faulty::FaultyStore;
pub use home::{Home, batch, claim, reign, rising};

use crate::log::{Direction, LogFilter, LogRow, Origin, Page, Position};
use crate::rows::{AccountRow, Write};
use crate::{Now, SharedStore};
use bytes::Bytes;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A back end under test: one place where data is kept.
pub trait BackEnd {
    /// Opens the store. Called again, after the earlier store was dropped, it opens the same data.
    fn open(&mut self, now: Now) -> SharedStore;
}

/// Makes a test of each case of the suite. The expression gives a fresh [`BackEnd`].
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::conformance!(@cases $make;
            accounts: an_account_is_created_once, accounts_are_listed_by_domain_in_order, keys_are_replaced,
                a_disabled_account_stays_disabled, a_deleted_account_leaves_nothing,
                a_recreated_account_sees_nothing_of_the_old_one, writes_without_an_account_are_ignored,
                a_large_account_is_deleted_whole, rosters_keep_every_field, removals_are_remembered_up_to_a_bound,
                documents_are_replaced_and_removed, the_cursor_is_what_was_written_last,
                secrets_are_made_once, reigns_rise_above_all_that_was_granted, a_released_reign_is_nobodys,
                everything_survives_reopening;
            log: rows_keep_every_field, appending_again_changes_nothing, a_replaced_row_leaves_no_trace,
                a_lower_position_may_come_late, pages_go_forward, pages_go_backward, a_page_knows_whether_it_is_the_last,
                bounds_are_exact, filters_combine, a_peer_is_the_whole_address, offline_rows_end_with_the_cursor,
                expired_rows_do_not_appear, rows_are_found_by_position, logs_do_not_mix,
                random_logs_read_as_the_reference_does;
            order: commits_of_one_account_take_effect_in_order, creation_and_removal_are_in_order_with_commits,
                unpolled_commits_take_effect, a_batch_may_touch_many_accounts, a_batch_may_write_a_row_twice;
            sweep: expired_rows_are_removed, old_rows_are_removed, surplus_rows_are_removed_oldest_first,
                waiting_rows_stay, no_retention_removes_nothing, late_rows_are_counted, bounds_hold_after_reopening;
        );
    };
    (@cases $make:expr; $($module:ident: $($case:ident),* ;)*) => {
        $($(
            #[tokio::test]
            async fn $case() {
                $crate::testing::$module::$case(&mut $make).await;
            }
        )*)*
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

/// Opens a back end; the time stands at 2,000 s.
async fn open(back_end: &mut impl BackEnd) -> Home {
    Home::open(back_end.open(TestTime::at(2_000).now())).await
}

/// Opens a back end and creates these accounts; the time stands at 2,000 s.
async fn with_accounts(back_end: &mut impl BackEnd, jids: &[&BareJid]) -> Home {
    let store = open(back_end).await;
    for (generation, jid) in jids.iter().enumerate() {
        store.create_account(jid, account(generation as u64 + 1, "secret")).await.unwrap();
    }
    store
}

/// Positions of all rows that a filter lets through.
async fn positions(store: &SharedStore, owner: &BareJid, filter: LogFilter) -> Vec<Position> {
    let page = store.log_page(owner, filter, Page::First(usize::MAX)).await.unwrap();
    assert!(page.complete, "a page without a limit is complete");
    page.rows.iter().map(|row| row.position).collect()
}
