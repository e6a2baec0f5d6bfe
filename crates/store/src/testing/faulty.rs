//! A store that delays, fails, forgets or lies on command.

mod doubts;

use crate::log::{LogFilter, LogPage, LogRow, Page, Position};
use crate::rows::{AccountRow, AccountState, Batch, Claim, Reign};
use crate::{Accounts, Result, Retention, SharedStore, Store, StoreError};
use doubts::Doubts;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;

/// Wraps a store. Commands hold for commits and account creations (and, where named, reads) that begin after them.
/// Clones share their commands and the wrapped store.
///
/// It keeps to what [`Store::commit`] says of unknown outcomes: after a commit that it has failed as unavailable, commits to the same
/// accounts fail until they have been loaded with a floor above all that they were given, and a load waits for
/// what is held.
#[derive(Clone)]
pub struct FaultyStore {
    inner: SharedStore,
    script: Arc<Mutex<Script>>,
    apart: bool,
}

#[derive(Default)]
struct Script {
    held: Option<VecDeque<Held>>,
    fail: usize,
    overload: usize,
    doubt: usize,
    late: usize,
    lose: usize,
    fail_reads: usize,
    floors: Vec<(BareJid, Position)>,
    commits: u64,
    pages: u64,
    doubts: Doubts,
    /// Loads that wait for what is held.
    loads: Vec<oneshot::Sender<()>>,
}

type Answer = BoxFuture<'static, Result<()>>;

struct Held {
    change: Change,
    /// Written, but reported as unavailable.
    doubt: bool,
    answer: oneshot::Sender<Answer>,
}

enum Change {
    Commit(Batch),
    Create(BareJid, Box<AccountRow>, Reign),
}

impl FaultyStore {
    /// A wrapper that changes nothing yet.
    pub fn new(inner: SharedStore) -> Self {
        Self { inner, script: Arc::default(), apart: false }
    }

    /// Over a fresh memory store.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(crate::memory::MemoryStore::new()))
    }

    /// Says of itself that commits for several accounts are better made one by one.
    pub fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    /// Holds all commits from now on: neither written nor answered until [`Self::release`] or [`Self::drop_held`].
    pub fn hold(&self) {
        self.script.lock().held.get_or_insert_default();
    }

    /// Writes and answers what is held, in order, and holds no more.
    pub fn release(&self) {
        let mut script = self.script.lock();
        for held in script.held.take().unwrap_or_default() {
            script.write(held, &self.inner);
        }
        script.loads.clear();
    }

    /// Writes and answers the oldest `n` held commits and goes on holding.
    pub fn release_next(&self, n: usize) {
        let mut script = self.script.lock();
        for held in script.oldest(n) {
            script.write(held, &self.inner);
        }
        script.loads.clear();
    }

    /// Fails what is held without writing it, as a crash would, and holds no more.
    pub fn drop_held(&self) {
        let mut script = self.script.lock();
        for held in script.held.take().unwrap_or_default() {
            script.refuse(held);
        }
        script.loads.clear();
    }

    /// Fails the oldest `n` held commits without writing them and goes on holding.
    pub fn drop_next(&self, n: usize) {
        let mut script = self.script.lock();
        for held in script.oldest(n) {
            script.refuse(held);
        }
        script.loads.clear();
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

    /// The next `n` commits are reported as unavailable and not written yet: [`Self::arrive`] writes them, unless a load of
    /// the account has come before it. Creations among them fail.
    pub fn late_next(&self, n: usize) {
        self.script.lock().late = n;
    }

    /// Writes what is late and not closed by a load.
    pub fn arrive(&self) {
        let late = self.script.lock().doubts.arrive();
        for batch in late {
            drop(self.inner.commit(batch));
        }
    }

    /// The next `n` commits are reported as written but are not: a disk that lies.
    pub fn lose_next(&self, n: usize) {
        self.script.lock().lose = n;
    }

    /// The floors of all loads of this account so far, in order.
    pub fn floors(&self, jid: &BareJid) -> Vec<Position> {
        let floors = &self.script.lock().floors;
        floors.iter().filter(|(own, _)| own == jid).map(|(_, floor)| *floor).collect()
    }

    /// The next `n` reads (account, load, log) fail as unavailable.
    pub fn fail_next_reads(&self, n: usize) {
        self.script.lock().fail_reads = n;
    }

    /// How many commits and creations have begun.
    pub fn commits(&self) -> u64 {
        self.script.lock().commits
    }

    /// How many pages of logs were asked for.
    pub fn pages(&self) -> u64 {
        self.script.lock().pages
    }

    /// The store behind it.
    pub fn inner(&self) -> &SharedStore {
        &self.inner
    }

    fn change(&self, change: Change) -> Answer {
        let mut script = self.script.lock();
        script.commits += 1;
        if let Change::Commit(batch) = &change
            && script.doubts.refuses(batch)
        {
            return ready(Err(unavailable())).boxed();
        }
        if take(&mut script.fail) {
            script.doubts.begin(&change);
            return ready(Err(unavailable())).boxed();
        }
        if take(&mut script.overload) {
            return ready(Err(StoreError::Overloaded)).boxed();
        }
        if take(&mut script.late) {
            script.doubts.begin(&change);
            script.doubts.delay(change);
            return ready(Err(unavailable())).boxed();
        }
        if take(&mut script.lose) {
            return ready(Ok(())).boxed();
        }
        let doubt = take(&mut script.doubt);
        let (answer, wait) = oneshot::channel();
        let held = Held { change, doubt, answer };
        match script.held.as_mut() {
            Some(queue) => queue.push_back(held),
            None => script.write(held, &self.inner),
        }
        wait.then(|answer| answer.unwrap_or_else(|_| ready(Err(unavailable())).boxed())).boxed()
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

impl Script {
    fn oldest(&mut self, n: usize) -> Vec<Held> {
        let Some(queue) = self.held.as_mut() else { return Vec::new() };
        queue.drain(..n.min(queue.len())).collect()
    }

    fn write(&mut self, held: Held, inner: &SharedStore) {
        if held.doubt {
            self.doubts.begin(&held.change);
        }
        let answer = match held.change {
            Change::Commit(batch) => inner.commit(batch),
            Change::Create(jid, row, reign) => inner.create_account(&jid, *row, reign),
        };
        let answer = if held.doubt { answer.map(|_| Err(unavailable())).boxed() } else { answer };
        drop(held.answer.send(answer));
    }

    fn refuse(&mut self, held: Held) {
        self.doubts.begin(&held.change);
        drop(held.answer.send(ready(Err(unavailable())).boxed()));
    }

    /// Whether a commit to this account is held.
    fn holds(&self, jid: &BareJid) -> bool {
        self.held.iter().flatten().any(|held| held.change.touches(jid))
    }
}

impl Change {
    fn touches(&self, jid: &BareJid) -> bool {
        match self {
            Self::Commit(batch) => batch.writes.iter().any(|write| write.owner() == jid),
            Self::Create(of, ..) => of == jid,
        }
    }
}

impl Store for FaultyStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>> {
        self.change(Change::Commit(batch))
    }

    fn commits_together(&self) -> bool {
        !self.apart && self.inner.commits_together()
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow, reign: Reign) -> BoxFuture<'static, Result<()>> {
        self.change(Change::Create(jid.clone(), Box::new(row), reign))
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
        let mut script = self.script.lock();
        if script.holds(jid) {
            let (done, wait) = oneshot::channel();
            script.loads.push(done);
            let (store, jid) = (self.clone(), jid.clone());
            return wait.then(move |_| store.load(&jid, reign)).boxed();
        }
        script.floors.push((jid.clone(), reign.floor));
        if take(&mut script.fail_reads) {
            return ready(Err(unavailable())).boxed();
        }
        script.doubts.close(jid, reign.floor);
        self.inner.load(jid, reign)
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        self.script.lock().pages += 1;
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

    fn leave(&self, epoch: u64, accounts: Accounts) {
        self.inner.leave(epoch, accounts);
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
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
mod tests;
