//! Kills the server again and again while clients write, and lets the history of it all be judged.
//!
//! `CRASH_SEED` repeats the plan of a run (its timing is never the same twice), `CRASH_KILLS` is the number of kills
//! (`CRASH_KILLS_CQL` with the data on a CQL server), `CRASH_MESSAGES` how many messages may be written from one to the
//! next. A kill -9 loses what the process held and nothing that it gave to the kernel: whether syncs happen is the matter
//! of the store's own tests.
#![allow(clippy::disallowed_methods)]

mod liar;
mod storm;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use starling_tests::crowd::Summary;
use starling_tests::history::{History, Kind, Violation, What, check};
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::Store;

use storm::{Plan, Storm};

/// How many kills a round has, each with a new server: all that clients saw is held in memory.
const ROUND: u32 = 250;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let mut report = Report::default();
    let plan = Plan::from_environment()?;
    println!("CRASH_SEED={} CRASH_KILLS={} CRASH_MESSAGES={}", plan.seed, plan.kills, plan.messages);
    let name = "crash::a_liar_is_found";
    if wanted(name) {
        let plan = Plan { kills: 4, liar: true, ..plan.clone() };
        let (outcome, took) = case(plan.limit(), find_liar(&plan)).await;
        report.note(name, outcome, took);
    }
    let name = "crash::survives_kills";
    if wanted(name) {
        rounds(name, &plan, &mut report).await;
    }
    let name = "crash::survives_kills_on_cql";
    if wanted(name) {
        match Store::shared_cql() {
            Ok(store) => rounds(name, &plan.on_cql(store)?, &mut report).await,
            Err(why) => report.note(name, Outcome::Skipped(why), Duration::ZERO),
        }
    }
    Ok(report.finish())
}

/// A long run is made of rounds.
async fn rounds(name: &str, plan: &Plan, report: &mut Report) {
    let rounds = plan.kills.div_ceil(ROUND).max(1);
    for round in 0..rounds {
        let kills = ROUND.min(plan.kills - round * ROUND);
        let plan = Plan { seed: plan.seed + u64::from(round), kills, ..plan.clone() };
        if rounds > 1 {
            println!("round {round}: CRASH_SEED={} CRASH_KILLS={}", plan.seed, plan.kills);
        }
        let (outcome, took) = case(plan.limit(), survive(&plan)).await;
        report.note(name, outcome, took);
    }
}

/// The server keeps its promises.
async fn survive(plan: &Plan) -> Result<()> {
    let storm = Box::pin(Storm::run(plan)).await?;
    let violations = check(&storm.history);
    let summary = Summary::of(&storm.history);
    println!("{summary}");
    let idle = summary.too_idle(plan.kills);
    let panic = storm.panic();
    if storm.broken.is_none() && violations.is_empty() && idle.is_none() && panic.is_none() {
        return Ok(());
    }
    let folder = storm.keep(&violations, plan)?;
    if let Some(error) = storm.broken {
        // Without archives the judge has nothing to say, but clients may have noticed something.
        let faults = storm.history.logs.iter().flat_map(|l| &l.events);
        let fault = faults.filter(|e| matches!(e.what, What::Fault(_))).map(ToString::to_string).next();
        return Err(error).with_context(|| {
            format!("the run broke off; first fault: {}; see {folder}", fault.unwrap_or_default())
        });
    }
    if let Some(first) = violations.first() {
        bail!("{}", tell(&storm.history, first, violations.len(), &folder));
    }
    bail!("{}; see {folder}", panic.or(idle).unwrap_or_default())
}

/// The whole way from the socket to the verdict notices a fault: messages acknowledged before the server has them.
async fn find_liar(plan: &Plan) -> Result<()> {
    let storm = Box::pin(Storm::run(plan)).await?;
    if let Some(error) = storm.broken {
        return Err(error);
    }
    let violations = check(&storm.history);
    for kind in [Kind::MissingRow, Kind::NeverSeen] {
        ensure!(
            violations.iter().any(|v| v.kind == kind),
            "no {kind:?} among {} violations",
            violations.len()
        );
    }
    let other = violations.iter().find(|v| !matches!(v.kind, Kind::MissingRow | Kind::NeverSeen));
    ensure!(
        other.is_none(),
        "a fault that was not planted: {}",
        other.map(ToString::to_string).unwrap_or_default()
    );
    Ok(())
}

/// A violation with the whole history of its message.
fn tell(history: &History, violation: &Violation, count: usize, folder: &str) -> String {
    let story = violation.origin.as_deref().map(|origin| history.story(origin)).unwrap_or_default();
    format!("{count} violations, all of them in {folder}. The first: {violation}\n{story}")
}
