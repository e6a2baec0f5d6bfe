//! Servers under test: Starling as one process or as a cluster of them, on ports of its own, and Prosody and ejabberd
//! from Debian as references.
//!
//! A [`Server`] lives in a temporary folder, listens on loopback only and dies with its value. The output of each of its
//! processes is in one log file; when a start fails, the error shows the log's end.

mod cluster;
mod ejabberd;
mod form;
mod process;
mod prosody;
mod starling;
mod store;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::client::{Login, Stream, Target};
use cluster::Cluster;
use process::Process;
use store::Keyspace;

pub use form::Form;
pub use starling::{WIDE, binary};
pub use store::Store;

/// Which server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The server of this repository.
    Starling,
    /// Prosody 0.12, as Debian 12 ships it.
    Prosody,
    /// ejabberd 23.01, as Debian 12 ships it.
    Ejabberd,
}

impl Kind {
    /// The name used in scripts and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starling => "starling",
            Self::Prosody => "prosody",
            Self::Ejabberd => "ejabberd",
        }
    }
}

/// The password that [`Server::add_user`] and [`Server::login`] use.
pub const PASSWORD: &str = "sesame-42";

/// How long a server may take to be ready, on a machine with much else to do.
const START: Duration = Duration::from_secs(60);

/// A running server, or one that was stopped and can be started again on its data and ports.
pub struct Server {
    kind: Kind,
    processes: Vec<Process>,
    /// Where clients may connect: one place, or every edge of a cluster.
    targets: Vec<Target>,
    /// Whose turn it is: of edges, and of routers.
    turns: [AtomicUsize; 2],
    certificate: Certificate,
    settings: Vec<(String, String)>,
    admin: Option<SocketAddr>,
    starts: u32,
    cluster: Option<Cluster>,
    keyspace: Option<Keyspace>,
    directory: TempDir,
}

impl Server {
    /// Starts Starling for the domain `localhost` with limits wide enough for tests.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts Starling with these settings on top (`limits.session.max_resources`, `2`).
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_kind(Kind::Starling, settings).await
    }

    /// Starts Starling on a store. A keyspace is made for it, and dropped with it.
    pub async fn start_on(store: &Store, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(&Form::Alone(store.clone()), settings).await
    }

    /// Starts Starling in one of its forms.
    pub async fn start_as(form: &Form, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_any(Kind::Starling, form, settings).await
    }

    /// Starts any of the servers. References take no settings: their configuration is as near to ours as it can be.
    pub async fn start_kind(kind: Kind, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_any(kind, &Form::Alone(Store::Embedded), settings).await
    }

    async fn start_any(kind: Kind, form: &Form, settings: &[(&str, &str)]) -> Result<Self> {
        let directory = TempDir::with_prefix("starling-test-")?;
        let certificate = Certificate::make(directory.path(), &["localhost"])?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let target = Target {
            c2s: nowhere,
            c2s_tls: None,
            domain: "localhost".to_owned(),
            tls: certificate.client_config()?,
        };
        let process = |name: &str| Process::new(name, directory.path());
        let (cluster, targets, processes) = match form {
            Form::Alone(_) => (None, vec![target], vec![process("server")]),
            Form::Cluster(_) => {
                let cluster = Cluster::new(free_ports()?.map(|address| address.port()));
                let targets = cluster.targets(&target);
                (Some(cluster), targets, Cluster::processes().map(|name| process(&name)).collect())
            }
        };
        let keyspace = match form {
            Form::Alone(Store::Embedded) => None,
            Form::Alone(Store::Cql(points)) | Form::Cluster(points) => Some(Keyspace::new(points.clone())),
        };
        let mut server = Self {
            kind,
            processes,
            targets,
            turns: Default::default(),
            certificate,
            settings: owned(settings),
            admin: None,
            starts: 0,
            cluster,
            keyspace,
            directory,
        };
        match &server.cluster {
            Some(cluster) => cluster::set_up(&server, cluster).await?,
            None if server.keyspace.is_some() => starling::migrate(&server).await?,
            None => {}
        }
        server.launch().await?;
        Ok(server)
    }

    /// Which server this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where to connect now: the edges of a cluster have their turns, so that two who ask are at different ones.
    pub fn target(&self) -> &Target {
        &self.targets[self.turns[0].fetch_add(1, Relaxed) % self.targets.len()]
    }

    /// All places to connect to.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The address of probes and metrics of a server that is one process.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Files of the certificate and its authority.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The temporary folder: configuration, certificate, log, and the data in `data`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory of a server that is one process.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The name of its keyspace, if it has one.
    pub fn keyspace(&self) -> Option<&str> {
        self.keyspace.as_ref().map(|keyspace| keyspace.name.as_str())
    }

    /// The process id of a server that is one process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self.processes.as_slice() {
            [one] => one.pid(),
            _ => None,
        }
    }

    /// All that the server has written so far, over all its starts.
    pub fn log(&self) -> String {
        self.processes.iter().map(Process::log).collect()
    }

    /// Makes an account with the password [`PASSWORD`].
    pub async fn add_user(&self, user: &str) -> Result<()> {
        self.add_user_with(user, PASSWORD).await
    }

    /// Makes an account with a password of the test's choice.
    pub async fn add_user_with(&self, user: &str, password: &str) -> Result<()> {
        match self.kind {
            Kind::Starling => starling::add_user(self, user, password).await,
            Kind::Prosody | Kind::Ejabberd => register(self.target(), user, password).await,
        }
    }

    /// A login for an account made by [`Server::add_user`].
    pub fn login(&self, user: &str) -> Login {
        Login::new(user, PASSWORD)
    }

    /// Runs `starling ctl` against this server, the routers of a cluster in turn, and gives what it printed; an error if it
    /// failed.
    pub async fn ctl(&self, arguments: &[&str], input: &str) -> Result<String> {
        starling::ctl(self, arguments, input).await
    }

    /// Kills all its processes with SIGKILL and waits for their end.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.processes.iter_mut().try_for_each(Process::kill)
    }

    /// Asks it to end with SIGTERM and waits for it; edges of a cluster come before routers. The status is that of the
    /// first process that failed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let mut status = ExitStatus::default();
        for process in self.processes.iter_mut().rev() {
            let one = process.stop(Duration::from_secs(20)).await?;
            if status.success() {
                status = one;
            }
        }
        Ok(status)
    }

    /// Sends a signal to all its processes.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.processes.iter().try_for_each(|process| process.signal(signal))
    }

    /// Starts a stopped server again on the same data and ports.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(!self.processes.iter().any(Process::runs), "the server still runs");
        self.launch().await
    }

    /// Kills it and starts it again with other settings on the same data and ports.
    pub async fn restart_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        self.settings = owned(settings);
        self.kill()?;
        self.restart().await
    }

    /// An error if a process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check_alive)
    }

    /// Resident memory of all processes in bytes, without what is mapped from files: code that runs for the first time is
    /// no growth.
    pub fn resident(&self) -> Result<u64> {
        self.processes.iter().map(Process::resident).sum()
    }

    fn domain(&self) -> &str {
        &self.targets[0].domain
    }

    async fn launch(&mut self) -> Result<()> {
        self.starts += 1;
        let commands = match (self.kind, &self.cluster) {
            (Kind::Starling, None) => vec![starling::command(self)?],
            (Kind::Starling, Some(_)) => {
                let names = self.processes.iter().map(Process::name);
                names.map(|name| cluster::command(self, name)).collect::<Result<Vec<_>>>()?
            }
            (Kind::Prosody, _) => vec![prosody::command(self)?],
            (Kind::Ejabberd, _) => vec![ejabberd::command(self)?],
        };
        for (process, command) in self.processes.iter_mut().zip(commands) {
            match &self.cluster {
                Some(_) => process.start_before_others(&command)?,
                None => process.start(command)?,
            }
        }
        let deadline = Instant::now() + START;
        for index in 0..self.processes.len() {
            loop {
                self.check_alive()?;
                if self.ready(index).await? {
                    break;
                }
                if Instant::now() > deadline {
                    let process = &self.processes[index];
                    bail!("{} is not ready after {START:?}; {}", process.name(), process.tail());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if let Some(cluster) = self.cluster.as_ref().filter(|_| self.starts == 1) {
            while !cluster::grown_up(cluster).await? {
                ensure!(Instant::now() < deadline, "the cluster is still young after {START:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Whether this process of the server takes connections now.
    async fn ready(&mut self, index: usize) -> Result<bool> {
        let process = &self.processes[index];
        match (self.kind, &self.cluster) {
            (Kind::Starling, None) => {
                let log = process.fresh_log();
                starling::read_addresses(self, &log)
            }
            (Kind::Starling, Some(cluster)) => cluster::ready(cluster, process.name()).await,
            (Kind::Prosody | Kind::Ejabberd, _) => {
                let target = self.target();
                let Ok(mut stream) = Stream::connect(target.c2s).await else { return Ok(false) };
                Ok(stream.open(&target.domain).await.is_ok())
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before the keyspace goes, and the folder.
        self.processes.clear();
        if std::env::var_os("STARLING_KEEP").is_some() {
            self.directory.disable_cleanup(true);
            eprintln!("kept {}", self.directory.path().display());
        }
    }
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Free addresses for a server that cannot choose by itself: below the range that the kernel gives to outgoing
/// connections, so that nobody takes them in the moment before the server does.
fn free_ports<const N: usize>() -> Result<[SocketAddr; N]> {
    for _ in 0..100 {
        let mut port = 12_000 + rand::random::<u16>() % 16_000;
        let addresses = [(); N].map(|()| {
            port += 1;
            SocketAddr::from(([127, 0, 0, 1], port))
        });
        if addresses.iter().all(|address| TcpListener::bind(address).is_ok()) {
            return Ok(addresses);
        }
    }
    bail!("no free ports")
}

/// Makes an account by in-band registration (XEP-0077), which both references have on.
async fn register(target: &Target, user: &str, password: &str) -> Result<()> {
    let (mut stream, _) = Login::new(user, password).secure(target).await?;
    let query = format!(
        "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{user}</username>\
         <password>{password}</password></query></iq>"
    );
    stream.send(query.as_bytes()).await?;
    let answer = stream.node().await?;
    ensure!(answer.attribute("type") == Some("result"), "cannot register {user}: {answer}");
    Ok(())
}
