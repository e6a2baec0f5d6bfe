//! What openraft is told of us: the types of a group.

use crate::image::Image;
use crate::machine::Outcome;
use bytes::Bytes;

openraft::declare_raft_types!(
    /// The types of a shard's group. A router is the number of its [`RouterId`](starling_wire::RouterId).
    pub Types:
        D = Command,
        R = Applied,
        NodeId = u64,
        Node = Member,
        SnapshotData = Image,
);

/// The handle to a group of openraft.
pub type Raft = openraft::Raft<Types>;
/// An entry of a group's log.
pub type Entry = openraft::Entry<Types>;
/// Term, leader and index of an entry.
pub type LogId = openraft::LogId<u64>;
/// A term's candidate or leader.
pub type Vote = openraft::Vote<u64>;
/// Who takes part in a group.
pub type Membership = openraft::Membership<u64, Member>;
/// The same with the entry that says so.
pub type StoredMembership = openraft::StoredMembership<u64, Member>;
/// Why a log or a snapshot could not be read or written.
pub type StorageError = openraft::StorageError<u64>;

/// What an entry holds: a batch of operations as [`Op::encode`](crate::machine::Op::encode) wrote it. It stays in
/// that form in logs and on links, so that a router keeps and passes on fields that it does not know.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The entry's index.
    pub index: u64,
    /// One for each operation, in order; none for entries of Raft itself.
    pub outcomes: Vec<Outcome>,
}

/// A router as the others know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The name of its place: a pod, a host. One that comes with this name and another id is there in its stead.
    pub name: String,
    /// Where its cluster port is, `host:port`.
    pub address: String,
    /// It takes part without a vote until it is wanted: there are voters enough without it.
    pub spare: bool,
}

impl Member {
    /// One that votes as soon as it may.
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        Self { name: name.into(), address: address.into(), spare: false }
    }

    /// Whether both are in the same place.
    pub fn is_at(&self, other: &Self) -> bool {
        (&self.name, &self.address) == (&other.name, &other.address)
    }
}

impl crate::wal::Typed for Types {
    fn encode(entry: &Entry, out: &mut Vec<u8>) {
        out.extend_from_slice(&crate::codec::encode_entry(entry));
    }

    fn decode(bytes: Bytes) -> Option<Entry> {
        crate::codec::decode_entry(bytes).ok()
    }
}
