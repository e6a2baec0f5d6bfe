//! Bugs between the store's decisions and its server.

use super::Planted;
use crate::clock::SimClock;
use crate::records::Records;
use crate::stage::Stage;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, ready, select};
use starling_node::clock::Clock;
use starling_store::{AccountRow, Position};
use starling_store_scylla::cql::{
    Answer, Bucket, BucketRow, Change, Cql, CqlError, DataKind, DataRow, Found, Level, Mutation, Owner,
    Partition, PurgeRow, ReignRow, Slice, Volume,
};
use starling_store_scylla::model::Connection;
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(1_900);

/// A way to the server that does what it is told, but for one thing.
#[derive(Clone)]
pub(crate) struct WrongCql {
    stage: Arc<Stage>,
    inner: Connection,
    clock: SimClock,
    planted: Option<Planted>,
}

impl WrongCql {
    pub(super) fn new(stage: &Arc<Stage>, inner: Connection, clock: SimClock) -> Self {
        Self { stage: stage.clone(), inner, clock, planted: stage.plan.planted }
    }

    fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    /// What becomes of a mutation.
    fn spoil(&self, mutation: &mut Mutation) {
        let at = mutation.at;
        match self.planted {
            Some(Planted::NoTombstones) => mutation.changes.retain(|change| !is_range(change)),
            Some(Planted::NoRewrite) => mutation.changes.retain(|change| match change {
                Change::PutRow(row, _) => !is_old(row.row.position, at),
                Change::PutPeer(position, ..) => !is_old(*position, at),
                _ => true,
            }),
            Some(Planted::KeepListings) => {
                mutation.changes.retain(|change| !matches!(change, Change::DropBuckets(..)));
            }
            Some(Planted::WallClock) if mutation.changes.iter().any(is_delete) => {
                // A clock that is right for people may be far from the positions that were given.
                mutation.at = Position(at.0 + 3_000_000);
            }
            Some(Planted::NoEnd) => {
                for change in &mut mutation.changes {
                    if let Change::PutRow(_, ttl) | Change::PutPeer(_, _, ttl) = change {
                        *ttl = None;
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a write of this kind is not waited for.
    fn is_hasty(&self, mutation: &Mutation) -> bool {
        match self.planted {
            Some(Planted::ListingEarly) => matches!(mutation.partition, Partition::Buckets(_)),
            Some(Planted::IndexEarly) => matches!(mutation.partition, Partition::Peer(..)),
            Some(Planted::MarkEarly) => mutation
                .changes
                .iter()
                .any(|change| matches!(change, Change::PutData(row) if row.kind == DataKind::Mark)),
            _ => false,
        }
    }

    /// What there is no answer to within this time is taken for this; the store's own patience is 2 s.
    fn taken_for<T: Send + 'static>(
        &self,
        instead: Result<T, CqlError>,
        within: Duration,
        answer: Answer<T>,
    ) -> Answer<T> {
        let impatience = self.inner.sleep(within);
        select(answer, impatience)
            .map(|first| match first {
                Either::Left((Err(CqlError::Unknown(_)), _)) | Either::Right(_) => instead,
                Either::Left((answer, _)) => answer,
            })
            .boxed()
    }

    /// Notes these rows when they are there.
    fn recorded(&self, rows: Vec<(String, String)>, done: Answer<()>) -> Answer<()> {
        let stage = self.stage.clone();
        done.map(move |answer| {
            if answer.is_ok() {
                stage.records.recorded(rows);
            }
            answer
        })
        .boxed()
    }

    /// Notes the rows that were read.
    fn read(&self, owner: &Owner, found: Answer<Vec<Found>>) -> Answer<Vec<Found>> {
        let (stage, owner) = (self.stage.clone(), owner.jid.clone());
        found
            .inspect(move |found| {
                if let Ok(found) = found {
                    stage.records.read(&owner, found);
                }
            })
            .boxed()
    }

    /// Some leave their process later, if it is not stopped before: whether or not anybody reigns elsewhere by then.
    fn send(&self, mutation: Mutation) -> Answer<()> {
        let often = self.stage.plan.lingering;
        if often == 0 || self.stage.healed().is_some() {
            return self.inner.write(mutation);
        }
        let mut dice = self.stage.dice();
        if !dice.permille(often) {
            return self.inner.write(mutation);
        }
        let (inner, most) = (self.inner.clone(), [2_000, 50_000, 400_000][dice.place(3)]);
        let leaves = self.inner.sleep(Duration::from_micros(dice.within(0..most)));
        leaves.then(move |()| inner.write(mutation)).boxed()
    }

    fn conditional(&self, answer: Answer<bool>) -> Answer<bool> {
        if self.has(Planted::RefusedInstead) { self.taken_for(Ok(false), PATIENCE, answer) } else { answer }
    }
}

fn is_range(change: &Change) -> bool {
    matches!(change, Change::DropRows(..) | Change::DropPeers(..) | Change::DropKind(_))
}

fn is_delete(change: &Change) -> bool {
    is_range(change) || matches!(change, Change::DropData(..) | Change::DropBuckets(..))
}

/// Rows are decided at most moments before they are written, and written again at a floor far above.
fn is_old(position: Position, at: Position) -> bool {
    position.0 + 1 < at.0
}

impl Cql for WrongCql {
    fn write(&self, mut mutation: Mutation) -> Answer<()> {
        self.spoil(&mut mutation);
        if mutation.changes.is_empty() {
            return ready(Ok(())).boxed();
        }
        if self.has(Planted::NewPosition) {
            let (again, inner) = (elsewhere(mutation.clone()), self.inner.clone());
            let unknown = Err(CqlError::Unknown("no answer".to_owned()));
            let first = self.taken_for(unknown, PATIENCE, self.inner.write(mutation));
            return first
                .then(move |answer| match (answer, again) {
                    (Err(CqlError::Unknown(_)), Some(again)) => inner.write(again),
                    (answer, _) => ready(answer).boxed(),
                })
                .boxed();
        }
        let hasty = self.is_hasty(&mutation);
        // The last attempt must not be the one that the store gives up, which is then in doubt by itself.
        let within = Duration::from_millis(if mutation.attempt < 3 { 1_200 } else { 1 });
        let told = self.stage.plan.told.then(|| summary(&mutation));
        let rows = Records::rows_of(&mutation);
        let done = self.send(mutation);
        let done = if rows.is_empty() { done } else { self.recorded(rows, done) };
        let done = match told {
            Some(told) => {
                let stage = self.stage.clone();
                stage.whisper(|| format!("writes {told}"));
                done.inspect(move |answer| stage.whisper(|| format!("wrote {told}: {answer:?}"))).boxed()
            }
            None => done,
        };
        if self.has(Planted::UncertainForgotten) {
            return self.taken_for(Err(CqlError::Refused("no answer".to_owned())), within, done);
        }
        if hasty { ready(Ok(())).boxed() } else { done }
    }

    fn data(&self, owner: &Owner) -> Answer<Vec<DataRow>> {
        self.inner.data(owner)
    }

    fn buckets(&self, owner: &Owner, from: Option<Bucket>, limit: usize) -> Answer<Vec<BucketRow>> {
        self.inner.buckets(owner, from, limit)
    }

    fn rows(&self, owner: &Owner, bucket: Bucket, slice: Slice) -> Answer<Vec<Found>> {
        self.read(owner, self.inner.rows(owner, bucket, slice))
    }

    fn rows_at(&self, owner: &Owner, bucket: Bucket, positions: Vec<Position>) -> Answer<Vec<Found>> {
        self.read(owner, self.inner.rows_at(owner, bucket, positions))
    }

    fn peers(
        &self,
        owner: &Owner,
        peer: &BareJid,
        volume: Volume,
        slice: Slice,
    ) -> Answer<Vec<(Position, Bucket)>> {
        self.inner.peers(owner, peer, volume, slice)
    }

    fn names(&self, domain: &str, slice: u16, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        self.inner.names(domain, slice, after, limit)
    }

    fn purges(&self, day: u32, slice: u16, after: Option<&Owner>, limit: usize) -> Answer<Vec<PurgeRow>> {
        self.inner.purges(day, slice, after, limit)
    }

    fn account(&self, jid: &BareJid, level: Level) -> Answer<Option<AccountRow>> {
        self.inner.account(jid, level)
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> Answer<bool> {
        self.conditional(self.inner.create_account(jid, row))
    }

    fn set_credentials(&self, owner: &Owner, before: Credentials, after: Credentials) -> Answer<bool> {
        self.conditional(self.inner.set_credentials(owner, before, after))
    }

    fn delete_account(&self, owner: &Owner) -> Answer<bool> {
        self.conditional(self.inner.delete_account(owner))
    }

    fn setting(&self, name: &str, level: Level) -> Answer<Option<Bytes>> {
        self.inner.setting(name, level)
    }

    fn create_setting(&self, name: &str, value: Bytes) -> Answer<bool> {
        self.conditional(self.inner.create_setting(name, value))
    }

    fn reign(&self) -> Answer<Option<ReignRow>> {
        self.inner.reign()
    }

    fn set_reign(&self, before: Option<(u64, u64)>, after: ReignRow) -> Answer<bool> {
        self.conditional(self.inner.set_reign(before, after))
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(time)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }
}

/// The same rows a moment later.
fn elsewhere(mut mutation: Mutation) -> Option<Mutation> {
    if !mutation.changes.iter().any(|change| matches!(change, Change::PutRow(..))) {
        return None;
    }
    mutation.at.0 += 1;
    for change in &mut mutation.changes {
        if let Change::PutRow(row, _) = change {
            row.row.position.0 += 1;
        }
    }
    Some(mutation)
}

/// A mutation in a few words.
fn summary(mutation: &Mutation) -> String {
    let change = |change: &Change| match change {
        Change::PutRow(row, _) => {
            let (row, closed) = (&row.row, row.safe);
            format!("row {} of {:?} safe {closed:?}", row.position.0, row.origin_id)
        }
        Change::PutData(row) => format!("{:?} {} {} {:?}", row.kind, row.name, row.number, row.body),
        other => format!("{other:?}"),
    };
    let changes: Vec<_> = mutation.changes.iter().map(change).collect();
    format!("{:?} at {} ({}): {}", mutation.partition, mutation.at.0, mutation.attempt, changes.join(", "))
}
