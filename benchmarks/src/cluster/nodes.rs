//! Routers and edges as processes on loopback.

use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::compare::peer::{DOMAIN, PREFIX, Site, log_tail, spawn};
use crate::compare::starling::{LIMITS, run};
use crate::compare::statements::get;
use crate::sasl::Mechanism;
use crate::target::{PASSWORD, Target, TargetArguments, user};

/// How long processes may take to get ready.
const PATIENCE: Duration = Duration::from_secs(90);

/// How many there are of each, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    /// Third byte of the addresses 127.0.x.y.
    pub(super) net: u8,
    pub(super) routers: u8,
    pub(super) edges: u8,
    pub(super) accounts: usize,
}

/// A cluster that runs. Its processes die with its value.
pub(super) struct Cluster {
    pub(super) plan: Plan,
    pub(super) edges: Vec<Node>,
    pub(super) routers: Vec<Node>,
    /// Of its database.
    store: Option<u32>,
    program: Program,
    // After the processes, so that it is removed when nobody writes to it any more.
    _directory: TempDir,
}

/// One process.
pub(super) struct Node {
    pub(super) name: String,
    role: &'static str,
    ip: [u8; 4],
    dir: PathBuf,
    child: Child,
}

impl Cluster {
    /// Makes an authority, certificates and tables, starts all processes on a core and imports the accounts.
    pub(super) async fn start(plan: Plan, site: &Site) -> Result<Self> {
        let cql = site.cql.as_ref().context("a cluster needs a CQL server")?;
        let directory = TempDir::with_prefix("starling-bench-cluster-")?;
        let dir = directory.path();
        let program = Program { binary: site.starling.clone(), settings: site.settings.clone() };
        let binary = &program.binary;
        ensure!(binary.is_file(), "there is no {}: cargo build --release --bin starling", binary.display());
        let mut authority = Command::new(binary);
        authority.args(["cluster", "ca", "--out"]).arg(dir.join("ca"));
        run(authority).await?;
        let keyspace = format!("{}_{}", cql.keyspace, plan.name);
        let mut routers = Vec::new();
        for number in 1..=plan.routers {
            let dir = prepare(dir, &plan, site, "router", number, &keyspace).await?;
            if number == 1 {
                run(program.command(&dir, &["migrate", "apply"])).await?;
            }
            routers.push(Node::start(&program, "router", plan.net, number, dir, None)?);
        }
        for router in &mut routers {
            router.wait_until_ready().await?;
        }
        let mut csv = String::from("jid,password\n");
        for number in 0..plan.accounts {
            csv += &format!("{}@{DOMAIN},{PASSWORD}\n", user(PREFIX, number));
        }
        fs::write(dir.join("accounts.csv"), csv)?;
        let mut import = program.command(&routers[0].dir, &["ctl", "user", "import"]);
        import.arg(dir.join("accounts.csv"));
        run(import).await?;

        // Again, on their core: a process has as many threads as it finds cores.
        for router in &mut routers {
            router.kill()?;
        }
        for router in &mut routers {
            router.begin(&program, Some(site.core))?;
        }
        let mut edges = Vec::new();
        for number in 1..=plan.edges {
            let dir = prepare(dir, &plan, site, "edge", number, &keyspace).await?;
            edges.push(Node::start(&program, "edge", plan.net, number, dir, Some(site.core))?);
        }
        for node in routers.iter_mut().chain(&mut edges) {
            node.wait_until_ready().await?;
        }
        Ok(Self { plan, edges, routers, store: cql.pid, program, _directory: directory })
    }

    /// Its edges as targets; watched are all processes, edges first.
    pub(super) fn doors(&self) -> Result<Vec<Rc<Target>>> {
        let first = Target::new(&TargetArguments {
            address: self.edges.first().context("no edge")?.clients(),
            domain: DOMAIN.to_owned(),
            starttls: false,
            authority: None,
            mechanism: Mechanism::ScramSha1,
            prefix: PREFIX.to_owned(),
            password: PASSWORD.to_owned(),
            sources: 8,
            pid: None,
            store_pid: self.store,
        })?;
        let pids = self.edges.iter().chain(&self.routers).map(Node::pid).collect();
        let first = first.watching(pids);
        Ok(self.edges.iter().map(|edge| Rc::new(first.at(edge.clients()))).collect())
    }

    /// Which router is home of the most shards, and of how many.
    pub(super) async fn busiest_router(&self) -> Result<(usize, usize)> {
        let mut most = (0, 0);
        for (number, router) in self.routers.iter().enumerate() {
            let homes = router.homes().await?;
            if homes > most.1 {
                most = (number, homes);
            }
        }
        Ok(most)
    }

    /// Ends all processes.
    pub(super) fn kill(&mut self) {
        for node in self.edges.iter_mut().chain(&mut self.routers) {
            // One that has ended already is what is wanted.
            let _ = node.kill();
        }
    }

    /// Starts a router again on its data.
    pub(super) async fn restart_router(&mut self, number: usize) -> Result<()> {
        let router = self.routers.get_mut(number).context("no such router")?;
        router.begin(&self.program, None)?;
        router.wait_until_ready().await
    }
}

impl Node {
    fn start(
        program: &Program,
        role: &'static str,
        net: u8,
        number: u8,
        dir: PathBuf,
        core: Option<u32>,
    ) -> Result<Self> {
        let child = spawn(&dir, program.command(&dir, &[role]), core)?;
        Ok(Self { name: format!("{role}-{number}"), role, ip: ip(role, net, number), dir, child })
    }

    fn begin(&mut self, program: &Program, core: Option<u32>) -> Result<()> {
        self.child = spawn(&self.dir, program.command(&self.dir, &[self.role]), core)?;
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it takes clients.
    pub(super) fn clients(&self) -> SocketAddr {
        (self.ip, 5223).into()
    }

    /// Ends it as a crash does.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Of how many shards it is home.
    pub(super) async fn homes(&self) -> Result<usize> {
        let text =
            timeout(PATIENCE, get((self.ip, 5290).into(), "/metrics")).await.context("no metrics")??;
        let reigns =
            text.lines().filter_map(|line| line.strip_prefix("starling_shard_home{")?.rsplit_once(' '));
        Ok(reigns.filter(|(_, epoch)| *epoch != "0").count())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}; {}", self.name, log_tail(&self.dir));
            }
            let asked = timeout(Duration::from_secs(2), get((self.ip, 5290).into(), "/readyz")).await;
            if matches!(asked, Ok(Ok(_))) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "{} is not ready; {}", self.name, log_tail(&self.dir));
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(role: &str, net: u8, number: u8) -> [u8; 4] {
    [127, 0, net, if role == "edge" { 100 + number } else { number }]
}

/// A folder with all that a process needs.
async fn prepare(
    root: &Path,
    plan: &Plan,
    site: &Site,
    role: &'static str,
    number: u8,
    keyspace: &str,
) -> Result<PathBuf> {
    let name = format!("{role}-{number}");
    let dir = root.join(&name);
    DirBuilder::new().recursive(true).mode(0o700).create(dir.join("data"))?;
    let mut certificate = Command::new(&site.starling);
    certificate.args(["cluster", "certificate", "--role", role, "--node", &name, "--ca"]);
    certificate.arg(root.join("ca")).arg("--out").arg(&dir);
    run(certificate).await?;
    let show = |[a, b, c, d]: [u8; 4]| format!("{a}.{b}.{c}.{d}");
    let own = show(ip(role, plan.net, number));
    let seeds: Vec<String> =
        (1..=plan.routers).map(|number| format!("{}:5270", show(ip("router", plan.net, number)))).collect();
    let listen = match role {
        "edge" => format!("c2s = \"off\"\nc2s_tls = \"{own}:5223\""),
        _ => format!("cluster = \"{own}:5270\""),
    };
    let advertise = if role == "edge" { String::new() } else { format!("advertise = \"{own}:5270\"\n") };
    fs::write(dir.join("clients.pem"), &site.certificate)?;
    fs::write(dir.join("clients.key"), &site.key)?;
    let store = match &site.cql {
        Some(cql) if role == "router" => {
            format!(
                "[store]\nkind = \"scylla\"\ncontact_points = [{:?}]\nkeyspace = {keyspace:?}\n",
                cql.address
            )
        }
        _ => String::new(),
    };
    let text = format!(
        "domains = [\"{DOMAIN}\"]\ndata_dir = {:?}\n\n[listen]\nadmin = \"{own}:5290\"\n{listen}\n\n\
         [tls]\ncert = {:?}\nkey = {:?}\n\n[auth]\niterations = 4096\n\n\
         [cluster]\nnode = \"{name}\"\nrouters = {seeds:?}\n{advertise}initial_routers = {}\n\n\
         [cluster.tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\n\
         [drain]\nlb_settle = \"0s\"\nwindow = \"0s\"\n\n[shutdown]\ngrace = \"2s\"\n\n{store}{LIMITS}",
        dir.join("data"),
        dir.join("clients.pem"),
        dir.join("clients.key"),
        plan.routers,
        dir.join("ca.pem"),
        dir.join("cert.pem"),
        dir.join("key.pem"),
    );
    fs::write(dir.join("starling.toml"), text)?;
    Ok(dir)
}

/// The binary with its settings on top.
#[derive(Clone)]
struct Program {
    binary: PathBuf,
    settings: Vec<String>,
}

impl Program {
    fn command(&self, dir: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(dir.join("starling.toml"));
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command.args(words);
        command
    }
}
