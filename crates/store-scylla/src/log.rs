//! Commits: from the writes of one account to the mutations that carry them.
//!
//! The common case, one message for one account, is two mutations side by side: the row, and where it is for who reads by
//! peer. Nothing is read for it. Rows that are written in one go into one bucket, in one mutation: what a process that dies
//! leaves behind is always the beginning of what it decided, never a row without those before it.

use crate::buckets::{Buckets, Place};
use crate::codec;
use crate::cql::{Bucket, Change, Mutation, Owner, Partition, StoredRow};
use crate::data::{DataChanges, RosterMarks};
use crate::settings::Settings;
use starling_node::Trace;
use starling_store::{Cursor, LogRow, Position, Write};
use starling_xmpp::Timestamp;
use std::collections::BTreeMap;

/// What one mutation holds at most.
const MOST_CHANGES: usize = 100;
pub(crate) const MOST_BYTES: usize = 256 * 1024;
/// Rows of one account that are under way together. Who closes the log sees all of them or none: they are one mutation, and
/// the first read of a log's end takes in more. A read that takes in a part of them makes sure of that part alone: it repairs
/// copies of what it answers, and nothing else. The rest may not be seen again, and what stays is out of order.
pub(crate) const MOST_ROWS: usize = 50;

/// What this process knows of an account that it has loaded, as it will be when all that is under way is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) owner: Owner,
    /// The reign under which it was loaded.
    pub(crate) epoch: u64,
    /// Everything this reign writes must be above it.
    pub(crate) closed_at: Position,
    /// The mark that this reign writes roster and documents is durable, and no later reign was there then.
    pub(crate) data_marked: bool,
    pub(crate) buckets: Buckets,
    pub(crate) roster: RosterMarks,
    /// As it was confirmed last.
    pub(crate) cursor: Cursor,
}

/// What a commit does to one account.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Their timestamp.
    pub(crate) at: Position,
    pub(crate) mutations: Vec<Mutation>,
    /// Buckets that are listed when it is done.
    pub(crate) lists: Vec<Bucket>,
    /// It has opened a bucket.
    pub(crate) opens: bool,
    /// The cursor that holds when it is done.
    pub(crate) cursor: Option<Cursor>,
}

impl Opened {
    /// An account of which nothing is stored yet.
    pub(crate) fn new(owner: Owner, epoch: u64, closed_at: Position) -> Self {
        Self {
            owner,
            epoch,
            closed_at,
            data_marked: false,
            buckets: Buckets::default(),
            roster: RosterMarks::default(),
            cursor: Cursor::default(),
        }
    }

    /// How much memory it takes, in units of an ordinary account's.
    pub(crate) fn weight(&self) -> usize {
        1 + (self.buckets.all().len() + self.roster.weight() + self.cursor.above.len()) / 16
    }

    /// Decides where writes go. Nothing else is under way to the account.
    pub(crate) fn plan(
        &mut self,
        at: Position,
        writes: Vec<Write>,
        traces: Vec<Trace>,
        now: Timestamp,
        settings: &Settings,
    ) -> Plan {
        let mut plan = Plan { at, ..Plan::default() };
        let mut rows = BTreeMap::new();
        let mut data = DataChanges::default();
        for write in writes {
            match write {
                Write::Append(row) => drop(rows.insert(row.position, row)),
                Write::Cursor(jid, cursor) => {
                    plan.cursor = Some(cursor.clone());
                    data.take(Write::Cursor(jid, cursor), &mut self.roster);
                }
                write => data.take(write, &mut self.roster),
            }
        }
        let mut carrier = Carrier { at, traces, mutations: Vec::new() };
        // All that was written before has ended.
        let safe = Position(rows.keys().next().map_or(0, |low| low.0.saturating_sub(1)));
        self.place(rows, safe, now, settings, &mut carrier, &mut plan);
        carrier.carry(Partition::Data(self.owner.clone()), data.into_changes());
        plan.mutations = carrier.mutations;
        plan
    }

    fn place(
        &mut self,
        rows: BTreeMap<Position, Box<LogRow>>,
        safe: Position,
        now: Timestamp,
        settings: &Settings,
        carrier: &mut Carrier,
        plan: &mut Plan,
    ) {
        if rows.is_empty() {
            return;
        }
        let mut places = Vec::with_capacity(rows.len());
        let mut newest = false;
        for row in rows.into_values() {
            let bytes = codec::weight(&row);
            let beside = if newest { self.buckets.beside(bytes) } else { None };
            let place = beside.unwrap_or_else(|| self.buckets.place(row.position, bytes, settings));
            newest = self.buckets.is_newest(place.bucket);
            plan.opens |= place.opens;
            places.push((place, row));
        }
        plan.lists = self.buckets.pending().to_vec();
        let listings: Vec<_> = self.buckets.unlisted().into_iter().map(Change::PutBucket).collect();
        put_rows(&self.owner, places, safe, now, settings, carrier);
        carrier.carry(Partition::Buckets(self.owner.clone()), listings);
    }
}

/// Rows at their places, with their entries in the index.
fn put_rows(
    owner: &Owner,
    places: Vec<(Place, Box<LogRow>)>,
    safe: Position,
    now: Timestamp,
    settings: &Settings,
    carrier: &mut Carrier,
) {
    let rows = places.into_iter().map(|(place, row)| {
        let stored = StoredRow { row: *row, nth: place.nth, filled: place.filled, safe };
        (place, Box::new(stored))
    });
    carrier.rows(owner, rows, now, settings);
}

/// Makes mutations of one timestamp.
pub(crate) struct Carrier {
    pub(crate) at: Position,
    pub(crate) traces: Vec<Trace>,
    pub(crate) mutations: Vec<Mutation>,
}

impl Carrier {
    pub(crate) fn new(at: Position) -> Self {
        Self { at, traces: Vec::new(), mutations: Vec::new() }
    }

    /// Changes of one partition, in as many mutations as they need.
    pub(crate) fn carry(&mut self, partition: Partition, changes: Vec<Change>) {
        let mut bytes = 0;
        let mut some = Vec::new();
        for change in changes {
            let weight = weight(&change);
            if !some.is_empty() && (some.len() == MOST_CHANGES || bytes + weight > MOST_BYTES) {
                self.push(partition.clone(), std::mem::take(&mut some));
                bytes = 0;
            }
            bytes += weight;
            some.push(change);
        }
        if !some.is_empty() {
            self.push(partition, some);
        }
    }

    /// Rows of the log with their entries in the index.
    pub(crate) fn rows(
        &mut self,
        owner: &Owner,
        rows: impl Iterator<Item = (Place, Box<StoredRow>)>,
        now: Timestamp,
        settings: &Settings,
    ) {
        let mut log: BTreeMap<Bucket, Vec<Change>> = BTreeMap::new();
        let mut peers: BTreeMap<_, Vec<Change>> = BTreeMap::new();
        for (place, row) in rows {
            let ttl = codec::ttl(&row.row, settings, now);
            let peer = (row.row.with.clone(), place.volume);
            peers.entry(peer).or_default().push(Change::PutPeer(row.row.position, place.bucket, ttl));
            log.entry(place.bucket).or_default().push(Change::PutRow(row, ttl));
        }
        for (bucket, changes) in log {
            self.carry(Partition::Log(owner.clone(), bucket), changes);
        }
        for ((peer, volume), changes) in peers {
            self.carry(Partition::Peer(owner.clone(), peer, volume), changes);
        }
    }

    fn push(&mut self, partition: Partition, changes: Vec<Change>) {
        let (at, traces) = (self.at, self.traces.clone());
        self.mutations.push(Mutation { partition, at, changes, traces, attempt: 1 });
    }
}

fn weight(change: &Change) -> usize {
    match change {
        Change::PutRow(row, _) => codec::weight(&row.row),
        Change::PutData(row) => row.name.len() + row.body.len() + 64,
        _ => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::Volume;
    use starling_store::testing::{append, at, jid, row};
    use starling_xmpp::BareJid;

    fn opened() -> Opened {
        Opened::new(Owner { jid: jid("a@x.org"), generation: 7 }, 1, Position(0))
    }

    fn message(secs: u64, peer: &str) -> Write {
        append(row(&jid("a@x.org"), at(secs), &jid(peer)))
    }

    fn plan(opened: &mut Opened, secs: u64, writes: Vec<Write>) -> Plan {
        opened.plan(at(secs), writes, Vec::new(), Timestamp(0), &Settings::default())
    }

    fn stored(plan: &Plan) -> Vec<StoredRow> {
        let changes = plan.mutations.iter().flat_map(|mutation| &mutation.changes);
        let rows = changes.filter_map(|change| match change {
            Change::PutRow(row, _) => Some((**row).clone()),
            _ => None,
        });
        rows.collect()
    }

    #[test]
    fn a_message_is_two_mutations_and_the_first_lists_its_bucket() {
        let mut opened = opened();
        let first = plan(&mut opened, 10, vec![message(10, "b@x.org")]);
        let owner = opened.owner.clone();
        let bucket = Bucket(at(10));
        let bob: BareJid = jid("b@x.org");
        let partitions: Vec<_> = first.mutations.iter().map(|mutation| mutation.partition.clone()).collect();
        let log = Partition::Log(owner.clone(), bucket);
        let peer = Partition::Peer(owner.clone(), bob, Volume(at(10)));
        assert_eq!(partitions, [log.clone(), peer.clone(), Partition::Buckets(owner)]);
        assert!(first.opens && first.lists == [bucket]);
        let second = plan(&mut opened, 11, vec![message(11, "b@x.org")]);
        assert_eq!(second.mutations.len(), 3, "listed again: it is not confirmed");
        opened.buckets.confirm(&first.lists);
        let third = plan(&mut opened, 12, vec![message(12, "b@x.org")]);
        let partitions: Vec<_> = third.mutations.iter().map(|mutation| mutation.partition.clone()).collect();
        assert_eq!(partitions, [log, peer]);
        assert!(third.mutations.iter().all(|mutation| mutation.at == at(12)));
        assert_eq!(stored(&third)[0].nth, 3);
    }

    #[test]
    fn a_row_says_up_to_where_everything_has_ended() {
        let mut opened = opened();
        let alone = plan(&mut opened, 10, vec![message(9, "b@x.org"), message(10, "b@x.org")]);
        let safe: Vec<_> = stored(&alone).iter().map(|row| row.safe).collect();
        assert_eq!(safe, [Position(8_999_999); 2], "its own rows have not");
        let after = plan(&mut opened, 12, vec![message(12, "b@x.org")]);
        assert_eq!(stored(&after)[0].safe, Position(11_999_999));
    }

    #[test]
    fn the_later_row_at_a_position_holds() {
        let mut opened = opened();
        let plan = plan(&mut opened, 10, vec![message(10, "b@x.org"), message(10, "c@x.org")]);
        assert_eq!(stored(&plan).len(), 1);
        assert_eq!(stored(&plan)[0].row.with, jid("c@x.org"));
        let peers =
            plan.mutations.iter().filter(|mutation| matches!(mutation.partition, Partition::Peer(..)));
        assert_eq!(peers.count(), 1, "no trace of the first");
    }

    #[test]
    fn rows_of_a_partition_go_together_up_to_a_bound() {
        let mut opened = opened();
        let many = (0..250).map(|n| message(10 + n, "b@x.org")).collect();
        let many = plan(&mut opened, 900, many);
        let log = many.mutations.iter().filter(|mutation| matches!(mutation.partition, Partition::Log(..)));
        assert_eq!(log.map(|mutation| mutation.changes.len()).collect::<Vec<_>>(), [100, 100, 50]);
        let mut big = row(&jid("a@x.org"), at(1_000), &jid("b@x.org"));
        big.stanza = vec![0; 200_000].into();
        let other = LogRow { position: at(1_001), ..big.clone() };
        let large = plan(&mut opened, 1_001, vec![append(big), append(other)]);
        let log = large.mutations.iter().filter(|mutation| matches!(mutation.partition, Partition::Log(..)));
        assert_eq!(log.count(), 2);
    }

    #[test]
    fn rows_written_in_one_go_into_one_bucket() {
        let mut opened = opened();
        let settings = Settings { bucket_rows: 3, ..Settings::default() };
        let mut plan = |secs, rows: std::ops::Range<u64>| {
            let writes = rows.map(|secs| message(secs, "b@x.org")).collect();
            let plan = opened.plan(at(secs), writes, Vec::new(), Timestamp(0), &settings);
            let rows = plan.mutations.into_iter().filter(|of| matches!(of.partition, Partition::Log(..)));
            rows.map(|of| (of.partition, of.changes.len())).collect::<Vec<_>>()
        };
        let log = |secs| Partition::Log(Owner { jid: jid("a@x.org"), generation: 7 }, Bucket(at(secs)));
        assert_eq!(plan(20, 10..12), [(log(10), 2)]);
        assert_eq!(plan(30, 20..25), [(log(10), 5)], "more than it should have, but together");
        assert_eq!(plan(40, 30..32), [(log(30), 2)]);
        assert_eq!(
            plan(50, 28..31),
            [(log(10), 2), (log(30), 1)],
            "those that are late go where they belong"
        );
    }

    #[test]
    fn a_bucket_ends_by_its_bytes() {
        let mut opened = opened();
        let settings = Settings { bucket_bytes: 10_000, ..Settings::default() };
        let mut names = Vec::new();
        let mut filled = Vec::new();
        for secs in 1..=6 {
            let mut large = row(&jid("a@x.org"), at(secs), &jid("b@x.org"));
            large.stanza = vec![0; 4_000].into();
            let plan = opened.plan(at(secs), vec![append(large)], Vec::new(), Timestamp(0), &settings);
            filled.push(stored(&plan)[0].filled / 1_000);
            names.extend(plan.mutations.into_iter().filter_map(|mutation| match mutation.partition {
                Partition::Log(_, bucket) => Some(bucket),
                _ => None,
            }));
        }
        assert_eq!(names, [1, 1, 1, 4, 4, 4].map(|secs| Bucket(at(secs))));
        assert_eq!(filled, [4, 8, 12, 4, 8, 12], "as the next reign reads it");
        assert_eq!(opened.buckets.usual_bytes() / 1_000, 4);
    }

    #[test]
    fn a_cursor_is_one_mutation() {
        let mut opened = opened();
        let cursor = Cursor { through: at(4), above: vec![] };
        let plan = plan(&mut opened, 10, vec![Write::Cursor(jid("a@x.org"), cursor.clone())]);
        assert_eq!(plan.mutations.len(), 1);
        assert_eq!(plan.cursor, Some(cursor));
    }
}
