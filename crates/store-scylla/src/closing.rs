//! Closing an account: what was written and not seen is never seen.
//!
//! A reign that ended, or a commit that was given up, may have writes under way. Each of them has a timestamp below the
//! floor P of who closes. So what was seen is written again at P, and then everything in the ranges in which such
//! writes can lie is deleted at P-1: what was seen stays, what arrives later was deleted before it came. Each step is
//! durable before the next begins, and who repeats them does so with a higher floor.
//!
//! The ranges are exact, and small. Every row says up to which position all commits to its account had ended when it was
//! decided ([`StoredRow::safe`]); what may be late lies above the `safe` of the newest row, usually one to three rows.
//!
//! A closing that did not end is a late write, too: a reign that was put to sleep before its deletes wakes up, and what a
//! still older one has written meanwhile, and this one has found, is in their range, and they are newer. So whoever closes
//! says from where it deletes ([`Mark::Closing`]), and then reads the claim once more, before it deletes anything;
//! whoever follows it claims, reads that mark, and writes all from there on again. One of them sees the other.
//!
//! The log is closed once a reign. Roster and documents, of which all must be written again, are closed only where a reign
//! said in advance that it writes them; see [`Needs::of`].

use crate::buckets::Place;
use crate::codec::{self, Mark};
use crate::cql::{
    Bucket, BucketRow, Change, DataKind, DataRow, Found, Mutation, Owner, Partition, StoredRow,
};
use crate::log::Carrier;
use crate::settings::Settings;
use starling_store::{DocKind, Position, StoreError};
use starling_xmpp::Timestamp;
use std::collections::BTreeSet;

/// The kinds that have a mark. The cursor has none: what a device has acknowledged stays so, whoever wrote it. What was
/// seen of it is written again with the marks, since a single replica may have had it.
const MARKED: [DataKind; 4] = [DataKind::Contact, DataKind::Removed, DataKind::RosterVersion, DataKind::Doc];

/// Buckets whose rows are deleted when they are unlisted.
const MOST_UNLISTED: usize = 32;

/// What was read of an account.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) data: Vec<DataRow>,
    /// Oldest first.
    pub(crate) buckets: Vec<BucketRow>,
    /// The newest row, and all rows above `safe`, newest first.
    pub(crate) tail: Vec<(Bucket, Found)>,
    /// Nothing at or below it is late: the `safe` of the newest row that can be read, or that of a closing that did not end.
    pub(crate) safe: Position,
}

/// Which parts of an account are to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) log: bool,
    pub(crate) data: bool,
}

/// What closes an account, step by step: all of one step may be written side by side.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    pub(crate) again: Vec<Mutation>,
    pub(crate) gone: Vec<Mutation>,
    /// Deletes in older buckets, newest first, each a step of its own: a row whose predecessor was deleted is never seen.
    pub(crate) older: Vec<Mutation>,
    pub(crate) marks: Vec<Mutation>,
    /// The buckets that are left, oldest first.
    pub(crate) buckets: Vec<BucketRow>,
}

/// What the process that closes knows by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Of its reign; 0 before any.
    pub(crate) epoch: u64,
    /// It has closed the account under this reign.
    pub(crate) closed: bool,
    /// A commit of its own is in doubt.
    pub(crate) uncertain: bool,
}

impl Needs {
    /// Judges by the marks.
    ///
    /// Data: a reign writes its mark and then reads the claim; whoever follows it writes its claim and then reads the mark.
    /// So one of them sees the other, even where the older one was asleep for an hour between two steps: it finds
    /// that it was followed, or it is closed.
    pub(crate) fn of(data: &[DataRow], known: Known) -> Result<Self, StoreError> {
        let marks = [Mark::Claim, Mark::Log, Mark::Data].map(|mark| mark.of(data));
        if marks.iter().flatten().any(|epoch| *epoch > known.epoch) {
            return Err(StoreError::Fenced);
        }
        let [_, log, writes] = marks;
        let log_was_closed = known.closed || log == Some(known.epoch) || known.epoch == 0;
        let data_was_written = writes.filter(|epoch| *epoch != 0);
        Ok(Self {
            log: known.uncertain || !log_was_closed,
            data: data_was_written.is_some_and(|epoch| epoch < known.epoch || known.uncertain),
        })
    }
}

impl Seen {
    /// The rows of the tail that can be read.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Bucket, &StoredRow)> {
        self.tail.iter().filter_map(|(bucket, row)| Some((*bucket, row.stored()?)))
    }

    /// Plans the steps; `floor` is P.
    pub(crate) fn closing(
        &self,
        owner: &Owner,
        needs: Needs,
        known: Known,
        floor: Position,
        now: Timestamp,
        settings: &Settings,
    ) -> Closing {
        let mut again = Carrier::new(floor);
        let mut gone = Carrier::new(Position(floor.0.saturating_sub(1)));
        let mut older = Carrier::new(Position(floor.0.saturating_sub(1)));
        let mut marks = Vec::new();
        let mut buckets = self.buckets.clone();
        if needs.log {
            buckets = self.close_log(owner, floor, now, settings, &mut again, &mut gone, &mut older);
            let from = Change::PutData(Mark::Closing.row(self.safe.0.saturating_add(1)));
            again.carry(Partition::Data(owner.clone()), vec![from]);
            marks.push(Change::PutData(Mark::Log.row(known.epoch)));
            marks.push(Change::DropData(DataKind::Mark, Mark::Closing.name().to_owned()));
            // No note of a removal was seen: one that is late is not to be seen either.
            marks.push(Change::PutData(Mark::Removal.row(0)));
            let cursor = self.data.iter().filter(|row| row.kind == DataKind::Cursor);
            marks.extend(cursor.cloned().map(Change::PutData));
        }
        if needs.data {
            let partition = Partition::Data(owner.clone());
            again.carry(partition.clone(), self.data_again());
            gone.carry(partition, MARKED.map(Change::DropKind).into());
            marks.push(Change::PutData(Mark::Data.row(0)));
        }
        let mut done = Carrier::new(floor);
        done.carry(Partition::Data(owner.clone()), marks);
        let [again, gone, older, marks] = [again, gone, older, done].map(|carrier| carrier.mutations);
        Closing { again, gone, older, marks, buckets }
    }

    #[allow(clippy::too_many_arguments)] // what `closing` has begun
    fn close_log(
        &self,
        owner: &Owner,
        floor: Position,
        now: Timestamp,
        settings: &Settings,
        again: &mut Carrier,
        gone: &mut Carrier,
        older: &mut Carrier,
    ) -> Vec<BucketRow> {
        // A bucket above that of the newest row has none that was confirmed: it is unlisted, and with it whatever is in it.
        let safe = self.safe;
        let newest = self.tail.first().map(|(bucket, _)| *bucket);
        let kept: Vec<_> = match newest {
            Some(bucket) => self.buckets.iter().filter(|row| row.bucket <= bucket).copied().collect(),
            None => Vec::new(),
        };
        let above = newest.map_or(Bucket(Position(0)), |bucket| Bucket(Position(bucket.0.0 + 1)));
        // An account that this reign has written to before it closes it has nothing below the floor.
        if above.0 <= floor {
            let range = Change::DropBuckets(above, Bucket(floor));
            gone.carry(Partition::Buckets(owner.clone()), vec![range]);
        }
        // What arrives in them later would be in nobody's list for ever. That concerns the last few: an account has one
        // flight at a time, which opens one bucket.
        for row in self.buckets[kept.len()..].iter().rev().take(MOST_UNLISTED) {
            gone.carry(Partition::Log(owner.clone(), row.bucket), vec![Change::DropAll]);
        }
        let Some(bucket) = newest else { return kept };
        let first = concerned(&kept, safe);
        for row in kept[first..].iter().rev() {
            let step = if row.bucket == bucket { &mut *gone } else { &mut *older };
            step.carry(Partition::Log(owner.clone(), row.bucket), self.late(row.bucket, safe, floor));
        }
        // The listing of a bucket that was opened by what may be under way, or of the newest, may have too few copies;
        // the one before them was written with them.
        let listed = first.saturating_sub(1);
        let listings: Vec<_> = kept[listed..].iter().map(|row| Change::PutBucket(*row)).collect();
        again.carry(Partition::Buckets(owner.clone()), listings);
        debug_assert!(kept.last().is_some_and(|row| row.bucket == bucket));
        let rows = self.rows().filter(|(_, row)| row.row.position > safe);
        let rows =
            rows.filter(|(_, row)| !codec::has_ended(&row.row, settings, now)).filter_map(|(bucket, row)| {
                let listed = kept.iter().find(|kept| kept.bucket == bucket)?;
                let place =
                    Place { bucket, volume: listed.volume, nth: row.nth, filled: row.filled, opens: false };
                Some((place, Box::new(row.clone())))
            });
        again.rows(owner, rows, now, settings);
        kept
    }

    /// Where rows of a bucket may be late: above `safe`, and around what is there and cannot be read, since that cannot be
    /// written again.
    fn late(&self, bucket: Bucket, safe: Position, floor: Position) -> Vec<Change> {
        let mut kept: Vec<_> = self
            .tail
            .iter()
            .filter(|(of, row)| *of == bucket && row.stored().is_none() && row.position() > safe)
            .map(|(_, row)| row.position())
            .collect();
        kept.sort_unstable();
        kept.push(Position(floor.0.saturating_add(1)));
        let mut low = Position(safe.0.saturating_add(1));
        let mut ranges = Vec::new();
        for end in kept {
            // What this reign has written before it closes the account may lie above the floor.
            let high = Position(end.0.saturating_sub(1)).min(floor);
            if low <= high {
                ranges.push(Change::DropRows(low, high));
            }
            low = Position(end.0.saturating_add(1));
        }
        ranges
    }

    /// All that was seen, and that the rest was not: who closes after a closing that ended here finds both, or neither.
    fn data_again(&self) -> Vec<Change> {
        let contacts: BTreeSet<_> =
            self.data.iter().filter(|row| row.kind == DataKind::Contact).map(|row| &row.name).collect();
        let kept = self.data.iter().filter(|row| MARKED.contains(&row.kind));
        // A contact that is there was not removed.
        let kept = kept.filter(|row| row.kind != DataKind::Removed || !contacts.contains(&row.name));
        let kept = kept.flat_map(|row| {
            let gone = row.kind == DataKind::Removed;
            let gone = gone.then(|| Change::DropData(DataKind::Contact, row.name.clone()));
            [Some(Change::PutData(row.clone())), gone]
        });
        let is_there = |name: &str| self.data.iter().any(|row| row.kind == DataKind::Doc && row.name == name);
        let absent = DocKind::ALL.iter().map(|kind| kind.as_str()).filter(|name| !is_there(name));
        kept.flatten().chain(absent.map(|name| Change::DropData(DataKind::Doc, name.to_owned()))).collect()
    }
}

/// The first of the buckets that holds a position above `safe`.
pub(crate) fn concerned(buckets: &[BucketRow], safe: Position) -> usize {
    let above = Position(safe.0.saturating_add(1));
    buckets.partition_point(|row| row.bucket.0 <= above).saturating_sub(1)
}

#[cfg(test)]
mod tests;
