//! Rows as they come back. What is not as we write it is an error that names the column and nothing else.

use super::{cell::read, failure::unreadable};
use crate::cql::{
    Bucket, BucketRow, CqlError, DataKind, DataRow, Found, Owner, PurgeRow, ReignRow, StoredRow, Volume,
};
use bytes::Bytes;
use compact_str::CompactString;
use scylla::DeserializeRow;
use scylla::deserialize::row::DeserializeRow;
use scylla::response::query_result::QueryRowsResult;
use scylla::value::{CqlValue, Row};
use starling_store::{AccountRow, Direction, LogRow, Origin, Position};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};

/// All rows of a page, each through `decode`.
pub(super) fn each<'frame, R, T>(
    page: &'frame QueryRowsResult,
    table: &'static str,
    mut decode: impl FnMut(R) -> Result<T, CqlError>,
    into: &mut Vec<T>,
) -> Result<(), CqlError>
where
    R: DeserializeRow<'frame, 'frame>,
{
    let rows = page.rows::<R>().map_err(|_| unreadable(table))?;
    into.reserve(page.rows_num());
    for row in rows {
        into.push(decode(row.map_err(|_| unreadable(table))?)?);
    }
    Ok(())
}

#[derive(DeserializeRow)]
pub(super) struct Data<'a> {
    kind: &'a str,
    name: &'a str,
    number: i64,
    body: &'a [u8],
}

impl Data<'_> {
    /// `None` for a kind that a newer version has written: it is not for this one.
    pub(super) fn decode(self) -> Option<DataRow> {
        Some(DataRow {
            kind: DataKind::parse(self.kind)?,
            name: self.name.to_owned(),
            number: self.number.cast_unsigned(),
            body: Bytes::copy_from_slice(self.body),
        })
    }
}

#[derive(DeserializeRow)]
pub(super) struct Listed {
    bucket: i64,
    volume: i64,
    rows: i32,
}

impl Listed {
    pub(super) fn decode(self) -> Result<BucketRow, CqlError> {
        Ok(BucketRow {
            bucket: Bucket(read(self.bucket, "log_buckets.bucket")?),
            volume: Volume(read(self.volume, "log_buckets.volume")?),
            rows: u32::try_from(self.rows).map_err(|_| unreadable("log_buckets.rows"))?,
        })
    }
}

#[derive(DeserializeRow)]
pub(super) struct Message<'a> {
    position: i64,
    nth: Option<i32>,
    filled: Option<i32>,
    safe: Option<i64>,
    session: Option<&'a [u8]>,
    sequence: Option<i64>,
    origin_id: Option<&'a str>,
    direction: Option<i8>,
    peer: Option<&'a str>,
    archived: Option<bool>,
    offline: Option<bool>,
    expires: Option<i64>,
    stanza: Option<&'a [u8]>,
}

impl Message<'_> {
    /// `peer` is the last one that was read: the next row is often with the same.
    pub(super) fn found(self, owner: &BareJid, peer: &mut Option<BareJid>) -> Result<Found, CqlError> {
        let position = read(self.position, "log.position")?;
        Ok(match self.decode(position, owner, peer) {
            Ok(stored) => Found::Row(stored),
            Err(column) => Found::Unreadable(position, column),
        })
    }

    /// The column that cannot be read is the error.
    fn decode(
        self,
        position: Position,
        owner: &BareJid,
        peer: &mut Option<BareJid>,
    ) -> Result<StoredRow, &'static str> {
        let of = self.peer.ok_or("log.peer")?;
        let with = match peer.take() {
            Some(peer) if peer.as_str() == of => peer,
            _ => BareJid::parse(of).map_err(|_| "log.peer")?,
        };
        *peer = Some(with.clone());
        let session = self.session.and_then(|session| <[u8; 16]>::try_from(session).ok());
        Ok(StoredRow {
            row: LogRow {
                owner: owner.clone(),
                position,
                origin: Origin {
                    session: u128::from_be_bytes(session.ok_or("log.session")?),
                    sequence: self.sequence.ok_or("log.sequence")?.cast_unsigned(),
                },
                origin_id: self.origin_id.filter(|id| !id.is_empty()).map(CompactString::new),
                direction: match self.direction {
                    Some(0) => Direction::In,
                    Some(1) => Direction::Out,
                    Some(2) => Direction::Own,
                    _ => return Err("log.direction"),
                },
                with,
                archived: self.archived.ok_or("log.archived")?,
                offline: self.offline.ok_or("log.offline")?,
                expires: self.expires.filter(|end| *end != 0).map(|end| Timestamp(end.cast_unsigned())),
                // A copy: a row must not keep the whole page in memory.
                stanza: Bytes::copy_from_slice(self.stanza.ok_or("log.stanza")?),
            },
            nth: self.nth.and_then(|nth| u32::try_from(nth).ok()).ok_or("log.nth")?,
            filled: self.filled.and_then(|filled| u32::try_from(filled).ok()).ok_or("log.filled")?,
            safe: self.safe.and_then(|safe| u64::try_from(safe).ok()).map(Position).ok_or("log.safe")?,
        })
    }
}

#[derive(DeserializeRow)]
pub(super) struct Entry {
    position: i64,
    bucket: i64,
}

impl Entry {
    pub(super) fn decode(self) -> Result<(Position, Bucket), CqlError> {
        let position = read(self.position, "log_by_peer.position")?;
        Ok((position, Bucket(read(self.bucket, "log_by_peer.bucket")?)))
    }
}

#[derive(DeserializeRow)]
pub(super) struct Name<'a> {
    local: &'a str,
}

impl Name<'_> {
    pub(super) fn decode(self) -> Result<String, CqlError> {
        Ok(self.local.to_owned())
    }
}

#[derive(DeserializeRow)]
pub(super) struct Purge<'a> {
    jid: &'a str,
    generation: i64,
    since: i64,
    removed: bool,
}

impl Purge<'_> {
    pub(super) fn decode(self) -> Result<PurgeRow, CqlError> {
        let jid = BareJid::parse(self.jid).map_err(|_| unreadable("purges.jid"))?;
        let owner = Owner { jid, generation: self.generation.cast_unsigned() };
        Ok(PurgeRow { owner, since: self.since.cast_unsigned(), removed: self.removed })
    }
}

#[derive(DeserializeRow)]
pub(super) struct Account<'a> {
    generation: i64,
    credentials: &'a [u8],
    created: i64,
    disabled: bool,
}

impl Account<'_> {
    pub(super) fn decode(self) -> Result<AccountRow, CqlError> {
        Ok(AccountRow {
            generation: self.generation.cast_unsigned(),
            credentials: Credentials::decode(self.credentials)
                .map_err(|_| unreadable("accounts.credentials"))?,
            created: Timestamp(self.created.cast_unsigned()),
            disabled: self.disabled,
        })
    }
}

#[derive(DeserializeRow)]
pub(super) struct Setting<'a> {
    body: &'a [u8],
}

impl Setting<'_> {
    pub(super) fn decode(self) -> Result<Bytes, CqlError> {
        Ok(Bytes::copy_from_slice(self.body))
    }
}

#[derive(DeserializeRow)]
pub(super) struct Reign<'a> {
    epoch: i64,
    ceiling: i64,
    instance: &'a [u8],
    holder: &'a str,
    grants: i64,
}

impl Reign<'_> {
    pub(super) fn decode(self) -> Result<ReignRow, CqlError> {
        let instance = <[u8; 16]>::try_from(self.instance).map_err(|_| unreadable("reigns.instance"))?;
        Ok(ReignRow {
            epoch: read(self.epoch, "reigns.epoch")?.0,
            ceiling: read(self.ceiling, "reigns.ceiling")?,
            instance: u128::from_be_bytes(instance),
            name: self.holder.to_owned(),
            grants: read(self.grants, "reigns.grants")?.0,
        })
    }
}

/// Whether a conditional write was done. By name: which columns come with it, and how many rows, differs between servers.
pub(super) fn applied(page: &QueryRowsResult) -> Result<bool, CqlError> {
    let column = page.column_specs().get_by_name("[applied]").map(|(index, _)| index);
    let row = page.first_row::<Row>().map_err(|_| unreadable("[applied]"))?;
    match column.and_then(|index| row.columns.get(index)) {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        _ => Err(unreadable("[applied]")),
    }
}
