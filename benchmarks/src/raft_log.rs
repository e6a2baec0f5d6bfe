//! The log of a router's Raft groups by itself: records, syncs, and how long a group waits for its own record.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, LogId};
use starling_locations::disk::Directory;
use starling_locations::types::{Command, Entry, Types};
use starling_locations::wal::{GroupLog, Options, Wal, WalMetrics};
use starling_node::clock::SystemClock;
use tempfile::TempDir;
use tokio::task::LocalSet;

use crate::histogram::Histogram;
use crate::usage;

/// How the log is used.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RaftLogArguments {
    /// The disk to measure: an existing folder (default: the one for temporary files)
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Groups; each has one append under way, as Raft has
    #[arg(long, default_value_t = 16)]
    groups: u16,
    /// Bytes of an entry: a bind takes about 100
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Appends a second, evenly over the groups (0: as fast as they go)
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// Snapshots would come this often.
const PURGE_EVERY: u64 = 10_000;

pub(crate) async fn run(arguments: &RaftLogArguments) -> Result<String> {
    let folder = match &arguments.folder {
        Some(folder) => TempDir::with_prefix_in("starling-bench-", folder)?,
        None => TempDir::with_prefix("starling-bench-")?,
    };
    let disk = Arc::new(Directory::open(folder.path())?);
    let wal = Wal::create(disk, 1, Options::default(), SystemClock::shared())?;
    let end = Instant::now() + Duration::from_secs(arguments.seconds);
    let before = usage::cpu(std::process::id())?;
    let started = Instant::now();
    let tasks = LocalSet::new();
    let handles: Vec<_> = (0..arguments.groups)
        .map(|group| {
            let log = wal.group::<Types>(group, None)?;
            let load = Rc::new(arguments.clone());
            Ok(tasks.spawn_local(async move { append(log, group, &load, end).await }))
        })
        .collect::<Result<_>>()?;
    tasks.await;
    let took = started.elapsed();
    let cpu = usage::cpu(std::process::id())?.saturating_sub(before);
    let mut latency = Histogram::new();
    for handle in handles {
        latency.add(&handle.await.context("a group has panicked")??);
    }
    let figures = wal.metrics().clone();
    wal.close()?;
    report(arguments, &latency, took, cpu, &figures)
}

/// Appends one entry after the other, as Raft does: the next one only when the last one is durable.
async fn append(
    mut log: GroupLog<Types>,
    group: u16,
    load: &RaftLogArguments,
    end: Instant,
) -> Result<Histogram> {
    let mut latency = Histogram::new();
    let content = Bytes::from(vec![7; load.bytes]);
    let mut pace = (load.rate > 0).then(|| {
        let every = Duration::from_secs_f64(f64::from(load.groups) / f64::from(load.rate));
        // Each at another phase.
        tokio::time::interval_at(
            tokio::time::Instant::now() + every * u32::from(group) / u32::from(load.groups),
            every,
        )
    });
    for index in 1.. {
        let mut due = Instant::now();
        if let Some(pace) = &mut pace {
            due = pace.tick().await.into_std();
        }
        if due >= end {
            break;
        }
        let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
        log.blocking_append([Entry { log_id, payload: EntryPayload::Normal(Command(content.clone())) }])
            .await?;
        latency.record(due.elapsed());
        if index % PURGE_EVERY == 0 {
            log.snapshot_durable(log_id);
            RaftLogStorage::purge(&mut log, log_id).await?;
        }
    }
    Ok(latency)
}

fn report(
    load: &RaftLogArguments,
    latency: &Histogram,
    took: Duration,
    cpu: Duration,
    metrics: &WalMetrics,
) -> Result<String> {
    let records = latency.count();
    let (syncs, bytes) = (metrics.syncs.get(), metrics.bytes.get());
    let seconds = took.as_secs_f64();
    let millis = |share| latency.quantile(share).as_secs_f64() * 1e3;
    let mut text = String::new();
    writeln!(text, "{} groups, entries of {} bytes", load.groups, load.bytes)?;
    writeln!(text, "  appended   {:>12.0} a second", records as f64 / seconds)?;
    writeln!(
        text,
        "  syncs      {:>12.0} a second, {:.1} appends each",
        syncs as f64 / seconds,
        records as f64 / syncs as f64
    )?;
    writeln!(
        text,
        "  written    {:>12.1} MB a second, {:.2} bytes for each of an entry",
        bytes as f64 / seconds / 1e6,
        bytes as f64 / (records * load.bytes as u64) as f64
    )?;
    writeln!(
        text,
        "  latency    {:>12.2} ms p50, {:.2} p99, {:.2} longest",
        millis(0.5),
        millis(0.99),
        latency.longest().as_secs_f64() * 1e3
    )?;
    writeln!(
        text,
        "  CPU        {:>12.1} us an append, of this process",
        cpu.as_secs_f64() * 1e6 / records as f64
    )?;
    Ok(text)
}
