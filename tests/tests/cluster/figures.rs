//! What a run showed, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use starling_tests::history::{History, Kind, Violation, What};

use crate::drill::Finding;

/// What became of the messages that were written from a fault on until the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Toll {
    messages: usize,
    refused: usize,
    lost: usize,
    doubled: usize,
    /// Broken rules of any other kind.
    other: usize,
}

/// Counts for each fault what became of what was written in its time. Rules that were broken by no one message are
/// counted nowhere here.
pub(crate) fn tolls(findings: &[Finding], history: &History, violations: &[Violation]) -> Vec<Toll> {
    let mut tolls = vec![Toll::default(); findings.len()];
    let of = |at: Duration| findings.partition_point(|finding| finding.struck <= at).checked_sub(1);
    let mut written = BTreeMap::new();
    for event in history.logs.iter().flat_map(|log| &log.events) {
        let Some(index) = of(event.at) else { continue };
        match &event.what {
            What::Sent(message) => {
                written.insert(message.origin.as_str(), index);
                tolls[index].messages += 1;
            }
            What::Refused { .. } => tolls[index].refused += 1,
            _ => {}
        }
    }
    for violation in violations {
        let Some(index) = violation.origin.as_deref().and_then(|origin| written.get(origin)) else {
            continue;
        };
        let toll = &mut tolls[*index];
        let count = match violation.kind {
            Kind::MissingRow | Kind::NeverSeen => &mut toll.lost,
            Kind::SecondRow | Kind::Doubled | Kind::CameBack => &mut toll.doubled,
            _ => &mut toll.other,
        };
        *count += 1;
    }
    tolls
}

/// The median, the 99th of a hundred and the longest, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) half: u128,
    pub(crate) most: u128,
    pub(crate) all: u128,
}

impl Spread {
    pub(crate) fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut times: Vec<u128> = times.into_iter().map(|time| time.as_millis()).collect();
        times.sort_unstable();
        // The smallest that so many are not above.
        let rank = |of: usize| times.get((times.len() * of).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { half: rank(50)?, most: rank(99)?, all: rank(100)? })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} / {} / {}", self.half, self.most, self.all)
    }
}

/// A time that is promised when a process is killed.
struct Promise {
    what: &'static str,
    bound: &'static str,
    /// The kind of fault that shows it.
    fault: &'static str,
    times: fn(&Finding) -> Vec<Duration>,
    /// Of a hundred, 99 are not above the first, and none above the second, in milliseconds.
    limits: (u128, Option<u128>),
}

const PROMISES: [Promise; 4] = [
    Promise {
        what: "an edge is killed: a session goes on elsewhere, since its client began to connect",
        bound: "p99 < 2 s",
        fault: "an_edge_is_killed",
        times: |finding| finding.resumed.clone(),
        limits: (2_000, None),
    },
    Promise {
        what: "homes are killed: a message written within the next second is acknowledged",
        bound: "p99 < 1 s, max 2 s",
        fault: "the_leader_is_killed",
        times: |finding| finding.answered.clone(),
        limits: (1_000, Some(2_000)),
    },
    Promise {
        what: "homes are killed: all shards have a home again",
        bound: "p99 < 1 s, max 2 s",
        fault: "the_leader_is_killed",
        times: |finding| vec![finding.homeless],
        limits: (1_000, Some(2_000)),
    },
    Promise {
        what: "two of three routers stood still: all shards have a home again after that",
        bound: "max 2 s",
        fault: "two_routers_stand_still",
        times: |finding| vec![finding.homes_back],
        limits: (2_000, Some(2_000)),
    },
];
/// Fewer cases say nothing of 99 in a hundred.
const ENOUGH: usize = 5;

/// Whether a promise of time is shown by this kind.
pub(crate) fn is_timed(fault: &str) -> bool {
    PROMISES.iter().any(|promise| promise.fault == fault)
}

/// What is promised of the time without service, with what was measured.
pub(crate) fn promises(findings: &[Finding]) -> String {
    let mut text = String::from(
        "| Promise | Bound | Faults | Times measured | p50 / p99 / max, ms | Machine at rest: faults | p50 / p99 / max, ms |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    let told = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
    for promise in &PROMISES {
        let cases: Vec<&Finding> = findings.iter().filter(|f| f.fault.name == promise.fault).collect();
        let at_rest: Vec<&Finding> = cases.iter().copied().filter(|f| !f.starved()).collect();
        let times = |of: &[&Finding]| of.iter().flat_map(|f| (promise.times)(f)).collect::<Vec<_>>();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            promise.what,
            promise.bound,
            cases.len(),
            times(&cases).len(),
            told(Spread::of(times(&cases))),
            at_rest.len(),
            told(Spread::of(times(&at_rest))),
        );
    }
    text
}

/// Which promise of the time without service was broken. Only what happened while the machine had no other work counts.
pub(crate) fn too_slow(findings: &[Finding]) -> Option<String> {
    let broken = PROMISES.iter().filter_map(|promise| {
        let cases: Vec<&Finding> =
            findings.iter().filter(|f| f.fault.name == promise.fault && !f.starved()).collect();
        let spread = Spread::of(cases.iter().flat_map(|f| (promise.times)(f)))?;
        let (most, all) = promise.limits;
        let slow = spread.most > most || all.is_some_and(|all| spread.all > all);
        (cases.len() >= ENOUGH && slow)
            .then(|| format!("{}: {spread} ms, not {}", promise.what, promise.bound))
    });
    let broken: Vec<String> = broken.collect();
    (!broken.is_empty()).then(|| broken.join("; "))
}

/// Sorted by what was done.
pub(crate) fn table(findings: &[(Finding, Toll)]) -> String {
    let mut kinds: BTreeMap<(&str, &str), Vec<&(Finding, Toll)>> = BTreeMap::new();
    for case in findings {
        kinds.entry((case.0.fault.row, case.0.fault.name)).or_default().push(case);
    }
    let mut text = String::from(
        "| Row | Fault | Times | Lasted, s | No home, ms | Homes back, ms | Clients back, ms | Messages | Refused | Lost | \
         Doubled | Other |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut row = |row: &str, name: &str, cases: &[&(Finding, Toll)]| {
        let spread = |of: fn(&Finding) -> Duration| {
            let times = Spread::of(cases.iter().map(|(finding, _)| of(finding)));
            times.map_or_else(|| "-".to_owned(), |spread| spread.to_string())
        };
        let sum = |of: fn(&Toll) -> usize| cases.iter().map(|(_, toll)| of(toll)).sum::<usize>();
        let lasted = cases.iter().map(|(f, _)| (f.mended - f.struck).as_secs_f64()).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "| {row} | {name} | {} | {lasted:.1} | {} | {} | {} | {} | {} | {} | {} | {} |",
            cases.len(),
            spread(|f| f.homeless),
            spread(|f| f.homes_back),
            spread(|f| f.clients_back),
            sum(|toll| toll.messages),
            sum(|toll| toll.refused),
            sum(|toll| toll.lost),
            sum(|toll| toll.doubled),
            sum(|toll| toll.other),
        );
    };
    for ((number, name), cases) in &kinds {
        row(number, &name.replace('_', " "), cases);
    }
    row("", "all", &findings.iter().collect::<Vec<_>>());
    text
}

/// What this runs on.
fn machine() -> String {
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown model".to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = kernel.trim().split('.').take(2).collect();
    format!(
        "one machine for all of it, load and judge included: {count} processors ({model}), {} GiB of memory, Linux {}",
        kib.div_ceil(1 << 20),
        kernel.join(".")
    )
}

/// The page about a long run.
pub(crate) fn page(
    seed: u64,
    took: Duration,
    cases: &[(Finding, Toll)],
    told: &[String],
    failure: Option<&anyhow::Error>,
) -> String {
    let findings: Vec<Finding> = cases.iter().map(|(finding, _)| finding.clone()).collect();
    let verdict = match failure {
        None => "Nothing acknowledged was lost, nothing came twice in a session, order held.".to_owned(),
        Some(error) => format!("**It failed**: {error:#}"),
    };
    let lag = findings.iter().map(|f| f.lag).max().unwrap_or_default();
    let starved = findings.iter().filter(|f| f.starved()).count();
    let kinds: std::collections::BTreeSet<&str> = findings.iter().map(|f| f.fault.name).collect();
    let missing = crate::faults::ALL.iter().map(|fault| fault.name).filter(|name| !kinds.contains(name));
    let missing: Vec<String> = missing.map(|name| name.replace('_', " ")).collect();
    let missing =
        if missing.is_empty() { String::new() } else { format!(" Not made: {}.", missing.join(", ")) };
    format!(
        "# Faults of a cluster\n\n\
         This page is written by `make chaos`; a shorter run is part of `make test`. Three routers, three edges, one CQL\n\
         server and haproxy run as processes in network namespaces of their own. Clients write to each other, lose their\n\
         connections, and resume on whichever edge haproxy leads them to. One fault after the other is made and mended; the\n\
         next one comes when every shard has a home again and every client an answer to something it wrote after the\n\
         mending. At the end all archives are read, and what clients saw is judged; and all routers have to say of each\n\
         session at which edge it is, as its client has it, to know of no other, and to agree who leads which shard. A fault\n\
         that nobody can have felt breaks the run off: that packets were kept back, processes killed or stopped, times told\n\
         wrong is counted.\n\n\
         Made on {}. To repeat it: `make chaos FAULTS=N MINUTES=M`, with `CLUSTER_SEED={seed}` for the same faults in the same\n\
         order (their moments differ). It ends with an error, and says where all logs are, if anything is found.\n\n\
         That processes of two versions go together is only tried with an older `starling`, by an upgrade of all processes in turn\n\
         and the way back, under load (*all are upgraded in turn*, C33):\n\n\
         ```\n\
         git worktree add ../before HEAD~1        # or the tag of the version before\n\
         (cd ../before && cargo build --release --bin starling)\n\
         make chaos STARLING_OLD_BIN=$PWD/../before/target/release/starling\n\
         ```\n\n\
         ## What was done\n\n\
         {} faults of {} kinds in {:.0} minutes, seed {seed}.{missing} {verdict}\n\n{}\n\
         ## Time without service\n\n{}\n\
         In {starved} of the faults the machine had other work to do (more than a tenth of it); the last two columns leave\n\
         these out.\n\n\
         ## Fault by fault\n\n{}\n\
         Times are the median, the 99th of a hundred and the longest. *No home*: how long one or more shards had none, while\n\
         the fault lasted and after. *Homes back*, *clients back*: how long after the mending, which takes the start of the\n\
         processes that were killed, all had homes and answers. *Messages*: those written from this fault on until the next;\n\
         *refused*: answered with an error, so that nothing is promised for them; *lost*: acknowledged and not stored or\n\
         never seen; *doubled*: two rows, or twice in a session; *other*: any other rule of `tests/src/history.rs`. What\n\
         measures was itself up to {} ms late.\n\n\
         Rows are those of a catalogue of faults that the tests go by; C44 is two of the others at once, LB the load balancer.\n\
         Links between processes are encrypted TCP connections: nobody in between can double or reorder one message of them.\n\
         What comes twice (C25) or overtakes (C26) does so over two links, one after the other. So links are broken here while\n\
         answers are cut off, and while packets are late, and edges send what is open once more. `tests/sim` breaks them at\n\
         every step, from a seed, with what was on its way arriving after all.\n",
        machine(),
        findings.len(),
        kinds.len(),
        took.as_secs_f64() / 60.0,
        told.iter().map(|line| format!("- {line}\n")).collect::<String>(),
        promises(&findings),
        table(cases),
        lag.as_millis(),
    )
}
