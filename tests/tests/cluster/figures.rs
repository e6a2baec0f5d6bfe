//! What a run showed, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::drill::Finding;

/// Sorted by what was done, in milliseconds: half of the cases were faster than the first figure, none slower than the
/// second.
pub(crate) fn table(findings: &[Finding]) -> String {
    let mut kinds: BTreeMap<(&str, &str), Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        kinds.entry((finding.fault.row, finding.fault.name)).or_default().push(finding);
    }
    let mut text = String::from(
        "| Row | Fault | Times | Lasted, s | No home, ms | Homes back, ms | Clients back, ms |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for ((row, name), cases) in kinds {
        let pair = |of: fn(&Finding) -> Duration| {
            let mut times: Vec<Duration> = cases.iter().map(|finding| of(finding)).collect();
            times.sort();
            let [middle, last] =
                [times[times.len() / 2], times[times.len() - 1]].map(|time| time.as_millis());
            format!("{middle} / {last}")
        };
        let lasted = cases.iter().map(|f| (f.mended - f.struck).as_secs_f64()).fold(0.0, f64::max);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {row} | {} | {} | {lasted:.1} | {} | {} | {} |",
            name.replace('_', " "),
            cases.len(),
            pair(|f| f.homeless),
            pair(|f| f.homes_back),
            pair(|f| f.clients_back),
        );
    }
    text
}

/// The page about a long run.
pub(crate) fn page(
    seed: u64,
    took: Duration,
    findings: &[Finding],
    told: &[String],
    failure: Option<&anyhow::Error>,
) -> String {
    let verdict = match failure {
        None => "Nothing acknowledged was lost, nothing came twice in a session, order held.".to_owned(),
        Some(error) => format!("**It failed**: {error:#}"),
    };
    let lag = findings.iter().map(|f| f.lag).max().unwrap_or_default();
    format!(
        "# Faults of a cluster\n\n\
         This page is written by `make chaos`. Three routers, three edges, one CQL server and haproxy run as processes in\n\
         network namespaces of their own. Clients write to each other, lose their connections, and resume on whichever edge\n\
         haproxy leads them to. One fault after the other is made and mended; the next one comes when every shard has a home\n\
         again and every client an answer to something it wrote after the mending. At the end all archives are read, and\n\
         what clients saw is judged.\n\n\
         {} faults in {:.0} minutes, seed {seed}. {verdict}\n\n{}\n\n\
         Times are the median and the longest. *No home*: how long one or more shards had none, while the fault lasted and\n\
         after. *Homes back*, *clients back*: how long after the mending, which takes the start of the processes that were\n\
         killed, all had homes and answers. What measures was itself up to {} ms late: the machine had other work to do.\n\n{}",
        findings.len(),
        took.as_secs_f64() / 60.0,
        told.iter().map(|line| format!("- {line}\n")).collect::<String>(),
        lag.as_millis(),
        table(findings),
    )
}
