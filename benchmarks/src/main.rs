//! Load on an XMPP server, and what it costs: logins, idle sessions, chats, messages to absent accounts. And what its
//! stores cost by themselves.
//!
//! The generator shares no code with the server: it knows just enough XMPP to be much cheaper than any server, runs on
//! one thread (pin it to a core of its own), and reads the server's CPU time and memory from `/proc`. Only `store` and
//! `raft-log` run parts of the server, in this process. Without a command it starts Starling and the servers of Debian
//! that are installed, and compares them in one run.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

mod backlog;
mod binds;
mod chat;
mod cluster;
mod compare;
mod cql;
mod framer;
mod histogram;
mod idle;
mod login;
mod offline;
mod raft_log;
mod report;
mod sasl;
mod session;
mod store;
mod target;
mod usage;

use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use target::{Target, TargetArguments};

/// The one that the server has, since `store` runs its parts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load on an XMPP server, and what it costs
///
/// Accounts bench0, bench1, … have to be there: `starling ctl user import` takes what `accounts` prints.
/// Without a command: compare.
#[derive(Parser, Debug)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Log in and out again
    Login {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: login::LoginArguments,
    },
    /// Open sessions that do nothing
    Idle {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: idle::IdleArguments,
    },
    /// Let pairs talk, as fast as they can or at a fixed rate
    Chat {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: chat::ChatArguments,
    },
    /// Write to absent accounts, then let them come
    Offline {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: offline::OfflineArguments,
    },
    /// Let one account come back to thousands of messages, and watch the server's memory
    Backlog {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: backlog::BacklogArguments,
    },
    /// Measure the stores by themselves
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Measure the log of a router's Raft groups by itself
    RaftLog(raft_log::RaftLogArguments),
    /// Count what a message asks of the CQL server, by table
    Statements(compare::SiteArguments),
    /// Read pages of Starling's archives, of growing size, as a client does
    Archive(compare::archive::ArchiveArguments),
    /// Record binds in the Raft groups of three routers, in this process and on this disk
    Binds(binds::BindsArguments),
    /// Start a cluster on a CQL server, and measure what its tiers cost and how soon it goes on after a kill
    Cluster(cluster::ClusterArguments),
    /// Print accounts as CSV, for `starling ctl user import -`
    Accounts {
        #[command(flatten)]
        target: TargetArguments,
        /// How many
        #[arg(long, default_value_t = 5_000)]
        count: usize,
    },
    /// Start Starling, Prosody and ejabberd side by side and print one table
    Compare(compare::CompareArguments),
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    let arguments = Arguments::parse();
    let command = match arguments.command {
        Some(command) => command,
        None => Arguments::parse_from(["starling-benchmarks", "compare"]).command.context("no command")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // Ended by a signal it still ends the servers that it started.
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            done = run(command) => done,
            _ = terminated.recv() => bail!("terminated"),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted")
            }
        }
    })
}

async fn run(command: Command) -> Result<()> {
    let target = |arguments: TargetArguments| Target::new(&arguments).map(Rc::new);
    match command {
        Command::Login { target: arguments, load } => {
            print!("{}", login::run(&*target(arguments)?, &load).await?);
        }
        Command::Idle { target: arguments, load } => {
            print!("{}", idle::run(target(arguments)?, &load).await?)
        }
        Command::Chat { target: arguments, load } => {
            print!("{}", chat::run(target(arguments)?, &load).await?)
        }
        Command::Offline { target: arguments, load } => {
            print!("{}", offline::run(target(arguments)?, &load).await?);
        }
        Command::Backlog { target: arguments, load } => {
            for report in backlog::run(target(arguments)?, &load).await? {
                println!("{report}");
            }
        }
        Command::Store(command) => store::run(command).await?,
        Command::RaftLog(load) => print!("{}", raft_log::run(&load).await?),
        Command::Statements(arguments) => Box::pin(compare::statements::run(&arguments)).await?,
        Command::Archive(arguments) => Box::pin(compare::archive::run(&arguments)).await?,
        Command::Accounts { target: arguments, count } => {
            let target = target(arguments)?;
            println!("jid,password");
            for number in 0..count {
                println!("{}@{},{}", target.user(number), target.domain, target.password);
            }
        }
        Command::Binds(arguments) => print!("{}", binds::run(&arguments).await?),
        Command::Cluster(arguments) => Box::pin(cluster::run(&arguments)).await?,
        Command::Compare(arguments) => compare::run(&arguments).await?,
    }
    Ok(())
}
