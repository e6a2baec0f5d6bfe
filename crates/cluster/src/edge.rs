//! An edge as a process: sockets, links to all routers, and no store.
//!
//! What it needs of the store comes with a router's hello, so it listens for clients as soon as the first router has
//! answered. All that it knows of sessions is in its [`Uplink`]; when it is gone, homes and other edges go on with them.

mod control;
mod traces;
mod watch;

use crate::identity;
use crate::leaving::Leaving;
use crate::refusals::{Refusals, refused};
use anyhow::Result;
use control::EdgeControl;
use starling_admin::{AdminSocket, ListenerStatus, Phase};
use starling_edge::{Edge, EdgeTable, Fingerprint, Parts};
use starling_node::health::Health;
use starling_node::{Config, Probe, SharedClock, SystemClock, Telemetry, ids};
use starling_setup::{Instance, Obstacle, end, probes};
use starling_wire::frame::{EdgeHello, RouterHello, RouterNews};
use starling_wire::net::{EdgeClient, End, Hears, LinkedRouter, Options, Own, Roll, Routers, Uplink};
use starling_wire::tls::Role;
use starling_wire::uplink::Patience;
use starling_wire::{EdgeId, TraceRule};
use starling_xmpp::Element;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// An edge that runs. Ends with [`stop`](Self::stop).
pub struct EdgeNode {
    edge: Arc<Edge>,
    uplink: Arc<Uplink>,
    client: EdgeClient,
    leaving: Arc<Leaving>,
    instance: Instance,
    listeners: Vec<ListenerStatus>,
    tasks: Vec<JoinHandle<()>>,
    settle: Duration,
    window: Duration,
    grace: Duration,
}

impl EdgeNode {
    /// Starts everything; when this returns, clients are served. It waits for the first router. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// What keeps it from starting. Nothing is left behind then.
    pub async fn start(config: Config, telemetry: Telemetry) -> Result<Self> {
        let directory = config.data_dir.clone();
        let instance = tokio::task::spawn_blocking(move || Instance::take(&directory)).await??;
        let health = Health::default();
        let started = health.check("started", &[Probe::Startup, Probe::Ready]);
        let (mut tasks, admin) = probes::serve(&config, &health, &telemetry)?;
        match Self::assemble(&config, &telemetry, instance, &health).await {
            Ok(mut node) => {
                node.listeners.extend(admin);
                node.tasks.append(&mut tasks);
                match node.administration(&config) {
                    Ok(socket) => node.tasks.push(socket),
                    Err(error) => {
                        node.edge.stop().await;
                        end(node.tasks).await;
                        return Err(error);
                    }
                }
                started.pass();
                Ok(node)
            }
            Err(error) => {
                end(tasks).await;
                Err(error)
            }
        }
    }

    async fn assemble(
        config: &Config,
        telemetry: &Telemetry,
        instance: Instance,
        health: &Health,
    ) -> Result<Self> {
        let clock: SharedClock = SystemClock::shared();
        let cluster = &config.cluster;
        let (tls, name) = identity::load(config, Role::Edge, &clock)?;
        let shards = identity::shards(config)?;
        let edge = EdgeId(u64::from_le_bytes(ids::bytes()).max(1));

        // The table is what homes speak to, the uplink what sessions speak to.
        let table = EdgeTable::of_cluster(edge, shards);
        let own = Own { edge, name, cluster: cluster.name.clone(), shards };
        let patience = patience(config);
        let sockets = Arc::new(traces::Heard { table: table.clone(), telemetry: telemetry.clone() });
        let uplink = Uplink::start(own, patience, table.clone(), sockets, Arc::clone(&clock));
        let counting = traces::count(edge, Arc::clone(&uplink), telemetry.clone());
        let seeds = Arc::new(Roll::new(cluster.routers.clone()));
        let leaving = Arc::new(Leaving::default());
        let manners = Arc::new(Manners {
            uplink: Arc::clone(&uplink),
            leaving: Arc::clone(&leaving),
            refusals: Refusals::default(),
            clock: Arc::clone(&clock),
        });
        telemetry.metrics.register(|registry| tls.register(registry));
        let client = EdgeClient::start(seeds, tls, Options::default(), manners.clone());
        let hello = manners.first_hello(config).await?;

        let parts = Parts {
            table: table.clone(),
            router: uplink.clone(),
            telemetry: telemetry.clone(),
            clock,
            secret: secret(&hello)?,
            features: features(&hello),
        };
        let edge = Arc::new(Edge::start(config, parts).await?);
        let listeners = probes::for_clients(&edge.addresses().c2s, &edge.addresses().c2s_tls);
        let scene = watch::Scene {
            edge: Arc::clone(&edge),
            table,
            uplink: Arc::clone(&uplink),
            leaving: Arc::clone(&leaving),
            shards,
        };
        let mut tasks = scene.watch(health, &telemetry.metrics);
        tasks.push(tokio::spawn(counting));
        let (settle, window) = (config.drain.lb_settle, config.drain.window);
        let grace = config.shutdown.grace;
        Ok(Self { edge, uplink, client, leaving, instance, listeners, tasks, settle, window, grace })
    }

    /// Opens the door for those who run it.
    fn administration(&self, config: &Config) -> Result<JoinHandle<()>> {
        let control = EdgeControl {
            edge: Arc::clone(&self.edge),
            uplink: Arc::clone(&self.uplink),
            leaving: Arc::clone(&self.leaving),
            listeners: self.listeners.clone(),
            cluster: config.cluster.clone(),
            clock: SystemClock::shared(),
        };
        Ok(tokio::spawn(AdminSocket::open(&config.data_dir)?.serve(Arc::new(control))))
    }

    /// Where it listens, port 0 resolved.
    pub fn listeners(&self) -> &[ListenerStatus] {
        &self.listeners
    }

    /// The certificate that a client without SNI sees.
    pub fn fingerprint(&self) -> Fingerprint {
        self.edge.fingerprint()
    }

    /// Resolves when administration asks it to leave: it is to be [stopped](Self::stop) then.
    pub async fn leaving(&self) {
        self.leaving.asked().await;
    }

    /// Takes over what may change while it runs: domains, certificates, limits of connections.
    ///
    /// # Errors
    /// What is wrong with it; everything stays as it was then.
    pub fn reload(&self, config: &Config) -> Result<()> {
        self.edge.reload(config)?;
        Ok(())
    }

    /// Leaves: sends its clients away over a while, so that they resume elsewhere, and waits until homes have all that they
    /// said.
    pub async fn stop(self) {
        self.leaving.enter(Phase::Settling);
        let drain = self.edge.drain(self.settle, self.window);
        let settled = async {
            tokio::time::sleep(self.settle).await;
            self.leaving.enter(Phase::Leaving);
        };
        tokio::join!(drain, settled);
        self.leaving.enter(Phase::Ending);
        if !self.edge.stop().await {
            tracing::warn!(event = "stop_late", "some streams did not end in time");
        }
        let handed_over = async {
            while self.uplink.load().1.ups > 0 {
                tokio::time::sleep(STEP).await;
            }
        };
        if tokio::time::timeout(self.grace, handed_over).await.is_err() {
            tracing::warn!(event = "stop_unhandled", "homes did not take all that clients had said");
        }
        end(self.tasks).await;
        drop((self.edge, self.client, self.uplink));
        // Whoever starts now finds everything closed.
        drop(self.instance);
    }
}

/// How long what is kept of sessions: longer than any of them waits for its resumption.
fn patience(config: &Config) -> Patience {
    let default = Patience::default();
    let detached = default.detached.max(config.limits.sm.resume_timeout + Duration::from_secs(600));
    Patience { detached, ..default }
}

/// What the edge does with routers, beside what its uplink does.
struct Manners {
    uplink: Arc<Uplink>,
    leaving: Arc<Leaving>,
    refusals: Refusals,
    clock: SharedClock,
}

impl Routers for Manners {
    fn hello(&self) -> EdgeHello {
        self.uplink.hello()
    }

    fn linked(&self, router: LinkedRouter) -> Box<dyn Hears<RouterNews>> {
        self.uplink.linked(router)
    }

    fn failed(&self, address: SocketAddr, end: &End) {
        self.refusals.note(address, end, self.clock.monotonic());
    }

    fn leave(&self) {
        self.leaving.ask();
    }

    fn traces(&self, rules: &[TraceRule]) {
        self.uplink.traces(rules);
    }
}

impl Manners {
    /// Waits for a router.
    ///
    /// # Errors
    /// Those that answer refuse this edge.
    async fn first_hello(&self, config: &Config) -> Result<RouterHello, Obstacle> {
        let mut told = 0;
        loop {
            if let Some(hello) = self.uplink.router_hello() {
                return Ok(hello);
            }
            let now = self.clock.monotonic();
            if let Some(refusal) = self.refusals.standing(REFUSED_FOR, now) {
                return Err(refused("edge", refusal));
            }
            told += 1;
            // After 1.5 s, and then every half a minute.
            if told % 600 == 30 {
                let why = match self.refusals.told(now) {
                    why if why.is_empty() => {
                        "no address of theirs is known: they cannot be looked up".to_owned()
                    }
                    why => why,
                };
                tracing::warn!(
                    event = "waiting_for_routers",
                    routers = config.cluster.routers.join(" "),
                    why,
                    "no router has answered yet; clients are served as soon as one does"
                );
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

fn secret(hello: &RouterHello) -> Result<[u8; 32], Obstacle> {
    <[u8; 32]>::try_from(&*hello.decoy_secret).map_err(|_| {
        Obstacle::new("a router's hello cannot be understood")
            .at(&hello.name)
            .because("its secret does not have 32 bytes")
            .advise("see that routers and edges are of versions that go together")
    })
}

/// Stream features of the homes' modules.
fn features(hello: &RouterHello) -> Vec<Element> {
    let parse = |bytes: &bytes::Bytes| match Element::parse(bytes, "") {
        Ok(feature) => Some(feature),
        Err(error) => {
            tracing::warn!(event = "feature_unreadable", %error, router = hello.name, "a stream feature cannot be understood: it is left out");
            None
        }
    };
    hello.features.iter().filter_map(parse).collect()
}

const STEP: Duration = Duration::from_millis(50);
/// An edge that has no link and is refused for so long ends.
const REFUSED_FOR: Duration = Duration::from_secs(4);
