//! The log: what an account sent and received, in the order its home decided.
//!
//! One row per owner and accepted message. The archive (XEP-0313) reads rows marked `archived`; offline
//! messages (XEP-0160) are the rows marked `offline` that no device has acknowledged, which is what the
//! [`Cursor`] says.

use bytes::Bytes;
use compact_str::CompactString;
use starling_xmpp::{BareJid, Timestamp};
use std::ops::RangeInclusive;

/// Place of a row in its owner's log: microseconds since the Unix epoch when it was decided, made unique and
/// rising by the owner's home. Paging key, cursor key and (in CQL) write timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The moment this position stands for.
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.0)
    }
}

/// Where a message came from: fixed once at the accepting edge, the same on every retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin {
    /// The sending session's token.
    pub session: u128,
    /// The stanza's number in that session, from 1.
    pub sequence: u64,
}

/// Which way a message went, as its owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Received from the peer.
    In,
    /// Sent to the peer.
    Out,
    /// Sent to oneself: one row.
    Own,
}

/// One message in one account's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Whose log.
    pub owner: BareJid,
    /// Where in it.
    pub position: Position,
    /// Who sent it, for recognising a retry.
    pub origin: Origin,
    /// The sender's own id of it (XEP-0359 `origin-id`), for recognising a message resent in a new session.
    pub origin_id: Option<CompactString>,
    /// In, out or own.
    pub direction: Direction,
    /// The other side, bare.
    pub with: BareJid,
    /// Shown by the archive.
    pub archived: bool,
    /// To be kept until a device has acknowledged it (only rows that came in).
    pub offline: bool,
    /// When the row ends by itself; `None` where retention decides.
    pub expires: Option<Timestamp>,
    /// The stanza as decided, `Stanza::encode` form, without the owner's `stanza-id` (that is made from the position).
    pub stanza: Bytes,
}

/// What of an owner's log a reader wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// Archived rows only (archive queries) or all of them (delivery).
    pub archived: bool,
    /// Rows still to be delivered only: marked offline and not covered by the account's stored cursor.
    pub offline: bool,
    /// Only rows with this peer.
    pub with: Option<BareJid>,
    /// Not before this moment.
    pub start: Option<Timestamp>,
    /// Not after this moment.
    pub end: Option<Timestamp>,
    /// Only positions above this one (exclusive).
    pub above: Option<Position>,
    /// Only positions below this one (exclusive).
    pub below: Option<Position>,
}

/// Which end of the matching rows to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The oldest `limit` rows.
    First(usize),
    /// The newest `limit` rows (still returned oldest first).
    Last(usize),
}

/// Rows of one read, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// The rows.
    pub rows: Vec<LogRow>,
    /// No further matching row lies beyond this page in its direction.
    pub complete: bool,
    /// The search took too long and ended here, before the page was full: of the rows up to this position, in the page's
    /// direction, all that match are in it. The next page goes on behind it. `None` where the page is full or complete.
    pub reached: Option<Position>,
}

/// What an account's devices have acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Every row at or below is done with.
    pub through: Position,
    /// Above it, from where to where every row is done with too: rising and apart; bounded by its writer. Which positions
    /// between have rows does not matter.
    pub above: Vec<RangeInclusive<Position>>,
}

impl LogRow {
    /// Whether the row has ended by itself.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

impl LogFilter {
    /// The lowest and highest position that the bounds let through, both inclusive; `None` where they let none.
    pub fn bounds(&self) -> Option<(Position, Position)> {
        let low = self.start.map_or(0, |start| start.0).max(match self.above {
            Some(above) => above.0.checked_add(1)?,
            None => 0,
        });
        let high = self.end.map_or(u64::MAX, |end| end.0).min(match self.below {
            Some(below) => below.0.checked_sub(1)?,
            None => u64::MAX,
        });
        (low <= high).then_some((Position(low), Position(high)))
    }

    /// Whether a row is wanted, whatever its position: flags, peer and, for offline rows, the cursor.
    pub fn wants(&self, row: &LogRow, cursor: &Cursor) -> bool {
        (!self.archived || row.archived)
            && (!self.offline || (row.offline && !cursor.covers(row.position)))
            && self.with.as_ref().is_none_or(|with| *with == row.with)
    }
}

impl Cursor {
    /// Above this position nothing is done with.
    pub fn highest(&self) -> Position {
        self.above.last().map_or(self.through, |run| *run.end())
    }

    /// Whether a device has acknowledged the row at this position.
    pub fn covers(&self, position: Position) -> bool {
        let next = self.above.partition_point(|run| *run.end() < position);
        position <= self.through || self.above.get(next).is_some_and(|run| *run.start() <= position)
    }
}
