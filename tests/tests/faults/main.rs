//! Lets a CQL server fail in every way we know of while clients write, and lets the history of it all be judged.
//!
//! Cassandra is killed, paused and started again; a proxy loses requests and replies, answers with errors, is slow and
//! cuts connections. Whatever happens: what was acknowledged is there once, every message is answered in time (taken, or
//! refused with `resource-constraint` of type `wait`), sessions live, memory is flat, and a server that is back is used
//! again within two seconds.
//!
//! `FAULTS_SEED` repeats the plan of a run, `FAULTS_MESSAGES` is the size of the long one. Arguments choose cases by a
//! part of their name.
#![allow(clippy::disallowed_methods)]

mod again;
mod answers;
mod long;
mod one;
mod pulse;
mod scene;
mod swarm;
mod three;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use starling_tests::cassandra::{self, Cassandra};
use starling_tests::report::{Outcome, Report, case, wanted};

/// A case on nodes of Cassandra, with the seed of the run.
type Case = for<'a> fn(&'a mut Cassandra, u64) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$((
            concat!("faults::", stringify!($name)),
            (|nodes, seed| Box::pin($module::$name(nodes, seed))) as Case,
        )),*]
    };
}

/// For a case; the long one gets more by its size.
const LIMIT: Duration = Duration::from_secs(240);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let seed = match std::env::var("FAULTS_SEED") {
        Ok(text) => text.parse().with_context(|| format!("FAULTS_SEED={text} is not a number"))?,
        Err(_) => rand::random::<u32>().into(),
    };
    let limit = LIMIT + Duration::from_secs(long::messages()? / 30);
    println!("FAULTS_SEED={seed}");
    let mut report = Report::default();
    let one = cases![
        one::c20_the_server_is_killed,
        one::c20_the_server_is_paused,
        again::c20_what_was_under_way_is_sent_again,
        one::c22_replies_are_lost,
        one::c22_writes_come_late,
        one::c23_the_server_is_overloaded,
        one::a_lying_store_is_found,
        long::the_history_holds_over_many_faults,
    ];
    run(1, one, seed, limit, &mut report).await;
    let three = cases![three::c21_one_of_three_fails, three::c24_a_replica_has_missed_writes];
    run(3, three, seed, LIMIT, &mut report).await;
    Ok(report.finish())
}

/// Runs cases on that many nodes, one after the other.
async fn run(
    nodes: usize,
    mut cases: Vec<(&'static str, Case)>,
    seed: u64,
    limit: Duration,
    report: &mut Report,
) {
    cases.retain(|(name, _)| wanted(name));
    if cases.is_empty() {
        return;
    }
    let none = |why: String| cases.iter().map(move |(name, _)| (*name, why.clone()));
    if let Some(why) = cassandra::missing() {
        for (name, why) in none(why) {
            report.note(name, Outcome::Skipped(why), Duration::ZERO);
        }
        return;
    }
    let mut cluster = match Cassandra::start_behind_proxies(nodes, seed).await {
        Ok(cluster) => cluster,
        Err(error) => {
            for (name, why) in none(format!("{error:#}")) {
                report.note(name, Outcome::Failed(why), Duration::ZERO);
            }
            return;
        }
    };
    for (name, one) in cases {
        let (outcome, took) = case(limit, one(&mut cluster, seed)).await;
        report.note(name, outcome, took);
        // A case that failed may have left a node dead or a proxy in a bad state.
        if let Err(error) = cluster.mend().await {
            println!("the nodes cannot be mended: {error:#}");
        }
    }
}
