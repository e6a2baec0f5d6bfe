//! A server that takes part, from its start to its end.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{SiteArguments, ejabberd, prosody, starling};
use crate::cql::CqlServer;
use crate::sasl::Mechanism;
use crate::session::{Session, Wish};
use crate::store::pages::PagesArguments;
use crate::target::{PASSWORD, Target, TargetArguments};

/// The domain that every server serves.
pub(crate) use crate::store::subject::DOMAIN;
/// Accounts are named by this and a number.
pub(crate) const PREFIX: &str = "bench";
/// How long a server may take to start, accounts included.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server that can take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Starling,
    /// Starling on a CQL server.
    Cql,
    /// Another build of Starling: --baseline.
    Baseline,
    Prosody,
    Ejabberd,
}

impl Kind {
    pub(crate) const USUAL: [Self; 3] = [Self::Starling, Self::Prosody, Self::Ejabberd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starling => "Starling",
            Self::Cql => "Starling on CQL",
            Self::Baseline => "baseline",
            Self::Prosody => "Prosody",
            Self::Ejabberd => "ejabberd",
        }
    }

    /// A loopback address for each, so that ports do not clash.
    pub(crate) fn address(self) -> SocketAddr {
        let last = match self {
            Self::Starling => 41,
            Self::Prosody => 42,
            Self::Ejabberd => 43,
            Self::Cql => 44,
            Self::Baseline => 45,
        };
        ([127, 0, 0, last], 5223).into()
    }

    /// Where Starling tells its metrics.
    pub(crate) fn admin(self) -> SocketAddr {
        (self.address().ip(), 5290).into()
    }

    pub(crate) fn is_installed(self) -> bool {
        let program = match self {
            Self::Starling | Self::Cql | Self::Baseline => return true,
            Self::Prosody => "prosody",
            Self::Ejabberd => "ejabberdctl",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
        std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
    }
}

/// What all servers have in common.
pub(crate) struct Site {
    pub(crate) accounts: usize,
    /// PEM of the certificate and of its P-256 key.
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// The binary of Starling, and settings on top.
    pub(crate) starling: PathBuf,
    pub(crate) settings: Vec<String>,
    pub(crate) baseline: Option<PathBuf>,
    /// For the one on CQL.
    pub(crate) cql: Option<CqlServer>,
    pub(crate) core: u32,
    /// What Starling's archives hold before its first start.
    pub(crate) archives: Option<PagesArguments>,
}

impl Site {
    pub(crate) fn new(accounts: usize, arguments: &SiteArguments, cql: Option<CqlServer>) -> Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec![DOMAIN.to_owned()])?;
        // The default ends in a year that not all libraries take.
        params.not_after = rcgen::date_time_ymd(2049, 1, 1);
        let certificate = params.self_signed(&key)?.pem();
        let starling = match &arguments.starling {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("starling"),
        };
        Ok(Self {
            accounts,
            certificate,
            key: key.serialize_pem(),
            starling,
            settings: arguments.settings.clone(),
            baseline: arguments.baseline.clone(),
            cql,
            core: arguments.server_core,
            archives: None,
        })
    }
}

/// A running server. It dies with its value.
pub(crate) struct Peer {
    kind: Kind,
    child: Child,
    /// Of its database.
    store: Option<u32>,
    // After the child, so that it is removed when nobody writes to it any more.
    directory: TempDir,
}

impl Peer {
    /// Starts a server, pinned to its core, with its accounts.
    pub(crate) async fn start(kind: Kind, site: &Site) -> Result<Self> {
        let directory = TempDir::with_prefix("starling-bench-")?;
        let dir = directory.path();
        let write = |name: &str, text: &str| fs::write(dir.join(name), text);
        write("cert.pem", &site.certificate)?;
        write("key.pem", &site.key)?;
        write("both.pem", &format!("{}{}", site.key, site.certificate))?;
        let command = match kind {
            Kind::Starling | Kind::Cql | Kind::Baseline => starling::prepare(dir, site, kind).await?,
            Kind::Prosody => prosody::prepare(dir, site)?,
            Kind::Ejabberd => ejabberd::prepare(dir, site)?,
        };
        let store = site.cql.as_ref().filter(|_| kind == Kind::Cql).and_then(|cql| cql.pid);
        let mut peer = Self { kind, child: spawn(dir, command, Some(site.core))?, store, directory };
        peer.wait_until_ready(site.accounts).await?;
        Ok(peer)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The server as a target.
    pub(crate) fn target(&self, mechanism: Mechanism) -> Result<Rc<Target>> {
        let target = Target::new(&TargetArguments {
            address: self.kind.address(),
            domain: DOMAIN.to_owned(),
            starttls: false,
            authority: None,
            mechanism,
            prefix: PREFIX.to_owned(),
            password: PASSWORD.to_owned(),
            sources: 8,
            pid: Some(self.child.id()),
            store_pid: self.store,
        })?;
        Ok(Rc::new(target))
    }

    /// Ends the server and starts it again on its data, with what settings the site has now. Only Starling can do it.
    pub(crate) async fn restart(&mut self, site: &Site) -> Result<()> {
        let dir = self.directory.path();
        let command = starling::serve(dir, site, self.kind)?;
        end(&mut self.child).await;
        self.child = spawn(dir, command, Some(site.core))?;
        self.wait_until_ready(site.accounts).await
    }

    /// Asks the server to end, and waits.
    pub(crate) async fn stop(mut self) {
        end(&mut self.child).await;
    }

    async fn try_login(&self, target: &Target, number: usize) -> Result<()> {
        ensure!(
            self.kind != Kind::Ejabberd || log_tail(self.directory.path()).contains(ejabberd::READY),
            "the accounts are not there yet"
        );
        let session = Session::open(target, &target.user(number), "first", Wish::default()).await?;
        session.close().await;
        Ok(())
    }

    /// Ready is who lets the last account in.
    async fn wait_until_ready(&mut self, accounts: usize) -> Result<()> {
        let target = self.target(Mechanism::ScramSha1)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}; {}", self.name(), log_tail(self.directory.path()));
            }
            match self.try_login(&target, accounts - 1).await {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => {
                    let tail = log_tail(self.directory.path());
                    return Err(error.context(format!("{} does not get ready; {tail}", self.name())));
                }
                Err(_) => {}
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A process that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command with its output in the folder's log; on the servers' core, or on all.
pub(crate) fn spawn(dir: &Path, command: Command, core: Option<u32>) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut pinned = Command::new("taskset");
    match core {
        Some(core) => pinned.arg("--cpu-list").arg(core.to_string()),
        None => pinned.arg(format!("{:x}", u64::MAX)),
    };
    pinned.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            pinned.env(name, value);
        }
    }
    pinned.current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    pinned.spawn().with_context(|| format!("cannot run {pinned:?}"))
}

/// Ends a process that was started here: SIGTERM, and SIGKILL after a while.
pub(crate) async fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    for _ in 0..200 {
        match child.try_wait() {
            Ok(None) => sleep(Duration::from_millis(50)).await,
            _ => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until something listens.
pub(crate) async fn wait_for_port(address: SocketAddr, child: &mut Child, dir: &Path) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended: {status}; {}", log_tail(dir));
        }
        ensure!(start.elapsed() < PATIENCE, "nothing listens on {address}; {}", log_tail(dir));
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A command as the user that a Debian package made for its server, if we are root: as root they refuse to run.
pub(crate) fn as_user(dir: &Path, user: &str, program: &str) -> Result<Command> {
    if !geteuid().is_root() {
        return Ok(Command::new(program));
    }
    let owned = Command::new("chown").arg("-R").arg(format!("{user}:")).arg(dir).status()?;
    ensure!(owned.success(), "cannot give {} to {user}", dir.display());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", program]);
    Ok(command)
}

pub(crate) fn log_tail(dir: &Path) -> String {
    let log = fs::read(dir.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(2_000)..]).into_owned()
}
