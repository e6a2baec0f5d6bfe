//! Of which accounts questions have no answer yet, or something has to be told of changes that may not be there.

use starling_xmpp::BareJid;
use std::collections::HashSet;

/// All of one worker.
#[derive(Debug, Default)]
pub(super) struct Asking(HashSet<BareJid>);

impl Asking {
    /// So many of an account are open.
    pub(super) fn looks(&mut self, account: &BareJid, questions: usize) {
        if questions > 0 {
            if !self.0.contains(account) {
                self.0.insert(account.clone());
            }
        } else if !self.0.is_empty() && self.0.remove(account) {
            self.0.shrink_to(64);
        }
    }

    /// All of them, in an order that is the same every time.
    pub(super) fn accounts(&self) -> Vec<BareJid> {
        let mut accounts: Vec<_> = self.0.iter().cloned().collect();
        accounts.sort_unstable();
        accounts
    }

    /// Whether there are none, where it is known of which accounts there may be.
    pub(super) fn are(&mut self, any: impl Fn(&BareJid) -> bool) -> bool {
        self.0.retain(|account| any(account));
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_its_answers_is_forgotten() {
        let mut asking = Asking::default();
        let jid = |n: usize| BareJid::parse(&format!("user{n}@localhost")).unwrap();
        for n in 0..1_000 {
            asking.looks(&jid(n), 1);
            asking.looks(&jid(n), 2);
        }
        for n in 1..1_000 {
            asking.looks(&jid(n), 1);
            asking.looks(&jid(n), 0);
        }
        assert_eq!(asking.0.len(), 1, "only who waits is remembered");
        assert!(asking.0.capacity() <= 128, "{}", asking.0.capacity());
        assert!(!asking.are(|account| *account == jid(0)));
        assert!(asking.are(|_| false), "its home is gone");
    }
}
