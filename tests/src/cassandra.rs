//! Apache Cassandra, the CQL server of the tests: nodes of our own that are killed, paused and started again.
//!
//! `tests/cassandra/install` fetches it, `tests/cassandra/node` runs a node. Every set of nodes has addresses of its own
//! (127.x.y.1 and so on, port 9042), so that test runs beside each other never meet. A node writes its commit log
//! before it answers: killed, it has lost nothing that it acknowledged.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cql::{Connection, Proxy, answers};

/// What the nodes call their datacenter.
pub const DATACENTER: &str = "datacenter1";
const PORT: u16 = 9042;
const GOSSIP_PORT: u16 = 7000;
/// A start takes 5 to 20 s, on a machine with much else to do more.
const START: Duration = Duration::from_secs(150);

/// A few nodes, and proxies before them if wanted. They die with this value.
pub struct Cassandra {
    nodes: Vec<Node>,
    proxies: Vec<Proxy>,
    directory: TempDir,
}

struct Node {
    address: Ipv4Addr,
    /// What drivers are told to connect to.
    advertised: Ipv4Addr,
    child: Option<Child>,
}

/// Why there are no nodes here, if so: `tests/cassandra/install` has not run, or could not do it.
pub fn missing() -> Option<String> {
    let complete = tests().join("../.cache/cassandra-5.0.9/complete");
    (!complete.exists()).then(|| "Apache Cassandra is not installed: run `make cassandra`".to_owned())
}

/// The shared node that `make test` has started, or why there is none.
pub fn shared() -> Result<SocketAddr, String> {
    match std::env::var("STARLING_TEST_CQL") {
        Ok(address) if address.is_empty() => {
            Err(missing().unwrap_or_else(|| "no CQL server could be started".to_owned()))
        }
        Ok(address) => address.parse().map_err(|_| format!("STARLING_TEST_CQL={address} is not an address")),
        Err(_) => Err("no CQL server: STARLING_TEST_CQL is not set (`make test` starts one)".to_owned()),
    }
}

impl Cassandra {
    /// Starts that many nodes that know each other and waits until they take clients.
    pub async fn start(nodes: usize) -> Result<Self> {
        Self::launch(nodes, None).await
    }

    /// The same with a [`Proxy`] before each node, which is where drivers connect to.
    pub async fn start_behind_proxies(nodes: usize, seed: u64) -> Result<Self> {
        Self::launch(nodes, Some(seed)).await
    }

    async fn launch(count: usize, seed: Option<u64>) -> Result<Self> {
        if let Some(why) = missing() {
            bail!(why);
        }
        let addresses = free_addresses(count)?;
        let behind = |address: &Ipv4Addr| {
            let [a, b, c, d] = address.octets();
            if seed.is_some() { Ipv4Addr::new(a, b, c, d + 100) } else { *address }
        };
        let node = |address: &Ipv4Addr| Node { address: *address, advertised: behind(address), child: None };
        let directory = TempDir::with_prefix("starling-cassandra-")?;
        let mut cluster =
            Self { nodes: addresses.iter().map(node).collect(), proxies: Vec::new(), directory };
        for index in 0..count {
            cluster.spawn(index)?;
        }
        for index in 0..count {
            cluster.wait(index).await?;
        }
        cluster.see_each_other().await?;
        if let Some(seed) = seed {
            for node in &cluster.nodes {
                let [listen, to] = [node.advertised, node.address].map(|a| SocketAddr::from((a, PORT)));
                cluster.proxies.push(Proxy::start(listen, to, seed).await?);
            }
        }
        Ok(cluster)
    }

    /// Where drivers connect to.
    pub fn contact_points(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| SocketAddr::from((node.advertised, PORT))).collect()
    }

    /// A node itself, past its proxy.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from((self.nodes[node].address, PORT))
    }

    /// The proxy before a node.
    pub fn proxy(&self, node: usize) -> &Proxy {
        &self.proxies[node]
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let mut child = self.nodes[node].child.take().context("the node does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops a node where it stands, with its connections open: the worst kind of silence.
    pub fn pause(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::SIGSTOP)
    }

    /// Lets a paused node go on.
    pub fn resume(&self, node: usize) -> Result<()> {
        self.signal(node, Signal::SIGCONT)
    }

    /// Starts a killed node on its data and waits until it takes clients.
    pub async fn restart(&mut self, node: usize) -> Result<()> {
        ensure!(self.nodes[node].child.is_none(), "the node still runs");
        self.spawn(node)?;
        self.wait(node).await
    }

    /// Heals the proxies, lets paused nodes go on and starts dead ones.
    pub async fn mend(&mut self) -> Result<()> {
        self.proxies.iter().for_each(Proxy::heal);
        for node in 0..self.nodes.len() {
            match self.nodes[node].child {
                Some(_) => self.resume(node)?,
                None => self.spawn(node)?,
            }
        }
        for node in 0..self.nodes.len() {
            self.wait(node).await?;
        }
        self.see_each_other().await
    }

    /// Waits until every node knows all others and takes them to be alive. A node that answers says nothing of that, and
    /// what a keyspace gets or who is asked depends on it.
    pub async fn see_each_other(&self) -> Result<()> {
        let others = self.nodes.len() - 1;
        if others == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + START;
        for node in 0..self.nodes.len() {
            while let Err(error) = see_others(self.address(node), others).await {
                if Instant::now() > deadline {
                    return Err(error).with_context(|| format!("node {node} does not see all others"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// What a node has printed, over all its starts.
    pub fn log(&self, node: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file(node)).unwrap_or_default()).into_owned()
    }

    /// Copies the nodes' logs into a folder that stays.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        for node in 0..self.nodes.len() {
            fs::copy(self.log_file(node), folder.join(format!("cassandra-{node}.log")))?;
        }
        Ok(())
    }

    fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        let child = self.nodes[node].child.as_ref().context("the node does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        Ok(())
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let seeds: Vec<String> = self.nodes.iter().map(|node| node.address.to_string()).collect();
        let log = File::options().create(true).append(true).open(self.log_file(index))?;
        let node = &mut self.nodes[index];
        let mut command = Command::new(tests().join("cassandra/node"));
        command
            .arg("run")
            .arg(self.directory.path().join(format!("node{index}")))
            .arg(node.address.to_string());
        // Several share the work, and the machine.
        command.args(["--heap", if seeds.len() == 1 { "448" } else { "256" }]);
        command.args(["--seeds", &seeds.join(","), "--advertise", &node.advertised.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        node.child = Some(command.spawn().with_context(|| format!("cannot run {command:?}"))?);
        Ok(())
    }

    async fn wait(&mut self, index: usize) -> Result<()> {
        let deadline = Instant::now() + START;
        while !answers(self.address(index)).await {
            let child = self.nodes[index].child.as_mut().context("the node does not run")?;
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log(index);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(20)..].join("\n");
                bail!("node {index} takes no clients ({ended:?}); its log ends with:\n{tail}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node{node}.log"))
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // Nothing to be done about a failure here. SIGKILL ends a paused process too.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::env::var_os("STARLING_KEEP").is_some() {
            self.directory.disable_cleanup(true);
            eprintln!("kept {}", self.directory.path().display());
        }
    }
}

/// An error unless this node knows that many others and, where there are three in all, takes each of them to be alive.
async fn see_others(node: SocketAddr, others: usize) -> Result<()> {
    let mut connection = Connection::open(node).await?;
    let peers = connection.run("SELECT peer FROM system.peers").await?.0.len();
    ensure!(peers == others, "it knows {peers} others");
    if others == 2 {
        // The nodes' own table with three copies of each row: nobody is asked for it if one is taken to be dead.
        let read = "SELECT host_id FROM system_distributed.view_build_status \
                    WHERE keyspace_name = 'none' AND view_name = 'none'";
        connection.run_on_all(read).await?;
    }
    Ok(())
}

/// Addresses in a row where nobody listens; those 100 above are for proxies.
fn free_addresses(count: usize) -> Result<Vec<Ipv4Addr>> {
    ensure!(count < 100, "too many nodes");
    for _ in 0..100 {
        let (b, c) = (64 + rand::random::<u8>() % 190, rand::random::<u8>());
        let address = |d: usize| Some(Ipv4Addr::new(127, b, c, u8::try_from(d).ok()?));
        let addresses: Vec<Ipv4Addr> = (1..=count).filter_map(address).collect();
        let free = |address: &Ipv4Addr| {
            [PORT, GOSSIP_PORT].iter().all(|port| TcpListener::bind((*address, *port)).is_ok())
        };
        if addresses.iter().all(free) {
            return Ok(addresses);
        }
    }
    bail!("no free addresses")
}

fn tests() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
