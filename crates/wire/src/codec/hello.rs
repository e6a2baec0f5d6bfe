//! How links begin.

use super::{Malformed, Result, home, own, read_home};
use crate::frame::{EdgeHello, PeerHello, RouterHello, Version};
use crate::{EdgeId, Incarnation, RouterId, proto};

/// The longest name, and name of a hash or a cluster, in bytes.
const MAX_NAME: usize = 255;
/// The most features, and bytes of each.
const MAX_FEATURES: usize = 64;
const MAX_FEATURE: usize = 16 << 10;
/// The most routers that are named.
const MAX_ROUTERS: usize = 256;

fn version(version: &Version) -> proto::Version {
    let Version { major, minor, cluster, shards, hash } = version.clone();
    proto::Version { major, minor, cluster, shards, hash }
}

fn read_version(version: Option<proto::Version>) -> Result<Version> {
    let proto::Version { major, minor, cluster, shards, hash } = version.ok_or(Malformed("hello"))?;
    Ok(Version { major, minor, cluster: read_name(cluster)?, shards, hash: read_name(hash)? })
}

fn read_name(name: String) -> Result<String> {
    // It goes into logs and answers.
    let fine = name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    if fine { Ok(name) } else { Err(Malformed("name")) }
}

pub(crate) fn edge_hello(hello: &EdgeHello) -> proto::EdgeHello {
    proto::EdgeHello { version: Some(version(&hello.version)), edge: hello.edge.0, name: hello.name.clone() }
}

pub(crate) fn read_edge_hello(hello: proto::EdgeHello) -> Result<EdgeHello> {
    let version = read_version(hello.version)?;
    Ok(EdgeHello { version, edge: EdgeId(hello.edge), name: read_name(hello.name)? })
}

pub(crate) fn router_hello(hello: &RouterHello) -> proto::RouterHello {
    proto::RouterHello {
        version: Some(version(&hello.version)),
        router: hello.router.0,
        name: hello.name.clone(),
        incarnation: hello.incarnation.0,
        homes: hello.homes.iter().copied().map(home).collect(),
        decoy_secret: hello.decoy_secret.clone(),
        features: hello.features.clone(),
        routers: named(&hello.routers),
    }
}

pub(crate) fn read_router_hello(hello: proto::RouterHello) -> Result<RouterHello> {
    let many = hello.features.len() > MAX_FEATURES;
    if many || hello.features.iter().any(|feature| feature.len() > MAX_FEATURE) {
        return Err(Malformed("features"));
    }
    Ok(RouterHello {
        version: read_version(hello.version)?,
        router: RouterId(hello.router),
        name: read_name(hello.name)?,
        incarnation: Incarnation(hello.incarnation),
        homes: hello.homes.into_iter().map(read_home).collect::<Result<_>>()?,
        decoy_secret: own(&hello.decoy_secret),
        features: hello.features.iter().map(own).collect(),
        routers: read_routers(hello.routers)?,
    })
}

/// Addresses of routers, as many as may be named.
pub(super) fn named(routers: &[String]) -> Vec<String> {
    routers.iter().filter(|address| address.len() <= MAX_NAME).take(MAX_ROUTERS).cloned().collect()
}

pub(crate) fn read_routers(routers: Vec<String>) -> Result<Vec<String>> {
    if routers.len() > MAX_ROUTERS {
        return Err(Malformed("routers"));
    }
    routers.into_iter().map(read_name).collect()
}

pub(crate) fn peer_hello(hello: &PeerHello) -> proto::PeerHello {
    proto::PeerHello {
        version: Some(version(&hello.version)),
        router: hello.router.0,
        name: hello.name.clone(),
        incarnation: hello.incarnation.0,
        homes: hello.homes.iter().copied().map(home).collect(),
        notes: hello.notes.clone(),
        heard: hello.heard,
    }
}

pub(crate) fn read_peer_hello(hello: proto::PeerHello) -> Result<PeerHello> {
    Ok(PeerHello {
        version: read_version(hello.version)?,
        router: RouterId(hello.router),
        name: read_name(hello.name)?,
        incarnation: Incarnation(hello.incarnation),
        homes: hello.homes.into_iter().map(read_home).collect::<Result<_>>()?,
        notes: own(&hello.notes),
        heard: hello.heard,
    })
}
