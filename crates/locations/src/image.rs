//! A snapshot of a shard: what describes it, and parts of rows. The same on a disk and on a link.

use crate::codec::{LogIdPb, StoredMembershipPb};
use crate::machine::{Machine, Restore, SnapshotError as MachineError, View};
use crate::snapshots::{Parts, SnapshotError, SnapshotFile, Snapshots};
use crate::types::{LogId, Member, StoredMembership};
use openraft::SnapshotMeta;
use prost::Message;
use std::collections::BTreeSet;

/// About how much a part holds.
const PART: usize = 256 << 10;

/// What openraft knows of a snapshot.
pub type Meta = SnapshotMeta<u64, Member>;

/// A whole snapshot; or none, for openraft to put one into. Clones are the same file.
#[derive(Debug, Clone, Default)]
pub struct Image(pub Option<SnapshotFile>);

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its file.
    #[error(transparent)]
    File(#[from] SnapshotError),
    /// There is none.
    #[error("there is no snapshot")]
    None,
    /// What describes it makes no sense.
    #[error("the description is malformed: {0}")]
    Description(#[from] prost::DecodeError),
    /// The machine's part makes no sense.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The task that was at it has ended.
    #[error("given up")]
    GivenUp,
}

/// What a snapshot holds.
#[derive(Debug)]
pub struct Content {
    /// What openraft knows of it.
    pub meta: Meta,
    /// Routers that were members once.
    pub removed: BTreeSet<u64>,
    /// The state machine.
    pub machine: Machine,
}

#[derive(Clone, PartialEq, Message)]
struct DescriptionPb {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdPb>,
    #[prost(message, optional, tag = "2")]
    membership: Option<StoredMembershipPb>,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(fixed64, repeated, tag = "4")]
    removed: Vec<u64>,
    #[prost(bytes = "vec", tag = "5")]
    head: Vec<u8>,
}

/// What describes a snapshot, read back.
#[derive(Debug)]
pub struct Description {
    /// What openraft knows of it.
    pub meta: Meta,
    removed: BTreeSet<u64>,
    head: Vec<u8>,
}

impl Description {
    /// Reads it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let read = DescriptionPb::decode(bytes)?;
        let last_membership = read.membership.map_or_else(StoredMembership::default, Into::into);
        let meta = Meta { last_log_id: read.last.map(Into::into), last_membership, snapshot_id: read.id };
        Ok(Self { meta, removed: read.removed.into_iter().collect(), head: read.head })
    }

    /// What the rows that follow are read into.
    ///
    /// # Errors
    /// When the machine's part makes no sense.
    pub fn restore(&self) -> Result<Restore, ImageError> {
        Ok(Restore::begin(&self.head)?)
    }
}

/// The name of a snapshot of that many entries.
pub fn last(meta: &Meta) -> LogId {
    meta.last_log_id.unwrap_or_default()
}

/// Writes a snapshot of a group; tells about how many bytes it has. Blocks; when it returns, it is durable.
///
/// # Errors
/// Those of the disk.
pub fn write(
    snapshots: &Snapshots,
    group: u16,
    meta: &Meta,
    removed: &BTreeSet<u64>,
    view: &View,
) -> Result<(SnapshotFile, u64), ImageError> {
    let description = DescriptionPb {
        last: meta.last_log_id.as_ref().map(Into::into),
        membership: Some((&meta.last_membership).into()),
        id: meta.snapshot_id.clone(),
        removed: removed.iter().copied().collect(),
        head: view.encode_head(),
    };
    let mut writer = snapshots.begin(group, last(meta), &description.encode_to_vec())?;
    for part in view.encode_rows(PART) {
        writer.part(&part)?;
    }
    let size = writer.bytes();
    Ok((writer.finish()?, size))
}

/// About how many bytes a snapshot has. As much work as writing it, without the disk.
pub fn size(view: &View) -> u64 {
    view.encode_rows(PART).map(|part| part.len() as u64).sum()
}

impl Image {
    /// The file.
    ///
    /// # Errors
    /// When there is none.
    pub fn file(&self) -> Result<&SnapshotFile, ImageError> {
        self.0.as_ref().ok_or(ImageError::None)
    }
}

/// What a snapshot is one of, without the rows. Blocks.
///
/// # Errors
/// When it cannot be read.
pub fn meta(file: &SnapshotFile) -> Result<Meta, ImageError> {
    Ok(Description::decode(file.read()?.meta())?.meta)
}

/// All of a snapshot, and about how many bytes it has. Blocks.
///
/// # Errors
/// When it cannot be read or is not whole.
pub fn read(file: &SnapshotFile) -> Result<(Content, u64), ImageError> {
    let mut parts: Parts = file.read()?;
    let Description { meta, removed, head } = Description::decode(parts.meta())?;
    let mut restore = Restore::begin(&head)?;
    let mut size = 0;
    while let Some(part) = parts.next_part()? {
        size += part.len() as u64;
        restore.push(&part)?;
    }
    Ok((Content { meta, removed, machine: restore.finish()? }, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Directory;
    use crate::machine::{Op, epoch};
    use openraft::CommittedLeaderId;
    use starling_wire::{EdgeId, Incarnation, RouterId, Token};
    use starling_xmpp::FullJid;
    use std::sync::Arc;

    fn machine(rows: u64) -> Machine {
        let mut machine = Machine::new();
        let open =
            Op::Open { era: 1, incarnation: Incarnation(1), router: RouterId(1), floor: 0, ceiling: 5 };
        machine.apply(1, &[open]);
        for n in 0..rows {
            let jid = FullJid::parse(&format!("user{n}@example.org/phone")).unwrap();
            let (token, edge) = (Token(n.into()), EdgeId(n % 3));
            machine.apply(n + 2, &[Op::Bind { epoch: epoch(1, 1), jid, token, edge }]);
        }
        machine
    }

    fn meta_of(index: u64) -> Meta {
        let last = LogId::new(CommittedLeaderId::new(3, 1), index);
        let membership = crate::types::Membership::new(vec![BTreeSet::from([1, 2, 3])], None);
        Meta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(Some(last), membership),
            snapshot_id: "one".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(Arc::new(Directory::open(dir.path()).unwrap())).unwrap();
        for rows in [0, 1, 20_000] {
            let (of, removed) = (meta_of(rows + 10), BTreeSet::from([9]));
            let (file, _) = write(&snapshots, 3, &of, &removed, &machine(rows).view()).unwrap();
            assert_eq!(meta(&file).unwrap(), of);
            let (content, size) = read(&file).unwrap();
            assert_eq!((content.meta, content.removed, content.machine.len()), (of, removed, rows));
            assert!(size >= rows * 60);
            assert_eq!(content.machine.head(), machine(0).head());
            let sorted = |machine: &Machine| {
                let view = machine.view();
                let mut rows: Vec<_> = view.rows().iter().map(|(jid, row)| (jid.clone(), *row)).collect();
                rows.sort_by(|one, other| one.0.cmp(&other.0));
                rows
            };
            assert_eq!(sorted(&content.machine), sorted(&machine(rows)));
        }
        assert_eq!(snapshots.files(3).len(), 3);
        assert!(matches!(Image::default().file(), Err(ImageError::None)));
        assert!(Description::decode(b"\xff").is_err());
    }
}
