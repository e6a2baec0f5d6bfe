//! Starling as a cluster of processes: three routers and three edges on a CQL server.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Server;
use super::starling::{binary, run, with_settings};
use crate::client::Target;
use crate::http;

/// How many of each there are.
const ROUTERS: usize = 3;
const EDGES: usize = 3;
const NAME: &str = "tests";

/// The ports of all processes, the same for every start of theirs.
pub(super) struct Cluster {
    ports: Vec<u16>,
}

impl Cluster {
    /// How many ports it needs: one and that of its probes for a router, two more for an edge.
    pub(super) const PORTS: usize = 2 * ROUTERS + 3 * EDGES;

    /// A cluster on these ports.
    pub(super) fn new(ports: [u16; Self::PORTS]) -> Self {
        Self { ports: ports.to_vec() }
    }

    /// The names of its processes, routers first.
    pub(super) fn processes() -> impl Iterator<Item = String> {
        Self::routers().chain((1..=EDGES).map(|number| format!("edge-{number}")))
    }

    /// The names of its routers.
    pub(super) fn routers() -> impl Iterator<Item = String> {
        (1..=ROUTERS).map(|number| format!("router-{number}"))
    }

    /// Where clients find each edge.
    pub(super) fn targets(&self, like: &Target) -> Vec<Target> {
        let at = |port| ([127, 0, 0, 1], port).into();
        let edges = self.edges().map(|[c2s, tls, _]| (at(c2s), Some(at(tls))));
        edges.map(|(c2s, c2s_tls)| Target { c2s, c2s_tls, ..like.clone() }).collect()
    }

    /// For each router the port for others of the cluster and that of its probes.
    fn links(&self) -> impl Iterator<Item = [u16; 2]> {
        self.ports.chunks(2).take(ROUTERS).map(|ports| [ports[0], ports[1]])
    }

    /// For each edge its ports for clients, without TLS and with it, and that of its probes.
    fn edges(&self) -> impl Iterator<Item = [u16; 3]> {
        self.ports[2 * ROUTERS..].chunks(3).map(|ports| [ports[0], ports[1], ports[2]])
    }

    fn admin_port(&self, process: &str) -> Result<u16> {
        let routers = Self::routers().zip(self.links().map(|[_, admin]| admin));
        let edges = Self::processes().skip(ROUTERS).zip(self.edges().map(|[.., admin]| admin));
        let found = routers.chain(edges).find(|(name, _)| name == process);
        Ok(found.with_context(|| format!("no process {process}"))?.1)
    }
}

/// Writes all configurations, makes an authority, certificates for all, and the tables.
pub(super) async fn set_up(server: &Server, cluster: &Cluster) -> Result<()> {
    let at = server.directory();
    let text = |path: &Path| path.display().to_string();
    configure(server, cluster)?;
    let ca = text(&at.join("authority"));
    run(server, &["cluster", "ca", "--out", &ca, "--name", NAME], &[], "").await?;
    for process in Cluster::processes() {
        let (out, role) = (text(&at.join(format!("{process}.tls"))), role(&process));
        let files = ["--ca", &ca, "--out", &out];
        let whose = ["--name", NAME, "--role", role, "--node", &process];
        run(server, &[["cluster", "certificate"].as_slice(), &files, &whose].concat(), &[], "").await?;
    }
    run(server, &["migrate", "apply"], &[], "").await.map(|_| ())
}

fn configure(server: &Server, cluster: &Cluster) -> Result<()> {
    let routers: Vec<String> = cluster.links().map(|[port, _]| format!("127.0.0.1:{port}")).collect();
    let keyspace = server.keyspace.as_ref().context("a cluster needs a CQL server")?;
    let (at, certificate) = (server.directory(), server.certificate());
    let mut lists = Vec::new();
    for [port, _] in cluster.links() {
        lists.push(format!("cluster = \"127.0.0.1:{port}\"\n{}", keyspace.config()));
    }
    for [c2s, tls, _] in cluster.edges() {
        lists.push(format!(
            "c2s = \"127.0.0.1:{c2s}\"\nc2s_tls = \"127.0.0.1:{tls}\"\n\n[tls]\ncert = {:?}\nkey = {:?}\n\n\
             [drain]\nlb_settle = \"0s\"\nwindow = \"1s\"\n",
            certificate.chain, certificate.key
        ));
    }
    for (process, own) in Cluster::processes().zip(lists) {
        let (data, tls) = (at.join(&process), at.join(format!("{process}.tls")));
        // A machine that has much else to do must not look like a router that is lost.
        let patience = "[cluster.raft]\nelection = \"3s\"\n";
        let advertised = cluster.links().zip(Cluster::routers()).find(|(_, name)| *name == process);
        let advertise = advertised.map(|([port, _], _)| format!("advertise = \"127.0.0.1:{port}\"\n"));
        let config = format!(
            "domains = [\"{domain}\"]\ndata_dir = {data:?}\n\n[cluster]\nname = {NAME:?}\nnode = {process:?}\n\
             routers = {routers:?}\n{advertise}\n[cluster.tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\n{patience}\n\
             [listen]\nadmin = \"127.0.0.1:{admin}\"\n{own}",
            tls.join("ca.pem"),
            tls.join("cert.pem"),
            tls.join("key.pem"),
            domain = server.domain(),
            advertise = advertise.unwrap_or_default(),
            admin = cluster.admin_port(&process)?,
        );
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&data)?;
        fs::write(at.join(format!("{process}.toml")), config)?;
    }
    Ok(())
}

/// The command of one process.
pub(super) fn command(server: &Server, process: &str) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.arg(role(process)).arg("--config").arg(server.directory().join(format!("{process}.toml")));
    with_settings(server, &mut command);
    Ok(command)
}

/// Whether a process says that it serves.
pub(super) async fn ready(cluster: &Cluster, process: &str) -> Result<bool> {
    let address = ([127, 0, 0, 1], cluster.admin_port(process)?).into();
    Ok(matches!(http::page(address, "/readyz", Duration::from_secs(2)).await, Ok((200, _))))
}

/// Whether all routers believe their table of locations. In its first seconds a new cluster may be an old one that has lost its
/// disks: it waits for edges that may be about to say what they have, and says that a session cannot be resumed yet where it
/// will say that there is none.
pub(super) async fn grown_up(cluster: &Cluster) -> Result<bool> {
    for [_, admin] in cluster.links() {
        let address = ([127, 0, 0, 1], admin).into();
        let (_, metrics) = http::page(address, "/metrics", Duration::from_secs(2)).await?;
        let young = metrics.lines().find_map(|line| line.strip_prefix("starling_router_young_homes "));
        if young.context("no word of young homes")?.trim() != "0" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn role(process: &str) -> &str {
    process.split('-').next().unwrap_or(process)
}
