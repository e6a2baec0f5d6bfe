//! Credit: how much of one session may be on its way to its home.

use std::collections::VecDeque;

/// The most stanzas of one session that may be under way: what is remembered of such follows it.
pub use starling_node::config::MOST_CREDIT as MOST;

/// Counts what a session has sent and its home has not yet handled. When it is used up the edge stops
/// reading that session's socket, so that the client's own TCP window fills.
#[derive(Debug)]
pub struct Credit {
    stanzas: usize,
    bytes: usize,
    sizes: VecDeque<u32>,
    outstanding: usize,
    handled: u64,
}

impl Credit {
    /// Full credit: at most this many stanzas or bytes unhandled (one stanza is always allowed).
    pub fn new(stanzas: usize, bytes: usize) -> Self {
        Self { stanzas, bytes, sizes: VecDeque::new(), outstanding: 0, handled: 0 }
    }

    /// Takes credit for a stanza of this size and returns its sequence.
    pub fn spend(&mut self, size: usize) -> u64 {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.sizes.push_back(size);
        self.outstanding += size as usize;
        self.handled + self.sizes.len() as u64
    }

    /// The home has handled all up to this sequence.
    pub fn handled(&mut self, sequence: u64) {
        while self.handled < sequence {
            let Some(size) = self.sizes.pop_front() else { break };
            self.outstanding -= size as usize;
            self.handled += 1;
        }
        if self.sizes.is_empty() {
            self.sizes.shrink_to(0);
        }
    }

    /// Starts again after this sequence (a resumed session).
    pub fn resume_at(&mut self, sequence: u64) {
        self.sizes = VecDeque::new();
        self.outstanding = 0;
        self.handled = sequence;
    }

    /// Whether the socket may be read.
    pub fn is_open(&self) -> bool {
        self.sizes.len() < self.stanzas && self.outstanding < self.bytes
    }

    /// Highest sequence handled.
    pub fn handled_through(&self) -> u64 {
        self.handled
    }

    /// Highest sequence spent.
    pub fn spent_through(&self) -> u64 {
        self.handled + self.sizes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Credit;

    #[test]
    fn closes_at_either_bound_and_opens_again() {
        let mut credit = Credit::new(2, 100);
        assert_eq!(credit.spend(10), 1);
        assert!(credit.is_open());
        assert_eq!(credit.spend(10), 2);
        assert!(!credit.is_open());
        credit.handled(1);
        assert!(credit.is_open());
        assert_eq!(credit.spend(500), 3);
        assert!(!credit.is_open());
        credit.handled(3);
        assert!(credit.is_open());
        assert_eq!(credit.handled_through(), 3);
    }
}
