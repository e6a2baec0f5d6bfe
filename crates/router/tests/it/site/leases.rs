//! What homes may do.

use super::Site;
use std::sync::atomic::Ordering;

impl Site {
    /// The lease over this account's shard is over.
    pub(crate) fn end_lease(&mut self, account: &str) {
        let shard = self.shard(account);
        if let Some(home) = &self.homes[usize::from(shard.0)] {
            home.until.store(0, Ordering::SeqCst);
        }
    }

    /// The home of this account's shard may give positions, or none at present.
    pub(crate) fn grant(&mut self, account: &str, any: bool) {
        let shard = self.shard(account);
        if let Some(home) = &self.homes[usize::from(shard.0)] {
            home.ceiling.store(if any { u64::MAX / 2 } else { 0 }, Ordering::SeqCst);
        }
    }

    /// It holds again.
    pub(crate) fn renew_lease(&mut self, account: &str) {
        let shard = self.shard(account);
        if let Some(home) = &self.homes[usize::from(shard.0)] {
            home.until.store(u64::MAX / 2, Ordering::SeqCst);
        }
    }
}
