//! Recognising a message that its client sends a second time in a new session (promise 2 of the design).
//!
//! A client that lost its session does not know which of its last messages were taken. It sends them again with the
//! same `origin-id` (XEP-0359). For some time after a session ended unresumed, messages with an `origin-id` are
//! compared with the rows that were written before that end: the tail of the log is read once, when it is first
//! needed, and only rows from before that moment count, so that memory does not grow with what is sent now.
//!
//! Moments are of monotonic time: a clock that is set makes no message new. Of rows only the place in the log is known;
//! how far the tail reaches is counted from its end, and in rows.

use bytes::Bytes;
use compact_str::CompactString;
use starling_store::{
    Direction, LogFilter, LogPage, LogRow, Origin, Page, Position, SharedStore, StoreError,
};
use starling_xmpp::{BareJid, Stanza, ns};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How many rows of the tail are looked at, at most.
const MAX_ROWS: usize = 5_000;
/// How many in any case, however old they seem: clocks are set.
const MIN_ROWS: usize = 256;
/// How long after the resume window a client may still come back with what it had sent.
pub(crate) const GRACE: Duration = Duration::from_secs(600);

/// A message as a client sees it: who sent it, under which id, to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    sender: BareJid,
    id: CompactString,
    with: BareJid,
    body: Option<Bytes>,
}

impl Fingerprint {
    /// Of a message of this sender to this recipient; `None` without an `origin-id`.
    pub(crate) fn of(sender: &BareJid, with: &BareJid, stanza: &Stanza) -> Option<Self> {
        let id = origin_id(stanza)?;
        let body = stanza.payload.get(ns::CLIENT, "body").map(|body| Bytes::copy_from_slice(body.bytes()));
        Some(Self { sender: sender.clone(), id, with: with.clone(), body })
    }
}

/// The sender's own id of a message (XEP-0359 §3.2).
pub(crate) fn origin_id(stanza: &Stanza) -> Option<CompactString> {
    let child = stanza.payload.get(ns::SID, "origin-id")?;
    child.attribute("id").map(|id| CompactString::from(&*id))
}

/// The tail of an owner's log, up to a moment.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    rows: Vec<LogRow>,
    through: Duration,
}

/// Senders remembered by [`Recent`]; beyond that the tail is read once more.
const MAX_SENDERS: usize = 1_024;

/// Rows that a resent message may already have.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    through: Duration,
    /// Up to which end of a session of theirs the messages of other accounts are in it.
    senders: HashMap<BareJid, Duration>,
    origins: HashSet<Origin>,
    fingerprints: HashMap<Fingerprint, Origin>,
}

impl Recent {
    /// Nothing was written in that time.
    pub(crate) fn empty(through: Duration) -> Self {
        Self { through, ..Self::default() }
    }

    /// From rows read back. `owner` tells who sent the rows that went out.
    pub(crate) fn of(owner: &BareJid, tail: Tail) -> Self {
        let mut recent = Self::empty(tail.through);
        for row in tail.rows {
            recent.origins.insert(row.origin);
            if row.origin_id.is_none() {
                continue;
            }
            let Ok(stanza) = Stanza::decode(row.stanza) else { continue };
            let (sender, with) = match row.direction {
                Direction::In => (&row.with, owner),
                Direction::Out => (owner, &row.with),
                Direction::Own => (owner, owner),
            };
            if let Some(fingerprint) = Fingerprint::of(sender, with, &stanza) {
                recent.fingerprints.insert(fingerprint, row.origin);
            }
        }
        recent
    }

    /// Takes over what an earlier one knew of senders, and that this one's messages up to the end of its session are in it.
    pub(crate) fn knows(&mut self, before: Option<Self>, sender: BareJid, end: Duration) {
        self.senders = before.map(|before| before.senders).unwrap_or_default();
        if self.senders.len() >= MAX_SENDERS {
            self.senders.clear();
        }
        self.senders.insert(sender, end);
    }

    /// Whether what a sender's session, which ended then, had on its way is in it. Its last messages may have been decided
    /// long after its end; but all of them before the first one of the sender's next session, which is when this is asked
    /// for the first time. After a restart (`began`) nothing was on its way.
    pub(crate) fn covers_sender(&self, sender: &BareJid, end: Duration, began: Duration) -> bool {
        self.covers(end) && (end <= began || self.senders.get(sender).is_some_and(|known| *known >= end))
    }

    /// Whether nobody sends any more what could be in it.
    pub(crate) fn is_over(&self, now: Duration, window: Duration) -> bool {
        now >= self.through + window
    }

    /// Whether rows up to this moment are covered.
    pub(crate) fn covers(&self, moment: Duration) -> bool {
        self.through >= moment
    }

    /// The origin under which a message was taken before; not counting the session it comes from now.
    pub(crate) fn find(&self, fingerprint: &Fingerprint, now: Origin) -> Option<Origin> {
        self.fingerprints.get(fingerprint).copied().filter(|origin| origin.session != now.session)
    }

    /// Whether a row of this origin was written.
    pub(crate) fn has(&self, origin: Origin) -> bool {
        self.origins.contains(&origin)
    }
}

/// When the last session of accounts whose homes are no longer in memory ended unresumed.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    accounts: HashMap<BareJid, Duration>,
    /// At how many to look for those that are over.
    full: usize,
}

impl Ended {
    /// Remembers an end for as long as it matters.
    pub(crate) fn keep(&mut self, account: BareJid, end: Duration, now: Duration, window: Duration) {
        if now >= end + window {
            return;
        }
        if self.accounts.len() >= self.full {
            self.accounts.retain(|_, end| now < *end + window);
            self.full = (self.accounts.len() * 2).max(1_024);
        }
        self.accounts.insert(account, end);
    }

    /// The end of an account whose home is there again.
    pub(crate) fn take(&mut self, account: &BareJid) -> Option<Duration> {
        self.accounts.remove(account)
    }
}

/// The newest rows within bounds, at most `limit`, however long that takes.
async fn newest_rows(
    store: &SharedStore,
    owner: &BareJid,
    mut filter: LogFilter,
    limit: usize,
) -> Result<LogPage, StoreError> {
    let mut found = LogPage::default();
    loop {
        let left = Page::Last(limit - found.rows.len());
        let mut page = store.log_page(owner, filter.clone(), left).await?;
        page.rows.append(&mut found.rows);
        found = page;
        match found.reached {
            Some(reached) => filter.below = Some(reached),
            None => return Ok(found),
        }
    }
}

/// Reads what [`Recent`] is made of: the newest rows, and more where these do not reach back as far as `window` from the
/// newest.
pub(crate) async fn read_tail(
    store: SharedStore,
    owner: BareJid,
    window: Duration,
    through: Duration,
) -> Result<Tail, StoreError> {
    let page = newest_rows(&store, &owner, LogFilter::default(), MIN_ROWS).await?;
    let mut rows = page.rows;
    if let (false, Some(oldest), Some(newest)) = (page.complete, rows.first(), rows.last()) {
        let from = Position(newest.position.timestamp().minus(window).0);
        if from < oldest.position {
            let filter =
                LogFilter { above: Some(from), below: Some(oldest.position), ..LogFilter::default() };
            let mut older = newest_rows(&store, &owner, filter, MAX_ROWS - MIN_ROWS).await?.rows;
            older.append(&mut rows);
            rows = older;
        }
    }
    Ok(Tail { rows, through })
}
