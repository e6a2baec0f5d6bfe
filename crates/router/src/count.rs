//! How much waits for an account's devices, for the limit on that.
//!
//! It is kept in memory from what is kept, read and lost. Only what waited before the home was loaded is not known: that is
//! counted in the log, once, when the first message is kept (`worker/counting.rs`).

use crate::config::RouterConfig;
use starling_store::Position;
use starling_xmpp::BareJid;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Accounts of which it is remembered when their homes are not in memory.
const MAX_REMEMBERED: usize = 16_384;

/// Messages, and the bytes of their stanzas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Amount {
    /// One message.
    pub(crate) fn of(bytes: usize) -> Self {
        Self { messages: 1, bytes: bytes as u64 }
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }

    /// Whether no more may be kept.
    pub(crate) fn is_full(self, config: &RouterConfig) -> bool {
        self.messages >= config.offline_messages || self.bytes >= config.offline_bytes
    }

    fn without(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// How far a sum is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// More may wait.
    AtLeast,
    Sure,
    /// Less may: of some of it nobody knows whether it was written.
    AtMost,
}

/// What is known of an account.
#[derive(Debug)]
pub(crate) struct Count {
    sum: Amount,
    /// What of it has come since it is being counted.
    since: Amount,
    /// Something was taken away meanwhile.
    less: bool,
    trust: Trust,
    /// It is being counted, or will be.
    asked: bool,
    not_before: Duration,
}

impl Count {
    /// Of a home that was just loaded; `waits`: something may.
    pub(crate) fn begin(waits: bool) -> Self {
        let trust = if waits { Trust::AtLeast } else { Trust::Sure };
        let (sum, since) = (Amount::default(), Amount::default());
        Self { sum, since, less: false, trust, asked: false, not_before: Duration::ZERO }
    }

    /// What is worth remembering of it.
    fn known(&self) -> Option<Amount> {
        let known = self.trust != Trust::AtLeast && !self.asked && self.sum.messages > 0;
        known.then_some(self.sum)
    }

    /// So much waited when it was last known. Since then it may have become less, and no more.
    fn remembers(&mut self, sum: Amount) {
        if self.trust == Trust::AtLeast {
            (self.sum, self.trust) = (sum, Trust::AtMost);
        }
    }

    /// Whether no more may be kept.
    pub(crate) fn is_full(&self, config: &RouterConfig) -> bool {
        self.sum.is_full(config)
    }

    /// Whether it is to be counted now that one more comes; it is taken as asked for.
    pub(crate) fn asks(&mut self, now: Duration, config: &RouterConfig) -> bool {
        let unknown = match self.trust {
            Trust::AtLeast => true,
            Trust::Sure => false,
            Trust::AtMost => self.is_full(config),
        };
        unknown && now >= self.not_before && !std::mem::replace(&mut self.asked, true)
    }

    /// One more waits.
    pub(crate) fn add(&mut self, bytes: usize) {
        let one = Amount::of(bytes);
        (self.sum, self.since) = (self.sum.and(one), self.since.and(one));
    }

    /// One less does.
    pub(crate) fn remove(&mut self, bytes: usize) {
        let one = Amount::of(bytes);
        (self.sum, self.since) = (self.sum.without(one), self.since.without(one));
        self.less = true;
    }

    /// Nothing does.
    pub(crate) fn clear(&mut self) {
        (self.sum, self.since) = (Amount::default(), Amount::default());
        (self.trust, self.less) = (Trust::Sure, true);
    }

    /// Some of it may not.
    pub(crate) fn doubt(&mut self) {
        if self.trust == Trust::Sure {
            self.trust = Trust::AtMost;
        }
        self.less = true;
    }

    /// More may than is known.
    pub(crate) fn miss(&mut self) {
        self.trust = Trust::AtLeast;
    }

    /// It is being counted from now on.
    pub(crate) fn starts(&mut self) {
        (self.since, self.less) = (Amount::default(), false);
    }

    /// So much waited when that began.
    pub(crate) fn ends(&mut self, counted: Amount) {
        self.sum = counted.and(self.since);
        self.trust = if self.less { Trust::AtMost } else { Trust::Sure };
        self.asked = false;
    }

    /// It could not be counted, and is not to be again before this moment.
    pub(crate) fn fails(&mut self, not_before: Duration) {
        (self.asked, self.not_before) = (false, not_before);
    }
}

/// What is known of accounts whose homes are not in memory, with the newest row that they had.
#[derive(Default)]
pub(crate) struct Remembered {
    counts: HashMap<BareJid, (Amount, Position)>,
    order: VecDeque<BareJid>,
}

impl Remembered {
    /// The home leaves memory.
    pub(crate) fn keep(&mut self, account: &BareJid, count: &Count, last: Position) {
        let Some(sum) = count.known() else { return };
        if self.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
        self.order.push_back(account.clone());
        self.counts.insert(account.clone(), (sum, last));
    }

    /// It is there again. A row that it did not have then may wait too.
    pub(crate) fn take(&mut self, account: &BareJid, count: &mut Count, last: Position) {
        if let Some((sum, then)) = self.counts.remove(account)
            && then == last
        {
            count.remembers(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_is_counted_once_and_kept() {
        let config = RouterConfig { offline_messages: 10, ..RouterConfig::default() };
        let mut count = Count::begin(true);
        assert!(count.asks(secs(1), &config) && !count.asks(secs(1), &config));
        count.add(7);
        count.starts();
        count.add(5);
        count.ends(Amount { messages: 8, bytes: 80 });
        assert_eq!(count.sum, Amount { messages: 9, bytes: 85 });
        assert!(!count.is_full(&config) && !count.asks(secs(2), &config));
        count.add(5);
        assert!(count.is_full(&config) && !count.asks(secs(2), &config), "it is certain");
        count.remove(5);
        assert!(!count.is_full(&config));
        count.clear();
        assert_eq!(count.sum, Amount::default());
        let mut count = Count::begin(false);
        assert!(!count.asks(secs(1), &config), "nothing waits");
        count.miss();
        assert!(count.asks(secs(1), &config));
        count.fails(secs(31));
        assert!(!count.asks(secs(30), &config) && count.asks(secs(31), &config));
    }

    #[test]
    fn it_is_remembered_as_long_as_nothing_new_is_there() {
        let config = RouterConfig { offline_messages: 2, ..RouterConfig::default() };
        let account = |n: usize| BareJid::parse(&format!("u{n}@localhost")).unwrap();
        let mut known = Count::begin(false);
        known.add(5);
        let mut remembered = Remembered::default();
        for n in 0..=MAX_REMEMBERED {
            remembered.keep(&account(n), &known, Position(7));
        }
        remembered.keep(&account(2), &Count::begin(true), Position(7));
        assert_eq!(remembered.counts.len(), MAX_REMEMBERED);
        for (n, last, is_known) in [(0, 7, false), (1, 7, true), (1, 7, false), (2, 8, false), (3, 7, true)] {
            let mut count = Count::begin(true);
            remembered.take(&account(n), &mut count, Position(last));
            assert_eq!(!count.asks(secs(1), &config), is_known, "{n}");
            count.add(5);
            assert_eq!(count.is_full(&config), is_known, "{n}");
        }
        let mut empty = Count::begin(false);
        remembered.take(&account(4), &mut empty, Position(7));
        assert_eq!(empty.sum, Amount::default(), "nothing waits there");
    }

    #[test]
    fn what_is_in_doubt_is_counted_before_more_is_refused_for_it() {
        let config = RouterConfig { offline_bytes: 100, ..RouterConfig::default() };
        let mut count = Count::begin(false);
        count.add(60);
        count.doubt();
        assert!(!count.asks(secs(1), &config), "there is room");
        count.add(60);
        assert!(count.is_full(&config) && count.asks(secs(1), &config));
        count.starts();
        count.ends(Amount::of(60));
        assert!(!count.is_full(&config));
        // What was taken away while it was counted may have been counted.
        assert!(!count.asks(secs(1), &config));
        count.starts();
        count.remove(60);
        count.ends(Amount { messages: 2, bytes: 120 });
        assert!(count.asks(secs(1), &config));
    }
}
