//! The suite that every store passes, on models of a server: one that does everything at once, and one with three
//! replicas whose writes can be late.

use starling_store::testing::{BackEnd, Late, LateBackEnd, SharedBackEnd};
use starling_store::{Now, Retention, SharedStore};
use starling_store_scylla::model::{Model, World};
use starling_store_scylla::{ScyllaStore, Settings};
use std::sync::Arc;
use std::time::Duration;

/// A server that does everything at once.
#[derive(Default)]
struct Calm(Option<Model>);

impl BackEnd for Calm {
    async fn open(&mut self, now: Now, retention: Retention) -> SharedStore {
        let model = self.0.get_or_insert_with(|| Model::calm(Arc::clone(&now)));
        let settings = Settings { retention, ..Settings::default() };
        Arc::new(ScyllaStore::open(Arc::new(model.connection()), settings, now))
    }
}

/// A server in a world of its own, whose time runs by itself.
struct Remote {
    world: World,
    model: Option<Model>,
}

impl Remote {
    fn start(seed: u64) -> Self {
        let world = World::new(seed);
        tokio::spawn(world.clone().keep_going());
        Self { world, model: None }
    }

    fn model(&self) -> &Model {
        self.model.as_ref().expect("opened before")
    }
}

impl BackEnd for Remote {
    async fn open(&mut self, now: Now, retention: Retention) -> SharedStore {
        let model = self.model.get_or_insert_with(|| Model::seeded(&self.world, Arc::clone(&now)));
        let settings = Settings { retention, ..Settings::default() };
        let process = self.world.process();
        Arc::new(ScyllaStore::open(Arc::new(model.connect(&process)), settings, now))
    }
}

impl SharedBackEnd for Remote {
    async fn pass(&mut self, time: Duration) {
        self.world.run_until(self.world.now() + time);
    }
}

impl LateBackEnd for Remote {
    fn hold(&mut self, late: Late) {
        self.model().hold(Some(late));
    }

    fn let_through(&mut self) {
        self.model().hold(None);
    }

    fn arrive(&mut self) {
        self.model().arrive();
    }
}

mod calm {
    use super::Calm;
    starling_store::conformance!(Calm::default());
}

mod remote {
    use super::Remote;
    starling_store::conformance!(Remote::start(1));
}

mod shared {
    use super::Remote;
    starling_store::conformance!(shared: Remote::start(2));
}

mod late {
    use super::Remote;
    starling_store::conformance!(late: Remote::start(3));
}
