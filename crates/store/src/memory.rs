//! The reference form: everything in memory, every call done before it returns.
//!
//! It says what the calls mean; back ends are held to it by [`crate::testing`]. Good for tests and for nothing that
//! must be kept.

use crate::log::{Cursor, LogFilter, LogPage, LogRow, Page, Position};
use crate::roster::Roster;
use crate::rows::{AccountRow, AccountState, Batch, Claim, DocKind, Reign, Write};
use crate::{Now, Result, Retention, Store, StoreError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A store that lives as long as its last clone.
#[derive(Clone)]
pub struct MemoryStore {
    now: Now,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<(String, String), Account>,
    reign: Reigning,
    secrets: BTreeMap<&'static str, [u8; 32]>,
}

/// The last reign.
#[derive(Default)]
struct Reigning {
    epoch: u64,
    ceiling: Position,
    /// Whose it is; `None` once it was released.
    holder: Option<Claim>,
    granted: Timestamp,
}

struct Account {
    jid: BareJid,
    row: AccountRow,
    /// Epoch of the last reign that has made or loaded it: what earlier ones write comes too late.
    closed: u64,
    roster: Roster,
    docs: BTreeMap<DocKind, Bytes>,
    cursor: Cursor,
    log: BTreeMap<Position, LogRow>,
}

/// How many rows one sweep removes at most.
const SWEEP: usize = 10_000;

impl MemoryStore {
    /// An empty store for which no time passes: rows with an end stay until a sweep takes them.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(|| Timestamp(0)))
    }

    /// An empty store that knows what has expired.
    pub fn with_clock(now: Now) -> Self {
        Self { now, state: Arc::default() }
    }

    /// The same data as another process sees it, by its own clock.
    pub fn beside(&self, now: Now) -> Self {
        Self { now, state: self.state.clone() }
    }

    fn read<T: Send + 'static>(
        &self,
        owner: &BareJid,
        read: impl FnOnce(&Account) -> T,
    ) -> BoxFuture<'static, Result<Option<T>>> {
        ready(Ok(self.state.lock().accounts.get(&key(owner)).map(read))).boxed()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        if batch.writes.iter().any(|write| state.is_closed(write.owner(), batch.epoch)) {
            return ready(Err(StoreError::Fenced)).boxed();
        }
        for write in batch.writes {
            state.apply(write);
        }
        ready(Ok(())).boxed()
    }

    fn commits_together(&self) -> bool {
        true
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow, reign: Reign) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        if state.accounts.contains_key(&key(jid)) {
            return ready(Err(StoreError::Exists)).boxed();
        }
        let account = Account {
            jid: jid.clone(),
            row,
            closed: reign.epoch,
            roster: Roster::default(),
            docs: BTreeMap::new(),
            cursor: Cursor::default(),
            log: BTreeMap::new(),
        };
        state.accounts.insert(key(jid), account);
        ready(Ok(())).boxed()
    }

    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>> {
        self.read(jid, |account| account.row.clone())
    }

    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>> {
        let state = self.state.lock();
        let after = after.map(|jid| key(&jid));
        let found = state
            .accounts
            .range((domain.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == domain)
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
            .take(limit)
            .map(|(_, account)| account.jid.clone())
            .collect();
        ready(Ok(found)).boxed()
    }

    fn load(&self, jid: &BareJid, reign: Reign) -> BoxFuture<'static, Result<Option<AccountState>>> {
        let mut state = self.state.lock();
        let Some(account) = state.accounts.get_mut(&key(jid)) else { return ready(Ok(None)).boxed() };
        if account.closed > reign.epoch {
            return ready(Err(StoreError::Fenced)).boxed();
        }
        account.closed = reign.epoch;
        let loaded = AccountState {
            row: account.row.clone(),
            roster: account.roster.clone(),
            docs: account.docs.clone(),
            cursor: account.cursor.clone(),
            last: account.log.keys().next_back().copied().unwrap_or_default(),
        };
        ready(Ok(Some(loaded))).boxed()
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        let now = (self.now)();
        self.read(owner, |account| account.page(&filter, page, now))
            .map(|page| page.map(|page| page.unwrap_or(LogPage { complete: true, ..LogPage::default() })))
            .boxed()
    }

    fn log_rows(
        &self,
        owner: &BareJid,
        mut positions: Vec<Position>,
    ) -> BoxFuture<'static, Result<Vec<LogRow>>> {
        let now = (self.now)();
        positions.sort_unstable();
        positions.dedup();
        self.read(owner, |account| {
            let rows = positions.iter().filter_map(|position| account.log.get(position));
            rows.filter(|row| !row.has_expired(now)).cloned().collect()
        })
        .map(|rows| rows.map(Option::unwrap_or_default))
        .boxed()
    }

    /// Does not wait: another instance's reign is held or has ended by the clock's time.
    fn open_reign(&self, claim: Claim) -> BoxFuture<'static, Result<Reign>> {
        let now = (self.now)();
        let reign = &mut self.state.lock().reign;
        if let Some(holder) = &reign.holder
            && holder.instance != claim.instance
            && u128::from(now.0.saturating_sub(reign.granted.0)) <= Claim::lease(holder.instance).as_micros()
        {
            return ready(Err(StoreError::Held(holder.name.clone()))).boxed();
        }
        *reign =
            Reigning { epoch: reign.epoch + 1, ceiling: reign.ceiling, holder: Some(claim), granted: now };
        ready(Ok(Reign { epoch: reign.epoch, floor: reign.ceiling })).boxed()
    }

    fn grant(&self, epoch: u64, ceiling: Position) -> BoxFuture<'static, Result<()>> {
        let now = (self.now)();
        let reign = &mut self.state.lock().reign;
        if reign.epoch != epoch {
            return ready(Err(StoreError::Fenced)).boxed();
        }
        reign.ceiling = reign.ceiling.max(ceiling);
        reign.granted = now;
        ready(Ok(())).boxed()
    }

    fn release(&self, epoch: u64) -> BoxFuture<'static, Result<()>> {
        let reign = &mut self.state.lock().reign;
        if reign.epoch == epoch {
            reign.holder = None;
        }
        ready(Ok(())).boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn secret(&self, name: &'static str) -> BoxFuture<'static, Result<[u8; 32]>> {
        ready(Ok(*self.state.lock().secrets.entry(name).or_insert_with(rand::random))).boxed()
    }

    fn sweep(&self, now: Timestamp, retention: Retention) -> BoxFuture<'static, Result<u64>> {
        let mut state = self.state.lock();
        let mut room = SWEEP;
        for account in state.accounts.values_mut() {
            room -= account.sweep(now, retention, room);
        }
        ready(Ok((SWEEP - room) as u64)).boxed()
    }
}

impl State {
    /// Whether a later reign than this one has loaded the account.
    fn is_closed(&self, owner: &BareJid, epoch: u64) -> bool {
        epoch > 0 && self.accounts.get(&key(owner)).is_some_and(|account| account.closed > epoch)
    }

    fn apply(&mut self, write: Write) {
        let key = key(write.owner());
        if matches!(write, Write::DeleteAccount(_)) {
            self.accounts.remove(&key);
            return;
        }
        let Some(account) = self.accounts.get_mut(&key) else { return };
        match write {
            Write::Credentials(_, credentials) => account.row.credentials = *credentials,
            Write::DeleteAccount(_) => {}
            Write::RosterItem(_, item) => account.roster.put(*item),
            Write::RosterRemove(_, contact, version) => {
                account.roster.remove(&contact, version, Write::MAX_REMOVED);
            }
            Write::Doc(_, kind, body) if body.is_empty() => {
                account.docs.remove(&kind);
            }
            Write::Doc(_, kind, body) => {
                account.docs.insert(kind, body);
            }
            Write::Append(row) => {
                account.log.insert(row.position, *row);
            }
            Write::Cursor(_, cursor) => account.cursor = cursor,
        }
    }
}

impl Account {
    fn page(&self, filter: &LogFilter, page: Page, now: Timestamp) -> LogPage {
        let Some((low, high)) = filter.bounds() else {
            return LogPage { complete: true, ..LogPage::default() };
        };
        let mut wanted = self
            .log
            .range(low..=high)
            .map(|(_, row)| row)
            .filter(|row| !row.has_expired(now) && filter.wants(row, &self.cursor));
        let rows = match page {
            Page::First(limit) => {
                let rows = wanted.by_ref().take(limit).cloned().collect();
                (rows, wanted.next().is_none())
            }
            Page::Last(limit) => {
                let mut rows: Vec<_> = wanted.by_ref().rev().take(limit).cloned().collect();
                rows.reverse();
                (rows, wanted.next_back().is_none())
            }
        };
        LogPage { rows: rows.0, complete: rows.1, reached: None }
    }

    fn sweep(&mut self, now: Timestamp, retention: Retention, room: usize) -> usize {
        let cutoff = retention.cutoff(now);
        let archived = self.log.values().filter(|row| row.archived && !row.has_expired(now)).count() as u64;
        let mut surplus = retention.max_rows.map_or(0, |most| archived.saturating_sub(most));
        let mut victims = Vec::new();
        for (position, row) in &self.log {
            if victims.len() == room {
                break;
            }
            let waits = row.offline && !self.cursor.covers(*position);
            let aged = cutoff.is_some_and(|cutoff| position.timestamp() < cutoff);
            let old = aged && (row.archived || row.expires.is_none());
            let surplus_row = row.archived && surplus > 0 && !row.has_expired(now);
            if row.has_expired(now) || (!waits && (old || surplus_row)) {
                victims.push(*position);
                if surplus_row {
                    surplus -= 1;
                }
            }
        }
        for position in &victims {
            self.log.remove(position);
        }
        victims.len()
    }
}

fn key(jid: &BareJid) -> (String, String) {
    (jid.domain().to_owned(), jid.local().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedStore;
    use crate::testing::{BackEnd, SharedBackEnd};
    use std::time::Duration;

    #[derive(Default)]
    struct Memory(Option<MemoryStore>);

    impl BackEnd for Memory {
        async fn open(&mut self, now: Now, _: Retention) -> SharedStore {
            Arc::new(self.0.get_or_insert_default().beside(now))
        }
    }

    impl SharedBackEnd for Memory {
        async fn pass(&mut self, _: Duration) {}
    }

    crate::conformance!(Memory::default());
    crate::conformance!(sweeping: Memory::default());
    crate::conformance!(shared: Memory::default());
}
