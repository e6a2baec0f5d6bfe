//! A router as a process: homes of the shards that it leads, and their way to edges and other routers.
//!
//! Adapters and nothing clever. The locations say which shards this router reigns over (`reigns`); what comes over links is
//! handed to the homes there, or answered with where they are (`switchboard`, `chart`); what is asked about accounts goes to
//! their homes wherever these are (`asking`).

mod asking;
mod control;
mod desk;
mod figures;
mod house;
mod links;
mod questions;
mod raft;
mod register;
mod reigns;
mod settings;
mod start;
mod switchboard;
mod threads;
mod traces;
mod upkeep;

use self::house::House;
use self::threads::Threads;
use crate::leaving::Leaving;
use anyhow::Result;
use starling_admin::{ListenerStatus, Phase};
use starling_locations::{Failure, Locations};
use starling_node::{Check, Config, Telemetry};
use starling_setup::{BackEnd, Obstacle, end, settings as configured};
use starling_store::SharedStore;
use starling_wire::RouterId;
use starling_wire::net::{PeerClient, Server};
use starling_wire::tls::Tls;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A router that runs. Ends with [`stop`](Self::stop).
pub struct RouterNode {
    house: Arc<House>,
    locations: Locations,
    tls: Arc<Tls>,
    server: Server,
    client: PeerClient,
    /// What this process opened itself.
    store: Option<BackEnd>,
    listeners: Vec<ListenerStatus>,
    tasks: Vec<JoinHandle<()>>,
    ready: Arc<Check>,
    leaving: Arc<Leaving>,
    grace: Duration,
    place: String,
    _threads: Threads,
}

impl RouterNode {
    /// Starts everything. When this returns it listens, and looks for the other routers; it is ready when they have elected.
    ///
    /// # Errors
    /// What keeps it from starting. Nothing is left behind then.
    pub async fn start(config: Config, telemetry: Telemetry) -> Result<Self> {
        start::start(config, telemetry, None).await
    }

    /// The same on a store that is open: in memory, for tests of several routers in one process.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(store: SharedStore, config: Config, telemetry: Telemetry) -> Result<Self> {
        start::start(config, telemetry, Some(store)).await
    }

    /// Where it listens, port 0 resolved.
    pub fn listeners(&self) -> &[ListenerStatus] {
        &self.listeners
    }

    /// The identity of its disk.
    pub fn id(&self) -> RouterId {
        self.locations.id()
    }

    /// The groups of its shards.
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// Whether every shard has a home that a quorum stands behind, as far as is known here.
    pub fn is_ready(&self) -> bool {
        self.locations.is_ready()
    }

    /// How many shards it serves.
    pub fn serves(&self) -> usize {
        self.house.board.chart.homes().len()
    }

    /// Resolves when it cannot go on: its process is to end, and to be started anew if that helps.
    pub async fn failed(&self) -> Obstacle {
        let (mut locations, mut house) = (self.locations.failed(), self.house.board.failed.subscribe());
        let failure = tokio::select! {
            failed = locations.wait_for(Option::is_some) => {
                failed.ok().and_then(|failure| failure.clone())
            }
            failed = house.wait_for(Option::is_some) => {
                let known = failed.ok().and_then(|obstacle| obstacle.clone());
                return known.unwrap_or_else(|| Obstacle::new("this router cannot go on"));
            }
        };
        match failure {
            Some(failure) => self.obstacle(&failure),
            None => Obstacle::new("this router cannot go on").because("its groups have ended"),
        }
    }

    fn obstacle(&self, failure: &Failure) -> Obstacle {
        let (what, advice) = match failure {
            Failure::Log(_) => (
                "the log of this router's disk has failed",
                "see that the disk is well and has room, then start it again; a disk that is lost is replaced by an empty `data_dir`",
            ),
            Failure::Raft(..) => {
                ("the agreement of the routers has stopped here", "start it again, and report this")
            }
            Failure::Removed => (
                "this router is no member of the cluster any more",
                "to let it take part again, start it with an empty `data_dir`",
            ),
            Failure::Superseded => (
                "a later cluster has taken over the store",
                "routers that are to belong to it need an empty `data_dir`",
            ),
        };
        Obstacle::new(what).at(&self.place).because(failure).advise(advice)
    }

    /// Takes over what may change while it runs: domains, and certificates of the links.
    ///
    /// # Errors
    /// What is wrong with it; everything stays as it was then.
    pub fn reload(&self, config: &Config) -> Result<()> {
        let domains = configured::domains(config)?;
        self.tls.reload()?;
        self.house.server.domains.set(domains);
        Ok(())
    }

    /// Resolves when administration has asked it to leave: it is to be stopped.
    pub async fn leaving(&self) {
        self.leaving.asked().await;
    }

    /// Gives what it leads to others, writes down what is only in memory, and ends. Sessions go on elsewhere.
    pub async fn stop(self) {
        self.ready.fail("draining");
        self.leaving.enter(Phase::Leaving);
        upkeep::leave(&self.house, &self.locations, self.grace).await;
        self.leaving.enter(Phase::Ending);
        self.end().await;
    }

    /// Ends at once, as a crash would: nothing more is written or told.
    pub async fn abort(self) {
        self.end().await;
    }

    async fn end(self) {
        let Self { house, locations, server, client, store, tasks, .. } = self;
        drop((server, client));
        end(tasks).await;
        locations.stop().await;
        drop((house, locations));
        if let Some(store) = store {
            store.close().await;
        }
    }
}
