//! The table at the end: medians, and how many times better the first server is.

use std::fmt::{self, Display, Formatter};

use super::Figures;
use super::peer::Peer;
use crate::backlog::{BacklogReport, Manner};
use crate::chat::ChatReport;
use crate::login::LoginReport;
use crate::offline::OfflineReport;

/// The figures of all servers, the first of which is compared with the others.
pub(super) struct Table<'a>(pub(super) &'a [(Peer, Figures)]);

/// The median of what a measure says of some reports; of an even number, the lower of the two in the middle.
pub(crate) fn median<R>(reports: &[R], measure: impl Fn(&R) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = reports.iter().map(measure).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// One row: its name, whether more is better, and how to find its value.
type Row = (&'static str, bool, fn(&Figures) -> Option<f64>);

const ROWS: &[Row] = &[
    ("chat saturated, messages/s", true, |f| median(&f.chats, ChatReport::per_second)),
    ("messages per server CPU second", true, |f| {
        median(&f.chats, |r| r.per_cpu_second().unwrap_or(f64::NAN))
    }),
    ("CPU ms per 1,000 messages", false, |f| {
        median(&f.chats, |r| r.cpu_ms_per_thousand().unwrap_or(f64::NAN))
    }),
    ("the same of its CQL server", false, |f| {
        median(&f.chats, |r| r.store_ms_per_thousand().unwrap_or(f64::NAN))
    }),
    ("the same with stream management, messages/s", true, |f| median(&f.managed, ChatReport::per_second)),
    ("messages per server CPU second", true, |f| {
        median(&f.managed, |r| r.per_cpu_second().unwrap_or(f64::NAN))
    }),
    ("half load, messages/s", true, |f| median(&f.open, ChatReport::per_second)),
    ("half load, p50 ms", false, |f| median(&f.open, |r| quantile(r, 0.5))),
    ("half load, p99 ms", false, |f| median(&f.open, |r| quantile(r, 0.99))),
    ("half load, p99.9 ms", false, |f| median(&f.open, |r| quantile(r, 0.999))),
    ("SCRAM-SHA-1 logins/s", true, |f| median(&f.logins, LoginReport::per_second)),
    ("SCRAM-SHA-1 logins per CPU second", true, |f| {
        median(&f.logins, |r| r.per_cpu_second().unwrap_or(f64::NAN))
    }),
    ("PLAIN logins per CPU second", true, |f| median(&f.plain, |r| r.per_cpu_second().unwrap_or(f64::NAN))),
    ("KiB Pss per idle session", false, |f| f.idle.as_ref()?.kib_each()),
    ("offline, stored/s", true, |f| median(&f.offline, OfflineReport::stored_per_second)),
    ("offline, delivered/s", true, |f| median(&f.offline, OfflineReport::delivered_per_second)),
    ("10,000 waiting, delivered/s", true, |f| median(&taken(f), |r| r.per_second())),
    ("10,000 waiting, CPU us each", false, |f| median(&taken(f), |r| r.cpu_us().unwrap_or(f64::NAN))),
    ("10,000 waiting, MiB more at most", false, |f| {
        f.backlog.iter().filter_map(BacklogReport::grown_mib).reduce(f64::max)
    }),
];

/// Logins that took everything.
fn taken(figures: &Figures) -> Vec<&BacklogReport> {
    figures.backlog.iter().filter(|report| report.manner == Manner::Acknowledging).collect()
}

fn quantile(report: &ChatReport, share: f64) -> f64 {
    report.latency.quantile(share).as_secs_f64() * 1e3
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(((first, first_figures), others)) = self.0.split_first() else { return Ok(()) };
        write!(f, "| | {} |", first.name())?;
        for (peer, _) in others {
            write!(f, " {} | times better |", peer.name())?;
        }
        writeln!(f, "\n|{}", " --- |".repeat(2 + 2 * others.len()))?;
        for (name, more_is_better, value) in ROWS {
            let Some(ours) = value(first_figures) else { continue };
            write!(f, "| {name} | {} |", number(ours))?;
            for (_, figures) in others {
                match value(figures) {
                    Some(theirs) => {
                        let times = if *more_is_better { ours / theirs } else { theirs / ours };
                        write!(f, " {} | {} |", number(theirs), number(times))?;
                    }
                    None => write!(f, " | |")?,
                }
            }
            writeln!(f)?;
        }
        for (peer, figures) in self.0 {
            for faults in figures
                .chats
                .iter()
                .chain(&figures.managed)
                .chain(&figures.open)
                .filter_map(ChatReport::faults)
            {
                writeln!(f, "{}: {faults}", peer.name())?;
            }
            let failures: u64 = figures.logins.iter().chain(&figures.plain).map(|r| r.failures).sum();
            if failures > 0 {
                writeln!(f, "{}: {failures} logins failed", peer.name())?;
            }
        }
        Ok(())
    }
}

/// A figure with about three digits.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let of = |values: &[f64]| median(values, |value| *value);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(of(&[f64::NAN, 7.0]), Some(7.0));
        assert_eq!(of(&[]), None);
    }
}
