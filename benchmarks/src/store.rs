//! The stores by themselves, through the trait that the router uses: what appending and paging costs without a server.

mod append;
mod pages;
mod progress;
mod rows;
mod subject;

use anyhow::Result;
use clap::Subcommand;

use crate::cql::CqlArguments;
use subject::{Kind, Subject};

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
        let begin = match &command {
            StoreCommand::Append { .. } => subject::now(),
            StoreCommand::Pages { load, .. } => load.earliest(),
        };
        let Some(subject) = Subject::open(kind, &stores.cql, begin).await? else { continue };
        reports.push(match &command {
            StoreCommand::Append { load, .. } => append::run(&subject, load).await?,
            StoreCommand::Pages { load, .. } => pages::run(&subject, load).await?,
        });
    }
    for report in reports {
        print!("{report}");
    }
    Ok(())
}
