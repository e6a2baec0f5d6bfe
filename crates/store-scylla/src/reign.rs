//! Who reigns over the whole store: one row, changed under the condition that it is as it was read. In a cluster this is
//! the row of its era, and who reigns over a shard is none of its business.
//!
//! `grants` rises with every change, so that a condition on it holds once, and a watcher sees that somebody lives.

use crate::cql::{Cql, CqlError, ReignRow};
use crate::retry::Failure;
use crate::store::Inner;
use starling_store::{Claim, Position, Reign, Result, StoreError};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A claim is given up when the row has changed under it so often.
const RACES: usize = 10;
/// A reign that has not been granted anything for its lease and so long is over: what clocks may differ by.
const MARGIN: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(1);

impl<C: Cql> Inner<C> {
    /// Begins a reign, once the last one is over.
    pub(crate) async fn open_reign(&self, claim: Claim) -> Result<Reign> {
        let mut known = self.grants.lock().await;
        for _ in 0..RACES {
            let before = self.read_reign().await?;
            if let Some(row) = &before
                && row.instance != 0
                && row.instance != claim.instance
            {
                self.watch(row).await?;
            }
            let ceiling = before.as_ref().map_or(Position(0), |row| row.ceiling);
            let after = ReignRow {
                epoch: before.as_ref().map_or(1, |row| row.epoch + 1),
                // Strictly above every floor before: what closed an account under one of them may still be under way.
                ceiling: Position(ceiling.0 + 1),
                instance: claim.instance,
                name: claim.name.clone(),
                grants: before.as_ref().map_or(1, |row| row.grants + 1),
            };
            if self.replace(before.as_ref(), &after).await? {
                let reign = Reign { epoch: after.epoch, floor: after.ceiling };
                *known = Some(after);
                self.fenced.store(false, Ordering::Relaxed);
                return Ok(reign);
            }
        }
        Err(StoreError::Unavailable("others claim the store at the same time".to_owned()))
    }

    /// Waits whether somebody else's reign is over.
    async fn watch(&self, row: &ReignRow) -> Result<()> {
        let until = self.calls.deadline(Claim::lease(row.instance) + MARGIN);
        loop {
            self.calls.cql.sleep(LOOK).await;
            match self.read_reign().await? {
                Some(now) if (now.epoch, now.grants) != (row.epoch, row.grants) && now.instance != 0 => {
                    return Err(StoreError::Held(now.name));
                }
                Some(now) if now.instance == row.instance && self.calls.cql.monotonic() < until => {}
                _ => return Ok(()),
            }
        }
    }

    /// Grants positions, and holds the reign.
    pub(crate) async fn grant(&self, epoch: u64, ceiling: Position) -> Result<()> {
        self.change(epoch, |row| ReignRow { ceiling: row.ceiling.max(ceiling), ..row }).await
    }

    /// Ends a reign.
    pub(crate) async fn release(&self, epoch: u64) -> Result<()> {
        self.change(epoch, |row| ReignRow { instance: 0, ..row }).await
    }

    async fn change(&self, epoch: u64, change: impl Fn(ReignRow) -> ReignRow) -> Result<()> {
        let mut known = self.grants.lock().await;
        for _ in 0..RACES {
            let row = match known.take().filter(|row| row.epoch == epoch) {
                Some(row) => Some(row),
                None => self.read_reign().await?,
            };
            let Some(row) = row.filter(|row| row.epoch == epoch && row.instance != 0) else {
                self.fenced.store(true, Ordering::Relaxed);
                return Err(StoreError::Fenced);
            };
            let after = ReignRow { grants: row.grants + 1, ..change(row.clone()) };
            if self.replace(Some(&row), &after).await? {
                *known = Some(after);
                return Ok(());
            }
            // Not as it was known: what it is now says whether this reign is over.
        }
        Err(StoreError::Unavailable("the row of the reign keeps changing".to_owned()))
    }

    async fn read_reign(&self) -> Result<Option<ReignRow>> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        // In nobody's queue: all messages depend on the lease, and with them those who wait there.
        self.calls.call(until, |_| self.calls.cql.reign()).await.map_err(Failure::of_read)
    }

    /// Replaces the row, if it is as it was.
    async fn replace(&self, before: Option<&ReignRow>, after: &ReignRow) -> Result<bool> {
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        let seen = before.map(|row| (row.epoch, row.grants));
        loop {
            let failure = match self.calls.once(until, || self.calls.cql.set_reign(seen, after.clone())).await
            {
                Ok(made) => return Ok(made),
                Err(failure) => failure,
            };
            if !failure.doubt {
                return Err(failure.in_doubt());
            }
            let now = self.calls.call(until, |_| self.calls.cql.reign()).await.map_err(Failure::in_doubt)?;
            if now.as_ref() == Some(after) {
                return Ok(true);
            }
            if now.as_ref() != before {
                return Ok(false);
            }
            if self.calls.cql.monotonic() >= until {
                let last = CqlError::Unknown("no decision in time".to_owned());
                return Err(Failure { doubt: true, last }.in_doubt());
            }
        }
    }
}
