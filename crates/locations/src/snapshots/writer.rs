//! Writing a snapshot, part by part.

use super::{
    LogId, MAX_META, MAX_PART, SnapshotError, SnapshotFile, Snapshots,
    format::{self, BLOCK, END, HEADER},
};
use crate::disk::DiskFile;

/// A snapshot that is being written. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct SnapshotWriter {
    snapshots: Snapshots,
    group: u16,
    last: LogId,
    header: [u8; HEADER],
    name: String,
    /// `None` when it is finished.
    file: Option<Box<dyn DiskFile>>,
    offset: u64,
    blocks: u64,
    bytes: u64,
    unsynced: usize,
    buffer: Vec<u8>,
}

/// After so many bytes they are synced: one large sync at the end would hold up the log's small ones.
const SYNC_EVERY: usize = 4 << 20;

impl SnapshotWriter {
    pub(super) fn begin(
        snapshots: Snapshots,
        group: u16,
        last: LogId,
        meta: &[u8],
    ) -> Result<Self, SnapshotError> {
        if meta.len() > MAX_META {
            return Err(SnapshotError::TooLarge { bytes: meta.len() });
        }
        let name = format!("{}{}", format::UNFINISHED, format::name(group, &last));
        let file = snapshots.disk.create(&name).map_err(SnapshotError::io("begun"))?;
        let header = format::header(group, &last);
        let buffer = header.to_vec();
        let mut writer = Self {
            snapshots,
            group,
            last,
            header,
            name,
            file: Some(file),
            offset: 0,
            blocks: 0,
            bytes: 0,
            unsynced: 0,
            buffer,
        };
        writer.block(meta)?;
        Ok(writer)
    }

    /// Adds a part.
    pub fn part(&mut self, content: &[u8]) -> Result<(), SnapshotError> {
        if content.len() > MAX_PART {
            return Err(SnapshotError::TooLarge { bytes: content.len() });
        }
        self.block(content)
    }

    /// The bytes in it so far, without what frames them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it durable and gives it its name.
    pub fn finish(mut self) -> Result<SnapshotFile, SnapshotError> {
        let mut end = self.blocks.to_le_bytes().to_vec();
        end.extend_from_slice(&self.bytes.to_le_bytes());
        self.put(END, &end)?;
        self.sync()?;
        let name = format::name(self.group, &self.last);
        let disk = &self.snapshots.disk;
        let named = disk.rename(&self.name, &name).and_then(|()| disk.sync());
        named.map_err(SnapshotError::io("finished"))?;
        self.file = None;
        let file = SnapshotFile::new(self.group, self.last, name, disk);
        self.snapshots.add(file.clone());
        Ok(file)
    }

    fn block(&mut self, content: &[u8]) -> Result<(), SnapshotError> {
        let too_large = |_| SnapshotError::TooLarge { bytes: content.len() };
        self.put(u32::try_from(content.len()).map_err(too_large)?, content)?;
        self.blocks += 1;
        self.bytes += content.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    fn put(&mut self, length: u32, content: &[u8]) -> Result<(), SnapshotError> {
        let checksum = format::checksum(&self.header, self.blocks, length, content);
        self.buffer.reserve(BLOCK + content.len());
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&checksum);
        self.buffer.extend_from_slice(content);
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_at(&self.buffer, self.offset).map_err(SnapshotError::io("written"))?;
        self.offset += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), SnapshotError> {
        self.unsynced = 0;
        match &mut self.file {
            Some(file) => file.sync().map_err(SnapshotError::io("synced")),
            None => Ok(()),
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Else it goes at the next start.
            let _ = self.snapshots.disk.remove(&self.name);
        }
    }
}
