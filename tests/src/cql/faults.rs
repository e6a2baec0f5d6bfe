//! What a proxy is to do wrong, and what it has seen.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::frame::{Frame, opcode, string};

/// What to do to requests. Shares are between 0 and 1 and taken one after the other, as they stand here; only
/// statements on the store's own tables are touched, never the driver's.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Whether statements that write are touched.
    pub writes: bool,
    /// Whether statements that read are touched.
    pub reads: bool,
    /// Answered with an error, and not passed on.
    pub refused: f64,
    /// Which error.
    pub refusal: Refusal,
    /// Answered with success, and not passed on: a lie.
    pub lied: f64,
    /// Neither passed on nor answered.
    pub lost: f64,
    /// Passed on; the answer is thrown away.
    pub swallowed: f64,
    /// Passed on; the answer is replaced by a write timeout (a read timeout for reads).
    pub disowned: f64,
    /// The connection is cut in the middle of the request.
    pub cut: f64,
    /// Passed on after `delay`.
    pub late: f64,
    /// Answered `delay` late.
    pub slow: f64,
    /// How late: from half of it to all of it.
    pub delay: Duration,
    /// Nothing moves, in either direction, on any connection.
    pub stalled: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            writes: true,
            reads: true,
            refused: 0.0,
            refusal: Refusal::Overloaded,
            lied: 0.0,
            lost: 0.0,
            swallowed: 0.0,
            disowned: 0.0,
            cut: 0.0,
            late: 0.0,
            slow: 0.0,
            delay: Duration::ZERO,
            stalled: false,
        }
    }
}

/// Errors that a proxy answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server has too much to do; nothing was written.
    Overloaded,
    /// Too few replicas live; nothing was written.
    Unavailable,
    /// Some replicas did not answer; it may have been written.
    Timeout,
}

impl Refusal {
    /// The error as an answer to a request. (CQL protocol v4, section 9)
    pub(super) fn answer(self, request: &Frame, writes: bool) -> Frame {
        const LOCAL_QUORUM: [u8; 2] = 6_u16.to_be_bytes();
        let (code, text, rest): (i32, _, Vec<u8>) = match self {
            Self::Overloaded => (0x1001, "the proxy plays an overloaded server", Vec::new()),
            Self::Unavailable => {
                let [required, alive] = [2_i32, 1].map(i32::to_be_bytes);
                (0x1000, "the proxy plays dead replicas", [&LOCAL_QUORUM[..], &required, &alive].concat())
            }
            Self::Timeout => {
                let [received, wanted] = [1_i32, 2].map(i32::to_be_bytes);
                let start = [&LOCAL_QUORUM[..], &received, &wanted].concat();
                match writes {
                    true => (0x1100, "the proxy plays slow replicas", [start, string("SIMPLE")].concat()),
                    false => (0x1200, "the proxy plays slow replicas", [start, vec![0]].concat()),
                }
            }
        };
        request.answer(opcode::ERROR, [code.to_be_bytes().to_vec(), string(text), rest].concat())
    }
}

/// How often what has happened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Statements on the store's own tables that write.
    pub writes: AtomicU64,
    /// Those of them whose very bytes had come before: retries.
    pub repeated: AtomicU64,
    /// Statements on the store's own tables that read.
    pub reads: AtomicU64,
    /// Statements that something was done to.
    pub harmed: AtomicU64,
    /// Connections taken.
    pub connections: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Writes, and how many of them were retries.
    pub fn writes(&self) -> (u64, u64) {
        (self.writes.load(Relaxed), self.repeated.load(Relaxed))
    }

    /// How many statements something was done to.
    pub fn harmed(&self) -> u64 {
        self.harmed.load(Relaxed)
    }
}
