//! Which seeds are run, and what is said of them.

use crate::plan::Plan;
use crate::planted::Planted;
use crate::run::{Outcome, run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Seeds of a run of all tests.
const SEEDS: u64 = 2_000;
/// Every so many seeds one is run twice, to see that it is the same run.
const TWICE: u64 = 50;

pub(crate) fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    // A run that panics is told with its seed; the hook would tell it without.
    if let Some(seed) = number("SIM_SEED") {
        let planted = std::env::var("SIM_PLANTED").ok().and_then(|name| by_name(&name));
        return one(seed, planted);
    }
    let (from, seeds) = (number("SIM_FROM").unwrap_or(1), number("SIM_SEEDS").unwrap_or(SEEDS));
    let mut passed = many(from, seeds);
    if std::env::var_os("SIM_NO_PLANTED").is_none() {
        passed &= planted();
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn by_name(name: &str) -> Option<Planted> {
    Planted::ALL.into_iter().map(|(planted, _)| planted).find(|planted| format!("{planted:?}") == name)
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

fn many(from: u64, seeds: u64) -> bool {
    let begin = Instant::now();
    let mut failed = 0;
    for seed in from..from + seeds {
        match safely(seed, None) {
            Err(panic) => {
                failed += 1;
                println!("seed {seed}: panicked: {panic}");
            }
            Ok(outcome) if !outcome.wrong.is_empty() => {
                failed += 1;
                tell(seed, &outcome);
                story(seed, &outcome);
            }
            Ok(outcome) if seed % TWICE == 0 => {
                let again = safely(seed, None).map(|again| again.hash);
                if again != Ok(outcome.hash) {
                    failed += 1;
                    println!("seed {seed}: not the same run when it is run again");
                }
            }
            Ok(_) => {}
        }
        if failed >= 5 {
            break;
        }
    }
    let each = begin.elapsed() / u32::try_from(seeds).unwrap_or(1).max(1);
    println!("simulation: {seeds} seeds from {from}, {failed} failed, {each:?} each");
    failed == 0
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

/// Every planted bug is found within its number of seeds.
fn planted() -> bool {
    let mut all = true;
    for (planted, within) in Planted::ALL {
        let found = (1..=within).find(|seed| match safely(*seed, Some(planted)) {
            Ok(outcome) => !outcome.wrong.is_empty(),
            Err(_) => true,
        });
        match found {
            Some(seed) => println!("planted {planted:?}: found with seed {seed}"),
            None => {
                all = false;
                println!("planted {planted:?}: NOT found in {within} seeds");
            }
        }
    }
    all
}
