//! How much the machine lets the cluster wait for a processor: times that were measured on a busy one say little.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What the kernel has counted for all threads of some processes: time on a processor, time waiting for one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strain(BTreeMap<(u32, String), (u64, u64)>);

/// Waiting for this many times as long as running, or this program itself being so late, is more than processes of one
/// cluster do to each other: the machine has other work to do.
const STARVED: f64 = 1.5;
const LATE: Duration = Duration::from_millis(150);

impl Strain {
    /// What was counted up to now.
    pub(crate) fn of(processes: impl IntoIterator<Item = u32>) -> Self {
        let mut threads = BTreeMap::new();
        for pid in processes {
            // Who has just ended has no threads.
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                let mut numbers = text.split_ascii_whitespace().map_while(|word| word.parse().ok());
                let (Some(ran), Some(waited)) = (numbers.next(), numbers.next()) else { continue };
                threads.insert((pid, task.file_name().to_string_lossy().into_owned()), (ran, waited));
            }
        }
        Self(threads)
    }

    /// How many times as long as they ran threads have waited since then.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        let (mut ran, mut waited) = (0, 0);
        for (thread, now) in &self.0 {
            let then = before.0.get(thread).copied().unwrap_or_default();
            ran += now.0.saturating_sub(then.0);
            waited += now.1.saturating_sub(then.1);
        }
        // Nanoseconds of minutes are far from where this is not exact.
        if ran == 0 { 0.0 } else { waited as f64 / ran as f64 }
    }
}

/// Whether times say more about the machine than about the cluster.
pub(crate) fn starved(strain: f64, lag: Duration) -> bool {
    strain > STARVED || lag > LATE
}
