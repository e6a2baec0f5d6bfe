//! The routers of a cluster, its certificates and its store.

use starling_cluster::RouterNode;
use starling_node::listen::Listen;
use starling_node::{Config, SystemClock, Telemetry};
use starling_store::testing::FaultyStore;
use starling_store::{AccountRow, Reign, SharedStore, Store};
use starling_wire::Shards;
use starling_wire::tls::{Authority, Files, Identity, Role, Tls};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const CLUSTER: &str = "test";
/// So many routers found the cluster; more join it.
const FOUNDERS: usize = 3;

/// One password is as good as another, and takes as long.
static KEYS: LazyLock<Credentials> = LazyLock::new(|| Credentials::derive("secret", [7; 16], 4_096).unwrap());

/// One cluster at a time: a second one would take it the time that it needs.
static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

pub(crate) struct Site {
    _turn: OwnedMutexGuard<()>,
    dir: TempDir,
    authority: Authority,
    pub(crate) ports: Vec<u16>,
    pub(crate) store: FaultyStore,
    pub(crate) routers: Vec<Option<RouterNode>>,
    shards: u16,
}

pub(crate) fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).unwrap()
}

impl Site {
    /// So many routers with empty disks, that have elected.
    pub(crate) async fn start(routers: usize) -> Self {
        let mut site = Self::empty(routers).await;
        for number in 0..routers {
            site.run(number).await;
        }
        site.settled(Duration::from_secs(30)).await;
        site
    }

    /// A place for so many routers, of which none runs.
    pub(crate) async fn empty(routers: usize) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let now = SystemClock::shared().now_micros() / 1_000_000;
        let sockets: Vec<_> = (0..routers).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let site = Self {
            _turn: Arc::clone(&TURN).lock_owned().await,
            dir: TempDir::new().unwrap(),
            authority: Authority::create(CLUSTER, now, DAY * 365).unwrap(),
            ports: sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect(),
            store: FaultyStore::in_memory().apart(),
            routers: (0..routers).map(|_| None).collect(),
            shards: 16,
        };
        drop(sockets);
        site
    }

    pub(crate) fn files(&self, role: Role, name: &str) -> Files {
        let identity = Identity::new(CLUSTER, role, name).unwrap();
        let now = SystemClock::shared().now_micros() / 1_000_000;
        let pair = self.authority.issue(&identity, &[], now, DAY).unwrap();
        let write = |what: &str, text: &str| -> PathBuf {
            let path = self.dir.path().join(format!("{}-{name}-{what}.pem", role.as_str()));
            std::fs::write(&path, text).unwrap();
            path
        };
        Files {
            ca: write("ca", &self.authority.pair().cert),
            cert: write("cert", &pair.cert),
            key: write("key", &pair.key),
        }
    }

    pub(crate) fn edge_tls(&self, name: &str) -> Arc<Tls> {
        Tls::load(self.files(Role::Edge, name), CLUSTER, Role::Edge, SystemClock::shared()).unwrap()
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    pub(crate) fn shards(&self) -> Shards {
        Shards::new(self.shards).unwrap()
    }

    pub(crate) fn config(&self, number: usize) -> Config {
        let mut config = Config::default();
        let name = format!("router-{number}");
        let files = self.files(Role::Router, &name);
        config.data_dir = self.dir.path().join(&name);
        config.listen.cluster = Listen(vec![([127, 0, 0, 1], self.ports[number]).into()]);
        config.listen.admin = Listen(Vec::new());
        config.cluster.name = CLUSTER.to_owned();
        config.cluster.node = Some(name);
        config.cluster.routers = self.addresses();
        config.cluster.advertise = Some(format!("127.0.0.1:{}", self.ports[number]));
        config.cluster.shards = self.shards;
        config.cluster.initial_routers = self.ports.len().min(FOUNDERS);
        config.cluster.tls.ca = Some(files.ca);
        config.cluster.tls.cert = Some(files.cert);
        config.cluster.tls.key = Some(files.key);
        config
    }

    pub(crate) fn data_dir(&self, number: usize) -> PathBuf {
        self.config(number).data_dir
    }

    /// What an edge with sockets runs with, but for the certificate that its clients see.
    pub(crate) fn edge_config(&self, name: &str) -> Config {
        let mut config = Config::default();
        let files = self.files(Role::Edge, name);
        let anywhere = || Listen(vec![([127, 0, 0, 1], 0).into()]);
        config.data_dir = self.dir.path().join(name);
        (config.listen.c2s, config.listen.c2s_tls) = (anywhere(), anywhere());
        config.listen.admin = Listen(Vec::new());
        config.cluster.name = CLUSTER.to_owned();
        config.cluster.node = Some(name.to_owned());
        config.cluster.routers = self.addresses();
        config.cluster.shards = self.shards;
        config.cluster.tls.ca = Some(files.ca);
        config.cluster.tls.cert = Some(files.cert);
        config.cluster.tls.key = Some(files.key);
        (config.drain.lb_settle, config.drain.window) = (Duration::ZERO, Duration::ZERO);
        config
    }

    /// Starts a router on the disk that it has.
    pub(crate) async fn run(&mut self, number: usize) {
        self.run_with(number, Telemetry::off()).await;
    }

    /// The same, of which something is seen.
    pub(crate) async fn run_with(&mut self, number: usize, telemetry: Telemetry) {
        let store: SharedStore = Arc::new(self.store.clone());
        let node = Box::pin(RouterNode::start_on(store, self.config(number), telemetry)).await.unwrap();
        self.routers[number] = Some(node);
    }

    /// Its process ends without a goodbye.
    pub(crate) async fn kill(&mut self, number: usize) {
        self.routers[number].take().unwrap().abort().await;
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &RouterNode> {
        self.routers.iter().flatten()
    }

    /// Waits until every shard has a home.
    pub(crate) async fn settled(&self, within: Duration) {
        let all = usize::from(self.shards);
        until(within, "every shard has a home", || {
            let served: usize = self.running().map(RouterNode::serves).sum();
            served == all && self.running().all(RouterNode::is_ready)
        })
        .await;
    }

    /// Somebody with an account, as if made long ago.
    pub(crate) async fn account(&self, name: &str) {
        let created = Timestamp(SystemClock::shared().now_micros());
        let row = AccountRow { generation: 1, credentials: KEYS.clone(), created, disabled: false };
        let reign = Reign { epoch: 0, floor: starling_store::Position(0) };
        self.store.create_account(&jid(name), row, reign).await.unwrap();
    }
}

/// Waits until it is so.
pub(crate) async fn until(within: Duration, what: &str, mut is_it: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !is_it() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
