//! Appends: one row each, so many commits under way.

use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;
use starling_xmpp::BareJid;

use super::rows::row;
use super::subject::Subject;
use crate::histogram::Histogram;
use crate::report::milliseconds;
use crate::usage::{Spent, Stopwatch};

/// How long, how deep, to how many accounts.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AppendArguments {
    /// Commits under way
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1_024])]
    depths: Vec<usize>,
    /// Accounts; each is measured with one and with so many
    #[arg(long, default_value_t = 1_000)]
    accounts: usize,
    /// Seconds before measuring
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Seconds to measure
    #[arg(long, default_value_t = 6)]
    seconds: u64,
}

/// What was measured at one depth.
struct Figures {
    rows: u64,
    elapsed: Duration,
    spent: Spent,
    syncs: Option<u64>,
    latency: Histogram,
}

/// Measures all depths; gives a table.
pub(super) async fn run(subject: &Subject, arguments: &AppendArguments) -> Result<String> {
    let mut table = format!(
        "appends, {}\n| accounts | under way | rows/s | us CPU per row | of the CQL server | rows per sync | p50 ms | p99 ms |\n\
         |{}\n",
        subject.name,
        " --- |".repeat(8)
    );
    for (name, count) in [("one", 1), ("many", arguments.accounts)] {
        let accounts = subject.accounts(name, count).await?;
        for &depth in &arguments.depths {
            let Figures { rows, elapsed, spent, syncs, latency } =
                measure(subject, &accounts, depth, arguments).await?;
            let each = |cpu: Duration| format!("{:.1}", cpu.as_secs_f64() * 1e6 / rows as f64);
            let store = spent.store.map_or_else(String::new, each);
            let group = syncs.map_or_else(String::new, |syncs| format!("{:.1}", rows as f64 / syncs as f64));
            let line = format!(
                "| {count} | {depth} | {:.0} | {} | {store} | {group} | {} | {} |\n",
                rows as f64 / elapsed.as_secs_f64(),
                each(spent.own),
                milliseconds(latency.quantile(0.5)),
                milliseconds(latency.quantile(0.99)),
            );
            eprint!("{}: {line}", subject.name);
            table.write_str(&line)?;
        }
    }
    Ok(table)
}

async fn measure(
    subject: &Subject,
    accounts: &[BareJid],
    depth: usize,
    arguments: &AppendArguments,
) -> Result<Figures> {
    let with = BareJid::parse("peer@bench.example")?;
    let (next, over) = (Cell::new(0), Cell::new(false));
    let latency = RefCell::new(Histogram::new());
    let writers = try_join_all((0..depth).map(async |_| {
        while !over.get() {
            // A step that has no factor in common with the number spreads neighbours over accounts.
            let owner = &accounts[next.replace(next.get() + 1) * 7 % accounts.len()];
            let begin = Instant::now();
            subject.append(vec![row(owner, &with, subject.position())]).await?;
            latency.borrow_mut().record(begin.elapsed());
        }
        anyhow::Ok(())
    }));
    let clock = async {
        tokio::time::sleep(Duration::from_secs(arguments.warm_up)).await;
        latency.replace(Histogram::new());
        let (watch, syncs, begin) = (Stopwatch::start(&subject.watched)?, subject.syncs(), Instant::now());
        tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
        let (elapsed, spent) = (begin.elapsed(), watch.spent()?);
        let latency = latency.replace(Histogram::new());
        let syncs = subject.syncs().zip(syncs).map(|(now, then)| now - then);
        over.set(true);
        anyhow::Ok(Figures { rows: latency.count(), elapsed, spent, syncs, latency })
    };
    let (_, figures) = futures::try_join!(writers, clock)?;
    Ok(figures)
}
