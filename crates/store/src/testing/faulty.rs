//! A store that delays, fails, forgets or lies on command.

use crate::log::{LogFilter, LogPage, LogRow, Page, Position};
use crate::rows::{AccountRow, AccountState, Batch, Claim, Reign};
use crate::{Result, Retention, SharedStore, Store, StoreError};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;

/// Wraps a store. Commands hold for commits and account creations (and, where named, reads) that begin after them.
/// Clones share their commands and the wrapped store.
#[derive(Clone)]
pub struct FaultyStore {
    inner: SharedStore,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    held: Option<VecDeque<Held>>,
    fail: usize,
    overload: usize,
    doubt: usize,
    lose: usize,
    fail_reads: usize,
    commits: u64,
}

type Answer = BoxFuture<'static, Result<()>>;

struct Held {
    change: Change,
    answer: oneshot::Sender<Answer>,
}

enum Change {
    Commit(Batch),
    Create(BareJid, Box<AccountRow>),
}

impl FaultyStore {
    /// A wrapper that changes nothing yet.
    pub fn new(inner: SharedStore) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// Over a fresh memory store.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(crate::memory::MemoryStore::new()))
    }

    /// Holds all commits from now on: neither written nor answered until [`Self::release`] or [`Self::drop_held`].
    pub fn hold(&self) {
        self.script.lock().held.get_or_insert_default();
    }

    /// Writes and answers what is held, in order, and holds no more.
    pub fn release(&self) {
        let mut script = self.script.lock();
        for held in script.held.take().unwrap_or_default() {
            held.carry_out(&self.inner);
        }
    }

    /// Writes and answers the oldest `n` held commits and goes on holding.
    pub fn release_next(&self, n: usize) {
        let mut script = self.script.lock();
        let Some(queue) = script.held.as_mut() else { return };
        let n = n.min(queue.len());
        for held in queue.drain(..n) {
            held.carry_out(&self.inner);
        }
    }

    /// Fails what is held without writing it, as a crash would, and holds no more.
    pub fn drop_held(&self) {
        for held in self.script.lock().held.take().unwrap_or_default() {
            drop(held.answer.send(ready(Err(unavailable())).boxed()));
        }
    }

    /// Fails the oldest `n` held commits without writing them and goes on holding.
    pub fn drop_next(&self, n: usize) {
        let mut script = self.script.lock();
        let Some(queue) = script.held.as_mut() else { return };
        let n = n.min(queue.len());
        for held in queue.drain(..n) {
            drop(held.answer.send(ready(Err(unavailable())).boxed()));
        }
    }

    /// How many commits are held.
    pub fn held(&self) -> usize {
        self.script.lock().held.as_ref().map_or(0, VecDeque::len)
    }

    /// The next `n` commits fail as unavailable and write nothing.
    pub fn fail_next(&self, n: usize) {
        self.script.lock().fail = n;
    }

    /// The next `n` commits are refused as too many and write nothing.
    pub fn overload_next(&self, n: usize) {
        self.script.lock().overload = n;
    }

    /// The next `n` commits are written but reported as unavailable.
    pub fn doubt_next(&self, n: usize) {
        self.script.lock().doubt = n;
    }

    /// The next `n` commits are reported as written but are not: a disk that lies.
    pub fn lose_next(&self, n: usize) {
        self.script.lock().lose = n;
    }

    /// The next `n` reads (account, load, log) fail as unavailable.
    pub fn fail_next_reads(&self, n: usize) {
        self.script.lock().fail_reads = n;
    }

    /// How many commits and creations have begun.
    pub fn commits(&self) -> u64 {
        self.script.lock().commits
    }

    /// The store behind it.
    pub fn inner(&self) -> &SharedStore {
        &self.inner
    }

    fn change(&self, change: Change) -> Answer {
        let mut script = self.script.lock();
        script.commits += 1;
        if take(&mut script.fail) {
            return ready(Err(unavailable())).boxed();
        }
        if take(&mut script.overload) {
            return ready(Err(StoreError::Overloaded)).boxed();
        }
        if take(&mut script.lose) {
            return ready(Ok(())).boxed();
        }
        let doubt = take(&mut script.doubt);
        let answer = match script.held.as_mut() {
            Some(queue) => {
                let (answer, wait) = oneshot::channel();
                queue.push_back(Held { change, answer });
                wait.then(|answer| answer.unwrap_or_else(|_| ready(Err(unavailable())).boxed())).boxed()
            }
            None => change.carry_out(&self.inner),
        };
        if doubt { answer.map(|_| Err(unavailable())).boxed() } else { answer }
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&SharedStore) -> BoxFuture<'static, Result<T>>,
    ) -> BoxFuture<'static, Result<T>> {
        if take(&mut self.script.lock().fail_reads) {
            ready(Err(unavailable())).boxed()
        } else {
            read(&self.inner)
        }
    }
}

impl Held {
    fn carry_out(self, inner: &SharedStore) {
        drop(self.answer.send(self.change.carry_out(inner)));
    }
}

impl Change {
    fn carry_out(self, inner: &SharedStore) -> Answer {
        match self {
            Self::Commit(batch) => inner.commit(batch),
            Self::Create(jid, row) => inner.create_account(&jid, *row),
        }
    }
}

impl Store for FaultyStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>> {
        self.change(Change::Commit(batch))
    }

    fn commits_together(&self) -> bool {
        self.inner.commits_together()
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> BoxFuture<'static, Result<()>> {
        self.change(Change::Create(jid.clone(), Box::new(row)))
    }

    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>> {
        self.read(|inner| inner.account(jid))
    }

    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>> {
        self.read(|inner| inner.accounts(domain, after, limit))
    }

    fn load(&self, jid: &BareJid, reign: Reign) -> BoxFuture<'static, Result<Option<AccountState>>> {
        self.read(|inner| inner.load(jid, reign))
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        self.read(|inner| inner.log_page(owner, filter, page))
    }

    fn log_rows(&self, owner: &BareJid, positions: Vec<Position>) -> BoxFuture<'static, Result<Vec<LogRow>>> {
        self.read(|inner| inner.log_rows(owner, positions))
    }

    fn open_reign(&self, claim: Claim) -> BoxFuture<'static, Result<Reign>> {
        self.inner.open_reign(claim)
    }

    fn grant(&self, epoch: u64, ceiling: Position) -> BoxFuture<'static, Result<()>> {
        self.inner.grant(epoch, ceiling)
    }

    fn release(&self, epoch: u64) -> BoxFuture<'static, Result<()>> {
        self.inner.release(epoch)
    }

    fn secret(&self, name: &'static str) -> BoxFuture<'static, Result<[u8; 32]>> {
        self.inner.secret(name)
    }

    fn sweep(&self, now: Timestamp, retention: Retention) -> BoxFuture<'static, Result<u64>> {
        self.inner.sweep(now, retention)
    }
}

fn take(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("on command".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, append, at, batch, jid, reign, row};

    async fn rows(store: &FaultyStore) -> usize {
        store.inner.log_page(&jid("a@x"), LogFilter::default(), Page::First(9)).await.unwrap().rows.len()
    }

    fn write(secs: u64) -> Batch {
        batch(vec![append(row(&jid("a@x"), at(secs), &jid("b@x")))])
    }

    async fn store() -> FaultyStore {
        let store = FaultyStore::in_memory();
        store.create_account(&jid("a@x"), account(1, "p")).await.unwrap();
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
        store.commit(write(3)).await.unwrap();
    }

    #[tokio::test]
    async fn fails_doubts_and_loses() {
        let store = store().await;
        store.fail_next(1);
        assert!(matches!(store.commit(write(1)).await, Err(StoreError::Unavailable(_))));
        assert_eq!(rows(&store).await, 0);
        store.doubt_next(1);
        assert!(matches!(store.commit(write(1)).await, Err(StoreError::Unavailable(_))));
        assert_eq!(rows(&store).await, 1);
        store.lose_next(1);
        store.commit(write(2)).await.unwrap();
        assert_eq!(rows(&store).await, 1);
        store.overload_next(1);
        assert!(matches!(store.commit(write(2)).await, Err(StoreError::Overloaded)));
        store.fail_next_reads(1);
        assert!(store.load(&jid("a@x"), reign(1)).await.is_err());
        assert!(store.load(&jid("a@x"), reign(1)).await.unwrap().is_some());
    }
}
