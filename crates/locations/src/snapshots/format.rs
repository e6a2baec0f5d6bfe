//! A snapshot as bytes.
//!
//! ```text
//! magic 8 | group u16 | term u64 | node u64 | index u64          the last entry in it, as its name says too
//! then blocks: length u32 | CRC-32C u32, seeded by what the file is and the block's number | bytes
//! block 0 is the description, 1.. are the parts
//! end: length 0xffff_ffff | CRC-32C u32 | number of blocks u64 | all bytes in them u64
//! ```

use super::{LogId, log_id};

/// Files that are being written; what is in them counts for nothing.
pub(super) const UNFINISHED: &str = "unfinished-";
const PREFIX: &str = "snapshot-";
const MAGIC: [u8; 8] = *b"strlsnp\x01";

/// Bytes before the first block.
pub(super) const HEADER: usize = 8 + 2 + 24;
/// Bytes of a block before its content.
pub(super) const BLOCK: usize = 8;
/// Stands in place of the length of a block at the end of the file.
pub(super) const END: u32 = u32::MAX;

/// The name of a finished file.
pub(super) fn name(group: u16, last: &LogId) -> String {
    let leader = last.leader_id;
    format!("{PREFIX}{group:05}-{:020}-{:020}-{:016x}", last.index, leader.term, leader.node_id)
}

/// What a name stands for.
pub(super) fn parse_name(text: &str) -> Option<(u16, LogId)> {
    let mut parts = text.strip_prefix(PREFIX)?.split('-');
    let group = parts.next()?.parse().ok()?;
    let index = parts.next()?.parse().ok()?;
    let term = parts.next()?.parse().ok()?;
    let node = u64::from_str_radix(parts.next()?, 16).ok()?;
    let last = log_id(term, node, index);
    (name(group, &last) == text).then_some((group, last))
}

/// The first bytes of a file.
pub(super) fn header(group: u16, last: &LogId) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&group.to_le_bytes());
    header[10..18].copy_from_slice(&last.leader_id.term.to_le_bytes());
    header[18..26].copy_from_slice(&last.leader_id.node_id.to_le_bytes());
    header[26..34].copy_from_slice(&last.index.to_le_bytes());
    header
}

/// The seed of a block's checksum. Whoever changes the header or the order of blocks changes all of them.
pub(super) fn seed(header: &[u8; HEADER], block: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), &block.to_le_bytes())
}

/// The checksum of a block.
pub(super) fn checksum(header: &[u8; HEADER], block: u64, length: u32, content: &[u8]) -> [u8; 4] {
    let length = crc32c::crc32c_append(seed(header, block), &length.to_le_bytes());
    crc32c::crc32c_append(length, content).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_snapshot_and_sorts_by_index() {
        let last = log_id(3, 0xfeed, 120);
        assert_eq!(parse_name(&name(7, &last)), Some((7, last)));
        assert!(name(7, &log_id(9, 9, 9)) < name(7, &log_id(1, 1, 10)));
        for foreign in ["snapshot-7-1-1-1", "snapshot-", "unfinished-00007", "wal-0000000000000001"] {
            assert_eq!(parse_name(foreign), None, "{foreign}");
        }
    }
}
