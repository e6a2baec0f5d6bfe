//! Removing rows that nobody finds any more: those of removed accounts, and buckets beyond the retention.

use crate::buckets::Buckets;
use crate::codec;
use crate::cql::{Bucket, BucketRow, Change, Cql, Found, Level, Mutation, Owner, Partition, Slice, Volume};
use crate::load::done;
use crate::owners::Account;
use crate::store::Inner;
use futures::FutureExt;
use starling_store::codec::rows::decode_cursor;
use starling_store::{Cursor, Position, Result};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Owners of one slice that a sweep looks at.
const OWNERS: usize = 5_000;
/// Rows of one read.
const ROWS: usize = 256;
/// Removals are made a second time after this: by then nothing is under way any more.
const AGAIN: u64 = 86_400;
/// How often it is looked whether buckets are still being dropped.
const LOOK: Duration = Duration::from_millis(20);
/// Owners of whom is remembered that they were removed once.
const REMEMBERED: usize = 100_000;

impl<C: Cql> Inner<C> {
    /// Removes what is left of accounts that are no more. How many rows of logs that were.
    pub(crate) async fn sweep(&self, now: Timestamp) -> Result<u64> {
        let mut removed = 0;
        // What was begun for buckets that are too many is part of it.
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        while self.trims.load(Ordering::Relaxed) > 0 && self.calls.cql.monotonic() < until {
            self.calls.cql.sleep(LOOK).await;
        }
        for slice in 0..codec::PURGE_SLICES {
            let until = self.calls.deadline(self.calls.settings.read_deadline);
            let owners = self.calls.read(until, || self.calls.cql.purges(slice, OWNERS)).await?;
            for (owner, since) in owners {
                removed += self.purge(slice, owner, since, now).await?;
            }
        }
        Ok(removed)
    }

    async fn purge(&self, slice: u16, owner: Owner, since: u64, now: Timestamp) -> Result<u64> {
        let again = now.as_secs() >= since.saturating_add(AGAIN);
        if !again && self.purged.lock().contains(&owner) {
            return Ok(0);
        }
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let level = Level::Serial;
        let row = self.calls.read(until, || self.calls.cql.account(&owner.jid, level)).await?;
        let lives = row.is_some_and(|row| row.generation == owner.generation);
        if lives && !again {
            return Ok(0); // it is about to be removed
        }
        let removed = if lives { 0 } else { self.remove(&owner, again).await? };
        if again {
            let partition = Partition::Purges(slice);
            let drop = vec![Change::DropPurge(owner.clone())];
            self.write(Mutation { partition, at: self.stamp(), changes: drop, trace: None, attempt: 1 })
                .await?;
            self.purged.lock().remove(&owner);
        } else {
            let mut purged = self.purged.lock();
            if purged.len() < REMEMBERED {
                purged.insert(owner);
            }
        }
        Ok(removed)
    }

    /// Removes all partitions of an owner; the list of its buckets the last time only, for by it what is late is found.
    async fn remove(&self, owner: &Owner, last: bool) -> Result<u64> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let buckets = self.buckets(owner, until).await?;
        let mut rows = 0;
        let mut peers: BTreeSet<(BareJid, Volume)> = BTreeSet::new();
        let mut at = self.above_all();
        for bucket in &buckets {
            let mut low = Position(0);
            loop {
                let some = self.some(owner, bucket.bucket, low).await?;
                rows += some.len() as u64;
                let rows_of = some.iter().filter_map(Found::stored);
                peers.extend(rows_of.map(|stored| (stored.row.with.clone(), bucket.volume)));
                let Some(last) = some.last().map(Found::position) else { break };
                // Of an account that was removed without a reign.
                at = at.max(Position(last.0 + 1));
                if some.len() < ROWS {
                    break;
                }
                low = Position(last.0 + 1);
            }
        }
        let drop =
            |partition| Mutation { partition, at, changes: vec![Change::DropAll], trace: None, attempt: 1 };
        for (peer, volume) in peers {
            self.write(drop(Partition::Peer(owner.clone(), peer, volume))).await?;
        }
        for bucket in &buckets {
            self.write(drop(Partition::Log(owner.clone(), bucket.bucket))).await?;
        }
        self.write(drop(Partition::Data(owner.clone()))).await?;
        if last {
            self.write(drop(Partition::Buckets(owner.clone()))).await?;
        }
        Ok(rows)
    }

    /// Drops the oldest buckets where the retention says so. Runs beside everything else; a failure leaves it to the next
    /// bucket that is opened.
    pub(crate) fn trim(self: &Arc<Self>, account: &Arc<Account>, at: Position) {
        {
            let mut lane = account.lane.lock();
            let alone = lane.opened.as_ref().is_none_or(|opened| opened.buckets.all().len() < 2);
            if alone || lane.trimming {
                return;
            }
            lane.trimming = true;
        }
        self.trims.fetch_add(1, Ordering::Relaxed);
        let trim = Trim { inner: Arc::clone(self), account: Arc::clone(account) };
        let task = async move {
            if let Err(error) = trim.inner.trim_all(&trim.account, at).await {
                tracing::debug!(%error, "old rows stay until the next bucket is opened");
            }
        };
        self.calls.cql.spawn(task.boxed());
    }

    async fn trim_all(&self, account: &Account, at: Position) -> Result<()> {
        let mut cursor = None;
        loop {
            let oldest = {
                let lane = account.lane.lock();
                let Some(opened) = &lane.opened else { return Ok(()) };
                let oldest = surplus(&opened.buckets, self.calls.settings.retention.max_rows);
                oldest.map(|(oldest, next)| (opened.owner.clone(), oldest, next))
            };
            let Some((owner, oldest, full)) = oldest else { return Ok(()) };
            if cursor.is_none() && full {
                cursor = Some(self.cursor(&owner).await?);
            }
            let Some(peers) = self.droppable(&owner, oldest, full, cursor.as_ref()).await? else {
                return Ok(());
            };
            if let Some(opened) = &mut account.lane.lock().opened {
                opened.buckets.drop_oldest(oldest.bucket);
            }
            self.drop_bucket(&owner, oldest, peers, at).await?;
        }
    }

    /// The cursor as it is stored.
    pub(crate) async fn cursor(&self, owner: &Owner) -> Result<Cursor> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let data = self.calls.read(until, || self.calls.cql.data(owner)).await?;
        let cursor = data.iter().find(|row| row.kind == crate::cql::DataKind::Cursor);
        cursor.map_or_else(|| Ok(Cursor::default()), |row| decode_cursor(&row.body))
    }

    /// The peers of a bucket's rows, each with its lowest and highest position, if the bucket may go: rows are in it only
    /// where they are too many, and none waits for a device.
    async fn droppable(
        &self,
        owner: &Owner,
        oldest: BucketRow,
        full: bool,
        cursor: Option<&Cursor>,
    ) -> Result<Option<BTreeMap<BareJid, (Position, Position)>>> {
        let mut peers: BTreeMap<BareJid, (Position, Position)> = BTreeMap::new();
        let mut low = Position(0);
        loop {
            let some = self.some(owner, oldest.bucket, low).await?;
            // What cannot be read waits for nobody.
            if !full && !some.is_empty() {
                return Ok(None);
            }
            for row in some.iter().filter_map(Found::stored).map(|stored| &stored.row) {
                let waits = row.offline && cursor.is_none_or(|cursor| !cursor.covers(row.position));
                if waits && !codec::has_ended(row, &self.calls.settings, (self.now)()) {
                    return Ok(None);
                }
                let range = peers.entry(row.with.clone()).or_insert((row.position, row.position));
                range.1 = row.position;
            }
            match some.last() {
                Some(last) if some.len() == ROWS => low = Position(last.position().0 + 1),
                _ => return Ok(Some(peers)),
            }
        }
    }

    async fn drop_bucket(
        &self,
        owner: &Owner,
        oldest: BucketRow,
        peers: BTreeMap<BareJid, (Position, Position)>,
        at: Position,
    ) -> Result<()> {
        let change =
            |partition, change| Mutation { partition, at, changes: vec![change], trace: None, attempt: 1 };
        // What is needed to find the rest goes after it: whatever fails is found again by the next load.
        for (peer, (low, high)) in peers {
            let partition = Partition::Peer(owner.clone(), peer, oldest.volume);
            self.write(change(partition, Change::DropPeers(low, high))).await?;
        }
        self.write(change(Partition::Log(owner.clone(), oldest.bucket), Change::DropAll)).await?;
        let listing = Change::DropBuckets(oldest.bucket, oldest.bucket);
        self.write(change(Partition::Buckets(owner.clone()), listing)).await
    }

    async fn write(&self, mutation: Mutation) -> Result<()> {
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        done(self.calls.write_all(vec![mutation], until).await)
    }

    /// The oldest rows of a bucket from a position on.
    async fn some(&self, owner: &Owner, bucket: Bucket, low: Position) -> Result<Vec<Found>> {
        let until: Duration = self.calls.deadline(self.calls.settings.read_deadline);
        let slice = Slice { low, high: codec::HIGHEST, newest: false, limit: ROWS };
        self.rows(owner, bucket, slice, until).await
    }
}

/// Buckets of an account are being dropped.
struct Trim<C: Cql> {
    inner: Arc<Inner<C>>,
    account: Arc<Account>,
}

impl<C: Cql> Drop for Trim<C> {
    fn drop(&mut self) {
        self.account.lane.lock().trimming = false;
        self.inner.trims.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The oldest bucket, if it is to be looked at, and whether it may go with rows in it: the others hold enough.
fn surplus(buckets: &Buckets, max_rows: Option<u64>) -> Option<(BucketRow, bool)> {
    let [oldest, _, ..] = buckets.all() else { return None };
    let others = buckets.rows().saturating_sub(u64::from(buckets.rows_of(oldest.bucket)));
    Some((*oldest, max_rows.is_some_and(|most| others >= most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use starling_store::testing::at;

    #[test]
    fn a_bucket_is_too_many_when_the_others_hold_enough() {
        let settings = Settings { bucket_rows: 3, ..Settings::default() };
        let mut buckets = Buckets::default();
        for secs in [10, 11, 12, 13, 14, 15] {
            assert!(surplus(&buckets, Some(3)).is_none_or(|(_, full)| !full));
            buckets.place(at(secs), &settings);
        }
        let (oldest, full) = surplus(&buckets, Some(3)).unwrap();
        assert_eq!((oldest.bucket, full), (Bucket(at(10)), true));
        assert!(!surplus(&buckets, Some(4)).unwrap().1);
        assert!(!surplus(&buckets, None).unwrap().1, "an empty one may go in any case");
    }
}
