//! What a commit changes of an account beside its log.

use crate::codec;
use crate::cql::{Change, DataKind, DataRow};
use starling_store::{AccountState, Cursor, RosterItem, Write};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;

/// What is to be known of a roster to change it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RosterMarks {
    version: u64,
    removed: BTreeMap<BareJid, u64>,
    removed_since: u64,
}

/// Changes of one account's data. Of two to one row the later one holds.
#[derive(Debug, Default)]
pub(crate) struct DataChanges {
    rows: BTreeMap<(DataKind, String), Change>,
    /// Something beside the cursor is in them.
    pub(crate) marked: bool,
}

impl RosterMarks {
    pub(crate) fn of(state: &AccountState) -> Self {
        let roster = &state.roster;
        Self { version: roster.version, removed: roster.removed.clone(), removed_since: roster.removed_since }
    }

    pub(crate) fn weight(&self) -> usize {
        self.removed.len()
    }
}

impl DataChanges {
    /// Whether a write is such a change that the next reign has to look for it.
    pub(crate) fn needs_mark(write: &Write) -> bool {
        matches!(write, Write::RosterItem(..) | Write::RosterRemove(..) | Write::Doc(..))
    }

    /// Takes a write that is not for the log. The marks are what they will be when it is done.
    pub(crate) fn take(&mut self, write: Write, marks: &mut RosterMarks) {
        self.marked |= Self::needs_mark(&write);
        match write {
            Write::RosterItem(_, item) => self.put_contact(&item, marks),
            Write::RosterRemove(_, contact, version) => self.remove_contact(&contact, version, marks),
            Write::Doc(_, kind, body) if body.is_empty() => self.drop(DataKind::Doc, kind.as_str()),
            Write::Doc(_, kind, body) => self.put(codec::doc(kind, body)),
            Write::Cursor(_, cursor) => self.cursor(&cursor),
            // Not of this partition.
            Write::Append(_) | Write::Credentials(..) | Write::DeleteAccount(_) => {}
        }
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.rows.into_values().collect()
    }

    fn cursor(&mut self, cursor: &Cursor) {
        self.put(codec::cursor(cursor));
    }

    fn put_contact(&mut self, item: &RosterItem, marks: &mut RosterMarks) {
        marks.version = marks.version.max(item.version);
        self.put(codec::contact(item));
        // A tombstone only where there is something to remove.
        if marks.removed.remove(&item.jid).is_some() {
            self.drop(DataKind::Removed, item.jid.as_str());
        }
        self.put(codec::roster_version(marks.version, marks.removed_since));
    }

    fn remove_contact(&mut self, contact: &BareJid, version: u64, marks: &mut RosterMarks) {
        marks.version = marks.version.max(version);
        self.drop(DataKind::Contact, contact.as_str());
        self.put(codec::removed(contact, version));
        marks.removed.insert(contact.clone(), version);
        while marks.removed.len() > Write::MAX_REMOVED {
            let oldest = marks.removed.iter().min_by_key(|(_, version)| **version);
            let Some((oldest, version)) = oldest.map(|(jid, version)| (jid.clone(), *version)) else { break };
            marks.removed.remove(&oldest);
            marks.removed_since = marks.removed_since.max(version);
            self.drop(DataKind::Removed, oldest.as_str());
        }
        self.put(codec::roster_version(marks.version, marks.removed_since));
    }

    fn put(&mut self, row: DataRow) {
        self.rows.insert((row.kind, row.name.clone()), Change::PutData(row));
    }

    fn drop(&mut self, kind: DataKind, name: &str) {
        self.rows.insert((kind, name.to_owned()), Change::DropData(kind, name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use starling_store::DocKind;
    use starling_store::testing::{at, jid};

    fn item(name: &str, version: u64) -> Write {
        let jid = jid(name);
        Write::RosterItem(owner(), Box::new(RosterItem { version, ..RosterItem::new(jid) }))
    }

    fn owner() -> BareJid {
        jid("a@x.org")
    }

    fn changes(writes: Vec<Write>, marks: &mut RosterMarks) -> Vec<Change> {
        let mut changes = DataChanges::default();
        for write in writes {
            changes.take(write, marks);
        }
        changes.into_changes()
    }

    #[test]
    fn the_later_write_to_a_place_holds() {
        let doc = |body: &'static [u8]| Write::Doc(owner(), DocKind::BlockList, Bytes::from_static(body));
        let mut marks = RosterMarks::default();
        let got = changes(vec![doc(b"one"), doc(b"two")], &mut marks);
        assert_eq!(got, [Change::PutData(codec::doc(DocKind::BlockList, Bytes::from_static(b"two")))]);
        let got = changes(vec![doc(b"one"), doc(b"")], &mut marks);
        assert_eq!(got, [Change::DropData(DataKind::Doc, "block-list".into())]);
        let got = changes(vec![item("b@x.org", 3), item("c@x.org", 2)], &mut marks);
        assert_eq!(got.len(), 3, "{got:?}");
        assert!(got.contains(&Change::PutData(codec::roster_version(3, 0))), "the version never falls");
    }

    #[test]
    fn a_removal_is_forgotten_when_the_contact_is_back_or_when_it_is_one_too_many() {
        let mut marks = RosterMarks::default();
        changes(vec![Write::RosterRemove(owner(), jid("b@x.org"), 1)], &mut marks);
        let got = changes(vec![item("b@x.org", 2)], &mut marks);
        assert!(got.contains(&Change::DropData(DataKind::Removed, "b@x.org".into())));
        let got = changes(vec![item("b@x.org", 3)], &mut marks);
        assert!(!got.iter().any(|change| matches!(change, Change::DropData(..))), "no tombstone for nothing");
        for n in 0..Write::MAX_REMOVED as u64 {
            let contact = jid(&format!("c{n}@x.org"));
            changes(vec![Write::RosterRemove(owner(), contact, 10 + n)], &mut marks);
        }
        let got = changes(vec![Write::RosterRemove(owner(), jid("d@x.org"), 900)], &mut marks);
        assert!(got.contains(&Change::DropData(DataKind::Removed, "c0@x.org".into())));
        assert!(got.contains(&Change::PutData(codec::roster_version(900, 10))));
        assert_eq!(marks.weight(), Write::MAX_REMOVED);
    }

    #[test]
    fn the_cursor_needs_no_mark() {
        let mut data = DataChanges::default();
        let cursor = Cursor { through: at(3), above: vec![] };
        data.take(Write::Cursor(owner(), cursor.clone()), &mut RosterMarks::default());
        assert!(!data.marked);
        data.take(item("b@x.org", 1), &mut RosterMarks::default());
        assert!(data.marked);
        assert!(data.into_changes().contains(&Change::PutData(codec::cursor(&cursor))));
    }
}
