//! Which seeds are run, and what is said of them.

use crate::cluster::Break;
use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Outcome, run};
use parking_lot::Mutex;
use starling_tests::report::{self, Report};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is simulated.
#[derive(Debug, Clone, Copy)]
enum World {
    One,
    Cluster,
}

impl World {
    fn plan(self, seed: u64) -> Plan {
        match self {
            Self::One => Plan::of(seed, None),
            Self::Cluster => Plan::cluster(seed, None),
        }
    }
}

/// How long seeds are run where nobody says how many.
const BUDGET: Duration = Duration::from_secs(45);
/// At least so many, also on a machine that has other work to do.
const LEAST: u64 = 500;
/// How long a planted bug is looked for, beyond the seeds that are known to find it, where nobody says how many seeds.
const SEARCH: Duration = Duration::from_secs(40);
/// Every so many seeds one is run twice, to see that it is the same run.
const TWICE: u64 = 50;
/// A run is given up after so many seeds that failed, unless `SIM_FAILURES` says another number.
const MOST_FAILED: usize = 5;
/// After so many seeds it is said how far a run has come.
const TOLD: u64 = 10_000;

/// A number that somebody gives.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

pub(crate) fn main() -> ExitCode {
    if let Some(seed) = number("SIM_CLUSTER") {
        let breaks = std::env::var("SIM_PLANTED").ok();
        let breaks =
            Break::ALL.iter().map(|(planted, ..)| *planted).find(|of| Some(format!("{of:?}")) == breaks);
        return one(Plan { told: true, ..Plan::cluster(seed, breaks) });
    }
    if let Some(seed) = number("SIM_SEED") {
        let planted = std::env::var("SIM_PLANTED").ok().and_then(|name| by_name(&name));
        return one(Plan { told: true, ..Plan::of(seed, planted) });
    }
    if let Some(seeds) = number("SIM_SURVEY") {
        return survey(seeds);
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(1), number("SIM_SEEDS"));
    let mut report = Report::default();
    if report::wanted("seeds") {
        let begin = Instant::now();
        let (ran, failed) = many(World::One, from, seeds.map(|seeds| seeds - seeds / 2));
        let name = format!("seeds_{from}_to_{}", from + ran - 1);
        report.note(&name, outcome(failed), begin.elapsed());
    }
    if report::wanted("cluster") {
        let begin = Instant::now();
        let (ran, failed) = many(World::Cluster, from, seeds.map(|seeds| seeds / 2));
        let name = format!("cluster_seeds_{from}_to_{}", from + ran - 1);
        report.note(&name, outcome(failed), begin.elapsed());
    }
    for (planted, known, within) in Break::ALL {
        let name = format!("planted_{planted:?}");
        if report::wanted(&name) {
            let begin = Instant::now();
            let plan = |seed| Plan::cluster(seed, Some(planted));
            report.note(
                &name,
                find(&format!("{planted:?}"), plan, known, within, seeds.is_none()),
                begin.elapsed(),
            );
        }
    }
    for (planted, known, within) in Planted::ALL {
        let name = format!("planted_{planted:?}");
        if report::wanted(&name) {
            let begin = Instant::now();
            let plan = |seed| Plan::of(seed, Some(planted));
            report.note(
                &name,
                find(&format!("{planted:?}"), plan, known, within, seeds.is_none()),
                begin.elapsed(),
            );
        }
    }
    report.finish()
}

fn outcome(failed: Option<String>) -> report::Outcome {
    failed.map_or(report::Outcome::Passed, report::Outcome::Failed)
}

fn by_name(name: &str) -> Option<Planted> {
    Planted::ALL.into_iter().map(|(planted, ..)| planted).find(|planted| format!("{planted:?}") == name)
}

/// One seed with its whole story.
fn one(plan: Plan) -> ExitCode {
    let seed = plan.seed;
    println!("{plan:#?}");
    let outcome = run(plan);
    for (at, line) in &outcome.story {
        println!("{:>12.6} {line}", at.as_secs_f64());
    }
    tell(seed, &outcome);
    if outcome.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(seed: u64, outcome: &Outcome) {
    for wrong in outcome.wrong.iter().take(SHOWN) {
        println!(
            "seed {seed}: {}: {} {}",
            wrong.invariant,
            wrong.message.as_deref().unwrap_or(""),
            wrong.text
        );
    }
}

/// How many wrongs of a seed are shown: the rest follows from them, mostly.
const SHOWN: usize = 4;

/// Runs it; a panic is something wrong, too.
fn safely(plan: Plan) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run(plan))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Does something with each of these seeds, one to a core, until it says that it is enough.
fn each(seeds: impl Iterator<Item = u64> + Send, work: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let seeds = Mutex::new(seeds.fuse());
    let enough = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = seeds.lock().next();
                    let Some(seed) = seed else { return };
                    if work(seed).is_break() {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Runs so many seeds, or as many as there is time for; gives their number and what was wrong.
fn many(world: World, from: u64, seeds: Option<u64>) -> (u64, Option<String>) {
    let begin = Instant::now();
    let (failed, ran) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let most = number("SIM_FAILURES").and_then(|most| usize::try_from(most).ok()).unwrap_or(MOST_FAILED);
    let last = seeds.map_or(u64::MAX, |seeds| from.saturating_add(seeds) - 1);
    each(from..=last, |seed| {
        let fault = judge(world, seed);
        let ran = ran.fetch_add(1, Ordering::Relaxed) + 1;
        if ran.is_multiple_of(TOLD) {
            println!("{ran} seeds, {:.0} a second", ran as f64 / begin.elapsed().as_secs_f64());
        }
        let mut failed = failed.lock();
        failed.extend(fault.map(|fault| (seed, fault)));
        let late = seeds.is_none() && ran >= LEAST && begin.elapsed() > BUDGET;
        if late || failed.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut failed = failed.into_inner();
    failed.sort();
    let failed: Vec<_> = failed.into_iter().map(|(seed, fault)| format!("seed {seed}: {fault}")).collect();
    (ran.into_inner(), (!failed.is_empty()).then(|| failed.join("\n")))
}

/// Runs a seed, some of them twice; gives what is wrong.
fn judge(world: World, seed: u64) -> Option<String> {
    let name = match world {
        World::One => "SIM_SEED",
        World::Cluster => "SIM_CLUSTER",
    };
    let outcome = match safely(world.plan(seed)) {
        Err(panic) => return Some(format!("panicked: {panic}")),
        Ok(outcome) => outcome,
    };
    if !outcome.wrong.is_empty() {
        let _one_at_a_time = TELLING.lock();
        tell(seed, &outcome);
        story(world, seed, &outcome);
        return Some(format!("{name}={seed} cargo test -p starling-tests --test sim"));
    }
    let differs = || safely(world.plan(seed)).map(|again| again.hash) != Ok(outcome.hash);
    (seed.is_multiple_of(TWICE) && differs()).then(|| "not the same run when it is run again".to_owned())
}

/// Held by whoever prints more than a line.
static TELLING: Mutex<()> = Mutex::new(());

/// What happened to the first message concerned.
fn story(world: World, seed: u64, outcome: &Outcome) {
    let Some(message) = outcome.wrong.iter().find_map(|wrong| wrong.message.clone()) else { return };
    let plan = Plan { told: true, ..world.plan(seed) };
    let Ok(again) = catch_unwind(AssertUnwindSafe(|| run(plan))) else { return };
    let marked = format!("\"{message}\"");
    for (at, line) in &again.story {
        if line.contains(&marked)
            || line.starts_with("server:")
            || line.starts_with("cluster:")
            || line.starts_with("store:")
        {
            println!("  {:>12.6} {line}", at.as_secs_f64());
        }
    }
}

/// Looks for a planted bug: with the seeds that are known to find it, then with others.
fn find(
    planted: &str,
    plan: impl Fn(u64) -> Plan + Sync,
    known: &[u64],
    within: u64,
    in_haste: bool,
) -> report::Outcome {
    let begin = Instant::now();
    if known.iter().any(|seed| is_found(plan(*seed))) {
        return report::Outcome::Passed;
    }
    let (tried, found) = (AtomicU64::new(0), Mutex::new(None));
    each(1..=within, |seed| {
        let late = in_haste && begin.elapsed() > SEARCH;
        if late {
            return ControlFlow::Break(());
        }
        let is_found = is_found(plan(seed));
        tried.fetch_max(seed, Ordering::Relaxed);
        if is_found {
            *found.lock() = Some(seed);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    let tried = tried.into_inner();
    match found.into_inner() {
        Some(seed) => {
            println!("planted {planted} is found with seed {seed}, no longer with {known:?}");
            report::Outcome::Passed
        }
        None if tried < within => report::Outcome::Failed(format!(
            "not found up to seed {tried} in {SEARCH:?}; SIM_SURVEY=1000 tells which seeds find it now"
        )),
        None => report::Outcome::Failed(format!("not found within {within} seeds")),
    }
}

/// Whether a seed shows that something is wrong with a bug, and nothing without it.
fn is_found(plan: Plan) -> bool {
    let is_well = |plan| safely(plan).is_ok_and(|outcome| outcome.wrong.is_empty());
    !is_well(plan.clone()) && is_well(plan.sound())
}

/// How many of so many seeds find each planted bug, and which is the first: for whoever changes what a run is like.
fn survey(seeds: u64) -> ExitCode {
    let of_one = Planted::ALL.map(|(planted, ..)| -> (String, Box<dyn Fn(u64) -> Plan + Sync>) {
        (format!("{planted:?}"), Box::new(move |seed| Plan::of(seed, Some(planted))))
    });
    let of_cluster = Break::ALL.map(|(planted, ..)| -> (String, Box<dyn Fn(u64) -> Plan + Sync>) {
        (format!("{planted:?}"), Box::new(move |seed| Plan::cluster(seed, Some(planted))))
    });
    for (planted, plan) in of_one.into_iter().chain(of_cluster) {
        if !report::wanted(&format!("planted_{planted}")) {
            continue;
        }
        let begin = Instant::now();
        let found = Mutex::new(BTreeSet::new());
        each(1..=seeds, |seed| {
            if is_found(plan(seed)) {
                found.lock().insert(seed);
            }
            ControlFlow::Continue(())
        });
        let found = found.into_inner();
        let first: Vec<_> = found.iter().take(5).collect();
        println!("planted {planted}: {} of {seeds} seeds in {:?}, {first:?}", found.len(), begin.elapsed());
    }
    ExitCode::SUCCESS
}
