//! Reigns that the store does not give: those of a cluster's shards, several in one store at the same time.

use super::{BackEnd, Home, SharedBackEnd, TestTime, account, all, append, jid, positions, reign, row, with};
use crate::log::{Cursor, Position};
use crate::roster::RosterItem;
use crate::rows::{AccountState, DocKind, Write};
use crate::{Result, Retention, SharedStore, StoreError};
use bytes::Bytes;
use starling_xmpp::BareJid;
use std::sync::Arc;

/// Epochs as a cluster makes them: of the second era, and a place in a shard's own log.
const ERA: u64 = 2 << 40;

async fn process(back_end: &mut impl BackEnd) -> SharedStore {
    back_end.open(TestTime::at(2_000).now(), Retention::default()).await
}

/// What a case knows of one account, and has written to it.
struct Told {
    owner: BareJid,
    rows: Vec<Position>,
    version: u64,
}

impl Told {
    fn new(owner: &str) -> Self {
        Self { owner: jid(owner), rows: Vec::new(), version: 0 }
    }

    async fn create(&self, home: &Home, generation: u64) {
        home.create_account(&self.owner, account(generation, "p")).await.unwrap();
    }

    /// A row, and all lists that name it.
    fn writes(&self, position: Position, version: u64) -> Vec<Write> {
        let owner = &self.owner;
        let item = RosterItem { version, ..RosterItem::new(jid("bob@example.org")) };
        vec![
            append(row(owner, position, &jid("bob@example.org"))),
            Write::Doc(owner.clone(), DocKind::BlockList, Bytes::from(position.0.to_string())),
            Write::RosterItem(owner.clone(), Box::new(item)),
            Write::Cursor(owner.clone(), Cursor { through: position, above: vec![] }),
        ]
    }

    async fn write(&mut self, home: &Home) {
        let position = home.position();
        self.version += 1;
        home.commit(self.writes(position, self.version)).await.unwrap();
        self.rows.push(position);
    }

    /// What a reign that is over still writes; whatever becomes of it.
    async fn late(&self, home: &Home) {
        drop(home.commit(self.writes(home.position(), 1_000)).await);
        let removal = Write::RosterRemove(self.owner.clone(), jid("bob@example.org"), 1_001);
        drop(home.commit(vec![removal]).await);
        drop(home.commit(vec![Write::Doc(self.owner.clone(), DocKind::BlockList, Bytes::new())]).await);
    }

    /// All of it is there, and nothing else, in whichever way it is read.
    async fn assert(&self, home: &Home) {
        for _ in 0..2 {
            let state = home.load(&self.owner).await.unwrap().unwrap();
            self.assert_state(&state);
            assert_eq!(positions(home, &self.owner, all()).await, self.rows);
            assert_eq!(positions(home, &self.owner, with(&jid("bob@example.org"))).await, self.rows);
            let rows = home.log_rows(&self.owner, self.rows.clone()).await.unwrap();
            assert_eq!(rows.len(), self.rows.len());
        }
    }

    fn assert_state(&self, state: &AccountState) {
        let last = self.rows.last().copied().unwrap_or_default();
        let doc = self.rows.last().map(|last| Bytes::from(last.0.to_string()));
        assert_eq!((state.last, state.cursor.through), (last, last));
        assert_eq!(state.docs.get(&DocKind::BlockList), doc.as_ref());
        assert_eq!((state.roster.version, state.roster.removed.len()), (self.version, 0));
        assert_eq!(state.roster.items.len(), usize::from(self.version > 0));
    }
}

/// The accounts of one shard, for a store that is to forget them.
fn only(owner: &BareJid) -> crate::Accounts {
    let owner = owner.clone();
    Arc::new(move |account| *account == owner)
}

fn assert_fenced<T>(outcome: &Result<T>) {
    assert!(matches!(outcome, Err(StoreError::Fenced)), "its reign is over");
}

/// Each over accounts of its own, at the same time, in one store: epochs of one say nothing to those of the other, and one that
/// ends leaves the other alone.
pub async fn reigns_of_shards_go_on_side_by_side(back_end: &mut impl BackEnd) {
    let store = process(back_end).await;
    let (mut alice, mut carol) = (Told::new("alice@example.org"), Told::new("carol@example.org"));
    let (mut first, second) = (Home::of_shard(&store, ERA + 9), Home::of_shard(&store, ERA + 3));
    alice.create(&first, 1).await;
    carol.create(&second, 2).await;
    for epoch in 10..14 {
        for _ in 0..3 {
            alice.write(&first).await;
            carol.write(&second).await;
        }
        alice.assert(&first).await;
        carol.assert(&second).await;
        // The next reign over the first shard: in this process, as before.
        store.leave(first.epoch(), only(&alice.owner));
        first = first.followed_by(&store, ERA + epoch);
        carol.write(&second).await;
        alice.assert(&first).await;
        carol.write(&second).await;
    }
    carol.assert(&second).await;
    alice.write(&first).await;
    alice.assert(&first).await;
    drop((first, second, store));
    let store = process(back_end).await;
    alice.assert(&Home::of_shard(&store, ERA + 20)).await;
    carol.assert(&Home::of_shard(&store, ERA + 4)).await;
}

/// Through three processes, one of them twice, while another shard stays where it is. Reigns that are over go on writing, and
/// nobody sees it.
pub async fn a_shard_moves_and_comes_back(back_end: &mut impl SharedBackEnd) {
    let stores = [process(back_end).await, process(back_end).await, process(back_end).await];
    let (mut alice, mut carol) = (Told::new("alice@example.org"), Told::new("carol@example.org"));
    let stays = Home::of_shard(&stores[0], ERA + 100);
    carol.create(&stays, 2).await;
    let mut over: Vec<Home> = Vec::new();
    let mut home = Home::of_shard(&stores[0], ERA + 5);
    alice.create(&home, 1).await;
    for step in 0..8_u64 {
        alice.write(&home).await;
        carol.write(&stays).await;
        alice.assert(&home).await;
        for late in &over {
            alice.late(late).await;
            assert_fenced(&late.load(&alice.owner).await);
        }
        alice.assert(&home).await;
        alice.write(&home).await;
        let next = home.followed_by(&stores[(step as usize + 1) % 3], ERA + 7 + step);
        over.push(std::mem::replace(&mut home, next));
        if step % 2 == 0 {
            home.load(&alice.owner).await.unwrap().unwrap();
            alice.late(&over[over.len() - 1]).await;
            stores[step as usize % 3].leave(ERA + 6 + step, only(&alice.owner));
        }
        alice.assert(&home).await;
    }
    carol.assert(&stays).await;
}

/// What a reign knew of an account is not gone by when a later one of the same process has loaded it: a commit that comes late
/// is refused, not written under the later one.
pub async fn a_commit_is_of_the_reign_that_decided_it(back_end: &mut impl SharedBackEnd) {
    let store = process(back_end).await;
    let mut alice = Told::new("alice@example.org");
    let first = Home::of_shard(&store, ERA + 1);
    alice.create(&first, 1).await;
    alice.write(&first).await;
    let second = first.followed_by(&store, ERA + 2);
    alice.assert(&second).await;
    // Even with a position that would do.
    let position = second.position();
    let writes = alice.writes(position, 9);
    let late = store.commit(crate::Batch::under(first.epoch(), second.position(), writes)).await;
    assert_fenced(&late);
    assert_fenced(&first.load(&alice.owner).await);
    alice.write(&second).await;
    alice.assert(&second).await;
}

/// Removed under one reign and made again under another, more than once, while those before still write to it.
pub async fn an_account_is_made_again_across_reigns(back_end: &mut impl SharedBackEnd) {
    let stores = [process(back_end).await, process(back_end).await];
    let mut alice = Told::new("alice@example.org");
    let mut over: Vec<Home> = Vec::new();
    let mut home = Home::of_shard(&stores[0], ERA + 1);
    for generation in 1..=6_u64 {
        (alice.rows, alice.version) = (Vec::new(), 0);
        alice.create(&home, generation).await;
        let again = home.create_account(&alice.owner, account(99, "p")).await;
        assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
        for late in &over {
            alice.late(late).await;
        }
        alice.assert(&home).await;
        alice.write(&home).await;
        let listed = home.accounts("example.org", None, 10).await.unwrap();
        assert_eq!(listed, [alice.owner.clone()]);
        // The reign changes before the removal, or between it and the new creation.
        let next = home.followed_by(&stores[generation as usize % 2], ERA + 1 + generation);
        if generation % 3 != 0 {
            over.push(std::mem::replace(&mut home, next.clone()));
            alice.assert(&home).await;
        }
        home.commit(vec![Write::DeleteAccount(alice.owner.clone())]).await.unwrap();
        for late in &over {
            alice.late(late).await;
        }
        if generation % 3 == 0 {
            over.push(std::mem::replace(&mut home, next));
        }
        assert!(home.load(&alice.owner).await.unwrap().is_none());
        assert!(home.accounts("example.org", None, 10).await.unwrap().is_empty());
    }
    alice.create(&home, 7).await;
    (alice.rows, alice.version) = (Vec::new(), 0);
    for late in &over {
        alice.late(late).await;
    }
    alice.assert(&home).await;
    assert_eq!(home.account(&alice.owner).await.unwrap().unwrap().generation, 7);
    // And without a home: by whoever leads the shard.
    let other = jid("dave@example.org");
    stores[0].create_account(&other, account(8, "p"), reign(home.epoch())).await.unwrap();
    assert_eq!(home.accounts("example.org", None, 10).await.unwrap(), [alice.owner, other]);
}
