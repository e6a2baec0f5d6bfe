//! Where a process is with leaving.

use starling_admin::Phase;
use tokio::sync::{Notify, watch};

/// Asked for by administration, gone through by the process, told to whoever watches.
#[derive(Debug)]
pub(crate) struct Leaving {
    asked: Notify,
    phase: watch::Sender<Phase>,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { asked: Notify::new(), phase: watch::Sender::new(Phase::Serving) }
    }
}

impl Leaving {
    /// Somebody wants it to leave. Asking twice is asking once.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
        self.enter(Phase::Settling);
    }

    /// Waits for that.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Where it is now.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The next step. There is no way back.
    pub(crate) fn enter(&self, phase: Phase) {
        let changed = self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
        if changed {
            tracing::info!(event = "leaving", phase = phase.as_str(), "leaving");
        }
    }
}

/// A step as a number that goes over links.
pub(crate) fn step(phase: Phase) -> u32 {
    match phase {
        Phase::Serving => 0,
        Phase::Settling => 1,
        Phase::Leaving => 2,
        Phase::Ending => 3,
    }
}

/// The step of a number. What a later version calls otherwise comes after all that is known.
pub(crate) fn phase(step: u32) -> Phase {
    match step {
        0 => Phase::Serving,
        1 => Phase::Settling,
        2 => Phase::Leaving,
        _ => Phase::Ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_arrive_as_they_were_told() {
        for one in [Phase::Serving, Phase::Settling, Phase::Leaving, Phase::Ending] {
            assert_eq!(phase(step(one)), one);
        }
    }

    #[tokio::test]
    async fn there_is_no_way_back() {
        let leaving = Leaving::default();
        assert_eq!(leaving.phase(), Phase::Serving);
        leaving.ask();
        leaving.ask();
        leaving.asked().await;
        assert_eq!(leaving.phase(), Phase::Settling);
        leaving.enter(Phase::Ending);
        leaving.enter(Phase::Leaving);
        assert_eq!(leaving.phase(), Phase::Ending);
    }
}
