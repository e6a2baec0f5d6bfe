//! The parts of the process, put together: read top down, this is what there is.

use crate::back_end::BackEnd;
use crate::control::Administration;
use crate::instance::Instance;
use crate::obstacle::Obstacle;
use crate::passwords::Derivations;
use anyhow::{Result, anyhow};
use starling_admin::{AdminSocket, ListenerStatus, Probes};
use starling_edge::{Edge, EdgeTable, Fingerprint, Parts};
use starling_hooks::{ArchiveDefault, ArchiveIds, Domains, Hooks, Limits, Passwords, Server};
use starling_node::config;
use starling_node::health::Health;
use starling_node::{Check, Config, Probe, SharedClock, SystemClock, Telemetry};
use starling_router::config::Conflict;
use starling_router::{Router, RouterConfig, RouterParts};
use starling_store::{LEASE, Retention, SharedStore, StoreError};
use std::net::SocketAddr;
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
        let clock: SharedClock = SystemClock::shared();
        let health = Health::default();

        // Where everything is kept.
        let directory = config.data_dir.clone();
        let instance = tokio::task::spawn_blocking(move || Instance::take(&directory)).await??;
        let back_end = BackEnd::open(&config, &clock, &telemetry).await?;
        let store: SharedStore = back_end.shared();

        // What homes know how to do.
        let domains = Domains::new(domains(&config)?);
        let passwords: Arc<dyn Passwords> = Arc::new(Derivations::new(config.auth.iterations));
        let hooks = Hooks::of(starling_xeps::all());
        let server = Arc::new(Server {
            domains,
            software: ("Starling", env!("CARGO_PKG_VERSION")),
            store: Arc::clone(&store),
            archive_ids: ArchiveIds::new(&store.secret("archive-ids").await?),
            features: hooks.features(),
            limits: hook_limits(&config),
            registration: config.registration.enabled,
            iterations: config.auth.iterations,
            archive_default: match config.archive.default {
                config::ArchiveDefault::Always => ArchiveDefault::Always,
                config::ArchiveDefault::Never => ArchiveDefault::Never,
                config::ArchiveDefault::Roster => ArchiveDefault::Roster,
            },
            passwords: Arc::clone(&passwords),
        });

        // Homes, and the edge that speaks with them: each is given the other's end of the seam.
        let table = EdgeTable::new();
        let features = vec![starling_xeps::disco::caps(&server)];
        let parts = RouterParts {
            config: router_config(&config, &back_end),
            claim: instance.claim(),
            server: Arc::clone(&server),
            hooks,
            store: Arc::clone(&store),
            edge: table.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&telemetry.metrics),
            tracer: telemetry.tracer.clone(),
            retention: Retention {
                max_age_secs: config.archive.max_age_days.map(|days| days * 86_400),
                max_rows: config.archive.max_rows_per_account,
            },
        };
        let router = Arc::new(reign(&config, parts).await?);
        let parts = Parts {
            table,
            router: router.link(),
            telemetry: telemetry.clone(),
            clock: Arc::clone(&clock),
            secret: store.secret("unknown-accounts").await?,
            features,
        };
        let edge = Arc::new(Edge::start(&config, parts).await?);

        // Doors for machines and for those who run it.
        let probes = config.listen.admin.open()?;
        let mut listeners: Vec<ListenerStatus> = Vec::new();
        let mut list = |name: &str, addresses: &[SocketAddr]| {
            listeners.extend(
                addresses.iter().map(|address| ListenerStatus { name: name.to_owned(), address: *address }),
            );
        };
        list("c2s", &edge.addresses().c2s);
        list("c2s_tls", &edge.addresses().c2s_tls);
        let admin =
            probes.iter().map(std::net::TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
        list("admin", &admin);
        let mut tasks = Vec::new();
        for listener in probes {
            let probes = Probes { health: health.clone(), metrics: Arc::clone(&telemetry.metrics) };
            tasks.push(tokio::spawn(async move {
                if let Err(error) = probes.serve(listener).await {
                    tracing::error!(%error, "probes and metrics are not served");
                }
            }));
        }
        let control = Arc::new(Administration {
            router: Arc::clone(&router),
            server: Arc::clone(&server),
            passwords,
            listeners: listeners.clone(),
            clock,
        });
        tasks.push(tokio::spawn(AdminSocket::open(&config.data_dir)?.serve(control)));
        tasks.push(tokio::spawn(watch(health, Arc::clone(&edge), Arc::clone(&router), back_end.clone())));

        Ok(Self {
            edge,
            router,
            server,
            store: back_end,
            instance,
            place: place(&config),
            listeners,
            tasks,
            grace: config.shutdown.grace,
        })
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
        std::future::pending::<()>().await;
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
        let domains = domains(config)?;
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
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            let _ = task.await;
        }
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
            store = place(config),
            seconds = LEASE.as_secs() + 1,
            "another server used the store last and did not give it back; waiting to be sure that it has ended"
        );
        std::future::pending().await
    };
    let started = tokio::select! {
        started = starting => started,
        never = told => never,
    };
    started.map_err(|error| match error {
        StoreError::Held(name) => Obstacle::new("another server uses this store")
            .at(place(config))
            .because(format!("{name} holds it and is alive"))
            .advise("stop that server, or give this one another `store.keyspace`")
            .into(),
        other => Obstacle::new("the store cannot be taken")
            .at(place(config))
            .because(other)
            .advise("run `starling check`")
            .into(),
    })
}

/// Where the store is, for people.
fn place(config: &Config) -> String {
    let store = &config.store;
    match store.kind {
        config::StoreKind::Embedded => config.data_dir.join("store").display().to_string(),
        config::StoreKind::Scylla => {
            format!("keyspace {} at {}", store.keyspace, store.contact_points.join(", "))
        }
    }
}

/// The domains, as addresses have them.
fn domains(config: &Config) -> Result<Vec<String>> {
    let enforce = |domain: &String| {
        starling_xmpp::jid::domain(domain)
            .map_err(|error| anyhow!("domains: {domain:?} is not a domain ({error})"))
    };
    config.domains.iter().map(enforce).collect()
}

fn hook_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        roster_items: limits.roster.max_items,
        roster_groups: limits.roster.max_groups,
        roster_name: limits.roster.name_len,
        blocked_items: limits.blocklist.max_items,
        directed: limits.session.directed_presence,
        mam_page: limits.mam.page_max,
        ..Limits::default()
    }
}

fn router_config(config: &Config, back_end: &BackEnd) -> RouterConfig {
    let limits = &config.limits;
    RouterConfig {
        workers: config.router.worker_count(),
        alone: back_end.is_alone(),
        conflict: match config.session.conflict {
            config::Conflict::Replace => Conflict::Replace,
            config::Conflict::Refuse => Conflict::Refuse,
        },
        max_resources: limits.session.max_resources,
        max_unacked: limits.sm.max_unacked,
        max_unacked_bytes: limits.sm.max_unacked_bytes,
        window: limits.sm.pull_window,
        resume_timeout: limits.sm.resume_timeout,
        ack_timeout: limits.sm.ack_timeout,
        detached_per_account: limits.sm.detached_per_account,
        offline_messages: limits.offline.max_messages,
        offline_bytes: limits.offline.bytes,
        strangers: (
            usize::try_from(limits.rate.distinct_recipients.count).unwrap_or(usize::MAX),
            limits.rate.distinct_recipients.per,
        ),
        queries: limits.mam.queries_inflight,
    }
}

/// Keeps the probes true.
async fn watch(health: Health, edge: Arc<Edge>, router: Arc<Router>, store: BackEnd) {
    let started: Check = health.check("started", &[Probe::Startup]);
    started.pass();
    let serving = health.check("edge", &[Probe::Ready]);
    let homes = health.check("homes", &[Probe::Ready, Probe::Live]);
    let kept = health.check("store", store.probes());
    loop {
        if edge.ready() {
            serving.pass()
        } else {
            serving.fail("stopping")
        }
        if router.is_whole() {
            homes.pass();
        } else {
            homes.fail("a worker has ended; restart");
        }
        match store.trouble() {
            None => kept.pass(),
            Some(trouble) => kept.fail(trouble),
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}
