//! What a session is yet to be given from the log.

use super::As;
use crate::aside::Behind;
use starling_store::Position;
use std::collections::VecDeque;

/// So many copies wait for a session to be available. Most clients ask for copies and say at once that they are.
const MAX_COPIES: usize = 64;

/// How a session gets what it could not be sent at once.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Reading what waited when the session became available: (from, through).
    pub(crate) waiting: Option<(Position, Position)>,
    /// Up to where to read once more from the beginning: something older waits again.
    pub(crate) again: Option<Position>,
    /// Messages for this session that did not fit its window; they are in the log.
    pub(crate) missed: VecDeque<(Position, As)>,
    /// Copies of what waits, while it is not available: they come in their place among that, or alone, when it is.
    copies: VecDeque<(Position, As)>,
    /// They became too many: copies go to it at once.
    silent: bool,
    /// What has no row and came behind these.
    pub(crate) behind: Behind,
    /// A read is under way.
    pub(crate) busy: bool,
    /// The session has been available: from then on what waits comes to it, in order with what is new.
    pub(crate) begun: bool,
    /// The highest row that had gone to it when it ceased to be.
    pub(crate) sent: Position,
}

impl Feed {
    /// Whether messages may go straight to the session.
    pub(crate) fn is_live(&self) -> bool {
        self.waiting.is_none() && self.missed.is_empty()
    }

    /// Whether a row does not go to the session before that is available; `older`: whether what is older waits for that, or may.
    /// Then copies wait as well, and come in order.
    pub(crate) fn holds(&mut self, position: Position, how: As, older: impl FnOnce() -> bool) -> bool {
        if self.begun {
            return false;
        }
        let copy = how != As::Itself;
        if copy && self.silent {
            return false;
        }
        let older = older();
        if copy && (older || !self.copies.is_empty()) && self.copies.len() < MAX_COPIES {
            self.copies.push_back((position, how));
            return true;
        }
        // It wants copies and never says that it is available, or something newer goes to it: they come before that.
        self.silent |= copy && !self.copies.is_empty();
        if self.silent || !older {
            self.missed.extend(std::mem::take(&mut self.copies));
        }
        !copy && older
    }

    /// A row has come itself, as one that waited: a copy of it is not due any more.
    pub(crate) fn came(&mut self, position: Position) {
        self.missed.pop_front_if(|(other, how)| *other == position && *how != As::Itself);
    }

    /// The session is available for the first time; false: it was before.
    pub(crate) fn begins(&mut self) -> bool {
        let copies = std::mem::take(&mut self.copies);
        self.silent = false;
        if !copies.is_empty() {
            self.missed.extend(copies);
            self.missed.make_contiguous().sort_by_key(|(position, _)| *position);
        }
        !std::mem::replace(&mut self.begun, true)
    }

    /// The last row that is to be read for it.
    pub(crate) fn last(&self) -> Option<Position> {
        let missed = self.missed.back().map(|(position, _)| *position);
        missed.max(self.waiting.map(|(_, through)| through))
    }

    /// Up to where none is to be read any more.
    pub(crate) fn given(&self) -> Position {
        let missed = self.missed.front().map(|(position, _)| Position(position.0.saturating_sub(1)));
        let waiting = self.waiting.map(|(from, _)| from);
        missed.into_iter().chain(waiting).min().unwrap_or(Position(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Position {
        Position(position)
    }

    #[test]
    fn copies_wait_behind_what_is_older_and_come_in_order() {
        let mut feed = Feed::default();
        assert!(!feed.holds(at(1), As::CopyReceived, || false), "nothing waits");
        assert!(feed.holds(at(2), As::Itself, || true), "it waits as itself");
        assert!(feed.holds(at(3), As::CopyReceived, || true));
        assert!(feed.holds(at(4), As::CopySent, || false), "it does not overtake the other one");
        assert!(feed.is_live());
        assert!(feed.begins());
        assert_eq!(feed.missed, [(at(3), As::CopyReceived), (at(4), As::CopySent)]);
        assert!(!feed.begins());
        assert!(!feed.holds(at(5), As::CopyReceived, || unreachable!("it is available")));
        feed.came(at(3));
        assert_eq!(feed.missed, [(at(4), As::CopySent)]);
    }

    #[test]
    fn copies_come_before_something_newer_that_goes_to_it() {
        let mut feed = Feed::default();
        assert!(feed.holds(at(1), As::CopyReceived, || true));
        assert!(!feed.holds(at(2), As::Itself, || false));
        assert_eq!(feed.missed, [(at(1), As::CopyReceived)]);
    }

    #[test]
    fn who_is_never_available_gets_copies_all_the_same() {
        let mut feed = Feed::default();
        let held = (0..).take_while(|n| feed.holds(at(*n), As::CopySent, || *n == 0)).count();
        assert_eq!((held, feed.missed.len()), (MAX_COPIES, MAX_COPIES), "none is lost");
        for n in 100..200 {
            assert!(!feed.holds(at(n), As::CopyReceived, || true));
            assert!(feed.holds(at(n), As::Itself, || true), "what is for others waits for them");
        }
        assert_eq!(feed.missed.len(), MAX_COPIES);
    }
}
