//! `<r/>` that waits for its answer until the home has handled what came before it (XEP-0198 §4).

use std::collections::VecDeque;

/// Requests in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    /// Sequence that must be handled, and how many ask for it.
    waiting: VecDeque<(u64, u32)>,
}

impl Asks {
    /// One more `<r/>`, after the stanza of this sequence.
    pub(crate) fn ask(&mut self, sequence: u64) {
        match self.waiting.back_mut() {
            Some((last, count)) if *last == sequence => *count += 1,
            _ => self.waiting.push_back((sequence, 1)),
        }
    }

    /// How many may be answered now that all up to `handled` is handled.
    pub(crate) fn answerable(&mut self, handled: u64) -> u32 {
        let mut answers = 0;
        while let Some((_, count)) = self.waiting.pop_front_if(|(sequence, _)| *sequence <= handled) {
            answers += count;
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        answers
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Asks;

    #[test]
    fn answers_each_as_soon_as_its_stanzas_are_handled() {
        let mut asks = Asks::default();
        asks.ask(3);
        asks.ask(3);
        asks.ask(5);
        assert_eq!(asks.answerable(2), 0);
        assert_eq!(asks.answerable(4), 2);
        assert!(!asks.is_empty());
        assert_eq!(asks.answerable(5), 1);
        assert!(asks.is_empty());
    }
}
