//! Which seeds are run, and what is said of them.

use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Outcome, run};
use starling_tests::report::{self, Report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long seeds are run where nobody says how many.
const BUDGET: Duration = Duration::from_secs(45);
/// At least so many.
const LEAST: u64 = 50;
/// How long a planted bug is looked for, beyond the seed that is known to find it, where nobody says how many seeds.
const SEARCH: Duration = Duration::from_secs(20);
/// Every so many seeds one is run twice, to see that it is the same run.
const TWICE: u64 = 50;
/// A run is given up after so many seeds that failed.
const MOST_FAILED: usize = 5;

pub(crate) fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        let planted = std::env::var("SIM_PLANTED").ok().and_then(|name| by_name(&name));
        return one(seed, planted);
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(1), number("SIM_SEEDS"));
    let mut report = Report::default();
    if report::wanted("seeds") {
        let begin = Instant::now();
        let (ran, failed) = many(from, seeds);
        let name = format!("seeds_{from}_to_{}", from + ran - 1);
        report.note(&name, outcome(failed), begin.elapsed());
    }
    for (planted, known, within) in Planted::ALL {
        let name = format!("planted_{planted:?}");
        if report::wanted(&name) {
            let begin = Instant::now();
            report.note(&name, find(planted, known, within, seeds.is_none()), begin.elapsed());
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
fn one(seed: u64, planted: Option<Planted>) -> ExitCode {
    let plan = Plan { told: true, ..Plan::of(seed, planted) };
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

/// Runs a seed; a panic is something wrong, too.
fn safely(seed: u64, planted: Option<Planted>) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| run(Plan::of(seed, planted)))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Runs so many seeds, or as many as there is time for; gives their number and what was wrong.
fn many(from: u64, seeds: Option<u64>) -> (u64, Option<String>) {
    let begin = Instant::now();
    let mut failed = Vec::new();
    let mut ran = 0;
    let more = |ran: u64| match seeds {
        Some(seeds) => ran < seeds,
        None => ran < LEAST || begin.elapsed() < BUDGET,
    };
    while more(ran) && failed.len() < MOST_FAILED {
        let seed = from + ran;
        ran += 1;
        match safely(seed, None) {
            Err(panic) => failed.push(format!("seed {seed}: panicked: {panic}")),
            Ok(outcome) if !outcome.wrong.is_empty() => {
                tell(seed, &outcome);
                story(seed, &outcome);
                failed.push(format!("seed {seed}: SIM_SEED={seed} cargo test -p starling-tests --test sim"));
            }
            Ok(outcome) if seed.is_multiple_of(TWICE) => {
                if safely(seed, None).map(|again| again.hash) != Ok(outcome.hash) {
                    failed.push(format!("seed {seed}: not the same run when it is run again"));
                }
            }
            Ok(_) => {}
        }
    }
    (ran, (!failed.is_empty()).then(|| failed.join("\n")))
}

/// What happened to the first message concerned.
fn story(seed: u64, outcome: &Outcome) {
    let Some(message) = outcome.wrong.iter().find_map(|wrong| wrong.message.clone()) else { return };
    let plan = Plan { told: true, ..Plan::of(seed, None) };
    let Ok(again) = catch_unwind(AssertUnwindSafe(|| run(plan))) else { return };
    let marked = format!("\"{message}\"");
    for (at, line) in &again.story {
        if line.contains(&marked) || line.starts_with("server:") || line.starts_with("store:") {
            println!("  {:>12.6} {line}", at.as_secs_f64());
        }
    }
    println!("  all of it: SIM_SEED={seed} cargo test -p starling-tests --test sim");
}

/// Looks for a planted bug: with the seed that is known to find it, then with others.
fn find(planted: Planted, known: u64, within: u64, in_haste: bool) -> report::Outcome {
    let begin = Instant::now();
    for seed in std::iter::once(known).chain(1..=within) {
        let found = match safely(seed, Some(planted)) {
            Ok(outcome) if outcome.wrong.is_empty() => false,
            // A seed that fails without it says nothing.
            _ => safely(seed, None).is_ok_and(|sound| sound.wrong.is_empty()),
        };
        if found {
            if seed != known {
                println!("planted {planted:?} is found with seed {seed}, no longer with {known}");
            }
            return report::Outcome::Passed;
        }
        if in_haste && begin.elapsed() > SEARCH {
            return report::Outcome::Skipped(format!("not found up to seed {seed} in {SEARCH:?}"));
        }
    }
    report::Outcome::Failed(format!("not found within {within} seeds"))
}
