//! Appending to the log and reading it.

use super::{
    BackEnd, Home, TestTime, account, all, append, at, jid, open, open_at, positions, row, with,
    with_accounts,
};
use crate::SharedStore;
use crate::log::{Cursor, Direction, LogFilter, LogRow, Origin, Page, Position};
use crate::memory::MemoryStore;
use crate::rows::Write;
use bytes::Bytes;
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;

async fn page(store: &SharedStore, owner: &BareJid, filter: LogFilter, page: Page) -> (Vec<u64>, bool) {
    let page = store.log_page(owner, filter, page).await.unwrap();
    (page.rows.iter().map(|row| row.position.0 / 1_000_000).collect(), page.complete)
}

/// Alice's log: positions 1 to 10 (s), odd ones with bob, even ones with carol.
async fn ten(back_end: &mut impl BackEnd) -> (Home, BareJid, BareJid, BareJid) {
    let (alice, bob, carol) = (jid("alice@example.org"), jid("bob@example.org"), jid("carol@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    for n in 1..=10 {
        let peer = if n % 2 == 1 { &bob } else { &carol };
        store.commit(vec![append(row(&alice, at(n), peer))]).await.unwrap();
    }
    (store, alice, bob, carol)
}

/// Every field, with and without its options, and a large stanza.
pub async fn rows_keep_every_field(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    let plain = row(&alice, at(1), &jid("bob@example.org"));
    let full = LogRow {
        origin: Origin { session: u128::MAX, sequence: u64::MAX },
        origin_id: Some("böb's own, and a long one that takes more than a short string holds".into()),
        direction: Direction::Out,
        with: jid("gateway.example.net"),
        archived: false,
        offline: false,
        expires: Some(Timestamp(u64::MAX)),
        stanza: Bytes::from(vec![b'x'; 300_000]),
        ..row(&alice, at(2), &alice)
    };
    let own = LogRow { direction: Direction::Own, stanza: Bytes::new(), ..row(&alice, at(3), &alice) };
    let rows = [plain, full, own];
    for row in &rows {
        store.commit(vec![append(row.clone())]).await.unwrap();
    }
    let page = store.log_page(&alice, all(), Page::First(10)).await.unwrap();
    assert_eq!(page.rows, rows);
    for row in &rows {
        let page = store.log_page(&alice, with(&row.with), Page::First(10)).await.unwrap();
        assert_eq!(page.rows, std::slice::from_ref(row));
    }
}

/// A retry at the same position is the same row.
pub async fn appending_again_changes_nothing(back_end: &mut impl BackEnd) {
    let (store, alice, bob, _) = ten(back_end).await;
    for n in [10, 3] {
        let peer = store.log_rows(&alice, vec![at(n)]).await.unwrap()[0].with.clone();
        store.commit(vec![append(row(&alice, at(n), &peer))]).await.unwrap();
    }
    assert_eq!(positions(&store, &alice, all()).await.len(), 10);
    assert_eq!(positions(&store, &alice, with(&bob)).await.len(), 5);
}

/// The same row, from the same origin, again and again: before and after the home has loaded the account, after another
/// row, after a reopening.
pub async fn a_row_is_the_same_after_every_retry(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let mut rows = Vec::new();
    {
        let store = with_accounts(back_end, &[&alice]).await;
        for step in 0..6 {
            let new = row(&alice, store.position(), &bob);
            rows.push(new.clone());
            let (first, second) = (store.commit(vec![append(new.clone())]), store.commit(vec![append(new)]));
            first.await.unwrap();
            second.await.unwrap();
            if step % 2 == 0 {
                store.load(&alice).await.unwrap().unwrap();
            }
            for again in &rows {
                store.commit(vec![append(again.clone())]).await.unwrap();
            }
            assert_same(&store, &alice, &rows).await;
        }
    }
    let store = open(back_end).await;
    assert_same(&store, &alice, &rows).await;
    store.commit(rows.iter().cloned().map(append).collect()).await.unwrap();
    assert_same(&store, &alice, &rows).await;
    assert_eq!(store.load(&alice).await.unwrap().unwrap().last, rows[5].position);
}

async fn assert_same(store: &Home, owner: &BareJid, rows: &[LogRow]) {
    for filter in [all(), with(&rows[0].with)] {
        let page = store.log_page(owner, filter, Page::Last(9)).await.unwrap();
        assert_eq!(page.rows, rows);
    }
    let found = store.log_rows(owner, rows.iter().map(|row| row.position).collect()).await.unwrap();
    assert_eq!(found, rows);
}

/// Whoever looks for a resent message in the newest rows misses none that was confirmed, at no time.
pub async fn the_tail_has_what_was_confirmed(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let mut origins = Vec::new();
    {
        let store = with_accounts(back_end, &[&alice]).await;
        for n in 0..60 {
            let new = row(&alice, store.position(), &bob);
            origins.push(new.origin);
            store.commit(vec![append(new.clone())]).await.unwrap();
            if n % 7 == 0 {
                assert_eq!(store.load(&alice).await.unwrap().unwrap().last, new.position);
            }
            let tail = store.log_page(&alice, all(), Page::Last(20)).await.unwrap().rows;
            let tail: Vec<_> = tail.iter().map(|row| row.origin).collect();
            assert_eq!(tail, origins[origins.len().saturating_sub(20)..], "after {n} rows");
        }
    }
    let store = open(back_end).await;
    let tail = store.log_page(&alice, with(&bob), Page::Last(60)).await.unwrap();
    assert_eq!(tail.rows.iter().map(|row| row.origin).collect::<Vec<_>>(), origins);
}

/// A row written over another is found by what it is, not by what was there.
pub async fn a_replaced_row_leaves_no_trace(back_end: &mut impl BackEnd) {
    let (store, alice, bob, carol) = ten(back_end).await;
    let new = LogRow { with: carol.clone(), archived: false, offline: false, ..row(&alice, at(3), &carol) };
    store.commit(vec![append(new.clone())]).await.unwrap();
    assert_eq!(store.log_rows(&alice, vec![at(3)]).await.unwrap(), [new]);
    assert_eq!(page(&store, &alice, with(&bob), Page::First(99)).await.0, [1, 5, 7, 9]);
    assert_eq!(page(&store, &alice, with(&carol), Page::First(99)).await.0, [2, 3, 4, 6, 8, 10]);
    let archive = LogFilter { archived: true, ..all() };
    assert_eq!(positions(&store, &alice, archive).await.len(), 9);
    let waiting = LogFilter { offline: true, ..all() };
    assert_eq!(positions(&store, &alice, waiting).await.len(), 9);
    assert_eq!(positions(&store, &alice, all()).await.len(), 10);
}

/// Positions need not be written in order.
pub async fn a_lower_position_may_come_late(back_end: &mut impl BackEnd) {
    let (store, alice, bob, _) = ten(back_end).await;
    store.commit(vec![append(row(&alice, Position(2_500_000), &bob))]).await.unwrap();
    let got = positions(&store, &alice, LogFilter { above: Some(at(2)), below: Some(at(4)), ..all() }).await;
    assert_eq!(got, [Position(2_500_000), at(3)]);
    assert_eq!(store.load(&alice).await.unwrap().unwrap().last, at(10));
    let bobs = positions(&store, &alice, with(&bob)).await;
    assert_eq!(bobs[..3], [at(1), Position(2_500_000), at(3)]);
}

/// Oldest first, page by page.
pub async fn pages_go_forward(back_end: &mut impl BackEnd) {
    let (store, alice, bob, _) = ten(back_end).await;
    let mut above = None;
    let mut seen = Vec::new();
    loop {
        let filter = LogFilter { above, with: Some(bob.clone()), ..all() };
        let page = store.log_page(&alice, filter, Page::First(2)).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.position.0 / 1_000_000));
        above = page.rows.last().map(|row| row.position);
        if page.complete {
            break;
        }
    }
    assert_eq!(seen, [1, 3, 5, 7, 9]);
}

/// Newest page first, each page oldest first.
pub async fn pages_go_backward(back_end: &mut impl BackEnd) {
    let (store, alice, ..) = ten(back_end).await;
    let mut below = None;
    let mut seen = Vec::new();
    loop {
        let filter = LogFilter { below, ..all() };
        let page = store.log_page(&alice, filter, Page::Last(4)).await.unwrap();
        seen.push(page.rows.iter().map(|row| row.position.0 / 1_000_000).collect::<Vec<_>>());
        below = page.rows.first().map(|row| row.position);
        if page.complete {
            break;
        }
    }
    assert_eq!(seen, [vec![7, 8, 9, 10], vec![3, 4, 5, 6], vec![1, 2]]);
}

/// `complete` looks in the page's direction, at rows that match.
pub async fn a_page_knows_whether_it_is_the_last(back_end: &mut impl BackEnd) {
    let (store, alice, bob, _) = ten(back_end).await;
    for (limit, complete) in [(0, false), (4, false), (5, true), (6, true), (usize::MAX, true)] {
        assert_eq!(page(&store, &alice, with(&bob), Page::First(limit)).await.1, complete, "first {limit}");
        assert_eq!(page(&store, &alice, with(&bob), Page::Last(limit)).await.1, complete, "last {limit}");
    }
    let none = with(&jid("nobody@example.org"));
    assert_eq!(page(&store, &alice, none.clone(), Page::First(0)).await, (vec![], true));
    assert_eq!(page(&store, &alice, none, Page::Last(1)).await, (vec![], true));
    // Nine rows lie above the first: a page of nine within that bound is the last one.
    let bounded = LogFilter { above: Some(at(1)), ..all() };
    assert!(page(&store, &alice, bounded.clone(), Page::Last(9)).await.1);
    assert!(!page(&store, &alice, bounded, Page::Last(8)).await.1);
}

/// `start` and `end` are inclusive, `above` and `below` are not.
pub async fn bounds_are_exact(back_end: &mut impl BackEnd) {
    let (store, alice, ..) = ten(back_end).await;
    let time = |secs| Some(Timestamp::from_secs(secs));
    let rows = |filter: LogFilter| {
        let (store, alice) = (store.clone(), alice.clone());
        async move { page(&store, &alice, filter, Page::First(99)).await.0 }
    };
    assert_eq!(rows(LogFilter { start: time(8), ..all() }).await, [8, 9, 10]);
    assert_eq!(rows(LogFilter { end: time(3), ..all() }).await, [1, 2, 3]);
    assert_eq!(rows(LogFilter { above: Some(at(8)), ..all() }).await, [9, 10]);
    assert_eq!(rows(LogFilter { below: Some(at(3)), ..all() }).await, [1, 2]);
    assert_eq!(rows(LogFilter { start: time(4), end: time(4), ..all() }).await, [4]);
    assert!(rows(LogFilter { start: time(5), end: time(4), ..all() }).await.is_empty());
    assert!(rows(LogFilter { above: Some(at(4)), below: Some(at(5)), ..all() }).await.is_empty());
    assert!(rows(LogFilter { below: Some(Position(0)), ..all() }).await.is_empty());
    assert!(rows(LogFilter { above: Some(Position(u64::MAX)), ..all() }).await.is_empty());
    let tight = LogFilter { start: time(2), above: Some(at(5)), end: time(9), below: Some(at(8)), ..all() };
    assert_eq!(rows(tight).await, [6, 7]);
}

/// Flags, peer and bounds together, in both directions.
pub async fn filters_combine(back_end: &mut impl BackEnd) {
    let (alice, bob, carol) = (jid("alice@example.org"), jid("bob@example.org"), jid("carol@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    for n in 0..40_u64 {
        let peer = if n % 5 < 3 { &bob } else { &carol };
        let row = LogRow { archived: n % 2 == 0, offline: n % 3 == 0, ..row(&alice, at(n + 1), peer) };
        store.commit(vec![append(row)]).await.unwrap();
    }
    for archived in [false, true] {
        for offline in [false, true] {
            for peer in [None, Some(&bob), Some(&carol)] {
                let filter = LogFilter {
                    archived,
                    offline,
                    with: peer.cloned(),
                    above: Some(at(3)),
                    below: Some(at(39)),
                    ..all()
                };
                let want: Vec<u64> = (0..40)
                    .filter(|n| (!archived || n % 2 == 0) && (!offline || n % 3 == 0))
                    .filter(|n| peer.is_none_or(|peer| (n % 5 < 3) == (*peer == bob)))
                    .map(|n| n + 1)
                    .filter(|n| (4..39).contains(n))
                    .collect();
                let forward = page(&store, &alice, filter.clone(), Page::First(3)).await;
                assert_eq!(forward, (want[..want.len().min(3)].to_vec(), want.len() <= 3), "{filter:?}");
                let backward = page(&store, &alice, filter.clone(), Page::Last(3)).await;
                let tail = want.len().saturating_sub(3);
                assert_eq!(backward, (want[tail..].to_vec(), want.len() <= 3), "{filter:?}");
                assert_eq!(page(&store, &alice, filter, Page::Last(99)).await, (want, true));
            }
        }
    }
}

/// Peers whose addresses begin alike are kept apart.
pub async fn a_peer_is_the_whole_address(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    let peers = ["bob@x.org", "bob@x.org.uk", "bo@x.org", "x.org", "b@x.org"].map(jid);
    for (n, peer) in peers.iter().enumerate() {
        store.commit(vec![append(row(&alice, at(n as u64 + 1), peer))]).await.unwrap();
    }
    for (n, peer) in peers.iter().enumerate() {
        assert_eq!(page(&store, &alice, with(peer), Page::Last(9)).await, (vec![n as u64 + 1], true));
    }
}

/// What the cursor covers is delivered; the rest waits.
pub async fn offline_rows_end_with_the_cursor(back_end: &mut impl BackEnd) {
    let (store, alice, bob, _) = ten(back_end).await;
    let waiting = LogFilter { offline: true, ..all() };
    assert_eq!(positions(&store, &alice, waiting.clone()).await.len(), 10);
    let cursor = Cursor { through: at(4), above: vec![at(6)..=at(6), at(9)..=at(9)] };
    store.commit(vec![Write::Cursor(alice.clone(), cursor)]).await.unwrap();
    assert_eq!(page(&store, &alice, waiting.clone(), Page::First(2)).await, (vec![5, 7], false));
    assert_eq!(page(&store, &alice, waiting.clone(), Page::First(99)).await, (vec![5, 7, 8, 10], true));
    let runs = Cursor { through: at(2), above: vec![at(4)..=at(6), at(8)..=at(9)] };
    store.commit(vec![Write::Cursor(alice.clone(), runs)]).await.unwrap();
    assert_eq!(page(&store, &alice, waiting.clone(), Page::First(99)).await, (vec![3, 7, 10], true));
    assert_eq!(page(&store, &alice, waiting.clone(), Page::Last(2)).await, (vec![7, 10], false));
    let cursor = Cursor { through: at(4), above: vec![at(6)..=at(6), at(9)..=at(9)] };
    store.commit(vec![Write::Cursor(alice.clone(), cursor)]).await.unwrap();
    let mine = LogFilter { with: Some(bob.clone()), ..waiting.clone() };
    assert_eq!(page(&store, &alice, mine, Page::Last(9)).await, (vec![5, 7], true));
    let sent = LogRow { direction: Direction::Out, offline: false, ..row(&alice, at(11), &bob) };
    store.commit(vec![append(sent), append(row(&alice, at(12), &bob))]).await.unwrap();
    assert_eq!(page(&store, &alice, waiting.clone(), Page::Last(2)).await, (vec![10, 12], false));
    store
        .commit(vec![Write::Cursor(alice.clone(), Cursor { through: at(12), above: vec![] })])
        .await
        .unwrap();
    assert_eq!(page(&store, &alice, waiting, Page::First(9)).await, (vec![], true));
    assert_eq!(positions(&store, &alice, all()).await.len(), 12, "the archive keeps what was delivered");
}

/// Time passes for the readers, before any sweep.
pub async fn expired_rows_do_not_appear(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    // Far enough apart that no case is slow enough for a server that counts by its own clock.
    let time = TestTime::at(10_000);
    let store = open_at(back_end, &time).await;
    store.create_account(&alice, account(1, "p")).await.unwrap();
    for (n, end) in [(1, Some(20_000)), (2, None), (3, Some(30_000)), (4, Some(10_000))] {
        let row = LogRow { expires: end.map(Timestamp::from_secs), ..row(&alice, at(n), &bob) };
        store.commit(vec![append(row)]).await.unwrap();
    }
    for (now, want) in
        [(10_000, vec![1, 2, 3]), (19_999, vec![1, 2, 3]), (20_000, vec![2, 3]), (30_000, vec![2])]
    {
        time.set(now);
        assert_eq!(page(&store, &alice, all(), Page::First(9)).await, (want.clone(), true), "at {now}");
        assert_eq!(page(&store, &alice, with(&bob), Page::Last(9)).await, (want.clone(), true), "at {now}");
        assert!(
            page(&store, &alice, all(), Page::First(want.len())).await.1,
            "expired rows are not more to come"
        );
        let found = store.log_rows(&alice, (1..=4).map(at).collect()).await.unwrap();
        assert_eq!(found.len(), want.len());
    }
}

/// By position: those that exist, in order, once each.
pub async fn rows_are_found_by_position(back_end: &mut impl BackEnd) {
    let (store, alice, ..) = ten(back_end).await;
    let wanted = vec![at(7), at(99), at(2), Position(2_000_001), at(7), at(10)];
    let rows = store.log_rows(&alice, wanted).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.position).collect::<Vec<_>>(), [at(2), at(7), at(10)]);
    assert!(store.log_rows(&alice, vec![]).await.unwrap().is_empty());
    assert!(store.log_rows(&jid("nobody@example.org"), vec![at(2)]).await.unwrap().is_empty());
}

/// The same positions in two accounts.
pub async fn logs_do_not_mix(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice, &bob]).await;
    store.commit(vec![append(row(&alice, at(1), &bob)), append(row(&bob, at(1), &alice))]).await.unwrap();
    store.commit(vec![append(row(&bob, at(2), &alice))]).await.unwrap();
    let of_alice = store.log_page(&alice, all(), Page::First(9)).await.unwrap();
    assert_eq!(of_alice.rows, [row(&alice, at(1), &bob)]);
    assert_eq!(positions(&store, &bob, all()).await, [at(1), at(2)]);
}

/// Many random writes and reads, each compared with the memory store's answer.
pub async fn random_logs_read_as_the_reference_does(back_end: &mut impl BackEnd) {
    random(back_end, 1).await;
}

/// The same with years between the first row and the last.
pub async fn random_logs_over_years_read_as_the_reference_does(back_end: &mut impl BackEnd) {
    random(back_end, 15 * 24 * 3_600).await;
}

/// A hundred places, so many seconds apart.
async fn random(back_end: &mut impl BackEnd, apart: u64) {
    let owners = [jid("alice@example.org"), jid("bob@example.org")];
    let peers = ["p@x.org", "q@x.org", "p@y.org"].map(jid);
    let now = 200 * apart;
    let time = TestTime::at(now);
    let reference = MemoryStore::with_clock(time.now());
    let stores = [Home::open(Arc::new(reference)).await, open_at(back_end, &time).await];
    let mut random = Random(0x5eed);
    let at = |place: u64| at(place * apart);
    for store in &stores {
        for owner in &owners {
            store.create_account(owner, account(1, "p")).await.unwrap();
        }
    }
    for step in 0..600 {
        let owner = &owners[random.below(2) as usize];
        if random.below(20) == 0 {
            let through = random.below(100);
            let mut end = through;
            let mut above = Vec::new();
            for _ in 0..random.below(4) {
                let start = end + 1 + random.below(20);
                end = start + random.below(10);
                above.push(at(start)..=at(end));
            }
            let through = at(through);
            for store in &stores {
                let cursor = Cursor { through, above: above.clone() };
                store.commit(vec![Write::Cursor(owner.clone(), cursor)]).await.unwrap();
            }
        } else {
            // Mostly rising positions, some late ones, some written again.
            let position = if random.below(4) == 0 { at(random.below(100)) } else { at(step / 6) };
            let ends = [Some(now / 2), Some(now + 1_000_000), None, None, None][random.below(5) as usize];
            let row = LogRow {
                archived: random.below(4) > 0,
                offline: random.below(2) == 0,
                expires: ends.map(Timestamp::from_secs),
                ..row(owner, position, &peers[random.below(3) as usize])
            };
            for store in &stores {
                store.commit(vec![append(row.clone())]).await.unwrap();
            }
        }
        let maybe = |random: &mut Random| (random.below(3) == 0).then(|| at(random.below(100)));
        let filter = LogFilter {
            archived: random.below(2) == 0,
            offline: random.below(3) == 0,
            with: (random.below(2) == 0).then(|| peers[random.below(3) as usize].clone()),
            start: maybe(&mut random).map(Position::timestamp),
            end: maybe(&mut random).map(Position::timestamp),
            above: maybe(&mut random),
            below: maybe(&mut random),
        };
        let limit = random.below(12) as usize;
        let page = if random.below(2) == 0 { Page::First(limit) } else { Page::Last(limit) };
        let want = stores[0].log_page(owner, filter.clone(), page).await.unwrap();
        let got = stores[1].log_page(owner, filter.clone(), page).await.unwrap();
        assert_eq!(got, want, "step {step}: {filter:?} {page:?}");
        let [want, got] = [&stores[0], &stores[1]].map(|store| store.load(owner));
        let (want, got) = (want.await.unwrap().unwrap().last, got.await.unwrap().unwrap().last);
        let left = stores[0].log_page(owner, all(), Page::Last(1)).await.unwrap();
        let left = left.rows.last().map_or(Position(0), |row| row.position);
        // A row that has ended may be gone.
        assert!(left <= got && got <= want, "step {step}: {left:?} <= {got:?} <= {want:?}");
    }
}

/// A small generator (xorshift): the same run on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}
