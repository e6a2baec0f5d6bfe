//! One page of a log: the classes that the filter wants, merged by position, from either end.

use crate::keys::{self, Account, Class};
use crate::read;
use crate::records;
use crate::tables::{Tables, engine, position};
use fjall::{Readable, Slice, Snapshot};
use starling_store::{Cursor, LogFilter, LogPage, Page, Position, Result};
use starling_xmpp::{BareJid, Timestamp};

/// Reads a page.
pub(crate) fn log_page(
    tables: &Tables,
    owner: &BareJid,
    filter: &LogFilter,
    page: Page,
    now: Timestamp,
) -> Result<LogPage> {
    let nothing = LogPage { complete: true, ..LogPage::default() };
    let snapshot = tables.db.snapshot();
    let Some(account) = read::number(tables, &snapshot, owner)? else { return Ok(nothing) };
    let Some((mut low, high)) = filter.bounds() else { return Ok(nothing) };
    let cursor = if filter.offline { read::cursor(tables, &snapshot, account)? } else { Cursor::default() };
    if filter.offline {
        // Everything up to here is done with: there is no row to look at.
        let Some(first) = cursor.through.0.checked_add(1) else { return Ok(nothing) };
        low = low.max(Position(first));
        if low > high {
            return Ok(nothing);
        }
    }
    let (limit, end) = match page {
        Page::First(limit) => (limit, End::Oldest),
        Page::Last(limit) => (limit, End::Newest),
    };
    let mut found = LogPage { complete: true, ..LogPage::default() };
    let mut merged = Merged::new(
        tables,
        &snapshot,
        account,
        Class::wanted(filter),
        (low, high),
        filter.with.as_ref(),
        end,
    )?;
    while let Some(entry) = merged.next()? {
        if filter.offline && cursor.covers(entry.position) {
            continue;
        }
        let value = match &filter.with {
            None => entry.value,
            Some(_) => match snapshot
                .get(&tables.log, keys::row(account, entry.class, entry.position))
                .map_err(engine)?
            {
                Some(value) => value,
                None => continue,
            },
        };
        if records::decode_expires(&value)?.is_some_and(|expires| expires <= now) {
            continue;
        }
        if found.rows.len() == limit {
            found.complete = false;
            break;
        }
        found.rows.push(records::decode_row(owner, entry.class, entry.position, &value)?);
    }
    if matches!(end, End::Newest) {
        found.rows.reverse();
    }
    Ok(found)
}

/// Which end to begin at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Oldest,
    Newest,
}

/// A row, or an index entry for one (whose value is empty).
pub(crate) struct Entry {
    pub(crate) class: Class,
    pub(crate) position: Position,
    pub(crate) value: Slice,
}

/// Entries of several classes in one order.
pub(crate) struct Merged {
    sources: Vec<Source>,
    end: End,
}

struct Source {
    entries: fjall::Iter,
    head: Option<Entry>,
}

impl Merged {
    /// Of the log, or of the peer index when a peer is given; bounds are inclusive.
    pub(crate) fn new(
        tables: &Tables,
        snapshot: &Snapshot,
        account: Account,
        classes: impl Iterator<Item = Class>,
        (low, high): (Position, Position),
        peer: Option<&BareJid>,
        end: End,
    ) -> Result<Self> {
        let mut merged = Self { sources: Vec::with_capacity(4), end };
        for class in classes {
            let entries = match peer {
                None => snapshot
                    .range(&tables.log, keys::row(account, class, low)..=keys::row(account, class, high)),
                Some(peer) => {
                    let bounds =
                        keys::peer(account, peer, class, low)..=keys::peer(account, peer, class, high);
                    snapshot.range(&tables.peers, bounds)
                }
            };
            let mut source = Source { entries, head: None };
            source.advance(end)?;
            if source.head.is_some() {
                merged.sources.push(source);
            }
        }
        Ok(merged)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let heads = self.sources.iter().enumerate();
        let heads = heads.filter_map(|(at, source)| source.head.as_ref().map(|head| (head.position, at)));
        let next = match self.end {
            End::Oldest => heads.min(),
            End::Newest => heads.max(),
        };
        let Some((_, at)) = next else { return Ok(None) };
        self.sources[at].advance(self.end)
    }
}

impl Source {
    /// Gives out the head and fetches the one behind it.
    fn advance(&mut self, end: End) -> Result<Option<Entry>> {
        let next = match end {
            End::Oldest => self.entries.next(),
            End::Newest => self.entries.next_back(),
        };
        let head = match next {
            None => None,
            Some(next) => {
                let (key, value) = next.into_inner().map_err(engine)?;
                let (class, position) = position(&key)?;
                Some(Entry { class, position, value })
            }
        };
        Ok(std::mem::replace(&mut self.head, head))
    }
}
