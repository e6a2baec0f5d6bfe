//! The state machine of one shard: who is where, and who reigns. Pure: no clock, no randomness, no I/O.
//!
//! All routers apply the same operations in the same order, so all have the same rows. A reign is opened by
//! [`Op::Open`]; its epoch is the era and the index of that entry. What an older reign wants is refused, whenever it
//! arrives. A row is deleted only by its own token.

mod op;
mod rows;
mod snapshot;
#[cfg(test)]
mod tests;

pub use op::{Batch, Op};
pub use rows::{Rows, View};
pub use snapshot::{Restore, SnapshotError};

use crate::group::RecordError;
use starling_wire::{EdgeId, Epoch, Incarnation, RouterId, Token};
use starling_xmpp::{BareJid, FullJid};

/// The most sessions that one shard has rows for; binds above it are refused.
pub const MAX_ROWS: u64 = 1 << 23;

/// How many bits of an epoch are the index; above them is the era.
const INDEX_BITS: u32 = 40;

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whose session it is.
    pub token: Token,
    /// The edge that has its socket, or had it last.
    pub edge: EdgeId,
    /// The index of the entry that put it there: a fencing token.
    pub index: u64,
    /// The attempt at resuming that moved it there; 0 while it has not moved.
    pub attempt: u64,
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A reign is open. Its positions are above `floor` and below `ceiling`.
    Opened {
        /// Which reign.
        epoch: Epoch,
        /// Above the ceiling of the reign before.
        floor: u64,
        /// What it has been granted to begin with.
        ceiling: u64,
    },
    /// Positions below this one are granted.
    Granted {
        /// The first that is not.
        ceiling: u64,
    },
    /// The session is there.
    Bound {
        /// Its row.
        row: Row,
        /// Another session's row that was there before.
        replaced: Option<Row>,
    },
    /// The session is at its new edge.
    Moved {
        /// Its row.
        row: Row,
        /// The edge that it left; `None` if this attempt had moved it before.
        from: Option<EdgeId>,
    },
    /// The row is deleted.
    Unbound,
    /// There is no row of this token, so nothing was done.
    Absent,
    /// There are [`MAX_ROWS`] rows.
    Full,
    /// It came from another reign than this one, which is the last; nothing was done.
    Stale {
        /// The last reign's epoch.
        epoch: Epoch,
    },
    /// An operation of a later version, which this one cannot do.
    Unknown,
}

impl Outcome {
    /// What whoever asked for all of these together may believe: all or none of them. Where some were done and some were not,
    /// nobody knows either.
    ///
    /// # Errors
    /// What is not known to be done.
    pub fn judge(all: &[Self]) -> Result<(), RecordError> {
        let done = |outcome: &Self| {
            // A row of this name that is not there was taken over, or is unbound already: both are as good as done.
            matches!(outcome, Self::Bound { .. } | Self::Moved { .. } | Self::Unbound | Self::Absent)
        };
        if all.iter().all(done) {
            Ok(())
        } else if all.iter().any(|outcome| matches!(outcome, Self::Stale { .. })) {
            Err(RecordError::NotLeader)
        } else if all.iter().any(done) {
            Err(RecordError::Unknown)
        } else {
            Err(RecordError::Busy)
        }
    }
}

/// What a shard's machine holds beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last reign; 0 before the first.
    pub epoch: Epoch,
    /// Whose it is.
    pub router: u64,
    /// In which life of its process.
    pub incarnation: u64,
    /// All its positions are above.
    pub floor: u64,
    /// All that were ever granted are below.
    pub ceiling: u64,
}

/// The state machine of one shard.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    head: Head,
    rows: Rows,
}

impl Machine {
    /// A machine that was never told anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds beside its rows.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Does a batch, which is the entry of this index.
    pub fn apply(&mut self, index: u64, ops: &[Op]) -> Vec<Outcome> {
        ops.iter().map(|op| self.apply_one(index, op)).collect()
    }

    /// Where a session is.
    pub fn row(&self, jid: &FullJid) -> Option<&Row> {
        self.rows.row(jid.as_str())
    }

    /// An account's sessions, in the order of their addresses.
    pub fn of(&self, account: &BareJid) -> impl Iterator<Item = (&FullJid, &Row)> {
        self.rows.of(account)
    }

    /// How many rows there are.
    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All rows as they are now. It costs as much as there are parts; what changes from now on is copied, a part at a time.
    pub fn view(&self) -> View {
        View::new(self.head, self.rows.clone())
    }

    fn apply_one(&mut self, index: u64, op: &Op) -> Outcome {
        if let Some(epoch) = op.epoch()
            && epoch != self.head.epoch
        {
            return Outcome::Stale { epoch: self.head.epoch };
        }
        match op {
            Op::Open { era, incarnation, router, floor, ceiling } => {
                self.open(epoch(*era, index), *router, *incarnation, *floor, *ceiling)
            }
            Op::Grant { ceiling, .. } => {
                self.head.ceiling = self.head.ceiling.max(*ceiling);
                Outcome::Granted { ceiling: self.head.ceiling }
            }
            Op::Bind { jid, token, edge, .. } => {
                self.bind(jid, Row { token: *token, edge: *edge, index, attempt: 0 })
            }
            Op::Move { jid, token, edge, attempt, .. } => {
                self.r#move(jid, Row { token: *token, edge: *edge, index, attempt: *attempt })
            }
            Op::Unbind { jid, token, .. } => match self.row(jid) {
                Some(row) if row.token == *token => {
                    self.rows.remove(jid);
                    Outcome::Unbound
                }
                _ => Outcome::Absent,
            },
            Op::Unknown => Outcome::Unknown,
        }
    }

    fn open(
        &mut self,
        epoch: Epoch,
        router: RouterId,
        incarnation: Incarnation,
        floor: u64,
        ceiling: u64,
    ) -> Outcome {
        // An era that is over cannot begin again, whatever index it has come to.
        if epoch <= self.head.epoch {
            return Outcome::Stale { epoch: self.head.epoch };
        }
        // Strictly above every floor before: a reign may have been granted nothing, and two that close an account at the same
        // position would write over each other.
        let above = if self.head.epoch == Epoch::default() { 0 } else { self.head.ceiling.saturating_add(1) };
        let floor = floor.max(above);
        let ceiling = ceiling.max(floor);
        self.head = Head { epoch, router: router.0, incarnation: incarnation.0, floor, ceiling };
        Outcome::Opened { epoch, floor, ceiling }
    }

    fn bind(&mut self, jid: &FullJid, row: Row) -> Outcome {
        match self.row(jid).copied() {
            // Asked again, because the answer was lost. Where it has moved since, it stays.
            Some(there) if there.token == row.token => Outcome::Bound { row: there, replaced: None },
            None if self.rows.len() >= MAX_ROWS => Outcome::Full,
            replaced => {
                self.rows.insert(jid.clone(), row);
                Outcome::Bound { row, replaced }
            }
        }
    }

    fn r#move(&mut self, jid: &FullJid, row: Row) -> Outcome {
        match self.row(jid).copied() {
            Some(there) if there.token != row.token => Outcome::Absent,
            Some(there) if there.attempt == row.attempt && there.edge == row.edge => {
                Outcome::Moved { row: there, from: None }
            }
            Some(there) => {
                self.rows.insert(jid.clone(), row);
                Outcome::Moved { row, from: Some(there.edge) }
            }
            None => Outcome::Absent,
        }
    }
}

/// The epoch of a reign that the entry of this index opened.
pub fn epoch(era: u64, index: u64) -> Epoch {
    Epoch(era << INDEX_BITS | index & ((1 << INDEX_BITS) - 1))
}
