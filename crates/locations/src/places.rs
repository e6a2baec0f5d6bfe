//! What a router keeps on its disk besides log and snapshots: who it is, and to which cluster it belongs.

use crate::codec::CodecError;
use crate::disk::{Directory, SharedDisk};
use crate::era::Era;
use crate::types::Member;
use prost::Message;
use starling_wire::RouterId;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

const IDENTITY: &str = "identity";
const CLUSTER: &str = "cluster";
/// No such file is longer.
const LONGEST: u64 = 1 << 20;

/// The directories of a router.
#[derive(Debug, Clone)]
pub struct Places {
    /// Who it is.
    pub home: SharedDisk,
    /// The log of all groups.
    pub log: SharedDisk,
    /// The snapshots of all groups.
    pub snapshots: SharedDisk,
}

impl Places {
    /// Those in `data_dir`: `raft`, `raft/log` and `raft/snapshots`. Blocks.
    ///
    /// # Errors
    /// Those of the file system; `ResourceBusy` when another process has them.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let home = data_dir.join("raft");
        let open = |path: &Path| Directory::open(path).map(|one| Arc::new(one) as SharedDisk);
        Ok(Self {
            home: open(&home)?,
            log: open(&home.join("log"))?,
            snapshots: open(&home.join("snapshots"))?,
        })
    }

    /// The identity of this disk, if it has one.
    pub(crate) fn identity(&self) -> io::Result<Option<RouterId>> {
        let Some(bytes) = read(&self.home, IDENTITY)? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(io::Error::other)?;
        let id = u64::from_str_radix(text.trim(), 16).map_err(io::Error::other)?;
        Ok(Some(RouterId(id)))
    }

    pub(crate) fn write_identity(&self, id: RouterId) -> io::Result<()> {
        write(&self.home, IDENTITY, format!("{:016x}\n", id.0).as_bytes())
    }

    /// Another identity will begin here: nothing that belongs to the old one stays.
    pub(crate) fn forget(&self) -> io::Result<()> {
        for name in [IDENTITY, CLUSTER] {
            if self.home.names()?.iter().any(|one| one == name) {
                self.home.remove(name)?;
            }
        }
        self.home.sync()
    }

    pub(crate) fn cluster(&self) -> io::Result<Option<Cluster>> {
        let Some(bytes) = read(&self.home, CLUSTER)? else { return Ok(None) };
        Cluster::decode(&bytes).map(Some).map_err(io::Error::other)
    }

    pub(crate) fn write_cluster(&self, cluster: &Cluster) -> io::Result<()> {
        write(&self.home, CLUSTER, &cluster.encode())
    }
}

/// The cluster that a router belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its number, not 0.
    pub(crate) id: u64,
    pub(crate) era: Era,
    pub(crate) shards: u16,
    /// At the router that founds it: with whom.
    pub(crate) founders: BTreeMap<RouterId, Member>,
}

#[derive(Clone, PartialEq, Message)]
struct ClusterPb {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    era: u64,
    #[prost(uint64, tag = "3")]
    floor: u64,
    #[prost(uint32, tag = "4")]
    shards: u32,
    #[prost(message, repeated, tag = "5")]
    founders: Vec<FounderPb>,
    /// CRC-32C of the same with a checksum of 0.
    #[prost(fixed32, tag = "6")]
    checksum: u32,
}

#[derive(Clone, PartialEq, Message)]
struct FounderPb {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    address: String,
}

impl Cluster {
    fn encode(&self) -> Vec<u8> {
        let founder = |(id, member): (&RouterId, &Member)| FounderPb {
            id: id.0,
            name: member.name.clone(),
            address: member.address.clone(),
        };
        let mut written = ClusterPb {
            id: self.id,
            era: self.era.number,
            floor: self.era.floor,
            shards: self.shards.into(),
            founders: self.founders.iter().map(founder).collect(),
            checksum: 0,
        };
        written.checksum = crc32c::crc32c(&written.encode_to_vec());
        written.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut read = ClusterPb::decode(bytes)?;
        let checksum = std::mem::take(&mut read.checksum);
        if crc32c::crc32c(&read.encode_to_vec()) != checksum {
            return Err(CodecError::Missing("a right checksum"));
        }
        let founder = |one: FounderPb| (RouterId(one.id), Member::new(one.name, one.address));
        Ok(Self {
            id: read.id,
            era: Era { number: read.era, floor: read.floor },
            shards: u16::try_from(read.shards).unwrap_or(u16::MAX),
            founders: read.founders.into_iter().map(founder).collect(),
        })
    }
}

fn read(disk: &SharedDisk, name: &str) -> io::Result<Option<Vec<u8>>> {
    if !disk.names()?.iter().any(|one| one == name) {
        return Ok(None);
    }
    let file = disk.open(name)?;
    let size = file.size()?;
    if size > LONGEST {
        return Err(io::Error::other(format!("{name} is too long")));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Whole or not at all, and durable when it returns.
fn write(disk: &SharedDisk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    let mut file = disk.create(&new)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    drop(file);
    disk.rename(&new, name)?;
    disk.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_and_where_it_belongs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::open(dir.path()).unwrap();
        assert!(Places::open(dir.path()).is_err(), "one process at a time");
        assert_eq!((places.identity().unwrap(), places.cluster().unwrap()), (None, None));
        let id = RouterId(0xfedc_ba98_0000_0001);
        let member = Member::new("router-0", "host:5270");
        let cluster = Cluster {
            id: 7,
            era: Era { number: 3, floor: 99 },
            shards: 16,
            founders: BTreeMap::from([(id, member)]),
        };
        places.write_identity(id).unwrap();
        places.write_cluster(&cluster).unwrap();
        drop(places);
        let places = Places::open(dir.path()).unwrap();
        assert_eq!(
            (places.identity().unwrap(), places.cluster().unwrap()),
            (Some(id), Some(cluster.clone()))
        );
        let mut bytes = cluster.encode();
        bytes[3] ^= 1;
        assert!(Cluster::decode(&bytes).is_err());
        places.forget().unwrap();
        assert_eq!((places.identity().unwrap(), places.cluster().unwrap()), (None, None));
    }
}
