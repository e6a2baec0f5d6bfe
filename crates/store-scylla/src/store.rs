//! The store: what holds its parts together.

use crate::cql::{Cql, Level, ReignRow};
use crate::owners::Owners;
use crate::purge::Walk;
use crate::retry::Calls;
use crate::settings::Settings;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_store::codec::damaged;
use starling_store::{
    AccountRow, AccountState, Accounts, Batch, Claim, LogFilter, LogPage, LogRow, Now, Page, Position, Reign,
    Result, Retention, Store,
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
    /// The row of the reign over all of the store, or of a cluster's era, as it was changed last.
    pub(crate) grants: futures::lock::Mutex<Option<ReignRow>>,
    /// Another one has begun: nothing is written here any more.
    pub(crate) fenced: AtomicBool,
    /// Jobs that wait in lanes.
    pub(crate) queued: AtomicUsize,
    /// Accounts of which buckets are being dropped.
    pub(crate) trims: AtomicUsize,
    /// How far the sweep has come.
    pub(crate) walk: futures::lock::Mutex<Walk>,
}

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
            grants: futures::lock::Mutex::new(None),
            fenced: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            trims: AtomicUsize::new(0),
            walk: futures::lock::Mutex::default(),
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

    fn create_account(&self, jid: &BareJid, row: AccountRow, reign: Reign) -> BoxFuture<'static, Result<()>> {
        let account = self.inner.owners.account(jid);
        let (inner, of) = (Arc::clone(&self.inner), Arc::clone(&account));
        self.inner.alone(&account, async move { inner.create_account(&of, row, reign).await }.boxed())
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

    fn leave(&self, epoch: u64, accounts: Accounts) {
        self.inner.leave(epoch, accounts);
    }

    fn is_shared(&self) -> bool {
        true
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
