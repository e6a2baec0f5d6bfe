//! Several processes on the same data: who reigns, and what is left of whoever reigned before.

use super::{BackEnd, Home, SharedBackEnd, TestTime, account, all, append, claim, jid, positions, row, with};
use crate::log::{Cursor, LogRow, Page, Position};
use crate::roster::RosterItem;
use crate::rows::{AccountState, DocKind, Write};
use crate::{Claim, LEASE, Result, Retention, SharedStore, StoreError};
use bytes::Bytes;
use futures::future::{Either, join_all, select};
use starling_xmpp::BareJid;
use std::pin::pin;
use std::time::Duration;

async fn process(back_end: &mut impl BackEnd, time: &TestTime) -> SharedStore {
    back_end.open(time.now(), Retention::default()).await
}

/// Lets time pass for the store and for the case.
async fn pass(back_end: &mut impl SharedBackEnd, time: &TestTime, step: Duration) {
    time.pass(step);
    back_end.pass(step).await;
}

/// Another instance cannot take over from one that is granted positions all the time, and is told who that is.
pub async fn a_reign_is_held_while_it_is_granted(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let first = Home::open(process(back_end, &time).await).await;
    let second = process(back_end, &time).await;
    let mut claimed = second.open_reign(claim(2));
    let mut end = None;
    for _ in 0..LEASE.as_secs() * 3 {
        match select(claimed, pin!(pass(back_end, &time, Duration::from_secs(1)))).await {
            Either::Left((answer, _)) => {
                end = Some(answer);
                break;
            }
            Either::Right(((), still)) => claimed = still,
        }
        first.pass(Duration::from_secs(1)).await;
    }
    match end.expect("an answer in time") {
        Err(StoreError::Held(name)) => assert_eq!(name, claim(1).name),
        other => panic!("{other:?}"),
    }
    first.pass(Duration::from_secs(1)).await;
    let again = first.open_reign(claim(1)).await.unwrap();
    assert!(again.epoch > first.epoch(), "the instance itself need not wait for its own reign");
}

/// One that is not heard of any more is replaced, once its lease has run out and not before.
pub async fn a_silent_reign_is_taken_over(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let first = Home::open(process(back_end, &time).await).await;
    let highest = first.position();
    let second = process(back_end, &time).await;
    let began = back_end.elapsed();
    let mut passed = Duration::ZERO;
    let taken = loop {
        let mut claimed = second.open_reign(claim(2));
        let answer = loop {
            match select(claimed, pin!(pass(back_end, &time, Duration::from_secs(1)))).await {
                Either::Left((answer, _)) => break answer,
                Either::Right(((), still)) => claimed = still,
            }
            passed += Duration::from_secs(1);
            assert!(passed < LEASE * 4, "no answer");
        };
        match answer {
            Ok(reign) => break reign,
            // A store that does not wait by itself.
            Err(StoreError::Held(_)) => pass(back_end, &time, Duration::from_secs(1)).await,
            Err(other) => panic!("{other:?}"),
        }
        passed += Duration::from_secs(1);
        assert!(passed < LEASE * 4, "held by nobody");
    };
    let waited = began.zip(back_end.elapsed()).map_or(passed, |(began, ended)| ended - began);
    assert!(waited >= LEASE, "taken over after {waited:?}");
    assert!(taken.epoch > first.epoch() && taken.floor > highest);
    let late = first.grant(first.epoch(), Position(taken.floor.0 + 1)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    second.grant(taken.epoch, Position(taken.floor.0 + 1_000)).await.unwrap();
}

/// All processes of a cluster keep its era, each in its own time: one reign, whose ceiling is the highest that any has asked
/// for. Another cluster finds it held, and when that has taken over, each of them is told.
pub async fn several_processes_hold_one_reign(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(process(back_end, &time).await);
    }
    let era = processes[0].open_reign(Claim::of_cluster(11)).await.unwrap();
    let ceiling = |n: u64| Position(era.floor.0 + 1_000 * n);
    for round in 0..5 {
        let numbered = processes.iter().zip([3, 1, 4, 2]);
        let grants = numbered.map(|(store, n)| store.grant(era.epoch, ceiling(round * 10 + n)));
        join_all(grants).await.into_iter().collect::<Result<()>>().unwrap();
    }
    let (other, rest) = processes.split_last().unwrap();
    let mut claimed = other.open_reign(Claim::of_cluster(12));
    let mut held = None;
    for n in 0..LEASE.as_secs() as usize * 2 {
        rest[n % rest.len()].grant(era.epoch, ceiling(60)).await.unwrap();
        match select(claimed, pin!(pass(back_end, &time, Duration::from_secs(1)))).await {
            Either::Left((answer, _)) => {
                held = Some(answer);
                break;
            }
            Either::Right(((), still)) => claimed = still,
        }
    }
    assert!(matches!(held, Some(Err(StoreError::Held(_)))), "{held:?}");
    // As after the loss of all of them.
    let mut next = None;
    for _ in 0..LEASE.as_secs() * 4 {
        pass(back_end, &time, Duration::from_secs(1)).await;
        let mut claimed = other.open_reign(Claim::of_cluster(12));
        let answer = loop {
            match select(claimed, pin!(pass(back_end, &time, Duration::from_secs(1)))).await {
                Either::Left((answer, _)) => break answer,
                Either::Right(((), still)) => claimed = still,
            }
        };
        if let Ok(reign) = answer {
            next = Some(reign);
            break;
        }
    }
    let next = next.expect("nobody holds it");
    assert!(next.epoch > era.epoch && next.floor >= ceiling(60), "{next:?}");
    for store in rest {
        let late = store.grant(era.epoch, ceiling(100)).await;
        assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    }
    other.grant(next.epoch, Position(next.floor.0 + 1)).await.unwrap();
}

/// Three processes that start on an empty store agree on what is made on first use.
pub async fn secrets_are_the_same_for_all(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let stores =
        [process(back_end, &time).await, process(back_end, &time).await, process(back_end, &time).await];
    for name in ["one", "two", "three", "four"] {
        let asked = [&stores[0], &stores[1], &stores[2], &stores[0]].map(|store| store.secret(name));
        let secrets: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
        assert!(secrets.iter().all(|secret| *secret == secrets[0]), "{name}");
        assert_eq!(process(back_end, &time).await.secret(name).await.unwrap(), secrets[0]);
    }
    let [one, two] = ["one", "two"].map(|name| stores[2].secret(name));
    assert_ne!(one.await.unwrap(), two.await.unwrap());
}

fn item(contact: &BareJid, version: u64) -> Box<RosterItem> {
    Box::new(RosterItem { version, ..RosterItem::new(contact.clone()) })
}

fn doc(owner: &BareJid, body: &'static [u8]) -> Write {
    Write::Doc(owner.clone(), DocKind::BlockList, Bytes::from_static(body))
}

/// Rows, roster, documents and cursor of a reign that just ended are there for the next, its very last too.
pub async fn what_was_confirmed_is_read_by_the_next_reign(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let mut home = Home::open(process(back_end, &time).await).await;
    home.create_account(&alice, account(1, "p")).await.unwrap();
    let mut written = Vec::new();
    for version in 1..=8 {
        let mut state = home.load(&alice).await.unwrap().unwrap();
        assert_eq!(state.last, written.last().copied().unwrap_or_default());
        for _ in 0..5 {
            let new = row(&alice, home.position(), &bob);
            written.push(new.position);
            let cursor = Cursor { through: new.position, above: vec![] };
            home.commit(vec![append(new), Write::Cursor(alice.clone(), cursor)]).await.unwrap();
        }
        home.commit(vec![Write::RosterItem(alice.clone(), item(&bob, version))]).await.unwrap();
        let next = Home::open(process(back_end, &time).await).await;
        state = next.load(&alice).await.unwrap().unwrap();
        assert_eq!((state.last, state.cursor.through), (written[written.len() - 1], state.last));
        assert_eq!((state.roster.version, state.roster.items[&bob].version), (version, version));
        let tail = next.log_page(&alice, all(), Page::Last(7)).await.unwrap().rows;
        let tail: Vec<_> = tail.iter().map(|row| row.position).collect();
        assert_eq!(tail, written[written.len().saturating_sub(7)..]);
        assert_eq!(positions(&next, &alice, with(&bob)).await, written);
        home = next;
    }
}

/// Once a reign has loaded an account, nothing that an earlier one still writes there is seen by anybody.
pub async fn an_earlier_reign_leaves_nothing_behind(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let (alice, bob, carol) = (jid("alice@example.org"), jid("bob@example.org"), jid("carol@example.org"));
    let first = Home::open(process(back_end, &time).await).await;
    let (old, new) = (row(&alice, first.position(), &bob), row(&alice, first.position(), &bob));
    for owner in [&alice, &carol] {
        first.create_account(owner, account(1, "p")).await.unwrap();
        first.load(owner).await.unwrap().unwrap();
    }
    let replaced = LogRow { with: carol.clone(), archived: false, ..old.clone() };
    first.commit(vec![append(old.clone()), doc(&alice, b"first")]).await.unwrap();
    first.commit(vec![Write::RosterItem(alice.clone(), item(&bob, 1))]).await.unwrap();

    let second = Home::open(process(back_end, &time).await).await;
    assert_eq!(seen(second.load(&alice).await), (old.position, Some(Bytes::from_static(b"first")), 1));
    let late = vec![
        first.commit(vec![append(new.clone())]),
        first.commit(vec![append(replaced)]),
        first.commit(vec![doc(&alice, b"late")]),
        first.commit(vec![Write::RosterItem(alice.clone(), item(&carol, 9))]),
        first.commit(vec![Write::RosterRemove(alice.clone(), bob.clone(), 9)]),
        first.commit(vec![append(row(&alice, first.position(), &carol))]),
    ];
    for commit in late {
        drop(commit.await); // whatever it says
    }
    for _ in 0..2 {
        assert_eq!(second.log_rows(&alice, vec![old.position]).await.unwrap(), std::slice::from_ref(&old));
        assert_eq!(positions(&second, &alice, all()).await, [old.position]);
        assert_eq!(positions(&second, &alice, with(&bob)).await, [old.position]);
        assert!(positions(&second, &alice, with(&carol)).await.is_empty());
        assert_eq!(seen(second.load(&alice).await), (old.position, Some(Bytes::from_static(b"first")), 1));
    }
    let fenced = first.load(&alice).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");

    second
        .commit(vec![append(row(&alice, second.position(), &carol)), doc(&alice, b"second")])
        .await
        .unwrap();
    drop(first.commit(vec![doc(&alice, b"later still")]).await);
    assert_eq!(positions(&second, &alice, all()).await.len(), 2);
    assert_eq!(seen(second.load(&alice).await).1, Some(Bytes::from_static(b"second")));

    // Where the new reign has not looked yet, the old one may still write, until it does.
    drop(first.commit(vec![append(row(&carol, first.position(), &bob))]).await);
    second.load(&carol).await.unwrap().unwrap();
    let decided = positions(&second, &carol, all()).await;
    drop(first.commit(vec![append(row(&carol, first.position(), &bob))]).await);
    assert_eq!(positions(&second, &carol, all()).await, decided);
    assert_eq!(positions(&second, &carol, with(&bob)).await, decided);
}

/// Last row, block list, version of the roster.
fn seen(loaded: Result<Option<AccountState>>) -> (Position, Option<Bytes>, u64) {
    let state = loaded.unwrap().unwrap();
    (state.last, state.docs.get(&DocKind::BlockList).cloned(), state.roster.version)
}

/// Removed and made again under a new reign while the old one still writes to it.
pub async fn an_account_is_made_again_under_another_reign(back_end: &mut impl SharedBackEnd) {
    let time = TestTime::at(2_000);
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let first = Home::open(process(back_end, &time).await).await;
    first.create_account(&alice, account(1, "p")).await.unwrap();
    first.load(&alice).await.unwrap().unwrap();
    first.commit(vec![append(row(&alice, first.position(), &bob)), doc(&alice, b"old")]).await.unwrap();

    let second = Home::open(process(back_end, &time).await).await;
    second.load(&alice).await.unwrap().unwrap();
    second.commit(vec![Write::DeleteAccount(alice.clone())]).await.unwrap();
    let write = || first.commit(vec![append(row(&alice, first.position(), &bob)), doc(&alice, b"late")]);
    drop(write().await);
    assert!(second.load(&alice).await.unwrap().is_none());
    second.create_account(&alice, account(2, "again")).await.unwrap();
    drop(write().await);
    assert_eq!(seen(second.load(&alice).await), (Position(0), None, 0));
    assert!(positions(&second, &alice, all()).await.is_empty());
    let new = row(&alice, second.position(), &bob);
    second.commit(vec![append(new.clone())]).await.unwrap();
    drop(write().await);
    assert_eq!(positions(&second, &alice, all()).await, [new.position]);
    assert_eq!(positions(&second, &alice, with(&bob)).await, [new.position]);
    assert_eq!(seen(second.load(&alice).await), (new.position, None, 0));
    assert_eq!(second.account(&alice).await.unwrap().unwrap().generation, 2);
}
