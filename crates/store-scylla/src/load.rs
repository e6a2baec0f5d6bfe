//! Loading an account: read it, close it, remember it.

use crate::buckets::Buckets;
use crate::closing::{self, Known, Needs, Seen};
use crate::codec::{self, Mark};
use crate::cql::{Bucket, BucketRow, Change, Cql, Found, Level, Mutation, Owner, Partition, Slice};
use crate::data::RosterMarks;
use crate::log::{MOST_ROWS, Opened};
use crate::owners::Account;
use crate::retry::{Failure, Outcome};
use crate::store::Inner;
use futures::future::{join, try_join_all};
use starling_store::codec::damaged;
use starling_store::{AccountState, Position, Reign, Result, StoreError};
use std::time::Duration;

/// Buckets of one account, at most: ten million rows of the usual size.
const MOST_BUCKETS: usize = 100_000;
/// Listings of one read.
const LISTINGS: usize = 1_000;
/// Rows of the first read of a bucket's end, and of each further one. The first one takes in what is under way together.
const TAIL: usize = MOST_ROWS + 1;
const MORE: usize = 256;
/// Buckets whose ends are read side by side: at first, and when these were empty.
const FIRST_BUCKETS: usize = 2;
const MORE_BUCKETS: usize = 8;

impl<C: Cql> Inner<C> {
    /// Loads an account under a reign. Nothing else is done to it meanwhile.
    pub(crate) async fn load(&self, account: &Account, reign: Reign) -> Result<Option<AccountState>> {
        let (uncertain, attempted, claimed, marked, opened) = {
            let mut lane = account.lane.lock();
            lane.enter(reign.epoch)?;
            // What an earlier reign knew is not to be gone by, even if this one does not get to know it.
            if lane.opened.as_ref().is_some_and(|opened| opened.epoch != reign.epoch) {
                lane.opened = None;
            }
            let opened =
                lane.opened.as_ref().map(|opened| (opened.owner.generation, opened.epoch, opened.closed_at));
            (lane.is_uncertain(), lane.attempted, lane.claimed, lane.marked, opened)
        };
        let _place = self.calls.load().await?;
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let level = if uncertain { Level::Serial } else { Level::Quorum };
        let row = self.calls.read(until, || self.calls.cql.account(&account.jid, level)).await?;
        let Some(row) = row else {
            let mut lane = account.lane.lock();
            lane.settle(None);
            lane.claimed = None;
            return Ok(None);
        };
        let owner = Owner { jid: account.jid.clone(), generation: row.generation };
        let closed =
            opened.filter(|(generation, epoch, _)| (*generation, *epoch) == (row.generation, reign.epoch));
        let known = Known { epoch: reign.epoch, closed: closed.is_some(), uncertain };
        // A closing that was broken off may write again what it saw: this one's floor lies above it.
        let floor = reign.floor.max(Position(attempted.0 + 1));
        let this = Some((row.generation, reign.epoch));
        let claim = (reign.epoch > 0 && claimed != this).then_some(reign.epoch);
        let (claimed, buckets) =
            join(self.claim(&owner, claim, floor, until), self.buckets(&owner, until)).await;
        claimed?;
        let buckets = buckets?;
        if reign.epoch > 0 {
            account.lane.lock().claimed = this;
        }
        let data = self.calls.read(until, || self.calls.cql.data(&owner));
        let (data, tail) = join(data, self.tail(&owner, &buckets, codec::HIGHEST, until)).await;
        let (data, (mut tail, mut safe)) = (data?, tail?);
        if let Some(from) = Mark::Closing.of(&data).filter(|from| *from <= safe.0) {
            (tail, safe) = self.tail(&owner, &buckets, Position(from.saturating_sub(1)), until).await?;
        }
        let seen = Seen { data, buckets, tail, safe };
        let needs = Needs::of(&seen.data, known)?;
        if Mark::Removal.of(&seen.data).is_some_and(|removal| removal != 0) {
            // Begun, and not confirmed: it may take place at any time, so it does so now.
            let until = self.calls.deadline(self.calls.settings.commit_deadline);
            // What was noted for the sweep may be done with: it has found the account alive.
            self.note_purge(&owner, floor, until).await?;
            self.remove_account(account, &owner, floor, until).await.map_err(Failure::in_doubt)?;
            return Ok(None);
        }
        let (buckets, closed_at) = if needs.log || needs.data {
            {
                let mut lane = account.lane.lock();
                lane.attempted = floor;
                lane.closing = true;
                if needs.data {
                    // The mark goes with the closing, whether or not that has an answer.
                    lane.marked = None;
                }
            }
            (self.close(&owner, &seen, needs, known, floor).await?, floor)
        } else {
            // One that was broken off may have closed it all the same: what is written below its floor is gone.
            (seen.buckets.clone(), closed.map_or(Position(0), |(_, _, closed_at)| closed_at).max(attempted))
        };
        let data_marked = reign.epoch == 0 || (!needs.data && marked == this);
        self.remember(account, owner, row, &seen, data_marked, reign, buckets, closed_at).map(Some)
    }

    #[allow(clippy::too_many_arguments)] // all that a load has found out
    fn remember(
        &self,
        account: &Account,
        owner: Owner,
        row: starling_store::AccountRow,
        seen: &Seen,
        data_marked: bool,
        reign: Reign,
        buckets: Vec<BucketRow>,
        closed_at: Position,
    ) -> Result<AccountState> {
        let last = seen.tail.first().map_or(Position(0), |(_, row)| row.position());
        let state = codec::state(row, &seen.data, last)?;
        let newest = buckets.last().map(|row| row.bucket);
        let of_it = || seen.rows().filter(|(bucket, _)| Some(*bucket) == newest).map(|(_, row)| row);
        let rows = of_it().map(|row| row.nth).max().unwrap_or(0);
        let bytes = of_it().map(|row| row.filled).max().unwrap_or(0);
        let opened = Opened {
            epoch: reign.epoch,
            closed_at,
            data_marked,
            buckets: Buckets::new(buckets, rows, bytes),
            roster: RosterMarks::of(&state),
            cursor: state.cursor.clone(),
            owner,
        };
        let mut lane = account.lane.lock();
        lane.settle(Some(opened));
        lane.knows(last);
        Ok(state)
    }

    /// Says that this reign is the account's, where it has not done so.
    pub(crate) async fn claim(
        &self,
        owner: &Owner,
        claim: Option<u64>,
        at: Position,
        until: Duration,
    ) -> Result<()> {
        let Some(epoch) = claim else { return Ok(()) };
        let changes = vec![Change::PutData(Mark::Claim.row(epoch))];
        let partition = Partition::Data(owner.clone());
        let claim = Mutation { partition, at, changes, traces: Vec::new(), attempt: 1 };
        done(self.calls.write_all(vec![claim], until).await)
    }

    async fn close(
        &self,
        owner: &Owner,
        seen: &Seen,
        needs: Needs,
        known: Known,
        floor: Position,
    ) -> Result<Vec<BucketRow>> {
        let closing = seen.closing(owner, needs, known, floor, (self.now)(), &self.calls.settings);
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        done(self.calls.write_all(closing.again, until).await)?;
        if needs.log {
            // From here on whoever comes reads from where this one deletes. One that has read before it is there.
            let data = self.calls.read(until, || self.calls.cql.data(owner)).await?;
            if Mark::Claim.of(&data).is_some_and(|claim| claim > known.epoch) {
                return Err(StoreError::Fenced);
            }
        }
        done(self.calls.write_all(closing.gone, until).await)?;
        for older in closing.older {
            done(self.calls.write_all(vec![older], until).await)?;
        }
        done(self.calls.write_all(closing.marks, until).await)?;
        Ok(closing.buckets)
    }

    /// All buckets of a log, oldest first.
    pub(crate) async fn buckets(&self, owner: &Owner, until: Duration) -> Result<Vec<BucketRow>> {
        let mut list: Vec<BucketRow> = Vec::new();
        loop {
            let from = list.last().map(|row| row.bucket.0.0.checked_sub(1));
            let from = match from {
                None => None,
                Some(Some(below)) => Some(Bucket(Position(below))),
                Some(None) => break,
            };
            let some = self.calls.read(until, || self.calls.cql.buckets(owner, from, LISTINGS)).await?;
            let more = some.len() == LISTINGS;
            list.extend(some);
            if !more {
                break;
            }
            if list.len() >= MOST_BUCKETS {
                return Err(damaged("list of buckets"));
            }
        }
        list.reverse();
        Ok(list)
    }

    /// The newest row and all above its `safe`, or `most` if that is lower, newest first; and which of them it was.
    async fn tail(
        &self,
        owner: &Owner,
        buckets: &[BucketRow],
        most: Position,
        until: Duration,
    ) -> Result<(Vec<(Bucket, Found)>, Position)> {
        let mut ends: Vec<(Bucket, Vec<Found>)> = Vec::new();
        let mut end = buckets.len();
        let mut some = FIRST_BUCKETS;
        // Which of them is the newest is told by one that can be read.
        let mut safe = None;
        while end > 0 && safe.is_none() {
            let begin = end.saturating_sub(some);
            let reads = buckets[begin..end].iter().rev().map(|row| async {
                let slice = Slice { low: Position(0), high: codec::HIGHEST, newest: true, limit: TAIL };
                let rows = self.rows(owner, row.bucket, slice, until).await?;
                Ok::<_, StoreError>((row.bucket, rows))
            });
            let read = try_join_all(reads).await?;
            let nothing = ends.is_empty();
            ends.extend(read.into_iter().skip_while(|(_, rows)| nothing && rows.is_empty()));
            let mut rows = ends.iter().flat_map(|(_, rows)| rows);
            safe = rows.find_map(|row| row.stored().map(|stored| stored.safe));
            end = begin;
            some = MORE_BUCKETS;
        }
        let Some(newest) = ends.first().map(|(bucket, _)| *bucket) else {
            return Ok((Vec::new(), Position(0)));
        };
        let safe = safe.unwrap_or_default().min(most);
        let first = closing::concerned(buckets, safe);
        let mut tail = Vec::new();
        let mut known = ends.into_iter();
        for row in buckets[first..].iter().rev().filter(|row| row.bucket <= newest) {
            let end = known.next().filter(|(bucket, _)| *bucket == row.bucket).map(|(_, rows)| rows);
            let rows = self.above(owner, row.bucket, safe, end, until).await?;
            tail.extend(rows.into_iter().map(|stored| (row.bucket, stored)));
        }
        Ok((tail, safe))
    }

    /// The rows of one bucket above a position, newest first, of which `end` was read already. The newest row stays in any case.
    async fn above(
        &self,
        owner: &Owner,
        bucket: Bucket,
        safe: Position,
        end: Option<Vec<Found>>,
        until: Duration,
    ) -> Result<Vec<Found>> {
        let low = Position(safe.0.saturating_add(1));
        let mut more = end.as_ref().is_none_or(|rows| rows.len() == TAIL);
        let mut rows = end.unwrap_or_default();
        while more {
            let high = match rows.last().map(Found::position) {
                None => codec::HIGHEST,
                Some(lowest) if lowest <= low => break,
                Some(lowest) => Position(lowest.0 - 1),
            };
            let slice = Slice { low, high, newest: true, limit: MORE };
            let read = self.rows(owner, bucket, slice, until).await?;
            more = read.len() == MORE;
            rows.extend(read);
        }
        let mut first = true;
        rows.retain(|row| std::mem::take(&mut first) || row.position() > safe);
        Ok(rows)
    }

    /// Writes the mark of data for the commits that wait, and makes sure that no later reign was there before.
    pub(crate) async fn mark_data(&self, account: &Account) -> Result<()> {
        let (owner, epoch, at) = {
            let lane = account.lane.lock();
            let (Some(opened), Some((at, _))) = (&lane.opened, lane.first()) else { return Ok(()) };
            (opened.owner.clone(), opened.epoch, at)
        };
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        let changes = vec![Change::PutData(Mark::Data.row(epoch))];
        let partition = Partition::Data(owner.clone());
        let mark = Mutation { partition, at, changes, traces: Vec::new(), attempt: 1 };
        done(self.calls.write_all(vec![mark], until).await)?;
        let data = self.calls.read(until, || self.calls.cql.data(&owner)).await?;
        if Mark::Claim.of(&data).is_some_and(|claim| claim > epoch) {
            return Err(StoreError::Fenced);
        }
        let mut lane = account.lane.lock();
        lane.marked = Some((owner.generation, epoch));
        if let Some(opened) = &mut lane.opened {
            opened.data_marked = true;
        }
        Ok(())
    }
}

/// As a call of which nobody need know what it has written.
pub(crate) fn done(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Written => Ok(()),
        Outcome::Nothing(error) | Outcome::Doubt(error) => Err(error),
    }
}

/// As a commit that has not begun: nothing of it was written.
pub(crate) fn not_begun(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(_) => StoreError::Overloaded,
        error => error,
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        if failure.doubt { Self::Doubt(failure.in_doubt()) } else { Self::Nothing(StoreError::Overloaded) }
    }
}
