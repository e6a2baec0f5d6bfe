//! The store: what holds its parts together.

use crate::cql::{Cql, Level, ReignRow};
use crate::owners::Owners;
use crate::purge::Walk;
use crate::retry::Calls;
use crate::settings::Settings;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_store::codec::damaged;
use starling_store::{
    AccountRow, AccountState, Batch, Claim, LogFilter, LogPage, LogRow, Now, Page, Position, Reign, Result,
    Retention, Store,
};
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// A store on a CQL server. Clones are the same.
pub struct ScyllaStore<C: Cql> {
    inner: Arc<Inner<C>>,
}

/// What the parts share.
pub(crate) struct Inner<C> {
    pub(crate) calls: Calls<C>,
    pub(crate) now: Now,
    pub(crate) owners: Owners,
    /// The reign that was begun here last.
    pub(crate) reign: Mutex<Option<Reign>>,
    /// Its row, as it was changed last.
    pub(crate) grants: futures::lock::Mutex<Option<ReignRow>>,
    /// Another one has begun.
    pub(crate) fenced: AtomicBool,
    /// Jobs that wait in lanes.
    pub(crate) queued: AtomicUsize,
    /// Accounts of which buckets are being dropped.
    pub(crate) trims: AtomicUsize,
    /// How far the sweep has come.
    pub(crate) walk: futures::lock::Mutex<Walk>,
    /// Floor and ceiling of what the store is known to have granted to the reign that was begun here last.
    pub(crate) granted: Mutex<Option<(Position, Position)>>,
    /// The last timestamp of what no home decides.
    clock: Mutex<u64>,
}

/// What no home decides begins so far above a reign's floor, in microseconds: as far as the reign before can have passed its
/// ceiling with it, one at a time, while its clock was ahead.
const HEAD: u64 = 1_000_000;

impl<C: Cql> Clone for ScyllaStore<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: Cql> ScyllaStore<C> {
    /// Over a server whose schema is as it should be.
    pub fn open(cql: Arc<C>, settings: Settings, now: Now) -> Self {
        let inner = Inner {
            now,
            owners: Owners::new(settings.owners),
            calls: Calls::new(cql, settings),
            reign: Mutex::new(None),
            grants: futures::lock::Mutex::new(None),
            fenced: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            trims: AtomicUsize::new(0),
            walk: futures::lock::Mutex::default(),
            granted: Mutex::new(None),
            clock: Mutex::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    fn with<T, F>(&self, work: impl FnOnce(Arc<Inner<C>>) -> F) -> BoxFuture<'static, Result<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        work(Arc::clone(&self.inner)).boxed()
    }
}

impl<C: Cql> Inner<C> {
    /// A timestamp for what no home decides. It rises, and is above those of all reigns before, whatever their clocks
    /// said: the clock counts only within what was granted.
    pub(crate) fn stamp(&self) -> Position {
        let mut now = (self.now)().as_micros();
        if let Some((floor, ceiling)) = *self.granted.lock() {
            now = now.min(ceiling.0).max(floor.0 + HEAD);
        }
        let mut clock = self.clock.lock();
        *clock = now.max(*clock + 1);
        Position(*clock)
    }

    /// A timestamp above all that was written so far, by this reign or those before it.
    pub(crate) fn above_all(&self) -> Position {
        let ceiling = self.granted.lock().map_or(Position(0), |(_, ceiling)| ceiling);
        self.stamp().max(ceiling)
    }

    async fn secret(&self, name: &'static str) -> Result<[u8; 32]> {
        let name = format!("secret-{name}");
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let cql = &self.calls.cql;
        let mut level = Level::Quorum;
        let mut made = (self.calls.settings.entropy)();
        loop {
            if let Some(value) = self.calls.read(until, || cql.setting(&name, level)).await? {
                made.copy_from_slice(value.get(..32).ok_or_else(|| damaged("secret"))?);
                return Ok(made);
            }
            let value = bytes::Bytes::copy_from_slice(&made);
            // Whoever made it, and whether or not there was an answer: it is what is read now.
            let made = self.calls.once(until, || cql.create_setting(&name, value.clone())).await;
            if let Err(failure) = made
                && (!failure.doubt || cql.monotonic() >= until)
            {
                return Err(failure.in_doubt());
            }
            level = Level::Serial;
        }
    }
}

impl<C: Cql> Store for ScyllaStore<C> {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>> {
        self.inner.commit(batch)
    }

    fn commits_together(&self) -> bool {
        false
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> BoxFuture<'static, Result<()>> {
        let account = self.inner.owners.account(jid);
        let (inner, of) = (Arc::clone(&self.inner), Arc::clone(&account));
        self.inner.alone(&account, async move { inner.create_account(&of, row).await }.boxed())
    }

    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>> {
        let jid = jid.clone();
        self.with(|inner| async move { inner.account(&jid).await })
    }

    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>> {
        let domain = domain.to_owned();
        self.with(|inner| async move { inner.accounts(&domain, after, limit).await })
    }

    fn load(&self, jid: &BareJid, reign: Reign) -> BoxFuture<'static, Result<Option<AccountState>>> {
        let account = self.inner.owners.account(jid);
        let (inner, of) = (Arc::clone(&self.inner), Arc::clone(&account));
        self.inner.alone(&account, async move { inner.load(&of, reign).await }.boxed())
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        let owner = owner.clone();
        self.with(|inner| async move { inner.log_page(owner, filter, page).await })
    }

    fn log_rows(&self, owner: &BareJid, positions: Vec<Position>) -> BoxFuture<'static, Result<Vec<LogRow>>> {
        let owner = owner.clone();
        self.with(|inner| async move { inner.log_rows(owner, positions).await })
    }

    fn open_reign(&self, claim: Claim) -> BoxFuture<'static, Result<Reign>> {
        self.with(|inner| async move { inner.open_reign(claim).await })
    }

    fn grant(&self, epoch: u64, ceiling: Position) -> BoxFuture<'static, Result<()>> {
        self.with(|inner| async move { inner.grant(epoch, ceiling).await })
    }

    fn release(&self, epoch: u64) -> BoxFuture<'static, Result<()>> {
        self.with(|inner| async move { inner.release(epoch).await })
    }

    fn secret(&self, name: &'static str) -> BoxFuture<'static, Result<[u8; 32]>> {
        self.with(|inner| async move { inner.secret(name).await })
    }

    /// Rows end by themselves here, and the retention of [`Settings`] holds: what a sweep removes is what is left of
    /// accounts that are no more.
    fn sweep(&self, now: Timestamp, _retention: Retention) -> BoxFuture<'static, Result<u64>> {
        self.with(|inner| async move { inner.sweep(now).await })
    }
}
