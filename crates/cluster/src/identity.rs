//! Who a process is in its cluster.

use starling_node::{Config, SharedClock};
use starling_setup::Obstacle;
use starling_wire::Shards;
use starling_wire::tls::{Files, Role, Tls};
use std::path::PathBuf;
use std::sync::Arc;

/// The files of its certificate.
///
/// # Errors
/// One of them is not named.
pub fn files(config: &Config) -> Result<Files, Obstacle> {
    let tls = &config.cluster.tls;
    let named = |key: &str, path: &Option<PathBuf>| {
        path.clone().ok_or_else(|| {
            Obstacle::new(format!("`cluster.tls.{key}` is not set"))
                .because("processes of a cluster speak only with those whose certificates they can check")
                .advise("`starling cluster ca` and `starling cluster certificate` make the files")
        })
    };
    Ok(Files { ca: named("ca", &tls.ca)?, cert: named("cert", &tls.cert)?, key: named("key", &tls.key)? })
}

/// Its certificate, and the name that it goes by.
///
/// # Errors
/// The files cannot be used, or are for another cluster, role or name.
pub fn load(config: &Config, role: Role, clock: &SharedClock) -> Result<(Arc<Tls>, String), Obstacle> {
    let cluster = &config.cluster;
    let tls = Tls::load(files(config)?, &cluster.name, role, Arc::clone(clock)).map_err(|error| {
        Obstacle::new("the certificate of the cluster cannot be used").because(error).advise(format!(
            "make one with `starling cluster certificate --role {}`, under the authority in `cluster.tls.ca`; see `cluster.name`",
            role.as_str()
        ))
    })?;
    let (name, identity) = (cluster.node_name(), tls.identity());
    if !identity.allows(&name) {
        return Err(Obstacle::new("the certificate is for another node")
            .at(format!("cluster.node from: {}", config.origin("cluster.node")))
            .because(format!("it says {identity}, and this node is called {name}"))
            .advise("set `cluster.node` to the name in the certificate, or make another certificate"));
    }
    Ok((tls, name))
}

/// How accounts are sorted.
///
/// # Errors
/// A number that cannot be.
pub(crate) fn shards(config: &Config) -> Result<Shards, Obstacle> {
    let count = config.cluster.shards;
    Shards::new(count).ok_or_else(|| {
        Obstacle::new(format!("there cannot be {count} shards")).advise("set `cluster.shards`")
    })
}
