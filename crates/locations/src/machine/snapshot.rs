//! A shard's state as bytes: a head, then rows in chunks, in a fixed layout.
//!
//! ```text
//! head   protocol buffers: version, what the machine holds beside its rows, the number of rows
//! row    u16 length, address, u128 token, u64 edge, u64 index, u64 attempt; all little-endian
//! chunk  whole rows, one after the other
//! ```
//! Where it is kept and sent, each chunk has a checksum.

use super::{Head, MAX_ROWS, Machine, Row, Rows, View};
use prost::Message;
use starling_wire::{EdgeId, Epoch, Token};
use starling_xmpp::FullJid;

/// The layout of rows that this version writes, and the only one it reads.
const VERSION: u32 = 1;
/// What a row takes beside its address and its length.
const FIXED: usize = 16 + 8 + 8 + 8;

/// Bytes that are no snapshot of a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The head cannot be read.
    #[error("the head is malformed: {0}")]
    Head(#[from] prost::DecodeError),
    /// It was written by a version with another layout.
    #[error("layout {0} is not known to this version")]
    Version(u32),
    /// A chunk ends within a row, or a row's address is none.
    #[error("a row is malformed")]
    Row,
    /// There are more or fewer rows than the head says.
    #[error("the head says {said} rows, there are {found}")]
    Count {
        /// What the head says.
        said: u64,
        /// What there is.
        found: u64,
    },
}

#[derive(Clone, PartialEq, Message)]
struct HeadPb {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(fixed64, tag = "3")]
    router: u64,
    #[prost(fixed64, tag = "4")]
    incarnation: u64,
    #[prost(uint64, tag = "5")]
    floor: u64,
    #[prost(uint64, tag = "6")]
    ceiling: u64,
    #[prost(uint64, tag = "7")]
    rows: u64,
}

impl View {
    /// The head of the snapshot of this moment.
    pub fn encode_head(&self) -> Vec<u8> {
        let head = self.head();
        HeadPb {
            version: VERSION,
            epoch: head.epoch.0,
            router: head.router,
            incarnation: head.incarnation,
            floor: head.floor,
            ceiling: head.ceiling,
            rows: self.rows().len(),
        }
        .encode_to_vec()
    }

    /// All rows, in chunks of at least `size` bytes (but for the last), and of one row more at most.
    pub fn encode_rows(&self, size: usize) -> impl Iterator<Item = Vec<u8>> {
        let mut rows = self.rows().iter().peekable();
        std::iter::from_fn(move || {
            rows.peek()?;
            let mut chunk = Vec::with_capacity(size + 1024);
            while chunk.len() < size
                && let Some((jid, row)) = rows.next()
            {
                encode_row(&mut chunk, jid, row);
            }
            Some(chunk)
        })
    }
}

fn encode_row(into: &mut Vec<u8>, jid: &FullJid, row: &Row) {
    let jid = jid.as_str().as_bytes();
    // An address has at most 3,071 octets (RFC 7622).
    into.extend(u16::try_from(jid.len()).unwrap_or(u16::MAX).to_le_bytes());
    into.extend(jid);
    into.extend(row.token.0.to_le_bytes());
    into.extend(row.edge.0.to_le_bytes());
    into.extend(row.index.to_le_bytes());
    into.extend(row.attempt.to_le_bytes());
}

fn decode_row(bytes: &[u8]) -> Option<(FullJid, Row, &[u8])> {
    let (length, bytes) = bytes.split_first_chunk::<2>()?;
    let (jid, bytes) = bytes.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let jid = FullJid::parse(std::str::from_utf8(jid).ok()?).ok()?;
    let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
    let (token, fixed) = fixed.split_first_chunk::<16>()?;
    let (numbers, _) = fixed.as_chunks::<8>();
    let [edge, index, attempt] = *<&[[u8; 8]; 3]>::try_from(numbers).ok()?;
    let row = Row {
        token: Token(u128::from_le_bytes(*token)),
        edge: EdgeId(u64::from_le_bytes(edge)),
        index: u64::from_le_bytes(index),
        attempt: u64::from_le_bytes(attempt),
    };
    Some((jid, row, rest))
}

/// A machine that is being read from a snapshot.
#[derive(Debug)]
pub struct Restore {
    head: Head,
    expected: u64,
    rows: Rows,
}

impl Restore {
    /// Begins with the head.
    ///
    /// # Errors
    /// When it is malformed or of a layout that this version does not read.
    pub fn begin(head: &[u8]) -> Result<Self, SnapshotError> {
        let head = HeadPb::decode(head)?;
        if head.version != VERSION {
            return Err(SnapshotError::Version(head.version));
        }
        if head.rows > MAX_ROWS {
            return Err(SnapshotError::Count { said: head.rows, found: 0 });
        }
        let expected = head.rows;
        let head = Head {
            epoch: Epoch(head.epoch),
            router: head.router,
            incarnation: head.incarnation,
            floor: head.floor,
            ceiling: head.ceiling,
        };
        Ok(Self { head, expected, rows: Rows::default() })
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// When it is not made of whole rows, or there are more than the head said.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), SnapshotError> {
        while !chunk.is_empty() {
            let (jid, row, rest) = decode_row(chunk).ok_or(SnapshotError::Row)?;
            self.rows.insert(jid, row);
            if self.rows.len() > self.expected {
                return Err(SnapshotError::Count { said: self.expected, found: self.rows.len() });
            }
            chunk = rest;
        }
        Ok(())
    }

    /// The machine.
    ///
    /// # Errors
    /// When rows are missing.
    pub fn finish(self) -> Result<Machine, SnapshotError> {
        if self.rows.len() != self.expected {
            return Err(SnapshotError::Count { said: self.expected, found: self.rows.len() });
        }
        Ok(Machine { head: self.head, rows: self.rows })
    }
}
