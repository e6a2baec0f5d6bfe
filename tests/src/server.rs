//! Servers under test: `starling serve` on ports of its own, and Prosody and ejabberd from Debian as references.
//!
//! A [`Server`] lives in a temporary folder, listens on loopback only and dies with its value. Its output is in one
//! log file; when a start fails, the error shows the log's end.

mod ejabberd;
mod prosody;
mod starling;
mod store;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::certificate::Certificate;
use crate::client::{Login, Stream, Target};
use store::Keyspace;

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

/// A running server, or one that was stopped and can be started again on its data and ports.
pub struct Server {
    kind: Kind,
    child: Option<Child>,
    target: Target,
    certificate: Certificate,
    settings: Vec<(String, String)>,
    admin: Option<SocketAddr>,
    starts: u32,
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
        Self::start_any(Kind::Starling, store, settings).await
    }

    /// Starts any of the servers. References take no settings: their configuration is as near to ours as it can be.
    pub async fn start_kind(kind: Kind, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_any(kind, &Store::Embedded, settings).await
    }

    async fn start_any(kind: Kind, store: &Store, settings: &[(&str, &str)]) -> Result<Self> {
        let directory = TempDir::with_prefix("starling-test-")?;
        let certificate = Certificate::make(directory.path(), &["localhost"])?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let target = Target {
            c2s: nowhere,
            c2s_tls: None,
            domain: "localhost".to_owned(),
            tls: certificate.client_config()?,
        };
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let keyspace = match store {
            Store::Embedded => None,
            Store::Cql(contact_points) => Some(Keyspace::new(contact_points.clone())),
        };
        let (child, admin, starts) = (None, None, 0);
        let mut server =
            Self { kind, child, target, certificate, settings, admin, starts, keyspace, directory };
        if server.keyspace.is_some() {
            starling::migrate(&server).await?;
        }
        server.launch().await?;
        Ok(server)
    }

    /// Which server this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where to connect.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The address of probes and metrics.
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

    /// The server's data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The name of its keyspace, if it has one.
    pub fn keyspace(&self) -> Option<&str> {
        self.keyspace.as_ref().map(|keyspace| keyspace.name.as_str())
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// All that the server has written so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Makes an account with the password [`PASSWORD`].
    pub async fn add_user(&self, user: &str) -> Result<()> {
        self.add_user_with(user, PASSWORD).await
    }

    /// Makes an account with a password of the test's choice.
    pub async fn add_user_with(&self, user: &str, password: &str) -> Result<()> {
        match self.kind {
            Kind::Starling => starling::add_user(self, user, password).await,
            Kind::Prosody | Kind::Ejabberd => register(&self.target, user, password).await,
        }
    }

    /// A login for an account made by [`Server::add_user`].
    pub fn login(&self, user: &str) -> Login {
        Login::new(user, PASSWORD)
    }

    /// Runs `starling ctl` against this server and gives what it printed; an error if it failed.
    pub async fn ctl(&self, arguments: &[&str], input: &str) -> Result<String> {
        starling::ctl(self, arguments, input).await
    }

    /// Kills the process with SIGKILL and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks the process to end with SIGTERM and waits for it.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let mut child = self.child.take().context("the server does not run")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("the server did not end within 20 s of SIGTERM; {}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the server does not run")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Starts a stopped server again on the same data and ports.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server still runs");
        self.launch().await
    }

    /// An error if the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => match child.try_wait()? {
                None => Ok(()),
                Some(status) => bail!("the server ended by itself: {status}; {}", self.log_tail()),
            },
            None => bail!("the server does not run"),
        }
    }

    /// Resident memory of the process in bytes, without what is mapped from files: code that runs for the first time is
    /// no growth.
    pub fn resident(&self) -> Result<u64> {
        let pid = self.pid().context("the server does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).context("no RssAnon")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }

    async fn launch(&mut self) -> Result<()> {
        self.starts += 1;
        let command = match self.kind {
            Kind::Starling => starling::command(self)?,
            Kind::Prosody => prosody::command(self)?,
            Kind::Ejabberd => ejabberd::command(self)?,
        };
        let log_start = fs::metadata(self.log_file()).map_or(0, |m| m.len());
        self.child = Some(self.spawn(command)?);
        let limit = Duration::from_secs(60);
        let deadline = Instant::now() + limit;
        loop {
            self.check_alive()?;
            let log = fs::read(self.log_file()).unwrap_or_default();
            let fresh = log.get(usize::try_from(log_start)?..).unwrap_or_default();
            if self.ready(&String::from_utf8_lossy(fresh)).await? {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after {limit:?}; {}", self.kind.name(), self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the server takes connections now.
    async fn ready(&mut self, log: &str) -> Result<bool> {
        match self.kind {
            Kind::Starling => starling::read_addresses(self, log),
            Kind::Prosody | Kind::Ejabberd => {
                let Ok(mut stream) = Stream::connect(self.target.c2s).await else { return Ok(false) };
                Ok(stream.open(&self.target.domain).await.is_ok())
            }
        }
    }

    fn spawn(&self, mut command: Command) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot run {command:?}"))
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("its log ends with:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing to be done about a failure here: the process is gone or will be with this one.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::env::var_os("STARLING_KEEP").is_some() {
            self.directory.disable_cleanup(true);
            eprintln!("kept {}", self.directory.path().display());
        }
    }
}

/// Two free addresses for a server that cannot choose by itself: below the range that the kernel gives to outgoing
/// connections, so that nobody takes them in the moment before the server does.
fn free_ports() -> Result<[SocketAddr; 2]> {
    for _ in 0..100 {
        let port = 12_000 + 2 * (rand::random::<u16>() % 8_000);
        let pair = [port, port + 1].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        if pair.iter().all(|address| TcpListener::bind(address).is_ok()) {
            return Ok(pair);
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
