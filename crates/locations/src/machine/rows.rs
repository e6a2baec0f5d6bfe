//! The rows, in parts that are copied one at a time while somebody looks at the whole.

use super::{Head, Row};
use starling_xmpp::{BareJid, FullJid};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Bound;
use std::sync::Arc;

/// How many parts there are. With a million rows a part has a thousand: what one change copies while a snapshot is made.
const PARTS: usize = 1024;

type Part = BTreeMap<FullJid, Row>;

/// Rows by address. All of one account are in one part. Cloning it costs as much as there are parts.
#[derive(Debug, Clone)]
pub struct Rows {
    parts: Box<[Arc<Part>]>,
    len: u64,
}

impl Default for Rows {
    fn default() -> Self {
        let empty = Arc::new(Part::new());
        Self { parts: vec![empty; PARTS].into(), len: 0 }
    }
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&FullJid, &Row)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    pub(crate) fn row(&self, jid: &str) -> Option<&Row> {
        self.parts[part_of(bare(jid))].get(jid)
    }

    pub(crate) fn of(&self, account: &BareJid) -> impl Iterator<Item = (&FullJid, &Row)> {
        let bare = account.as_str().to_owned();
        let from = format!("{bare}/");
        self.parts[part_of(&bare)]
            .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
            .take_while(move |(jid, _)| self::bare(jid.as_str()) == bare)
    }

    pub(crate) fn insert(&mut self, jid: FullJid, row: Row) {
        let part = &mut self.parts[part_of(bare(jid.as_str()))];
        if Arc::make_mut(part).insert(jid, row).is_none() {
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, jid: &FullJid) {
        let part = &mut self.parts[part_of(bare(jid.as_str()))];
        if Arc::make_mut(part).remove(jid.as_str()).is_some() {
            self.len -= 1;
        }
    }
}

fn bare(jid: &str) -> &str {
    jid.split_once('/').map_or(jid, |(bare, _)| bare)
}

/// Only for this process: routers need not agree on it, and a snapshot does not tell.
fn part_of(bare: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(bare.as_bytes());
    usize::try_from(hasher.finish() % PARTS as u64).unwrap_or(0)
}

/// A shard's rows at one moment.
#[derive(Debug, Clone)]
pub struct View {
    head: Head,
    rows: Rows,
}

impl View {
    pub(crate) fn new(head: Head, rows: Rows) -> Self {
        Self { head, rows }
    }

    /// What the machine held beside its rows.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Where a session was.
    pub fn row(&self, jid: &FullJid) -> Option<&Row> {
        self.rows.row(jid.as_str())
    }

    /// An account's sessions, in the order of their addresses.
    pub fn of(&self, account: &BareJid) -> impl Iterator<Item = (&FullJid, &Row)> {
        self.rows.of(account)
    }

    /// All rows, in no order.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }
}
