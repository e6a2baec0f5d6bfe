//! Deadlines of homes. Never cancelled: whoever is called looks whether the reason still holds.

use starling_wire::Token;
use starling_xmpp::BareJid;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Why a home wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// A detached session has waited long enough.
    Resume(Token),
    /// A client owes an `<a/>`.
    Acknowledge(Token),
    /// The cursor is to be written.
    Cursor,
    /// What it believes is to be read again.
    Reload,
    /// What a session is fed is to be read once more.
    Feed(Token),
    /// The tail of its log is to be read once more.
    Tail,
    /// What waits for the home may have waited long enough.
    Patience,
    /// What waits for its devices is to be counted further.
    Count,
    /// So may a sender have, for an answer.
    Answer,
    /// Other homes may not have answered.
    Resend,
    /// Nor their accounts, what was asked before they moved.
    Request,
    /// Edges have had their time to name sessions.
    Open,
    /// The log is to be read once more for sessions that were built.
    Unsent,
    /// Recorded sessions may be nobody's.
    Lost,
    /// What was said over the connection before has come, or will not.
    Drain(Token),
    /// The present edge of a session has all that another one had.
    Arrived(Token),
    /// A session that has ended has waited for other homes.
    Parted,
    /// What an edge is to remember of a session may go there again.
    Notes(Token),
    /// The link to a session's edge may take more.
    Room(Token),
    /// A session may be gone from its edge.
    Unseen(Token),
    /// Nobody may need this home any more.
    Evict,
}

struct Entry {
    at: Duration,
    account: BareJid,
    why: Why,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// All deadlines of a worker, on monotonic time.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Timers {
    /// Calls `account` at `at`.
    pub(crate) fn set(&mut self, at: Duration, account: BareJid, why: Why) {
        self.heap.push(Reverse(Entry { at, account, why }));
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.0.at)
    }

    /// Takes one that is due.
    pub(crate) fn due(&mut self, now: Duration) -> Option<(BareJid, Why)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.account, entry.why))
    }
}
