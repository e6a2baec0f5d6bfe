//! Which buckets a log has, and where a row belongs.

use crate::codec::micros;
use crate::cql::{Bucket, BucketRow, Volume};
use crate::settings::Settings;
use starling_store::Position;
use std::ops::RangeInclusive;

/// The buckets of a log, oldest first. Between them they hold every position: the oldest one also what lies below its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Buckets {
    list: Vec<BucketRow>,
    /// Rows of the newest one, and about how many bytes they have.
    rows: u32,
    bytes: u32,
    /// Those whose listing is not confirmed, with the one that each of them closed.
    unlisted: Vec<Bucket>,
}

/// Where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: Bucket,
    pub(crate) volume: Volume,
    /// The how many-th row of the bucket it is.
    pub(crate) nth: u32,
    /// Bytes of the bucket with it.
    pub(crate) filled: u32,
    /// The bucket was made for it.
    pub(crate) opens: bool,
}

impl Buckets {
    /// As they were read, in any order; `rows` is how many the newest one has, and `bytes` how many these have.
    pub(crate) fn new(mut list: Vec<BucketRow>, rows: u32, bytes: u32) -> Self {
        list.sort_unstable_by_key(|row| row.bucket);
        Self { list, rows, bytes, unlisted: Vec::new() }
    }

    /// Finds the place of a row of so many bytes, in a new bucket where the newest one takes no more.
    pub(crate) fn place(&mut self, position: Position, bytes: usize, settings: &Settings) -> Place {
        if let Some(newest) = self.list.last() {
            if position < newest.bucket.0 {
                let row = self.holding(position).unwrap_or(*newest);
                let nth = row.rows.max(1);
                return Place { bucket: row.bucket, volume: row.volume, nth, filled: 0, opens: false };
            }
            let age = position.0 - newest.bucket.0.0;
            let (bucket, volume) = (newest.bucket, newest.volume);
            let room = self.rows < settings.bucket_rows && self.bytes < settings.bucket_bytes;
            if room && age < micros(settings.bucket_age) {
                return self.fill(bucket, volume, bytes);
            }
        }
        let bucket = Bucket(position);
        let volume = self.volume(settings).unwrap_or(Volume(position));
        if let Some(newest) = self.list.last_mut() {
            newest.rows = self.rows;
        }
        self.list.push(BucketRow { bucket, volume, rows: 0 });
        (self.rows, self.bytes) = (0, 0);
        self.unlisted.push(bucket);
        Place { opens: true, ..self.fill(bucket, volume, bytes) }
    }

    /// One more row in the newest bucket.
    fn fill(&mut self, bucket: Bucket, volume: Volume, bytes: usize) -> Place {
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        Place { bucket, volume, nth: self.rows, filled: self.bytes, opens: false }
    }

    /// About how many bytes a row has, as far as is known.
    pub(crate) fn usual_bytes(&self) -> usize {
        (self.bytes / self.rows.max(1)) as usize
    }

    /// The place of a further row that is written in one with one that was just placed in the newest bucket: in that one,
    /// though it may be full, for a mutation of one partition is there as a whole or not at all.
    pub(crate) fn beside(&mut self, bytes: usize) -> Option<Place> {
        let BucketRow { bucket, volume, .. } = *self.list.last()?;
        Some(self.fill(bucket, volume, bytes))
    }

    /// The volume of the next bucket, unless that begins one: because the newest is full, or because its beginning has
    /// been dropped (so that an index loses its dead entries by and by).
    fn volume(&self, settings: &Settings) -> Option<Volume> {
        let volume = self.list.last()?.volume;
        let of_it = || self.list.iter().rev().take_while(|row| row.volume == volume);
        let begins_here = of_it().last().is_some_and(|row| row.bucket.0 == volume.0);
        (begins_here && of_it().count() < settings.volume_buckets).then_some(volume)
    }

    /// The listings that are to be written (again) with the next row: buckets not confirmed, and those before them.
    pub(crate) fn unlisted(&self) -> Vec<BucketRow> {
        let mut rows = Vec::new();
        for bucket in &self.unlisted {
            let Ok(at) = self.list.binary_search_by_key(bucket, |row| row.bucket) else { continue };
            for at in at.saturating_sub(1)..=at {
                if rows.last().is_none_or(|last: &BucketRow| last.bucket < self.list[at].bucket) {
                    rows.push(self.list[at]);
                }
            }
        }
        rows
    }

    /// The buckets whose listing is not confirmed.
    pub(crate) fn pending(&self) -> &[Bucket] {
        &self.unlisted
    }

    /// These listings are durable.
    pub(crate) fn confirm(&mut self, buckets: &[Bucket]) {
        self.unlisted.retain(|bucket| !buckets.contains(bucket));
    }

    /// The bucket that holds a position.
    pub(crate) fn holding(&self, position: Position) -> Option<BucketRow> {
        let above = self.list.partition_point(|row| row.bucket.0 <= position);
        self.list.get(above.saturating_sub(1)).copied()
    }

    /// The buckets that may have rows within the bounds, oldest first.
    pub(crate) fn within(&self, bounds: RangeInclusive<Position>) -> &[BucketRow] {
        let end = self.list.partition_point(|row| row.bucket.0 <= *bounds.end());
        let begin = self.list.partition_point(|row| row.bucket.0 <= *bounds.start()).saturating_sub(1);
        // Below the first name there is the first bucket.
        self.list.get(begin..end.max(1).min(self.list.len())).unwrap_or_default()
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> &[BucketRow] {
        &self.list
    }

    /// Rows in all of them, as far as is known.
    pub(crate) fn rows(&self) -> u64 {
        let closed = self.list.split_last().map_or(&[] as &[BucketRow], |(_, closed)| closed);
        closed.iter().map(|row| u64::from(row.rows)).sum::<u64>() + u64::from(self.rows)
    }

    /// Rows in one of them, as far as is known.
    pub(crate) fn rows_of(&self, bucket: Bucket) -> u32 {
        match self.list.last() {
            Some(newest) if newest.bucket == bucket => self.rows,
            _ => {
                let at = self.list.binary_search_by_key(&bucket, |row| row.bucket);
                at.map_or(0, |at| self.list[at].rows)
            }
        }
    }

    /// Whether it is the newest.
    pub(crate) fn is_newest(&self, bucket: Bucket) -> bool {
        self.list.last().is_some_and(|row| row.bucket == bucket)
    }

    /// Forgets the oldest bucket, if it is this one.
    pub(crate) fn drop_oldest(&mut self, bucket: Bucket) {
        if self.list.len() > 1 && self.list[0].bucket == bucket {
            self.list.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::testing::at;
    use std::time::Duration;

    fn settings() -> Settings {
        Settings {
            bucket_rows: 3,
            bucket_age: Duration::from_secs(100),
            volume_buckets: 2,
            ..Settings::default()
        }
    }

    fn names(rows: &[BucketRow]) -> Vec<u64> {
        rows.iter().map(|row| row.bucket.0.0 / 1_000_000).collect()
    }

    #[test]
    fn a_bucket_closes_when_it_is_full_or_old() {
        let mut buckets = Buckets::default();
        let places: Vec<_> =
            [10, 11, 12, 13, 112, 113].map(|secs| buckets.place(at(secs), 100, &settings())).into();
        assert_eq!(places.iter().map(|place| place.nth).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 1]);
        assert_eq!(
            places.iter().map(|place| place.opens).collect::<Vec<_>>(),
            [true, false, false, true, false, true]
        );
        assert_eq!(names(buckets.all()), [10, 13, 113]);
        assert_eq!(buckets.all().iter().map(|row| row.rows).collect::<Vec<_>>(), [3, 2, 0]);
        assert_eq!(
            (buckets.rows(), buckets.rows_of(Bucket(at(13))), buckets.rows_of(Bucket(at(113)))),
            (6, 2, 1)
        );
        let volumes: Vec<_> = buckets.all().iter().map(|row| row.volume.0).collect();
        assert_eq!(volumes, [at(10), at(10), at(113)], "two to a volume");
    }

    #[test]
    fn a_late_row_goes_where_its_position_is() {
        let mut buckets = Buckets::default();
        for secs in [10, 11, 12, 13] {
            buckets.place(at(secs), 100, &settings());
        }
        let late = buckets.place(at(11), 100, &settings());
        assert_eq!((late.bucket, late.opens), (Bucket(at(10)), false));
        assert_eq!(buckets.place(at(5), 100, &settings()).bucket, Bucket(at(10)), "below the first");
        assert_eq!(buckets.place(at(14), 100, &settings()).nth, 2, "late rows do not count");
    }

    #[test]
    fn listings_are_written_until_they_are_confirmed() {
        let mut buckets = Buckets::default();
        for secs in [10, 11, 12, 13] {
            buckets.place(at(secs), 100, &settings());
        }
        assert_eq!(names(&buckets.unlisted()), [10, 13]);
        buckets.confirm(&[Bucket(at(10))]);
        assert_eq!(names(&buckets.unlisted()), [10, 13], "the closed one has its count now");
        buckets.confirm(&[Bucket(at(13))]);
        assert!(buckets.unlisted().is_empty());
    }

    #[test]
    fn bounds_find_their_buckets() {
        let mut buckets = Buckets::default();
        for secs in [10, 11, 12, 20, 21, 22, 30] {
            buckets.place(at(secs), 100, &settings());
        }
        let within = |low, high| names(buckets.within(at(low)..=at(high)));
        assert_eq!(within(0, 100), [10, 20, 30]);
        assert_eq!(within(0, 5), [10]);
        assert_eq!(within(12, 19), [10]);
        assert_eq!(within(20, 20), [20]);
        assert_eq!(within(15, 30), [10, 20, 30]);
        assert_eq!(within(31, 99), [30]);
        assert!(Buckets::default().within(at(0)..=at(9)).is_empty());
    }

    #[test]
    fn a_volume_ends_when_its_beginning_is_dropped() {
        let settings = Settings { volume_buckets: 50, ..settings() };
        let mut buckets = Buckets::default();
        for secs in [10, 200, 400] {
            buckets.place(at(secs), 100, &settings);
        }
        buckets.drop_oldest(Bucket(at(10)));
        assert_eq!(buckets.place(at(600), 100, &settings).volume, Volume(at(600)));
        buckets.drop_oldest(Bucket(at(10)));
        assert_eq!(names(buckets.all()), [200, 400, 600], "it is gone already");
    }
}
