//! Rows and tombstones of one partition on one replica, with their write timestamps.
//!
//! Rows are written whole, so a timestamp belongs to a row and not to each cell. Of two writes of a row under one
//! timestamp a server would keep the larger of each cell: a mixture that nobody wrote. [`Table::torn`] counts them.

use crate::cql::{Bucket, Change, DataKind, Owner, StoredRow, Volume};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The clustering key of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Place(u64),
    Data(DataKind, String),
    Name(String),
    Purge(Owner),
    /// Above all.
    End,
}

/// The rest of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Data(u64, Bytes),
    Bucket(Volume, u32),
    Row(Arc<StoredRow>),
    Peer(Bucket),
    Name,
    Purge(u64, bool),
}

/// What a tombstone covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grave {
    All,
    Places(u64, u64),
    Kind(DataKind),
}

#[derive(Debug, Clone)]
struct Stored {
    at: u64,
    /// When it ends by itself, in seconds.
    ends: Option<u64>,
    value: Value,
}

/// A change worked out, as it is told to every replica.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// A row, and when it ends by itself, in seconds.
    Put(Key, Value, Option<u64>),
    Hole(Key),
    Bury(Grave),
}

/// A partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    rows: BTreeMap<Key, Stored>,
    /// Tombstones of single rows.
    holes: BTreeMap<Key, u64>,
    graves: Vec<(Grave, u64)>,
    torn: u64,
    /// The first of them.
    tear: Option<String>,
}

impl Table {
    pub(super) fn apply(&mut self, told: &Told, at: u64) {
        match told {
            Told::Put(key, value, ends) => self.put(key, Stored { at, ends: *ends, value: value.clone() }),
            Told::Hole(key) => self.hole(key, at),
            Told::Bury(grave) => self.bury(grave, at),
        }
    }

    fn put(&mut self, key: &Key, new: Stored) {
        let Some(old) = self.rows.get_mut(key) else {
            self.rows.insert(key.clone(), new);
            return;
        };
        if new.at == old.at && new.value != old.value {
            self.torn += 1;
            self.tear.get_or_insert_with(|| format!("{:?} and {:?} at {}", old.value, new.value, old.at));
        }
        if new.hides(old) {
            *old = new;
        }
    }

    fn hole(&mut self, key: &Key, at: u64) {
        match self.holes.get_mut(key) {
            Some(hole) => *hole = at.max(*hole),
            None => drop(self.holes.insert(key.clone(), at)),
        }
    }

    fn bury(&mut self, grave: &Grave, at: u64) {
        bury(&mut self.graves, grave, at);
    }

    /// What a read of the rows between these bounds, both inclusive, takes from a replica.
    pub(super) fn slice(&self, low: &Key, high: &Key) -> Part {
        if low > high {
            return Part::default();
        }
        let rows = self.rows.range(low..=high);
        let holes = self.holes.range(low..=high);
        Part {
            rows: rows.map(|(key, row)| (key.clone(), row.clone())).collect(),
            holes: holes.map(|(key, at)| (key.clone(), *at)).collect(),
            graves: self.graves.clone(),
        }
    }

    /// Takes in what a read has found, as a server does that repairs what it reads.
    pub(super) fn absorb(&mut self, part: &Part) {
        part.rows.iter().for_each(|(key, row)| self.put(key, row.clone()));
        part.holes.iter().for_each(|(key, at)| self.hole(key, *at));
        part.graves.iter().for_each(|(grave, at)| self.bury(grave, *at));
    }

    /// The rows that are there at this second, between bounds, rising.
    pub(super) fn live(
        &self,
        low: Key,
        high: Key,
        second: u64,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Value)> {
        let range = (low <= high).then(|| self.rows.range(low..=high));
        let hole = |key: &Key| self.holes.get(key).copied();
        range
            .into_iter()
            .flatten()
            .filter(move |(key, row)| row.is_live(key, second, hole(key), &self.graves))
            .map(|(key, row)| (key, &row.value))
    }

    /// Two writes of one row had the same timestamp and not the same content.
    pub(super) fn torn(&self) -> u64 {
        self.torn
    }

    /// How many rows have no end.
    pub(super) fn endless(&self) -> usize {
        self.rows.values().filter(|row| row.ends.is_none()).count()
    }

    /// What the first of them were.
    pub(super) fn tear(&self) -> Option<&str> {
        self.tear.as_deref()
    }
}

/// What a read takes from a partition; all of it rises.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    rows: Vec<(Key, Stored)>,
    holes: Vec<(Key, u64)>,
    graves: Vec<(Grave, u64)>,
}

impl Part {
    /// With what another replica has answered.
    pub(super) fn merge(self, other: Self) -> Self {
        let rows = merge(self.rows, other.rows, |one, two| if two.hides(&one) { two } else { one });
        let holes = merge(self.holes, other.holes, u64::max);
        let mut graves = self.graves;
        if graves != other.graves {
            other.graves.iter().for_each(|(grave, at)| bury(&mut graves, grave, *at));
        }
        Self { rows, holes, graves }
    }

    /// The rows that are there at this second.
    pub(super) fn live(&self, second: u64) -> impl DoubleEndedIterator<Item = (&Key, &Value)> {
        let hole = |key: &Key| {
            let place = self.holes.binary_search_by(|(other, _)| other.cmp(key));
            place.ok().map(|place| self.holes[place].1)
        };
        let rows =
            self.rows.iter().filter(move |(key, row)| row.is_live(key, second, hole(key), &self.graves));
        rows.map(|(key, row)| (key, &row.value))
    }
}

/// Two rising lists as one; of two with the same key this one is made.
fn merge<T>(one: Vec<(Key, T)>, two: Vec<(Key, T)>, both: impl Fn(T, T) -> T) -> Vec<(Key, T)> {
    if one.is_empty() || two.is_empty() {
        return if one.is_empty() { two } else { one };
    }
    let mut merged = Vec::with_capacity(one.len().max(two.len()));
    let (mut one, mut two) = (one.into_iter().peekable(), two.into_iter().peekable());
    loop {
        let order = match (one.peek(), two.peek()) {
            (Some((one, _)), Some((two, _))) => one.cmp(two),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return merged,
        };
        match order {
            Ordering::Less => merged.extend(one.next()),
            Ordering::Greater => merged.extend(two.next()),
            Ordering::Equal => {
                if let (Some((key, first)), Some((_, second))) = (one.next(), two.next()) {
                    merged.push((key, both(first, second)));
                }
            }
        }
    }
}

fn bury(graves: &mut Vec<(Grave, u64)>, grave: &Grave, at: u64) {
    match graves.iter_mut().find(|(known, _)| known == grave) {
        Some((_, known)) => *known = at.max(*known),
        None => graves.push((grave.clone(), at)),
    }
}

impl Told {
    /// A change that is made at this second.
    pub(super) fn of(change: Change, second: u64) -> Self {
        let ends = change.ttl().map(|ttl| second + u64::from(ttl));
        let put = |key, value| Self::Put(key, value, ends);
        match change {
            Change::PutData(row) => put(Key::Data(row.kind, row.name), Value::Data(row.number, row.body)),
            Change::PutBucket(row) => put(Key::Place(row.bucket.0.0), Value::Bucket(row.volume, row.rows)),
            Change::PutRow(row, _) => put(Key::Place(row.row.position.0), Value::Row(Arc::from(row))),
            Change::PutPeer(position, bucket, _) => put(Key::Place(position.0), Value::Peer(bucket)),
            Change::PutName(name) => put(Key::Name(name), Value::Name),
            Change::PutPurge(row) => put(Key::Purge(row.owner), Value::Purge(row.since, row.removed)),
            Change::DropData(kind, name) => Self::Hole(Key::Data(kind, name)),
            Change::DropName(name) => Self::Hole(Key::Name(name)),
            Change::DropKind(kind) => Self::Bury(Grave::Kind(kind)),
            Change::DropBuckets(low, high) => Self::Bury(Grave::Places(low.0.0, high.0.0)),
            Change::DropRows(low, high) | Change::DropPeers(low, high) => {
                Self::Bury(Grave::Places(low.0, high.0))
            }
            Change::DropAll => Self::Bury(Grave::All),
        }
    }
}

impl Grave {
    fn covers(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::All, _) => true,
            (Self::Places(low, high), Key::Place(place)) => (low..=high).contains(&place),
            (Self::Kind(kind), Key::Data(of, _)) => kind == of,
            _ => false,
        }
    }
}

impl Stored {
    fn is_live(&self, key: &Key, second: u64, hole: Option<u64>, graves: &[(Grave, u64)]) -> bool {
        self.ends.is_none_or(|end| end > second)
            && hole.is_none_or(|hole| hole < self.at)
            && !graves.iter().any(|(grave, at)| *at >= self.at && grave.covers(key))
    }

    /// Whether it takes the place of another.
    fn hides(&self, other: &Self) -> bool {
        self.at > other.at || (self.at == other.at && self.beats(other))
    }

    /// Of two with the same timestamp: what ends later, then the larger one.
    fn beats(&self, other: &Self) -> bool {
        if self.value == other.value {
            return match (self.ends, other.ends) {
                (Some(one), Some(two)) => one > two,
                (one, two) => one.is_some() && two.is_none(),
            };
        }
        format!("{:?}", self.value) > format!("{:?}", other.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::Position;

    fn told(change: Change, ends: Option<u64>) -> Told {
        match Told::of(change, 0) {
            Told::Put(key, value, _) => Told::Put(key, value, ends),
            told => told,
        }
    }

    fn bucket(name: u64, rows: u32) -> Change {
        let bucket = Bucket(Position(name));
        Change::PutBucket(crate::cql::BucketRow { bucket, volume: Volume(bucket.0), rows })
    }

    fn seen(table: &Table, second: u64) -> Vec<(u64, u32)> {
        buckets(table.live(Key::Place(0), Key::Place(u64::MAX), second))
    }

    fn buckets<'a>(live: impl Iterator<Item = (&'a Key, &'a Value)>) -> Vec<(u64, u32)> {
        live.map(|(key, value)| match (key, value) {
            (Key::Place(place), Value::Bucket(_, rows)) => (*place, *rows),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn the_newer_write_holds_in_whatever_order_they_come() {
        let writes = [(bucket(1, 10), 5), (bucket(1, 20), 7), (bucket(1, 30), 6)];
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
            let mut table = Table::default();
            for index in order {
                table.apply(&told(writes[index].0.clone(), None), writes[index].1);
            }
            assert_eq!(seen(&table, 0), [(1, 20)]);
            assert_eq!(table.torn(), 0);
        }
    }

    #[test]
    fn a_tombstone_hides_what_is_as_old_and_nothing_newer() {
        let drop = Change::DropBuckets(Bucket(Position(1)), Bucket(Position(2)));
        let mut table = Table::default();
        table.apply(&told(drop, None), 5);
        for (place, at) in [(1, 5), (2, 6), (3, 4)] {
            table.apply(&told(bucket(place, 0), None), at);
        }
        assert_eq!(seen(&table, 0), [(2, 0), (3, 0)]);
        table.apply(&told(Change::DropAll, None), 6);
        assert_eq!(seen(&table, 0), []);
    }

    #[test]
    fn an_ended_row_still_hides_an_older_one() {
        let mut table = Table::default();
        table.apply(&told(bucket(1, 1), None), 5);
        table.apply(&told(bucket(1, 2), Some(100)), 6);
        assert_eq!(seen(&table, 99), [(1, 2)]);
        assert_eq!(seen(&table, 100), []);
    }

    #[test]
    fn replicas_are_merged_and_what_is_torn_is_counted() {
        let (mut one, mut two) = (Table::default(), Table::default());
        one.apply(&told(bucket(1, 1), None), 5);
        two.apply(&told(bucket(1, 2), None), 5);
        two.apply(&told(bucket(7, 2), None), 5);
        let drop = Change::DropBuckets(Bucket(Position(3)), Bucket(Position(4)));
        one.apply(&told(drop, None), 6);
        for (place, at) in [(3, 6), (4, 7)] {
            two.apply(&told(bucket(place, 3), None), at);
        }
        let slice = |table: &Table| table.slice(&Key::Place(0), &Key::Place(5));
        let merged = slice(&one).merge(slice(&two));
        assert_eq!(buckets(merged.live(0)), [(1, 2), (4, 3)]);
        assert_eq!(buckets(slice(&two).merge(slice(&one)).live(0)), [(1, 2), (4, 3)]);
        one.absorb(&merged);
        assert_eq!(seen(&one, 0), [(1, 2), (4, 3)]);
        assert_eq!(one.torn(), 1);
    }
}
