//! What waits for a home, in the order in which it came, and how long.

use crate::msg::Msg;
use std::collections::VecDeque;
use std::time::Duration;

/// How long anything waits until its home is loaded, or can decide. Then it is answered, whatever the store does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A message that waits until its home can decide on it.
pub(crate) struct Held {
    /// Since when (monotonic).
    pub(crate) since: Duration,
    pub(crate) msg: Msg,
}

/// All that waits for one home.
#[derive(Default)]
pub(crate) struct Line {
    held: VecDeque<Held>,
    /// When it is looked how long the first has waited.
    due: Option<Duration>,
}

impl Line {
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Adds one that came last; returns when to [`look`](Self::look), if that is to be asked for.
    pub(crate) fn push(&mut self, held: Held) -> Option<Duration> {
        self.held.push_back(held);
        self.ask()
    }

    /// The same with one that came before all others.
    pub(crate) fn push_first(&mut self, held: Held) -> Option<Duration> {
        self.held.push_front(held);
        self.ask()
    }

    /// Takes the first.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        self.held.pop_front()
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> VecDeque<Held> {
        std::mem::take(&mut self.held)
    }

    /// Takes what has waited long enough; returns when to look again, if there is more.
    pub(crate) fn look(&mut self, now: Duration) -> (Vec<Held>, Option<Duration>) {
        if self.due.is_none_or(|due| now < due) {
            // Somebody else asked, who is gone.
            return (Vec::new(), None);
        }
        self.due = None;
        let over = self.held.iter().take_while(|held| held.since + PATIENCE <= now).count();
        let over = self.held.drain(..over).collect();
        (over, self.ask())
    }

    fn ask(&mut self) -> Option<Duration> {
        if self.due.is_some() {
            return None;
        }
        self.due = self.held.front().map(|held| held.since + PATIENCE);
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(since: u64) -> Held {
        Held { since: Duration::from_secs(since), msg: Msg::Fenced }
    }

    #[test]
    fn each_waits_so_long_and_one_look_is_asked_for_at_a_time() {
        let secs = Duration::from_secs;
        let mut line = Line::default();
        assert_eq!(line.push(held(10)), Some(secs(15)));
        assert_eq!(line.push(held(12)), None);
        let (over, next) = line.look(secs(14));
        assert!(over.is_empty() && next.is_none(), "it was not asked for then");
        let (over, next) = line.look(secs(15));
        assert_eq!((over.len(), next), (1, Some(secs(17))));
        // The rest is taken; what comes then is looked at when that was due, and again when it has waited.
        assert_eq!(line.pop().map(|held| held.since), Some(secs(12)));
        assert_eq!(line.push(held(16)), None);
        let (over, next) = line.look(secs(17));
        assert_eq!((over.len(), next), (0, Some(secs(21))));
        assert_eq!(line.take().len(), 1);
        let (over, next) = line.look(secs(21));
        assert_eq!((over.len(), next), (0, None));
        assert_eq!(line.push_first(held(30)), Some(secs(35)));
    }
}
