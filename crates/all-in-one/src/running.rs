//! The parts of the process, put together: read top down, this is what there is.

use crate::control::Administration;
use anyhow::Result;
use starling_admin::traces::Rules;
use starling_admin::{AdminSocket, ListenerStatus};
use starling_edge::{Edge, EdgeTable, Fingerprint, Parts};
use starling_hooks::Server;
use starling_node::health::Health;
use starling_node::{Config, Probe, SharedClock, SystemClock, Telemetry};
use starling_router::{Router, RouterParts};
use starling_setup::{BackEnd, Core, Instance, Obstacle, end, probes, settings, store_obstacle};
use starling_store::{LEASE, SharedStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long it takes until somebody who waits wants to know why.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How often the health of the parts is looked at.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// A server that runs. Ends with [`stop`](Self::stop).
pub struct Running {
    edge: Arc<Edge>,
    router: Arc<Router>,
    server: Arc<Server>,
    store: BackEnd,
    telemetry: Telemetry,
    instance: Instance,
    place: String,
    listeners: Vec<ListenerStatus>,
    tasks: Vec<JoinHandle<()>>,
    grace: Duration,
}

impl Running {
    /// Starts everything; when this returns, clients are served.
    ///
    /// # Errors
    /// What keeps it from starting. Nothing is left behind then.
    pub async fn start(config: Config, telemetry: Telemetry) -> Result<Self> {
        let directory = config.data_dir.clone();
        let instance = tokio::task::spawn_blocking(move || Instance::take(&directory)).await??;
        let health = Health::default();
        let started = health.check("started", &[Probe::Startup, Probe::Ready]);
        // Whoever looks after this process wants to know that it lives while it waits for a store.
        let (mut tasks, admin) = probes::serve(&config, &health, &telemetry)?;
        let clock: SharedClock = SystemClock::shared();
        match Self::assemble(&config, &telemetry, instance, &health, &clock).await {
            Ok(mut running) => {
                running.listeners.extend(admin);
                match running.administration(&config, clock) {
                    Ok(socket) => tasks.push(socket),
                    Err(error) => {
                        end(tasks).await;
                        running.stop().await;
                        return Err(error);
                    }
                }
                running.tasks.append(&mut tasks);
                started.pass();
                Ok(running)
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
        clock: &SharedClock,
    ) -> Result<Self> {
        // Where everything is kept, and what homes know how to do.
        let retention = settings::retention(config);
        let back_end = BackEnd::open(config, retention, clock, telemetry).await?;
        let store: SharedStore = back_end.shared();
        let core = Core::new(config, &store).await?;

        // Homes, and the edge that speaks with them: each is given the other's end of the seam.
        let table = EdgeTable::new();
        let features = core.features();
        let parts = RouterParts {
            config: settings::router_config(config, back_end.is_alone()),
            claim: instance.claim(),
            server: Arc::clone(&core.server),
            hooks: core.hooks,
            store,
            edge: table.clone(),
            clock: Arc::clone(clock),
            metrics: Arc::clone(&telemetry.metrics),
            tracer: telemetry.tracer.clone(),
            retention,
        };
        let router = Arc::new(reign(config, parts).await?);
        let parts = Parts {
            table,
            router: router.link(),
            telemetry: telemetry.clone(),
            clock: Arc::clone(clock),
            secret: core.unknown_accounts,
            features,
        };
        let telemetry = telemetry.clone().with_secret(&core.unknown_accounts);
        let edge = match Edge::start(config, parts).await {
            Ok(edge) => Arc::new(edge),
            Err(error) => {
                // The next one need not wait for the end of a lease.
                router.stop(config.shutdown.grace).await;
                return Err(error.into());
            }
        };
        let listeners = probes::for_clients(&edge.addresses().c2s, &edge.addresses().c2s_tls);
        let watching = watch(health, Arc::clone(&edge), Arc::clone(&router), back_end.clone());
        let tasks = vec![tokio::spawn(watching), tokio::spawn(back_end.clone().ask())];
        let (place, grace) = (settings::place(config), config.shutdown.grace);
        Ok(Self {
            edge,
            router,
            server: core.server,
            store: back_end,
            telemetry,
            instance,
            place,
            listeners,
            tasks,
            grace,
        })
    }

    /// Opens the door for those who run it.
    fn administration(&self, config: &Config, clock: SharedClock) -> Result<JoinHandle<()>> {
        let control = Arc::new(Administration {
            router: Arc::clone(&self.router),
            server: Arc::clone(&self.server),
            listeners: self.listeners.clone(),
            clock,
            rules: Rules(self.telemetry.clone()),
        });
        Ok(tokio::spawn(AdminSocket::open(&config.data_dir)?.serve(control)))
    }

    /// Where it listens, port 0 resolved.
    pub fn listeners(&self) -> &[ListenerStatus] {
        &self.listeners
    }

    /// The certificate that a client without SNI sees.
    pub fn fingerprint(&self) -> Fingerprint {
        self.edge.fingerprint()
    }

    /// Resolves when another server has taken the store over: this one serves nobody any more and is to be stopped.
    pub async fn fenced(&self) -> Obstacle {
        self.router.fenced().await;
        Obstacle::new("another server has taken over the store")
            .at(&self.place)
            .because("this one did not renew its lease in time, or the other was started with the same data")
            .advise("see that one server alone uses this keyspace, then start this one again")
    }

    /// Takes over what may change while it runs: domains, certificates, limits of connections.
    ///
    /// # Errors
    /// What is wrong with it; everything stays as it was then.
    pub fn reload(&self, config: &Config) -> Result<()> {
        let domains = settings::domains(config)?;
        self.edge.reload(config)?;
        self.server.domains.set(domains);
        Ok(())
    }

    /// Stops accepting, tells every client, writes down what is only in memory, closes the store.
    pub async fn stop(self) {
        if !self.edge.stop().await {
            tracing::warn!(event = "stop_late", "some streams did not end in time");
        }
        self.router.stop(self.grace).await;
        end(self.tasks).await;
        drop((self.edge, self.router, self.server));
        self.store.close().await;
        // Whoever starts now finds everything closed.
        drop(self.instance);
    }
}

/// Starts the homes. Where another server held the store a short while ago, its lease is waited for.
async fn reign(config: &Config, parts: RouterParts) -> Result<Router> {
    let starting = Router::start(parts);
    let told = async {
        tokio::time::sleep(PATIENCE).await;
        tracing::warn!(
            event = "waiting_for_lease",
            store = settings::place(config),
            seconds = LEASE.as_secs() + 1,
            "the store is not ours yet: another server used it last and did not give it back, or it answers slowly; waiting"
        );
        std::future::pending().await
    };
    let started = tokio::select! {
        started = starting => started,
        never = told => never,
    };
    Ok(started.map_err(|error| store_obstacle(config, error))?)
}

/// Keeps the probes true. What was not looked at yet is not ready.
fn watch(
    health: &Health,
    edge: Arc<Edge>,
    router: Arc<Router>,
    store: BackEnd,
) -> impl Future<Output = ()> + use<> {
    let serving = health.check("edge", &[Probe::Ready]);
    let homes = health.check("homes", &[Probe::Ready, Probe::Live]);
    let reign = health.check("reign", &[Probe::Ready]);
    let kept = health.check("store", store.probes());
    async move {
        loop {
            if edge.ready() {
                serving.pass()
            } else {
                serving.fail("stopping, or its homes do not serve")
            }
            if router.is_whole() {
                homes.pass();
            } else {
                homes.fail("a worker has ended; restart");
            }
            if router.reigns() {
                reign.pass();
            } else {
                reign.fail("the store has not confirmed the lease");
            }
            match store.trouble() {
                None => kept.pass(),
                Some(trouble) => kept.fail(trouble),
            }
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    }
}
