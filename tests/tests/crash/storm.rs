//! A run: clients at work, a server that is killed, and at the end everything that is known of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_tests::Server;
use starling_tests::crowd::{self, Crowd, Manners, Moment, Run};
use starling_tests::history::{History, Log, Violation, What};
use starling_tests::server::{Kind, Store};

use crate::liar::Liar;

/// What a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Decides on everything but the timing.
    pub(crate) seed: u64,
    /// How often the server is stopped.
    pub(crate) kills: u32,
    /// How many messages may be written from one stop to the next.
    pub(crate) messages: u32,
    /// Between clients and server is one that acknowledges what the server has not even got.
    pub(crate) liar: bool,
    /// Where the server keeps its data.
    pub(crate) store: Store,
}

impl Plan {
    /// `CRASH_SEED`, `CRASH_KILLS`, `CRASH_MESSAGES`.
    pub(crate) fn from_environment() -> Result<Self> {
        Ok(Self {
            seed: number("CRASH_SEED", rand::random::<u32>().into())?,
            kills: number("CRASH_KILLS", 40)?.try_into()?,
            messages: number("CRASH_MESSAGES", 250)?.try_into()?,
            liar: false,
            store: Store::Embedded,
        })
    }

    /// The same with the data on a CQL server: `CRASH_KILLS_CQL` instead of `CRASH_KILLS`.
    pub(crate) fn on_cql(self, store: Store) -> Result<Self> {
        Ok(Self { kills: number("CRASH_KILLS_CQL", 12)?.try_into()?, store, ..self })
    }

    /// How long it may take.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(60) + self.kills * Duration::from_secs(10)
    }
}

fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    }
}

/// What is left of a run.
pub(crate) struct Storm {
    /// All logs, and the archives if it came to its end.
    pub(crate) history: History,
    /// Why it broke off.
    pub(crate) broken: Option<anyhow::Error>,
    server: Server,
}

impl Storm {
    /// Runs a plan.
    pub(crate) async fn run(plan: &Plan) -> Result<Self> {
        let kind = match std::env::var("STARLING_REFERENCE").as_deref() {
            Ok("prosody") => Kind::Prosody,
            _ => Kind::Starling,
        };
        let mut server = match kind {
            Kind::Starling => Server::start_on(&plan.store, &[]).await?,
            reference => Server::start_kind(reference, &[]).await?,
        };
        let mut target = server.target().clone();
        let liar = if plan.liar { Some(Liar::start(&server).await?) } else { None };
        if let Some(liar) = &liar {
            target.c2s_tls = Some(liar.address());
        }
        // A session cannot survive such a lie: the server would tell how little it has.
        let manners = if plan.liar { Manners::Smooth } else { Manners::Rough };
        let crowd = Crowd::gather(&server, target, plan.seed, manners).await?;
        let run = crowd.run.clone();
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut fates = Log::new("server");
        let directed = direct(&mut server, &run, &mut rng, plan, &mut fates).await;
        let mut history = History { logs: crowd.disband().await?, archives: Vec::new() };
        history.logs.push(fates);
        let broken = match directed {
            Ok(()) => match crowd::archives(&server).await {
                Ok(archives) => {
                    history.archives = archives;
                    None
                }
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        Ok(Self { history, broken, server })
    }

    /// What the server printed about a panic, if there was one: clients may not have noticed.
    pub(crate) fn panic(&self) -> Option<String> {
        self.server.log().lines().find(|line| line.contains("panicked")).map(str::to_owned)
    }

    /// Writes all that is known into a folder that stays.
    pub(crate) fn keep(&self, violations: &[Violation], plan: &Plan) -> Result<String> {
        crowd::keep(&format!("starling-crash-{}-", plan.seed), &self.history, violations, &self.server)
    }
}

/// Kills the server as planned, then lets the clients come to rest.
async fn direct(
    server: &mut Server,
    run: &Arc<Run>,
    rng: &mut StdRng,
    plan: &Plan,
    fates: &mut Log,
) -> Result<()> {
    for number in 1..=plan.kills {
        run.allow(plan.messages);
        let how = if !plan.liar && rng.random_bool(0.15) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
            run.announce_end();
            fates.note(run.now(), What::Remark(format!("stop {number}: told to end")));
            tell_to_end(server, rng).await?
        } else {
            let how = strike(server, run, rng, plan).await?;
            // The process is a zombie by now; this waits for it.
            server.kill()?;
            how
        };
        fates.note(run.now(), What::Remark(format!("stop {number}: {how}")));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
        while !plan.liar && rng.random_bool(0.1) {
            // Killed again while it reads its data.
            let after = Duration::from_millis(rng.random_range(5..200));
            let done = tokio::time::timeout(after, server.restart()).await;
            done.unwrap_or(Ok(()))?;
            server.kill()?;
            run.turn();
            fates.note(run.now(), What::Remark(format!("killed {after:?} into its start")));
        }
        server.restart().await?;
        run.server_is_up(server)?;
        fates.note(run.now(), What::Remark("started".to_owned()));
    }
    // The last server has to bring everything that is still open to its end.
    run.allow(plan.messages);
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.come_to_rest(server, fates).await
}

/// Lets the server end as an administrator would, or kills it while it does.
async fn tell_to_end(server: &mut Server, rng: &mut StdRng) -> Result<String> {
    if rng.random_bool(0.6) {
        let status = server.stop().await?;
        ensure!(status.success(), "the server ended with {status} when it was told to end");
        return Ok("ended as it was told".to_owned());
    }
    let after = Duration::from_millis(rng.random_range(0..300));
    server.signal(Signal::SIGTERM)?;
    tokio::time::sleep(after).await;
    server.kill()?;
    Ok(format!("killed {after:?} after it was told to end"))
}

/// Waits for a moment of the generator's choice and kills the server in it.
async fn strike(server: &mut Server, run: &Arc<Run>, rng: &mut StdRng, plan: &Plan) -> Result<String> {
    if !plan.liar && rng.random_bool(0.2) {
        let after = Duration::from_millis(rng.random_range(0..700));
        tokio::time::sleep(after).await;
        server.check_alive()?;
        run.kill();
        return Ok(format!("killed {after:?} after its start"));
    }
    let moment = match plan.liar {
        true => Moment::Acknowledged,
        false => Moment::ALL[rng.random_range(0..Moment::ALL.len())],
    };
    let (skip, delay) = match moment {
        _ if plan.liar => (rng.random_range(0..20), 0),
        Moment::Login => (rng.random_range(0..8), rng.random_range(0..60_000)),
        _ if rng.random_bool(0.5) => (rng.random_range(0..200), 0),
        _ => (rng.random_range(0..200), rng.random_range(0..3_000)),
    };
    let delay = Duration::from_micros(delay);
    run.arm(moment, skip, delay);
    if run.killed(moment, Duration::from_secs(3)).await {
        return Ok(format!("killed {delay:?} after {moment:?}"));
    }
    server.check_alive()?;
    run.kill();
    Ok(format!("killed, {moment:?} did not come"))
}
