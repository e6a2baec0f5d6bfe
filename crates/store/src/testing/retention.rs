//! What a reader sees of rows that have had their time, whether they go in a sweep or by themselves.

use super::sweep::sweep;
use super::{BackEnd, Home, TestTime, account, all, append, append_all, at, jid, positions, row, with};
use crate::Retention;
use crate::log::{Cursor, LogFilter, LogRow, Page, Position};
use crate::rows::Write;
use bytes::Bytes;
use starling_xmpp::{BareJid, Timestamp};

/// By age; what has an end of its own, and is not archived, by that.
pub async fn old_rows_are_not_seen(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let keep = Retention { max_age_secs: Some(10_000), max_rows: None };
    let time = TestTime::at(20_000);
    let store = Home::open(back_end.open(time.now(), keep).await).await;
    store.create_account(&alice, account(1, "p")).await.unwrap();
    for n in 1..=6 {
        let done = LogRow { offline: false, ..row(&alice, at(15_000 + n * 1_000), &bob) };
        let done = match n {
            2 => LogRow { expires: Some(Timestamp::from_secs(26_500)), ..done },
            4 => LogRow { archived: false, expires: Some(Timestamp::from_secs(90_000)), ..done },
            _ => done,
        };
        store.commit(vec![append(done)]).await.unwrap();
    }
    for (now, want) in [
        (21_000, vec![16, 17, 18, 19, 20, 21]),
        (26_000, vec![16, 17, 18, 19, 20, 21]),
        (26_001, vec![17, 18, 19, 20, 21]),
        (26_500, vec![18, 19, 20, 21]),
        (30_500, vec![19, 21]),
        (80_000, vec![19]),
    ] {
        time.set(now);
        sweep(&store, now, keep).await;
        let want: Vec<_> = want.into_iter().map(|n| at(n * 1_000)).collect();
        assert_eq!(positions(&store, &alice, all()).await, want, "at {now}");
        assert_eq!(positions(&store, &alice, with(&bob)).await, want, "at {now}");
        let every = (16..=21).map(|n| at(n * 1_000)).collect();
        assert_eq!(store.log_rows(&alice, every).await.unwrap().len(), want.len(), "at {now}");
        for page in [Page::First(want.len()), Page::Last(want.len())] {
            let page = store.log_page(&alice, all(), page).await.unwrap();
            assert!(
                page.complete && page.rows.len() == want.len(),
                "at {now}: old rows are not more to come"
            );
        }
    }
}

/// By count, which may be kept by the bucket: the newest are there, not many more, and nothing that nobody has seen yet
/// is lost.
pub async fn surplus_rows_go_and_waiting_ones_stay(back_end: &mut impl BackEnd) {
    const KEPT: u64 = 1_000;
    const BUCKET: u64 = 5_000;
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let keep = Retention { max_age_secs: None, max_rows: Some(KEPT) };
    let store = Home::open(back_end.open(TestTime::at(20_000).now(), keep).await).await;
    store.create_account(&alice, account(1, "p")).await.unwrap();
    let fill = async |from: u64, to: u64| {
        let rows = (from..=to).map(|n| LogRow {
            offline: n == 1,
            stanza: Bytes::from_static(b"<message/>"),
            ..row(&alice, at(n), &bob)
        });
        append_all(&store, rows).await;
        sweep(&store, 20_000, keep).await;
        left(&store, &alice, &bob).await
    };
    let some = fill(1, 10_200).await;
    assert_eq!(some[0], at(1), "it waits");
    assert_newest(&some[1..], 10_200, KEPT - 1);
    let cursor = Cursor { through: at(1), above: vec![] };
    store.commit(vec![Write::Cursor(alice.clone(), cursor)]).await.unwrap();
    let some = fill(10_201, 15_200).await;
    assert_newest(&some, 15_200, KEPT);
    assert!(some.len() as u64 <= KEPT + 2 * BUCKET, "{} are left", some.len());
    assert!(some[0] > at(1), "it waits no longer");
}

/// What is left, by every way to read it.
async fn left(store: &Home, alice: &BareJid, bob: &BareJid) -> Vec<Position> {
    let found = positions(store, alice, all()).await;
    assert_eq!(positions(store, alice, with(bob)).await, found);
    let archived = LogFilter { archived: true, ..all() };
    let newest = store.log_page(alice, archived, Page::Last(30)).await.unwrap().rows;
    assert_eq!(newest.iter().map(|row| row.position).collect::<Vec<_>>(), found[found.len() - 30..]);
    let by_position = store.log_rows(alice, found[..50].to_vec()).await.unwrap();
    assert_eq!(by_position.len(), 50);
    found
}

/// All from the oldest on, and enough of them.
fn assert_newest(rows: &[Position], newest: u64, kept: u64) {
    let oldest = rows[0].0 / 1_000_000;
    assert!(newest - oldest + 1 >= kept, "rows from {oldest} on are left of {newest}");
    assert_eq!(rows, (oldest..=newest).map(at).collect::<Vec<_>>());
}
