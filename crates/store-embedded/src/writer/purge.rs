//! Taking away the rows of removed accounts, a slice at a time, between other work.

use crate::keys::{self, Account};
use crate::records::Entries;
use crate::tables::{Tables, engine, position};
use fjall::OwnedWriteBatch;
use starling_store::Result;
use std::collections::VecDeque;

/// How many rows go in one slice when there is nothing else to do.
pub(super) const SLICE: usize = 512;

/// Removed accounts whose rows are still there, first come, first served.
pub(super) struct Purges {
    waiting: VecDeque<Account>,
    /// The last key of the first one's log that was removed: what lies before it need not be looked at again.
    after: Option<[u8; 17]>,
}

impl Purges {
    /// Those that were left when the store was last closed.
    pub(super) fn unfinished(tables: &Tables) -> Result<Self> {
        let mut waiting = VecDeque::new();
        for entry in tables.accounts.prefix(keys::PURGES) {
            waiting.extend(keys::purge_account(&entry.key().map_err(engine)?));
        }
        Ok(Self { waiting, after: None })
    }

    pub(super) fn extend(&mut self, removed: Vec<Account>) {
        self.waiting.extend(removed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// The next removals. An account that cannot be read is dropped from the list; its mark stays for the next start.
    pub(super) fn slice(&mut self, tables: &Tables, rows: usize) -> Result<Option<OwnedWriteBatch>> {
        let Some(account) = self.waiting.front().copied() else { return Ok(None) };
        let batch = self.removals(tables, account, rows);
        if batch.is_err() {
            self.next();
        }
        batch.map(Some)
    }

    fn removals(&mut self, tables: &Tables, account: Account, rows: usize) -> Result<OwnedWriteBatch> {
        let mut batch = tables.db.batch();
        let from = self.after.map_or_else(|| account.to_bytes().to_vec(), |after| after.to_vec());
        let to = keys::row(account, keys::Class(u8::MAX), starling_store::Position(u64::MAX)).to_vec();
        let mut found = 0;
        for entry in tables.log.range(from..=to).take(rows.max(1)) {
            let (key, value) = entry.into_inner().map_err(engine)?;
            let (class, position) = position(&key)?;
            remove_row(&mut batch, tables, account, class, position, &Entries::decode(&value)?);
            self.after = Some(keys::row(account, class, position));
            found += 1;
        }
        if found == 0 {
            // Bounded: a roster, some marks and a few documents.
            for entry in tables.accounts.prefix(keys::data(account)) {
                batch.remove(&tables.accounts, entry.key().map_err(engine)?);
            }
            batch.remove(&tables.accounts, keys::purge(account));
            self.next();
        }
        Ok(batch)
    }

    fn next(&mut self) {
        self.waiting.pop_front();
        self.after = None;
    }
}

/// A row and the index entries that point to it.
pub(super) fn remove_row(
    batch: &mut OwnedWriteBatch,
    tables: &Tables,
    account: Account,
    class: keys::Class,
    position: starling_store::Position,
    entries: &Entries,
) {
    batch.remove(&tables.log, keys::row(account, class, position));
    batch.remove(&tables.peers, keys::peer(account, &entries.with, class, position));
    if let Some(expires) = entries.expires {
        batch.remove(&tables.accounts, keys::expiry(expires, account, class, position));
    }
}
