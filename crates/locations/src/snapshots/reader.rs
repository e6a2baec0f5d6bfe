//! Reading a snapshot, part by part.

use bytes::Bytes;

use super::{
    Kept, MAX_META, MAX_PART, SnapshotError, SnapshotFile,
    format::{self, BLOCK, END, HEADER},
};
use crate::disk::DiskFile;

/// Reads the parts of a snapshot in order. The file stays as long as this lives.
#[derive(Debug)]
pub struct Parts {
    kept: Kept,
    file: Box<dyn DiskFile>,
    header: [u8; HEADER],
    meta: Bytes,
    offset: u64,
    size: u64,
    blocks: u64,
    bytes: u64,
    ended: bool,
}

impl Parts {
    pub(super) fn open(snapshot: &SnapshotFile) -> Result<Self, SnapshotError> {
        let kept = snapshot.kept.clone();
        let file = kept.0.disk.open(&kept.0.name).map_err(SnapshotError::io("opened"))?;
        let size = file.size().map_err(SnapshotError::io("read"))?;
        let header = format::header(snapshot.group, &snapshot.last);
        let mut parts = Self {
            kept,
            file,
            header,
            meta: Bytes::new(),
            offset: 0,
            size,
            blocks: 0,
            bytes: 0,
            ended: false,
        };
        if parts.take::<HEADER>()? != header {
            return Err(parts.damaged("it is not what its name says"));
        }
        match parts.block(MAX_META)? {
            Some(meta) => parts.meta = meta,
            None => return Err(parts.damaged("it has no description")),
        }
        Ok(parts)
    }

    /// The description.
    pub fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// The next part; `None` after the last. Only then it is sure that none is missing.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.ended { Ok(None) } else { self.block(MAX_PART) }
    }

    fn block(&mut self, most: usize) -> Result<Option<Bytes>, SnapshotError> {
        let [length, checksum] = [self.take::<4>()?, self.take::<4>()?];
        let length = u32::from_le_bytes(length);
        let bytes = match length {
            END => BLOCK * 2,
            length => usize::try_from(length).unwrap_or(usize::MAX),
        };
        if bytes > most.max(BLOCK * 2) || bytes as u64 > self.size - self.offset {
            return Err(self.damaged("a part is longer than can be"));
        }
        let mut content = vec![0; bytes];
        self.file.read_at(&mut content, self.offset).map_err(SnapshotError::io("read"))?;
        self.offset += bytes as u64;
        if format::checksum(&self.header, self.blocks, length, &content) != checksum {
            return Err(self.damaged("a part is not what was written"));
        }
        if length == END {
            let end = [self.blocks.to_le_bytes(), self.bytes.to_le_bytes()].concat();
            self.ended = true;
            return if content == end && self.offset == self.size {
                Ok(None)
            } else {
                Err(self.damaged("its end does not fit"))
            };
        }
        self.blocks += 1;
        self.bytes += bytes as u64;
        Ok(Some(content.into()))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        if self.size - self.offset < N as u64 {
            return Err(self.damaged("it ends early"));
        }
        let mut taken = [0; N];
        self.file.read_at(&mut taken, self.offset).map_err(SnapshotError::io("read"))?;
        self.offset += N as u64;
        Ok(taken)
    }

    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { name: self.kept.0.name.clone(), what }
    }
}
