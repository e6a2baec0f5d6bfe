//! Starling and the servers of Debian side by side: the same certificate, the same load, one core for the server and
//! one for the generator, medians of several rounds, one table.
//!
//! All servers run all the time and the rounds go round them, so that a noisy machine disturbs all of them alike. A
//! server that has nothing to do costs next to nothing.

pub(crate) mod archive;
mod ejabberd;
pub(crate) mod peer;
mod prosody;
pub(crate) mod starling;
pub(crate) mod statements;
pub(crate) mod table;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::backlog::{self, BacklogArguments, BacklogReport};
use crate::chat::{self, ChatArguments, ChatReport, Managed};
use crate::cql::{CqlArguments, CqlServer};
use crate::idle::{self, IdleArguments, IdleReport};
use crate::login::{self, LoginArguments, LoginReport};
use crate::offline::{self, OfflineArguments, OfflineReport};
use crate::sasl::Mechanism;
use peer::{Kind, Peer, Site};
use table::Table;

/// What to compare, and how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct CompareArguments {
    /// Servers; Debian's and the CQL server are left out when they are not installed
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::USUAL)]
    servers: Vec<Kind>,
    #[command(flatten)]
    site: SiteArguments,
    /// Loads
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Load::USUAL)]
    loads: Vec<Load>,
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Idle sessions
    #[arg(long, default_value_t = 5_000)]
    sessions: usize,
}

/// What is started, and on which cores.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SiteArguments {
    /// The binary to measure; without it, the one that was built beside this one
    #[arg(long, value_name = "FILE")]
    starling: Option<PathBuf>,
    /// Another build of Starling, for `--servers starling,baseline`
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    #[command(flatten)]
    cql: CqlArguments,
    /// A setting of Starling, as `archive.default=never`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// Core of the servers
    #[arg(long, default_value_t = 0)]
    pub(crate) server_core: u32,
    /// Core of the generator
    #[arg(long, default_value_t = 1)]
    pub(crate) generator_core: u32,
}

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    Idle,
    Login,
    Plain,
    Chat,
    /// Chat with stream management on both sides.
    Managed,
    /// Chat at half of what was reached in a closed loop; needs `chat`.
    Open,
    Offline,
    /// An account that comes back to 10,000 messages.
    Backlog,
}

impl Load {
    const USUAL: [Self; 7] =
        [Self::Idle, Self::Login, Self::Plain, Self::Chat, Self::Managed, Self::Open, Self::Offline];
    const ALL: [Self; 8] = [
        Self::Idle,
        Self::Login,
        Self::Plain,
        Self::Chat,
        Self::Managed,
        Self::Open,
        Self::Offline,
        Self::Backlog,
    ];
}

/// What was measured of one server.
#[derive(Default)]
struct Figures {
    idle: Option<IdleReport>,
    logins: Vec<LoginReport>,
    plain: Vec<LoginReport>,
    chats: Vec<ChatReport>,
    managed: Vec<ChatReport>,
    open: Vec<ChatReport>,
    offline: Vec<OfflineReport>,
    backlog: Vec<BacklogReport>,
}

/// Starts all, measures all, ends all.
pub(crate) async fn run(arguments: &CompareArguments) -> Result<()> {
    pin(std::process::id(), arguments.site.generator_core)?;
    let accounts =
        if arguments.loads.contains(&Load::Idle) { arguments.sessions.max(FEWEST) } else { FEWEST };
    let cql = match arguments.servers.contains(&Kind::Cql) {
        true => start_cql(&arguments.site).await?,
        false => None,
    };
    let site = Site::new(accounts, &arguments.site, cql)?;
    let mut peers = Vec::new();
    for &kind in &arguments.servers {
        if !kind.is_installed() || (kind == Kind::Cql && site.cql.is_none()) {
            eprintln!("{} is not installed: left out", kind.name());
            continue;
        }
        eprintln!("starting {} with {accounts} accounts", kind.name());
        peers.push((Peer::start(kind, &site).await?, Figures::default()));
    }
    ensure!(!peers.is_empty(), "no server to measure");

    if arguments.loads.contains(&Load::Idle) {
        for (peer, figures) in &mut peers {
            let load = IdleArguments { sessions: arguments.sessions, concurrency: 32, seconds: 15 };
            let report = idle::run(peer.target(Mechanism::ScramSha1)?, &load).await;
            let report = report.with_context(|| format!("{}: idle", peer.name()))?;
            eprintln!("{}, idle:\n{report}", peer.name());
            figures.idle = Some(report);
        }
    }
    for round in 1..=arguments.rounds {
        for load in Load::ALL.into_iter().filter(|load| arguments.loads.contains(load)) {
            if load == Load::Idle {
                continue;
            }
            for (peer, figures) in &mut peers {
                eprintln!("{}, {load:?}, round {round}:", peer.name());
                measure(load, peer, figures, &site, arguments)
                    .await
                    .with_context(|| format!("{}: {load:?}", peer.name()))?;
            }
        }
    }
    print!("{}", Table(&peers));
    for (peer, _) in peers {
        peer.stop().await;
    }
    Ok(())
}

/// A CQL server on the generator's core: the measured server has its own.
pub(crate) async fn start_cql(arguments: &SiteArguments) -> Result<Option<CqlServer>> {
    let cql = CqlServer::find(&arguments.cql).await?;
    if let Some(pid) = cql.as_ref().filter(|cql| cql.is_own()).and_then(|cql| cql.pid) {
        pin(pid, arguments.generator_core)?;
    }
    Ok(cql)
}

async fn measure(
    load: Load,
    peer: &mut Peer,
    figures: &mut Figures,
    site: &Site,
    arguments: &CompareArguments,
) -> Result<()> {
    let seconds = arguments.seconds;
    let scram = peer.target(Mechanism::ScramSha1)?;
    match load {
        Load::Idle => {}
        Load::Login | Load::Plain => {
            let (target, reports) = match load {
                Load::Plain => (peer.target(Mechanism::Plain)?, &mut figures.plain),
                _ => (scram, &mut figures.logins),
            };
            let report =
                login::run(&target, &LoginArguments { accounts: FEWEST, concurrency: 16, seconds }).await?;
            eprintln!("{report}");
            reports.push(report);
        }
        Load::Chat | Load::Managed => {
            let (managed, reports) = match load {
                Load::Managed => (Managed::Both, &mut figures.managed),
                _ => (Managed::None, &mut figures.chats),
            };
            let report = chat::run(scram, &talk(seconds, managed, None)).await?;
            eprintln!("{report}");
            reports.push(report);
        }
        Load::Open => {
            let Some(rate) = table::median(&figures.chats, ChatReport::per_second) else { return Ok(()) };
            let report = chat::run(scram, &talk(seconds, Managed::None, Some(rate / 2.0))).await?;
            eprintln!("{report}");
            figures.open.push(report);
        }
        Load::Offline => {
            let load =
                OfflineArguments { senders: 10, receivers: 100, messages: 50, window: 50, concurrency: 8 };
            let report = offline::run(scram, &load).await?;
            eprintln!("{report}");
            figures.offline.push(report);
        }
        Load::Backlog => {
            let load = BacklogArguments { messages: 10_000, body: 60, senders: 10 };
            let tag = backlog::fill(&scram, &load).await?;
            // So that nothing of it is in memory.
            peer.restart(site).await?;
            let target = peer.target(Mechanism::ScramSha1)?;
            for report in backlog::logins(&target, &tag, &load).await? {
                eprintln!("{report}");
                figures.backlog.push(report);
            }
        }
    }
    Ok(())
}

pub(crate) fn talk(seconds: u64, managed: Managed, open: Option<f64>) -> ChatArguments {
    let (pairs, in_flight) = (100, 500);
    ChatArguments { pairs, in_flight, open, managed, full: false, unstored: false, warm_up: 2, seconds }
}

/// Binds a process and all its threads to a core.
pub(crate) fn pin(pid: u32, core: u32) -> Result<()> {
    pin_to(pid, &core.to_string())
}

/// The same with a list of cores.
pub(crate) fn pin_to(pid: u32, cores: &str) -> Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["--all-tasks", "--cpu-list", "--pid"]).arg(cores).arg(pid.to_string());
    let done = taskset.output().context("taskset (of util-linux) is needed")?;
    ensure!(done.status.success(), "{taskset:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Accounts that every load but idle sessions gets by with.
const FEWEST: usize = 200;
