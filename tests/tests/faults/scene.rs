//! What a case has: a server on nodes of Cassandra, clients at work on it, and a judgement at the end.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use starling_tests::Server;
use starling_tests::cassandra::Cassandra;
use starling_tests::crowd::{self, Crowd, Manners, Run, Summary};
use starling_tests::history::{History, Log, Violation, What, check};
use starling_tests::server::Store;
use std::sync::Arc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::answers::Answers;
use crate::pulse::Pulse;

/// How long the server may take for a message: it answers within 10 s of its arrival at the sender's home, and a busy machine
/// has to come to it. That is not what a sender waits for: the clients here have more under way than their sessions have
/// credit for, so their last messages are read when the first are answered, after up to 10 s more (`Answer::read`).
const ANSWERED: Duration = Duration::from_secs(12);
/// How much the server's memory may grow while nothing can be written.
const GROWTH: u64 = 24 << 20;

/// A case in progress.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) run: Arc<Run>,
    pub(crate) fates: Log,
    crowd: Crowd,
    pulse: Pulse,
    seed: u64,
    /// The server's memory over time.
    memory: Vec<(Duration, u64)>,
}

/// A case that is over, to be asked about.
pub(crate) struct Verdict {
    pub(crate) answers: Answers,
    pub(crate) violations: Vec<Violation>,
    history: History,
    server: Server,
    seed: u64,
    broken: Option<anyhow::Error>,
}

impl Scene {
    pub(crate) async fn begin(nodes: &Cassandra, seed: u64, manners: Manners) -> Result<Self> {
        Self::begin_with(nodes, seed, manners, &[]).await
    }

    pub(crate) async fn begin_with(
        nodes: &Cassandra,
        seed: u64,
        manners: Manners,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let server = Server::start_on(&Store::Cql(nodes.contact_points()), settings).await?;
        let crowd = Crowd::gather(&server, server.target().clone(), seed, manners).await?;
        let run = crowd.run.clone();
        let pulse = Pulse::start(run.clone(), nodes.contact_points());
        Ok(Self { server, run, fates: Log::new("server"), crowd, pulse, seed, memory: Vec::new() })
    }

    /// Writes into the log what is done now, and gives the time.
    pub(crate) fn remark(&mut self, what: impl Into<String>) -> Duration {
        let now = self.run.now();
        self.fates.note(now, What::Remark(what.into()));
        now
    }

    /// Lets clients write for this long, that many messages a second in all.
    pub(crate) async fn load(&mut self, rate: u32, during: Duration) -> Result<()> {
        const TICK: Duration = Duration::from_millis(50);
        let end = Instant::now() + during;
        let mut tick = Instant::now();
        while tick < end {
            self.run.allow((rate / 20).max(1));
            self.server.check_alive()?;
            self.memory.push((self.run.now(), self.server.resident()?));
            tick += TICK;
            sleep_until(tick).await;
        }
        self.run.allow(0);
        Ok(())
    }

    /// Ensures that the server's memory did not grow between these two moments by more than is allowed, while clients
    /// wrote all the time.
    pub(crate) fn ensure_flat(&self, from: Duration, until: Duration) -> Result<()> {
        let sizes = self.memory.iter().filter(|(at, _)| from <= *at && *at <= until).map(|(_, size)| *size);
        let sizes: Vec<u64> = sizes.collect();
        let (first, rest) = sizes.split_at(sizes.len() / 2);
        let [early, late] = [first, rest].map(|half| half.iter().max().copied().unwrap_or(0));
        println!("  memory: {} MiB, then {} MiB", early >> 20, late >> 20);
        ensure!(early > 0, "the server's memory was not measured");
        ensure!(
            late <= early + GROWTH,
            "the server's memory grew from {} to {} MiB while nothing could be written",
            early >> 20,
            late >> 20
        );
        Ok(())
    }

    /// Lets everything come to rest, reads the archives and judges. What went wrong on the way is told with it.
    pub(crate) async fn end(mut self, so_far: Result<()>) -> Result<Verdict> {
        let mut broken = so_far.err();
        if broken.is_none() {
            sleep(Duration::from_secs(1)).await;
            broken = self.run.come_to_rest(&mut self.server, &mut self.fates).await.err();
        }
        let mut history = History { logs: self.crowd.disband().await?, archives: Vec::new() };
        history.logs.push(self.fates);
        if broken.is_none() {
            match crowd::archives(&self.server).await {
                Ok(archives) => history.archives = archives,
                Err(error) => broken = Some(error),
            }
        }
        let violations = if broken.is_none() { check(&history) } else { Vec::new() };
        println!("  {}", Summary::of(&history));
        let answers = Answers::of(&history, &self.pulse);
        Ok(Verdict { answers, violations, history, server: self.server, seed: self.seed, broken })
    }
}

impl Verdict {
    /// All promises hold, every answer came in time and is one that may be given, and `more` holds too. Otherwise
    /// everything that is known is kept.
    pub(crate) fn ensure_good(
        self,
        nodes: &Cassandra,
        more: impl FnOnce(&Answers) -> Result<()>,
    ) -> Result<()> {
        self.ensure(nodes, |answers| {
            let slowest = answers.slowest().context("no message was answered")?;
            println!("  slowest answer: {slowest}");
            if let Some(patient) = answers.patient() {
                println!("  longest wait: {patient}");
            }
            let tardiness = answers.tardiness(slowest);
            ensure!(
                slowest.waited() <= ANSWERED + tardiness,
                "a sender waited too long: {slowest}; we were {tardiness:?} late ourselves"
            );
            more(answers)
        })
    }

    /// The same where answers may be long in coming, because the server under test was not always there.
    pub(crate) fn ensure(
        mut self,
        nodes: &Cassandra,
        more: impl FnOnce(&Answers) -> Result<()>,
    ) -> Result<()> {
        let judged = match self.broken.take() {
            Some(error) => {
                let fault = self.first_fault().unwrap_or_else(|| "none".to_owned());
                Err(error).with_context(|| format!("the case broke off; first fault: {fault}"))
            }
            None => self.judge().and_then(|()| more(&self.answers)),
        };
        let Err(error) = judged else { return Ok(()) };
        let prefix = format!("starling-faults-{}-", self.seed);
        let folder = crowd::keep(&prefix, &self.history, &self.violations, &self.server)?;
        nodes.keep_logs(folder.as_ref())?;
        Err(error).with_context(|| format!("all that is known is in {folder}"))
    }

    /// A planted fault was found.
    pub(crate) fn broken(&mut self) -> Option<anyhow::Error> {
        self.broken.take()
    }

    fn judge(&self) -> Result<()> {
        if let Some(first) = self.violations.first() {
            let story = first.origin.as_deref().map(|o| self.history.story(o)).unwrap_or_default();
            bail!("{} violations. The first: {first}\n{story}", self.violations.len());
        }
        if let Some(panic) = self.server.log().lines().find(|line| line.contains("panicked")) {
            bail!("{panic}");
        }
        let other = self.answers.refused().find(|a| a.refused.as_deref() != Some("wait resource-constraint"));
        ensure!(
            other.is_none(),
            "refused in another way: {}",
            other.map(ToString::to_string).unwrap_or_default()
        );
        Ok(())
    }

    fn first_fault(&self) -> Option<String> {
        let events = self.history.logs.iter().flat_map(|l| &l.events);
        events.filter(|e| matches!(e.what, What::Fault(_))).map(ToString::to_string).next()
    }
}
