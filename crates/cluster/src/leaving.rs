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

#[cfg(test)]
mod tests {
    use super::*;

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
