//! Removing rows that nobody finds any more: those of removed accounts, and buckets beyond the retention.

use crate::buckets::Buckets;
use crate::codec;
use crate::cql::{
    Bucket, BucketRow, Change, Cql, Found, Level, Mutation, Owner, Partition, PurgeRow, Slice, Volume,
};
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

/// What one sweep does at most: partitions of `purges` it looks at, owners it removes, and rows after which it begins with no
/// other bucket.
const LOOKS: usize = 512;
const OWNERS: usize = 200;
const MOST_ROWS: u64 = 20_000;
/// Entries of one read.
const ENTRIES: usize = 500;
/// Removals that were noted so many days ago are found by the first sweeps after a start.
const DAYS_BACK: u32 = 400;
/// Rows of one read.
const ROWS: usize = 256;
/// So many days after they were noted removals are made a second time: by then nothing is under way any more.
const AGAIN: u32 = 2;
/// How often it is looked whether buckets are still being dropped.
const LOOK: Duration = Duration::from_millis(20);
/// How far the list of removals has been looked through. Round by round, each from the newest day back; what is left in a
/// day's partition goes with all of it, so there are no tombstones to wade through.
#[derive(Default)]
pub(crate) struct Walk {
    /// When this round began.
    today: u32,
    /// Where it goes on, and behind whom.
    place: Option<(u32, u16)>,
    after: Option<Owner>,
    /// The highest position of what was in this partition.
    held: Option<Position>,
    /// Partitions in which nothing is left, and nothing comes any more.
    done: BTreeSet<(u32, u16)>,
}

impl Walk {
    /// The partition to look at; `None` once at the end of each round.
    fn place(&mut self, today: u32) -> Option<(u32, u16)> {
        if self.place.is_none() {
            if today < self.today {
                self.done.clear(); // by a clock that was wrong
            }
            self.today = today;
            self.done.retain(|(day, _)| day.saturating_add(DAYS_BACK) >= today);
        }
        let first = self.place.unwrap_or((self.today, 0));
        let oldest = self.today.saturating_sub(DAYS_BACK);
        let rest = (first.1..codec::PURGE_SLICES).map(|slice| (first.0, slice));
        let days = (oldest..first.0).rev();
        let mut places = rest.chain(days.flat_map(|day| (0..codec::PURGE_SLICES).map(move |of| (day, of))));
        self.place = places.find(|place| !self.done.contains(place));
        self.place
    }

    /// The partition has been looked through.
    fn pass(&mut self, (day, slice): (u32, u16), last: bool) {
        if last {
            self.done.insert((day, slice));
        }
        (self.after, self.held) = (None, None);
        self.place = Some((day, slice + 1));
    }
}

impl<C: Cql> Inner<C> {
    /// Removes some of what is left of accounts that are no more. How many rows that were.
    pub(crate) async fn sweep(&self, now: Timestamp) -> Result<u64> {
        let mut removed = 0;
        // What was begun for buckets that are too many is part of it.
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        while self.trims.load(Ordering::Relaxed) > 0 && self.calls.cql.monotonic() < until {
            self.calls.cql.sleep(LOOK).await;
        }
        let mut walk = self.walk.lock().await;
        let today = codec::day(now.as_secs());
        let mut owners = OWNERS;
        for _ in 0..LOOKS {
            let Some(place) = walk.place(today) else { break };
            let last = place.0.saturating_add(AGAIN) <= today;
            let (until, after) = (self.calls.deadline(self.calls.settings.read_deadline), walk.after.clone());
            let read = || self.calls.cql.purges(place.0, place.1, after.as_ref(), ENTRIES);
            let rows = self.calls.read(until, read).await?;
            let more = rows.len() == ENTRIES;
            walk.held = walk.held.max(rows.iter().map(|row| Position(row.since)).max());
            for row in rows {
                if row.removed && !last {
                    walk.after = Some(row.owner);
                    continue;
                }
                if owners == 0 || removed >= MOST_ROWS {
                    return Ok(removed);
                }
                owners -= 1;
                let (some, whole) = self.purge(place, &row, last).await?;
                removed += some;
                if !whole {
                    return Ok(removed);
                }
                walk.after = Some(row.owner);
            }
            if more {
                continue;
            }
            if let Some(held) = walk.held.filter(|_| last) {
                let (partition, at) = (Partition::Purges(place.0, place.1), above(held, 2));
                let changes = vec![Change::DropAll];
                self.write(Mutation { partition, at, changes, traces: Vec::new(), attempt: 1 }).await?;
            }
            walk.pass(place, last);
        }
        Ok(removed)
    }

    /// Removes an owner's rows; how many, the one of its account among them, and whether that is all of them.
    async fn purge(&self, (day, slice): (u32, u16), row: &PurgeRow, last: bool) -> Result<(u64, bool)> {
        let owner = &row.owner;
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let level = Level::Serial;
        let account = self.calls.read(until, || self.calls.cql.account(&owner.jid, level)).await?;
        if account.is_some_and(|account| account.generation == owner.generation) {
            // It is about to be removed, or was not. Whoever finds that it is to be notes it again.
            return Ok((0, true));
        }
        let (rows, whole) = self.remove(owner, Position(row.since), last).await?;
        if whole && !last {
            let changes = vec![Change::PutPurge(PurgeRow { removed: true, ..row.clone() })];
            let (partition, at) = (Partition::Purges(day, slice), above(Position(row.since), 1));
            self.write(Mutation { partition, at, changes, traces: Vec::new(), attempt: 1 }).await?;
        }
        Ok((rows + 1, whole))
    }

    /// Removes all partitions of an owner, of which nothing was written above a position, or of a very long log some; the list
    /// of its buckets the last time only, for by it what is late is found.
    async fn remove(&self, owner: &Owner, since: Position, last: bool) -> Result<(u64, bool)> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let buckets = self.buckets(owner, until).await?;
        let mut rows = 0;
        let mut dropped: BTreeSet<(BareJid, Volume)> = BTreeSet::new();
        let mut at = above(since, 1);
        let drop = |partition, at| Mutation {
            partition,
            at,
            changes: vec![Change::DropAll],
            traces: Vec::new(),
            attempt: 1,
        };
        for bucket in &buckets {
            if rows >= MOST_ROWS {
                return Ok((rows, false));
            }
            let mut peers = BTreeSet::new();
            let mut low = Position(0);
            loop {
                let some = self.some(owner, bucket.bucket, low).await?;
                rows += some.len() as u64;
                peers.extend(some.iter().filter_map(Found::stored).map(|stored| stored.row.with.clone()));
                let Some(newest) = some.last().map(Found::position) else { break };
                // Of an account that was removed without a reign.
                at = at.max(above(newest, 1));
                if some.len() < ROWS {
                    break;
                }
                low = Position(newest.0 + 1);
            }
            for peer in peers {
                if dropped.insert((peer.clone(), bucket.volume)) {
                    self.write(drop(Partition::Peer(owner.clone(), peer, bucket.volume), at)).await?;
                }
            }
            self.write(drop(Partition::Log(owner.clone(), bucket.bucket), at)).await?;
        }
        self.write(drop(Partition::Data(owner.clone()), at)).await?;
        if last {
            self.write(drop(Partition::Buckets(owner.clone()), at)).await?;
        }
        Ok((rows, true))
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
        let change = |partition, change| Mutation {
            partition,
            at,
            changes: vec![change],
            traces: Vec::new(),
            attempt: 1,
        };
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

fn above(position: Position, by: u64) -> Position {
    Position(position.0.saturating_add(by))
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

    #[test]
    fn a_walk_goes_back_from_today_and_past_what_is_done() {
        let mut walk = Walk::default();
        let round = |walk: &mut Walk, today| {
            let mut places = Vec::new();
            while let Some(place) = walk.place(today) {
                places.push(place);
                walk.pass(place, place.0 + AGAIN <= today);
            }
            places
        };
        let first = round(&mut walk, 20_000);
        assert_eq!(first.len(), 401 * 16);
        assert_eq!((first[0], first[16]), ((20_000, 0), (19_999, 0)));
        let second = round(&mut walk, 20_000);
        assert_eq!(second, first[..32], "the second time for what is old");
        let next = round(&mut walk, 20_001);
        assert_eq!((next.len(), next[0], next[47]), (48, (20_001, 0), (19_999, 15)));
        assert_eq!(round(&mut walk, 20_000).len(), 401 * 16, "the clock was wrong");
    }
    use crate::settings::Settings;
    use starling_store::testing::at;

    #[test]
    fn a_bucket_is_too_many_when_the_others_hold_enough() {
        let settings = Settings { bucket_rows: 3, ..Settings::default() };
        let mut buckets = Buckets::default();
        for secs in [10, 11, 12, 13, 14, 15] {
            assert!(surplus(&buckets, Some(3)).is_none_or(|(_, full)| !full));
            buckets.place(at(secs), 100, &settings);
        }
        let (oldest, full) = surplus(&buckets, Some(3)).unwrap();
        assert_eq!((oldest.bucket, full), (Bucket(at(10)), true));
        assert!(!surplus(&buckets, Some(4)).unwrap().1);
        assert!(!surplus(&buckets, None).unwrap().1, "an empty one may go in any case");
    }
}
