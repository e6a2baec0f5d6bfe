//! Pages of an archive: the newest, the oldest, one from the middle, of all messages, with a peer who wrote half of them,
//! and with one who wrote a hundred, however many there are. What matters is that the size of the archive does not.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use starling_store::{LogFilter, Page, Position};
use starling_xmpp::{BareJid, Timestamp};

use super::progress::Progress;
use super::rows::row;
use super::subject::{Subject, now};
use crate::histogram::Histogram;
use crate::report::milliseconds;

/// Which archives, and how often each page is read.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PagesArguments {
    /// Messages in each archive
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    sizes: Vec<u64>,
    /// Messages of a page
    #[arg(long, default_value_t = 50)]
    page: usize,
    /// Reads of each kind
    #[arg(long, default_value_t = 500)]
    reads: u64,
    /// Minutes from one message to the next
    #[arg(long, default_value_t = 1)]
    minutes: u64,
}

impl PagesArguments {
    /// When the largest archive begins. All of them end now.
    pub(super) fn earliest(&self) -> Timestamp {
        self.begin(self.sizes.iter().copied().max().unwrap_or_default() + 1_000)
    }

    fn begin(&self, size: u64) -> Timestamp {
        Timestamp(now().0.saturating_sub(size.saturating_mul(self.step())))
    }

    fn step(&self) -> u64 {
        self.minutes * 60_000_000
    }
}

/// An archive.
struct Archive {
    owner: BareJid,
    size: u64,
    first: u64,
    step: u64,
}

#[derive(Clone, Copy)]
enum With {
    Anybody,
    Busy,
    Sparse,
}

#[derive(Clone, Copy)]
enum Part {
    Newest,
    Oldest,
    Middle,
}

/// Fills the archives and reads them; gives a table.
pub(super) async fn run(subject: &Subject, arguments: &PagesArguments) -> Result<String> {
    let owners = subject.accounts("archive", arguments.sizes.len()).await?;
    let mut archives = Vec::new();
    for (owner, &size) in owners.into_iter().zip(&arguments.sizes) {
        let archive = Archive { owner, size, first: arguments.begin(size).0, step: arguments.step() };
        archive.fill(subject).await?;
        archives.push(archive);
    }
    subject.go_on_from(Position(now().0));
    let mut table = format!("pages of {}, {}: p50 / p99 ms\n| |", arguments.page, subject.kind.name());
    for archive in &archives {
        write!(table, " {} |", archive.size)?;
    }
    writeln!(table, " p50, largest to smallest |\n|{}", " --- |".repeat(archives.len() + 2))?;
    for (who, with) in [("all", With::Anybody), ("busy peer", With::Busy), ("sparse peer", With::Sparse)] {
        for (what, part) in [("newest", Part::Newest), ("oldest", Part::Oldest), ("middle", Part::Middle)] {
            let mut latencies = Vec::new();
            for archive in &archives {
                latencies.push(archive.read(subject, with, part, arguments).await?);
            }
            let line = line(&format!("{who}, {what}"), &latencies);
            eprint!("{}: {line}", subject.kind.name());
            table += &line;
        }
    }
    let mut latencies = Vec::new();
    for archive in &archives {
        let mut latency = Histogram::new();
        for _ in 0..arguments.reads {
            let begin = Instant::now();
            ensure!(subject.load(&archive.owner).await?, "the account is not there");
            latency.record(begin.elapsed());
        }
        latencies.push(latency);
    }
    table += &line("the account loaded", &latencies);
    Ok(table)
}

fn line(name: &str, latencies: &[Histogram]) -> String {
    let mut line = format!("| {name} |");
    for latency in latencies {
        let [p50, p99] = [0.5, 0.99].map(|share| milliseconds(latency.quantile(share)));
        line += &format!(" {p50} / {p99} |");
    }
    let p50 = |latency: Option<&Histogram>| latency.map_or(Duration::ZERO, |latency| latency.quantile(0.5));
    let ratio = p50(latencies.last()).as_secs_f64() / p50(latencies.first()).as_secs_f64();
    line + &format!(" {ratio:.2} |\n")
}

impl Archive {
    fn position(&self, number: u64) -> Position {
        Position(self.first + number * self.step)
    }

    /// Who wrote a message. The sparse peer's hundred are spread over all of it.
    fn peer(&self, number: u64) -> Result<BareJid> {
        let every = (self.size / SPARSE).max(2);
        Ok(BareJid::parse(&match number {
            number if number % every == every / 2 => peer(With::Sparse),
            number if number % 2 == 0 => peer(With::Busy),
            number => format!("peer{}@bench.example", number % 97),
        })?)
    }

    /// Appends all messages, many in a commit and few commits at a time.
    async fn fill(&self, subject: &Subject) -> Result<()> {
        let mut progress =
            Progress::new(format!("{}: {} messages", subject.kind.name(), self.size), self.size);
        let commits = stream::iter((0..self.size).step_by(TOGETHER)).map(async |first| {
            let last = self.size.min(first + TOGETHER as u64);
            let rows = (first..last).map(|number| {
                let mut row = row(&self.owner, &self.peer(number)?, self.position(number));
                row.offline = false;
                anyhow::Ok(row)
            });
            subject.append(rows.collect::<Result<_>>()?).await?;
            anyhow::Ok(last - first)
        });
        let mut commits = commits.buffered(4);
        while let Some(written) = commits.try_next().await? {
            progress.advance(written);
        }
        Ok(())
    }

    async fn read(
        &self,
        subject: &Subject,
        with: With,
        part: Part,
        arguments: &PagesArguments,
    ) -> Result<Histogram> {
        let mut latency = Histogram::new();
        // The same on every run: a linear congruential generator.
        let mut random = 42_u64;
        for _ in 0..arguments.reads {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // In the middle of them, with a page's worth above it, of the sparse peer too.
            let above = self.position(self.size / 8 + (random >> 33) % (self.size / 4).max(1));
            let (above, page) = match part {
                Part::Newest => (None, Page::Last(arguments.page)),
                Part::Oldest => (None, Page::First(arguments.page)),
                Part::Middle => (Some(above), Page::First(arguments.page)),
            };
            let with = match with {
                With::Anybody => None,
                with => Some(BareJid::parse(&peer(with))?),
            };
            let filter = LogFilter { archived: true, with, above, ..LogFilter::default() };
            let begin = Instant::now();
            let found = subject.store.log_page(&self.owner, filter, page).await?;
            latency.record(begin.elapsed());
            ensure!(found.rows.len() == arguments.page, "a page has {} messages", found.rows.len());
        }
        Ok(latency)
    }
}

fn peer(with: With) -> String {
    match with {
        With::Anybody | With::Busy => "busy@bench.example".to_owned(),
        With::Sparse => "sparse@bench.example".to_owned(),
    }
}

/// Messages of the sparse peer.
const SPARSE: u64 = 100;
/// Messages of one commit while an archive is filled.
const TOGETHER: usize = 50;
