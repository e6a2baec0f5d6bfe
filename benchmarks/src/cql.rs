//! The CQL server under Starling: one that runs, or a node of Apache Cassandra that is started for the run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Which CQL server to use.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct CqlArguments {
    /// A CQL server that runs, as HOST:PORT; a keyspace of its own is made there and stays. Without it a node of Apache
    /// Cassandra is started, if `make cassandra` has fetched it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) cql: Option<String>,
    /// Process id of that server: tells its CPU time
    #[arg(long, value_name = "PID", requires = "cql")]
    pub(crate) cql_pid: Option<u32>,
}

/// A CQL server.
#[derive(Debug)]
pub(crate) struct CqlServer {
    /// As HOST:PORT.
    pub(crate) address: String,
    pub(crate) pid: Option<u32>,
    /// A keyspace that nobody else uses.
    pub(crate) keyspace: String,
    child: Option<Child>,
    _directory: Option<TempDir>,
}

impl CqlServer {
    /// The one that was named, or a new node; `None`, and a word about it, where there is neither.
    pub(crate) async fn find(arguments: &CqlArguments) -> Result<Option<Self>> {
        let keyspace = format!("bench_{}", std::time::UNIX_EPOCH.elapsed()?.as_millis());
        if let Some(address) = &arguments.cql {
            let pid = arguments.cql_pid;
            return Ok(Some(Self { address: address.clone(), pid, keyspace, child: None, _directory: None }));
        }
        if !complete() {
            eprintln!("no CQL server: `make cassandra` fetches one; left out");
            return Ok(None);
        }
        let directory = TempDir::with_prefix("starling-bench-cql-")?;
        let ip = output(Command::new(tools().join("node")).arg("free")).await?;
        let log = File::create(directory.path().join("log"))?;
        let mut node = Command::new(tools().join("node"));
        node.arg("run").arg(directory.path().join("node")).arg(&ip);
        node.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        eprintln!("starting Apache Cassandra on {ip}");
        let mut child = node.spawn().with_context(|| format!("cannot run {node:?}"))?;
        let pid = child.id();
        let ready =
            output(Command::new(tools().join("node")).arg("wait").arg(&ip).arg(pid.to_string())).await;
        if let Err(error) = ready {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(10).collect();
            return Err(error.context(tail.into_iter().rev().collect::<Vec<_>>().join("\n")));
        }
        Ok(Some(Self {
            address: format!("{ip}:9042"),
            pid: Some(pid),
            keyspace,
            child: Some(child),
            _directory: Some(directory),
        }))
    }

    /// Whether it was started here, so that it can be pinned and thrown away.
    pub(crate) fn is_own(&self) -> bool {
        self.child.is_some()
    }
}

impl Drop for CqlServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Its data is thrown away: there is nothing to end in order.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn complete() -> bool {
    let Ok(entries) = fs::read_dir(tools().join("../../.cache")) else { return false };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("cassandra-")
            && entry.path().join("complete").is_file()
    })
}

/// Runs a command to its end, off this thread, and gives what it prints.
async fn output(command: &mut Command) -> Result<String> {
    let name = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let done = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    ensure!(done.status.success(), "{name}: {}", done.status);
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cassandra")
}
