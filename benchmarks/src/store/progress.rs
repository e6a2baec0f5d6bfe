//! A bar on a terminal, for what takes minutes.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How far something is. Silent where stderr is no terminal; removed when it is dropped.
pub(super) struct Progress {
    what: String,
    of: u64,
    done: u64,
    shown: Option<Instant>,
    begin: Instant,
}

impl Progress {
    pub(super) fn new(what: String, of: u64) -> Self {
        let now = Instant::now();
        Self { what, of, done: 0, shown: stderr().is_terminal().then_some(now), begin: now }
    }

    pub(super) fn advance(&mut self, by: u64) {
        self.done += by;
        let Some(shown) = &mut self.shown else { return };
        if shown.elapsed() < Duration::from_millis(200) {
            return;
        }
        *shown = Instant::now();
        let share = self.done as f64 / self.of.max(1) as f64;
        let rate = self.done as f64 / self.begin.elapsed().as_secs_f64();
        let bar = "#".repeat((share * 30.0) as usize);
        // A bar that cannot be shown is no reason to stop.
        let _ = write!(stderr(), "\r{} [{bar:30}] {:3.0} % {rate:.0}/s ", self.what, share * 100.0);
        let _ = stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
