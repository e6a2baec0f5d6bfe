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
    /// They became too many: none waits any more.
    silent: bool,
    /// What has no row and came behind these.
    pub(crate) behind: Behind,
    /// A read is under way.
    pub(crate) busy: bool,
    /// The session has been available: from then on what waits comes to it, in order with what is new.
    pub(crate) begun: bool,
    /// The highest row that had gone to it when it ceased to be.
    pub(crate) sent: Position,
    /// How often it has ceased to be: what was decided before that does not begin anything now.
    pub(crate) ceased_times: u32,
}

impl Feed {
    /// Whether messages may go straight to the session.
    pub(crate) fn is_live(&self) -> bool {
        self.waiting.is_none() && self.missed.is_empty()
    }

    /// Whether a row does not go to the session before that is available; `older`: whether it waits itself for somebody to be, or
    /// what is older does. Then copies wait as well, and come in order; what is behind one does as long as `any` row waits.
    /// `waits`: whether this one still does; it may come itself.
    pub(crate) fn holds(
        &mut self,
        position: Position,
        how: As,
        older: impl FnOnce() -> bool,
        any: impl FnOnce() -> bool,
        waits: impl Fn(Position) -> bool,
    ) -> bool {
        if self.begun {
            return false;
        }
        let (copy, older) = (how != As::Itself, older());
        if copy && !self.silent && (older || !self.copies.is_empty() && any()) {
            if self.copies.len() < MAX_COPIES {
                self.copies.push_back((position, how));
                return true;
            }
            // It wants copies and never says that it is available: it gets those of what others have.
            self.silent = true;
        }
        let is_due = |position, how| how == As::CopySent || !waits(position);
        if self.silent || !older {
            // Before what is newer.
            let copies = std::mem::take(&mut self.copies).into_iter();
            self.missed.extend(copies.filter(|(position, how)| is_due(*position, *how)));
        }
        if copy { older && !is_due(position, how) } else { older }
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

    fn holds(feed: &mut Feed, position: u64, how: As, older: bool) -> bool {
        // Every second row is with somebody.
        feed.holds(at(position), how, || older, || true, |position| position.0 % 2 == 0)
    }

    #[test]
    fn copies_wait_behind_what_is_older_and_come_in_order() {
        let mut feed = Feed::default();
        assert!(!holds(&mut feed, 1, As::CopyReceived, false), "nothing waits");
        assert!(holds(&mut feed, 2, As::Itself, true), "it waits as itself");
        assert!(holds(&mut feed, 3, As::CopyReceived, true));
        assert!(holds(&mut feed, 4, As::CopySent, false), "it does not overtake the other one");
        assert!(feed.is_live());
        assert!(feed.begins());
        assert_eq!(feed.missed, [(at(3), As::CopyReceived), (at(4), As::CopySent)]);
        assert!(!feed.begins());
        let unasked = || unreachable!("it is available");
        assert!(!feed.holds(at(5), As::CopyReceived, unasked, || true, |_| true));
        feed.came(at(3));
        assert_eq!(feed.missed, [(at(4), As::CopySent)]);
    }

    #[test]
    fn copies_of_what_others_have_come_before_something_newer() {
        let mut feed = Feed::default();
        for position in 1..3 {
            assert!(holds(&mut feed, position, As::CopyReceived, true));
        }
        assert!(!holds(&mut feed, 3, As::Itself, false));
        assert_eq!(feed.missed, [(at(1), As::CopyReceived)], "the other one may yet come itself");
    }

    #[test]
    fn who_is_never_available_gets_copies_of_what_others_have() {
        let mut feed = Feed::default();
        for n in 0..MAX_COPIES as u64 {
            assert!(holds(&mut feed, n, As::CopyReceived, true));
            assert!(feed.is_live());
        }
        assert!(!holds(&mut feed, 101, As::CopyReceived, true), "somebody else has it");
        assert!(!holds(&mut feed, 102, As::CopySent, false));
        assert!(holds(&mut feed, 104, As::CopyReceived, true), "it may yet come itself");
        feed.begins();
        assert_eq!(feed.missed.len(), MAX_COPIES / 2);
    }
}
