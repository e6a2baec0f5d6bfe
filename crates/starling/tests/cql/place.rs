//! A keyspace, settings that name it, and processes of the binary.

use std::{
    fs::{self, File},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use starling_tests::cql::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A keyspace of one case, dropped with it.
pub(crate) struct Place {
    pub(crate) keyspace: String,
    server: SocketAddr,
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(server: SocketAddr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let keyspace = format!("starling_cli_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "data_dir = {:?}\n[listen]\nc2s = \"127.0.0.1:0\"\nc2s_tls = \"127.0.0.1:0\"\nadmin = \"off\"\n\
             [store]\nkind = \"scylla\"\ncontact_points = [\"{server}\"]\nkeyspace = \"{keyspace}\"\n",
            dir.path().join("data"),
        );
        fs::write(dir.path().join("starling.toml"), text).unwrap();
        Self { keyspace, server, dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.args(arguments).arg("--config").arg(self.dir.path().join("starling.toml"));
        command.env_clear().stdin(Stdio::null());
        command
    }

    /// Begins a command.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let shown = arguments.join(" ");
        Running { child: command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), shown }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.begin(arguments).finished()
    }

    /// Begins to serve with a data directory of this name.
    pub(crate) fn serve(&self, name: &str) -> Serving {
        self.role("serve", name, &[])
    }

    /// A path beside the settings.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Begins a role with a data directory of this name and more settings.
    pub(crate) fn role(&self, role: &str, name: &str, more: &[String]) -> Serving {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = self.dir.path().join(format!("{name}-{}.log", COUNT.fetch_add(1, Relaxed)));
        // Reserved for a moment: the address of probes has to be known before the server is up.
        let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = format!("data_dir={}", self.dir.path().join(name).display());
        let to = || Stdio::from(File::options().create(true).append(true).open(&log).unwrap());
        let mut command = self.command(&[role, "--set", &data, "--set", &format!("listen.admin={admin}")]);
        command.args(more.iter().flat_map(|setting| ["--set", setting]));
        let child = command.stdout(to()).stderr(to()).spawn().unwrap();
        Serving { child, log, admin }
    }

    /// Runs a statement.
    pub(crate) async fn cql(&self, statement: &str) -> Result<()> {
        Connection::open(self.server).await?.run(statement).await.map(drop)
    }

    /// Writes down that the store belongs to another datacentre.
    pub(crate) async fn belongs_to(&self, datacentre: &str) -> Result<()> {
        let body: String = datacentre.bytes().map(|byte| format!("{byte:02x}")).collect();
        let (keyspace, condition) = (&self.keyspace, "WHERE name = 'datacenter' IF EXISTS");
        self.cql(&format!("UPDATE {keyspace}.cluster SET body = 0x{body} {condition}")).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.cql(&format!("DROP KEYSPACE IF EXISTS {}", self.keyspace)))
        };
        // On a thread of its own: this one is inside a runtime.
        std::thread::scope(|scope| {
            let _ = scope.spawn(work).join();
        });
    }
}

/// A command under way.
pub(crate) struct Running {
    child: Child,
    shown: String,
}

impl Running {
    pub(crate) fn finished(self) -> Finished {
        let output = self.child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        Finished { shown: self.shown, status: output.status, said }
    }
}

/// What came of a command.
pub(crate) struct Finished {
    shown: String,
    status: ExitStatus,
    pub(crate) said: String,
}

impl Finished {
    /// Its exit code is this one.
    pub(crate) fn ends(self, code: i32) -> Result<Self> {
        let Self { shown, status, said } = &self;
        ensure!(status.code() == Some(code), "{shown}: {status} and not {code}\n{said}");
        ensure!(!said.contains("panicked"), "{shown}: {said}");
        Ok(self)
    }

    /// All of this was said.
    pub(crate) fn says(&self, parts: &[&str]) -> Result<()> {
        for part in parts {
            ensure!(self.said.contains(part), "{}: {part:?} is not in\n{}", self.shown, self.said);
        }
        Ok(())
    }

    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.said).with_context(|| self.said.clone())
    }
}

/// A server; it does not outlive its value.
pub(crate) struct Serving {
    child: Child,
    log: std::path::PathBuf,
    admin: SocketAddr,
}

impl Serving {
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it serves.
    pub(crate) async fn started(mut self) -> Result<Self> {
        while !self.said().contains("make an account:") {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "the server ended: {ended:?}\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(self)
    }

    /// Waits until it answers probes.
    pub(crate) async fn listens_for_probes(&mut self) -> Result<()> {
        while TcpStream::connect(self.admin).await.is_err() {
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "the server ended: {ended:?}\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    /// The status that a probe is answered with.
    pub(crate) async fn probe(&self, path: &str) -> Result<u16> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("no status")?;
        Ok(status.parse()?)
    }

    pub(crate) fn log_has(&self, part: &str) -> Result<()> {
        ensure!(self.said().contains(part), "{part} is not in\n{}", self.said());
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Result<Finished> {
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        };
        Ok(Finished { shown: "serve".to_owned(), status, said: self.said() })
    }

    /// Stops it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.signal(Signal::SIGTERM);
        self.ended().await?.ends(0).map(drop)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
