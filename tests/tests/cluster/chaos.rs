//! A run: faults in an order that a seed decides, and the judgement over all of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use starling_tests::crowd::{Summary, Verdict};
use starling_tests::history::{Violation, What, check};
use starling_tests::sandbox::Sandbox;

use crate::drill::{Drill, Ended, Finding};
use crate::faults::{self, Fault};
use crate::figures::{self, Toll};

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: usize,
    /// Only kinds with this in their row or name.
    only: Option<String>,
    /// How long faults last; 1 is long enough for all of their consequences.
    pace: f64,
    /// No fault is begun after this time.
    within: Option<Duration>,
}

impl Plan {
    /// `CLUSTER_SEED`, `CLUSTER_FAULTS`, `CLUSTER_ONLY` (the begin of a row, or part of a name), `CLUSTER_PACE`,
    /// `CLUSTER_MINUTES`.
    pub(crate) fn from_environment() -> Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
            Err(_) => Ok(default),
        };
        let pace = match std::env::var("CLUSTER_PACE") {
            Ok(text) => text.parse().with_context(|| format!("CLUSTER_PACE={text} is not a number"))?,
            Err(_) => 0.5,
        };
        let within = match std::env::var("CLUSTER_MINUTES") {
            Ok(text) => {
                let minutes: f64 = text.parse().with_context(|| format!("CLUSTER_MINUTES={text}"))?;
                Some(Duration::try_from_secs_f64(minutes * 60.0)?)
            }
            Err(_) => None,
        };
        Ok(Self {
            seed: number("CLUSTER_SEED", rand::random::<u32>().into())?,
            faults: usize::try_from(number("CLUSTER_FAULTS", u64::try_from(faults::ALL.len())?)?)?,
            only: std::env::var("CLUSTER_ONLY").ok(),
            pace,
            within,
        })
    }

    pub(crate) fn limit(&self) -> Duration {
        let faults = u32::try_from(self.faults).unwrap_or(u32::MAX);
        Duration::from_secs(300)
            + faults.saturating_mul(Duration::from_secs(20).as_secs() as u32) * Duration::from_secs(1)
    }

    /// Every kind as often as any other, in an order of the seed's choice. Where all begins anew stands last.
    fn faults(&self) -> Vec<&'static Fault> {
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xFA17);
        let wanted = |fault: &&Fault| {
            self.only.as_deref().is_none_or(|part| fault.row.starts_with(part) || fault.name.contains(part))
        };
        let mut kinds: Vec<&Fault> = faults::ALL.iter().filter(wanted).collect();
        if self.faults > SHORT {
            // What times are promised for: one case of each says little of 99 in a hundred.
            let more = |fault: &&Fault| figures::is_timed(fault.name);
            let more: Vec<&Fault> = kinds.iter().copied().filter(more).collect();
            kinds.extend(more.repeat(2));
        }
        let mut list = Vec::new();
        while list.len() < self.faults && !kinds.is_empty() {
            let mut round = kinds.clone();
            round.shuffle(&mut rng);
            round.sort_by_key(|fault| fault.row == ANEW);
            list.append(&mut round);
        }
        list.truncate(self.faults);
        list.sort_by_key(|fault| self.faults <= SHORT && fault.row == ANEW);
        list
    }
}

/// After this one there is a new cluster.
const ANEW: &str = "C06";
/// A run of so few has it at its end.
const SHORT: usize = 60;

/// Here nobody can promise anything until it is mended: messages are to be refused,
const NO_QUORUM: &str = "C05";
/// and for no longer than this afterwards (promise 8).
const SERVED_AGAIN: Duration = Duration::from_secs(2);

/// How many faults a cluster sees: all that clients saw is held in memory.
const ROUND: usize = 100;

/// For less than this no new one is started.
const WORTH: Duration = Duration::from_secs(120);

/// What is known after some rounds.
#[derive(Default)]
struct Sum {
    findings: Vec<(Finding, Toll)>,
    took: Duration,
    told: Vec<String>,
    left_out: BTreeMap<&'static str, String>,
}

/// Lets it all happen, with a new cluster for each round; `left_out` gets the kinds that cannot be done here, and
/// why.
pub(crate) async fn survive(
    plan: &Plan,
    sandbox: Sandbox,
    left_out: &mut BTreeMap<&'static str, String>,
) -> Result<()> {
    let list = plan.faults();
    ensure!(!list.is_empty() || plan.faults == 0, "no fault of this name");
    let mut sum = Sum::default();
    let mut sandbox = Some(sandbox);
    let mut judged = Ok(());
    let end = plan.within.map(|within| Instant::now() + within);
    for (round, part) in list.chunks(ROUND).enumerate() {
        // A new cluster takes its time to begin and to end.
        if round > 0 && end.is_some_and(|end| Instant::now() + WORTH > end) {
            break;
        }
        let network = match sandbox.take() {
            Some(sandbox) => sandbox,
            None => Sandbox::new()?,
        };
        let seed = plan.seed + u64::try_from(round)?;
        judged = Box::pin(one_round(plan, seed, part, network, end, &mut sum)).await;
        if judged.is_err() {
            break;
        }
    }
    left_out.append(&mut sum.left_out);
    let findings: Vec<Finding> = sum.findings.iter().map(|(finding, _)| finding.clone()).collect();
    println!("{}\n{}", figures::table(&sum.findings), figures::promises(&findings));
    let slow = figures::too_slow(&findings).map_or(Ok(()), |slow| bail!("too slow: {slow}"));
    judged = judged.and(slow);
    if let Ok(file) = std::env::var("CLUSTER_REPORT") {
        let page = figures::page(plan.seed, sum.took, &sum.findings, &sum.told, judged.as_ref().err());
        std::fs::write(&file, page).with_context(|| format!("cannot write {file}"))?;
    }
    judged
}

async fn one_round(
    plan: &Plan,
    seed: u64,
    list: &[&'static Fault],
    sandbox: Sandbox,
    end: Option<Instant>,
    sum: &mut Sum,
) -> Result<()> {
    let mut drill = Box::pin(Drill::begin(sandbox, seed, plan.pace)).await?;
    let begun = drill.run.now();
    let done = async {
        drill.warm_up().await?;
        for fault in list {
            if end.is_some_and(|end| Instant::now() > end) {
                break;
            }
            Box::pin(drill.suffer(fault)).await?;
        }
        Ok(())
    };
    let done = done.await;
    sum.took += drill.run.now() - begun;
    let mut ended = Box::pin(drill.end(done)).await?;
    sum.left_out.append(&mut ended.left_out);
    let violations = if ended.broken.is_none() { check(&ended.history) } else { Vec::new() };
    let summary = Summary::of(&ended.history);
    let [answered, errors] = ended.answered;
    let told = format!(
        "{summary}; {answered} requests answered, {errors} of them with an error, {} without an answer",
        ended.silences
    );
    println!("  {told}");
    sum.told.push(told);
    let tolls = figures::tolls(&ended.findings, &ended.history, &violations);
    sum.findings.extend(ended.findings.iter().cloned().zip(tolls));
    let Err(error) = judge(&ended, &violations, &summary) else { return Ok(()) };
    let folder = keep(seed, &ended, &violations)?;
    let cause = ended.broken.map(|broken| format!("{broken:#}; ")).unwrap_or_default();
    bail!("{cause}{error:#}; all that is known is in {folder}")
}

fn judge(ended: &Ended, violations: &[Violation], summary: &Summary) -> Result<()> {
    if ended.broken.is_some() {
        let events = ended.history.logs.iter().flat_map(|l| &l.events);
        let fault = events.filter(|e| matches!(e.what, What::Fault(_))).map(ToString::to_string).next();
        bail!("the run broke off; the clients' first fault: {}", fault.unwrap_or_else(|| "none".to_owned()));
    }
    if let Some(panic) = ended.site.panic() {
        bail!("{panic}");
    }
    if let Some(first) = ended.astray.first() {
        bail!("{} sessions or shards are not where they are said to be: {first}", ended.astray.len());
    }
    let verdict = Verdict {
        faults: ended.findings.len(),
        answered: ended.answered,
        silences: ended.silences,
        late: &ended.late,
        due: refused_without_a_quorum(ended),
    };
    verdict.of(&ended.history, violations, summary)
}

/// How many messages were refused while nobody could promise anything, or soon after that.
fn refused_without_a_quorum(ended: &Ended) -> usize {
    let without: Vec<_> = ended.findings.iter().filter(|finding| finding.fault.row == NO_QUORUM).collect();
    let events = ended.history.logs.iter().flat_map(|log| &log.events);
    let refused = events.filter(|event| matches!(event.what, What::Refused { .. }));
    refused
        .filter(|event| without.iter().any(|f| (f.struck..f.mended + SERVED_AGAIN).contains(&event.at)))
        .count()
}

/// Writes all that is known of a run into a folder that stays, and gives its name.
fn keep(seed: u64, ended: &Ended, violations: &[Violation]) -> Result<String> {
    let prefix = format!("starling-cluster-{seed}-");
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?.keep();
    ended.history.write(&folder)?;
    ended.site.keep_logs(&folder)?;
    let list: String = violations.iter().map(|v| format!("{v}\n")).collect();
    std::fs::write(folder.join("violations"), list)?;
    std::fs::write(folder.join("astray"), ended.astray.join("\n"))?;
    Ok(folder.display().to_string())
}
