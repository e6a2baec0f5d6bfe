//! The three trees, and what an error of theirs means.

use crate::keys::{self, Account, Class};
use crate::options::Options;
use crate::records;
use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, Readable, Snapshot};
use starling_store::{Position, Result, StoreError};
use std::path::Path;
use std::sync::Arc;

/// Handles to everything on disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) db: Database,
    pub(crate) accounts: Keyspace,
    pub(crate) log: Keyspace,
    pub(crate) peers: Keyspace,
}

impl Tables {
    pub(crate) fn open(path: &Path, options: &Options) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(options.open_files.max(10)))
            .max_journaling_size(options.journal_bytes.max(64 << 20))
            // Flushes and compactions take turns: a second worker would spin while the first compacts.
            .worker_threads(1)
            // Rows are small and their journal lives for seconds: compressing it costs more than it saves.
            .journal_compression(CompressionType::None)
            .open()?;
        // Rows come in once and are read seldom: rather more tables to look into than rows copied once more. A filter of
        // ten bits lets one in a hundred lookups go astray.
        let table = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(NEVER)
                .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(8)))
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
                    BloomConstructionPolicy::BitsPerKey(10.0),
                )))
        };
        // The index is only ever read in ranges, for which a filter is of no use.
        let index = || table().filter_policy(FilterPolicy::disabled());
        let accounts = db.keyspace("accounts", table)?;
        let log = db.keyspace("log", table)?;
        let peers = db.keyspace("peers", index)?;
        Ok(Self { db, accounts, log, peers })
    }

    /// Has what is in memory written to its place on disk, in the background; commits wait while too much of that is under way.
    /// `round` counts the calls: index entries and accounts are small, and many small tables cost more than a few.
    pub(crate) fn settle(&self, round: u64) -> fjall::Result<()> {
        for (table, every) in [(&self.log, 1), (&self.peers, 2), (&self.accounts, 8)] {
            if round.is_multiple_of(every) {
                table.rotate_memtable()?;
            }
        }
        Ok(())
    }

    /// Position of an account's newest row.
    pub(crate) fn last(&self, snapshot: &Snapshot, account: Account) -> Result<Position> {
        let mut last = Position(0);
        for class in Class::ALL {
            let range =
                keys::row(account, class, Position(0))..=keys::row(account, class, Position(u64::MAX));
            if let Some(newest) = snapshot.range(&self.log, range).next_back() {
                last = last.max(position(&newest.key().map_err(engine)?)?.1);
            }
        }
        Ok(last)
    }

    /// The row at a position whatever its class, with the entries of the indexes that point to it.
    pub(crate) fn find(
        &self,
        account: Account,
        position: Position,
    ) -> Result<Option<(Class, records::Entries)>> {
        for class in Class::ALL {
            if let Some(value) = self.log.get(keys::row(account, class, position)).map_err(engine)? {
                return Ok(Some((class, records::Entries::decode(&value)?)));
            }
        }
        Ok(None)
    }
}

/// The tree is not to decide by itself when its memory is full: it asks its worker with every commit until that is done, and a
/// worker that is busy with a long compaction finds its own queue full of these, waits to add to it, and never goes on; then
/// memory and journal grow without end. The writer decides, once for each full buffer.
const NEVER: u64 = u64::MAX / 4;

/// Class and position of a key of the log or an index.
pub(crate) fn position(key: &[u8]) -> Result<(Class, Position)> {
    keys::class_and_position(key).ok_or_else(|| starling_store::codec::damaged("log key"))
}

/// What an error of the tree means to a caller.
pub(crate) fn engine(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(_) | fjall::Error::Poisoned | fjall::Error::Locked => {
            StoreError::Unavailable(error.to_string())
        }
        fjall::Error::Storage(fjall::LsmError::Io(ref cause)) => StoreError::Unavailable(cause.to_string()),
        other => StoreError::Damaged(other.to_string()),
    }
}
