//! What a process can be.

use std::future::{Future, pending};

use starling_admin::ListenerStatus;
use starling_all_in_one::Running;
use starling_cluster::{EdgeNode, RouterNode};
use starling_edge::Fingerprint;
use starling_node::{Config, ConfigErrors, Telemetry, config::Role};
use starling_setup::Obstacle;

/// One role, from start to stop.
pub(crate) trait Node: Sized {
    /// Whether accounts can be made over its admin socket.
    const ACCOUNTS: bool;
    /// `service.name` of its spans.
    const SERVICE: &str;
    /// Whether it is one process of many.
    const IN_CLUSTER: bool;

    /// What the settings lack for this role.
    fn check(_: &Config) -> Result<(), ConfigErrors> {
        Ok(())
    }
    /// Starts it; when this resolves, it serves, or will as soon as others of its cluster are there.
    fn start(config: Config, telemetry: Telemetry) -> impl Future<Output = anyhow::Result<Self>>;
    /// Where it listens.
    fn listeners(&self) -> &[ListenerStatus];
    /// The certificate that clients see, where there are any.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }
    /// Takes over what may change.
    fn reload(&self, config: &Config) -> anyhow::Result<()>;
    /// Resolves when it cannot go on.
    fn failed(&self) -> impl Future<Output = Obstacle> {
        pending()
    }
    /// Resolves when administration wants it to stop.
    fn leaving(&self) -> impl Future<Output = ()> {
        pending()
    }
    /// Ends it in order.
    fn stop(self) -> impl Future<Output = ()>;
}

impl Node for Running {
    const ACCOUNTS: bool = true;
    const SERVICE: &str = "starling";
    const IN_CLUSTER: bool = false;

    async fn start(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        Self::start(config, telemetry).await
    }

    fn listeners(&self) -> &[ListenerStatus] {
        self.listeners()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.fingerprint())
    }

    fn reload(&self, config: &Config) -> anyhow::Result<()> {
        self.reload(config)
    }

    async fn failed(&self) -> Obstacle {
        self.fenced().await
    }

    async fn stop(self) {
        self.stop().await;
    }
}

impl Node for EdgeNode {
    const ACCOUNTS: bool = false;
    const SERVICE: &str = "starling-edge";
    const IN_CLUSTER: bool = true;

    fn check(config: &Config) -> Result<(), ConfigErrors> {
        config.check_role(Role::Edge)
    }

    async fn start(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        Self::start(config, telemetry).await
    }

    fn listeners(&self) -> &[ListenerStatus] {
        self.listeners()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        Some(self.fingerprint())
    }

    fn reload(&self, config: &Config) -> anyhow::Result<()> {
        self.reload(config)
    }

    async fn leaving(&self) {
        self.leaving().await;
    }

    async fn stop(self) {
        self.stop().await;
    }
}

impl Node for RouterNode {
    const ACCOUNTS: bool = true;
    const SERVICE: &str = "starling-router";
    const IN_CLUSTER: bool = true;

    fn check(config: &Config) -> Result<(), ConfigErrors> {
        config.check_role(Role::Router)
    }

    async fn start(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        Self::start(config, telemetry).await
    }

    fn listeners(&self) -> &[ListenerStatus] {
        self.listeners()
    }

    fn reload(&self, config: &Config) -> anyhow::Result<()> {
        self.reload(config)
    }

    async fn failed(&self) -> Obstacle {
        self.failed().await
    }

    async fn leaving(&self) {
        self.leaving().await;
    }

    async fn stop(self) {
        self.stop().await;
    }
}
