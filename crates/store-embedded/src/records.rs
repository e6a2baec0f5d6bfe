//! Records: what the values hold. Each kind has a version byte of its own; a new version is a new arm, not a new key.

use crate::keys::{Account, Class};
use bytes::Bytes;
use compact_str::CompactString;
pub(crate) use starling_store::codec::rows::{
    address, decode_cursor, decode_item, decode_numbers, encode_cursor, encode_item, encode_numbers,
};
use starling_store::codec::{Put, Take, damaged};
use starling_store::{AccountRow, Direction, LogRow, Origin, Position, Result, StoredCredentials};
use starling_xmpp::{BareJid, Timestamp};

const VERSION: u8 = 1;

/// An account with its number.
#[derive(Debug, Clone)]
pub(crate) struct AccountRecord {
    pub(crate) account: Account,
    pub(crate) row: AccountRow,
}

impl AccountRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.put_number(self.account.0);
        bytes.extend_from_slice(&self.row.generation.to_be_bytes());
        bytes.put_number(self.row.created.0);
        bytes.push(u8::from(self.row.disabled));
        bytes.put_block(&self.row.credentials.encode());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut take = Take::record(bytes, "account", VERSION)?;
        let account = Account(take.number()?);
        let generation = u64::from_be_bytes(take.array()?);
        let created = Timestamp(take.number()?);
        let disabled = take.byte()? != 0;
        let credentials = StoredCredentials::decode(take.block()?).map_err(|_| damaged("credentials"))?;
        take.end()?;
        Ok(Self { account, row: AccountRow { generation, credentials, created, disabled } })
    }

    /// The number alone, which is all that most reads need.
    pub(crate) fn decode_account(bytes: &[u8]) -> Result<Account> {
        Take::record(bytes, "account", VERSION)?.number().map(Account)
    }
}

/// A row without what its key says: owner, class and position.
pub(crate) fn encode_row(row: &LogRow, bytes: &mut Vec<u8>) {
    let direction = match row.direction {
        Direction::In => 0,
        Direction::Out => 1,
        Direction::Own => 2,
    };
    bytes.push(VERSION);
    bytes.push(direction | u8::from(row.origin_id.is_some()) << 2 | u8::from(row.expires.is_some()) << 3);
    bytes.extend_from_slice(&row.origin.session.to_be_bytes());
    bytes.put_number(row.origin.sequence);
    bytes.put_block(row.with.as_str().as_bytes());
    if let Some(id) = &row.origin_id {
        bytes.put_block(id.as_bytes());
    }
    if let Some(expires) = row.expires {
        bytes.put_number(expires.0);
    }
    bytes.extend_from_slice(&row.stanza);
}

/// What is known of a row beside its key without making it: enough to find its index entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) with: BareJid,
    pub(crate) expires: Option<Timestamp>,
}

impl Entries {
    pub(crate) fn of(row: &LogRow) -> Self {
        Self { with: row.with.clone(), expires: row.expires }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let head = Head::decode(bytes)?;
        Ok(Self { with: address(head.with, ROW)?, expires: head.expires })
    }
}

/// When a row ends by itself.
pub(crate) fn decode_expires(bytes: &[u8]) -> Result<Option<Timestamp>> {
    Ok(Head::decode(bytes)?.expires)
}

pub(crate) fn decode_row(owner: &BareJid, class: Class, position: Position, bytes: &[u8]) -> Result<LogRow> {
    let head = Head::decode(bytes)?;
    Ok(LogRow {
        owner: owner.clone(),
        position,
        origin: head.origin,
        origin_id: head.origin_id.map(CompactString::from),
        direction: head.direction,
        with: address(head.with, ROW)?,
        archived: class.archived(),
        offline: class.offline(),
        expires: head.expires,
        stanza: Bytes::copy_from_slice(head.stanza),
    })
}

struct Head<'a> {
    direction: Direction,
    origin: Origin,
    with: &'a str,
    origin_id: Option<&'a str>,
    expires: Option<Timestamp>,
    stanza: &'a [u8],
}

const ROW: &str = "log row";

impl<'a> Head<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut take = Take::record(bytes, ROW, VERSION)?;
        let flags = take.byte()?;
        let direction = match flags & 3 {
            0 => Direction::In,
            1 => Direction::Out,
            2 => Direction::Own,
            _ => return Err(take.damaged()),
        };
        let session = u128::from_be_bytes(take.array()?);
        let origin = Origin { session, sequence: take.number()? };
        let with = take.text()?;
        let origin_id = if flags & 4 != 0 { Some(take.text()?) } else { None };
        let expires = if flags & 8 != 0 { Some(Timestamp(take.number()?)) } else { None };
        Ok(Self { direction, origin, with, origin_id, expires, stanza: take.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::testing::{account, at, jid, row};

    #[test]
    fn damage_is_an_error_at_every_length() {
        let owner = jid("alice@example.org");
        let mut bytes = Vec::new();
        let mut full = row(&owner, at(5), &jid("bob@example.org"));
        full.origin_id = Some("id".into());
        full.expires = Some(Timestamp(9));
        encode_row(&full, &mut bytes);
        let head = bytes.len() - full.stanza.len();
        assert_eq!(decode_row(&owner, Class::of(&full), full.position, &bytes).unwrap(), full);
        assert_eq!(Entries::decode(&bytes).unwrap(), Entries::of(&full));
        for length in 0..head {
            assert!(decode_row(&owner, Class(3), at(5), &bytes[..length]).is_err(), "row cut to {length}");
        }

        let record = AccountRecord { account: Account(7), row: account(9, "pw") }.encode();
        assert_eq!(AccountRecord::decode(&record).unwrap().account, Account(7));
        for length in 0..record.len() {
            assert!(AccountRecord::decode(&record[..length]).is_err());
        }
    }
}
