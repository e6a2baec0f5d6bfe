//! Kills the server again and again while clients write, and lets the history of it all be judged.
//!
//! `CRASH_SEED` repeats the plan of a run (its timing is never the same twice), `CRASH_KILLS` is the number of kills,
//! `CRASH_MESSAGES` how many messages may be written from one to the next. A kill -9 loses what the process held and
//! nothing that it gave to the kernel: whether syncs happen is the matter of the store's own tests.
#![allow(clippy::disallowed_methods)]

mod actor;
mod audit;
mod run;
mod stanza;
mod summary;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_tests::history::{History, Log, Violation, What, check};
use starling_tests::report::{Report, case, wanted};
use starling_tests::server::Kind;
use starling_tests::{Server, Transport};
use tokio::task::JoinSet;

use actor::Actor;
use run::{Moment, Phase, Run};
use summary::Summary;

const ACCOUNTS: [&str; 4] = ["ann", "bob", "cat", "dan"];
/// The second devices only write.
const DEVICES: [&str; 6] = ["ann/phone", "ann/desk", "bob/phone", "bob/desk", "cat/phone", "dan/phone"];

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    kills: u32,
    messages: u32,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse::<u64>().with_context(|| format!("{name}={text} is not a number")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            seed: number("CRASH_SEED", rand::random::<u32>().into())?,
            kills: number("CRASH_KILLS", 40)?.try_into()?,
            messages: number("CRASH_MESSAGES", 250)?.try_into()?,
        })
    }

    fn limit(self) -> Duration {
        Duration::from_secs(60) + self.kills * Duration::from_secs(10)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let mut report = Report::default();
    let name = "crash::survives_kills";
    if wanted(name) {
        let plan = Plan::from_environment()?;
        let Plan { seed, kills, messages } = plan;
        println!("CRASH_SEED={seed} CRASH_KILLS={kills} CRASH_MESSAGES={messages}");
        let (outcome, took) = case(plan.limit(), survive(plan)).await;
        report.note(name, outcome, took);
    }
    Ok(report.finish())
}

async fn survive(plan: Plan) -> Result<()> {
    let kind = match std::env::var("STARLING_REFERENCE").as_deref() {
        Ok("prosody") => Kind::Prosody,
        _ => Kind::Starling,
    };
    let mut server = Server::start_kind(kind, &[]).await?;
    for user in ACCOUNTS {
        server.add_user(user).await?;
    }
    let run = Run::new(&server)?;
    let _ = run.name.set(format!("{:x}", plan.seed));
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let domain = &run.target.domain;
    // Half of the messages go to full JIDs: a session that is gone must not make a difference.
    let addresses = ACCOUNTS.iter().flat_map(|a| [format!("{a}@{domain}"), format!("{a}@{domain}/phone")]);
    let addresses = Arc::new(addresses.collect::<Vec<_>>());

    let mut actors = JoinSet::new();
    for device in DEVICES {
        let (user, resource) = device.split_once('/').context("a device without a resource")?;
        let direct = if rng.random_bool(0.5) { Transport::DirectTls } else { Transport::StartTls };
        let login = server.login(user).resource(resource).managed().transport(direct);
        let jid = format!("{user}@{domain}/{resource}");
        let actor = Actor::new(run.clone(), login, &jid, addresses.clone(), rng.random());
        actors.spawn(Box::pin(actor.live()));
    }

    let mut fates = Log::new("server");
    let directed = direct(&mut server, &run, &mut rng, plan, &mut fates).await;
    run.enter(Phase::Over);
    let mut history = History::default();
    while let Some(log) = actors.join_next().await {
        history.logs.push(log?);
    }
    history.logs.push(fates);
    history.logs.sort_by(|a, b| a.client.cmp(&b.client));
    let read = match directed {
        Ok(()) => read_archives(&server, &mut history).await,
        Err(error) => Err(error),
    };
    let violations = check(&history);
    let summary = Summary::of(&history);
    println!("{summary}");
    let idle = summary.too_idle(plan.kills);
    if read.is_ok() && violations.is_empty() && idle.is_none() {
        return Ok(());
    }
    let folder = keep(&server, &history, &violations, plan)?;
    read.with_context(|| format!("the run broke off; see {folder}"))?;
    if let Some(first) = violations.first() {
        bail!("{}", tell(&history, first, violations.len(), &folder));
    }
    bail!("{}; see {folder}", idle.unwrap_or_default())
}

/// Kills the server as planned, then lets the clients come to rest.
async fn direct(
    server: &mut Server,
    run: &Arc<Run>,
    rng: &mut StdRng,
    plan: Plan,
    fates: &mut Log,
) -> Result<()> {
    for number in 1..=plan.kills {
        run.allow(plan.messages);
        let how = if rng.random_bool(0.1) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
            run.announce_end();
            fates.note(run.now(), What::Remark(format!("stop {number}: told to end")));
            server.stop().await?;
            "told to end".to_owned()
        } else {
            let how = strike(server, run, rng).await?;
            // The process is a zombie by now; this waits for it.
            server.kill()?;
            how
        };
        fates.note(run.now(), What::Remark(format!("stop {number}: {how}")));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
        server.restart().await?;
        run.server_is_up(server)?;
        fates.note(run.now(), What::Remark("started".to_owned()));
    }
    // The last server has to bring everything that is still open to its end.
    run.allow(plan.messages);
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.enter(Phase::Calm);
    ensure!(
        run.quiet(Duration::from_secs(3), Duration::from_secs(60)).await,
        "clients do not come to rest: something comes again and again"
    );
    // Everything seen is acknowledged now; the server may take its time to write that down, but not for ever.
    run.enter(Phase::Settled);
    tokio::time::sleep(Duration::from_secs(4)).await;
    run.kill();
    server.kill()?;
    fates.note(run.now(), What::Remark("killed after all was settled".to_owned()));
    server.restart().await?;
    run.server_is_up(server)?;
    run.quiet(Duration::from_secs(2), Duration::from_secs(20)).await;
    server.check_alive()
}

/// Waits for a moment of the generator's choice and kills the server in it.
async fn strike(server: &mut Server, run: &Arc<Run>, rng: &mut StdRng) -> Result<String> {
    if rng.random_bool(0.2) {
        let after = Duration::from_millis(rng.random_range(0..700));
        tokio::time::sleep(after).await;
        server.check_alive()?;
        run.kill();
        return Ok(format!("killed {after:?} after its start"));
    }
    let moment = Moment::ALL[rng.random_range(0..Moment::ALL.len())];
    let (skip, delay) = match moment {
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

async fn read_archives(server: &Server, history: &mut History) -> Result<()> {
    for user in ACCOUNTS {
        let login = server.login(user).resource("auditor");
        let archive = audit::read(server.target(), &login);
        history.archives.push(archive.await.with_context(|| format!("reading the archive of {user}"))?);
    }
    Ok(())
}

/// Writes all that is known into a folder that stays.
fn keep(server: &Server, history: &History, violations: &[Violation], plan: Plan) -> Result<String> {
    let folder = tempfile::Builder::new().prefix(&format!("starling-crash-{}-", plan.seed)).tempdir()?.keep();
    history.write(&folder)?;
    std::fs::write(folder.join("server-output.log"), server.log())?;
    let list: String = violations.iter().map(|v| format!("{v}\n")).collect();
    std::fs::write(folder.join("violations"), list)?;
    Ok(folder.display().to_string())
}

/// A violation with the whole history of its message.
fn tell(history: &History, violation: &Violation, count: usize, folder: &str) -> String {
    let story = violation.origin.as_deref().map(|origin| history.story(origin)).unwrap_or_default();
    format!("{count} violations, all of them in {folder}. The first: {violation}\n{story}")
}
