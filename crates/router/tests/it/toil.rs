//! A store that does one thing after the other, each of which takes time.

use futures::channel::oneshot;
use starling_node::{Clock, ManualClock};
use std::collections::VecDeque;
use std::time::Duration;

/// What a commit takes.
pub(crate) const COMMIT: Duration = Duration::from_millis(2);
/// A load.
pub(crate) const LOAD: Duration = Duration::from_millis(10);
/// Each row of a page.
pub(crate) const ROW: Duration = Duration::from_micros(250);

/// What it has to do.
pub(crate) struct Toil {
    clock: ManualClock,
    /// When all of it is done, on monotonic time.
    until: Duration,
    open: VecDeque<(Duration, oneshot::Sender<()>)>,
}

impl Toil {
    pub(crate) fn new(clock: &ManualClock) -> Self {
        Self { clock: clock.clone(), until: Duration::ZERO, open: VecDeque::new() }
    }

    /// One thing more.
    pub(crate) fn add(&mut self, cost: Duration) -> oneshot::Receiver<()> {
        self.until = self.until.max(self.clock.monotonic()) + cost;
        let (done, wait) = oneshot::channel();
        self.open.push_back((self.until, done));
        wait
    }

    /// When the next one is done.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.open.front().map(|(at, _)| *at)
    }

    /// What is done by now is answered.
    pub(crate) fn finish(&mut self) {
        let now = self.clock.monotonic();
        while let Some((_, done)) = self.open.pop_front_if(|(at, _)| *at <= now) {
            let _ = done.send(());
        }
    }
}
