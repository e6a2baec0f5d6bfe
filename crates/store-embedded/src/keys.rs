//! What rows are called. Positions and moments are big-endian, so that byte order is their order. An account's number is
//! big-endian too but with its low half first: the tree compares the first four bytes of a key before all others, and
//! these tell most accounts apart. No address holds a NUL byte.
//!
//! ```text
//! accounts   m <name>                                 meta: reign, next account number
//!            s <name>                                 secrets
//!            a <domain> 0 <local>                     accounts
//!            d <account:8> <part> ...                 what belongs to an account, loaded in one scan:
//!                          r <contact>                  roster items
//!                          x <contact>                  removal marks
//!                          v                            roster versions
//!                          b <kind>                     documents
//!                          c                            cursor
//!                          n                            how many rows are archived, for the retention
//!            p <account:8>                            removed accounts whose rows are still there
//!            e <expires:8> <account:8> <class> <position:8>    rows that end by themselves
//! log        <account:8> <class> <position:8>         rows
//! peers      <account:8> <peer> 0 <class> <position:8>    rows by peer
//! ```
//! A row's *class* is its two flags. Reading a page merges the classes that its filter wants, so a filter never steps
//! over rows that it does not want, and no index of offline rows has to be kept up to date.

use starling_store::{DocKind, LogFilter, LogRow, Position};
use starling_xmpp::{BareJid, Timestamp};

/// An account's number: given when it is created, never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Account(pub(crate) u64);

impl Account {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.rotate_left(32).to_be_bytes()
    }

    fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes).rotate_left(32))
    }
}

/// A row's flags as a byte of its key: 1 is archived, 2 is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class(pub(crate) u8);

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    pub(crate) fn of(row: &LogRow) -> Self {
        Self(u8::from(row.archived) | u8::from(row.offline) << 1)
    }

    pub(crate) fn archived(self) -> bool {
        self.0 & 1 != 0
    }

    pub(crate) fn offline(self) -> bool {
        self.0 & 2 != 0
    }

    /// The classes in which a filter can find rows.
    pub(crate) fn wanted(filter: &LogFilter) -> impl Iterator<Item = Self> {
        let LogFilter { archived, offline, .. } = *filter;
        Self::ALL
            .into_iter()
            .filter(move |class| (!archived || class.archived()) && (!offline || class.offline()))
    }
}

/// The part of an account's data that a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Item(&'a str),
    Removed(&'a str),
    Versions,
    Doc(DocKind),
    Cursor,
    Count,
}

pub(crate) const REIGN: &[u8] = b"mreign";
pub(crate) const NEXT_ACCOUNT: &[u8] = b"mnext-account";

pub(crate) fn secret(name: &str) -> Vec<u8> {
    [b"s", name.as_bytes()].concat()
}

pub(crate) fn account(jid: &BareJid) -> Vec<u8> {
    [b"a", jid.domain().as_bytes(), b"\0", jid.local().unwrap_or_default().as_bytes()].concat()
}

/// Begins the keys of a domain's accounts.
pub(crate) fn domain(domain: &str) -> Vec<u8> {
    [b"a", domain.as_bytes(), b"\0"].concat()
}

/// Begins the keys of all accounts.
pub(crate) const ACCOUNTS: &[u8] = b"a";

/// The address that an account's key is of.
pub(crate) fn account_jid(key: &[u8]) -> Option<BareJid> {
    let text = std::str::from_utf8(key.strip_prefix(ACCOUNTS)?).ok()?;
    let (domain, local) = text.split_once('\0')?;
    if local.is_empty() {
        BareJid::parse(domain).ok()
    } else {
        BareJid::parse(&format!("{local}@{domain}")).ok()
    }
}

pub(crate) fn purge(account: Account) -> Vec<u8> {
    [b"p".as_slice(), &account.to_bytes()].concat()
}

pub(crate) const PURGES: &[u8] = b"p";

pub(crate) fn purge_account(key: &[u8]) -> Option<Account> {
    key.strip_prefix(PURGES)?.try_into().ok().map(Account::from_bytes)
}

/// Begins the keys of all that belongs to an account.
pub(crate) fn data(account: Account) -> Vec<u8> {
    [b"d".as_slice(), &account.to_bytes()].concat()
}

pub(crate) fn part(account: Account, part: Part<'_>) -> Vec<u8> {
    let mut key = data(account);
    let (tag, name) = match part {
        Part::Item(contact) => (b'r', contact),
        Part::Removed(contact) => (b'x', contact),
        Part::Versions => (b'v', ""),
        Part::Doc(kind) => (b'b', kind.as_str()),
        Part::Cursor => (b'c', ""),
        Part::Count => (b'n', ""),
    };
    key.push(tag);
    key.extend_from_slice(name.as_bytes());
    key
}

/// What a key that begins with [`data`] names.
pub(crate) fn parse_part(key: &[u8]) -> Option<Part<'_>> {
    let (tag, name) = key.get(9..)?.split_first()?;
    let name = std::str::from_utf8(name).ok()?;
    Some(match tag {
        b'r' => Part::Item(name),
        b'x' => Part::Removed(name),
        b'v' => Part::Versions,
        b'b' => Part::Doc(DocKind::ALL.into_iter().find(|kind| kind.as_str() == name)?),
        b'c' => Part::Cursor,
        b'n' => Part::Count,
        _ => return None,
    })
}

/// A row's key; short enough to need no memory of its own in the tree.
pub(crate) fn row(account: Account, class: Class, position: Position) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&account.to_bytes());
    key[8] = class.0;
    key[9..].copy_from_slice(&position.0.to_be_bytes());
    key
}

/// Class and position of a row, from the end of its key in the log or in one of the indexes.
pub(crate) fn class_and_position(key: &[u8]) -> Option<(Class, Position)> {
    let (rest, position) = key.split_last_chunk::<8>()?;
    Some((Class(*rest.last()?), Position(u64::from_be_bytes(*position))))
}

pub(crate) fn peer(account: Account, peer: &BareJid, class: Class, position: Position) -> Vec<u8> {
    let peer = peer.as_str().as_bytes();
    let mut key = Vec::with_capacity(8 + peer.len() + 1 + 1 + 8);
    key.extend_from_slice(&account.to_bytes());
    key.extend_from_slice(peer);
    key.extend_from_slice(&[0, class.0]);
    key.extend_from_slice(&position.0.to_be_bytes());
    key
}

pub(crate) fn expiry(expires: Timestamp, account: Account, class: Class, position: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(26);
    key.push(b'e');
    key.extend_from_slice(&expires.0.to_be_bytes());
    key.extend_from_slice(&row(account, class, position));
    key
}

/// Moment, account, class and position of an [`expiry`] key.
pub(crate) fn parse_expiry(key: &[u8]) -> Option<(Timestamp, Account, Class, Position)> {
    let (expires, rest) = key.strip_prefix(b"e")?.split_first_chunk::<8>()?;
    let (account, _) = rest.split_first_chunk::<8>()?;
    let (class, position) = class_and_position(rest)?;
    Some((Timestamp(u64::from_be_bytes(*expires)), Account::from_bytes(*account), class, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let (number, class, position) = (Account(u64::MAX - 3), Class(3), Position(12_345));
        for text in ["alice@example.org", "example.org", "ünï@exämple.org"] {
            let jid = BareJid::parse(text).unwrap();
            assert_eq!(account_jid(&account(&jid)), Some(jid.clone()));
            assert_eq!(class_and_position(&peer(number, &jid, class, position)), Some((class, position)));
            assert_eq!(parse_part(&part(number, Part::Item(jid.as_str()))), Some(Part::Item(jid.as_str())));
        }
        assert_eq!(purge_account(&purge(number)), Some(number));
        assert_eq!(class_and_position(&row(number, class, position)), Some((class, position)));
        let end = Timestamp(77);
        assert_eq!(parse_expiry(&expiry(end, number, class, position)), Some((end, number, class, position)));
        for kind in DocKind::ALL {
            assert_eq!(parse_part(&part(number, Part::Doc(kind))), Some(Part::Doc(kind)));
        }
        for part_ in [Part::Versions, Part::Cursor, Part::Count] {
            assert_eq!(parse_part(&part(number, part_)), Some(part_));
        }
    }

    #[test]
    fn account_numbers_come_back() {
        for number in [0, 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            assert_eq!(Account::from_bytes(Account(number).to_bytes()), Account(number));
        }
        assert_eq!(
            Account(5).to_bytes()[..4],
            5_u32.to_be_bytes(),
            "neighbours differ in the first four bytes"
        );
    }

    #[test]
    fn byte_order_is_position_order() {
        let mut keys = [5, 0, 255, 256, u64::MAX].map(|n| row(Account(1), Class(1), Position(n)));
        keys.sort_unstable();
        let positions = keys.map(|key| class_and_position(&key).unwrap().1.0);
        assert_eq!(positions, [0, 5, 255, 256, u64::MAX]);
    }
}
