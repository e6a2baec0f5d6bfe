//! Bugs between homes and the store.

use super::Planted;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_store::{
    AccountRow, AccountState, Accounts, Batch, Claim, Cursor, Direction, LogFilter, LogPage, LogRow, Page,
    Position, Reign, Result, Retention, SharedStore, Store, Write,
};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::HashMap;

/// A store with a bug.
pub(super) struct WrongStore {
    inner: SharedStore,
    planted: Planted,
    newest: Mutex<HashMap<BareJid, Position>>,
}

impl WrongStore {
    /// Whether a bug is one of a store.
    pub(super) fn can(planted: Planted) -> bool {
        matches!(planted, Planted::AcknowledgeEarly | Planted::DeliverEarly | Planted::CursorTooFar)
    }

    pub(super) fn new(inner: SharedStore, planted: Planted) -> Self {
        Self { inner, planted, newest: Mutex::default() }
    }

    /// Whether a batch is one whose end is not waited for.
    fn is_hasty(&self, batch: &Batch) -> bool {
        batch.writes.iter().any(|write| match write {
            Write::Append(row) => match self.planted {
                Planted::AcknowledgeEarly => row.direction != Direction::In,
                Planted::DeliverEarly => row.direction != Direction::Out,
                _ => false,
            },
            _ => false,
        })
    }

    fn overdo_cursors(&self, batch: &mut Batch) {
        let mut newest = self.newest.lock();
        for write in &mut batch.writes {
            match write {
                Write::Append(row) => {
                    newest.insert(row.owner.clone(), row.position);
                }
                Write::Cursor(owner, cursor) => {
                    if let Some(position) = newest.get(owner) {
                        *cursor = Cursor { through: cursor.through.max(*position), above: Vec::new() };
                    }
                }
                _ => {}
            }
        }
    }
}

impl Store for WrongStore {
    fn commit(&self, mut batch: Batch) -> BoxFuture<'static, Result<()>> {
        if self.planted == Planted::CursorTooFar {
            self.overdo_cursors(&mut batch);
        }
        let hasty = self.is_hasty(&batch);
        let done = self.inner.commit(batch);
        // Commits are carried out whether or not they are polled.
        if hasty { ready(Ok(())).boxed() } else { done }
    }

    fn commits_together(&self) -> bool {
        self.inner.commits_together()
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow, reign: Reign) -> BoxFuture<'static, Result<()>> {
        self.inner.create_account(jid, row, reign)
    }

    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>> {
        self.inner.account(jid)
    }

    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>> {
        self.inner.accounts(domain, after, limit)
    }

    fn load(&self, jid: &BareJid, reign: Reign) -> BoxFuture<'static, Result<Option<AccountState>>> {
        self.inner.load(jid, reign)
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        self.inner.log_page(owner, filter, page)
    }

    fn log_rows(&self, owner: &BareJid, positions: Vec<Position>) -> BoxFuture<'static, Result<Vec<LogRow>>> {
        self.inner.log_rows(owner, positions)
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
