//! What homes of all shards share in this process.

use super::register::Locations;
use super::switchboard::{Deliveries, Gate, Mail, Switchboard};
use starling_hooks::{Hooks, Server};
use starling_locations::{Group, Reigning};
use starling_node::{SharedClock, Telemetry};
use starling_router::{Homes, RouterConfig, ShardParts};
use starling_setup::Obstacle;
use starling_store::{Position, SharedStore};
use starling_wire::Shards;
use starling_wire::frame::Home;
use starling_wire::gate::Listeners;
use std::sync::Arc;

/// All of it.
pub(super) struct House {
    pub(super) board: Arc<Switchboard>,
    pub(super) config: RouterConfig,
    pub(super) server: Arc<Server>,
    pub(super) hooks: Arc<Hooks>,
    pub(super) store: SharedStore,
    pub(super) clock: SharedClock,
    pub(super) telemetry: Telemetry,
    pub(super) shards: Shards,
}

impl House {
    /// The homes of a shard in a reign: the way to them, and what moves them.
    pub(super) fn homes(
        &self,
        group: &Group,
        home: Home,
        reign: &Reigning,
    ) -> (Gate, impl Future<Output = ()> + Send + 'static) {
        let Reigning { epoch, floor, ceiling, until, age } = reign.clone();
        let deliveries = Arc::new(Deliveries(Listeners::new(home)));
        let (door, homes) = Homes::serve(ShardParts {
            config: self.config.clone(),
            server: Arc::clone(&self.server),
            hooks: Arc::clone(&self.hooks),
            store: Arc::clone(&self.store),
            edges: deliveries.clone(),
            register: Arc::new(Locations { group: group.clone(), epoch }),
            post: Arc::new(Mail(Arc::clone(&self.board))),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.telemetry.metrics),
            tracer: self.telemetry.tracer.clone(),
            shard: home.shard,
            shards: self.shards,
            reign: starling_router::Reigning { epoch, floor: Position(floor), ceiling, until, age },
        });
        (Gate { door, deliveries }, homes)
    }

    /// This process cannot go on.
    pub(super) fn fail(&self, why: String) {
        let obstacle = Obstacle::new("this router cannot go on");
        self.board.fail(obstacle.because(why).advise("start it again, and report this"));
    }
}
