//! What clients were promised beside messages.

use starling_xmpp::BareJid;
use std::time::Duration;

/// All of them, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Promises(Vec<Promise>);

#[derive(Debug, Clone)]
pub(crate) struct Promise {
    pub(crate) account: String,
    pub(crate) what: Demand,
    /// When the answer came that it is done.
    pub(crate) confirmed: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand {
    /// This contact has this name.
    Contact(String, String),
    /// The pest is blocked, or not, asked for then.
    Block(bool, Duration),
    /// The account has these keys.
    Keys(u8),
}

impl Promises {
    pub(crate) fn contact(&mut self, account: &BareJid, contact: &str, name: String) -> usize {
        self.push(account, Demand::Contact(contact.to_owned(), name))
    }

    pub(crate) fn block(&mut self, account: &BareJid, on: bool, now: Duration) -> usize {
        self.push(account, Demand::Block(on, now))
    }

    pub(crate) fn keys(&mut self, account: &BareJid, keys: u8) -> usize {
        self.push(account, Demand::Keys(keys))
    }

    fn push(&mut self, account: &BareJid, what: Demand) -> usize {
        self.0.push(Promise { account: account.as_str().to_owned(), what, confirmed: None });
        self.0.len() - 1
    }

    pub(crate) fn confirm(&mut self, place: usize, now: Duration) {
        if let Some(promise) = self.0.get_mut(place) {
            promise.confirmed = Some(now);
        }
    }

    pub(crate) fn all(&self) -> &[Promise] {
        &self.0
    }
}
