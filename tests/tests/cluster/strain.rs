//! Whether the machine has other work to do: times that were measured on a busy one say little of what is measured.
//! And how much memory a process has.

use std::fs;
use std::time::Duration;

/// What the kernel has counted up to some moment, in its own units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Strain {
    /// All time of all processors, and how much of it was idle.
    all: u64,
    idle: u64,
    /// What the processes of this namespace have used: the cluster, what is around it, and this program.
    own: u64,
}

/// More than this part of the machine is more than what any machine has to do beside.
const BUSY: f64 = 0.1;
/// This program was itself so late.
const LATE: Duration = Duration::from_millis(150);

impl Strain {
    /// What was counted up to now; nothing where the kernel does not tell.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; what guests use is part of the first two.
        let times: Vec<u64> =
            line.split_ascii_whitespace().skip(1).take(8).map_while(|word| word.parse().ok()).collect();
        let idle = times.get(3).copied().unwrap_or(0) + times.get(4).copied().unwrap_or(0);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let own = processes.filter_map(|process| used(&process.path())).sum();
        Self { all: times.iter().sum(), idle, own }
    }

    /// Which part of the machine others have used since then.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        let busy = all.saturating_sub(self.idle.saturating_sub(before.idle));
        let others = busy.saturating_sub(self.own.saturating_sub(before.own));
        // Sums of minutes are far from where this is not exact.
        if all == 0 { 0.0 } else { others as f64 / all as f64 }
    }
}

/// What a process has used, with its children that have ended (proc(5)); the directory may be of something else.
fn used(process: &std::path::Path) -> Option<u64> {
    process.file_name()?.to_str()?.parse::<u32>().ok()?;
    let text = fs::read_to_string(process.join("stat")).ok()?;
    // The name is in parentheses and may have any character.
    let numbers = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some(numbers.skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum())
}

/// How many bytes of the machine's memory a process has (proc(5)).
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Whether times say more about the machine than about the cluster.
pub(crate) fn starved(others: f64, lag: Duration) -> bool {
    others > BUSY || lag > LATE
}
