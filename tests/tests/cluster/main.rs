//! A cluster of real processes, each in a network namespace of its own, to which everything happens at once.
//!
//! Three routers and three edges on a CQL server, behind haproxy. Processes are killed and stopped, links are cut in one
//! direction or both, slow, lossy and out of order, disks are lost; clients write through all of it and resume on
//! whichever edge haproxy leads them to. After each fault all is mended, every shard must have a home again and every
//! client be served; at the end the history of it all is judged: nothing acknowledged is lost, nothing comes twice in a
//! session, order holds; and all routers know where each session is, and of none that is over. And one cluster on which
//! every command for its routers is tried, as the guide says.
//!
//! `CLUSTER_SEED` repeats the plan of a run (its timing is never the same twice), `CLUSTER_FAULTS` is the number of
//! faults, `CLUSTER_MINUTES` the time after which no more are begun, `CLUSTER_ONLY` chooses kinds, `CLUSTER_PACE` says how
//! long they last, `CLUSTER_REPORT` is a file to write the figures into; `STARLING_OLD_BIN` is an older `starling`, without which
//! no two versions are tried beside each other. Arguments choose cases by a part of their name.
#![allow(clippy::disallowed_methods)]

mod chaos;
mod drill;
mod faults;
mod figures;
mod helper;
mod network;
mod runbook;
mod site;
mod states;
mod strain;
mod whereabouts;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use starling_tests::cassandra;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::sandbox::{Entered, Links, Sandbox, SlowLink, enter};

use chaos::Plan;

/// How long it may take to operate routers, on a busy machine.
const RUNBOOK_LIMIT: Duration = Duration::from_secs(600);

const NETWORK: [&str; 4] = [
    "cluster::a_cut_cuts_and_heals",
    "cluster::a_slow_link_is_slow",
    "cluster::a_reset_breaks_connections",
    "cluster::all_vanishes_with_its_harness",
];
const RUNBOOK: &str = "cluster::routers_are_operated";
const SURVIVES: &str = "cluster::survives_faults";

fn main() -> Result<ExitCode> {
    if let Some(code) = helper::run() {
        return code;
    }
    let entered = enter();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Process 1 of a namespace gets no signal that it has not asked for.
        tokio::spawn(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
        let mut report = Report::default();
        match entered {
            Entered::Inside => Box::pin(inside(&mut report)).await?,
            Entered::Refused(why) => {
                for name in NETWORK.iter().chain([&RUNBOOK, &SURVIVES]).filter(|name| wanted(name)) {
                    report.note(name, Outcome::Skipped(why.clone()), Duration::ZERO);
                }
            }
        }
        Ok(report.finish())
    })
}

async fn inside(report: &mut Report) -> Result<()> {
    let mut sandbox = Sandbox::new()?;
    if NETWORK.iter().any(|name| wanted(name)) {
        let trial = network::Trial::new(&mut sandbox)?;
        for name in NETWORK.iter().filter(|name| wanted(name)) {
            let limit = Duration::from_secs(60);
            let (outcome, took) = match *name {
                "cluster::a_cut_cuts_and_heals" => case(limit, trial.cut(&sandbox)).await,
                "cluster::a_slow_link_is_slow" => match SlowLink::missing() {
                    Some(why) => (Outcome::Skipped(why), Duration::ZERO),
                    None => case(limit, trial.slow(&sandbox)).await,
                },
                "cluster::a_reset_breaks_connections" => case(limit, trial.reset(&sandbox)).await,
                _ => case(limit, network::vanish()).await,
            };
            report.note(name, outcome, took);
            sandbox.apply(&Links::default())?;
        }
    }
    drop(sandbox);
    if wanted(RUNBOOK) {
        let (outcome, took) = match missing() {
            Some(why) => (Outcome::Skipped(why), Duration::ZERO),
            None => case(RUNBOOK_LIMIT, Box::pin(runbook::holds(Sandbox::new()?))).await,
        };
        report.note(RUNBOOK, outcome, took);
    }
    if wanted(SURVIVES) {
        let plan = Plan::from_environment()?;
        println!("CLUSTER_SEED={} CLUSTER_FAULTS={}", plan.seed, plan.faults);
        let mut left_out = BTreeMap::new();
        let (outcome, took) = match missing() {
            Some(why) => (Outcome::Skipped(why), Duration::ZERO),
            None => case(plan.limit(), chaos::survive(&plan, Sandbox::new()?, &mut left_out)).await,
        };
        report.note(SURVIVES, outcome, took);
        for (kind, why) in left_out {
            report.note(&format!("{SURVIVES}/{kind}"), Outcome::Skipped(why), Duration::ZERO);
        }
    }
    Ok(())
}

/// Why there can be no cluster here, if so.
fn missing() -> Option<String> {
    let haproxy = std::process::Command::new("haproxy").arg("-v").output().is_ok();
    let why = "no `haproxy` here: tests/namespaces/install says what is needed";
    cassandra::missing().or_else(|| (!haproxy).then(|| why.to_owned()))
}
