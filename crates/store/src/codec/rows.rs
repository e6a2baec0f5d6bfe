//! Records that more than one back end keeps: roster items, cursors, and short lists of numbers.

use super::{Put, Take, damaged};
use crate::{Cursor, Position, Result, RosterItem, Subscription};
use bytes::Bytes;
use compact_str::CompactString;
use starling_xmpp::BareJid;

const VERSION: u8 = 1;
/// Of cursors. Version 1 had single positions in place of runs.
const CURSOR_VERSION: u8 = 2;

/// A roster item without its contact, which is its key.
pub fn encode_item(item: &RosterItem) -> Vec<u8> {
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

/// The item of this contact.
pub fn decode_item(contact: &str, bytes: &[u8]) -> Result<RosterItem> {
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

/// Some numbers.
pub fn encode_numbers(numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for number in numbers {
        bytes.put_number(*number);
    }
    bytes
}

/// As many numbers as were encoded; `what` names the record in errors.
pub fn decode_numbers<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u64; N]> {
    let mut take = Take::record(bytes, what, VERSION)?;
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = take.number()?;
    }
    take.end()?;
    Ok(numbers)
}

/// A cursor.
pub fn encode_cursor(cursor: &Cursor) -> Vec<u8> {
    let mut bytes = vec![CURSOR_VERSION];
    bytes.put_number(cursor.through.0);
    bytes.put_number(cursor.above.len() as u64);
    let mut end = cursor.through;
    for run in &cursor.above {
        bytes.put_number(run.start().0.saturating_sub(end.0));
        bytes.put_number(run.end().0.saturating_sub(run.start().0));
        end = *run.end();
    }
    bytes
}

/// The cursor back.
pub fn decode_cursor(bytes: &[u8]) -> Result<Cursor> {
    let (mut take, version) = Take::any_record(bytes, "cursor", CURSOR_VERSION)?;
    let through = Position(take.number()?);
    let mut end = through;
    let above = (0..take.number()?).map(|_| {
        let mut next = |from: Position| {
            let next = from.0.checked_add(take.number()?);
            next.map(Position).ok_or_else(|| take.damaged())
        };
        let start = next(end)?;
        end = if version == 1 { start } else { next(start)? };
        Ok(start..=end)
    });
    let above = above.collect::<Result<_>>()?;
    take.end()?;
    Ok(Cursor { through, above })
}

/// An address that was stored.
pub fn address(text: &str, what: &'static str) -> Result<BareJid> {
    BareJid::parse(text).map_err(|_| damaged(what))
}

fn text(bytes: &[u8], what: &'static str) -> Result<CompactString> {
    CompactString::from_utf8(bytes).map_err(|_| damaged(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, jid};

    #[test]
    fn damage_is_an_error_at_every_length() {
        let item = encode_item(&RosterItem {
            name: Some("Bob".into()),
            groups: vec!["one".into(), "two".into()],
            pending_in: Some(Bytes::from_static(b"<presence/>")),
            ..RosterItem::new(jid("bob@example.org"))
        });
        let runs = vec![at(2)..=at(2), at(4)..=at(700)];
        let cursor = encode_cursor(&Cursor { through: at(1), above: runs.clone() });
        assert_eq!(decode_cursor(&cursor).unwrap().above, runs);
        assert_eq!(decode_item("bob@example.org", &item).unwrap().groups.len(), 2);
        for length in 0..item.len() {
            assert!(decode_item("bob@example.org", &item[..length]).is_err());
        }
        for length in 0..cursor.len() {
            assert!(decode_cursor(&cursor[..length]).is_err());
        }
        let hostile = encode_numbers(&[1, u64::MAX]);
        assert!(decode_cursor(&hostile).is_err(), "a count without end");
        let hostile = encode_numbers(&[1, 2, u64::MAX - 1, 1]);
        assert!(decode_cursor(&hostile).is_err(), "positions that do not rise");
    }

    #[test]
    fn cursors_of_the_first_version_are_read() {
        let cursor = decode_cursor(&encode_numbers(&[5, 3, 2, 1, 10])).unwrap();
        let [a, b, c] = [7, 8, 18].map(Position);
        assert_eq!(cursor, Cursor { through: Position(5), above: vec![a..=a, b..=b, c..=c] });
        let empty = decode_cursor(&encode_numbers(&[5, 0])).unwrap();
        assert_eq!(empty, Cursor { through: Position(5), above: vec![] });
        assert!(decode_cursor(&[3, 5, 0]).is_err(), "of a newer server");
    }
}
