//! The reference form: everything in memory, every call done before it returns.
//!
//! It says what the calls mean; back ends are held to it by [`crate::testing`]. Good for tests and for nothing that
//! must be kept.

use crate::log::{Cursor, LogFilter, LogPage, LogRow, Page, Position};
use crate::roster::Roster;
use crate::rows::{AccountRow, AccountState, DocKind, Reign, Write};
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
    epoch: u64,
    ceiling: Position,
    secrets: BTreeMap<&'static str, [u8; 32]>,
}

struct Account {
    jid: BareJid,
    row: AccountRow,
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
    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        for write in batch {
            state.apply(write);
        }
        ready(Ok(())).boxed()
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        if state.accounts.contains_key(&key(jid)) {
            return ready(Err(StoreError::Exists)).boxed();
        }
        let account = Account {
            jid: jid.clone(),
            row,
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

    fn load(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountState>>> {
        self.read(jid, |account| AccountState {
            row: account.row.clone(),
            roster: account.roster.clone(),
            docs: account.docs.clone(),
            cursor: account.cursor.clone(),
            last: account.log.keys().next_back().copied().unwrap_or_default(),
        })
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        let now = (self.now)();
        self.read(owner, |account| account.page(&filter, page, now))
            .map(|page| page.map(|page| page.unwrap_or(LogPage { rows: Vec::new(), complete: true })))
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

    fn open_reign(&self) -> BoxFuture<'static, Result<Reign>> {
        let mut state = self.state.lock();
        state.epoch += 1;
        ready(Ok(Reign { epoch: state.epoch, floor: state.ceiling })).boxed()
    }

    fn grant(&self, ceiling: Position) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        state.ceiling = state.ceiling.max(ceiling);
        ready(Ok(())).boxed()
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
            return LogPage { rows: Vec::new(), complete: true };
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
        LogPage { rows: rows.0, complete: rows.1 }
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
    use crate::testing::BackEnd;

    #[derive(Default)]
    struct Memory(Option<MemoryStore>);

    impl BackEnd for Memory {
        fn open(&mut self, now: Now) -> SharedStore {
            Arc::new(self.0.get_or_insert_with(|| MemoryStore::with_clock(now)).clone())
        }
    }

    crate::conformance!(Memory::default());
}
