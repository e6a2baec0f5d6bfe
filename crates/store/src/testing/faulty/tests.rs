use super::*;
use crate::Now;
use crate::memory::MemoryStore;
use crate::testing::{BackEnd, Home, Late, LateBackEnd, account, append, at, batch, jid, reign, row};

/// The memory store, opened once or more, with what can be late before it.
#[derive(Default)]
struct Doubtful {
    memory: MemoryStore,
    open: Vec<FaultyStore>,
}

impl BackEnd for Doubtful {
    async fn open(&mut self, now: Now, _: Retention) -> SharedStore {
        let store = FaultyStore::new(Arc::new(self.memory.beside(now)));
        self.open.push(store.clone());
        Arc::new(store)
    }
}

impl LateBackEnd for Doubtful {
    fn hold(&mut self, late: Late) {
        for store in &self.open {
            match late {
                Late::Nowhere | Late::Somewhere => store.late_next(usize::MAX),
                Late::Everywhere => store.doubt_next(usize::MAX),
            }
        }
    }

    fn let_through(&mut self) {
        for store in &self.open {
            store.late_next(0);
            store.doubt_next(0);
        }
    }

    fn arrive(&mut self) {
        for store in &self.open {
            store.arrive();
        }
    }
}

crate::conformance!(late: Doubtful::default());

async fn rows(store: &FaultyStore) -> usize {
    store.inner.log_page(&jid("a@x"), LogFilter::default(), Page::First(9)).await.unwrap().rows.len()
}

fn write(secs: u64) -> Batch {
    batch(vec![append(row(&jid("a@x"), at(secs), &jid("b@x")))])
}

async fn load(store: &FaultyStore) -> Result<Option<AccountState>> {
    store.load(&jid("a@x"), reign(1)).await
}

async fn store() -> FaultyStore {
    let store = FaultyStore::in_memory();
    store.create_account(&jid("a@x"), account(1, "p"), Reign::NONE).await.unwrap();
    store
}

#[tokio::test]
async fn holds_and_releases_in_order() {
    let store = store().await;
    store.hold();
    let mut first = store.commit(write(1));
    let second = store.commit(write(2));
    assert!((&mut first).now_or_never().is_none());
    assert_eq!((store.held(), rows(&store).await), (2, 0));
    store.release_next(1);
    first.await.unwrap();
    assert_eq!(rows(&store).await, 1);
    store.drop_held();
    assert!(second.await.is_err());
    assert_eq!(rows(&store).await, 1);
    load(&store).await.unwrap();
    store.commit(write(3)).await.unwrap();
}

#[tokio::test]
async fn fails_doubts_and_loses() {
    let store = store().await;
    store.fail_next(1);
    assert!(matches!(store.commit(write(1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(rows(&store).await, 0);
    load(&store).await.unwrap();
    store.doubt_next(1);
    assert!(matches!(store.commit(write(1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(rows(&store).await, 1);
    load(&store).await.unwrap();
    store.lose_next(1);
    store.commit(write(2)).await.unwrap();
    assert_eq!(rows(&store).await, 1);
    store.overload_next(1);
    assert!(matches!(store.commit(write(2)).await, Err(StoreError::Overloaded)));
    store.commit(write(2)).await.unwrap();
    store.fail_next_reads(1);
    assert!(load(&store).await.is_err());
    assert!(load(&store).await.unwrap().is_some());
}

#[tokio::test]
async fn a_doubtful_account_is_shut_until_it_is_loaded_above_all_it_was_given() {
    let store = store().await;
    let before = reign(1);
    store.fail_next(1);
    assert!(store.commit(write(1)).await.is_err());
    let between = reign(1);
    assert!(store.commit(write(2)).await.is_err());
    for floor in [before, between] {
        store.load(&jid("a@x"), floor).await.unwrap();
        assert!(store.commit(write(3)).await.is_err(), "it was given positions above {floor:?}");
    }
    load(&store).await.unwrap();
    store.commit(write(4)).await.unwrap();
    assert_eq!(rows(&store).await, 1);
}

#[tokio::test]
async fn what_is_late_arrives_unless_a_load_came_first() {
    let store = store().await;
    store.late_next(1);
    assert!(store.commit(write(1)).await.is_err());
    assert_eq!(rows(&store).await, 0);
    store.arrive();
    assert_eq!(rows(&store).await, 1);
    load(&store).await.unwrap();
    store.late_next(1);
    assert!(store.commit(write(2)).await.is_err());
    load(&store).await.unwrap();
    store.arrive();
    assert_eq!(rows(&store).await, 1);
}

#[tokio::test]
async fn a_load_waits_for_what_is_held() {
    let store = store().await;
    let home = Home::open(Arc::new(store.clone())).await;
    store.hold();
    let commit = store.commit(write(1));
    let mut loading = home.load(&jid("a@x"));
    assert!((&mut loading).now_or_never().is_none());
    assert!(home.load(&jid("b@x")).await.unwrap().is_none(), "nothing of it is held");
    store.release();
    assert_eq!(loading.await.unwrap().unwrap().last, at(1));
    commit.await.unwrap();
}

#[test]
fn says_how_commits_are_better_made() {
    assert!(FaultyStore::in_memory().commits_together());
    assert!(!FaultyStore::in_memory().apart().commits_together());
}
