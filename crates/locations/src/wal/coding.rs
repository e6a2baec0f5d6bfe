//! Entries and votes as bytes. What an entry holds is the business of whoever made it ([`Typed`]).

use bytes::Bytes;
use openraft::{Entry, RaftTypeConfig, Vote};

use super::{
    LogId,
    record::{Fields, put_log_id},
};

/// A Raft configuration whose log can be kept: ids are numbers, entries are openraft's own. Entries are copied for
/// every reader, so their content should be shared (`Bytes`, `Arc`).
pub trait Typed: RaftTypeConfig<NodeId = u64, Entry = Entry<Self>, D: Clone> {
    /// Adds an entry to `out`. What is on a disk outlives a program: later versions must be able to read it.
    fn encode(entry: &Entry<Self>, out: &mut Vec<u8>);

    /// The entry that these bytes, all of them, stand for; `None` if they stand for none.
    fn decode(bytes: Bytes) -> Option<Entry<Self>>;
}

/// Bytes before an encoded entry: its log id and its length.
const FRAME: usize = 24 + 4;

/// Adds an entry to the body of a record. Returns the bytes that it takes.
pub(crate) fn put_entry<C: Typed>(out: &mut Vec<u8>, entry: &Entry<C>) -> usize {
    let start = out.len();
    put_log_id(out, &entry.log_id);
    out.extend_from_slice(&[0; 4]);
    C::encode(entry, out);
    // What is too long to be said is too long for a segment, and is refused as that.
    let length = u32::try_from(out.len() - start - FRAME).unwrap_or(u32::MAX);
    out[start + FRAME - 4..start + FRAME].copy_from_slice(&length.to_le_bytes());
    out.len() - start
}

/// Adds an entry whose encoding is known.
pub(crate) fn put_encoded(out: &mut Vec<u8>, id: &LogId, encoded: &[u8]) {
    put_log_id(out, id);
    out.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(encoded);
}

/// The bytes that an entry of that encoding takes in the body of a record.
pub(crate) fn framed(encoded: &[u8]) -> usize {
    FRAME + encoded.len()
}

/// The next entry of a record's body: log id, encoding.
pub(crate) fn take_entry<'a>(from: &mut Fields<'a>) -> Option<(LogId, &'a [u8])> {
    let id = from.log_id()?;
    let length = usize::try_from(from.u32()?).ok()?;
    Some((id, from.take(length)?))
}

/// Adds a vote.
pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &Vote<u64>) {
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.node_id.to_le_bytes());
    out.push(u8::from(vote.committed));
}

/// The vote that these bytes, all of them, stand for.
pub(crate) fn vote(bytes: &[u8]) -> Option<Vote<u64>> {
    let mut fields = Fields(bytes);
    let (term, node) = (fields.u64()?, fields.u64()?);
    let vote = match fields.u8()? {
        0 => Vote::new(term, node),
        1 => Vote::new_committed(term, node),
        _ => return None,
    };
    fields.end().map(|()| vote)
}
