//! What a cluster costs beside one process, and how soon it goes on after a kill: routers and edges as processes on
//! loopback, all links with mutual TLS, all on one CQL server.
//!
//! What a message costs is measured in rounds that go round all-in-one on its own store, all-in-one on CQL, one router
//! and three, each on the same core, with the same pairs, so that only their ratios matter.

mod binds;
mod nodes;
mod outage;
mod people;
mod way;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::timeout;

use crate::binds::{self as raft, BindsArguments};
use crate::compare::peer::{Kind, Peer, Site};
use crate::compare::{SiteArguments, pin, start_cql};
use crate::histogram::Histogram;
use crate::login::{self, LoginArguments};
use crate::report::milliseconds;
use nodes::{Cluster, Plan};

/// What to measure, and how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ClusterArguments {
    #[command(flatten)]
    site: SiteArguments,
    /// Parts
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Rounds of messages, of which the median counts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement of messages
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Messages per second in the open loop
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Idle sessions, which then lose their edge
    #[arg(long, default_value_t = 5_000)]
    sessions: usize,
    /// Routers to kill at each rate, one after the other
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Messages per second of all who talk meanwhile; with several rates, so many routers are killed at each
    #[arg(long, value_delimiter = ',', default_values_t = [200, 800], value_parser = clap::value_parser!(u32).range(1..))]
    talk: Vec<u32>,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What a message costs.
    Messages,
    /// Logins, and binds at a fixed rate.
    Binds,
    /// Memory of sessions, and how soon they are back after their edge was killed.
    Storm,
    /// How long nobody is home after a router was killed.
    Outage,
    /// What Raft adds to a bind, by itself, and on a disk that takes 2 ms for a sync.
    Raft,
}

impl Part {
    /// In this order: the storm kills an edge for good.
    const ALL: [Self; 5] = [Self::Messages, Self::Binds, Self::Outage, Self::Storm, Self::Raft];
}

/// Accounts that messages get by with.
const FEWEST: usize = 200;
/// Binds by themselves: a second (0: as fast as they go), milliseconds that a sync takes longer, name, goal.
const RAFT: [(u32, u64, &str, &str); 3] = [
    (1_000, 0, "Raft alone: binds at 1,000/s", "p99 < 5 ms"),
    (1_000, 2, "the same, each fsync 2 ms longer", "p99 < 20 ms"),
    (0, 0, "the same, as fast as they go", "100,000/s"),
];
/// How long one part may take.
const PATIENCE: Duration = Duration::from_secs(400);
/// How many clients bind.
const BINDERS: usize = 3_000;
/// Binds a second in the open loop.
const BINDS: f64 = 1_000.0;

/// Starts all, measures all, ends all. A part that fails is told of; the others go on.
pub(crate) async fn run(arguments: &ClusterArguments) -> Result<()> {
    let begin = Instant::now();
    let wanted = |part| arguments.parts.contains(&part);
    pin(std::process::id(), arguments.site.generator_core)?;
    let Some(cql) = start_cql(&arguments.site).await? else { bail!("there is no CQL server") };
    let site = Site::new(FEWEST, &arguments.site, Some(cql))?;
    let many = match wanted(Part::Binds) || wanted(Part::Storm) {
        true => arguments.sessions.max(FEWEST),
        false => FEWEST,
    };
    eprintln!("starting three routers and two edges, with {many} accounts");
    let plan = Plan { name: "three", net: 62, routers: 3, edges: 2, accounts: many };
    let mut three = Cluster::start(plan, &site).await.context("three routers")?;
    let mut failures = 0;
    for (number, part) in Part::ALL.into_iter().filter(|part| wanted(*part)).enumerate() {
        if number == usize::from(wanted(Part::Messages)) {
            // From here on whoever has something to do may do it on any core: it is time that counts.
            for node in three.edges.iter().chain(&three.routers) {
                pin_to_all(node.pid())?;
            }
            println!("\n| routers: 3, edges: 2 | found | goal |\n| --- | --- | --- |");
        }
        eprintln!("{part:?}, after {:.0} s", begin.elapsed().as_secs_f64());
        let found = async {
            match part {
                Part::Messages => messages(arguments, &three, &site).await,
                Part::Binds => logins_and_binds(arguments, &three).await,
                Part::Outage => outages(arguments, &mut three).await,
                Part::Storm => storm(arguments, &mut three).await,
                Part::Raft => {
                    three.kill();
                    raft_alone().await
                }
            }
        };
        let found = timeout(PATIENCE, found).await.unwrap_or_else(|_| bail!("it takes too long"));
        match found {
            Ok(text) => print!("{text}"),
            Err(error) => {
                failures += 1;
                eprintln!("{part:?}: {error:#}");
                println!("| {part:?} | failed: {error:#} | |");
            }
        }
    }
    eprintln!("{:.0} s in all", begin.elapsed().as_secs_f64());
    ensure!(failures == 0, "{failures} parts failed");
    Ok(())
}

async fn messages(arguments: &ClusterArguments, three: &Cluster, site: &Site) -> Result<String> {
    eprintln!("starting one router and two edges, and two all-in-one");
    let plan = Plan { name: "one", net: 61, routers: 1, edges: 2, accounts: FEWEST };
    let one = Cluster::start(plan, site).await.context("one router")?;
    let alone = [Peer::start(Kind::Starling, site).await?, Peer::start(Kind::Cql, site).await?];
    let text = way::run(arguments, &alone, [&one, three]).await?;
    for peer in alone {
        peer.stop().await;
    }
    Ok(text)
}

async fn logins_and_binds(arguments: &ClusterArguments, three: &Cluster) -> Result<String> {
    let doors = three.doors()?;
    let mut text = String::new();
    let load = LoginArguments { accounts: FEWEST, concurrency: 32, seconds: arguments.seconds };
    let logins = login::run(doors.first().context("no edge")?, &load).await.context("logins")?;
    writeln!(
        text,
        "| logins by SCRAM-SHA-1 at one edge | {:.0}/s, {:.0} per CPU second of all, p99 {} ms, {} failed | |",
        logins.per_second(),
        logins.per_cpu_second().unwrap_or_default(),
        milliseconds(logins.latency.quantile(0.99)),
        logins.failures,
    )?;
    for (rate, name, goal) in
        [(Some(BINDS), "binds at 1,000/s over two edges", "p99 < 5 ms"), (None, "binds, all at once", "")]
    {
        let report = binds::run(&doors, arguments.sessions.min(BINDERS), rate).await.context(name)?;
        writeln!(
            text,
            "| {name} | {:.0}/s, {}, {} failed | {goal} |",
            report.per_second(),
            quantiles(&report.latency),
            report.failures
        )?;
    }
    Ok(text)
}

async fn outages(arguments: &ClusterArguments, three: &mut Cluster) -> Result<String> {
    let mut text = String::new();
    for rate in &arguments.talk {
        let report = outage::run(three, arguments.kills, *rate).await?;
        outage_rows(&mut text, *rate, &report)?;
    }
    Ok(text)
}

fn outage_rows(text: &mut String, rate: u32, report: &outage::OutageReport) -> std::fmt::Result {
    writeln!(
        text,
        "| longest time without a message after kill -9 of a router, {} kills, {rate} messages/s | {} | p99 < 1 s |",
        report.kills,
        quantiles(&report.worst)
    )?;
    writeln!(
        text,
        "| the same of each pair that noticed ({}) | {} | |",
        report.noticed.count(),
        quantiles(&report.noticed)
    )?;
    writeln!(
        text,
        "| messages meanwhile | {} sent, {} refused, {} missing, {} double, {} sessions ended | none lost or double |",
        report.sent, report.errors, report.missing, report.double, report.ended
    )?;
    writeln!(text, "| a killed router is ready again after | {} | |", quantiles(&report.ready))
}

async fn storm(arguments: &ClusterArguments, three: &mut Cluster) -> Result<String> {
    let report = people::storm(three, arguments.sessions).await?;
    let mut text = String::new();
    writeln!(
        text,
        "| memory of an idle session: its edge, all three routers together | {:.1} KiB, {:.1} KiB | |",
        report.edge_each / 1024.0,
        report.routers_each / 1024.0
    )?;
    writeln!(text, "| opening {} sessions | {:.1} s | |", report.sessions, report.opening.as_secs_f64())?;
    writeln!(
        text,
        "| their edge is killed: resumed at the other | {}, {} could not | all < 5 s |",
        quantiles(&report.back),
        report.lost
    )?;
    Ok(text)
}

async fn raft_alone() -> Result<String> {
    pin_to_all(std::process::id())?;
    let mut text = String::new();
    for (rate, delay, name, goal) in RAFT {
        let load = BindsArguments {
            folder: None,
            shards: 16,
            rate,
            outstanding: 4_096,
            sync_delay: delay,
            seconds: 8,
        };
        let report = raft::run(&load).await.context(name)?;
        eprintln!("{report}");
        writeln!(
            text,
            "| {name} | {:.0}/s, {}, {} failed, {} elections | {goal} |",
            report.per_second,
            quantiles(&report.latency),
            report.failures,
            report.elections
        )?;
    }
    Ok(text)
}

fn quantiles(times: &Histogram) -> String {
    let show = |time: Duration| milliseconds(time);
    format!(
        "p50 {} ms, p99 {} ms, longest {} ms",
        show(times.quantile(0.5)),
        show(times.quantile(0.99)),
        show(times.longest())
    )
}

fn pin_to_all(pid: u32) -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    // This process has one only: so look at the machine.
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let cores = match online.trim() {
        "" => format!("0-{}", cores.saturating_sub(1)),
        online => online.to_owned(),
    };
    crate::compare::pin_to(pid, &cores)
}
