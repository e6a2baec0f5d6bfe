//! [`Cql`] in statements.

use super::{
    About, Driver, Request, bind,
    cell::{Cell, bits, bound, position},
    decode,
    statements::Statement,
};
use crate::cql::{
    Answer, Bucket, BucketRow, Cql, CqlError, DataRow, Found, Level, Mutation, Owner, PurgeRow, ReignRow,
    Slice, Volume,
};
use crate::schema::REIGN;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_store::{AccountRow, Position};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::{sync::Arc, time::Duration};

/// Rows that a read without a limit of its own returns at most: an account that has more is damaged.
const ROWS: usize = 100_000;

/// Positions in one read of rows.
const POSITIONS: usize = 100;

impl Cql for Driver {
    fn write(&self, mutation: Mutation) -> Answer<()> {
        let longest = bind::longest_life(self.0.observer.clock.now_micros());
        let statement = match bind::first(&mutation, longest) {
            Ok(Some((statement, _))) => statement,
            Ok(None) => return futures::future::ready(Ok(())).boxed(),
            Err(error) => return futures::future::ready(Err(error)).boxed(),
        };
        let about = About {
            count: mutation.changes.len(),
            traces: mutation.traces.clone(),
            attempt: mutation.attempt,
            serial: false,
        };
        self.attempt(statement, about, move |request| async move {
            let mut bound = bind::mutation(&mutation, longest)?;
            match (bound.len(), bound.pop()) {
                (1, Some((_, values))) => request.execute(&values).await?,
                (_, last) => {
                    bound.extend(last);
                    request.batch(bound).await?
                }
            };
            Ok(())
        })
    }

    fn data(&self, owner: &Owner) -> Answer<Vec<DataRow>> {
        let owner = owner.clone();
        self.attempt(Statement::Data, About::PLAIN, move |request| async move {
            let decode = |page: &_, table, into: &mut _| {
                decode::each(page, table, |row: decode::Data<'_>| Ok(row.decode()), into)
            };
            let rows = request.all(&bind::keys(&owner), ROWS, decode).await?;
            Ok(rows.into_iter().flatten().collect())
        })
    }

    fn buckets(&self, owner: &Owner, from: Option<Bucket>, limit: usize) -> Answer<Vec<BucketRow>> {
        let owner = owner.clone();
        self.attempt(Statement::Buckets, About::PLAIN, move |request| async move {
            let [jid, generation] = bind::keys(&owner);
            let highest = from.map_or(Cell::Big(i64::MAX), |from| bound(from.0));
            let values = [jid, generation, highest, up_to(limit)];
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Listed::decode, into);
            request.all(&values, limit, decode).await
        })
    }

    fn rows(&self, owner: &Owner, bucket: Bucket, slice: Slice) -> Answer<Vec<Found>> {
        let owner = owner.clone();
        let statement = if slice.newest { Statement::RowsNewest } else { Statement::RowsOldest };
        self.attempt(statement, About::PLAIN, move |request| async move {
            let [jid, generation] = bind::keys(&owner);
            let (low, high) = (bound(slice.low), bound(slice.high));
            let values = [jid, generation, position(bucket.0)?, low, high, up_to(slice.limit)];
            messages(&request, &values, slice.limit, &owner.jid).await
        })
    }

    fn rows_at(&self, owner: &Owner, bucket: Bucket, positions: Vec<Position>) -> Answer<Vec<Found>> {
        if positions.is_empty() {
            return futures::future::ready(Ok(Vec::new())).boxed();
        }
        let owner = owner.clone();
        self.attempt(Statement::RowsAt, About::PLAIN, move |request| async move {
            if positions.len() > POSITIONS {
                return Err(CqlError::Invalid("too many positions in one read".to_owned()).into());
            }
            let [jid, generation] = bind::keys(&owner);
            let wanted = positions.iter().filter_map(|position| i64::try_from(position.0).ok()).collect();
            let values = [jid, generation, position(bucket.0)?, Cell::Bigs(wanted)];
            messages(&request, &values, POSITIONS, &owner.jid).await
        })
    }

    fn peers(
        &self,
        owner: &Owner,
        peer: &BareJid,
        volume: Volume,
        slice: Slice,
    ) -> Answer<Vec<(Position, Bucket)>> {
        let (owner, peer) = (owner.clone(), peer.clone());
        let statement = if slice.newest { Statement::PeersNewest } else { Statement::PeersOldest };
        self.attempt(statement, About::PLAIN, move |request| async move {
            let [jid, generation] = bind::keys(&owner);
            let (low, high) = (bound(slice.low), bound(slice.high));
            let peer = Cell::Text(peer.as_str());
            let values = [jid, generation, peer, position(volume.0)?, low, high, up_to(slice.limit)];
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Entry::decode, into);
            request.all(&values, slice.limit, decode).await
        })
    }

    fn names(&self, domain: &str, slice: u16, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        let (domain, after) = (domain.to_owned(), after.unwrap_or_default().to_owned());
        self.attempt(Statement::Names, About::PLAIN, move |request| async move {
            let values = [Cell::Text(&domain), Cell::Int(slice.into()), Cell::Text(&after), up_to(limit)];
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Name::decode, into);
            request.all(&values, limit, decode).await
        })
    }

    fn purges(&self, day: u32, slice: u16, after: Option<&Owner>, limit: usize) -> Answer<Vec<PurgeRow>> {
        let after = after.cloned();
        self.attempt(Statement::Purges, About::PLAIN, move |request| async move {
            let [day, slice] = bind::purges(day, slice);
            // No address is empty.
            let [jid, generation] = after.as_ref().map_or([Cell::Text(""), Cell::Big(0)], bind::keys);
            let values = [day, slice, jid, generation, up_to(limit)];
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Purge::decode, into);
            request.all(&values, limit, decode).await
        })
    }

    fn account(&self, jid: &BareJid, level: Level) -> Answer<Option<AccountRow>> {
        let jid = jid.clone();
        self.attempt(Statement::Account, at(level), move |request| async move {
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Account::decode, into);
            Ok(request.all(&[Cell::Text(jid.as_str())], 1, decode).await?.pop())
        })
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> Answer<bool> {
        let jid = jid.clone();
        self.attempt(Statement::CreateAccount, About::PLAIN, move |request| async move {
            let credentials = row.credentials.encode();
            let values = [
                Cell::Text(jid.as_str()),
                bits(row.generation),
                Cell::Blob(&credentials),
                bits(row.created.0),
                Cell::Bool(row.disabled),
            ];
            request.condition(&values).await
        })
    }

    fn set_credentials(&self, owner: &Owner, before: Credentials, after: Credentials) -> Answer<bool> {
        let owner = owner.clone();
        self.attempt(Statement::SetCredentials, About::PLAIN, move |request| async move {
            let (before, after) = (before.encode(), after.encode());
            let [jid, generation] = bind::keys(&owner);
            request.condition(&[Cell::Blob(&after), jid, generation, Cell::Blob(&before)]).await
        })
    }

    fn delete_account(&self, owner: &Owner) -> Answer<bool> {
        let owner = owner.clone();
        self.attempt(Statement::DeleteAccount, About::PLAIN, move |request| async move {
            request.condition(&bind::keys(&owner)).await
        })
    }

    fn setting(&self, name: &str, level: Level) -> Answer<Option<Bytes>> {
        let name = name.to_owned();
        self.attempt(Statement::Setting, at(level), move |request| async move {
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Setting::decode, into);
            Ok(request.all(&[Cell::Text(&name)], 1, decode).await?.pop())
        })
    }

    fn create_setting(&self, name: &str, value: Bytes) -> Answer<bool> {
        let name = name.to_owned();
        self.attempt(Statement::CreateSetting, About::PLAIN, move |request| async move {
            request.condition(&[Cell::Text(&name), Cell::Blob(&value)]).await
        })
    }

    fn reign(&self) -> Answer<Option<ReignRow>> {
        self.attempt(Statement::Reign, at(Level::Serial), move |request| async move {
            let decode =
                |page: &_, table, into: &mut _| decode::each(page, table, decode::Reign::decode, into);
            Ok(request.all(&[Cell::Text(REIGN)], 1, decode).await?.pop())
        })
    }

    fn set_reign(&self, before: Option<(u64, u64)>, after: ReignRow) -> Answer<bool> {
        let statement = if before.is_some() { Statement::SetReign } else { Statement::CreateReign };
        self.attempt(statement, About::PLAIN, move |request| async move {
            let number = |number| position(Position(number));
            let (epoch, ceiling) = (number(after.epoch)?, position(after.ceiling)?);
            let (instance, holder) = (Cell::Block(after.instance.to_be_bytes()), Cell::Text(&after.name));
            let (name, grants) = (Cell::Text(REIGN), number(after.grants)?);
            let values = match before {
                None => vec![name, epoch, ceiling, instance, holder, grants],
                Some((old, seen)) => {
                    vec![epoch, ceiling, instance, holder, grants, name, number(old)?, number(seen)?]
                }
            };
            request.condition(&values).await
        })
    }

    fn monotonic(&self) -> Duration {
        self.0.observer.clock.monotonic()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        async move { tokio::time::sleep(time).await }.boxed()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.runtime.spawn(task);
    }
}

async fn messages(
    request: &Arc<Request>,
    values: &[Cell<'_>],
    limit: usize,
    owner: &BareJid,
) -> Result<Vec<Found>, super::Failure> {
    let mut peer = None;
    let decode = |page: &_, table, into: &mut Vec<Found>| {
        decode::each(page, table, |row: decode::Message<'_>| row.found(owner, &mut peer), into)
    };
    request.all(values, limit, decode).await
}

fn up_to(limit: usize) -> Cell<'static> {
    // The server refuses a limit of 0.
    Cell::Int(i32::try_from(limit).unwrap_or(i32::MAX).max(1))
}

fn at(level: Level) -> About {
    About { serial: level == Level::Serial, ..About::PLAIN }
}
