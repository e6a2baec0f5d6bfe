//! What of the configuration makes a router of a cluster.

use crate::identity;
use starling_locations::Times;
use starling_node::Config;
use starling_node::listen::Listen;
use starling_setup::Obstacle;
use starling_wire::Shards;
use std::path::PathBuf;
use std::time::Duration;

/// Read once.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) cluster: String,
    pub(super) seeds: Vec<String>,
    pub(super) advertise: Option<String>,
    pub(super) shards: Shards,
    pub(super) initial_routers: usize,
    pub(super) listen: Listen,
    pub(super) data_dir: PathBuf,
    pub(super) grace: Duration,
    pub(super) times: Times,
}

impl Settings {
    /// What is configured.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn of(config: &Config) -> Result<Self, Obstacle> {
        let cluster = &config.cluster;
        if config.listen.cluster.is_off() {
            return Err(Obstacle::new("a router cannot be reached without `listen.cluster`")
                .advise("give it an address, such as \"0.0.0.0:5270\""));
        }
        Ok(Self {
            cluster: cluster.name.clone(),
            seeds: cluster.routers.clone(),
            advertise: cluster.advertise.clone(),
            shards: identity::shards(config)?,
            initial_routers: cluster.initial_routers,
            listen: config.listen.cluster.clone(),
            data_dir: config.data_dir.clone(),
            grace: config.shutdown.grace,
            times: Times { heartbeat: cluster.raft.heartbeat, election: cluster.raft.election },
        })
    }
}
