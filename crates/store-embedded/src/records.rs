//! Records: what the values hold. Each kind has a version byte of its own; a new version is a new arm, not a new key.

use crate::codec::{Put, Take, damaged};
use crate::keys::{Account, Class};
use bytes::Bytes;
use compact_str::CompactString;
use starling_store::{
    AccountRow, Cursor, Direction, LogRow, Origin, Position, Result, RosterItem, StoredCredentials,
    Subscription,
};
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

pub(crate) fn encode_item(item: &RosterItem) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.put_number(item.version);
    bytes.push(
        u8::from(item.subscription.is_to())
            | u8::from(item.subscription.is_from()) << 1
            | u8::from(item.ask) << 2
            | u8::from(item.approved) << 3
            | u8::from(item.visible) << 4,
    );
    bytes.put_option(item.name.as_ref().map(|name| name.as_bytes()));
    bytes.put_option(item.pending_in.as_deref());
    bytes.put_number(item.groups.len() as u64);
    for group in &item.groups {
        bytes.put_block(group.as_bytes());
    }
    bytes
}

pub(crate) fn decode_item(contact: &str, bytes: &[u8]) -> Result<RosterItem> {
    const WHAT: &str = "roster item";
    let mut take = Take::record(bytes, WHAT, VERSION)?;
    let version = take.number()?;
    let flags = take.byte()?;
    let name = take.option()?.map(|name| text(name, WHAT)).transpose()?;
    let pending_in = take.option()?.map(Bytes::copy_from_slice);
    let groups = (0..take.number()?).map(|_| take.text().map(CompactString::from)).collect::<Result<_>>()?;
    take.end()?;
    Ok(RosterItem {
        jid: address(contact, WHAT)?,
        name,
        groups,
        subscription: Subscription::of(flags & 1 != 0, flags & 2 != 0),
        ask: flags & 4 != 0,
        approved: flags & 8 != 0,
        pending_in,
        visible: flags & 16 != 0,
        version,
    })
}

pub(crate) fn encode_numbers(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for number in numbers {
        bytes.put_number(*number);
    }
    bytes
}

pub(crate) fn decode_numbers<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u64; N]> {
    let mut take = Take::record(bytes, what, VERSION)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = take.number()?;
    }
    take.end()?;
    Ok(numbers)
}

pub(crate) fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let mut bytes = encode_numbers(&[cursor.through.0, cursor.above.len() as u64]);
    let mut last = cursor.through.0;
    for position in &cursor.above {
        bytes.put_number(position.0.wrapping_sub(last));
        last = position.0;
    }
    bytes
}

pub(crate) fn decode_cursor(bytes: &[u8]) -> Result<Cursor> {
    let mut take = Take::record(bytes, "cursor", VERSION)?;
    let through = Position(take.number()?);
    let mut last = through.0;
    let above = (0..take.number()?).map(|_| {
        last = last.wrapping_add(take.number()?);
        Ok(Position(last))
    });
    let above = above.collect::<Result<_>>()?;
    take.end()?;
    Ok(Cursor { through, above })
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

pub(crate) fn address(text: &str, what: &'static str) -> Result<BareJid> {
    BareJid::parse(text).map_err(|_| damaged(what))
}

fn text(bytes: &[u8], what: &'static str) -> Result<CompactString> {
    CompactString::from_utf8(bytes).map_err(|_| damaged(what))
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
        let item = encode_item(&RosterItem {
            name: Some("Bob".into()),
            groups: vec!["one".into(), "two".into()],
            pending_in: Some(Bytes::from_static(b"<presence/>")),
            ..RosterItem::new(jid("bob@example.org"))
        });
        let cursor = encode_cursor(&Cursor { through: at(1), above: vec![at(2), at(3)] });
        for length in 0..record.len() {
            assert!(AccountRecord::decode(&record[..length]).is_err());
        }
        for length in 0..item.len() {
            assert!(decode_item("bob@example.org", &item[..length]).is_err());
        }
        for length in 0..cursor.len() {
            assert!(decode_cursor(&cursor[..length]).is_err());
        }
        let hostile = encode_numbers(&[1, u64::MAX]);
        assert!(decode_cursor(&hostile).is_err(), "a count without end");
    }
}
