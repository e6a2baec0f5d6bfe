//! Finding rows that have had their time. The readers' threads look, the writer removes: bounded chunks, so that
//! neither is held up, and a place to go on from, so that a large store is passed over in many calls.

use crate::keys::{self, Account, Class, Part};
use crate::page::{End, Merged};
use crate::read;
use crate::records::{AccountRecord, Entries, decode_expires, decode_numbers};
use crate::tables::{Tables, engine};
use crate::writer::{Count, Forget, Job, Shared, Victim, after_failure};
use fjall::{Readable, Snapshot};
use parking_lot::Mutex;
use starling_store::{Cursor, Position, Result, Retention, StoreError};
use starling_xmpp::Timestamp;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Rows removed by one write.
const CHUNK: usize = 1_024;
/// Chunks of one call, for expiry and for retention each.
const CHUNKS: usize = 16;
/// Rows looked at for one chunk.
const LOOKS: usize = 50_000;
/// Accounts looked at for one chunk.
const ACCOUNTS: usize = 2_000;

/// Where the last sweep stopped. One sweep at a time: a second one finds nothing to do.
#[derive(Default)]
pub(crate) struct Sweeper {
    after: Mutex<Option<Vec<u8>>>,
}

impl Sweeper {
    /// Runs on a reader's thread; waits for the writer.
    pub(crate) fn sweep(
        &self,
        tables: &Tables,
        shared: &Shared,
        now: Timestamp,
        retention: Retention,
    ) -> Result<u64> {
        let Some(mut after) = self.after.try_lock() else { return Ok(0) };
        let mut removed = 0;
        for _ in 0..CHUNKS {
            let chunk = expired(tables, shared, now)?;
            let full = chunk.rows.len() + chunk.stale.len() == CHUNK;
            let done = forget(shared, chunk)?;
            removed += done;
            if !full || done == 0 {
                break;
            }
        }
        if retention.max_age_secs.is_none() && retention.max_rows.is_none() {
            return Ok(removed);
        }
        for _ in 0..CHUNKS {
            let mut walk = Walk::new(tables, shared, now, retention);
            let next = walk.pass(after.as_deref())?;
            let wanted = walk.forget.rows.len() as u64;
            let done = forget(shared, walk.forget)?;
            removed += done;
            if done < wanted {
                break; // something changed meanwhile: the same again next time
            }
            *after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(removed)
    }
}

/// Has the writer remove what was found; how many rows it did remove.
fn forget(shared: &Shared, forget: Forget) -> Result<u64> {
    if forget.rows.is_empty() && forget.stale.is_empty() && forget.counts.is_empty() {
        return Ok(0);
    }
    let (reply, answer) = oneshot::channel();
    let weight = forget.rows.len() * 128;
    shared.queue.push(Job::Forget(forget, reply), weight).map_err(|_| StoreError::Overloaded)?;
    answer.blocking_recv().unwrap_or_else(|_| Err(after_failure()))
}

/// Rows whose end has come, found by the index of ends.
fn expired(tables: &Tables, shared: &Shared, now: Timestamp) -> Result<Forget> {
    let mut forget = Forget { seen: shared.late.load(Ordering::SeqCst), ..Forget::default() };
    let snapshot = tables.db.snapshot();
    let mut counts = BTreeMap::new();
    let first = keys::expiry(Timestamp(0), Account(0), Class(0), Position(0));
    let last = keys::expiry(now, Account(u64::MAX), Class(u8::MAX), Position(u64::MAX));
    for entry in snapshot.range(&tables.accounts, first..=last).take(CHUNK) {
        let key = entry.key().map_err(engine)?;
        let parsed = keys::parse_expiry(&key).ok_or_else(|| starling_store::codec::damaged("expiry key"))?;
        let (expires, account, class, position) = parsed;
        let row = snapshot.get(&tables.log, keys::row(account, class, position)).map_err(engine)?;
        let entries = row.map(|row| Entries::decode(&row)).transpose()?;
        match entries.filter(|entries| entries.expires == Some(expires)) {
            Some(entries) => {
                if class.archived() {
                    let count = match counts.entry(account) {
                        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                        std::collections::btree_map::Entry::Vacant(new) => {
                            new.insert(count(tables, &snapshot, account)?)
                        }
                    };
                    uncount(count, position);
                }
                forget.rows.push(Victim { account, class, position, entries });
            }
            None => forget.stale.push(key.to_vec()),
        }
    }
    forget.counts = counts.into_iter().filter_map(|(account, count)| Some((account, Some(count?)))).collect();
    Ok(forget)
}

/// A pass over accounts, as far as its bounds reach.
struct Walk<'a> {
    tables: &'a Tables,
    snapshot: Snapshot,
    cutoff: Option<Position>,
    max_rows: Option<u64>,
    forget: Forget,
    looks: usize,
}

impl<'a> Walk<'a> {
    fn new(tables: &'a Tables, shared: &Shared, now: Timestamp, retention: Retention) -> Self {
        let forget = Forget { seen: shared.late.load(Ordering::SeqCst), ..Forget::default() };
        Self {
            tables,
            snapshot: tables.db.snapshot(),
            cutoff: retention.cutoff(now).and_then(|cutoff| cutoff.0.checked_sub(1)).map(Position),
            max_rows: retention.max_rows,
            forget,
            looks: LOOKS,
        }
    }

    /// Begins after an account's key; returns the key to go on after, `None` at the end.
    fn pass(&mut self, after: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut last = after.map(<[u8]>::to_vec);
        let from = after.unwrap_or(keys::ACCOUNTS).to_vec();
        let mut seen = 0;
        for entry in self.snapshot.range(&self.tables.accounts, from..) {
            let (key, value) = entry.into_inner().map_err(engine)?;
            if !key.starts_with(keys::ACCOUNTS) {
                break;
            }
            if after == Some(&*key) {
                continue;
            }
            if seen == ACCOUNTS || self.is_full() {
                return Ok(last);
            }
            seen += 1;
            let found = self.forget.rows.len() + self.forget.counts.len();
            self.account(AccountRecord::decode_account(&value)?)?;
            if self.is_full() && self.forget.rows.len() + self.forget.counts.len() > found {
                return Ok(last); // there may be more in this account: look at it again
            }
            last = Some(key.to_vec());
        }
        Ok(None)
    }

    fn is_full(&self) -> bool {
        self.looks == 0 || self.forget.rows.len() >= CHUNK
    }

    fn account(&mut self, account: Account) -> Result<()> {
        let cursor = read::cursor(self.tables, &self.snapshot, account)?;
        let before = count(self.tables, &self.snapshot, account)?;
        let mut count = before;
        if self.max_rows.is_some() {
            let known = count.get_or_insert_default();
            if !self.count_on(account, known)? {
                self.forget.counts.push((account, count));
                return Ok(());
            }
        }
        let mine = self.forget.rows.len();
        if let Some(cutoff) = self.cutoff {
            self.aged(account, &cursor, cutoff)?;
        }
        for victim in &self.forget.rows[mine..] {
            if victim.class.archived() {
                uncount(&mut count, victim.position);
            }
        }
        if let (Some(most), Some(known)) = (self.max_rows, &mut count) {
            let surplus = known.rows.saturating_sub(most);
            known.rows -= self.surplus(account, &cursor, surplus)?;
        }
        if count != before {
            self.forget.counts.push((account, count));
        }
        Ok(())
    }

    /// Counts the rows that came since the last count. False when that takes longer than this pass may.
    fn count_on(&mut self, account: Account, count: &mut Count) -> Result<bool> {
        let Some(low) = count.through.0.checked_add(1) else { return Ok(true) };
        let mut rows = self.rows(account, archived(), (Position(low), Position(u64::MAX)))?;
        while self.looks > 0 {
            let Some(row) = rows.next()? else { return Ok(true) };
            self.looks -= 1;
            *count = Count { rows: count.rows + 1, through: row.position };
        }
        Ok(false)
    }

    /// Takes what is not younger than `cutoff`.
    fn aged(&mut self, account: Account, cursor: &Cursor, cutoff: Position) -> Result<()> {
        for class in Class::ALL {
            let mut rows =
                self.rows(account, [class].into_iter(), (Position(0), done_with(class, cursor).min(cutoff)))?;
            while !self.is_full() {
                let Some(row) = rows.next()? else { break };
                self.looks -= 1;
                let waits = class.offline() && !cursor.covers(row.position);
                if !waits && (class.archived() || decode_expires(&row.value)?.is_none()) {
                    let entries = Entries::decode(&row.value)?;
                    self.forget.rows.push(Victim { account, class, position: row.position, entries });
                }
            }
        }
        Ok(())
    }

    /// Takes the oldest archived rows, beside those already taken for their age; how many.
    fn surplus(&mut self, account: Account, cursor: &Cursor, surplus: u64) -> Result<u64> {
        let mut taken = 0;
        if surplus == 0 {
            return Ok(taken);
        }
        let low = self.cutoff.map_or(0, |cutoff| cutoff.0.saturating_add(1));
        let high = archived().map(|class| done_with(class, cursor)).max().unwrap_or_default();
        if low > high.0 {
            return Ok(taken);
        }
        let mut rows = self.rows(account, archived(), (Position(low), high))?;
        while taken < surplus && !self.is_full() {
            let Some(row) = rows.next()? else { break };
            self.looks -= 1;
            if !row.class.offline() || cursor.covers(row.position) {
                let entries = Entries::decode(&row.value)?;
                self.forget.rows.push(Victim { account, class: row.class, position: row.position, entries });
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn rows(
        &self,
        account: Account,
        classes: impl Iterator<Item = Class>,
        bounds: (Position, Position),
    ) -> Result<Merged> {
        Merged::new(self.tables, &self.snapshot, account, classes, bounds, None, End::Oldest)
    }
}

fn archived() -> impl Iterator<Item = Class> {
    Class::ALL.into_iter().filter(|class| class.archived())
}

/// Above this position every row of a class waits for a device.
fn done_with(class: Class, cursor: &Cursor) -> Position {
    if class.offline() { cursor.highest() } else { Position(u64::MAX) }
}

fn count(tables: &Tables, snapshot: &Snapshot, account: Account) -> Result<Option<Count>> {
    let value = snapshot.get(&tables.accounts, keys::part(account, Part::Count)).map_err(engine)?;
    let Some(value) = value else { return Ok(None) };
    let [rows, through] = decode_numbers(&value, "row count")?;
    Ok(Some(Count { rows, through: Position(through) }))
}

fn uncount(count: &mut Option<Count>, position: Position) {
    if let Some(count) = count
        && position <= count.through
    {
        count.rows = count.rows.saturating_sub(1);
    }
}
