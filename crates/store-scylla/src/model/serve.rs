//! Statements.

use super::Connection;
use super::network::Live;
use super::register::{Register, Registers};
use super::table::{Key, Value};
use crate::cql::{
    Answer, Bucket, BucketRow, Change, Cql, DataKind, DataRow, Found, Level, Mutation, Owner, Partition,
    PurgeRow, ReignRow, Slice, Volume,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use starling_store::{AccountRow, Position};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::time::Duration;

impl Change {
    /// After how many seconds what it writes ends.
    pub(super) fn ttl(&self) -> Option<u32> {
        match self {
            Self::PutRow(_, ttl) | Self::PutPeer(_, _, ttl) => *ttl,
            _ => None,
        }
    }
}

impl Connection {
    fn read<T: Send + 'static>(
        &self,
        partition: Partition,
        bounds: (Key, Key),
        then: impl FnOnce(Live<'_>) -> T + Send + 'static,
    ) -> Answer<T> {
        match &self.model.0.world {
            Some(world) => self.read_through(world, partition, bounds, then),
            None => self.read_now(&partition, bounds, then),
        }
    }

    fn decide<T: Send + 'static>(
        &self,
        writes: bool,
        decide: impl FnOnce(&mut Registers, bool) -> T + Send + 'static,
    ) -> Answer<T> {
        match &self.model.0.world {
            Some(world) => self.decide_through(world, writes, decide),
            None => self.decide_now(decide),
        }
    }

    /// A conditional write to an account.
    fn account_change(
        &self,
        jid: &BareJid,
        change: impl FnOnce(&Option<AccountRow>) -> Option<Option<AccountRow>> + Send + 'static,
    ) -> Answer<bool> {
        let jid = jid.clone();
        self.decide(true, move |registers, show| {
            decide(registers.accounts.entry(jid).or_default(), show, change)
        })
    }
}

fn decide<T: Clone>(register: &mut Register<T>, show: bool, change: impl FnOnce(&T) -> Option<T>) -> bool {
    let applied = register.change(change);
    if show {
        register.spread();
    }
    applied
}

/// The rows of a slice, in its order.
fn slice<'a, T>(live: Live<'a>, slice: Slice, value: impl Fn(&'a Key, &'a Value) -> Option<T>) -> Vec<T> {
    let rows = live.rows();
    let found = |(key, of)| value(key, of);
    if slice.newest {
        rows.rev().filter_map(found).take(slice.limit).collect()
    } else {
        rows.filter_map(found).take(slice.limit).collect()
    }
}

fn found(value: &Value, damaged: &[Position]) -> Option<Found> {
    match value {
        Value::Row(stored) if damaged.contains(&stored.row.position) => {
            Some(Found::Unreadable(stored.row.position, "log.peer"))
        }
        Value::Row(stored) => Some(Found::Row(stored.as_ref().clone())),
        _ => None,
    }
}

impl Cql for Connection {
    fn write(&self, mutation: Mutation) -> Answer<()> {
        match &self.model.0.world {
            Some(world) => self.write_through(world, mutation),
            None => self.write_now(mutation),
        }
    }

    fn data(&self, owner: &Owner) -> Answer<Vec<DataRow>> {
        let bounds = (Key::Data(DataKind::Cursor, String::new()), Key::End);
        self.read(Partition::Data(owner.clone()), bounds, |live| {
            let rows = live.rows().filter_map(|(key, value)| match (key, value) {
                (Key::Data(kind, name), Value::Data(number, body)) => {
                    Some(DataRow { kind: *kind, name: name.clone(), number: *number, body: body.clone() })
                }
                _ => None,
            });
            rows.collect()
        })
    }

    fn buckets(&self, owner: &Owner, from: Option<Bucket>, limit: usize) -> Answer<Vec<BucketRow>> {
        let high = from.map_or(u64::MAX, |from| from.0.0);
        let whole = Slice { low: Position(0), high: Position(high), newest: true, limit };
        self.read(Partition::Buckets(owner.clone()), places(whole), move |live| {
            slice(live, whole, |key, value| match (key, value) {
                (Key::Place(place), Value::Bucket(volume, rows)) => {
                    Some(BucketRow { bucket: Bucket(Position(*place)), volume: *volume, rows: *rows })
                }
                _ => None,
            })
        })
    }

    fn rows(&self, owner: &Owner, bucket: Bucket, wanted: Slice) -> Answer<Vec<Found>> {
        let partition = Partition::Log(owner.clone(), bucket);
        let damaged = self.model.damaged();
        self.read(partition, places(wanted), move |live| {
            slice(live, wanted, |_, value| found(value, &damaged))
        })
    }

    fn rows_at(&self, owner: &Owner, bucket: Bucket, positions: Vec<Position>) -> Answer<Vec<Found>> {
        let low = positions.iter().min().copied().unwrap_or_default();
        let high = positions.iter().max().copied().unwrap_or_default();
        let partition = Partition::Log(owner.clone(), bucket);
        let damaged = self.model.damaged();
        self.read(partition, (Key::Place(low.0), Key::Place(high.0)), move |live| {
            let rows = live.rows().filter_map(|(_, value)| found(value, &damaged));
            rows.filter(|row| positions.contains(&row.position())).collect()
        })
    }

    fn peers(
        &self,
        owner: &Owner,
        peer: &BareJid,
        volume: Volume,
        wanted: Slice,
    ) -> Answer<Vec<(Position, Bucket)>> {
        let partition = Partition::Peer(owner.clone(), peer.clone(), volume);
        self.read(partition, places(wanted), move |live| {
            slice(live, wanted, |key, value| match (key, value) {
                (Key::Place(place), Value::Peer(bucket)) => Some((Position(*place), *bucket)),
                _ => None,
            })
        })
    }

    fn names(&self, domain: &str, of: u16, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        let low = Key::Name(after.map_or_else(String::new, |after| format!("{after}\0")));
        self.read(Partition::Names(domain.to_owned(), of), (low, Key::End), move |live| {
            let names = live.rows().filter_map(|(key, _)| match key {
                Key::Name(name) => Some(name.clone()),
                _ => None,
            });
            names.take(limit).collect()
        })
    }

    fn purges(&self, day: u32, of: u16, after: Option<&Owner>, limit: usize) -> Answer<Vec<PurgeRow>> {
        let after = after.cloned();
        let low = after.clone().map_or(Key::Place(0), Key::Purge);
        self.read(Partition::Purges(day, of), (low, Key::End), move |live| {
            let purges = live.rows().filter_map(|(key, value)| match (key, value) {
                (Key::Purge(owner), Value::Purge(since, removed)) => {
                    Some(PurgeRow { owner: owner.clone(), since: *since, removed: *removed })
                }
                _ => None,
            });
            purges.filter(|row| after.as_ref() != Some(&row.owner)).take(limit).collect()
        })
    }

    fn account(&self, jid: &BareJid, level: Level) -> Answer<Option<AccountRow>> {
        let jid = jid.clone();
        self.decide(false, move |registers, _| registers.accounts.entry(jid).or_default().read(level))
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> Answer<bool> {
        self.account_change(jid, move |old| old.is_none().then_some(Some(row)))
    }

    fn set_credentials(&self, owner: &Owner, before: Credentials, after: Credentials) -> Answer<bool> {
        let generation = owner.generation;
        self.account_change(&owner.jid, move |old| {
            let old = old.as_ref().filter(|row| row.generation == generation && row.credentials == before)?;
            Some(Some(AccountRow { credentials: after, ..old.clone() }))
        })
    }

    fn delete_account(&self, owner: &Owner) -> Answer<bool> {
        let generation = owner.generation;
        self.account_change(&owner.jid, move |old| {
            old.as_ref().filter(|row| row.generation == generation).map(|_| None)
        })
    }

    fn setting(&self, name: &str, level: Level) -> Answer<Option<Bytes>> {
        let name = name.to_owned();
        self.decide(false, move |registers, _| registers.settings.entry(name).or_default().read(level))
    }

    fn create_setting(&self, name: &str, value: Bytes) -> Answer<bool> {
        let name = name.to_owned();
        self.decide(true, move |registers, show| {
            let register = registers.settings.entry(name).or_default();
            decide(register, show, |old| old.is_none().then_some(Some(value)))
        })
    }

    fn reign(&self) -> Answer<Option<ReignRow>> {
        self.decide(false, |registers, _| registers.reign.read(Level::Serial))
    }

    fn set_reign(&self, before: Option<(u64, u64)>, after: ReignRow) -> Answer<bool> {
        self.decide(true, move |registers, show| {
            decide(&mut registers.reign, show, |old| {
                (old.as_ref().map(|row| (row.epoch, row.grants)) == before).then_some(Some(after))
            })
        })
    }

    fn monotonic(&self) -> Duration {
        match &self.process {
            Some(process) => process.world().now(),
            None => self.model.0.clock.monotonic(),
        }
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        match &self.process {
            Some(process) => process.sleep(time),
            None => Box::pin(tokio::time::sleep(time)),
        }
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.process {
            Some(process) => process.spawn(task),
            None => drop(tokio::spawn(task)),
        }
    }
}

fn places(slice: Slice) -> (Key, Key) {
    (Key::Place(slice.low.0), Key::Place(slice.high.0))
}
