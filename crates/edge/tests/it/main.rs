//! An edge with real sockets, between a raw client and a home that lives in memory.

#![allow(clippy::disallowed_methods)] // real time passes in these tests
#![allow(clippy::unwrap_used)]

mod client;
mod cluster;
mod home;
mod hostile;
mod negotiation;
mod pressure;
mod registration;
mod resumption;
mod sasl;
mod session;
mod shutdown;
mod telemetry;
mod tls;

use home::Home;
use starling_edge::{Edge, EdgeTable, Parts};
use starling_node::config::Config;
use starling_node::listen::Listen;
use starling_node::{Rate, SystemClock, Telemetry};
use starling_wire::net::Sockets;
use starling_wire::{EdgeId, Shard, Shards};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;

/// A running edge with its home.
struct Site {
    edge: Edge,
    table: Arc<EdgeTable>,
    home: Arc<Home>,
    config: Config,
    telemetry: Telemetry,
    _dir: TempDir,
}

impl Site {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With another configuration; limits are raised so far that only what a test sets is felt.
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::seen_by(Telemetry::off(), change).await
    }

    async fn seen_by(telemetry: Telemetry, change: impl FnOnce(&mut Config)) -> Self {
        Self::on(EdgeTable::new(), telemetry, change).await
    }

    /// An edge of a cluster, whose one shard has a home.
    async fn of_cluster(change: impl FnOnce(&mut Config)) -> Self {
        let shards = Shards::new(1).unwrap();
        let table = EdgeTable::of_cluster(EdgeId(7), shards);
        table.reading(Shard(0), true);
        Self::on(table, Telemetry::off(), change).await
    }

    async fn on(table: Arc<EdgeTable>, telemetry: Telemetry, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data_dir = dir.path().into();
        let any = Listen(vec!["127.0.0.1:0".parse().unwrap()]);
        config.listen.c2s = any.clone();
        config.listen.c2s_tls = any;
        config.auth.iterations = 4_096;
        config.limits.conn.rate_per_ip = Rate::per_second(10_000);
        config.limits.conn.unauth_per_ip = 1_000;
        config.limits.auth.failures_per_ip_window = Rate::per_second(10_000);
        config.limits.auth.failures_per_account_window = Rate::per_second(10_000);
        change(&mut config);
        let home = Home::new(table.clone());
        let parts = Parts {
            table: table.clone(),
            router: home.clone(),
            telemetry: telemetry.clone(),
            clock: SystemClock::shared(),
            secret: [7; 32],
            features: Vec::new(),
        };
        let edge = Edge::start(&config, parts).await.unwrap();
        Self { edge, table, home, config, telemetry, _dir: dir }
    }

    fn c2s(&self) -> SocketAddr {
        self.edge.addresses().c2s[0]
    }

    fn c2s_tls(&self) -> SocketAddr {
        self.edge.addresses().c2s_tls[0]
    }
}
