//! Making the log, and finding it again.

use std::collections::BTreeSet;

use super::{
    Options, WalError,
    record::{self, Ends, Kind, NO_GROUP},
    replay::{self, End, Replayed},
    segment::{self, SPARE, START},
    writer::Current,
};
use crate::disk::{Disk, DiskFile};

/// A log that is ready to be written to.
pub(crate) struct Opened {
    pub(crate) replayed: Replayed,
    pub(crate) current: Current,
    pub(crate) next: Option<Box<dyn DiskFile>>,
}

/// Makes an empty log. What was there is taken away.
pub(crate) fn create(disk: &dyn Disk, identity: u64, options: &Options) -> Result<Opened, WalError> {
    let make = || {
        for name in disk.names()? {
            if name.starts_with(SPARE) || segment::number(&name).is_some() {
                disk.remove(&name)?;
            }
        }
        disk.sync()?;
        segment::prepare(disk, None, identity, 1, options.segment_bytes)
    };
    let file = make().map_err(WalError::io("make its first segment"))?;
    let replayed = Replayed { segments: BTreeSet::from([1]), floor: 1, ..Replayed::default() };
    let current = Current {
        number: 1,
        file,
        size: options.segment_bytes,
        offset: START,
        batch: 1,
        calm: true,
        retry: 0,
    };
    Ok(Opened { replayed, current, next: None })
}

/// Reads the log, ends a torn batch, and takes away what is not needed.
pub(crate) fn open(disk: &dyn Disk, identity: u64, options: &Options) -> Result<Opened, WalError> {
    let mut replayed = replay::replay(disk, identity)?;
    let current = mend(disk, identity, &replayed.end).map_err(WalError::io("mend its end"))?;
    let tidy = || -> std::io::Result<_> {
        let number = current.number + 1;
        let mut next = None;
        if replayed.prepared {
            let file = disk.open(&segment::name(number))?;
            next = (file.size()? == options.segment_bytes as u64).then_some(file);
        }
        for name in disk.names()? {
            let unused = match segment::number(&name) {
                Some(found) => found < replayed.floor || found > current.number && next.is_none(),
                None => name.starts_with(SPARE),
            };
            if unused {
                disk.remove(&name)?;
            }
        }
        disk.sync()?;
        Ok(next)
    };
    let next = tidy().map_err(WalError::io("take old segments away"))?;
    let floor = replayed.floor;
    replayed.segments.retain(|&segment| segment >= floor);
    Ok(Opened { replayed, current, next })
}

/// Writes the last batch again, since it may never have reached the disk (a sync that failed says so only once), takes
/// away what a torn batch has left, and says that it ends here.
fn mend(disk: &dyn Disk, identity: u64, end: &End) -> std::io::Result<Current> {
    let mut file = disk.open(&segment::name(end.segment))?;
    let (segment, begin, stop) = end.last;
    if segment == end.segment {
        again(&mut *file, begin, stop)?;
    } else if segment > 0 {
        let mut before = disk.open(&segment::name(segment))?;
        again(&mut *before, begin, stop)?;
        before.sync()?;
    }
    if end.litter > end.offset {
        file.write_at(&vec![0; end.litter - end.offset], end.offset as u64)?;
    }
    let mut offset = end.offset;
    if !end.ended {
        let mut calm = Vec::new();
        record::put(&mut calm, Kind::Calm, NO_GROUP, end.batch, &[]);
        record::seal(&mut calm, record::seed(identity, end.segment), Ends::Batch);
        file.write_at(&calm, offset as u64)?;
        offset += calm.len();
    }
    file.sync()?;
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    Ok(Current { number: end.segment, file, size, offset, batch: end.batch + 1, calm: false, retry: 0 })
}

fn again(file: &mut dyn DiskFile, begin: usize, stop: usize) -> std::io::Result<()> {
    let mut bytes = vec![0; stop - begin];
    file.read_at(&mut bytes, begin as u64)?;
    file.write_at(&bytes, begin as u64)
}
