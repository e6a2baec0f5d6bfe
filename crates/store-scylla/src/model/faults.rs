//! What goes wrong on the way to a server and in it.

use super::dice::Dice;
use crate::cql::Partition;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// How often what happens; numbers are of a thousand messages. Nothing by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// A request is lost on its way: never done, never answered.
    pub lost_requests: u16,
    /// An answer is lost: what was asked was done.
    pub lost_answers: u16,
    /// A request is refused as one too many; nothing was done.
    pub overloads: u16,
    /// A request is done twice, the second time late.
    pub doubles: u16,
    /// A replica does not take a write, now or ever.
    pub dropped: u16,
    /// A replica takes a write late, long after everybody gave up waiting (a hint).
    pub late: u16,
    /// How late at most.
    pub late_by: Duration,
    /// A message takes long, but not so long that all have given up.
    pub slow: u16,
    /// How long at most.
    pub slow_by: Duration,
    /// So many of a thousand partitions have writes that are dropped or late: those of a node, say.
    pub share: u16,
    /// Which ones.
    pub salt: u64,
    /// Who waits for a lost answer is told so after the server's timeout; in so many cases nobody ever tells.
    pub silent: u16,
}

impl Faults {
    /// A network and a server as one hopes for.
    pub const NONE: Self = Self {
        lost_requests: 0,
        lost_answers: 0,
        overloads: 0,
        doubles: 0,
        dropped: 0,
        late: 0,
        late_by: Duration::from_secs(180),
        slow: 0,
        slow_by: Duration::from_millis(1_500),
        silent: 100,
        share: 1_000,
        salt: 0,
    };

    /// A mixture of a seed's: often mild, sometimes of one kind only, sometimes of all.
    pub fn of(dice: &mut Dice) -> Self {
        let kinds = dice.next();
        let late = [1, 10, 60, 300][dice.place(4)];
        let most: u64 = [0, 5, 20, 80, 250][dice.place(5)];
        let mut some = |bit: u32| {
            let of = if most == 0 { 0 } else { dice.within(1..most + 1) };
            if kinds >> bit & 1 == 1 { u16::try_from(of).unwrap_or(0) } else { 0 }
        };
        Self {
            lost_requests: some(0),
            lost_answers: some(1),
            overloads: some(2) / 2,
            doubles: some(3),
            dropped: some(4),
            late: some(5),
            slow: some(6),
            late_by: Duration::from_secs(late),
            share: [1_000, 1_000, 400][dice.place(3)],
            salt: dice.next(),
            ..Self::NONE
        }
    }

    /// Whether writes to a partition may be dropped or late.
    pub(super) fn concern(&self, partition: &Partition) -> bool {
        if self.share >= 1_000 {
            return true;
        }
        let mut hash = Fnv(self.salt);
        partition.hash(&mut hash);
        Dice::new(hash.finish()).permille(self.share)
    }

    /// Whether any of them may make an attempt fail.
    pub fn may_fail(&self) -> bool {
        [self.lost_requests, self.lost_answers, self.overloads, self.dropped, self.late]
            .iter()
            .any(|of| *of > 0)
    }

    /// After how long everything has arrived that will.
    pub fn latest(&self) -> Duration {
        if self.late > 0 || self.doubles > 0 { self.late_by } else { self.slow_by }
    }

    /// How long a message takes that arrives.
    pub(super) fn latency(&self, dice: &mut Dice) -> Duration {
        let base = Duration::from_micros(dice.within(50..800));
        if dice.permille(self.slow) { base + part(dice, self.slow_by) } else { base }
    }

    /// How long it takes a write to get to a replica; `None` where it never does.
    pub(super) fn way(&self, concerned: bool, dice: &mut Dice) -> Option<Duration> {
        if !concerned {
            return Some(self.latency(dice));
        }
        if dice.permille(self.dropped) {
            return None;
        }
        Some(if dice.permille(self.late) { part(dice, self.late_by) } else { self.latency(dice) })
    }
}

/// The same on every machine and with every version of the standard library.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A part of a time.
pub(super) fn part(dice: &mut Dice, of: Duration) -> Duration {
    let micros = u64::try_from(of.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(dice.within(0..micros.max(1)))
}
