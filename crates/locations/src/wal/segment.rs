//! A segment: one file of a fixed size that begins with its number and then holds records.

use std::io;

use super::{WalError, record::Fields};
use crate::disk::{Disk, DiskFile};

/// Where the first record begins.
pub(crate) const START: usize = 64;
/// The end of a segment that batches leave free, for a turn and the calm records around it.
pub(crate) const RESERVE: usize = 256;
/// A file that is to become a segment. What is in it counts for nothing.
pub(crate) const SPARE: &str = "spare-";

const MAGIC: [u8; 8] = *b"strlwal\x01";
const PREFIX: &str = "wal-";

/// The file of a segment.
pub(crate) fn name(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

/// The number of the segment that a file of that name holds.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (self::name(number) == name).then_some(number)
}

/// The first bytes of a segment.
pub(crate) fn header(identity: u64, number: u64, size: usize) -> [u8; START] {
    let mut header = [0; START];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&identity.to_le_bytes());
    header[16..24].copy_from_slice(&number.to_le_bytes());
    header[24..32].copy_from_slice(&(size as u64).to_le_bytes());
    let checksum = crc32c::crc32c(&header[..START - 4]);
    header[START - 4..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Whether these are the first bytes of that segment.
pub(crate) fn check(found: &[u8; START], identity: u64, number: u64, size: usize) -> Result<(), WalError> {
    let damaged = |what| Err(WalError::Damaged { segment: number, offset: 0, what });
    let (body, checksum) = found.split_at(START - 4);
    if crc32c::crc32c(body).to_le_bytes() != checksum || found[..8] != MAGIC {
        return damaged("its header is not what was written");
    }
    let mut fields = Fields(&found[8..32]);
    match (fields.u64(), fields.u64(), fields.u64()) {
        (Some(found), ..) if found != identity => Err(WalError::Foreign { found }),
        (_, Some(found), _) if found != number => damaged("its header is that of another segment"),
        (_, _, Some(found)) if found > size as u64 => damaged("its end is missing"),
        _ => Ok(()),
    }
}

/// Makes the file of segment `number`, durable and ready for records: from `spare` if there is one, else anew.
pub(crate) fn prepare(
    disk: &dyn Disk,
    spare: Option<&str>,
    identity: u64,
    number: u64,
    size: usize,
) -> io::Result<Box<dyn DiskFile>> {
    let made = format!("{SPARE}{number:016x}");
    let mut file = match spare {
        Some(spare) => {
            if spare != made {
                disk.rename(spare, &made)?;
            }
            disk.open(&made)?
        }
        None => disk.create(&made)?,
    };
    let ready = || -> io::Result<Box<dyn DiskFile>> {
        file.reserve(size as u64)?;
        file.write_at(&header(identity, number, size), 0)?;
        file.sync()?;
        disk.rename(&made, &name(number))?;
        disk.sync()?;
        Ok(file)
    };
    ready().inspect_err(|_| {
        // A half-made file on a full disk would keep it full.
        let _ = disk.remove(&made);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_number() {
        assert_eq!(number(&name(0x1_0000_0001)), Some(0x1_0000_0001));
        for foreign in
            ["wal-1", "wal-00000000000000AB", "spare-0000000000000001", "wal-+000000000000001", "x"]
        {
            assert_eq!(number(foreign), None, "{foreign}");
        }
    }
}
