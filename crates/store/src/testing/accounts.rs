//! Accounts, rosters, documents, cursors, secrets and reigns.

use super::{BackEnd, Home, account, append, append_all, at, jid, keys, open, positions, row, with_accounts};
use crate::StoreError;
use crate::log::{Cursor, LogFilter, Page, Position};
use crate::roster::{RosterItem, Subscription};
use crate::rows::{AccountState, DocKind, Write};
use bytes::Bytes;
use starling_xmpp::{BareJid, Timestamp};

async fn load(store: &Home, jid: &BareJid) -> AccountState {
    store.load(jid).await.unwrap().unwrap()
}

fn contact(jid: &BareJid, version: u64) -> RosterItem {
    RosterItem { visible: true, version, ..RosterItem::new(jid.clone()) }
}

/// Create, look up, create again.
pub async fn an_account_is_created_once(back_end: &mut impl BackEnd) {
    let store = open(back_end).await;
    let alice = jid("alice@example.org");
    assert!(store.account(&alice).await.unwrap().is_none());
    assert!(store.load(&alice).await.unwrap().is_none());
    store.create_account(&alice, account(77, "one")).await.unwrap();
    let again = store.create_account(&alice, account(78, "two")).await;
    assert!(matches!(again, Err(StoreError::Exists)), "a second creation is refused");
    let row = store.account(&alice).await.unwrap().unwrap();
    assert_eq!((row.generation, row.created, row.disabled), (77, Timestamp::from_secs(1_000), false));
    assert!(row.credentials.verify_plain("one") && !row.credentials.verify_plain("two"));
    let state = load(&store, &alice).await;
    assert_eq!(state.row.generation, 77);
    assert_eq!((state.last, state.cursor), (Position(0), Cursor::default()));
    assert!(state.roster.items.is_empty() && state.roster.version == 0 && state.docs.is_empty());
}

/// Listing: by domain, in order, in pages.
pub async fn accounts_are_listed_by_domain_in_order(back_end: &mut impl BackEnd) {
    let store = open(back_end).await;
    for name in ["b@x.org", "a.b@x.org", "a@x.org", "c@x.org", "a@x.or", "a@x.org.uk", "z@w.org"] {
        store.create_account(&jid(name), account(1, "p")).await.unwrap();
    }
    let all = store.accounts("x.org", None, 100).await.unwrap();
    assert_eq!(all, [jid("a@x.org"), jid("a.b@x.org"), jid("b@x.org"), jid("c@x.org")]);
    let two = store.accounts("x.org", None, 2).await.unwrap();
    assert_eq!(two, all[..2]);
    assert_eq!(store.accounts("x.org", two.last().cloned(), 2).await.unwrap(), all[2..]);
    assert_eq!(
        store.accounts("x.org", Some(jid("aa@x.org")), 9).await.unwrap(),
        all[2..],
        "it need not exist"
    );
    assert!(store.accounts("x.org", all.last().cloned(), 2).await.unwrap().is_empty());
    assert!(store.accounts("nowhere", None, 2).await.unwrap().is_empty());
    store.commit(vec![Write::DeleteAccount(jid("b@x.org"))]).await.unwrap();
    assert_eq!(store.accounts("x.org", None, 9).await.unwrap().len(), 3);
}

/// A password change.
pub async fn keys_are_replaced(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    store.commit(vec![Write::Credentials(alice.clone(), Box::new(keys("new")))]).await.unwrap();
    let row = store.account(&alice).await.unwrap().unwrap();
    assert!(row.credentials.verify_plain("new") && !row.credentials.verify_plain("secret"));
    assert_eq!(row.generation, 1);
}

/// The flag is kept, over a password change too.
pub async fn a_disabled_account_stays_disabled(back_end: &mut impl BackEnd) {
    let store = open(back_end).await;
    let alice = jid("alice@example.org");
    let row = crate::AccountRow { disabled: true, ..account(1, "secret") };
    store.create_account(&alice, row).await.unwrap();
    store.commit(vec![Write::Credentials(alice.clone(), Box::new(keys("new")))]).await.unwrap();
    assert!(store.account(&alice).await.unwrap().unwrap().disabled);
}

async fn fill(store: &Home, owner: &BareJid) {
    let bob = jid("bob@example.org");
    let mut ends = row(owner, at(1_002), &bob);
    ends.expires = Some(Timestamp::from_secs(9_000));
    store
        .commit(vec![
            Write::RosterItem(owner.clone(), Box::new(contact(&bob, 1))),
            Write::RosterRemove(owner.clone(), jid("carol@example.org"), 2),
            Write::Doc(owner.clone(), DocKind::BlockList, Bytes::from_static(b"list")),
            append(row(owner, at(1_001), &bob)),
            append(ends),
            Write::Cursor(owner.clone(), Cursor { through: at(1_001), above: vec![] }),
        ])
        .await
        .unwrap();
}

async fn assert_empty(store: &Home, owner: &BareJid) {
    let state = load(store, owner).await;
    assert!(state.roster.items.is_empty() && state.roster.removed.is_empty() && state.docs.is_empty());
    assert_eq!((state.roster.version, state.roster.removed_since), (0, 0));
    assert_eq!((state.last, state.cursor), (Position(0), Cursor::default()));
    assert!(positions(store, owner, LogFilter::default()).await.is_empty());
    let with = LogFilter { with: Some(jid("bob@example.org")), ..LogFilter::default() };
    assert!(positions(store, owner, with).await.is_empty());
    assert!(store.log_rows(owner, vec![at(1_001), at(1_002)]).await.unwrap().is_empty());
}

/// Nothing of a removed account can be read, and its neighbours keep theirs.
pub async fn a_deleted_account_leaves_nothing(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    let store = with_accounts(back_end, &[&alice, &bob]).await;
    fill(&store, &alice).await;
    fill(&store, &bob).await;
    store.commit(vec![Write::DeleteAccount(alice.clone())]).await.unwrap();
    assert!(store.account(&alice).await.unwrap().is_none());
    assert!(store.load(&alice).await.unwrap().is_none());
    let page = store.log_page(&alice, LogFilter::default(), Page::Last(10)).await.unwrap();
    assert!(page.rows.is_empty() && page.complete);
    assert!(store.log_rows(&alice, vec![at(1_001)]).await.unwrap().is_empty());
    assert_eq!(positions(&store, &bob, LogFilter::default()).await, [at(1_001), at(1_002)]);
    assert_eq!(load(&store, &bob).await.docs.len(), 1);
}

/// Neither at once nor after reopening.
pub async fn a_recreated_account_sees_nothing_of_the_old_one(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    {
        let store = with_accounts(back_end, &[&alice]).await;
        fill(&store, &alice).await;
        store.commit(vec![Write::DeleteAccount(alice.clone())]).await.unwrap();
        store.create_account(&alice, account(2, "again")).await.unwrap();
        assert_empty(&store, &alice).await;
        fill(&store, &alice).await;
        assert_eq!(positions(&store, &alice, LogFilter::default()).await.len(), 2);
        store.commit(vec![Write::DeleteAccount(alice.clone())]).await.unwrap();
        store.create_account(&alice, account(3, "again")).await.unwrap();
    }
    let store = open(back_end).await;
    assert_empty(&store, &alice).await;
}

/// Late writes to an account that is gone, or never was, leave nothing.
pub async fn writes_without_an_account_are_ignored(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[]).await;
    fill(&store, &alice).await;
    store.commit(vec![Write::Credentials(alice.clone(), Box::new(keys("new")))]).await.unwrap();
    store.commit(vec![Write::DeleteAccount(alice.clone())]).await.unwrap();
    assert!(store.account(&alice).await.unwrap().is_none());
    store.create_account(&alice, account(1, "p")).await.unwrap();
    assert_empty(&store, &alice).await;
}

/// More rows than any back end removes in one go.
pub async fn a_large_account_is_deleted_whole(back_end: &mut impl BackEnd) {
    let (alice, bob) = (jid("alice@example.org"), jid("bob@example.org"));
    {
        let store = with_accounts(back_end, &[&alice, &bob]).await;
        append_all(&store, (1..=6_000).map(|n| row(&alice, at(n), &bob))).await;
        fill(&store, &bob).await;
        store.commit(vec![Write::DeleteAccount(alice.clone())]).await.unwrap();
        store.create_account(&alice, account(9, "p")).await.unwrap();
        assert_empty(&store, &alice).await;
        store.commit(vec![append(row(&alice, at(500), &bob))]).await.unwrap();
    }
    let store = open(back_end).await;
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, [at(500)]);
    assert_eq!(positions(&store, &bob, LogFilter::default()).await.len(), 2);
}

/// Every field of an item, hidden ones too.
pub async fn rosters_keep_every_field(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    let full = RosterItem {
        jid: jid("bob@example.org"),
        name: Some("Böb".into()),
        groups: vec!["Friends".into(), "Work".into()],
        subscription: Subscription::Both,
        ask: true,
        approved: true,
        pending_in: Some(Bytes::from_static(b"<presence/>")),
        visible: true,
        version: 4,
    };
    let hidden = RosterItem {
        pending_in: Some(Bytes::new()),
        version: 4,
        ..RosterItem::new(jid("gateway.example.org"))
    };
    let put = |item: &RosterItem| Write::RosterItem(alice.clone(), Box::new(item.clone()));
    store.commit(vec![put(&full), put(&hidden)]).await.unwrap();
    let roster = load(&store, &alice).await.roster;
    assert_eq!(roster.version, 4);
    assert_eq!(roster.items.get(&full.jid), Some(&full));
    assert_eq!(roster.items.get(&hidden.jid), Some(&hidden));
    for (n, subscription) in
        [Subscription::None, Subscription::To, Subscription::From].into_iter().enumerate()
    {
        let item =
            RosterItem { subscription, name: None, groups: vec![], version: 5 + n as u64, ..full.clone() };
        store.commit(vec![put(&item)]).await.unwrap();
        let roster = load(&store, &alice).await.roster;
        assert_eq!((roster.items.get(&full.jid), roster.version), (Some(&item), item.version));
    }
}

/// Removal marks, their bound, and a contact that comes back.
pub async fn removals_are_remembered_up_to_a_bound(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    {
        let store = with_accounts(back_end, &[&alice]).await;
        let bob = jid("bob@example.org");
        store.commit(vec![Write::RosterItem(alice.clone(), Box::new(contact(&bob, 1)))]).await.unwrap();
        store.commit(vec![Write::RosterRemove(alice.clone(), bob.clone(), 2)]).await.unwrap();
        let roster = load(&store, &alice).await.roster;
        assert!(roster.items.is_empty());
        assert_eq!((roster.removed.get(&bob), roster.version, roster.removed_since), (Some(&2), 2, 0));
        store.commit(vec![Write::RosterItem(alice.clone(), Box::new(contact(&bob, 3)))]).await.unwrap();
        let roster = load(&store, &alice).await.roster;
        assert!(roster.removed.is_empty() && roster.items.contains_key(&bob));
        for n in 0..Write::MAX_REMOVED as u64 + 10 {
            let who = jid(&format!("contact{n}@example.org"));
            store.commit(vec![Write::RosterRemove(alice.clone(), who, 4 + n)]).await.unwrap();
        }
    }
    let store = open(back_end).await;
    let roster = load(&store, &alice).await.roster;
    assert_eq!(roster.removed.len(), Write::MAX_REMOVED);
    assert_eq!(roster.removed_since, 13, "the tenth removal was the last to be forgotten");
    assert_eq!(roster.removed.values().min(), Some(&14));
    assert_eq!(roster.version, 3 + Write::MAX_REMOVED as u64 + 10);
}

/// Documents by kind; an empty one is none.
pub async fn documents_are_replaced_and_removed(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    let put = |kind, body: &'static [u8]| vec![Write::Doc(alice.clone(), kind, Bytes::from_static(body))];
    for kind in DocKind::ALL {
        store.commit(put(kind, kind.as_str().as_bytes())).await.unwrap();
    }
    let docs = load(&store, &alice).await.docs;
    assert_eq!(docs.len(), DocKind::ALL.len());
    assert!(docs.iter().all(|(kind, body)| kind.as_str().as_bytes() == body));
    store.commit(put(DocKind::BlockList, b"new")).await.unwrap();
    assert_eq!(load(&store, &alice).await.docs[&DocKind::BlockList], "new");
    store.commit(put(DocKind::BlockList, b"")).await.unwrap();
    let docs = load(&store, &alice).await.docs;
    assert!(!docs.contains_key(&DocKind::BlockList) && docs.len() == DocKind::ALL.len() - 1);
}

/// Written whole, read whole; it may go back.
pub async fn the_cursor_is_what_was_written_last(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    let store = with_accounts(back_end, &[&alice]).await;
    for cursor in [
        Cursor { through: Position(u64::MAX - 1), above: vec![Position(u64::MAX)..=Position(u64::MAX)] },
        Cursor { through: at(5), above: (6..200).map(|n| at(n)..=at(n)).collect() },
        Cursor { through: at(5), above: (1..200).map(|n| at(n * 100)..=at(n * 100 + 50)).collect() },
        Cursor { through: at(5), above: vec![] },
        Cursor::default(),
    ] {
        store.commit(vec![Write::Cursor(alice.clone(), cursor.clone())]).await.unwrap();
        assert_eq!(load(&store, &alice).await.cursor, cursor);
    }
}

/// One per name, the same ever after.
pub async fn secrets_are_made_once(back_end: &mut impl BackEnd) {
    let (one, other) = {
        let store = open(back_end).await;
        let one = store.secret("one").await.unwrap();
        (one, store.secret("other").await.unwrap())
    };
    assert!(one != other && one != [0; 32]);
    let store = open(back_end).await;
    assert_eq!(store.secret("one").await.unwrap(), one);
    assert_eq!(store.secret("other").await.unwrap(), other);
}

/// What was acknowledged is there after the store was dropped.
pub async fn everything_survives_reopening(back_end: &mut impl BackEnd) {
    let alice = jid("alice@example.org");
    {
        let store = with_accounts(back_end, &[&alice]).await;
        fill(&store, &alice).await;
    }
    let store = open(back_end).await;
    let state = load(&store, &alice).await;
    assert_eq!((state.roster.items.len(), state.roster.removed.len(), state.roster.version), (1, 1, 2));
    assert_eq!(state.docs[&DocKind::BlockList], "list");
    assert_eq!((state.cursor.through, state.last), (at(1_001), at(1_002)));
    assert!(state.row.credentials.verify_plain("secret"));
    assert_eq!(positions(&store, &alice, LogFilter::default()).await, [at(1_001), at(1_002)]);
    let waiting = LogFilter { offline: true, ..LogFilter::default() };
    assert_eq!(positions(&store, &alice, waiting).await, [at(1_002)]);
}
