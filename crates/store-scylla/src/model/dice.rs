//! Chance from a seed, the same on every machine and with every version of everything.

use std::ops::Range;

/// A source of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Another source, which does not depend on how far this one is used afterwards.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)] // it never ends, and is no iterator for any other reason
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in the range, its lower bound where it is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        range.start + self.next() % width
    }

    /// A place in something of this length; 0 where it is empty.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.within(0..length as u64)).unwrap_or(0)
    }

    /// True in so many cases of a thousand.
    pub fn permille(&mut self, of: u16) -> bool {
        of > 0 && self.within(0..1_000) < u64::from(of)
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_same_seed_gives_the_same_numbers_within_bounds() {
        let (mut one, mut two) = (Dice::new(5), Dice::new(5));
        for _ in 0..1_000 {
            let number = one.within(10..20);
            assert_eq!(number, two.within(10..20));
            assert!((10..20).contains(&number));
        }
        assert_ne!(Dice::new(5).next(), Dice::new(6).next());
        assert!(!one.permille(0) && one.permille(1_000));
    }
}
