//! CPU time and memory of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// A clock tick in `/proc/PID/stat`: Linux shows 100 to the second to every program.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process with all its threads, those that ended included.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    // The second field is the program's name in parentheses, which may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |index| -> Result<u32> {
        let field = fields.split_whitespace().nth(index).with_context(|| format!("{file} is short"))?;
        Ok(field.parse()?)
    };
    Ok(TICK * (ticks(11)? + ticks(12)?))
}

/// Proportional set size of a process, in bytes.
pub(crate) fn pss(pid: u32) -> Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .with_context(|| format!("{file} has no Pss"))?
        .parse()?;
    Ok(kib * 1024)
}

/// Resident memory of a process now, and its peak since [`forget_peak`], in bytes.
pub(crate) fn resident(pid: u32) -> Result<(u64, u64)> {
    let file = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let bytes = |field: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.with_context(|| format!("{file} has no {field}"))?.parse::<u64>()? * 1024)
    };
    Ok((bytes("VmRSS")?, bytes("VmHWM")?))
}

/// Lets a process's peak begin anew.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    let file = format!("/proc/{pid}/clear_refs");
    fs::write(&file, "5").with_context(|| format!("cannot write {file}"))
}

/// The processes whose CPU time is wanted, as far as they are known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// All that make up the server; none if they are not known.
    pub(crate) server: Vec<u32>,
    /// The server's database.
    pub(crate) store: Option<u32>,
}

/// CPU time from one moment to another, of the server, its database and this process.
#[derive(Clone, Debug)]
pub(crate) struct Stopwatch {
    watched: Watched,
    server: Vec<Duration>,
    store: Option<Duration>,
    own: Duration,
}

/// What a [`Stopwatch`] shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spent {
    /// CPU time of the server, if its process is known.
    pub(crate) server: Option<Duration>,
    /// The same of each of its processes.
    pub(crate) each: Vec<Duration>,
    /// CPU time of its database, if that is a process of its own.
    pub(crate) store: Option<Duration>,
    /// CPU time of the generator.
    pub(crate) own: Duration,
}

impl Stopwatch {
    pub(crate) fn start(watched: &Watched) -> Result<Self> {
        let server = watched.server.iter().map(|pid| cpu(*pid)).collect::<Result<_>>()?;
        let store = watched.store.map(cpu).transpose()?;
        Ok(Self { watched: watched.clone(), server, store, own: cpu(std::process::id())? })
    }

    pub(crate) fn spent(&self) -> Result<Spent> {
        let now = Self::start(&self.watched)?;
        let each: Vec<_> = now.server.iter().zip(&self.server).map(|(now, then)| *now - *then).collect();
        Ok(Spent {
            server: (!each.is_empty()).then(|| each.iter().sum()),
            each,
            store: now.store.zip(self.store).map(|(now, then)| now - then),
            own: now.own - self.own,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time_and_memory() {
        let pid = std::process::id();
        let watch = Stopwatch::start(&Watched { server: vec![pid], store: None }).unwrap();
        let before = pss(pid).unwrap();
        let mut memory = vec![0u8; 1 << 24];
        // At least once: what was read before may have taken that long already.
        loop {
            memory.iter_mut().for_each(|byte| *byte |= 1);
            if watch.spent().unwrap().own >= TICK * 2 {
                break;
            }
        }
        assert!(watch.spent().unwrap().server.unwrap() >= TICK * 2);
        assert!(pss(pid).unwrap() > before + (1 << 23));
        assert_eq!(memory[7], 1);
        drop(memory);
        forget_peak(pid).unwrap();
        let (now, peak) = resident(pid).unwrap();
        let memory = vec![1u8; 1 << 25];
        let (_, higher) = resident(pid).unwrap();
        assert!(peak < now + (1 << 24) && higher > peak + (1 << 24), "{now} {peak} {higher}");
        assert_eq!(memory[7], 1);
    }
}
