//! One record as bytes: a header of 24 bytes, a body, zeros up to the next multiple of eight.
//!
//! ```text
//! 0  checksum u32   CRC-32C of all that follows, zeros too, seeded by the disk's identity and the segment's number
//! 4  length   u32   of the body
//! 8  batch    u64   what was written and synced together; one more than the batch before
//! 16 group    u16
//! 18 kind     u8
//! 19 flags    u8    1: the last record of its batch
//! 20 zero     u32
//! ```
//! The seed keeps what an earlier life of a recycled file has left from passing for a record. A record of batch n says
//! that batch n-1 was synced: that is how a torn end is told from damage in the middle.

use super::LogId;

/// Bytes before the body.
pub(crate) const HEADER: usize = 24;
/// Every record begins at a multiple of it.
pub(crate) const ALIGN: usize = 8;
/// Records that concern no group.
pub(crate) const NO_GROUP: u16 = u16::MAX;

const ENDS_BATCH: u8 = 1;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Entries; all from the first one's index on that were there before are gone.
    Append = 1,
    /// Entries that the log has already, again, so that an older segment can go.
    Copy = 2,
    /// The vote.
    Vote = 3,
    /// All entries from an index on are gone.
    Truncate = 4,
    /// All entries up to a log id are gone.
    Purge = 5,
    /// A snapshot up to a log id is durable.
    Mark = 6,
    /// Nothing: says that the batch before is durable, or ends a torn one.
    Calm = 7,
    /// The log goes on in the next segment; names the oldest segment that is still needed.
    Turn = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Append,
            2 => Self::Copy,
            3 => Self::Vote,
            4 => Self::Truncate,
            5 => Self::Purge,
            6 => Self::Mark,
            7 => Self::Calm,
            8 => Self::Turn,
            _ => return None,
        })
    }
}

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) group: u16,
    pub(crate) batch: u64,
    pub(crate) ends_batch: bool,
    pub(crate) body: &'a [u8],
}

/// The checksum's seed for one segment of one disk.
pub(crate) fn seed(identity: u64, segment: u64) -> u32 {
    let seed = crc32c::crc32c(b"starling log");
    let seed = crc32c::crc32c_append(seed, &identity.to_le_bytes());
    crc32c::crc32c_append(seed, &segment.to_le_bytes())
}

/// The bytes that a record with a body of that length takes.
pub(crate) fn room(body: usize) -> usize {
    (HEADER + body).next_multiple_of(ALIGN)
}

/// Adds a record to `out`, without a checksum: [`seal`] sets it.
pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, group: u16, batch: u64, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("bodies are bounded by MAX_BODY");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&batch.to_le_bytes());
    out.extend_from_slice(&group.to_le_bytes());
    out.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0]);
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// Whether a batch ends with the last of some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Batch,
    Nothing,
}

/// Sets the checksums of all records in `records`, and says of the last one whether its batch ends with it.
pub(crate) fn seal(records: &mut [u8], seed: u32, ends: Ends) {
    let mut at = 0;
    while at < records.len() {
        let length = u32::from_le_bytes(bytes(&records[at + 4..]));
        let next = at + room(length as usize);
        if next == records.len() && ends == Ends::Batch {
            records[at + 19] |= ENDS_BATCH;
        }
        let checksum = crc32c::crc32c_append(seed, &records[at + 4..next]);
        records[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
        at = next;
    }
}

/// The record that begins at the start of `from`, and the bytes it takes. `None` when there is no whole, undamaged one.
pub(crate) fn read(from: &[u8], seed: u32) -> Option<(Record<'_>, usize)> {
    read_if(from, seed, |_| true)
}

/// The same for a record whose batch is one that `wanted` takes; looks at the checksum last, so that a search is cheap.
pub(crate) fn read_if(from: &[u8], seed: u32, wanted: impl Fn(u64) -> bool) -> Option<(Record<'_>, usize)> {
    let header: &[u8; HEADER] = from.first_chunk()?;
    let kind = Kind::from_byte(header[18])?;
    let flags = header[19];
    let batch = u64::from_le_bytes(bytes(&header[8..]));
    if flags & !ENDS_BATCH != 0 || header[20..] != [0; 4] || !wanted(batch) {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(bytes(&header[4..]))).ok()?;
    let room = room(length);
    let whole = from.get(..room)?;
    if crc32c::crc32c_append(seed, &whole[4..]).to_le_bytes() != whole[..4] {
        return None;
    }
    let record = Record {
        kind,
        group: u16::from_le_bytes(bytes(&header[16..])),
        batch,
        ends_batch: flags & ENDS_BATCH != 0,
        body: &whole[HEADER..HEADER + length],
    };
    Some((record, room))
}

/// The first `N` bytes of a slice that is known to have them.
fn bytes<const N: usize>(from: &[u8]) -> [u8; N] {
    *from.first_chunk().expect("the caller has looked at the length")
}

/// Reads the fields of a body from its start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|taken| u32::from_le_bytes(bytes(taken)))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|taken| u64::from_le_bytes(bytes(taken)))
    }

    pub(crate) fn log_id(&mut self) -> Option<LogId> {
        let (term, node, index) = (self.u64()?, self.u64()?, self.u64()?);
        Some(LogId::new(openraft::CommittedLeaderId::new(term, node), index))
    }

    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Adds a log id to a body.
pub(crate) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.extend_from_slice(&id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&id.leader_id.node_id.to_le_bytes());
    out.extend_from_slice(&id.index.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, Kind::Vote, 3, 77, b"vote");
        put(&mut out, Kind::Truncate, 4, 77, b"");
        seal(&mut out, seed(1, 2), Ends::Batch);
        out
    }

    #[test]
    fn are_read_as_they_were_written() {
        let out = two();
        let (first, room) = read(&out, seed(1, 2)).unwrap();
        let expected = Record { kind: Kind::Vote, group: 3, batch: 77, ends_batch: false, body: b"vote" };
        assert_eq!(first, expected);
        let (second, rest) = read(&out[room..], seed(1, 2)).unwrap();
        assert_eq!((second.kind, second.ends_batch, second.body), (Kind::Truncate, true, &b""[..]));
        assert_eq!(room + rest, out.len());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let mut out = two();
        let room = room(4);
        for bit in 0..room * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&out, seed(1, 2)).is_none(), "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn those_of_another_segment_or_disk_do_not_pass() {
        let out = two();
        assert!(read(&out, seed(1, 3)).is_none());
        assert!(read(&out, seed(2, 2)).is_none());
        assert!(read(&out[..out.len() - HEADER], seed(1, 2)).is_some());
        assert!(read(&out[..20], seed(1, 2)).is_none());
        assert!(read(&[0; 64], seed(1, 2)).is_none());
    }
}
