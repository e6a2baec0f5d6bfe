//! A process on a node, which is killed, stopped and started again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::enter::precede;
use super::{Place, Sandbox};

/// A process on a node. It dies with this value.
pub struct Process {
    name: String,
    place: Place,
    words: Vec<OsString>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// A process that is not started; what it prints goes to a file.
    pub fn new(
        name: &str,
        place: Place,
        words: impl IntoIterator<Item = impl Into<OsString>>,
        log: &Path,
    ) -> Self {
        Self {
            name: name.to_owned(),
            place,
            words: words.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            log: log.to_owned(),
            child: None,
            paused: false,
        }
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node it runs on.
    pub fn place(&self) -> Place {
        self.place
    }

    /// What the environment of its next start has besides this program's.
    pub fn environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// Its next start is that of another program in place of this one.
    pub fn exchange(&mut self, program: &Path, other: &Path) -> Result<()> {
        let word = self.words.iter_mut().find(|word| *word == program.as_os_str());
        *word.with_context(|| format!("{} is not {}", self.name, program.display()))? = other.into();
        Ok(())
    }

    /// Starts it.
    pub fn start(&mut self, sandbox: &Sandbox) -> Result<()> {
        ensure!(self.child.is_none(), "{} still runs", self.name);
        let (program, arguments) = self.words.split_first().context("no program")?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        // In a session of its own a process gets its share of a busy machine, however many others there are.
        let mut command = sandbox.command(self.place, "setsid");
        command.arg(program).args(arguments).envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        leads_a_session(child.id());
        precede(child.id());
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    /// Its id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it was started, and not killed or stopped since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Kills it with SIGKILL and waits for its end. Somebody else may have killed it before; an error if it has ended in
    /// another way.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        let status = child.wait()?;
        let killed = status.signal() == Some(Signal::SIGKILL as i32);
        ensure!(killed, "{} was not killed but ended by itself: {status}; {}", self.name, self.tail());
        Ok(())
    }

    /// Takes note that it has [ended](Self::ended) by itself.
    pub fn bury(&mut self) {
        self.child = None;
    }

    /// Stops it where it stands, with its connections open.
    pub fn pause(&mut self) -> Result<()> {
        self.paused = true;
        self.signal(Signal::SIGSTOP)?;
        for _ in 0..1_000 {
            if self.stands_still()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("{} does not stop", self.name)
    }

    /// Lets it go on. An error if it has not stood still up to now.
    pub fn resume(&mut self) -> Result<()> {
        let stood = self.stands_still()?;
        self.paused = false;
        self.signal(Signal::SIGCONT)?;
        ensure!(stood, "{} did not stand still", self.name);
        Ok(())
    }

    /// Whether the kernel says that it is stopped (proc(5)).
    fn stands_still(&self) -> Result<bool> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name is in parentheses and may have any character.
        let state = text.rsplit_once(')').context("no state")?.1.trim_start().chars().next();
        Ok(state == Some('T'))
    }

    /// Whether it stands still.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Asks it to end with SIGTERM and waits for that.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill()?;
                bail!("{} did not end within {within:?} of SIGTERM; {}", self.name, self.tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().with_context(|| format!("{} does not run", self.name))?;
        Ok(child.try_wait()?)
    }

    /// An error if it has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}; {}", self.name, self.tail()),
        }
    }

    /// All that it has printed, over all its starts.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where that is.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The end of what it has printed.
    pub fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        format!("its log ends with:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

/// Waits a moment until a process that was just started has a session of its own.
pub(crate) fn leads_a_session(pid: u32) {
    let Ok(raw) = i32::try_from(pid) else { return };
    for _ in 0..500 {
        match nix::unistd::getsid(Some(Pid::from_raw(raw))) {
            Ok(session) if session.as_raw() == raw => return,
            Err(_) => return,
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing to be done about a failure here. SIGKILL ends a paused process too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
