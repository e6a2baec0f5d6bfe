//! One process of a server under test: its log, its life and its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sandbox::{leads_a_session, precede};

/// A process, or the place of one that does not run. It dies with its value.
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Option<Child>,
    /// How long the log was when it was started.
    before: u64,
}

impl Process {
    /// With a log of its own in this folder.
    pub(super) fn new(name: &str, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { name: name.to_owned(), log, child: None, before: 0 }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn start(&mut self, mut command: Command) -> Result<()> {
        self.before = fs::metadata(&self.log).map_or(0, |found| found.len());
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot run {command:?}"))?);
        Ok(())
    }

    /// The same in a session of its own, with precedence over others: what a router may do ends within a third of a second
    /// if it does not hear of the others, on a machine with much else to do as well.
    pub(super) fn start_before_others(&mut self, command: &Command) -> Result<()> {
        let mut own = Command::new("setpriv");
        // Whoever ends a group of processes would not find it.
        own.args(["--pdeathsig", "KILL", "setsid"]).arg(command.get_program()).args(command.get_args());
        self.start(own)?;
        if let Some(pid) = self.pid() {
            leads_a_session(pid);
            precede(pid);
        }
        Ok(())
    }

    /// The process id while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// All that it has written, over all its starts.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What it has written since it was started last.
    pub(super) fn fresh_log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let before = usize::try_from(self.before).unwrap_or(usize::MAX);
        String::from_utf8_lossy(log.get(before..).unwrap_or_default()).into_owned()
    }

    /// The end of its log, for messages.
    pub(super) fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("the log of {} ends with:\n{end}", self.name)
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Asks it to end with SIGTERM and waits for it.
    pub(super) async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{} did not end within {within:?} of SIGTERM; {}", self.name, self.tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An error if it has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => match child.try_wait()? {
                None => Ok(()),
                Some(status) => bail!("{} ended by itself: {status}; {}", self.name, self.tail()),
            },
            None => bail!("{} does not run", self.name),
        }
    }

    /// Its resident memory in bytes, without what is mapped from files.
    pub(super) fn resident(&self) -> Result<u64> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).context("no RssAnon")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            // Nothing to be done about a failure here: the process is gone or will be with this one.
            let _ = self.kill();
        }
    }
}
