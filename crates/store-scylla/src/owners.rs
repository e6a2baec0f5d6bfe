//! The accounts of which this process knows something: a bounded cache, in which what is in use or in doubt stays.

use crate::lane::Lane;
use parking_lot::Mutex;
use starling_xmpp::BareJid;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many accounts are looked at to make room for one.
const LOOKS: usize = 8;

/// Accounts by address.
pub(crate) struct Owners {
    state: Mutex<State>,
    limit: usize,
}

struct State {
    accounts: HashMap<BareJid, Arc<Account>>,
    /// All of them, in the order in which they are looked at. The map's own order differs from run to run.
    order: VecDeque<Arc<Account>>,
    weight: usize,
}

/// An account and all that is done to it here.
pub(crate) struct Account {
    pub(crate) jid: BareJid,
    pub(crate) lane: Mutex<Lane>,
    /// As counted in [`State::weight`], and changed only while that is locked.
    weight: AtomicUsize,
    used: AtomicBool,
}

impl Account {
    pub(crate) fn new(jid: BareJid) -> Self {
        Self { jid, lane: Mutex::default(), weight: AtomicUsize::new(1), used: AtomicBool::new(true) }
    }
}

impl Owners {
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { accounts: HashMap::new(), order: VecDeque::new(), weight: 0 };
        Self { state: Mutex::new(state), limit: limit.max(1) }
    }

    /// The account, if it is known.
    pub(crate) fn known(&self, jid: &BareJid) -> Option<Arc<Account>> {
        self.state.lock().accounts.get(jid).map(Arc::clone)
    }

    /// The account, known from now on.
    pub(crate) fn account(&self, jid: &BareJid) -> Arc<Account> {
        let mut state = self.state.lock();
        if let Some(account) = state.accounts.get(jid) {
            account.used.store(true, Ordering::Relaxed);
            return Arc::clone(account);
        }
        let account = Arc::new(Account::new(jid.clone()));
        state.accounts.insert(jid.clone(), Arc::clone(&account));
        state.order.push_back(Arc::clone(&account));
        state.weight += 1;
        state.make_room(self.limit);
        account
    }

    /// All that are known.
    pub(crate) fn all(&self) -> Vec<Arc<Account>> {
        self.state.lock().order.iter().map(Arc::clone).collect()
    }

    /// Counts what the account has become. Holds no lane while it is called.
    pub(crate) fn weigh(&self, account: &Account) {
        let now = account.lane.lock().weight();
        if account.weight.load(Ordering::Relaxed) == now {
            return;
        }
        let mut state = self.state.lock();
        // One that was dropped meanwhile is counted no more.
        if state.accounts.get(&account.jid).is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), account)) {
            state.weight = state.weight + now - account.weight.swap(now, Ordering::Relaxed);
            state.make_room(self.limit);
        }
    }
}

impl State {
    /// Drops what has not been used since it was looked at last.
    fn make_room(&mut self, limit: usize) {
        let mut looks = LOOKS;
        while self.weight > limit && looks > 0 {
            looks -= 1;
            let Some(account) = self.order.pop_front() else { return };
            // The map, the order, and here: nobody else has it.
            let idle = Arc::strong_count(&account) == 2;
            let idle = idle && account.lane.try_lock().is_some_and(|lane| lane.may_be_forgotten());
            if !idle || account.used.swap(false, Ordering::Relaxed) {
                self.order.push_back(account);
                continue;
            }
            self.accounts.remove(&account.jid);
            self.weight -= account.weight.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::testing::jid;

    #[test]
    fn forgets_what_is_not_used_and_keeps_what_is_in_doubt() {
        let owners = Owners::new(10);
        let name = |n: usize| jid(&format!("user{n}@x.org"));
        owners.account(&name(0)).lane.lock().doubt();
        let held = owners.account(&name(1));
        for n in 2..1_000 {
            owners.account(&name(n));
        }
        assert!(owners.state.lock().accounts.len() <= 12, "bounded");
        assert!(owners.known(&name(0)).is_some_and(|account| account.lane.lock().is_uncertain()));
        assert!(owners.known(&name(1)).is_some_and(|account| Arc::ptr_eq(&account, &held)));
        assert!(owners.known(&name(500)).is_none());
        assert!(owners.known(&name(999)).is_some());
    }
}
