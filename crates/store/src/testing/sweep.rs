//! What a sweep removes and how it counts, for back ends that remove rows there.

use super::{
    BackEnd, Home, TestTime, account, append, at, jid, open, open_at, positions, row, with_accounts,
};
use crate::Retention;
use crate::log::{Cursor, LogFilter, LogRow};
use crate::rows::Write;
use starling_xmpp::{BareJid, Timestamp};

const NONE: Retention = Retention { max_age_secs: None, max_rows: None };

/// Sweeps until nothing is left to do, at this many seconds after the epoch; how many rows went.
pub(super) async fn sweep(store: &Home, now: u64, retention: Retention) -> u64 {
    let mut removed = 0;
    let mut idle = 0;
    while idle < 3 {
        let some = store.sweep(Timestamp::from_secs(now), retention).await.unwrap();
        removed += some;
        idle = if some == 0 { idle + 1 } else { 0 };
    }
    removed
}

/// An archived row that waits for nobody.
fn done(owner: &BareJid, secs: u64) -> Write {
    append(LogRow { offline: false, ..row(owner, at(secs), &jid("bob@example.org")) })
}

/// Rows that have ended go whatever the retention.
pub async fn expired_rows_are_removed(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let time = TestTime::at(100);
    let store = open_at(back_end, &time).await;
    store.create_account(&alice, account(1, "p")).await.unwrap();
    for (n, end) in [(1, Some(200)), (2, None), (3, Some(300)), (4, Some(200))] {
        let row =
            LogRow { expires: end.map(Timestamp::from_secs), archived: n != 4, ..row(&alice, at(n), &bob) };
        store.commit(vec![append(row)]).await.unwrap();
    }
    // Written again with a later end: the first end no longer counts.
    let later = LogRow { expires: Some(Timestamp::from_secs(300)), ..row(&alice, at(1), &bob) };
    store.commit(vec![append(later)]).await.unwrap();
    assert_eq!(sweep(&store, 199, NONE).await, 0);
    assert_eq!(sweep(&store, 200, NONE).await, 1);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, [at(1), at(2), at(3)]);
    assert_eq!(sweep(&store, 1_000, NONE).await, 2);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, [at(2)]);
    let with = LogFilter { with: Some(bob), ..LogFilter::default() };
    assert_eq!(positions(&store, &alice, with).await, [at(2)]);
}

/// By age, in every account.
pub async fn old_rows_are_removed(back_end: &mut impl BackEnd) {
    let owners: Vec<_> = (0..5).map(|n| jid(&format!("user{n}@example.org"))).collect();
    let store = with_accounts(back_end, &owners.iter().collect::<Vec<_>>()).await;
    for owner in &owners {
        store.commit((1..=20).map(|n| done(owner, n)).collect()).await.unwrap();
        // What must not be archived ends by its own lifetime, not by the archive's.
        let kept = LogRow {
            archived: false,
            offline: false,
            expires: Some(Timestamp::from_secs(9_000)),
            ..row(owner, at(2), &owners[0])
        };
        store.commit(vec![append(kept)]).await.unwrap();
    }
    let retention = Retention { max_age_secs: Some(100), max_rows: None };
    assert_eq!(sweep(&store, 105, retention).await, 5 * 3);
    for owner in &owners {
        let left = positions(&store, owner, LogFilter::default()).await;
        assert_eq!((left.len(), left[0], left[1]), (17, at(2), at(5)), "a row of exactly that age stays");
    }
    assert_eq!(sweep(&store, 105, retention).await, 0);
    assert_eq!(sweep(&store, 1_000, retention).await, 5 * 16);
}

/// By count, account by account.
pub async fn surplus_rows_are_removed_oldest_first(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice, &bob]).await;
    store.commit((1..=30).map(|n| done(&alice, n)).collect()).await.unwrap();
    store.commit((1..=7).map(|n| done(&bob, n)).collect()).await.unwrap();
    let retention = Retention { max_age_secs: None, max_rows: Some(10) };
    assert_eq!(sweep(&store, 2_000, retention).await, 20);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, (21..=30).map(at).collect::<Vec<_>>());
    assert_eq!(positions(&store, &bob, LogFilter::default()).await.len(), 7);
    store.commit((31..=33).map(|n| done(&alice, n)).collect()).await.unwrap();
    assert_eq!(sweep(&store, 2_000, retention).await, 3);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, (24..=33).map(at).collect::<Vec<_>>());
    let none = Retention { max_rows: Some(0), ..retention };
    assert_eq!(sweep(&store, 2_000, none).await, 17);
}

/// Nobody has seen them yet: neither age nor count takes them.
pub async fn waiting_rows_stay(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    for n in 1..=10 {
        store.commit(vec![append(row(&alice, at(n), &bob))]).await.unwrap();
    }
    let cursor = Cursor { through: at(3), above: vec![at(6)..=at(6)] };
    store.commit(vec![Write::Cursor(alice.clone(), cursor)]).await.unwrap();
    let retention = Retention { max_age_secs: Some(10), max_rows: Some(1) };
    assert_eq!(sweep(&store, 1_000, retention).await, 4);
    let waiting = [4, 5, 7, 8, 9, 10].map(at);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, waiting);
    store
        .commit(vec![Write::Cursor(alice.clone(), Cursor { through: at(10), above: vec![] })])
        .await
        .unwrap();
    assert_eq!(sweep(&store, 1_000, retention).await, 6);
}

/// Nothing asked, nothing done.
pub async fn no_retention_removes_nothing(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    store.commit((1..=30).map(|n| done(&alice, n)).collect()).await.unwrap();
    assert_eq!(sweep(&store, u64::MAX / 2_000_000, NONE).await, 0);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await.len(), 30);
}

/// A row written late, or written over, does not throw off a count that was taken before.
pub async fn late_rows_are_counted(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    store.commit((11..=20).map(|n| done(&alice, n)).collect()).await.unwrap();
    let retention = Retention { max_age_secs: None, max_rows: Some(10) };
    assert_eq!(sweep(&store, 2_000, retention).await, 0);
    store.commit(vec![done(&alice, 5), done(&alice, 15), done(&alice, 20)]).await.unwrap();
    assert_eq!(sweep(&store, 2_000, retention).await, 1);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, (11..=20).map(at).collect::<Vec<_>>());
    let hidden = LogRow { archived: false, offline: false, ..row(&alice, at(15), &alice) };
    store.commit(vec![append(hidden), done(&alice, 21)]).await.unwrap();
    assert_eq!(sweep(&store, 2_000, retention).await, 0, "ten are archived");
}

/// Counting goes on where it was before a restart.
pub async fn bounds_hold_after_reopening(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let retention = Retention { max_age_secs: None, max_rows: Some(10) };
    {
        let store = with_accounts(back_end, &[&alice]).await;
        store.commit((1..=15).map(|n| done(&alice, n)).collect()).await.unwrap();
        assert_eq!(sweep(&store, 2_000, retention).await, 5);
        store.commit((16..=20).map(|n| done(&alice, n)).collect()).await.unwrap();
    }
    let store = open(back_end).await;
    store.commit(vec![done(&alice, 19), done(&alice, 21)]).await.unwrap();
    assert_eq!(sweep(&store, 2_000, retention).await, 6);
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, (12..=21).map(at).collect::<Vec<_>>());
}
