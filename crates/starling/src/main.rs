//! `starling`: one binary for the server and for those who run it.
//!
//! Picks the role, names nothing else: what a node is made of is in `starling-all-in-one` and `starling-cluster`. Exit codes: 0 done,
//! 1 failed, 2 the command line or the configuration is wrong; `check` gives 0, 1 or 2 for good, doubtful, bad.

#![forbid(unsafe_code)]

mod check;
mod cli;
mod cluster;
mod ctl;
mod explain;
mod failure;
mod migrate;
mod node;
mod print;
mod serve;
mod sources;
mod version;

use std::process::ExitCode;

use clap::Parser;
use starling_all_in_one::Running;
use starling_cluster::{EdgeNode, RouterNode};

use cli::{Cli, Command, ConfigCommand};
use failure::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // With two providers in a build the implicit one panics; this is the one that is meant.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let sources = sources::of(&cli.global);
    match cli.command {
        Command::Serve => serve::serve::<Running>(sources).map(|()| ExitCode::SUCCESS),
        Command::Edge => serve::serve::<EdgeNode>(sources).map(|()| ExitCode::SUCCESS),
        Command::Router => serve::serve::<RouterNode>(sources).map(|()| ExitCode::SUCCESS),
        Command::Cluster(command) => cluster::run(&sources, &command).map(|()| ExitCode::SUCCESS),
        Command::Check(arguments) => check::run(&sources, &arguments),
        Command::Config(ConfigCommand::Show) => explain::show(&sources).map(|()| ExitCode::SUCCESS),
        Command::Config(ConfigCommand::Explain { key }) => {
            explain::explain(key.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Migrate(command) => migrate::run(&sources, &command),
        Command::Ctl(command) => ctl::run(&sources, command),
        Command::Version { json } => {
            version::print(json);
            Ok(ExitCode::SUCCESS)
        }
    }
}
