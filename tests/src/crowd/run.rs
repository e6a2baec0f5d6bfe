//! What all clients of a run share: the time, the server's life, and the moment it is to be killed at.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::history::{Log, What};
use crate::{Server, Target};

/// What a client does when the server is to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Moment {
    /// A message was given to the kernel.
    Sent = 1,
    /// An acknowledgement for messages came.
    Acknowledged,
    /// A message came, and is not acknowledged.
    Seen,
    /// What came was just acknowledged.
    Confirmed,
    /// A login or a resumption begins.
    Login,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sent, Self::Acknowledged, Self::Seen, Self::Confirmed, Self::Login];
}

/// What clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Write, receive, lose connections.
    Storm,
    /// Get everything acknowledged, write nothing new.
    Calm,
    /// Acknowledge all that came; from here on nothing may come again.
    Settled,
    /// End.
    Over,
}

/// How long a client waited for something.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// For what.
    pub what: Awaited,
    /// Since when.
    pub since: Duration,
    /// How long.
    pub took: Duration,
}

/// What clients wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// That a session which lost its connection goes on: since the client began to connect.
    Resumption,
    /// That a message is acknowledged which was written for the first time then; its client did not itself leave the
    /// connection in between.
    Answer,
}

/// The state of a run.
pub struct Run {
    start: Instant,
    /// Where the server is.
    pub target: Target,
    phase: watch::Sender<Phase>,
    trouble: AtomicBool,
    /// Many processes serve: a session outlives any of them, a connection does not.
    cluster: bool,
    pid: AtomicI32,
    turns: AtomicU32,
    armed: AtomicU32,
    countdown: AtomicU32,
    delay_us: AtomicU64,
    fired: Notify,
    budget: AtomicI64,
    written: AtomicU64,
    activity: AtomicU64,
    unanswered: AtomicI64,
    /// The client's end of the connection that each session goes over, for each client that has one.
    connections: Mutex<BTreeMap<String, SocketAddr>>,
    /// When the latest message that was acknowledged was sent, for each client.
    served: Mutex<BTreeMap<String, Duration>>,
    waits: Mutex<Vec<Wait>>,
    silences: AtomicU32,
    /// Requests that were answered, and those of them that were answered with an error.
    answers: [AtomicU32; 2],
    /// The name of the run, part of every `origin-id`.
    pub name: String,
}

/// A server process, or the time between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Counts every start and every end.
    number: u32,
    up: bool,
}

impl Life {
    /// Which process holds a session that was opened between two looks at the server; `None` if it may be one of
    /// several, or one that is gone.
    pub fn holder(before: Self, after: Self) -> Option<Self> {
        let came_up = !before.up && after.number == before.number.wrapping_add(1);
        (after.up && (before == after || came_up)).then_some(after)
    }

    /// Whether this process was there before and after.
    pub fn lasted(before: Self, after: Self) -> bool {
        before.up && before == after
    }
}

impl Run {
    /// A run against this server, which is up and reached at `target`.
    pub fn new(server: &Server, target: Target, name: String) -> Result<Arc<Self>> {
        let run = Self::make(target, name, false);
        run.server_is_up(server)?;
        Ok(run)
    }

    /// A run against a cluster that is reached at `target`: connections may end at any time, and clients leave those
    /// over which nothing comes.
    pub fn on_cluster(target: Target, name: String) -> Arc<Self> {
        Self::make(target, name, true)
    }

    fn make(target: Target, name: String, cluster: bool) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            target,
            phase: watch::Sender::new(Phase::Storm),
            trouble: AtomicBool::new(false),
            cluster,
            pid: AtomicI32::new(0),
            turns: AtomicU32::new(0),
            armed: AtomicU32::new(0),
            countdown: AtomicU32::new(0),
            delay_us: AtomicU64::new(0),
            fired: Notify::new(),
            budget: AtomicI64::new(0),
            written: AtomicU64::new(0),
            activity: AtomicU64::new(0),
            unanswered: AtomicI64::new(0),
            connections: Mutex::default(),
            served: Mutex::default(),
            waits: Mutex::default(),
            silences: AtomicU32::new(0),
            answers: Default::default(),
            name,
        })
    }

    /// Whether many processes serve.
    pub fn is_on_cluster(&self) -> bool {
        self.cluster
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// What clients are to do now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Tells clients what to do from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Says whether the server may refuse what is no message, logins for example: what it needs for them is not there.
    pub fn trouble(&self, there_is: bool) {
        self.trouble.store(there_is, SeqCst);
    }

    /// Whether it may.
    pub fn in_trouble(&self) -> bool {
        self.trouble.load(SeqCst)
    }

    /// Takes note of a started server.
    pub fn server_is_up(&self, server: &Server) -> Result<()> {
        let pid = i32::try_from(server.pid().context("the server does not run")?)?;
        self.pid.store(pid, SeqCst);
        self.turn();
        Ok(())
    }

    /// The process that a client's [moment](Moment) is to kill from now on, one of a cluster.
    pub fn aim(&self, pid: u32) -> Result<()> {
        self.pid.store(i32::try_from(pid)?, SeqCst);
        Ok(())
    }

    /// A process has come or gone, and sessions may have gone with it.
    pub fn turn(&self) {
        self.turns.fetch_add(1, SeqCst);
    }

    /// What there is of a server now.
    pub fn life(&self) -> Life {
        loop {
            let number = self.turns.load(SeqCst);
            let up = self.cluster || self.pid.load(SeqCst) != 0;
            if number == self.turns.load(SeqCst) {
                return Life { number, up };
            }
        }
    }

    /// Announces that the server will be told to end properly. From here on its streams may end.
    pub fn announce_end(&self) {
        self.pid.store(0, SeqCst);
        self.turn();
    }

    /// Kills the server now, if it is alive. It is for the owner of the [`Server`] to wait for its end.
    pub fn kill(&self) {
        let pid = self.pid.swap(0, SeqCst);
        if pid != 0 {
            if !self.cluster {
                self.turn();
            }
            // It may have ended by itself, which shows when it is waited for.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Arranges that the server is killed this long after the moment has come this many times more.
    pub fn arm(&self, moment: Moment, skip: u32, delay: Duration) {
        self.countdown.store(skip, SeqCst);
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(0), SeqCst);
        self.armed.store(moment as u32, SeqCst);
    }

    /// Waits for the armed kill; false if the moment did not come in time, in which case nothing is armed any more.
    pub async fn killed(&self, moment: Moment, within: Duration) -> bool {
        if tokio::time::timeout(within, self.fired.notified()).await.is_ok() {
            return true;
        }
        if self.armed.compare_exchange(moment as u32, 0, SeqCst, SeqCst).is_ok() {
            return false;
        }
        self.fired.notified().await;
        true
    }

    /// A client tells that a moment has come.
    pub fn moment(self: &Arc<Self>, moment: Moment) {
        let wanted = moment as u32;
        if self.armed.load(SeqCst) != wanted || self.pid.load(SeqCst) == 0 {
            return;
        }
        let more = self.countdown.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if more || self.armed.compare_exchange(wanted, 0, SeqCst, SeqCst).is_err() {
            return;
        }
        let delay = Duration::from_micros(self.delay_us.load(SeqCst));
        if delay.is_zero() {
            self.kill();
            self.fired.notify_one();
            return;
        }
        let run = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            run.kill();
            run.fired.notify_one();
        });
    }

    /// Allows clients to write this many messages more, and forgets what they have not used.
    pub fn allow(&self, messages: u32) {
        self.budget.store(i64::from(messages), SeqCst);
    }

    /// Takes one message out of what is allowed.
    pub fn take_turn(&self) -> bool {
        let allowed = self.budget.fetch_sub(1, SeqCst) > 0;
        self.written.fetch_add(u64::from(allowed), SeqCst);
        allowed
    }

    /// How many messages clients have written, not counting what they have sent again.
    pub fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }

    /// Notes that a client has got a message acknowledged that it had sent then.
    pub fn serves(&self, client: &str, sent: Duration) {
        let mut served = self.served.lock();
        match served.get_mut(client) {
            Some(latest) => *latest = sent.max(*latest),
            None => drop(served.insert(client.to_owned(), sent)),
        }
    }

    /// How many waits that are over had begun before this moment and ended after it.
    pub fn waits_over(&self, what: Awaited, moment: Duration) -> usize {
        let waits = self.waits.lock();
        let spans =
            |wait: &&Wait| wait.what == what && wait.since < moment && moment < wait.since + wait.took;
        waits.iter().filter(spans).count()
    }

    /// Notes that a request got neither a result nor an error in a session that went on.
    pub fn keeps_silent(&self) {
        self.silences.fetch_add(1, SeqCst);
    }

    /// Notes that a request was answered, perhaps with an error.
    pub fn answers(&self, error: bool) {
        self.answers[0].fetch_add(1, SeqCst);
        self.answers[1].fetch_add(u32::from(error), SeqCst);
    }

    /// How many requests were answered, and how many of them with an error.
    pub fn answered(&self) -> [u32; 2] {
        [0, 1].map(|of: usize| self.answers[of].load(SeqCst))
    }

    /// How many requests got neither.
    pub fn silences(&self) -> u32 {
        self.silences.load(SeqCst)
    }

    /// Notes how long a client waited, up to now.
    pub fn waited(&self, what: Awaited, since: Duration) {
        let took = self.now().saturating_sub(since);
        self.waits.lock().push(Wait { what, since, took });
    }

    /// How long each wait took that began in this range and is over.
    pub fn waits_since(&self, what: Awaited, range: std::ops::Range<Duration>) -> Vec<Duration> {
        let waits = self.waits.lock();
        let those = waits.iter().filter(|wait| wait.what == what && range.contains(&wait.since));
        those.map(|wait| wait.took).collect()
    }

    /// The clients that have sent something after this moment and got it acknowledged.
    pub fn served_since(&self, moment: Duration) -> Vec<String> {
        let served = self.served.lock();
        served.iter().filter(|(_, sent)| **sent >= moment).map(|(client, _)| client.clone()).collect()
    }

    /// Notes that something came to a client.
    pub fn stir(&self) {
        self.activity.fetch_add(1, SeqCst);
    }

    /// Notes that a client waits for so many answers more, or fewer.
    pub fn waits(&self, more: i64) {
        self.unanswered.fetch_add(more, SeqCst);
    }

    /// For how many answers clients wait.
    pub fn unanswered(&self) -> i64 {
        self.unanswered.load(SeqCst)
    }

    /// Notes that a client works in a session over this connection, or in none any more.
    pub fn works(&self, client: &str, over: Option<SocketAddr>) {
        let mut connections = self.connections.lock();
        match over {
            Some(end) => drop(connections.insert(client.to_owned(), end)),
            None => drop(connections.remove(client)),
        }
    }

    /// Which clients have a session, and their ends of the connections.
    pub fn connections(&self) -> BTreeMap<String, SocketAddr> {
        self.connections.lock().clone()
    }

    /// How many clients are connected and have a session.
    pub fn working(&self) -> usize {
        self.connections.lock().len()
    }

    /// Waits until all that was sent is answered and nothing has come to any client for this long, or `limit` is over.
    pub async fn quiet(&self, still: Duration, limit: Duration) -> bool {
        let begin = Instant::now();
        let mut last = (self.activity.load(SeqCst), Instant::now());
        while begin.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.activity.load(SeqCst);
            if now != last.0 || self.unanswered.load(SeqCst) > 0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() >= still {
                return true;
            }
        }
        false
    }

    /// Ends the writing, waits until everything is answered and seen, kills the server a last time and shows that
    /// nothing comes again.
    pub async fn come_to_rest(&self, server: &mut Server, fates: &mut Log) -> Result<()> {
        self.enter(Phase::Calm);
        ensure!(
            self.quiet(Duration::from_secs(3), Duration::from_secs(60)).await,
            "clients do not come to rest: something comes again and again"
        );
        // Everything seen is acknowledged now; the server may take its time to write that down, but not for ever.
        self.enter(Phase::Settled);
        tokio::time::sleep(Duration::from_secs(4)).await;
        self.kill();
        server.kill()?;
        fates.note(self.now(), What::Remark("killed after all was settled".to_owned()));
        server.restart().await?;
        self.server_is_up(server)?;
        self.quiet(Duration::from_secs(2), Duration::from_secs(20)).await;
        server.check_alive()
    }
}
