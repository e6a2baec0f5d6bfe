//! Which segments a group's live records are in.

use std::collections::VecDeque;

/// Where the live records of one group are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) vote: Option<u64>,
    pub(crate) purge: Option<u64>,
    pub(crate) mark: Option<u64>,
    /// Spans of entries in order of their index.
    entries: VecDeque<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    segment: u64,
}

impl Places {
    /// Entries were appended; those from the first one's index on are gone.
    pub(crate) fn append(&mut self, first: u64, last: u64, segment: u64) {
        self.truncate(first);
        if let Some(span) = self.entries.back_mut()
            && span.segment == segment
            && span.last + 1 == first
        {
            span.last = last;
        } else {
            self.entries.push_back(Span { first, last, segment });
        }
    }

    /// Entries were written again.
    pub(crate) fn copy(&mut self, first: u64, last: u64, segment: u64) {
        let mut spans = VecDeque::with_capacity(self.entries.len() + 2);
        spans.extend(self.entries.iter().filter_map(|span| span.cut(0, first.checked_sub(1)?)));
        match spans.back_mut() {
            Some(span) if span.segment == segment && span.last + 1 == first => span.last = last,
            _ => spans.push_back(Span { first, last, segment }),
        }
        spans.extend(self.entries.iter().filter_map(|span| span.cut(last + 1, u64::MAX)));
        self.entries = spans;
    }

    /// Entries from an index on are gone.
    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some(span) = self.entries.back_mut() {
            if span.first < from {
                span.last = span.last.min(from - 1);
                return;
            }
            self.entries.pop_back();
        }
    }

    /// Entries up to an index are gone.
    pub(crate) fn purge(&mut self, upto: u64) {
        while let Some(span) = self.entries.front_mut() {
            if span.last > upto {
                span.first = span.first.max(upto + 1);
                return;
            }
            self.entries.pop_front();
        }
    }

    /// The oldest segment that is needed.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let entries = self.entries.iter().map(|span| span.segment);
        [self.vote, self.purge, self.mark].into_iter().flatten().chain(entries).min()
    }
}

impl Span {
    fn cut(self, first: u64, last: u64) -> Option<Self> {
        let cut = Self { first: self.first.max(first), last: self.last.min(last), ..self };
        (cut.first <= cut.last).then_some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(places: &Places) -> Vec<(u64, u64, u64)> {
        places.entries.iter().map(|span| (span.first, span.last, span.segment)).collect()
    }

    #[test]
    fn spans_follow_what_is_written() {
        let mut places = Places::default();
        places.append(1, 10, 1);
        places.append(11, 12, 1);
        places.append(13, 20, 2);
        places.append(15, 16, 3);
        assert_eq!(spans(&places), [(1, 12, 1), (13, 14, 2), (15, 16, 3)]);
        places.purge(5);
        assert_eq!(spans(&places), [(6, 12, 1), (13, 14, 2), (15, 16, 3)]);
        places.copy(6, 9, 4);
        assert_eq!(spans(&places), [(6, 9, 4), (10, 12, 1), (13, 14, 2), (15, 16, 3)]);
        assert_eq!(places.oldest(), Some(1));
        places.copy(10, 13, 4);
        assert_eq!(spans(&places), [(6, 13, 4), (14, 14, 2), (15, 16, 3)]);
        places.truncate(15);
        assert_eq!(spans(&places), [(6, 13, 4), (14, 14, 2)]);
        places.purge(13);
        assert_eq!(places.oldest(), Some(2));
        places.purge(100);
        assert_eq!(places.oldest(), None);
        places.vote = Some(1);
        assert_eq!(places.oldest(), Some(1));
    }

    #[test]
    fn the_first_index_is_no_trap() {
        let mut places = Places::default();
        places.append(0, 3, 1);
        places.copy(0, 1, 2);
        assert_eq!(spans(&places), [(0, 1, 2), (2, 3, 1)]);
        places.truncate(0);
        assert_eq!(places.oldest(), None);
    }
}
