//! How entries, votes and memberships are written: in logs, in snapshots and on links.
//!
//! Protocol buffers, so that later versions can add fields.

use crate::types::{Command, Entry, LogId, Member, Membership, StoredMembership, Vote};
use bytes::Bytes;
use openraft::{CommittedLeaderId, EntryPayload};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It cannot be read at all.
    #[error("malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// It lacks a part that cannot be done without, or the part is of a kind that is not known here.
    #[error("{0} is missing or of an unknown kind")]
    Missing(&'static str),
}

/// An entry as bytes.
pub fn encode_entry(entry: &Entry) -> Vec<u8> {
    EntryPb::from(entry).encode_to_vec()
}

/// The entry that these bytes are. Its command is a copy: entries are kept for long, and what they came in is a part of all
/// that a link received at that time.
///
/// # Errors
/// When they are not an entry.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, CodecError> {
    EntryPb::decode(bytes)?.try_into()
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogIdPb {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(fixed64, tag = "2")]
    node: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

impl From<&LogId> for LogIdPb {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogIdPb> for LogId {
    fn from(id: LogIdPb) -> Self {
        Self::new(CommittedLeaderId::new(id.term, id.node), id.index)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VotePb {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(fixed64, tag = "2")]
    node: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

impl From<&Vote> for VotePb {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VotePb> for Vote {
    fn from(vote: VotePb) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.node)
        } else {
            Self::new(vote.term, vote.node)
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct MemberPb {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(bool, tag = "4")]
    spare: bool,
}

#[derive(Clone, PartialEq, Message)]
struct VotersPb {
    #[prost(fixed64, repeated, tag = "1")]
    ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MembershipPb {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<VotersPb>,
    #[prost(message, repeated, tag = "2")]
    members: Vec<MemberPb>,
}

impl From<&Membership> for MembershipPb {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config();
        Self {
            configs: configs
                .iter()
                .map(|voters| VotersPb { ids: voters.iter().copied().collect() })
                .collect(),
            members: membership
                .nodes()
                .map(|(id, one)| MemberPb {
                    id: *id,
                    name: one.name.clone(),
                    address: one.address.clone(),
                    spare: one.spare,
                })
                .collect(),
        }
    }
}

impl From<MembershipPb> for Membership {
    fn from(membership: MembershipPb) -> Self {
        let configs: Vec<BTreeSet<u64>> =
            membership.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
        let members: BTreeMap<u64, Member> = membership
            .members
            .into_iter()
            .map(|one| (one.id, Member { name: one.name, address: one.address, spare: one.spare }))
            .collect();
        Self::new(configs, members)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredMembershipPb {
    #[prost(message, optional, tag = "1")]
    at: Option<LogIdPb>,
    #[prost(message, optional, tag = "2")]
    membership: Option<MembershipPb>,
}

impl From<&StoredMembership> for StoredMembershipPb {
    fn from(stored: &StoredMembership) -> Self {
        Self { at: stored.log_id().as_ref().map(Into::into), membership: Some(stored.membership().into()) }
    }
}

impl From<StoredMembershipPb> for StoredMembership {
    fn from(stored: StoredMembershipPb) -> Self {
        Self::new(stored.at.map(Into::into), stored.membership.unwrap_or_default().into())
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryPb {
    #[prost(message, optional, tag = "1")]
    id: Option<LogIdPb>,
    #[prost(oneof = "PayloadPb", tags = "2, 3, 4")]
    payload: Option<PayloadPb>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PayloadPb {
    #[prost(bool, tag = "2")]
    Blank(bool),
    #[prost(bytes = "bytes", tag = "3")]
    Command(Bytes),
    #[prost(message, tag = "4")]
    Membership(MembershipPb),
}

impl From<&Entry> for EntryPb {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadPb::Blank(true),
            EntryPayload::Normal(command) => PayloadPb::Command(command.0.clone()),
            EntryPayload::Membership(membership) => PayloadPb::Membership(membership.into()),
        };
        Self { id: Some((&entry.log_id).into()), payload: Some(payload) }
    }
}

impl TryFrom<EntryPb> for Entry {
    type Error = CodecError;

    fn try_from(entry: EntryPb) -> Result<Self, CodecError> {
        let payload = match entry.payload.ok_or(CodecError::Missing("an entry's payload"))? {
            PayloadPb::Blank(_) => EntryPayload::Blank,
            PayloadPb::Command(bytes) => EntryPayload::Normal(Command(Bytes::copy_from_slice(&bytes))),
            PayloadPb::Membership(membership) => EntryPayload::Membership(membership.into()),
        };
        Ok(Self { log_id: entry.id.ok_or(CodecError::Missing("an entry's id"))?.into(), payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn id(term: u64, node: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, node), index)
    }

    #[test]
    fn what_is_written_is_read() {
        let members: BTreeMap<u64, Member> = (1..=4)
            .map(|id| {
                (
                    id,
                    Member {
                        name: format!("router-{id}"),
                        address: format!("127.0.0.1:{id}"),
                        spare: id == 2,
                    },
                )
            })
            .collect();
        let membership = Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])], members);
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Command(Bytes::from_static(b"ops"))),
            EntryPayload::Normal(Command(Bytes::new())),
            EntryPayload::Membership(membership.clone()),
            EntryPayload::Membership(Membership::new(Vec::new(), None)),
        ] {
            let entry = Entry { log_id: id(7, u64::MAX, 3), payload };
            assert_eq!(decode_entry(encode_entry(&entry).into()), Ok(entry));
        }
        for vote in [Vote::new(1, 2), Vote::new_committed(u64::MAX, 0), Vote::default()] {
            assert_eq!(Vote::from(VotePb::from(&vote)), vote);
        }
        assert_eq!(LogId::from(LogIdPb::from(&id(1, 2, 3))), id(1, 2, 3));
        let stored = StoredMembership::new(Some(id(1, 1, 1)), membership);
        assert_eq!(StoredMembership::from(StoredMembershipPb::from(&stored)), stored);
    }

    /// What a link has received, and whether any of it is still held.
    struct Received(Vec<u8>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Received {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Received {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Release);
        }
    }

    #[test]
    fn an_entry_does_not_hold_what_it_came_in() {
        let payload = EntryPayload::Normal(Command(vec![9; 1000].into()));
        let entry = Entry { log_id: id(1, 1, 1), payload };
        let freed = Arc::new(AtomicBool::new(false));
        let bytes = Bytes::from_owner(Received(encode_entry(&entry), Arc::clone(&freed)));
        let read = decode_entry(bytes).unwrap();
        assert!(freed.load(Ordering::Acquire));
        assert_eq!(read, entry);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        assert!(decode_entry(Bytes::from_static(b"\xff\xff\xff")).is_err());
        assert_eq!(decode_entry(Bytes::new()), Err(CodecError::Missing("an entry's payload")));
        // A payload of a later version, at a tag that nobody knows here.
        let entry = Entry { log_id: id(1, 1, 1), payload: EntryPayload::Blank };
        let mut bytes = encode_entry(&entry);
        let blank = bytes.windows(2).rposition(|two| two == [0x10, 1]).unwrap();
        bytes[blank] = 0x78;
        assert!(matches!(decode_entry(bytes.into()), Err(CodecError::Missing(_))));
    }
}
