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
use super::subject::{DOMAIN, Subject, now};
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
    pub(crate) page: usize,
    /// Reads of each kind
    #[arg(long, default_value_t = 500)]
    pub(crate) reads: u64,
    /// Minutes from one message to the next
    #[arg(long, default_value_t = 1)]
    minutes: u64,
}

impl PagesArguments {
    /// When the largest archive begins. All of them end now.
    pub(crate) fn earliest(&self) -> Timestamp {
        self.begin(self.sizes.iter().copied().max().unwrap_or_default() + 1_000)
    }

    /// The archives, filled or to be filled.
    pub(crate) fn archives(&self) -> Result<Vec<Archive>> {
        let archive = |(number, &size): (usize, &u64)| {
            let owner = BareJid::parse(&format!("{ACCOUNT}{number}@{DOMAIN}"))?;
            Ok(Archive { owner, size, first: self.begin(size).0, step: self.step() })
        };
        self.sizes.iter().enumerate().map(archive).collect()
    }

    fn begin(&self, size: u64) -> Timestamp {
        Timestamp(now().0.saturating_sub(size.saturating_mul(self.step())))
    }

    fn step(&self) -> u64 {
        self.minutes * 60_000_000
    }
}

/// An archive.
pub(crate) struct Archive {
    pub(crate) owner: BareJid,
    size: u64,
    first: u64,
    step: u64,
}

/// With whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    Anybody,
    Busy,
    Sparse,
}

/// From where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Newest,
    Oldest,
    Middle,
}

/// A kind of page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    with: With,
    pub(crate) part: Part,
}

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [With::Anybody, With::Busy, With::Sparse].into_iter().flat_map(|with| {
            [Part::Newest, Part::Oldest, Part::Middle].into_iter().map(move |part| Self { with, part })
        })
    }

    pub(crate) fn name(self) -> String {
        let with = match self.with {
            With::Anybody => "all",
            With::Busy => "busy peer",
            With::Sparse => "sparse peer",
        };
        let part = match self.part {
            Part::Newest => "newest",
            Part::Oldest => "oldest",
            Part::Middle => "middle",
        };
        format!("{with}, {part}")
    }

    /// The peer who is asked for.
    pub(crate) fn peer(self) -> Option<&'static str> {
        match self.with {
            With::Anybody => None,
            With::Busy => Some(BUSY),
            With::Sparse => Some(SPARSE),
        }
    }
}

/// Positions at random, the same on every run: a linear congruential generator.
pub(crate) struct Middles(u64);

impl Middles {
    pub(crate) fn new() -> Self {
        Self(42)
    }

    /// One of the older half, with more than a page above it, of the sparse peer too.
    pub(crate) fn next(&mut self, archive: &Archive) -> Position {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        archive.position(archive.size / 8 + (self.0 >> 33) % (archive.size / 4).max(1))
    }
}

/// Makes the accounts and fills their archives.
pub(crate) async fn fill(subject: &Subject, arguments: &PagesArguments) -> Result<Vec<Archive>> {
    subject.accounts(ACCOUNT, arguments.sizes.len()).await?;
    let archives = arguments.archives()?;
    for archive in &archives {
        archive.fill(subject).await?;
    }
    subject.go_on_from(Position(now().0));
    Ok(archives)
}

/// Fills the archives and reads them; gives a table.
pub(super) async fn run(subject: &Subject, arguments: &PagesArguments) -> Result<String> {
    let archives = fill(subject, arguments).await?;
    let mut table = heading(&archives, arguments, subject.name)?;
    for kind in Kind::all() {
        let mut latencies = Vec::new();
        for archive in &archives {
            latencies.push(archive.read(subject, kind, arguments).await?);
        }
        let line = line(&kind.name(), &latencies);
        eprint!("{}: {line}", subject.name);
        table += &line;
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

/// The head of a table of all sizes.
pub(crate) fn heading(archives: &[Archive], arguments: &PagesArguments, of: &str) -> Result<String> {
    let mut table = format!("pages of {}, {of}: p50 / p99 ms\n| |", arguments.page);
    for archive in archives {
        write!(table, " {} |", archive.size)?;
    }
    writeln!(table, " p50, largest to smallest |\n|{}", " --- |".repeat(archives.len() + 2))?;
    Ok(table)
}

/// A line of it.
pub(crate) fn line(name: &str, latencies: &[Histogram]) -> String {
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
        let every = (self.size / FEW).max(2);
        Ok(BareJid::parse(&match number {
            number if number % every == every / 2 => SPARSE.to_owned(),
            number if number % 2 == 0 => BUSY.to_owned(),
            number => format!("peer{}@bench.example", number % 97),
        })?)
    }

    /// Appends all messages, many in a commit and few commits at a time.
    async fn fill(&self, subject: &Subject) -> Result<()> {
        let mut progress = Progress::new(format!("{}: {} messages", subject.name, self.size), self.size);
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

    async fn read(&self, subject: &Subject, kind: Kind, arguments: &PagesArguments) -> Result<Histogram> {
        let mut latency = Histogram::new();
        let mut middles = Middles::new();
        for _ in 0..arguments.reads {
            let (above, page) = match kind.part {
                Part::Newest => (None, Page::Last(arguments.page)),
                Part::Oldest => (None, Page::First(arguments.page)),
                Part::Middle => (Some(middles.next(self)), Page::First(arguments.page)),
            };
            let with = kind.peer().map(BareJid::parse).transpose()?;
            let filter = LogFilter { archived: true, with, above, ..LogFilter::default() };
            let begin = Instant::now();
            let found = subject.store.log_page(&self.owner, filter, page).await?;
            latency.record(begin.elapsed());
            ensure!(found.rows.len() == arguments.page, "a page has {} messages", found.rows.len());
        }
        Ok(latency)
    }
}

/// Archives are those of accounts with this name and a number.
pub(crate) const ACCOUNT: &str = "archive";
const BUSY: &str = "busy@bench.example";
const SPARSE: &str = "sparse@bench.example";
/// Messages of the sparse peer.
const FEW: u64 = 100;
/// Messages of one commit while an archive is filled.
const TOGETHER: usize = 50;
