//! What order commits take effect in.

use super::{BackEnd, account, append, at, jid, positions, row, with_accounts};
use crate::log::{Cursor, LogFilter, LogRow};
use crate::roster::RosterItem;
use crate::rows::{DocKind, Write};
use bytes::Bytes;
use futures::future::join_all;

/// A hundred commits under way at once to the same places: the last call wins everywhere.
pub async fn commits_of_one_account_take_effect_in_order(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    let commits: Vec<_> = (1..=100_u64)
        .map(|n| {
            store.commit(vec![
                Write::Doc(alice.clone(), DocKind::BlockList, Bytes::from(n.to_string())),
                Write::Cursor(alice.clone(), Cursor { through: at(n), above: vec![] }),
                Write::RosterItem(
                    alice.clone(),
                    Box::new(RosterItem {
                        version: n,
                        name: Some(n.to_string().into()),
                        ..RosterItem::new(bob.clone())
                    }),
                ),
                append(LogRow { stanza: Bytes::from(n.to_string()), ..row(&alice, at(1), &bob) }),
            ])
        })
        .collect();
    for commit in join_all(commits).await {
        commit.unwrap();
    }
    let state = store.load(&alice).await.unwrap().unwrap();
    assert_eq!(state.docs[&DocKind::BlockList], "100");
    assert_eq!(state.cursor.through, at(100));
    assert_eq!(state.roster.items[&bob].name.as_deref(), Some("100"));
    assert_eq!(store.log_rows(&alice, vec![at(1)]).await.unwrap()[0].stanza, "100");
}

/// Removing, making and writing under way at once.
pub async fn creation_and_removal_are_in_order_with_commits(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    let write = |n| vec![append(row(&alice, at(n), &bob))];
    let before = store.commit(write(1));
    let removed = store.commit(vec![Write::DeleteAccount(alice.clone())]);
    let between = store.commit(write(2));
    let created = store.create_account(&alice, account(9, "new"));
    let refused = store.create_account(&alice, account(10, "newer"));
    let after = store.commit(write(3));
    assert!(refused.await.is_err());
    for done in [after, created, between, removed, before] {
        done.await.unwrap();
    }
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, [at(3)]);
    assert_eq!(store.account(&alice).await.unwrap().unwrap().generation, 9);
}

/// A commit begins with the call; dropping its future does not take it back.
pub async fn unpolled_commits_take_effect(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    drop(store.commit(vec![append(row(&alice, at(1), &bob))]));
    store.commit(vec![append(row(&alice, at(2), &bob))]).await.unwrap();
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, [at(1), at(2)]);
}

/// A load sees what was under way when it was called, and nothing of that comes later.
pub async fn a_load_waits_for_the_commits_before_it(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    for round in 1..=10_u64 {
        let commits: Vec<_> = (0..20)
            .map(|n| {
                store.commit(vec![
                    append(row(&alice, at(round * 20 + n), &bob)),
                    Write::Doc(alice.clone(), DocKind::BlockList, Bytes::from(n.to_string())),
                ])
            })
            .collect();
        let state = store.load(&alice).await.unwrap().unwrap();
        assert_eq!(state.last, at(round * 20 + 19));
        assert_eq!(state.docs[&DocKind::BlockList], "19");
        for commit in commits {
            commit.await.unwrap();
        }
    }
}

/// Bulk import writes many accounts in one batch.
pub async fn a_batch_may_touch_many_accounts(back_end: &mut impl BackEnd) {
    let owners: Vec<_> = (0..50).map(|n| jid(&format!("user{n}@example.org"))).collect();
    let store = with_accounts(back_end, &owners.iter().collect::<Vec<_>>()).await;
    let batch = owners.iter().map(|owner| append(row(owner, at(1), &owners[0]))).collect();
    store.commit(batch).await.unwrap();
    store.commit(Vec::new()).await.unwrap();
    for owner in &owners {
        assert_eq!(positions(&store, owner, LogFilter::default()).await, [at(1)]);
    }
}

/// The later of two writes to the same place in one batch holds, with no trace of the first.
pub async fn a_batch_may_write_a_row_twice(back_end: &mut impl BackEnd) {
    let (alice, bob, carol) = (jid("alice@example.org"), jid("bob@example.org"), jid("carol@example.org"));
    let store = with_accounts(back_end, &[&alice]).await;
    let second = LogRow { archived: false, ..row(&alice, at(1), &carol) };
    store.commit(vec![append(row(&alice, at(1), &bob)), append(second.clone())]).await.unwrap();
    let with = |peer| LogFilter { with: Some(peer), ..LogFilter::default() };
    assert!(positions(&store, &alice, with(bob)).await.is_empty());
    assert_eq!(positions(&store, &alice, with(carol)).await, [at(1)]);
    assert_eq!(store.log_rows(&alice, vec![at(1)]).await.unwrap(), [second]);
    let archive = LogFilter { archived: true, ..LogFilter::default() };
    assert!(positions(&store, &alice, archive).await.is_empty());
}
