//! The threads that read, and the reads other than pages.

use crate::keys::{self, Account, Class, Part};
use crate::queue::{Queue, Refused};
use crate::records::{self, AccountRecord, decode_numbers};
use crate::tables::{Tables, engine};
use fjall::{Readable, Snapshot};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use starling_store::{AccountRow, AccountState, Cursor, LogRow, Position, Result, Roster, StoreError};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// A read with whom to tell.
pub(crate) type Read = Box<dyn FnOnce(&Tables) + Send>;

/// A few threads that read for whoever asks.
pub(crate) struct Readers {
    queue: Arc<Queue<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn start(tables: &Tables, threads: usize, queue: Arc<Queue<Read>>) -> io::Result<Self> {
        let mut readers = Self { queue, threads: Vec::new() };
        for _ in 0..threads.max(1) {
            let (queue, tables) = (readers.queue.clone(), tables.clone());
            let work = move || {
                while let Some(read) = queue.pop() {
                    // The one who asked sees that there is no answer; the thread goes on.
                    if catch_unwind(AssertUnwindSafe(|| read(&tables))).is_err() {
                        tracing::error!(event = "read_panicked", "a read panicked");
                    }
                }
            };
            readers.threads.push(thread::Builder::new().name("store-read".to_owned()).spawn(work)?);
        }
        Ok(readers)
    }

    pub(crate) fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let (job, answer) = question(read);
        match self.queue.push(job, 0) {
            Ok(()) => answer,
            Err(refused) => ready(Err(refused.into())).boxed(),
        }
    }
}

/// A read as a job, and its answer.
pub(crate) fn question<T: Send + 'static>(
    read: impl FnOnce(&Tables) -> Result<T> + Send + 'static,
) -> (Read, BoxFuture<'static, Result<T>>) {
    let (reply, answer) = oneshot::channel();
    let job: Read = Box::new(move |tables| {
        // Whoever asked may have gone while this waited.
        if !reply.is_closed() {
            drop(reply.send(read(tables)));
        }
    });
    (job, answer.map(|answer| answer.unwrap_or_else(|_| Err(closed()))).boxed())
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Overloaded,
            Refused::Closed => closed(),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// What callers get when the store is closed under them.
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

pub(crate) fn account(tables: &Tables, jid: &BareJid) -> Result<Option<AccountRow>> {
    let value = tables.accounts.get(keys::account(jid)).map_err(engine)?;
    value.map(|value| AccountRecord::decode(&value).map(|record| record.row)).transpose()
}

/// The number of an account.
pub(crate) fn number(tables: &Tables, snapshot: &Snapshot, jid: &BareJid) -> Result<Option<Account>> {
    let value = snapshot.get(&tables.accounts, keys::account(jid)).map_err(engine)?;
    value.map(|value| AccountRecord::decode_account(&value)).transpose()
}

pub(crate) fn cursor(tables: &Tables, snapshot: &Snapshot, account: Account) -> Result<Cursor> {
    let value = snapshot.get(&tables.accounts, keys::part(account, Part::Cursor)).map_err(engine)?;
    match value {
        Some(value) => records::decode_cursor(&value),
        None => Ok(Cursor::default()),
    }
}

pub(crate) fn accounts(
    tables: &Tables,
    domain: &str,
    after: Option<&BareJid>,
    limit: usize,
) -> Result<Vec<BareJid>> {
    let prefix = keys::domain(domain);
    let after = after.map(keys::account);
    let from = after.as_ref().map_or(&prefix, |after| after.max(&prefix)).clone();
    let mut found = Vec::new();
    for entry in tables.accounts.range(from..) {
        let key = entry.key().map_err(engine)?;
        if found.len() == limit || !key.starts_with(&prefix) {
            break;
        }
        if after.as_deref() != Some(&*key) {
            found.push(keys::account_jid(&key).ok_or_else(|| starling_store::codec::damaged("account key"))?);
        }
    }
    Ok(found)
}

pub(crate) fn load(tables: &Tables, jid: &BareJid) -> Result<Option<AccountState>> {
    let snapshot = tables.db.snapshot();
    let Some(value) = snapshot.get(&tables.accounts, keys::account(jid)).map_err(engine)? else {
        return Ok(None);
    };
    let AccountRecord { account, row } = AccountRecord::decode(&value)?;
    let last = tables.last(&snapshot, account)?;
    let mut state = AccountState {
        row,
        roster: Roster::default(),
        docs: BTreeMap::new(),
        cursor: Cursor::default(),
        last,
    };
    for entry in snapshot.prefix(&tables.accounts, keys::data(account)) {
        let (key, value) = entry.into_inner().map_err(engine)?;
        match keys::parse_part(&key).ok_or_else(|| starling_store::codec::damaged("account data key"))? {
            Part::Item(contact) => {
                let item = records::decode_item(contact, &value)?;
                state.roster.items.insert(item.jid.clone(), item);
            }
            Part::Removed(contact) => {
                let contact = records::address(contact, "removal mark")?;
                state.roster.removed.insert(contact, decode_numbers::<1>(&value, "removal mark")?[0]);
            }
            Part::Versions => {
                [state.roster.version, state.roster.removed_since] =
                    decode_numbers(&value, "roster versions")?;
            }
            Part::Doc(kind) => {
                state.docs.insert(kind, bytes::Bytes::copy_from_slice(&value));
            }
            Part::Cursor => state.cursor = records::decode_cursor(&value)?,
            Part::Count => {}
        }
    }
    Ok(Some(state))
}

pub(crate) fn log_rows(
    tables: &Tables,
    owner: &BareJid,
    mut positions: Vec<Position>,
    now: Timestamp,
) -> Result<Vec<LogRow>> {
    let snapshot = tables.db.snapshot();
    let Some(account) = number(tables, &snapshot, owner)? else { return Ok(Vec::new()) };
    positions.sort_unstable();
    positions.dedup();
    let mut rows = Vec::new();
    for position in positions {
        for class in Class::ALL {
            let value = snapshot.get(&tables.log, keys::row(account, class, position)).map_err(engine)?;
            if let Some(value) = value {
                let row = records::decode_row(owner, class, position, &value)?;
                if !row.has_expired(now) {
                    rows.push(row);
                }
                break;
            }
        }
    }
    Ok(rows)
}
