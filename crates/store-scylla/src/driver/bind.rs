//! Changes as statements with their values.

use super::{
    cell::{Cell, bits, bound, position},
    statements::Statement,
};
use crate::cql::{Change, CqlError, DataRow, Mutation, Owner, Partition, PurgeRow, StoredRow};
use starling_store::{Direction, Position};

/// A statement and what it is given.
pub(super) type Bound<'a> = (Statement, Vec<Cell<'a>>);

/// All of a mutation. `longest` is the longest life in seconds that the server can express; what lives longer gets no end.
pub(super) fn mutation(mutation: &Mutation, longest: u32) -> Result<Vec<Bound<'_>>, CqlError> {
    let at = position(mutation.at)?;
    mutation.changes.iter().map(|change| one(&mutation.partition, &at, change, longest)).collect()
}

/// The first of them.
pub(super) fn first(mutation: &Mutation, longest: u32) -> Result<Option<Bound<'_>>, CqlError> {
    let at = position(mutation.at)?;
    let change = mutation.changes.first();
    change.map(|change| one(&mutation.partition, &at, change, longest)).transpose()
}

fn one<'a>(
    partition: &'a Partition,
    at: &Cell<'static>,
    change: &'a Change,
    longest: u32,
) -> Result<Bound<'a>, CqlError> {
    use Statement as S;
    let at = at.clone();
    let life = |seconds: &Option<u32>| ttl(*seconds, longest);
    Ok(match (partition, change) {
        (Partition::Data(owner), Change::PutData(DataRow { kind, name, number, body })) => {
            let [jid, generation] = keys(owner);
            let kind = Cell::Text(kind.as_str());
            let values = vec![jid, generation, kind, Cell::Text(name), bits(*number), Cell::Blob(body), at];
            (S::PutData, values)
        }
        (Partition::Data(owner), Change::DropData(kind, name)) => {
            let [jid, generation] = keys(owner);
            (S::DropData, vec![at, jid, generation, Cell::Text(kind.as_str()), Cell::Text(name)])
        }
        (Partition::Data(owner), Change::DropKind(kind)) => {
            let [jid, generation] = keys(owner);
            (S::DropKind, vec![at, jid, generation, Cell::Text(kind.as_str())])
        }
        (Partition::Data(owner), Change::DropAll) => {
            let [jid, generation] = keys(owner);
            (S::DropAllData, vec![at, jid, generation])
        }
        (Partition::Buckets(owner), Change::PutBucket(row)) => {
            let [jid, generation] = keys(owner);
            let rows = Cell::Int(i32::try_from(row.rows).unwrap_or(i32::MAX));
            let values = vec![jid, generation, position(row.bucket.0)?, position(row.volume.0)?, rows, at];
            (S::PutBucket, values)
        }
        (Partition::Buckets(owner), Change::DropBuckets(low, high)) => {
            let [jid, generation] = keys(owner);
            (S::DropBuckets, vec![at, jid, generation, bound(low.0), bound(high.0)])
        }
        (Partition::Buckets(owner), Change::DropAll) => {
            let [jid, generation] = keys(owner);
            (S::DropAllBuckets, vec![at, jid, generation])
        }
        (Partition::Log(owner, bucket), Change::PutRow(row, seconds)) => {
            let mut values = put_row(owner, bucket.0, row)?;
            values.extend([at, life(seconds)]);
            (S::PutRow, values)
        }
        (Partition::Log(owner, bucket), Change::DropRows(low, high)) => {
            let [jid, generation] = keys(owner);
            (S::DropRows, vec![at, jid, generation, position(bucket.0)?, bound(*low), bound(*high)])
        }
        (Partition::Log(owner, bucket), Change::DropAll) => {
            let [jid, generation] = keys(owner);
            (S::DropAllRows, vec![at, jid, generation, position(bucket.0)?])
        }
        (Partition::Peer(owner, peer, volume), Change::PutPeer(row, bucket, seconds)) => {
            let [jid, generation] = keys(owner);
            let peer = Cell::Text(peer.as_str());
            let (volume, row, bucket) = (position(volume.0)?, position(*row)?, position(bucket.0)?);
            (S::PutPeer, vec![jid, generation, peer, volume, row, bucket, at, life(seconds)])
        }
        (Partition::Peer(owner, peer, volume), Change::DropPeers(low, high)) => {
            let [jid, generation] = keys(owner);
            let (peer, volume) = (Cell::Text(peer.as_str()), position(volume.0)?);
            (S::DropPeers, vec![at, jid, generation, peer, volume, bound(*low), bound(*high)])
        }
        (Partition::Peer(owner, peer, volume), Change::DropAll) => {
            let [jid, generation] = keys(owner);
            let values = vec![at, jid, generation, Cell::Text(peer.as_str()), position(volume.0)?];
            (S::DropAllPeers, values)
        }
        (Partition::Names(domain, slice), Change::PutName(local)) => {
            (S::PutName, vec![Cell::Text(domain), Cell::Int((*slice).into()), Cell::Text(local), at])
        }
        (Partition::Names(domain, slice), Change::DropName(local)) => {
            (S::DropName, vec![at, Cell::Text(domain), Cell::Int((*slice).into()), Cell::Text(local)])
        }
        (Partition::Names(domain, slice), Change::DropAll) => {
            (S::DropAllNames, vec![at, Cell::Text(domain), Cell::Int((*slice).into())])
        }
        (Partition::Purges(day, slice), Change::PutPurge(PurgeRow { owner, since, removed })) => {
            let [jid, generation] = keys(owner);
            let [day, slice] = purges(*day, *slice);
            (S::PutPurge, vec![day, slice, jid, generation, bits(*since), Cell::Bool(*removed), at])
        }
        (Partition::Purges(day, slice), Change::DropAll) => {
            let [day, slice] = purges(*day, *slice);
            (S::DropAllPurges, vec![at, day, slice])
        }
        _ => return Err(CqlError::Invalid("a change that its partition cannot have".to_owned())),
    })
}

/// The columns of a partition of `purges`.
pub(super) fn purges(day: u32, slice: u16) -> [Cell<'static>; 2] {
    [Cell::Int(i32::try_from(day).unwrap_or(i32::MAX)), Cell::Int(slice.into())]
}

/// The first two columns of every partition of an account.
pub(super) fn keys(owner: &Owner) -> [Cell<'_>; 2] {
    [Cell::Text(owner.jid.as_str()), bits(owner.generation)]
}

fn put_row<'a>(owner: &'a Owner, bucket: Position, stored: &'a StoredRow) -> Result<Vec<Cell<'a>>, CqlError> {
    let [jid, generation] = keys(owner);
    let StoredRow { row, nth, filled, safe } = stored;
    let direction = match row.direction {
        Direction::In => 0,
        Direction::Out => 1,
        Direction::Own => 2,
    };
    let mut values = Vec::with_capacity(18);
    values.extend([
        jid,
        generation,
        position(bucket)?,
        position(row.position)?,
        Cell::Int(i32::try_from(*nth).unwrap_or(i32::MAX)),
        Cell::Int(i32::try_from(*filled).unwrap_or(i32::MAX)),
        position(*safe)?,
        Cell::Block(row.origin.session.to_be_bytes()),
        bits(row.origin.sequence),
        Cell::Text(row.origin_id.as_deref().unwrap_or_default()),
        Cell::Tiny(direction),
        Cell::Text(row.with.as_str()),
        Cell::Bool(row.archived),
        Cell::Bool(row.offline),
        // Never left out: a row written over another would keep the other's. Never null: that is a tombstone.
        bits(row.expires.map_or(0, |end| end.0)),
        Cell::Blob(&row.stanza),
    ]);
    Ok(values)
}

/// 0 is no end.
fn ttl(seconds: Option<u32>, longest: u32) -> Cell<'static> {
    let seconds = seconds.filter(|seconds| *seconds <= longest).map(|seconds| seconds.max(1));
    Cell::Int(seconds.and_then(|seconds| i32::try_from(seconds).ok()).unwrap_or(0))
}

/// The longest life in seconds that every server can express when it is this moment (microseconds since the epoch): 20
/// years, and on Cassandra, which keeps ends of life in 32 bits by default, nothing beyond 2038-01-19. Readers judge by
/// the row's own end, so what is longer only lies there longer.
pub(super) fn longest_life(now_micros: u64) -> u32 {
    const YEARS_20: u64 = 630_720_000;
    const END: u64 = i32::MAX as u64 - 2 * 86_400;
    u32::try_from(END.saturating_sub(now_micros / 1_000_000).min(YEARS_20)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_cannot_be_expressed_has_no_end() {
        let now = 1_780_000_000_000_000;
        let longest = longest_life(now);
        assert!(longest > 10 * 365 * 86_400 && u64::from(longest) + 1_780_000_000 < i32::MAX as u64);
        let is =
            |seconds, wanted| assert!(matches!(ttl(seconds, longest), Cell::Int(life) if life == wanted));
        is(None, 0);
        is(Some(0), 1);
        is(Some(86_400), 86_400);
        is(Some(longest), longest.cast_signed());
        is(Some(longest + 1), 0);
        is(Some(u32::MAX), 0);
        assert_eq!(longest_life(u64::MAX), 0);
    }

    #[test]
    fn a_change_in_the_wrong_partition_is_refused() {
        let mutation_of = |changes| Mutation {
            partition: Partition::Purges(20_000, 7),
            at: Position(1),
            changes,
            traces: Vec::new(),
            attempt: 1,
        };
        let wrong = mutation_of(vec![Change::PutName("romeo".to_owned())]);
        assert!(matches!(mutation(&wrong, 1), Err(CqlError::Invalid(_))));
        let right = mutation_of(vec![Change::DropAll]);
        assert_eq!(mutation(&right, 1).unwrap()[0].0, Statement::DropAllPurges);
        let late = Mutation { at: Position(u64::MAX), ..right };
        assert!(matches!(mutation(&late, 1), Err(CqlError::Invalid(_))));
    }
}
