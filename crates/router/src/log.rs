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

/// How many rows that wait for nobody may lie above the cursor as it is written.
const MAX_PASSED: usize = 1_000;

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
    /// Rows that the cursor has passed, since it was last written, because they wait for nobody.
    passed: usize,
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
            passed: 0,
        }
    }

    /// A row that waits for nobody is in the log. The cursor follows, or all such rows would be searched for those that wait;
    /// it is not written for that alone, unless they are many.
    pub(crate) fn passed(&mut self, position: Position) {
        self.newest = self.newest.max(position);
        let before = self.through;
        self.follow();
        if self.through > before {
            self.passed += 1;
            self.dirty |= self.passed >= MAX_PASSED;
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

    /// Whether it may wait: no device is known to have acknowledged it.
    pub(crate) fn may_wait(&self, position: Position) -> bool {
        position > self.through && !self.above.contains(&position)
    }

    /// It waits, whoever has been sent it.
    pub(crate) fn waits(&mut self, position: Position) {
        self.newest = self.newest.max(position);
        self.open.entry(position).or_default();
    }

    /// A device had acknowledged it before this home began.
    pub(crate) fn was_acknowledged(&mut self, position: Position) {
        self.open.remove(&position);
        if self.may_wait(position) {
            self.above.insert(position);
            self.advance();
        }
    }

    /// All that waits above this row is known one by one.
    pub(crate) fn known_above(&mut self, position: Position) {
        if let Some((from, to)) = self.backlog {
            let to = to.min(position);
            self.backlog = (from < to).then_some((from, to));
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
    pub(crate) fn take_moved(&mut self) -> Option<Cursor> {
        let moved = self.has_moved();
        (self.dirty, self.passed) = (false, 0);
        moved.then(|| Cursor { through: self.through, above: self.above.iter().copied().collect() })
    }

    /// Whether it has.
    pub(crate) fn has_moved(&self) -> bool {
        self.dirty || self.passed > 0
    }

    /// The cursor that was taken to be written may not be.
    pub(crate) fn not_written(&mut self) {
        self.dirty = true;
    }

    /// Whether it is to be written soon.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn advance(&mut self) {
        self.follow();
        self.dirty = true;
    }

    /// Moves the cursor as far as nothing waits.
    fn follow(&mut self) {
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
        assert_eq!(log.take_moved(), Some(Cursor { through: Position(9), above: vec![Position(20)] }));
        log.acknowledged(Position(10));
        assert_eq!(log.take_moved(), Some(Cursor { through: Position(29), above: vec![] }));
        log.acknowledged(Position(30));
        assert_eq!(log.take_moved(), Some(Cursor { through: Position(30), above: vec![] }));
        assert_eq!(log.take_moved(), None);
    }

    #[test]
    fn a_backlog_holds_the_cursor_until_it_is_read() {
        let mut log =
            Deliveries::load(Cursor { through: Position(5), above: vec![Position(8)] }, Position(40));
        assert_eq!(log.waiting_above(), Some(Position(5)));
        assert!(!log.wants(Position(8)) && !log.wants(Position(5)) && log.wants(Position(9)));
        log.offered(Position(9), token(1));
        log.acknowledged(Position(9));
        assert_eq!(log.take_moved().unwrap().through, Position(5), "rows of the backlog may lie between");
        log.read_through(Position(5), Position(40));
        assert_eq!(log.take_moved().unwrap().through, Position(40));
        assert_eq!(log.waiting_above(), None);
    }

    #[test]
    fn rows_that_wait_for_nobody_lie_below_the_cursor() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        log.passed(Position(10));
        assert!(!log.is_dirty() && log.has_moved());
        assert_eq!(log.take_moved(), Some(Cursor { through: Position(10), above: vec![] }));
        assert_eq!(log.take_moved(), None);
        log.kept(Position(20));
        for p in 21..3_000 {
            log.passed(Position(p));
        }
        assert_eq!(log.take_moved().unwrap().through, Position(19), "one waits");
        log.read_through(Position(19), Position(20));
        assert_eq!(log.take_moved().unwrap().through, Position(2_999));
        for p in 3_000..3_000 + MAX_PASSED as u64 {
            assert!(!log.is_dirty());
            log.passed(Position(p));
        }
        assert!(log.is_dirty());
        // What may wait has to be looked at first.
        let mut log = Deliveries::load(Cursor::default(), Position(5));
        log.passed(Position(6));
        assert_eq!(log.take_moved(), None);
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
