//! What a message costs on its way through the tiers, beside one process.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::ClusterArguments;
use super::nodes::Cluster;
use crate::chat::{self, ChatArguments, ChatReport, Managed};
use crate::compare::peer::Peer;
use crate::compare::table::{median, number};
use crate::compare::talk;
use crate::sasl::Mechanism;
use crate::target::Target;
use crate::usage::Stopwatch;

/// A server in the rounds.
struct Subject {
    name: String,
    doors: Vec<Rc<Target>>,
    /// How many of its processes are edges; none if there is only one process.
    edges: usize,
    /// Share of a core that it takes when nothing happens.
    idle: f64,
    reports: [Vec<ChatReport>; 3],
}

/// The loads: messages that are kept and such that are not, as fast as they go, and kept ones at a fixed rate.
const LOADS: [&str; 3] = ["kept, saturated", "not kept, saturated", "kept, at a fixed rate"];

/// Goes round the servers and tells what was found, as a table.
pub(super) async fn run(
    arguments: &ClusterArguments,
    alone: &[Peer; 2],
    clusters: [&Cluster; 2],
) -> Result<String> {
    let mut subjects = Vec::new();
    for (peer, name) in alone.iter().zip(["all-in-one, embedded", "all-in-one, CQL"]) {
        let doors = vec![peer.target(Mechanism::ScramSha1)?];
        subjects.push(Subject {
            name: name.to_owned(),
            doors,
            edges: 0,
            idle: 0.0,
            reports: Default::default(),
        });
    }
    for cluster in clusters {
        let name = format!("routers: {}, edges: {}", cluster.plan.routers, cluster.plan.edges);
        let edges = cluster.edges.len();
        subjects.push(Subject {
            name,
            doors: cluster.doors()?,
            edges,
            idle: 0.0,
            reports: Default::default(),
        });
    }
    let watches = subjects
        .iter()
        .map(|subject| Stopwatch::start(&subject.doors[0].watched))
        .collect::<Result<Vec<_>>>()?;
    sleep(QUIET).await;
    for (subject, watch) in subjects.iter_mut().zip(&watches) {
        subject.idle = watch.spent()?.server.unwrap_or_default().as_secs_f64() / QUIET.as_secs_f64();
    }
    for round in 1..=arguments.rounds {
        for (load, name) in LOADS.iter().enumerate() {
            for subject in &mut subjects {
                eprintln!("{}, {name}, round {round}:", subject.name);
                let open = (load == 2).then_some(arguments.rate);
                let chat =
                    ChatArguments { unstored: load == 1, ..talk(arguments.seconds, Managed::Both, open) };
                let report = chat::across(&subject.doors, &chat)
                    .await
                    .with_context(|| format!("{}: {name}", subject.name))?;
                eprintln!("{report}");
                subject.reports[load].push(report);
            }
        }
    }
    table(&subjects)
}

fn table(subjects: &[Subject]) -> Result<String> {
    let mut text = String::from("| |");
    for subject in subjects {
        write!(text, " {} |", subject.name)?;
    }
    writeln!(text, "\n|{}", " --- |".repeat(subjects.len() + 1))?;
    let mut row = |name: &str, value: &dyn Fn(&Subject) -> Option<f64>| -> Result<()> {
        write!(text, "| {name} |")?;
        for subject in subjects {
            match value(subject) {
                Some(value) => write!(text, " {} |", number(value))?,
                None => write!(text, " |")?,
            }
        }
        writeln!(text)?;
        Ok(())
    };
    row("idle, % of a core", &|subject| Some(100.0 * subject.idle))?;
    for (load, name) in LOADS.iter().enumerate() {
        let reports = |subject: &Subject, of: &dyn Fn(&ChatReport) -> f64| median(&subject.reports[load], of);
        let tier = |subject: &Subject, edges: bool| {
            (subject.edges > 0).then_some(())?;
            reports(subject, &|report| {
                let (of_edges, of_routers) =
                    report.spent.each.split_at(subject.edges.min(report.spent.each.len()));
                let spent: Duration = if edges { of_edges } else { of_routers }.iter().sum();
                spent.as_secs_f64() * 1e6 / report.messages as f64
            })
        };
        let cost =
            |subject: &Subject| reports(subject, &|report| report.cpu_ms_per_thousand().unwrap_or(f64::NAN));
        row(&format!("{name}: messages/s"), &|subject| reports(subject, &ChatReport::per_second))?;
        row("CPU µs a message", &cost)?;
        row("of it edges", &|subject| tier(subject, true))?;
        row("of it routers", &|subject| tier(subject, false))?;
        row("beside it the CQL server", &|subject| {
            reports(subject, &|report| report.store_ms_per_thousand().unwrap_or(f64::NAN))
        })?;
        row("CPU, times all-in-one on CQL", &|subject| Some(cost(subject)? / cost(subjects.get(1)?)?))?;
        row("messages per CPU second, part of one router's", &|subject| {
            Some(cost(subjects.get(2)?)? / cost(subject)?)
        })?;
        for (name, share) in [("latency p50, ms", 0.5), ("latency p99, ms", 0.99)] {
            row(name, &|subject| {
                reports(subject, &|report| report.latency.quantile(share).as_secs_f64() * 1e3)
            })?;
        }
    }
    for subject in subjects {
        for faults in subject.reports.iter().flatten().filter_map(ChatReport::faults) {
            writeln!(text, "\n{}: {faults}", subject.name)?;
        }
    }
    Ok(text)
}

const QUIET: Duration = Duration::from_secs(5);
