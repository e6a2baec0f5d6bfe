//! Accounts as such: made, changed and removed under a condition, and listed.
//!
//! These rows are written in no other way, so that timestamps of conditional and plain writes never mix. A conditional
//! write without an answer is followed by a read that sees what was decided.

use crate::codec::{self, Mark};
use crate::cql::{Answer, Change, Cql, Level, Mutation, Owner, Partition, PurgeRow};
use crate::load::done;
use crate::log::Opened;
use crate::owners::Account;
use crate::retry::{Failure, Outcome};
use crate::store::Inner;
use futures::future::{join, join_all, try_join_all};
use starling_store::{AccountRow, Position, Reign, Result, StoreError, StoredCredentials};
use starling_xmpp::BareJid;
use std::collections::VecDeque;
use std::time::Duration;

/// Accounts looked up, or slices read, side by side.
const ABREAST: usize = 32;
/// Names of one read at most.
const NAMES: usize = 1_000;

/// The wait before a conditional write is made again that had no answer.
const AGAIN: Duration = Duration::from_millis(50);

/// Keys are given up when they have changed meanwhile so often.
const RACES: usize = 3;

/// What a look at what was decided says of a conditional write that had no answer.
enum Decided {
    /// It was made.
    Made,
    /// It can be made no more.
    Refused,
    /// It was not made so far.
    Open,
}

impl<C: Cql> Inner<C> {
    /// Makes a conditional write: whether it was made.
    async fn conditional<'a, F>(
        &'a self,
        until: Duration,
        write: impl Fn() -> Answer<bool>,
        look: impl Fn() -> F,
    ) -> std::result::Result<bool, Failure>
    where
        F: Future<Output = std::result::Result<Decided, Failure>> + 'a,
    {
        let _places = self.calls.places(1, until).await.map_err(|last| Failure { doubt: false, last })?;
        let mut doubt = false;
        loop {
            let failure = match self.calls.once(until, &write).await {
                // It may be the one before that was made, and stands in the way of this one.
                Ok(false) if doubt => {
                    return Ok(matches!(look().await?, Decided::Made));
                }
                Ok(made) => return Ok(made),
                Err(failure) => failure,
            };
            doubt |= failure.doubt;
            let failure = Failure { doubt, ..failure };
            if !doubt {
                return Err(failure);
            }
            match look().await {
                Ok(Decided::Made) => return Ok(true),
                Ok(Decided::Refused) => return Ok(false),
                Ok(Decided::Open) if self.calls.cql.monotonic() + AGAIN < until => {
                    self.calls.cql.sleep(AGAIN).await;
                }
                _ => return Err(failure),
            }
        }
    }

    /// The account as conditional writes have left it.
    async fn decided(
        &self,
        jid: &BareJid,
        until: Duration,
    ) -> std::result::Result<Option<AccountRow>, Failure> {
        self.calls.call(until, |_| self.calls.cql.account(jid, Level::Serial)).await
    }

    /// The account's row.
    pub(crate) async fn account(&self, jid: &BareJid) -> Result<Option<AccountRow>> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        self.calls.read(until, || self.calls.cql.account(jid, Level::Quorum)).await
    }

    /// Makes an account. Has it to itself.
    ///
    /// What is written beside the row has the reign's floor for a timestamp: above all that was written to an account of this
    /// name before, and below all that will be.
    pub(crate) async fn create_account(
        &self,
        account: &Account,
        row: AccountRow,
        reign: Reign,
    ) -> Result<()> {
        account.lane.lock().enter(reign.epoch)?;
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        let jid = &account.jid;
        let cql = &self.calls.cql;
        if self.calls.read(until, || cql.account(jid, Level::Quorum)).await?.is_some() {
            return Err(StoreError::Exists);
        }
        let owner = Owner { jid: jid.clone(), generation: row.generation };
        let floor = account.lane.lock().above(reign.floor);
        // An older reign that has been asleep finds that this account is not its own.
        let claim = self.claim(&owner, (reign.epoch > 0).then_some(reign.epoch), floor, until);
        let name = self.calls.write_all(vec![name(jid, Change::PutName, floor)], until);
        let (claimed, named) = join(claim, name).await;
        claimed?;
        done(named)?;
        let made = self.conditional(
            until,
            || cql.create_account(jid, row.clone()),
            || async {
                Ok(match self.decided(jid, until).await? {
                    Some(found) if found.generation == row.generation => Decided::Made,
                    Some(_) => Decided::Refused,
                    None => Decided::Open,
                })
            },
        );
        match made.await {
            Ok(true) => {
                let mut lane = account.lane.lock();
                lane.claimed = (reign.epoch > 0).then_some((row.generation, reign.epoch));
                lane.settle(Some(Opened::new(owner, reign.epoch, floor)));
                Ok(())
            }
            Ok(false) => Err(StoreError::Exists),
            Err(failure) => {
                let mut lane = account.lane.lock();
                lane.opened = None;
                lane.claimed = None;
                Err(if failure.doubt { failure.in_doubt() } else { failure.of_read() })
            }
        }
    }

    /// Replaces an account's keys. Has it to itself.
    pub(crate) async fn set_credentials(
        &self,
        account: &Account,
        credentials: StoredCredentials,
        until: Duration,
    ) -> Outcome {
        let cql = &self.calls.cql;
        let row = match self.calls.read(until, || cql.account(&account.jid, Level::Quorum)).await {
            Ok(Some(row)) => row,
            Ok(None) => return Outcome::Written,
            Err(_) => return Outcome::Nothing(StoreError::Overloaded),
        };
        let owner = Owner { jid: account.jid.clone(), generation: row.generation };
        // What is read now may not be what was decided last; a refusal shows it.
        let mut before = row.credentials;
        for _ in 0..RACES {
            let set = self.conditional(
                until,
                || cql.set_credentials(&owner, before.clone(), credentials.clone()),
                || async {
                    Ok(match self.decided(&owner.jid, until).await? {
                        Some(row) if row.generation != owner.generation => Decided::Refused,
                        Some(row) if row.credentials == credentials => Decided::Made,
                        Some(row) if row.credentials == before => Decided::Open,
                        _ => Decided::Refused,
                    })
                },
            );
            match set.await {
                Ok(true) => return Outcome::Written,
                Ok(false) => {}
                Err(failure) => return failure.into(),
            }
            match self.decided(&owner.jid, until).await {
                Ok(Some(row)) if row.generation == owner.generation && row.credentials == credentials => {
                    return Outcome::Written;
                }
                Ok(Some(row)) if row.generation == owner.generation => before = row.credentials,
                // It is another account by now, or none.
                Ok(_) => {
                    account.lane.lock().settle(None);
                    return Outcome::Written;
                }
                Err(failure) => return Outcome::Doubt(failure.in_doubt()),
            }
        }
        Outcome::Doubt(StoreError::Unavailable("the keys of the account keep changing".to_owned()))
    }

    /// Removes an account. Has it to itself. Its rows go by and by: nobody finds them without it.
    ///
    /// A request that nobody answers may be carried out at any time later. So it is noted first that the account is being
    /// removed: once that is durable, the next load ends what was begun.
    pub(crate) async fn delete_account(
        &self,
        account: &Account,
        epoch: u64,
        at: Position,
        until: Duration,
    ) -> Outcome {
        let owner = match self.owner(account, until).await {
            Ok(Some(owner)) => owner,
            Ok(None) => return Outcome::Written,
            Err(_) => return Outcome::Nothing(StoreError::Overloaded),
        };
        // Not below what closed the account, which wrote that no such note was seen; nor may what closes it next be.
        let at = {
            let mut lane = account.lane.lock();
            lane.attempted = lane.above(at);
            lane.attempted
        };
        if self.note_purge(&owner, at, until).await.is_err() {
            return Outcome::Nothing(StoreError::Overloaded);
        }
        let changes = vec![Change::PutData(Mark::Removal.row(1))];
        let partition = Partition::Data(owner.clone());
        let note = Mutation { partition, at, changes, traces: Vec::new(), attempt: 1 };
        match self.calls.write_all(vec![note], until).await {
            Outcome::Written => {}
            failed => return failed,
        }
        // A later reign that has not seen the note has left its claim by now.
        let opened = account.lane.lock().opened.as_ref().map_or(0, |opened| opened.epoch);
        let epoch = if epoch > 0 { epoch } else { opened };
        match self.calls.read(until, || self.calls.cql.data(&owner)).await {
            Ok(data) if Mark::Claim.of(&data).is_some_and(|claim| claim > epoch) => {
                return Outcome::Doubt(StoreError::Fenced);
            }
            Ok(_) => {}
            Err(error) => return Outcome::Doubt(error),
        }
        match self.remove_account(account, &owner, at, until).await {
            Ok(()) => Outcome::Written,
            Err(failure) => Outcome::Doubt(failure.in_doubt()),
        }
    }

    /// Says that an owner's rows are to be removed, once there is no such account. The timestamp is above all that was written
    /// to it: those who remove them go by it.
    pub(crate) async fn note_purge(&self, owner: &Owner, at: Position, until: Duration) -> Result<()> {
        let today = codec::day((self.now)().as_secs());
        let row = PurgeRow { owner: owner.clone(), since: at.0, removed: false };
        let purge = Mutation {
            partition: Partition::Purges(today, codec::purge_slice(&owner.jid)),
            at,
            changes: vec![Change::PutPurge(row)],
            traces: Vec::new(),
            attempt: 1,
        };
        done(self.calls.write_all(vec![purge], until).await)
    }

    /// Removes the row of an account of which was noted that it is being removed.
    pub(crate) async fn remove_account(
        &self,
        account: &Account,
        owner: &Owner,
        at: Position,
        until: Duration,
    ) -> std::result::Result<(), Failure> {
        let removed = self.conditional(
            until,
            || self.calls.cql.delete_account(owner),
            || async {
                Ok(match self.decided(&owner.jid, until).await? {
                    Some(row) if row.generation == owner.generation => Decided::Open,
                    // Somebody else's account, or none: it was this one once, and is no more.
                    _ => Decided::Made,
                })
            },
        );
        // Where it was not this account any more there is nothing to remove.
        let removed = removed.await?;
        {
            let mut lane = account.lane.lock();
            lane.claimed = None;
            lane.marked = None;
            lane.settle(None);
        }
        if removed {
            // A name that stays is looked up in vain when accounts are listed.
            let name = name(&owner.jid, Change::DropName, at);
            if let Err(error) = done(self.calls.write_all(vec![name], until).await) {
                tracing::debug!(%error, "the name of a removed account stays listed");
            }
        }
        Ok(())
    }

    /// The account as the owner of rows, if there is one.
    async fn owner(&self, account: &Account, until: Duration) -> Result<Option<Owner>> {
        if let Some(opened) = &account.lane.lock().opened {
            return Ok(Some(opened.owner.clone()));
        }
        let row = self.calls.read(until, || self.calls.cql.account(&account.jid, Level::Quorum)).await?;
        Ok(row.map(|row| Owner { jid: account.jid.clone(), generation: row.generation }))
    }

    /// A page of a domain's accounts: all slices merged, each name looked up.
    pub(crate) async fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>> {
        let mut after = match after {
            Some(after) if after.domain() > domain => return Ok(Vec::new()),
            Some(after) if after.domain() == domain => Some(after.local().unwrap_or_default().to_owned()),
            _ => None,
        };
        let mut found = Vec::new();
        while found.len() < limit {
            let wanted = (limit - found.len()).min(NAMES);
            let (names, end) = self.names(domain, after.as_deref(), wanted).await?;
            after = names.last().cloned();
            for some in names.chunks(ABREAST) {
                let jids = some.iter().filter_map(|local| {
                    let text = if local.is_empty() { domain.to_owned() } else { format!("{local}@{domain}") };
                    BareJid::parse(&text).ok()
                });
                let looks = jids.map(|jid| async move {
                    let row = self.account(&jid).await?;
                    Ok::<_, StoreError>(row.map(|_| jid))
                });
                found.extend(try_join_all(looks).await?.into_iter().flatten());
            }
            if end {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The next names in order, and whether there are no more.
    async fn names(&self, domain: &str, after: Option<&str>, wanted: usize) -> Result<(Vec<String>, bool)> {
        let some = (wanted / usize::from(codec::NAME_SLICES) * 2 + 8).min(wanted.max(1));
        let mut slices = Vec::new();
        for first in (0..codec::NAME_SLICES).step_by(ABREAST) {
            let some = (first..first + ABREAST as u16).map(|slice| self.slice(domain, slice, after, some));
            for slice in join_all(some).await {
                slices.push(slice?);
            }
        }
        let mut names = Vec::new();
        while names.len() < wanted {
            // Few names and 256 slices: looking at each is cheap beside reading them.
            let next = slices.iter_mut().filter(|slice| !slice.names.is_empty());
            let Some(slice) = next.min_by(|one, other| one.names[0].cmp(&other.names[0])) else { break };
            names.extend(slice.names.pop_front());
            if slice.names.is_empty() && slice.more {
                let last = names.last().cloned();
                *slice = self.slice(domain, slice.slice, last.as_deref(), some).await?;
            }
        }
        let end = slices.iter().all(|slice| slice.names.is_empty());
        Ok((names, end))
    }

    async fn slice(&self, domain: &str, slice: u16, after: Option<&str>, some: usize) -> Result<NameSlice> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let names = self.calls.read(until, || self.calls.cql.names(domain, slice, after, some)).await?;
        Ok(NameSlice { slice, more: names.len() == some, names: names.into() })
    }
}

fn name(jid: &BareJid, change: fn(String) -> Change, at: Position) -> Mutation {
    let local = jid.local().unwrap_or_default();
    Mutation {
        partition: Partition::Names(jid.domain().to_owned(), codec::name_slice(local)),
        at,
        changes: vec![change(local.to_owned())],
        traces: Vec::new(),
        attempt: 1,
    }
}

/// What was read of one slice and not taken.
struct NameSlice {
    slice: u16,
    names: VecDeque<String>,
    more: bool,
}
