//! Which rows above the cursor are done with, as runs: from where to where nothing waits.
//!
//! A device that does not answer holds the cursor while others acknowledge what comes later. Then all of this is one run,
//! however much it is: there are hardly more runs than rows that wait, which is what sessions' windows bound.

use starling_store::Position;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// How many are remembered. It takes as many rows that wait, each between others that do not: several devices that do not
/// answer, each sent what the others were not. Then the shortest one is forgotten, and what was acknowledged in it may be
/// delivered a second time, should the home be lost before the cursor has passed it.
const MAX_RUNS: usize = 1_000;

/// Runs that are apart, by where they start.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<Position, Position>);

impl Runs {
    pub(super) fn of(runs: Vec<RangeInclusive<Position>>) -> Self {
        Self(runs.into_iter().map(RangeInclusive::into_inner).collect())
    }

    /// All of them, rising.
    pub(super) fn all(&self) -> Vec<RangeInclusive<Position>> {
        self.0.iter().map(|(start, end)| *start..=*end).collect()
    }

    pub(super) fn has(&self, position: Position) -> bool {
        self.0.range(..=position).next_back().is_some_and(|(_, end)| position <= *end)
    }

    /// One more row is done with. `is_clear`: whether nothing waits between two positions.
    pub(super) fn insert(&mut self, position: Position, is_clear: impl Fn(Position, Position) -> bool) {
        if self.has(position) {
            return;
        }
        let (mut first, mut last) = (position, position);
        if let Some((start, end)) = self.0.range(..position).next_back().map(|(start, end)| (*start, *end))
            && is_clear(end, position)
        {
            first = start;
        }
        if let Some((start, end)) = self.0.range(position..).next().map(|(start, end)| (*start, *end))
            && is_clear(position, start)
        {
            self.0.remove(&start);
            last = end;
        }
        self.0.insert(first, last);
        if self.0.len() > MAX_RUNS {
            self.forget_one();
        }
    }

    /// Less waits than before.
    pub(super) fn join(&mut self, is_clear: impl Fn(Position, Position) -> bool) {
        if self.0.len() < 2 {
            return;
        }
        let mut joined: Vec<(Position, Position)> = Vec::new();
        for (start, end) in std::mem::take(&mut self.0) {
            match joined.last_mut() {
                Some((_, last)) if is_clear(*last, start) => *last = end,
                _ => joined.push((start, end)),
            }
        }
        self.0 = joined.into_iter().collect();
    }

    /// The cursor covers what lies up to here.
    pub(super) fn forget_through(&mut self, bound: Position) {
        let rest = self.0.split_off(&Position(bound.0.saturating_add(1)));
        if let Some((_, end)) = std::mem::replace(&mut self.0, rest).pop_last()
            && end > bound
        {
            self.0.insert(Position(bound.0 + 1), end);
        }
    }

    fn forget_one(&mut self) {
        let shortest = self.0.iter().min_by_key(|(start, end)| end.0 - start.0).map(|(start, _)| *start);
        if let Some(start) = shortest {
            self.0.remove(&start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, end: u64) -> RangeInclusive<Position> {
        Position(start)..=Position(end)
    }

    #[test]
    fn runs_grow_join_and_are_cut() {
        let mut runs = Runs::of(vec![run(10, 12), run(20, 20)]);
        assert!(runs.has(Position(11)) && runs.has(Position(20)));
        assert!(!runs.has(Position(9)) && !runs.has(Position(13)) && !runs.has(Position(21)));
        // 15 waits.
        let waits = |from: Position, to: Position| !(from.0 < 15 && 15 < to.0);
        runs.insert(Position(14), waits);
        assert_eq!(runs.all(), [run(10, 14), run(20, 20)]);
        runs.insert(Position(17), waits);
        assert_eq!(runs.all(), [run(10, 14), run(17, 20)]);
        runs.insert(Position(18), waits);
        runs.insert(Position(30), waits);
        assert_eq!(runs.all(), [run(10, 14), run(17, 30)]);
        runs.join(waits);
        assert_eq!(runs.all().len(), 2);
        runs.join(|_, _| true);
        assert_eq!(runs.all(), [run(10, 30)]);
        runs.forget_through(Position(9));
        assert_eq!(runs.all(), [run(10, 30)]);
        runs.forget_through(Position(21));
        assert_eq!(runs.all(), [run(22, 30)]);
        runs.forget_through(Position(30));
        assert_eq!(runs.all(), []);
    }

    #[test]
    fn the_shortest_is_forgotten_when_they_are_too_many() {
        let mut runs = Runs::default();
        runs.insert(Position(1), |_, _| true);
        runs.insert(Position(8), |_, _| true);
        for n in 1..2 * MAX_RUNS as u64 {
            runs.insert(Position(10 * n), |_, _| false);
        }
        assert_eq!(runs.all().len(), MAX_RUNS);
        assert_eq!(runs.all().first(), Some(&run(1, 8)));
        assert!(runs.has(Position(10 * (2 * MAX_RUNS as u64 - 1))));
    }
}
