//! Which messages of an account no device has acknowledged yet.
//!
//! Only rows marked `offline` count. Of these the ones on their way to a session are held in memory (bounded by
//! the sessions' windows); what waits for nobody in particular is a stretch of the log that is not in memory at all.

use smallvec::SmallVec;
use starling_store::{Cursor, Position};
use starling_wire::Token;
use std::collections::{BTreeMap, BTreeSet};

/// How many acknowledged positions above the cursor are remembered.
const MAX_ABOVE: usize = 1_000;
/// How many messages that wait for nobody are remembered one by one.
const MAX_LOOSE: usize = 64;

/// The state of an account's deliveries.
#[derive(Debug)]
pub(crate) struct Deliveries {
    through: Position,
    above: BTreeSet<Position>,
    /// Not acknowledged, with the sessions that have been sent it.
    open: BTreeMap<Position, SmallVec<[Token; 2]>>,
    /// Rows in this stretch (exclusive, inclusive) may wait too and are not in `open`.
    backlog: Option<(Position, Position)>,
    /// The newest row that counts.
    newest: Position,
    dirty: bool,
}

impl Deliveries {
    /// As loaded: whatever lies above the cursor may wait.
    pub(crate) fn load(cursor: Cursor, last: Position) -> Self {
        let backlog = (last > cursor.through).then_some((cursor.through, last));
        Self {
            through: cursor.through,
            above: cursor.above.into_iter().collect(),
            open: BTreeMap::new(),
            backlog,
            newest: last,
            dirty: false,
        }
    }

    /// A message is on its way to this session.
    pub(crate) fn offered(&mut self, position: Position, token: Token) {
        self.newest = self.newest.max(position);
        let holders = self.open.entry(position).or_default();
        if !holders.contains(&token) {
            holders.push(token);
        }
    }

    /// A message waits, nobody is there to take it.
    pub(crate) fn kept(&mut self, position: Position) {
        self.newest = self.newest.max(position);
        match &mut self.backlog {
            Some((_, to)) => *to = (*to).max(position),
            None if self.open.len() < MAX_LOOSE => {
                self.open.entry(position).or_default();
            }
            None => self.backlog = Some((Position(position.0 - 1), position)),
        }
    }

    /// A device has acknowledged it.
    pub(crate) fn acknowledged(&mut self, position: Position) {
        if self.open.remove(&position).is_some() {
            self.above.insert(position);
            self.advance();
        }
    }

    /// A session is gone for good; what only it had been sent waits again.
    pub(crate) fn dropped(&mut self, token: Token) {
        for holders in self.open.values_mut() {
            holders.retain(|holder| *holder != token);
        }
    }

    /// Where to begin reading for what waits for nobody; `None` when nothing does.
    pub(crate) fn waiting_above(&self) -> Option<Position> {
        let loose = self
            .open
            .iter()
            .find(|(_, holders)| holders.is_empty())
            .map(|(position, _)| Position(position.0 - 1));
        let stretch = self.backlog.map(|(from, _)| from);
        match (loose, stretch) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether this row, read from the log, still waits and no session has it. Only what is known to wait does: the memory of
    /// what was acknowledged has a bound.
    pub(crate) fn wants(&self, position: Position) -> bool {
        match self.open.get(&position) {
            Some(holders) => holders.is_empty(),
            None => {
                let stretch = self.backlog.is_some_and(|(from, to)| from < position && position <= to);
                stretch && !self.above.contains(&position)
            }
        }
    }

    /// All waiting rows above `from` and up to `to` have been read and offered; what was not among them has expired.
    pub(crate) fn read_through(&mut self, from: Position, to: Position) {
        let before = self.open.len();
        self.open.retain(|at, holders| *at <= from || *at > to || !holders.is_empty());
        if self.open.len() != before {
            self.advance();
        }
        if let Some((start, end)) = self.backlog
            && from <= start
        {
            let start = start.max(to);
            self.backlog = (start < end).then_some((start, end));
            self.advance();
        }
    }

    /// How many are held in memory.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.open.len()
    }

    /// The cursor to be written, if it has moved since the last call.
    pub(crate) fn take_dirty(&mut self) -> Option<Cursor> {
        std::mem::take(&mut self.dirty)
            .then(|| Cursor { through: self.through, above: self.above.iter().copied().collect() })
    }

    /// The cursor that was taken to be written may not be.
    pub(crate) fn not_written(&mut self) {
        self.dirty = true;
    }

    /// Whether the cursor has moved.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn advance(&mut self) {
        let before_open = self.open.first_key_value().map(|(position, _)| Position(position.0 - 1));
        let before_backlog = self.backlog.map(|(from, _)| from);
        let bound = match (before_open, before_backlog) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) => a,
            (None, Some(b)) => b,
            (None, None) => self.newest,
        };
        if bound > self.through {
            self.through = bound;
            self.above = self.above.split_off(&Position(bound.0 + 1));
        }
        // Forgetting one only means that it may be delivered a second time after a restart.
        while self.above.len() > MAX_ABOVE {
            self.above.pop_first();
        }
        self.dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u128) -> Token {
        Token(n)
    }

    #[test]
    fn the_cursor_follows_the_lowest_open_row() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        for p in [10, 20, 30] {
            log.offered(Position(p), token(1));
        }
        log.acknowledged(Position(20));
        assert_eq!(log.take_dirty(), Some(Cursor { through: Position(9), above: vec![Position(20)] }));
        log.acknowledged(Position(10));
        assert_eq!(log.take_dirty(), Some(Cursor { through: Position(29), above: vec![] }));
        log.acknowledged(Position(30));
        assert_eq!(log.take_dirty(), Some(Cursor { through: Position(30), above: vec![] }));
        assert_eq!(log.take_dirty(), None);
    }

    #[test]
    fn a_backlog_holds_the_cursor_until_it_is_read() {
        let mut log =
            Deliveries::load(Cursor { through: Position(5), above: vec![Position(8)] }, Position(40));
        assert_eq!(log.waiting_above(), Some(Position(5)));
        assert!(!log.wants(Position(8)) && !log.wants(Position(5)) && log.wants(Position(9)));
        log.offered(Position(9), token(1));
        log.acknowledged(Position(9));
        assert_eq!(log.take_dirty().unwrap().through, Position(5), "rows of the backlog may lie between");
        log.read_through(Position(5), Position(40));
        assert_eq!(log.take_dirty().unwrap().through, Position(40));
        assert_eq!(log.waiting_above(), None);
    }

    #[test]
    fn what_a_lost_session_had_waits_again() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        log.offered(Position(10), token(1));
        log.offered(Position(20), token(1));
        log.offered(Position(20), token(2));
        assert_eq!(log.waiting_above(), None);
        log.dropped(token(1));
        assert_eq!(log.waiting_above(), Some(Position(9)));
        assert!(log.wants(Position(10)) && !log.wants(Position(20)));
    }

    #[test]
    fn what_waits_again_below_a_reader_is_kept() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        log.offered(Position(10), token(1));
        log.dropped(token(1));
        log.read_through(Position(50), Position(60));
        assert_eq!(log.waiting_above(), Some(Position(9)));
        assert!(log.wants(Position(10)));
    }

    #[test]
    fn what_was_acknowledged_long_ago_does_not_come_again() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        log.offered(Position(1), token(1));
        for p in 2..3_000 {
            log.offered(Position(p), token(2));
            log.acknowledged(Position(p));
        }
        log.dropped(token(1));
        assert_eq!(log.waiting_above(), Some(Position(0)));
        let wanted: Vec<_> = (1..3_000).filter(|p| log.wants(Position(*p))).collect();
        assert_eq!(wanted, [1]);
    }

    #[test]
    fn nothing_grows_while_nobody_is_there() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        for p in 1..10_000 {
            log.kept(Position(p * 10));
        }
        assert!(log.held() <= MAX_LOOSE);
        assert_eq!(log.waiting_above(), Some(Position(9)));
        log.read_through(Position(9), Position(99_990));
        assert_eq!(log.waiting_above(), None, "what was read and offered to nobody has expired");
    }
}
