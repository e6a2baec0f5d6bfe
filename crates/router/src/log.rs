//! Which messages of an account no device has acknowledged yet.
//!
//! Only rows marked `offline` count. Of these the ones on their way to a session are held in memory (bounded by
//! the sessions' windows); what waits for nobody in particular is a stretch of the log that is not in memory at all.

use smallvec::SmallVec;
use starling_store::{Cursor, Position};
use starling_wire::Token;
use std::collections::BTreeMap;
use std::ops::Bound;

mod runs;

use self::runs::Runs;

/// How many messages that wait for nobody are remembered one by one.
const MAX_LOOSE: usize = 64;

/// How many rows that wait for nobody may lie above the cursor as it is written.
const MAX_PASSED: usize = 1_000;

/// The state of an account's deliveries.
#[derive(Debug)]
pub(crate) struct Deliveries {
    through: Position,
    above: Runs,
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
            above: Runs::of(cursor.above),
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

    /// A message is on its way to this session. False: it was before.
    pub(crate) fn offered(&mut self, position: Position, token: Token) -> bool {
        self.newest = self.newest.max(position);
        let holders = self.open.entry(position).or_default();
        let first = !holders.contains(&token);
        if first {
            holders.push(token);
        }
        first
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
            self.done_with(position);
        }
    }

    /// Whether it may wait: no device is known to have acknowledged it.
    pub(crate) fn may_wait(&self, position: Position) -> bool {
        position > self.through && !self.above.has(position)
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
            self.done_with(position);
        }
    }

    fn done_with(&mut self, position: Position) {
        let (open, backlog) = (&self.open, self.backlog);
        self.above.insert(position, |from, to| is_clear(open, backlog, from, to));
        self.advance();
    }

    /// All that waits above this row is known one by one.
    pub(crate) fn known_above(&mut self, position: Position) {
        if let Some((from, to)) = self.backlog {
            let to = to.min(position);
            self.backlog = (from < to).then_some((from, to));
            self.join();
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
                stretch && !self.above.has(position)
            }
        }
    }

    /// All waiting rows above `from` and up to `to` have been read and offered; what was not among them has expired.
    pub(crate) fn read_through(&mut self, from: Position, to: Position) {
        let before = self.open.len();
        self.open.retain(|at, holders| *at <= from || *at > to || !holders.is_empty());
        let mut fewer = self.open.len() != before;
        if let Some((start, end)) = self.backlog
            && from <= start
        {
            let start = start.max(to);
            self.backlog = (start < end).then_some((start, end));
            fewer = true;
        }
        if fewer {
            self.join();
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
        moved.then(|| Cursor { through: self.through, above: self.above.all() })
    }

    /// Whether it has.
    pub(crate) fn has_moved(&self) -> bool {
        self.dirty || self.passed > 0
    }

    /// The cursor that was taken may not have been written, or somebody waits for it.
    pub(crate) fn is_to_be_written(&mut self) {
        self.dirty = true;
    }

    /// Whether it is to be written soon.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Less may wait than before: runs that were apart for its sake are one.
    fn join(&mut self) {
        let (open, backlog) = (&self.open, self.backlog);
        self.above.join(|from, to| is_clear(open, backlog, from, to));
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
            self.above.forget_through(bound);
        }
    }
}

/// Whether nothing waits between these two, neither of them included.
fn is_clear(
    open: &BTreeMap<Position, SmallVec<[Token; 2]>>,
    backlog: Option<(Position, Position)>,
    from: Position,
    to: Position,
) -> bool {
    if to.0 <= from.0.saturating_add(1) {
        return true;
    }
    let stretch = backlog.is_some_and(|(start, end)| start.0 < to.0 - 1 && end > from);
    !stretch && open.range((Bound::Excluded(from), Bound::Excluded(to))).next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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
        assert_eq!(
            log.take_moved(),
            Some(Cursor { through: Position(9), above: vec![Position(20)..=Position(20)] })
        );
        log.acknowledged(Position(10));
        assert_eq!(log.take_moved(), Some(Cursor { through: Position(29), above: vec![] }));
        log.acknowledged(Position(30));
        assert_eq!(log.take_moved(), Some(Cursor { through: Position(30), above: vec![] }));
        assert_eq!(log.take_moved(), None);
    }

    #[test]
    fn a_backlog_holds_the_cursor_until_it_is_read() {
        let mut log = Deliveries::load(
            Cursor { through: Position(5), above: vec![Position(8)..=Position(8)] },
            Position(40),
        );
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

    /// As after a restart.
    fn again(log: &mut Deliveries, last: u64) -> Deliveries {
        let cursor = log.take_moved().unwrap_or_default();
        let bytes = starling_store::codec::rows::encode_cursor(&cursor);
        Deliveries::load(starling_store::codec::rows::decode_cursor(&bytes).unwrap(), Position(last))
    }

    #[test]
    fn one_that_does_not_answer_brings_nothing_back_of_what_others_acknowledged() {
        let mut log = Deliveries::load(Cursor::default(), Position(0));
        for p in 1..20_000 {
            // Every hundredth is for the one that does not answer.
            log.offered(Position(p), token(1 + u128::from(p % 100 > 0)));
            if p % 100 > 0 {
                log.acknowledged(Position(p));
            }
        }
        let log = again(&mut log, 19_999);
        let wanted: Vec<_> = (1..20_000).filter(|p| log.wants(Position(*p))).collect();
        let expected: Vec<_> = (1..200).map(|n| n * 100).collect();
        assert_eq!(wanted, expected);
    }

    #[test]
    fn a_restart_in_the_midst_of_anything_loses_nothing_and_repeats_nothing() {
        let mut random = 0x5eed_u64;
        let mut below = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        for _ in 0..300 {
            let mut log = Deliveries::load(Cursor::default(), Position(0));
            let (mut waiting, mut done) = (BTreeSet::new(), BTreeSet::new());
            let mut last = 0;
            for _ in 0..300 {
                last += 1 + below(3);
                let position = Position(last);
                match below(10) {
                    0 => log.passed(position),
                    1 => {
                        log.kept(position);
                        waiting.insert(position);
                    }
                    _ => {
                        log.offered(position, token(below(3).into()));
                        waiting.insert(position);
                    }
                }
                match below(12) {
                    0 => log.dropped(token(below(3).into())),
                    1 => {
                        // Somebody reads a few of those that wait, up to the newest.
                        let Some(mut from) = log.waiting_above() else { continue };
                        let rows: Vec<_> = waiting.range(Position(from.0 + 1)..).copied().collect();
                        let few = below(20) as usize;
                        for at in rows.iter().take(few) {
                            if log.wants(*at) {
                                log.offered(*at, token(0));
                            }
                            log.read_through(from, *at);
                            from = *at;
                        }
                        if rows.len() <= few {
                            log.read_through(from, position);
                        }
                    }
                    _ => {
                        let some = waiting.iter().nth(below(waiting.len().max(1) as u64) as usize).copied();
                        if let Some(at) = some.filter(|at| log.open.contains_key(at)) {
                            log.acknowledged(at);
                            waiting.remove(&at);
                            done.insert(at);
                        }
                    }
                }
                if below(100) == 0 {
                    log.dirty = true;
                    log = again(&mut log, last);
                    assert!(waiting.iter().all(|at| log.wants(*at)), "one is lost");
                    assert!(!done.iter().any(|at| log.wants(*at)), "one comes again");
                }
            }
        }
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
