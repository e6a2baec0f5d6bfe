//! An edge as a whole: what it is made of, how it starts, changes and stops.

use crate::drain;
use crate::gate::Gate;
use crate::hash_pool::HashPool;
use crate::listener;
use crate::registrations::Registrations;
use crate::shared::{Settings, Shared};
use crate::table::EdgeTable;
use crate::throttle::Throttle;
use crate::tls::{Certificates, TlsError};
use crate::wheel::Tick;
use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit};
use starling_node::config::MOST_GIVEN;
use starling_node::listen::{Listen, ListenError};
use starling_node::telemetry::metrics::{Outcome, Transport};
use starling_node::{Config, SharedClock, Shutdown, Telemetry};
use starling_wire::{EdgeLink, RouterLink};
use starling_xmpp::Element;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// What an edge is given besides its configuration.
pub struct Parts {
    /// The edge's end of the seam, made before the router.
    pub table: Arc<EdgeTable>,
    /// The way to the homes.
    pub router: Arc<dyn RouterLink>,
    /// Logs, spans and metrics.
    pub telemetry: Telemetry,
    /// For limits over time.
    pub clock: SharedClock,
    /// A secret of the cluster: accounts that do not exist get their salt from it, the same on every edge.
    pub secret: [u8; 32],
    /// Stream features after authentication beyond those of the edge itself, e.g. the server's capabilities.
    pub features: Vec<Element>,
}

/// Why an edge does not start, or does not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A domain that is none.
    #[error("{0}")]
    Domain(String),
    /// The operating system has no room for what an edge needs.
    #[error("cannot set up the edge: {0}")]
    System(#[from] std::io::Error),
}

/// Where an edge listens, port 0 resolved.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Clients, with STARTTLS.
    pub c2s: Vec<SocketAddr>,
    /// Clients, with TLS from the first byte.
    pub c2s_tls: Vec<SocketAddr>,
}

/// SHA-256 of a certificate; displayed in upper-case hexadecimal with colons, as clients show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

/// A running edge. Dropping it leaves its connections to the runtime; [`Edge::stop`] ends them in order.
pub struct Edge {
    shared: Arc<Shared>,
    addresses: Addresses,
    tasks: Vec<JoinHandle<()>>,
    config: Arc<ArcSwap<Config>>,
}

impl Edge {
    /// Opens the listeners and accepts clients. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`EdgeError`]. Nothing is left behind then.
    pub async fn start(config: &Config, parts: Parts) -> Result<Self, EdgeError> {
        let settings = Settings::new(config).map_err(EdgeError::Domain)?;
        let certificates = Arc::new(Certificates::load(config)?);
        let limits = &config.limits;
        parts.table.set_queue_bytes(queue_bytes(config));
        let shared = Arc::new(Shared {
            settings: ArcSwap::from_pointee(settings),
            tls: certificates.settings()?,
            certificates,
            gate: Gate::new(&limits.conn, descriptors(), parts.clock.clone()),
            throttle: Throttle::new(&limits.auth, parts.clock.clone()),
            registrations: Registrations::new(parts.clock.clone()),
            pool: HashPool::new(hash_threads(), limits.auth.queue)?,
            table: parts.table,
            router: parts.router,
            telemetry: parts.telemetry,
            clock: parts.clock,
            shutdown: Shutdown::new(config.shutdown.grace),
            doors: Shutdown::new(Duration::ZERO),
            leaving: AtomicBool::new(false),
            secret: parts.secret,
            features: ArcSwap::from_pointee(parts.features),
        });
        shared.note_expiry();
        shared.telemetry.metrics.serves_clients();
        let mut edge = Self {
            shared,
            addresses: Addresses::default(),
            tasks: Vec::new(),
            config: Arc::new(ArcSwap::from_pointee(config.clone())),
        };
        let (c2s, c2s_tls) = (open(&config.listen.c2s)?, open(&config.listen.c2s_tls)?);
        edge.addresses.c2s = edge.accept(c2s, Transport::Starttls)?;
        edge.addresses.c2s_tls = edge.accept(c2s_tls, Transport::Tls)?;
        edge.tasks.push(tokio::spawn(turn(edge.shared.clone())));
        edge.tasks.push(tokio::spawn(watch(edge.shared.clone(), edge.config.clone())));
        Ok(edge)
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The way of homes to this edge's connections.
    pub fn link(&self) -> Arc<dyn EdgeLink> {
        self.shared.table.clone()
    }

    /// The certificate that a client without SNI sees.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.shared.certificates.choose(None).fingerprint)
    }

    /// Whether clients can be served: not stopping, and homes are reachable.
    pub fn ready(&self) -> bool {
        let leaving = self.shared.leaving.load(Ordering::Relaxed) || self.shared.shutdown.is_triggered();
        !leaving && self.shared.router.ready()
    }

    /// The domains that it serves now.
    pub fn domains(&self) -> Vec<String> {
        self.shared.settings.load().domains.clone()
    }

    /// Connections that have authenticated.
    pub fn connections(&self) -> usize {
        self.shared.table.len()
    }

    /// Takes over domains, certificates, limits, mechanisms and registration. Streams to a domain that is gone end
    /// with `host-gone`, all others go on. Listening addresses need a restart.
    ///
    /// # Errors
    /// The certificates or domains that are wrong; everything stays as it was.
    pub fn reload(&self, config: &Config) -> Result<(), EdgeError> {
        let settings = Settings::new(config).map_err(EdgeError::Domain)?;
        self.shared.certificates.reload(config)?;
        self.shared.note_expiry();
        self.shared.settings.store(Arc::new(settings));
        self.shared.gate.configure(&config.limits.conn, descriptors());
        self.shared.throttle.configure(&config.limits.auth);
        self.shared.pool.configure(config.limits.auth.queue);
        self.shared.table.set_queue_bytes(queue_bytes(config));
        self.shared.table.reload_all();
        self.config.store(Arc::new(config.clone()));
        Ok(())
    }

    /// What homes add to the features of a stream has changed.
    pub fn set_features(&self, features: Vec<Element>) {
        self.shared.features.store(Arc::new(features));
    }

    /// Sends clients away one by one, so that they do not all come to the other edges at once: is not [`ready`](Self::ready)
    /// from now on, accepts for `settle` more, and then ends its streams over `window`, each at a time of its own. Whose
    /// session can be resumed resumes it elsewhere. Returns early when nobody is left. [`stop`](Self::stop) comes after it.
    pub async fn drain(&self, settle: Duration, window: Duration) {
        self.shared.leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(settle).await;
        self.shared.doors.trigger();
        drain::send_away(&self.shared.table, window).await;
    }

    /// Stops accepting, ends every stream with `system-shutdown`, and waits until all are gone, at most
    /// `shutdown.grace`. False when some were not. The homes must outlive this.
    pub async fn stop(&self) -> bool {
        self.shared.doors.trigger();
        self.shared.shutdown.trigger();
        self.shared.table.stop_all();
        let drained = self.shared.shutdown.drained().await;
        for task in &self.tasks {
            task.abort();
        }
        drained
    }

    fn accept(
        &mut self,
        listeners: Vec<TcpListener>,
        transport: Transport,
    ) -> std::io::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::with_capacity(listeners.len());
        for listener in listeners {
            addresses.push(listener.local_addr()?);
            self.tasks.push(tokio::spawn(listener::accept(listener, transport, self.shared.clone())));
        }
        Ok(addresses)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn note_expiry(&self) {
        self.telemetry.metrics.certificate_expiry.set(self.certificates.first_expiry());
    }
}

fn open(listen: &Listen) -> Result<Vec<TcpListener>, EdgeError> {
    let sockets = listen.open()?;
    let ready = |socket| TcpListener::from_std(listener::bounded(socket)?).map_err(EdgeError::from);
    sockets.into_iter().map(ready).collect()
}

/// Turns the wheel.
async fn turn(shared: Arc<Shared>) {
    let mut steps = tokio::time::interval(Tick::STEP);
    // Time that was missed has passed all the same; bursts would only repeat it.
    steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let began = tokio::time::Instant::now();
    let mut due = Vec::new();
    loop {
        steps.tick().await;
        let passed = began.elapsed().as_millis() / Tick::STEP.as_millis();
        shared.table.advance(Tick(u32::try_from(passed).unwrap_or(u32::MAX)), &mut due);
        // A connection that registered while `stop` went round has not heard of it.
        if shared.shutdown.is_triggered() {
            shared.table.stop_all();
        }
    }
}

/// Notices new certificate files, as an issuer's agent puts them there.
async fn watch(shared: Arc<Shared>, config: Arc<ArcSwap<Config>>) {
    let mut rounds = tokio::time::interval(WATCH);
    loop {
        rounds.tick().await;
        let reload = {
            let (shared, config) = (shared.clone(), config.load_full());
            move || shared.certificates.changed().then(|| shared.certificates.reload(&config))
        };
        let outcome = match tokio::task::spawn_blocking(reload).await {
            Ok(None) | Err(_) => continue,
            Ok(Some(Ok(()))) => {
                tracing::info!(event = "certificates_reloaded", "certificates reloaded");
                shared.note_expiry();
                Outcome::Ok
            }
            Ok(Some(Err(error))) => {
                tracing::warn!(event = "certificates_unusable", %error, "new certificates are not usable, the old ones stay");
                Outcome::Error
            }
        };
        shared.telemetry.metrics.reloads.at(outcome).inc();
    }
}

/// What may wait for one connection. All that was given away for a session waits at once where it is resumed; the last stanza of
/// it may be more than that, and what comes after has to have room, too.
fn queue_bytes(config: &Config) -> usize {
    let most = config.limits.sm.max_unacked_bytes;
    most.saturating_mul(MOST_GIVEN).saturating_add(most.max(4 * config.limits.xml.c2s.max_stanza_bytes))
}

/// Files this process may have open.
fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

fn hash_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

const WATCH: Duration = Duration::from_secs(10);
