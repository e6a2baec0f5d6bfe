//! Reading the rows of a page: in portions, so that a page is bounded in bytes too, and rows that only we can judge are passed over.

use super::Asked;
use starling_hooks::store_error;
use starling_store::{Cursor, LogFilter, LogRow, Page, Position, Store};
use starling_xmpp::{BareJid, Jid, Stanza, StanzaCondition, StanzaError};

/// Rows of one read.
const PORTION: usize = 64;
/// A page ends early when its rows have this many bytes: it goes through the session's queue as a whole.
const PAGE_BYTES: usize = 1024 * 1024;
/// How many rows one query passes over at most in search of those it wants.
const SEARCHED: usize = 20_000;
/// How far rows are counted; more are not worth what it costs (XEP-0059 §2.2).
const COUNTED: usize = 10_000;

/// The rows of a page, oldest first.
pub(super) struct Read {
    pub(super) rows: Vec<LogRow>,
    /// No more in the direction of paging.
    pub(super) complete: bool,
    /// How many rows match, where that was asked for (XEP-0059 §2.7) and they are few enough to tell.
    pub(super) count: Option<usize>,
}

/// Counts the rows that match, for a page of none.
pub(super) async fn counted(store: &dyn Store, owner: &BareJid, asked: &Asked) -> Result<Read, StanzaError> {
    let mut filter = asked.filter.clone();
    let (mut searched, mut count) = (0, 0);
    loop {
        let read = store.log_page(owner, filter.clone(), Page::First(PORTION)).await;
        let read = read.map_err(|error| store_error(&error))?;
        count +=
            read.rows.iter().filter(|row| asked.with.as_ref().is_none_or(|with| is_with(row, with))).count();
        searched += read.rows.len();
        filter.above = read.rows.last().map(|row| row.position);
        if read.complete || (filter.above.is_none() && read.reached.is_none()) {
            return Ok(Read { rows: Vec::new(), complete: count == 0, count: Some(count) });
        }
        if searched >= COUNTED || read.reached.is_some() {
            return Ok(Read { rows: Vec::new(), complete: false, count: None });
        }
    }
}

/// A page of the rows that match; at least one row is wanted.
pub(super) async fn matching(store: &dyn Store, owner: &BareJid, asked: &Asked) -> Result<Read, StanzaError> {
    let mut filter = asked.filter.clone();
    let mut page = PageOf::new(asked);
    let mut searched = 0;
    loop {
        let portion =
            if asked.with.is_some() { PORTION } else { (asked.limit - page.rows.len()).clamp(1, PORTION) };
        let which = if asked.from_the_end { Page::Last(portion) } else { Page::First(portion) };
        let read = store.log_page(owner, filter.clone(), which).await.map_err(|error| store_error(&error))?;
        let end = if asked.from_the_end { read.rows.first() } else { read.rows.last() };
        let end = end.map(|row| row.position);
        if end.is_none() && read.reached.is_none() {
            return Ok(page.finish(true));
        }
        if asked.from_the_end {
            filter.below = end;
        } else {
            filter.above = end;
        }
        searched += read.rows.len();
        if !page.take(read.rows) {
            return Ok(page.finish(false));
        }
        if read.complete {
            return Ok(page.finish(true));
        }
        if page.is_full() && asked.with.is_none() {
            return Ok(page.finish(false));
        }
        if searched >= SEARCHED || read.reached.is_some() {
            // Without a row there is no id from which to go on.
            if page.rows.is_empty() {
                let text = "too many messages to search: narrow the query";
                return Err(StanzaError::new(StanzaCondition::ResourceConstraint).with_text(text));
            }
            return Ok(page.finish(false));
        }
    }
}

/// A page of the rows that were named one by one, of which the other fields may want fewer.
pub(super) fn named(asked: &Asked, mut rows: Vec<LogRow>, ids: &[Position]) -> Read {
    rows.retain(|row| ids.contains(&row.position) && is_in(&asked.filter, row));
    let mut page = PageOf::new(asked);
    let count = (asked.limit == 0).then_some(rows.len());
    let complete = page.take(rows);
    Read { count, ..page.finish(complete) }
}

fn is_in(filter: &LogFilter, row: &LogRow) -> bool {
    let within = filter.bounds().is_some_and(|(low, high)| (low..=high).contains(&row.position));
    within && filter.wants(row, &Cursor::default())
}

/// A page that fills in the direction of paging.
struct PageOf<'a> {
    with: Option<&'a Jid>,
    limit: usize,
    from_the_end: bool,
    /// In the order they were taken.
    rows: Vec<LogRow>,
    bytes: usize,
}

impl<'a> PageOf<'a> {
    fn new(asked: &'a Asked) -> Self {
        let Asked { with, limit, from_the_end, .. } = asked;
        Self { with: with.as_ref(), limit: *limit, from_the_end: *from_the_end, rows: Vec::new(), bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit
    }

    /// Takes the rows of one read, oldest first; false if one of them did not fit.
    fn take(&mut self, mut rows: Vec<LogRow>) -> bool {
        if self.from_the_end {
            rows.reverse();
        }
        for row in rows {
            if !self.with.is_none_or(|with| is_with(&row, with)) {
                continue;
            }
            let too_long = !self.rows.is_empty() && self.bytes + row.stanza.len() > PAGE_BYTES;
            if self.is_full() || too_long {
                return false;
            }
            self.bytes += row.stanza.len();
            self.rows.push(row);
        }
        true
    }

    fn finish(mut self, complete: bool) -> Read {
        if self.from_the_end {
            self.rows.reverse();
        }
        Read { rows: self.rows, complete, count: None }
    }
}

/// XEP-0313 §4.1.1: "if the JID matches either the to or from".
fn is_with(row: &LogRow, with: &Jid) -> bool {
    Stanza::decode(row.stanza.clone())
        .is_ok_and(|stanza| [&stanza.from, &stanza.to].into_iter().flatten().any(|jid| jid == with))
}
