//! The stores by themselves, through the trait that the router uses: what appending and paging costs without a server.

mod append;
pub(crate) mod pages;
mod progress;
mod rows;
pub(crate) mod subject;

use anyhow::Result;
use clap::Subcommand;
use tempfile::TempDir;

use crate::cql::{CqlArguments, CqlServer};
use subject::{Place, Subject};

/// What of a store is measured.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum StoreCommand {
    /// Append rows: one, few and many commits under way, to one account and to many
    Append {
        #[command(flatten)]
        stores: Stores,
        #[command(flatten)]
        load: append::AppendArguments,
    },
    /// Read pages of archives of growing size
    Pages {
        #[command(flatten)]
        stores: Stores,
        #[command(flatten)]
        load: pages::PagesArguments,
    },
}

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Embedded,
    Cql,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Embedded, Self::Cql];
}

/// Which stores.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Stores {
    /// Stores to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    stores: Vec<Kind>,
    #[command(flatten)]
    cql: CqlArguments,
}

pub(crate) async fn run(command: StoreCommand) -> Result<()> {
    let (StoreCommand::Append { stores, .. } | StoreCommand::Pages { stores, .. }) = &command;
    let mut reports = Vec::new();
    for &kind in &stores.stores {
        reports.extend(match kind {
            Kind::Embedded => {
                let folder = TempDir::with_prefix("starling-bench-")?;
                Some(measure(Place::Folder(folder.path()), &command).await?)
            }
            Kind::Cql => match CqlServer::find(&stores.cql).await? {
                Some(server) => Some(measure(Place::Cql(&server), &command).await?),
                None => None,
            },
        });
    }
    for report in reports {
        print!("{report}");
    }
    Ok(())
}

async fn measure(place: Place<'_>, command: &StoreCommand) -> Result<String> {
    match command {
        StoreCommand::Append { load, .. } => {
            append::run(&Subject::open(place, subject::now()).await?, load).await
        }
        StoreCommand::Pages { load, .. } => {
            pages::run(&Subject::open(place, load.earliest()).await?, load).await
        }
    }
}
