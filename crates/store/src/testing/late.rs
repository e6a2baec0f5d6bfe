//! Commits whose outcome nobody knows, and that take effect later, if at all: a load decides, for good.

use super::{
    BackEnd, Home, Late, LateBackEnd, TestTime, account, all, append, append_all, at, jid, open_at, row, with,
};
use crate::log::{Cursor, LogFilter, LogPage, LogRow, Page, Position};
use crate::roster::{Roster, RosterItem};
use crate::rows::{DocKind, Write};
use crate::{Result, Retention, StoreError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for every back end to begin a new bucket.
const MONTH: Duration = Duration::from_secs(31 * 24 * 3_600);

/// An account as everybody reads it.
#[derive(Debug, Clone, PartialEq)]
struct View {
    loaded: Option<(Position, Roster, BTreeMap<DocKind, Bytes>)>,
    forward: LogPage,
    backward: LogPage,
    with_bob: LogPage,
    by_position: Vec<LogRow>,
}

impl View {
    /// Loads the account, then reads it. Whichever way it is read, the same rows are there.
    async fn load(home: &Home, owner: &BareJid, positions: &[Position]) -> Self {
        let state = home.load(owner).await.unwrap();
        let loaded = state.map(|state| (state.last, state.roster, state.docs));
        let view = Self { loaded, ..Self::read(home, owner, positions).await };
        if let Some((last, ..)) = &view.loaded {
            assert_eq!(*last, view.forward.rows.last().map_or(Position(0), |row| row.position));
        }
        view
    }

    /// Reads it without a load, from the lowest of these positions on; they are looked at one by one too.
    async fn read(home: &Home, owner: &BareJid, positions: &[Position]) -> Self {
        let above = positions.iter().min().map(|lowest| Position(lowest.0 - 1));
        let page =
            async |filter, page| home.log_page(owner, LogFilter { above, ..filter }, page).await.unwrap();
        let view = Self {
            loaded: None,
            forward: page(all(), Page::First(1_000)).await,
            backward: page(all(), Page::Last(1_000)).await,
            with_bob: page(with(&jid("bob@example.org")), Page::Last(1_000)).await,
            by_position: home.log_rows(owner, positions.to_vec()).await.unwrap(),
        };
        assert_eq!(view.forward, view.backward);
        assert_eq!(view.forward, view.with_bob, "every row is with bob");
        let known = view.forward.rows.iter().filter(|row| positions.contains(&row.position));
        assert!(known.eq(&view.by_position), "a row is there by its position or not at all");
        view
    }

    /// Reads it again: nothing has changed.
    async fn assert_kept(&self, home: &Home, owner: &BareJid, positions: &[Position]) {
        let read = Self::read(home, owner, positions).await;
        assert_eq!(read.forward, self.forward);
        assert_eq!(Self::load(home, owner, positions).await, *self);
        assert_eq!(Self::read(home, owner, positions).await, read);
    }

    fn has(&self, position: Position) -> bool {
        self.forward.rows.iter().any(|row| row.position == position)
    }

    fn doc(&self) -> &[u8] {
        self.loaded.as_ref().and_then(|(_, _, docs)| docs.get(&DocKind::BlockList)).map_or(b"", |doc| doc)
    }
}

/// A row with bob and a document with its position, at a position of its own.
fn message(home: &Home, owner: &BareJid) -> (Position, Vec<Write>) {
    let position = home.position();
    let body = Bytes::from(position.0.to_string());
    let row = row(owner, position, &jid("bob@example.org"));
    (position, vec![append(row), Write::Doc(owner.clone(), DocKind::BlockList, body)])
}

fn contact(owner: &BareJid, contact: &BareJid, version: u64) -> Write {
    let item = RosterItem { version, name: Some("n".into()), ..RosterItem::new(contact.clone()) };
    Write::RosterItem(owner.clone(), Box::new(item))
}

async fn begin(back_end: &mut impl BackEnd, owners: &[&BareJid]) -> Home {
    let home = open_at(back_end, &TestTime::at(2_000)).await;
    for owner in owners {
        home.create_account(owner, account(1, "p")).await.unwrap();
        home.load(owner).await.unwrap().unwrap();
        // What a store does before the first write of a reign is done with.
        let body = Bytes::from_static(b"first");
        home.commit(vec![Write::Doc((*owner).clone(), DocKind::ArchivePreferences, body)]).await.unwrap();
    }
    home
}

/// Commits what will be late. It is given up, and so is everything after it until the next load. Returns what may have
/// come of it.
async fn give_up(back_end: &mut impl LateBackEnd, home: &Home, late: Late, writes: Vec<Write>) -> May {
    let owner = writes[0].owner().clone();
    back_end.hold(late);
    let outcome = home.commit(writes).await;
    back_end.let_through();
    match outcome {
        // It did not get as far as to write any of this.
        Err(StoreError::Overloaded) => return May::Never,
        Err(StoreError::Unavailable(_)) => {}
        other => panic!("{late:?}: {other:?}"),
    }
    let next = home.commit(message(home, &owner).1).await;
    assert!(matches!(next, Err(StoreError::Unavailable(_))), "{late:?}: the account is in doubt, {next:?}");
    match late {
        Late::Nowhere => May::Never,
        Late::Somewhere => May::Either,
        Late::Everywhere => May::Always,
    }
}

/// Whether a commit that was given up is seen by the load after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    Never,
    Either,
    Always,
}

impl May {
    fn assert(self, seen: bool) {
        assert!(self == Self::Either || seen == (self == Self::Always), "{self:?}, but seen: {seen}");
    }
}

fn three() -> [(Late, BareJid); 3] {
    [0, 1, 2].map(|n| (Late::ALL[n], jid(&format!("user{n}@example.org"))))
}

/// A row, a document and a contact, to an account that has some: what the first load sees is there for good, and what
/// it does not see never is.
pub async fn a_load_decides_what_was_written(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let mut ends = Vec::new();
    {
        let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
        for (late, owner) in &owners {
            let mut places = Vec::new();
            for version in 1..=3 {
                let (position, mut writes) = message(&home, owner);
                places.push(position);
                writes.push(contact(owner, &jid("carol@example.org"), version));
                home.commit(writes).await.unwrap();
            }
            let (position, mut writes) = message(&home, owner);
            places.push(position);
            writes.push(contact(owner, &jid("dave@example.org"), 4));
            writes.push(Write::RosterRemove(owner.clone(), jid("carol@example.org"), 5));
            let may = give_up(back_end, &home, *late, writes).await;
            assert!(may != May::Never || *late == Late::Nowhere, "nothing keeps it from being written");

            let view = View::load(&home, owner, &places).await;
            assert_eq!(view.forward.rows.len(), 3 + usize::from(view.has(position)), "{late:?}");
            may.assert(view.has(position));
            let (_, roster, _) = view.loaded.as_ref().unwrap();
            match may {
                May::Never => assert_eq!(view.doc(), places[2].0.to_string().as_bytes()),
                May::Either => {}
                May::Always => {
                    assert_eq!(view.doc(), position.0.to_string().as_bytes());
                    assert_eq!((roster.version, roster.items.len(), roster.removed.len()), (5, 1, 1));
                }
            }
            back_end.arrive();
            view.assert_kept(&home, owner, &places).await;

            let (position, mut writes) = message(&home, owner);
            places.push(position);
            writes.push(contact(owner, &jid("carol@example.org"), 6));
            home.commit(writes).await.unwrap();
            back_end.arrive();
            let end = View::load(&home, owner, &places).await;
            assert_eq!(end.forward.rows.len(), view.forward.rows.len() + 1);
            assert_eq!(end.doc(), position.0.to_string().as_bytes());
            let (_, roster, _) = end.loaded.as_ref().unwrap();
            assert!(roster.version == 6 && roster.items.contains_key(&jid("carol@example.org")));
            ends.push((places, end));
        }
    }
    let home = open_at(back_end, &TestTime::at(2_000)).await;
    for ((_, owner), (places, end)) in owners.iter().zip(ends) {
        end.assert_kept(&home, owner, &places).await;
    }
}

/// Of an empty log.
pub async fn a_late_row_may_be_the_first(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
    for (late, owner) in &owners {
        let (first, writes) = message(&home, owner);
        let may = give_up(back_end, &home, *late, writes).await;
        goes_on(back_end, &home, owner, may, &[], first).await;
    }
}

/// Of a new bucket, because the last one began long ago.
pub async fn a_late_row_may_open_a_bucket(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
    for (late, owner) in &owners {
        let mut before = Vec::new();
        for _ in 0..3 {
            let (position, writes) = message(&home, owner);
            home.commit(writes).await.unwrap();
            before.push(position);
            home.pass(MONTH).await;
        }
        let (first, writes) = message(&home, owner);
        let may = give_up(back_end, &home, *late, writes).await;
        goes_on(back_end, &home, owner, may, &before, first).await;
    }
}

/// Of a new bucket, because the last one is full: every row around the place where that may be is tried.
pub async fn a_late_row_may_be_one_too_many_for_its_bucket(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
    for (late, owner) in &owners {
        let bob = jid("bob@example.org");
        let mut before: Vec<_> = (0..4_998).map(|_| home.position()).collect();
        let small = |position: &Position| LogRow {
            stanza: Bytes::from_static(b"<message/>"),
            ..row(owner, *position, &bob)
        };
        append_all(&home, before.iter().map(small)).await;
        for _ in 0..5 {
            let (position, writes) = message(&home, owner);
            let may = give_up(back_end, &home, *late, writes).await;
            let new = goes_on(back_end, &home, owner, may, &before, position).await;
            before.extend(new);
        }
        let (page, last) = (home.log_page(owner, all(), Page::First(10_000)), before.len() - 1);
        let rows: Vec<_> = page.await.unwrap().rows.iter().map(|row| row.position).collect();
        assert!(rows == before && last >= 5_002, "{late:?}");
    }
}

/// After `late` was given up: a load, arrivals, one more row, and each time all of it is as it must be. Returns the rows that
/// have come.
async fn goes_on(
    back_end: &mut impl LateBackEnd,
    home: &Home,
    owner: &BareJid,
    may: May,
    before: &[Position],
    late: Position,
) -> Vec<Position> {
    let mut want = before[before.len().saturating_sub(5)..].to_vec();
    let known = want.len();
    let mut places = [want.as_slice(), &[late]].concat();
    let view = View::load(home, owner, &places).await;
    if view.has(late) {
        want.push(late);
    }
    may.assert(view.has(late));
    let rows = |view: &View| view.forward.rows.iter().map(|row| row.position).collect::<Vec<_>>();
    assert_eq!(rows(&view), want, "{may:?}");
    let (next, writes) = message(home, owner);
    home.commit(writes).await.unwrap();
    want.push(next);
    places.push(next);
    back_end.arrive();
    let after = View::load(home, owner, &places).await;
    assert_eq!(rows(&after), want, "{may:?}: what was not seen does not come");
    assert_eq!(after.doc(), next.0.to_string().as_bytes());
    back_end.arrive();
    after.assert_kept(home, owner, &places).await;
    want.split_off(known)
}

/// A home does not wait for one commit before the next: many of one account may end in doubt together.
pub async fn commits_under_way_at_once_may_all_be_late(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
    for (late, owner) in &owners {
        let mut places = Vec::new();
        let commit = |places: &mut Vec<Position>| {
            let (position, writes) = message(&home, owner);
            places.push(position);
            home.commit(writes)
        };
        for _ in 0..10 {
            commit(&mut places).await.unwrap();
        }
        back_end.hold(*late);
        let doubtful: Vec<_> = (0..40).map(|_| commit(&mut places)).collect();
        for outcome in join_all(doubtful).await {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{late:?}: {outcome:?}");
        }
        back_end.let_through();
        let view = View::load(&home, owner, &places).await;
        assert_eq!(view.by_position.len(), view.forward.rows.len());
        assert!(places[..10].iter().all(|position| view.has(*position)), "what was confirmed is there");
        back_end.arrive();
        view.assert_kept(&home, owner, &places).await;
        let again: Vec<_> = (0..5).map(|_| commit(&mut places)).collect();
        join_all(again).await.into_iter().collect::<Result<()>>().unwrap();
        back_end.arrive();
        let end = View::load(&home, owner, &places).await;
        assert_eq!(end.forward.rows[..view.forward.rows.len()], view.forward.rows);
        assert_eq!(end.forward.rows.len(), view.forward.rows.len() + 5);
    }
}

/// Places that are written again and again: cursor, document, contact, and a row with another peer.
pub async fn what_is_late_stays_below_what_came_after(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
    let (bob, carol) = (jid("bob@example.org"), jid("carol@example.org"));
    for (late, owner) in &owners {
        let place = home.position();
        let write = |n: u64, peer: &BareJid| {
            vec![
                append(LogRow { stanza: Bytes::from(n.to_string()), ..row(owner, place, peer) }),
                Write::Cursor(owner.clone(), Cursor { through: at(n), above: vec![] }),
                Write::Doc(owner.clone(), DocKind::ArchivePreferences, Bytes::from(n.to_string())),
                contact(owner, &bob, n),
            ]
        };
        home.commit(write(1, &bob)).await.unwrap();
        give_up(back_end, &home, *late, write(2, &carol)).await;
        let cursor = home.load(owner).await.unwrap().unwrap().cursor;
        assert!(cursor.through == at(1) || cursor.through == at(2));
        home.commit(write(3, &bob)).await.unwrap();
        for _ in 0..2 {
            back_end.arrive();
            let state = home.load(owner).await.unwrap().unwrap();
            assert_eq!((state.cursor.through, state.last), (at(3), place), "{late:?}");
            assert_eq!(state.docs[&DocKind::ArchivePreferences], "3");
            assert_eq!((state.roster.version, state.roster.items[&bob].version), (3, 3));
            assert_eq!(home.log_rows(owner, vec![place]).await.unwrap()[0].stanza, "3");
            let page = |peer| home.log_page(owner, with(peer), Page::First(9));
            assert_eq!(page(&bob).await.unwrap().rows.len(), 1);
            assert!(page(&carol).await.unwrap().rows.is_empty(), "{late:?}");
        }
    }
}

/// Removed and made again before what was under way arrives.
pub async fn a_late_write_finds_no_account_made_again(back_end: &mut impl LateBackEnd) {
    let owners = three();
    let home = begin(back_end, &[&owners[0].1, &owners[1].1, &owners[2].1]).await;
    for (late, owner) in &owners {
        let (old, writes) = message(&home, owner);
        home.commit(writes).await.unwrap();
        let (lost, mut writes) = message(&home, owner);
        writes.push(contact(owner, &jid("carol@example.org"), 1));
        give_up(back_end, &home, *late, writes).await;
        home.load(owner).await.unwrap().unwrap();
        home.commit(vec![Write::DeleteAccount(owner.clone())]).await.unwrap();
        home.create_account(owner, account(2, "again")).await.unwrap();
        back_end.arrive();
        let empty = View::load(&home, owner, &[old, lost]).await;
        let nothing = Some((Position(0), Roster::default(), BTreeMap::new()));
        assert!(empty.forward.rows.is_empty() && empty.loaded == nothing, "{late:?}");
        let (new, writes) = message(&home, owner);
        home.commit(writes).await.unwrap();
        back_end.arrive();
        let view = View::load(&home, owner, &[old, lost, new]).await;
        assert_eq!(view.forward.rows.len(), 1, "{late:?}");
        assert!(view.has(new));
    }
}

/// The reign that was in doubt ends, and the next one loads: the same holds.
pub async fn a_later_reign_decides_too(back_end: &mut impl LateBackEnd) {
    for (late, owner) in &three() {
        let first = begin(back_end, &[owner]).await;
        let mut places = Vec::new();
        let mut may = May::Never;
        for step in 0..3 {
            let (position, mut writes) = message(&first, owner);
            places.push(position);
            writes.push(contact(owner, &jid("carol@example.org"), step + 1));
            match step {
                0 => first.commit(writes).await.unwrap(),
                1 => first.pass(MONTH).await,
                _ => {
                    writes.push(Write::RosterRemove(owner.clone(), jid("carol@example.org"), 9));
                    may = give_up(back_end, &first, *late, writes).await;
                }
            }
        }
        let second = open_at(back_end, &TestTime::at(2_000)).await;
        let view = View::load(&second, owner, &places).await;
        assert!(view.has(places[0]) && !view.has(places[1]));
        may.assert(view.has(places[2]));
        back_end.arrive();
        view.assert_kept(&second, owner, &places).await;
        let (position, writes) = message(&second, owner);
        places.push(position);
        second.commit(writes).await.unwrap();
        back_end.arrive();
        let end = View::load(&second, owner, &places).await;
        assert_eq!(end.forward.rows.len(), view.forward.rows.len() + 1, "{late:?}");
        assert_eq!(end.doc(), position.0.to_string().as_bytes());
        let third = open_at(back_end, &TestTime::at(2_000)).await;
        back_end.arrive();
        end.assert_kept(&third, owner, &places).await;
    }
}

/// The next reign removes the account and makes it again.
pub async fn a_later_reign_makes_the_account_again(back_end: &mut impl LateBackEnd) {
    for (late, owner) in &three() {
        let first = begin(back_end, &[owner]).await;
        let (old, writes) = message(&first, owner);
        give_up(back_end, &first, *late, writes).await;
        let second = open_at(back_end, &TestTime::at(2_000)).await;
        second.load(owner).await.unwrap().unwrap();
        second.commit(vec![Write::DeleteAccount(owner.clone())]).await.unwrap();
        second.create_account(owner, account(2, "again")).await.unwrap();
        back_end.arrive();
        let view = View::load(&second, owner, &[old]).await;
        assert!(view.forward.rows.is_empty() && view.doc().is_empty(), "{late:?}");
        let (new, writes) = message(&second, owner);
        second.commit(writes).await.unwrap();
        back_end.arrive();
        let view = View::load(&second, owner, &[old, new]).await;
        assert!(view.forward.rows.len() == 1 && view.has(new), "{late:?}");
    }
}

/// Doubt is by account.
pub async fn an_account_in_doubt_leaves_others_alone(back_end: &mut impl LateBackEnd) {
    let (alice, carol) = (jid("alice@example.org"), jid("carol@example.org"));
    let home = begin(back_end, &[&alice, &carol]).await;
    let (lost, writes) = message(&home, &alice);
    give_up(back_end, &home, Late::Nowhere, writes).await;
    let mut places = Vec::new();
    for _ in 0..5 {
        let (position, writes) = message(&home, &carol);
        home.commit(writes).await.unwrap();
        places.push(position);
    }
    assert_eq!(View::load(&home, &carol, &places).await.by_position.len(), 5);
    let doubtful = home.commit(message(&home, &alice).1).await;
    assert!(matches!(doubtful, Err(StoreError::Unavailable(_))), "another account's load says nothing");
    home.load(&alice).await.unwrap().unwrap();
    let (position, writes) = message(&home, &alice);
    home.commit(writes).await.unwrap();
    back_end.arrive();
    let view = View::load(&home, &alice, &[lost, position]).await;
    assert!(view.has(position) && !view.has(lost));
}

/// It gets another home, in another process or in this one, while nobody knows yet what became of a commit: what the new
/// home finds is what stays, whatever the old one believes in the end.
pub async fn a_shard_moves_while_a_commit_is_in_doubt(back_end: &mut impl LateBackEnd) {
    let time = TestTime::at(2_000);
    for ((late, owner), elsewhere) in three().iter().flat_map(|of| [(of, true), (of, false)]) {
        let name = format!("{}{elsewhere}@example.org", owner.local().unwrap());
        let owner = &jid(&name);
        let store = back_end.open(time.now(), Retention::default()).await;
        let first = Home::of_shard(&store, 5);
        first.create_account(owner, account(1, "p")).await.unwrap();
        let mut places = Vec::new();
        for version in 1..=3 {
            let (position, mut writes) = message(&first, owner);
            places.push(position);
            writes.push(contact(owner, &jid("carol@example.org"), version));
            first.commit(writes).await.unwrap();
        }
        back_end.hold(*late);
        let (doubtful, mut writes) = message(&first, owner);
        places.push(doubtful);
        writes.push(contact(owner, &jid("carol@example.org"), 4));
        writes.push(Write::RosterRemove(owner.clone(), jid("carol@example.org"), 5));
        let mut under_way = pin!(first.commit(writes).fuse());
        // Some way of it; in this process the next load waits for its end.
        let mut outcome = (&mut under_way).now_or_never();
        if !elsewhere && outcome.is_none() {
            outcome = Some((&mut under_way).await);
        }
        assert!(matches!(outcome, None | Some(Err(StoreError::Unavailable(_)))), "{late:?}: {outcome:?}");
        back_end.let_through();
        let next = if elsewhere {
            back_end.open(time.now(), Retention::default()).await
        } else {
            let accounts = owner.clone();
            store.leave(5, Arc::new(move |account| *account == accounts));
            Arc::clone(&store)
        };
        let second = first.followed_by(&next, 8);
        let view = View::load(&second, owner, &places).await;
        assert!(places[..3].iter().all(|position| view.has(*position)), "{late:?}: what was confirmed");
        back_end.arrive();
        view.assert_kept(&second, owner, &places).await;
        if outcome.is_none() {
            drop(under_way.await); // whatever it says: its lease is over
        }
        // It does not know that it was followed.
        drop(first.commit(message(&first, owner).1).await);
        let behind = first.load(owner).await;
        assert!(matches!(behind, Err(StoreError::Fenced)), "{late:?}: {behind:?}");
        back_end.arrive();
        view.assert_kept(&second, owner, &places).await;
        let (position, mut writes) = message(&second, owner);
        places.push(position);
        writes.push(contact(owner, &jid("carol@example.org"), 9));
        second.commit(writes).await.unwrap();
        back_end.arrive();
        let end = View::load(&second, owner, &places).await;
        assert_eq!(end.forward.rows.len(), view.forward.rows.len() + 1, "{late:?}");
        assert_eq!(end.doc(), position.0.to_string().as_bytes());
        // And back again.
        let third = second.followed_by(&store, 9);
        end.assert_kept(&third, owner, &places).await;
        back_end.arrive();
        end.assert_kept(&third, owner, &places).await;
    }
}
