//! What columns hold: when rows end, which slice a key is in, and rosters, documents and cursors as rows.

use crate::cql::{DataKind, DataRow};
use crate::settings::Settings;
use bytes::Bytes;
use starling_store::codec::damaged;
use starling_store::codec::rows::{address, decode_cursor, decode_item, encode_cursor, encode_item};
use starling_store::{
    AccountRow, AccountState, Cursor, DocKind, LogRow, Position, Result, Roster, RosterItem,
};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows are kept so much longer than they are shown: clocks differ.
const GRACE: u64 = 3_600;
/// CQL takes no more: twenty years, and nothing that ends after the 31-bit seconds do.
const LONGEST: u64 = 20 * 365 * 86_400;
const LAST_SECOND: u64 = (1 << 31) - 2;

/// Slices of the names of a domain.
pub(crate) const NAME_SLICES: u16 = 256;
/// Slices of the owners to be removed that were noted on one day.
pub(crate) const PURGE_SLICES: u16 = 16;

/// The highest position there is: CQL's numbers have a sign.
pub(crate) const HIGHEST: Position = Position(i64::MAX as u64);

/// When a row ends: by itself or by the archive's age, whichever comes first. At this moment it has ended.
pub(crate) fn end(row: &LogRow, settings: &Settings) -> Option<Timestamp> {
    let aged = settings.retention.max_age_secs.map(|age| {
        let age = if row.offline { age.max(settings.offline_lifetime.as_secs()) } else { age };
        // A row of exactly that age is still shown.
        Timestamp(row.position.0.saturating_add(age.saturating_mul(1_000_000)).saturating_add(1))
    });
    match (row.expires, aged) {
        (Some(expires), Some(aged)) if row.archived => Some(expires.min(aged)),
        (Some(expires), _) => Some(expires),
        (None, aged) => aged,
    }
}

/// Whether nobody may see a row any more.
pub(crate) fn has_ended(row: &LogRow, settings: &Settings, now: Timestamp) -> bool {
    end(row, settings).is_some_and(|end| end <= now)
}

/// The seconds after which the server removes a row by itself.
pub(crate) fn ttl(row: &LogRow, settings: &Settings, now: Timestamp) -> Option<u32> {
    let left = end(row, settings)?.saturating_since(now).as_secs().saturating_add(1 + GRACE);
    let most = LONGEST.min(LAST_SECOND.saturating_sub(now.as_secs()));
    (left <= most).then(|| u32::try_from(left).ok()).flatten()
}

/// About how many bytes a row takes in a request.
pub(crate) fn weight(row: &LogRow) -> usize {
    let ids = row.origin_id.as_ref().map_or(0, |id| id.len());
    row.stanza.len() + ids + row.with.as_str().len() + 128
}

/// The slice of a domain's names that a local part is in.
pub(crate) fn name_slice(local: &str) -> u16 {
    (hash(local) % u64::from(NAME_SLICES)) as u16
}

/// The slice of the list of removals that an account is in.
pub(crate) fn purge_slice(jid: &BareJid) -> u16 {
    (hash(jid.as_str()) % u64::from(PURGE_SLICES)) as u16
}

/// The day since the epoch in which a second lies.
pub(crate) fn day(secs: u64) -> u32 {
    u32::try_from(secs / 86_400).unwrap_or(u32::MAX)
}

/// FNV-1a: stored keys depend on it, so it never changes.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The row of a contact.
pub(crate) fn contact(item: &RosterItem) -> DataRow {
    DataRow {
        kind: DataKind::Contact,
        name: item.jid.as_str().to_owned(),
        number: item.version,
        body: encode_item(item).into(),
    }
}

/// The row that remembers a removal.
pub(crate) fn removed(contact: &BareJid, version: u64) -> DataRow {
    DataRow {
        kind: DataKind::Removed,
        name: contact.as_str().to_owned(),
        number: version,
        body: Bytes::new(),
    }
}

/// The row of the roster's versions.
pub(crate) fn roster_version(version: u64, removed_since: u64) -> DataRow {
    let body = Bytes::copy_from_slice(&removed_since.to_be_bytes());
    DataRow { kind: DataKind::RosterVersion, name: String::new(), number: version, body }
}

/// The row of a document.
pub(crate) fn doc(kind: DocKind, body: Bytes) -> DataRow {
    DataRow { kind: DataKind::Doc, name: kind.as_str().to_owned(), number: 0, body }
}

/// The row of the cursor.
pub(crate) fn cursor(cursor: &Cursor) -> DataRow {
    let body = encode_cursor(cursor).into();
    DataRow { kind: DataKind::Cursor, name: String::new(), number: 0, body }
}

/// Which reign has done something with the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The last reign that has loaded it: an older one that sees this has been followed.
    Claim,
    /// The last reign that has closed its log.
    Log,
    /// The last reign that has written roster or documents since they were closed; 0 when none has.
    Data,
    /// Not 0: it is being removed, and whoever finds that out does so.
    Removal,
    /// A closing of its log has begun, and deletes at any time what lies at this position or above and that it did not see.
    /// It goes when that closing ends, with the same timestamp: of these the delete wins.
    Closing,
}

impl Mark {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Log => "log",
            Self::Data => "data",
            Self::Removal => "removal",
            Self::Closing => "closing",
        }
    }

    /// The row that says so.
    pub(crate) fn row(self, epoch: u64) -> DataRow {
        DataRow { kind: DataKind::Mark, name: self.name().to_owned(), number: epoch, body: Bytes::new() }
    }

    /// What was read of it.
    pub(crate) fn of(self, rows: &[DataRow]) -> Option<u64> {
        let mark = rows.iter().find(|row| row.kind == DataKind::Mark && row.name == self.name());
        mark.map(|row| row.number)
    }
}

/// An account's state out of its rows.
pub(crate) fn state(row: AccountRow, rows: &[DataRow], last: Position) -> Result<AccountState> {
    let mut state = AccountState {
        row,
        roster: Roster::default(),
        docs: BTreeMap::new(),
        cursor: Cursor::default(),
        last,
    };
    for row in rows {
        match row.kind {
            DataKind::Contact => {
                let item = decode_item(&row.name, &row.body)?;
                state.roster.items.insert(item.jid.clone(), item);
            }
            DataKind::Removed => {
                state.roster.removed.insert(address(&row.name, "removal mark")?, row.number);
            }
            DataKind::RosterVersion => {
                let since = <[u8; 8]>::try_from(&*row.body).map_err(|_| damaged("roster versions"))?;
                (state.roster.version, state.roster.removed_since) = (row.number, u64::from_be_bytes(since));
            }
            DataKind::Doc => {
                let kind = DocKind::ALL.into_iter().find(|kind| kind.as_str() == row.name);
                if let Some(kind) = kind {
                    state.docs.insert(kind, row.body.clone());
                }
            }
            DataKind::Cursor => state.cursor = decode_cursor(&row.body)?,
            DataKind::Mark => {}
        }
    }
    // A contact that is there was not removed, whatever a commit that failed has left.
    let Roster { items, removed, .. } = &mut state.roster;
    removed.retain(|contact, _| !items.contains_key(contact));
    Ok(state)
}

/// A time in the unit of positions.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_store::Retention;
    use starling_store::testing::{account, at, jid, row};

    fn settings(max_age_secs: Option<u64>) -> Settings {
        let retention = Retention { max_age_secs, max_rows: None };
        Settings { retention, offline_lifetime: Duration::from_secs(500), ..Settings::default() }
    }

    fn plain(secs: u64) -> LogRow {
        LogRow { offline: false, ..row(&jid("a@x.org"), at(secs), &jid("b@x.org")) }
    }

    #[test]
    fn a_row_ends_by_itself_or_by_age() {
        let hundred = settings(Some(100));
        assert!(!has_ended(&plain(5), &hundred, Timestamp::from_secs(105)), "exactly that age");
        assert!(has_ended(&plain(5), &hundred, Timestamp(105_000_001)));
        assert!(!has_ended(&plain(5), &settings(None), Timestamp(u64::MAX)));
        let waits = LogRow { offline: true, ..plain(5) };
        assert!(!has_ended(&waits, &hundred, Timestamp::from_secs(505)), "what waits is kept longer");
        let hidden = LogRow { archived: false, expires: Some(Timestamp::from_secs(300)), ..plain(5) };
        assert!(!has_ended(&hidden, &hundred, Timestamp::from_secs(299)), "not by the archive's age");
        assert!(has_ended(&hidden, &hundred, Timestamp::from_secs(300)));
        let shown = LogRow { archived: true, ..hidden };
        assert!(has_ended(&shown, &hundred, Timestamp::from_secs(200)), "whichever comes first");
    }

    #[test]
    fn a_ttl_is_never_less_than_what_is_left_and_never_more_than_cql_takes() {
        let hundred = settings(Some(100));
        assert_eq!(ttl(&plain(5), &hundred, Timestamp::from_secs(5)), Some(100 + 1 + 3_600));
        assert_eq!(ttl(&plain(5), &hundred, Timestamp::from_secs(900)), Some(3_601), "it has ended already");
        assert_eq!(ttl(&plain(5), &settings(None), Timestamp::from_secs(5)), None);
        let long = LogRow { expires: Some(Timestamp(u64::MAX)), ..plain(5) };
        assert_eq!(ttl(&long, &settings(None), Timestamp::from_secs(5)), None);
        let late = LogRow { expires: Some(Timestamp::from_secs(LAST_SECOND + 10)), ..plain(5) };
        assert_eq!(ttl(&late, &settings(None), Timestamp::from_secs(LAST_SECOND - 9_000)), None);
    }

    #[test]
    fn slices_never_change() {
        assert_eq!([name_slice(""), name_slice("a"), name_slice("alice")], [37, 140, 7]);
        assert!(purge_slice(&jid("alice@example.org")) < PURGE_SLICES);
    }

    #[test]
    fn a_state_is_made_of_its_rows() {
        let item = RosterItem { version: 4, visible: true, ..RosterItem::new(jid("bob@x.org")) };
        let rows = [
            contact(&item),
            removed(&jid("carol@x.org"), 3),
            removed(&jid("bob@x.org"), 2),
            roster_version(4, 1),
            doc(DocKind::BlockList, Bytes::from_static(b"list")),
            DataRow { name: "of a later version".into(), ..doc(DocKind::BlockList, Bytes::new()) },
            cursor(&Cursor { through: at(7), above: vec![at(9)..=at(11)] }),
            Mark::Data.row(6),
        ];
        let state = state(account(1, "p"), &rows, at(9)).unwrap();
        assert_eq!(state.roster.items[&item.jid], item);
        assert_eq!(state.roster.removed.into_iter().collect::<Vec<_>>(), [(jid("carol@x.org"), 3)]);
        assert_eq!((state.roster.version, state.roster.removed_since, state.last), (4, 1, at(9)));
        assert_eq!((state.docs.len(), state.cursor.above), (1, vec![at(9)..=at(11)]));
        assert_eq!((Mark::Data.of(&rows), Mark::Log.of(&rows)), (Some(6), None));
        let broken = DataRow { body: Bytes::from_static(b"?"), ..roster_version(4, 1) };
        assert!(super::state(account(1, "p"), &[broken], at(0)).is_err());
    }
}
