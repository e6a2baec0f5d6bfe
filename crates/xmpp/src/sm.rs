//! The counters of stream management (XEP-0198 §4): how many stanzas one side has handled, modulo 2^32.
//!
//! All arithmetic on them is here, because each place that wrote it by hand got the turn at 2^32 wrong once.

use std::fmt;

/// A count of stanzas since stream management was enabled; after 2^32 - 1 comes 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counter(pub u32);

/// The peer acknowledged more than was sent to it: `undefined-condition` with `handled-count-too-high` (XEP-0198 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("acknowledged {h} stanzas of {sent} sent")]
pub struct HandledTooHigh {
    /// What the peer claims to have handled: the `h` of the error element.
    pub h: u32,
    /// What was sent: the `send-count` of the error element.
    pub sent: u32,
}

impl Counter {
    /// Counts one more stanza.
    pub const fn increment(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }

    /// The counter after this many more stanzas.
    #[must_use]
    pub const fn plus(self, stanzas: u32) -> Self {
        Self(self.0.wrapping_add(stanzas))
    }

    /// How many stanzas it takes to get here from `earlier`.
    pub const fn distance(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl From<Counter> for u32 {
    fn from(counter: Counter) -> Self {
        counter.0
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How many stanzas an `h` acknowledges anew, given the last accepted `h` and what was sent so far. All three are
/// counted modulo 2^32; fewer than 2^32 stanzas are ever under way.
///
/// # Errors
/// `h` lies outside of what is under way: above what was sent or, which modulo 2^32 is the same, below what was
/// acknowledged before.
pub const fn acked(acked: u32, h: u32, sent: u32) -> Result<u32, HandledTooHigh> {
    let newly = Counter(h).distance(Counter(acked));
    let under_way = Counter(sent).distance(Counter(acked));
    if newly > under_way { Err(HandledTooHigh { h, sent }) } else { Ok(newly) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_count_turns_at_its_end() {
        let mut counter = Counter(u32::MAX - 1);
        counter.increment();
        assert_eq!(counter, Counter(u32::MAX));
        counter.increment();
        assert_eq!(counter, Counter(0));
        assert_eq!(counter.distance(Counter(u32::MAX)), 1);
        assert_eq!(counter.plus(7), Counter(7));
    }

    #[test]
    fn acknowledgements_by_hand() {
        assert_eq!(acked(0, 0, 0), Ok(0));
        assert_eq!(acked(0, 1, 0), Err(HandledTooHigh { h: 1, sent: 0 }));
        assert_eq!(acked(3, 5, 5), Ok(2));
        assert_eq!(acked(3, 6, 5), Err(HandledTooHigh { h: 6, sent: 5 }));
        // Going back.
        assert_eq!(acked(3, 2, 5), Err(HandledTooHigh { h: 2, sent: 5 }));
        // Over the turn: 4294967294 and 4294967295 were handled, and 0.
        assert_eq!(acked(u32::MAX - 1, 1, 4), Ok(3));
        assert_eq!(acked(u32::MAX - 1, u32::MAX, 4), Ok(1));
        assert_eq!(acked(u32::MAX - 1, 5, 4), Err(HandledTooHigh { h: 5, sent: 4 }));
    }

    proptest! {
        /// Against arithmetic on 64 bits, where nothing turns.
        #[test]
        fn counts_as_if_it_never_turned(start in any::<u32>(), under_way in 0..=1000u64, h in 0..=2000u64) {
            let start = u64::from(start);
            let (acknowledged, claimed, sent) = (start as u32, (start + h) as u32, (start + under_way) as u32);
            let expected =
                if h <= under_way { Ok(h as u32) } else { Err(HandledTooHigh { h: claimed, sent }) };
            prop_assert_eq!(acked(acknowledged, claimed, sent), expected);
        }

        #[test]
        fn an_acknowledgement_never_goes_back(start in any::<u32>(), under_way in 0..1_000_000u32, back in 1..1_000_000u32) {
            let (h, sent) = (start.wrapping_sub(back), start.wrapping_add(under_way));
            prop_assert_eq!(acked(start, h, sent), Err(HandledTooHigh { h, sent }));
        }

        #[test]
        fn distance_undoes_plus(start in any::<u32>(), stanzas in any::<u32>()) {
            prop_assert_eq!(Counter(start).plus(stanzas).distance(Counter(start)), stanzas);
        }
    }
}
