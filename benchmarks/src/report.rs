//! How a single measurement is shown.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use crate::backlog::{BacklogReport, Manner};
use crate::chat::ChatReport;
use crate::histogram::Histogram;
use crate::idle::IdleReport;
use crate::login::LoginReport;
use crate::offline::OfflineReport;
use crate::usage::Spent;

impl Display for LoginReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "logins              {} in {}, {} failed",
            self.logins,
            seconds(self.elapsed),
            self.failures
        )?;
        writeln!(f, "logins/s            {:.0}", self.per_second())?;
        if let Some(rate) = self.per_cpu_second() {
            writeln!(f, "per CPU second      {rate:.0} ({:.3} ms each)", 1e3 / rate)?;
        }
        latency(f, &self.latency)?;
        cpu(f, &self.spent, self.elapsed)
    }
}

impl Display for IdleReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "sessions            {} opened in {}", self.sessions, seconds(self.opening))?;
        if let (Some(before), Some(during), Some(after)) = (self.before, self.during, self.after) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "server Pss, MiB     {:.1} before, {:.1} with them, {:.1} after they left",
                mib(before),
                mib(during),
                mib(after)
            )?;
        }
        if let Some(each) = self.kib_each() {
            writeln!(f, "KiB each            {each:.2}")?;
        }
        cpu(f, &self.spent, Duration::from_secs(self.seconds))
    }
}

impl Display for ChatReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "messages            {} in {}", self.messages, seconds(self.elapsed))?;
        writeln!(f, "messages/s          {:.0}", self.per_second())?;
        if let (Some(rate), Some(cost)) = (self.per_cpu_second(), self.cpu_ms_per_thousand()) {
            writeln!(f, "per CPU second      {rate:.0} ({cost:.1} ms for 1,000)")?;
        }
        latency(f, &self.latency)?;
        cpu(f, &self.spent, self.elapsed)?;
        if let Some(faults) = self.faults() {
            writeln!(f, "FAULTS              {faults}")?;
        }
        Ok(())
    }
}

impl Display for OfflineReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "stored/s            {:.0}, all {} acknowledged",
            self.stored_per_second(),
            self.messages
        )?;
        cpu(f, &self.stored, self.storing)?;
        writeln!(f, "delivered/s         {:.0}, logins included", self.delivered_per_second())?;
        cpu(f, &self.delivered, self.delivering)
    }
}

impl Display for BacklogReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let manner = match self.manner {
            Manner::Acknowledging => "acknowledging",
            Manner::Silent => "reading, never acknowledging",
            Manner::Deaf => "not reading",
        };
        writeln!(f, "client              {manner}")?;
        write!(f, "messages            {} of {}", self.arrived, self.messages)?;
        if self.arrived > 0 {
            write!(f, " in {:.2} s, {:.0}/s", self.elapsed.as_secs_f64(), self.per_second())?;
        }
        if let Some(cpu) = self.cpu_us() {
            write!(f, ", {cpu:.1} us CPU each")?;
        }
        writeln!(f)?;
        if let (Some((before, peak)), Some(grown)) = (self.memory, self.grown_mib()) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "server memory, MiB  {:.1} before, {:.1} at most: {grown:.1} more",
                mib(before),
                mib(peak)
            )?;
        }
        Ok(())
    }
}

fn latency(f: &mut Formatter<'_>, latency: &Histogram) -> fmt::Result {
    let ms = |share| milliseconds(latency.quantile(share));
    writeln!(
        f,
        "latency, ms         p50 {}, p99 {}, p99.9 {}, max {}",
        ms(0.5),
        ms(0.99),
        ms(0.999),
        milliseconds(latency.longest())
    )
}

/// How busy both sides were: a generator near 100 % measures itself.
fn cpu(f: &mut Formatter<'_>, spent: &Spent, elapsed: Duration) -> fmt::Result {
    let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64();
    let server = spent.server.map_or_else(|| "unknown".to_owned(), |cpu| format!("{:.0} %", share(cpu)));
    let store = spent.store.map_or_else(String::new, |cpu| format!(", its database {:.0} %", share(cpu)));
    writeln!(f, "CPU                 server {server}{store}, generator {:.0} %", share(spent.own))
}

/// A duration in milliseconds, with about three digits.
pub(crate) fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms >= 100.0 => format!("{ms:.0}"),
        ms if ms >= 10.0 => format!("{ms:.1}"),
        ms => format!("{ms:.2}"),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
