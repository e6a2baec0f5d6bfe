//! Two of three routers are away: nobody may promise anything meanwhile, and nobody may keep what it cannot answer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use starling_tests::server::PASSWORD;
use starling_tests::{Client, Login, Target};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::processes::arrive;
use crate::drill::{ACCOUNTS, Drill, OWNER};
use crate::site::{EDGES, ROUTERS, Which};
use crate::strain::resident;

/// What one who tries to log in may be told meanwhile (RFC 6120 section 6.5.11, section 8.3.3.18, section 4.9.3.14).
const EXCUSES: [&str; 3] = ["temporary-auth-failure", "resource-constraint", "remote-connection-failed"];
/// Edges wait two seconds for a home; somebody is told so within this, on a busy machine.
const TOLD: Duration = Duration::from_secs(20);
/// After so long the router that is left serves nobody any more: its leases are over.
const LAPSED: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(50);
/// If nothing is taken for so long, nothing is read.
const STALLED: Duration = Duration::from_millis(500);
/// At each edge somebody writes messages of this size,
const MESSAGE: usize = 200 << 10;
/// in such pieces,
const PIECE: usize = 16 << 10;
/// of which no more may be taken than the buffers of a connection have room for, and this for credit and for the message that is
/// being read:
const CREDIT: usize = 1 << 20;
/// so much more is written, if it is taken.
const MORE: usize = 32 << 20;
/// No process may have more memory for it than this above what it had.
const GROWTH: u64 = 32 << 20;
/// Least, usual and most bytes of what a connection has sent and has to read.
const BUFFERS: [&str; 2] = ["/proc/sys/net/ipv4/tcp_wmem", "/proc/sys/net/ipv4/tcp_rmem"];

pub(super) async fn two_routers_are_killed(drill: &mut Drill) -> Result<String> {
    let (left, others) = two_of_three(drill);
    let trial = Trial::prepare(drill).await?;
    for router in others {
        drill.site.kill(Which::Router(router))?;
    }
    let felt = trial.run(drill, 1.0..4.0, true).await?;
    Ok(format!("all but router-{left}, {felt}"))
}

pub(super) async fn two_routers_stand_still(drill: &mut Drill) -> Result<String> {
    let (left, others) = two_of_three(drill);
    let trial = Trial::prepare(drill).await?;
    for router in others {
        drill.site.process(Which::Router(router)).pause()?;
    }
    // Links to who stands still last for seconds: to wait for a refusal each time would have too many messages refused.
    let felt = trial.run(drill, 1.0..5.0, false).await?;
    Ok(format!("all but router-{left}, {felt}"))
}

fn two_of_three(drill: &mut Drill) -> (usize, Vec<usize>) {
    let left = drill.any_router();
    (left, (0..ROUTERS).filter(|router| *router != left).collect())
}

/// Those who want something of a cluster that cannot promise anything.
struct Trial {
    writers: Vec<Client>,
    /// So much of what somebody writes is taken where nobody reads.
    room: usize,
}

/// What they have got so far.
#[derive(Default)]
struct Got {
    /// Somebody has a session that nobody can have confirmed.
    bound: Option<String>,
    refused: BTreeMap<String, usize>,
    /// How many bytes were taken at each edge.
    taken: [usize; EDGES],
}

impl Got {
    /// Whether somebody has heard anything, and how much was taken.
    fn so_far(&self) -> (bool, [usize; EDGES]) {
        (self.bound.is_some() || !self.refused.is_empty(), self.taken)
    }

    /// What nobody may do where nothing can be promised, and edges take so much without reading it all.
    fn judge(&self, room: usize) -> Result<()> {
        if let Some(bound) = &self.bound {
            bail!("there is no quorum, and {bound} has a session");
        }
        if let Some(other) =
            self.refused.keys().find(|why| !EXCUSES.iter().any(|excuse| why.contains(excuse)))
        {
            bail!("there is no quorum, and one who logs in is told: {other}");
        }
        for taken in self.taken {
            ensure!(taken > 0, "nothing of what is written was even taken by the kernel");
            ensure!(
                taken <= room,
                "there is no quorum, and an edge reads: {} KiB were taken, there is room for {} KiB",
                taken >> 10,
                room >> 10
            );
        }
        Ok(())
    }
}

impl Trial {
    /// Lets some log in while that can be done.
    async fn prepare(drill: &Drill) -> Result<Self> {
        let mut writers = Vec::new();
        for edge in 0..EDGES {
            writers.push(arrive(&drill.site.at(edge), edge).await?);
        }
        let buffers = BUFFERS.into_iter().map(largest).sum::<Result<usize>>()?;
        Ok(Self { writers, room: buffers + CREDIT })
    }

    /// Lets them ask and write for some time, until nothing more is taken and, if somebody `must_hear`, one was told
    /// that it cannot log in.
    async fn run(self, drill: &mut Drill, seconds: Range<f64>, must_hear: bool) -> Result<String> {
        sleep(LAPSED).await;
        let before = memory(drill);
        let room = self.room;
        let (begin, got) = (Instant::now(), Arc::<Mutex<Got>>::default());
        let mut tasks = self.begin(drill, &got);
        drill.hold(seconds).await;
        settle(begin, &got, must_hear).await;
        tasks.shutdown().await;
        let got = std::mem::take(&mut *got.lock());
        got.judge(room)?;
        ensure!(
            !got.refused.is_empty() || !must_hear,
            "nobody was told within {TOLD:?} that it cannot log in now"
        );
        let taken = got.taken.iter().sum();
        let most = growth(&before, &memory(drill), taken)?;
        Ok(format!(
            "for {:.1?}, {} logins refused, {} KiB more memory after {} KiB",
            begin.elapsed(),
            got.refused.values().sum::<usize>(),
            most >> 10,
            taken >> 10
        ))
    }

    /// Somebody writes at each edge, and many try to log in.
    fn begin(self, drill: &Drill, got: &Arc<Mutex<Got>>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (edge, writer) in self.writers.into_iter().enumerate() {
            tasks.spawn(flood(writer, edge, self.room + MORE, got.clone()));
        }
        for (number, user) in ACCOUNTS.into_iter().chain([OWNER]).enumerate() {
            tasks.spawn(knock(drill.site.at(number % EDGES), user, got.clone()));
        }
        tasks
    }
}

/// Waits until nothing more is taken, and until somebody was told something if one `must_hear`; not for ever.
async fn settle(begin: Instant, got: &Mutex<Got>, must_hear: bool) {
    let mut before = None;
    while begin.elapsed() < TOLD {
        let (told, taken) = got.lock().so_far();
        if (told || !must_hear) && before.replace(taken) == Some(taken) {
            break;
        }
        sleep(STALLED).await;
    }
}

/// How much more memory the process has that has most more; an error if that is too much.
fn growth(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, taken: usize) -> Result<u64> {
    let (mut most, mut compared) = (0, 0);
    for (name, now) in now {
        // Who was killed is not there any more.
        let Some(known) = before.get(name) else { continue };
        compared += 1;
        let growth = now.saturating_sub(*known);
        ensure!(growth < GROWTH, "{name} has {} KiB of memory more after {} KiB", growth >> 10, taken >> 10);
        most = growth.max(most);
    }
    ensure!(compared > EDGES, "the memory of {compared} processes only could be read");
    Ok(most)
}

/// What routers and edges have of the machine's memory.
fn memory(drill: &Drill) -> BTreeMap<String, u64> {
    let ours =
        drill.site.all().filter(|one| ["router", "edge"].iter().any(|kind| one.name().starts_with(kind)));
    ours.filter_map(|one| Some((one.name().to_owned(), resident(one.pid()?)?))).collect()
}

/// The largest size of such a buffer.
fn largest(of: &str) -> Result<usize> {
    let sizes = std::fs::read_to_string(of).with_context(|| of.to_owned())?;
    sizes
        .split_whitespace()
        .last()
        .and_then(|size| size.parse().ok())
        .with_context(|| format!("{of}: {sizes:?}"))
}

/// Writes so much, if that is taken.
async fn flood(mut writer: Client, edge: usize, bytes: usize, got: Arc<Mutex<Got>>) {
    let body = "x".repeat(MESSAGE);
    let message = format!("<message type='chat' to='{}'><body>{body}</body></message>", writer.bare());
    for _ in 0..bytes / MESSAGE {
        for piece in message.as_bytes().chunks(PIECE) {
            if writer.send_raw(piece).await.is_err() {
                return;
            }
            got.lock().taken[edge] += piece.len();
        }
    }
    // Who has said all stays.
    std::future::pending::<()>().await;
}

/// Tries to log in, again and again.
async fn knock(edge: Target, user: &str, got: Arc<Mutex<Got>>) {
    let login = Login::new(user, PASSWORD).resource("knock");
    loop {
        match login.connect(&edge).await {
            Ok(client) => got.lock().bound = Some(client.jid().to_owned()),
            Err(error) => *got.lock().refused.entry(format!("{error:#}")).or_default() += 1,
        }
        sleep(AGAIN).await;
    }
}
