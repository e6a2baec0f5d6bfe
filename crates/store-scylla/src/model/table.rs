//! Rows and tombstones of one partition on one replica, with their write timestamps.
//!
//! Rows are written whole, so a timestamp belongs to a row and not to each cell. Of two writes of a row under one
//! timestamp a server would keep the larger of each cell: a mixture that nobody wrote. [`Table::torn`] counts them.

use crate::cql::{Bucket, Change, DataKind, Owner, StoredRow, Volume};
use bytes::Bytes;
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
enum Grave {
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

/// A change with its end worked out, as it is told to every replica.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) change: Change,
    pub(super) ends: Option<u64>,
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
        let (key, value) = match &told.change {
            Change::PutData(row) => {
                (Key::Data(row.kind, row.name.clone()), Value::Data(row.number, row.body.clone()))
            }
            Change::PutBucket(row) => (Key::Place(row.bucket.0.0), Value::Bucket(row.volume, row.rows)),
            Change::PutRow(row, _) => {
                (Key::Place(row.row.position.0), Value::Row(Arc::new(StoredRow::clone(row))))
            }
            Change::PutPeer(position, bucket, _) => (Key::Place(position.0), Value::Peer(*bucket)),
            Change::PutName(name) => (Key::Name(name.clone()), Value::Name),
            Change::PutPurge(row) => (Key::Purge(row.owner.clone()), Value::Purge(row.since, row.removed)),
            Change::DropData(kind, name) => return self.hole(Key::Data(*kind, name.clone()), at),
            Change::DropName(name) => return self.hole(Key::Name(name.clone()), at),
            Change::DropKind(kind) => return self.bury(Grave::Kind(*kind), at),
            Change::DropBuckets(low, high) => return self.bury(Grave::Places(low.0.0, high.0.0), at),
            Change::DropRows(low, high) | Change::DropPeers(low, high) => {
                return self.bury(Grave::Places(low.0, high.0), at);
            }
            Change::DropAll => return self.bury(Grave::All, at),
        };
        self.put(key, Stored { at, ends: told.ends, value });
    }

    fn put(&mut self, key: Key, new: Stored) {
        match self.rows.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(new);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let old = entry.get();
                if new.at == old.at && new.value != old.value {
                    self.torn += 1;
                    self.tear
                        .get_or_insert_with(|| format!("{:?} and {:?} at {}", old.value, new.value, old.at));
                }
                if new.at > old.at || (new.at == old.at && new.beats(old)) {
                    entry.insert(new);
                }
            }
        }
    }

    fn hole(&mut self, key: Key, at: u64) {
        let hole = self.holes.entry(key).or_default();
        *hole = at.max(*hole);
    }

    fn bury(&mut self, grave: Grave, at: u64) {
        match self.graves.iter_mut().find(|(known, _)| *known == grave) {
            Some((_, known)) => *known = at.max(*known),
            None => self.graves.push((grave, at)),
        }
    }

    /// What a read of the rows between these bounds, both inclusive, takes from a replica.
    pub(super) fn slice(&self, low: &Key, high: &Key) -> Self {
        if low > high {
            return Self::default();
        }
        let rows = self.rows.range(low.clone()..=high.clone());
        let holes = self.holes.range(low.clone()..=high.clone());
        Self {
            rows: rows.map(|(key, row)| (key.clone(), row.clone())).collect(),
            holes: holes.map(|(key, at)| (key.clone(), *at)).collect(),
            graves: self.graves.clone(),
            ..Self::default()
        }
    }

    /// Takes in what another replica has answered.
    pub(super) fn absorb(&mut self, other: Self) {
        for (key, row) in other.rows {
            self.put(key, row);
        }
        for (key, at) in other.holes {
            self.hole(key, at);
        }
        for (grave, at) in other.graves {
            self.bury(grave, at);
        }
    }

    /// The rows that are there at this second, between bounds, rising; with their timestamps.
    pub(super) fn live(
        &self,
        low: Key,
        high: Key,
        second: u64,
    ) -> impl DoubleEndedIterator<Item = (&Key, &Value, u64)> {
        let range = (low <= high).then(|| self.rows.range(low..=high));
        range
            .into_iter()
            .flatten()
            .filter(move |(key, row)| row.ends.is_none_or(|end| end > second) && !self.is_buried(key, row.at))
            .map(|(key, row)| (key, &row.value, row.at))
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

    /// Of equals the tombstone holds.
    fn is_buried(&self, key: &Key, at: u64) -> bool {
        self.holes.get(key).is_some_and(|hole| *hole >= at)
            || self.graves.iter().any(|(grave, grave_at)| *grave_at >= at && grave.covers(key))
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
        Told { change, ends }
    }

    fn bucket(name: u64, rows: u32) -> Change {
        let bucket = Bucket(Position(name));
        Change::PutBucket(crate::cql::BucketRow { bucket, volume: Volume(bucket.0), rows })
    }

    fn seen(table: &Table, second: u64) -> Vec<(u64, u32)> {
        table
            .live(Key::Place(0), Key::Place(u64::MAX), second)
            .map(|(key, value, _)| match (key, value) {
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
        let mut merged = one.slice(&Key::Place(0), &Key::Place(5));
        merged.absorb(two.slice(&Key::Place(0), &Key::Place(5)));
        assert_eq!(seen(&merged, 0), [(1, 2)]);
        assert_eq!(merged.torn(), 1);
    }
}
