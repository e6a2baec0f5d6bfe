//! Large and old archives: however a back end cuts them up, pages do not show it.

use super::{BackEnd, Home, TestTime, account, all, append_all, at, jid, open_at, row, with};
use crate::log::{LogFilter, LogRow, Page, Position};
use bytes::Bytes;
use starling_xmpp::BareJid;

/// An archive as it was written: every `sparse`-th row is with carol, and none of the middle fifth.
struct Archive {
    store: Home,
    alice: BareJid,
    bob: BareJid,
    carol: BareJid,
    positions: Vec<Position>,
    sparse: usize,
}

impl Archive {
    async fn fill(back_end: &mut impl BackEnd, positions: Vec<Position>, sparse: usize) -> Self {
        let time = TestTime::at(positions.last().unwrap().0 / 1_000_000 + 1);
        let store = open_at(back_end, &time).await;
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| jid(&format!("{name}@example.org")));
        store.create_account(&alice, account(1, "p")).await.unwrap();
        let archive = Self { store, alice, bob, carol, positions, sparse };
        let rows = archive.positions.iter().enumerate().map(|(n, position)| LogRow {
            stanza: Bytes::from_static(b"<message/>"),
            ..row(&archive.alice, *position, archive.peer(n))
        });
        append_all(&archive.store, rows).await;
        archive
    }

    fn peer(&self, n: usize) -> &BareJid {
        let fifth = self.positions.len() / 5;
        let silent = (2 * fifth..3 * fifth).contains(&n);
        if n.is_multiple_of(self.sparse) && !silent { &self.carol } else { &self.bob }
    }

    /// What a filter lets through, found the long way.
    fn want(&self, filter: &LogFilter) -> Vec<Position> {
        let Some((low, high)) = filter.bounds() else { return Vec::new() };
        let rows = self.positions.iter().enumerate();
        rows.filter(|(n, _)| filter.with.as_ref().is_none_or(|peer| peer == self.peer(*n)))
            .map(|(_, position)| *position)
            .filter(|position| (low..=high).contains(position))
            .collect()
    }

    async fn page(&self, filter: &LogFilter, page: Page) -> (Vec<Position>, bool) {
        let page = self.store.log_page(&self.alice, filter.clone(), page).await.unwrap();
        (page.rows.iter().map(|row| row.position).collect(), page.complete)
    }

    /// Goes through all that a filter lets through, page by page, from either end.
    async fn assert_pages(&self, filter: LogFilter, limit: usize) {
        let want = self.want(&filter);
        let (mut forward, mut above) = (Vec::new(), filter.above);
        loop {
            let (rows, complete) =
                self.page(&LogFilter { above, ..filter.clone() }, Page::First(limit)).await;
            assert!(rows.len() == limit || complete, "a page that is not the last is full");
            above = rows.last().copied().or(above);
            forward.extend(rows);
            if complete {
                break;
            }
        }
        assert_eq!(forward, want, "forward: {filter:?}");
        let (mut backward, mut below) = (Vec::new(), filter.below);
        loop {
            let (rows, complete) = self.page(&LogFilter { below, ..filter.clone() }, Page::Last(limit)).await;
            assert!(rows.len() == limit || complete, "a page that is not the last is full");
            below = rows.first().copied().or(below);
            backward.extend(rows.into_iter().rev());
            if complete {
                break;
            }
        }
        backward.reverse();
        assert_eq!(backward, want, "backward: {filter:?}");
    }

    /// Pages, bounds and single rows around the `n`-th row.
    async fn assert_around(&self, n: usize) {
        let near = |step: i64| self.positions[(n as i64 + step) as usize];
        for filter in [all(), with(&self.bob), with(&self.carol)] {
            for (low, high) in [(-3, 3), (-1, 1), (0, 0), (-1, 0), (-2, 200), (-200, 2)] {
                let bounded =
                    LogFilter { above: Some(near(low - 1)), below: Some(near(high + 1)), ..filter.clone() };
                let want = self.want(&bounded);
                for limit in [1, want.len().max(1), want.len() + 1] {
                    let first = (want[..limit.min(want.len())].to_vec(), want.len() <= limit);
                    assert_eq!(self.page(&bounded, Page::First(limit)).await, first, "{bounded:?}");
                    let last = (want[want.len().saturating_sub(limit)..].to_vec(), want.len() <= limit);
                    assert_eq!(self.page(&bounded, Page::Last(limit)).await, last, "{bounded:?}");
                }
                let (start, end) = (Some(near(low).timestamp()), Some(near(high).timestamp()));
                let timed = LogFilter { start, end, ..filter.clone() };
                assert_eq!(self.page(&timed, Page::First(500)).await, (want, true), "{timed:?}");
            }
        }
        let wanted = [-2, -1, 0, 1, 2].map(near);
        let found = self.store.log_rows(&self.alice, wanted.to_vec()).await.unwrap();
        assert_eq!(found.iter().map(|row| row.position).collect::<Vec<_>>(), wanted);
        let peers: Vec<_> = found.iter().map(|row| &row.with).collect();
        assert_eq!(peers, (n - 2..=n + 2).map(|n| self.peer(n)).collect::<Vec<_>>());
    }
}

/// More rows than fit in two buckets of any back end: both ways, with either peer, and where one bucket ends.
pub async fn many_rows_are_read_in_pages(back_end: &mut impl BackEnd) {
    let archive = Archive::fill(back_end, (1..=12_000).map(at).collect(), 97).await;
    archive.assert_pages(all(), 250).await;
    archive.assert_pages(with(&archive.bob), 700).await;
    archive.assert_pages(with(&archive.carol), 10).await;
    archive.assert_pages(LogFilter { above: Some(at(4_990)), below: Some(at(10_010)), ..all() }, 499).await;
    for n in [4_999, 5_000, 5_001, 9_999, 10_000, 10_001] {
        archive.assert_around(n).await;
    }
    assert_eq!(archive.store.load(&archive.alice).await.unwrap().unwrap().last, at(12_000));
    let apart: Vec<_> = [11_999, 1, 5_000, 5_001, 10_000, 10_001, 7_000, 20_000].map(at).into();
    let found = archive.store.log_rows(&archive.alice, apart).await.unwrap();
    let found: Vec<_> = found.iter().map(|row| row.position).collect();
    assert_eq!(found, [1, 5_000, 5_001, 7_000, 10_000, 10_001, 11_999].map(at));
}

/// A row a month, for eleven years.
pub async fn rows_far_apart_are_read_in_pages(back_end: &mut impl BackEnd) {
    const MONTH: u64 = 31 * 24 * 3_600;
    let archive = Archive::fill(back_end, (1..=130).map(|n| at(n * MONTH)).collect(), 9).await;
    for limit in [1, 7, 50, 129, 130, 131] {
        archive.assert_pages(all(), limit).await;
    }
    for limit in [1, 4, 100] {
        archive.assert_pages(with(&archive.carol), limit).await;
        archive.assert_pages(with(&archive.bob), limit * 5).await;
    }
    let some = LogFilter { above: Some(at(45 * MONTH + 1)), below: Some(at(105 * MONTH - 1)), ..all() };
    archive.assert_pages(some.clone(), 11).await;
    archive.assert_pages(LogFilter { with: Some(archive.carol.clone()), ..some }, 2).await;
    let between = LogFilter { above: Some(at(60 * MONTH)), below: Some(at(61 * MONTH)), ..all() };
    assert_eq!(archive.page(&between, Page::Last(5)).await, (vec![], true));
    let found = archive.store.log_rows(&archive.alice, archive.positions.clone()).await.unwrap();
    assert_eq!(found.len(), 130);
    assert_eq!(archive.store.load(&archive.alice).await.unwrap().unwrap().last, at(130 * MONTH));
}
