//! Recognising a message that its client sends a second time in a new session (promise 2 of the design).
//!
//! A client that lost its session does not know which of its last messages were taken. It sends them again with the
//! same `origin-id` (XEP-0359). For some time after a session ended unresumed, messages with an `origin-id` are
//! compared with the rows that were written before that end: the tail of the log is read once, when it is first
//! needed. Of what is decided later only hashes are kept, which tell whether a message may be among that: then, and only then,
//! it is read once more. A read for each message of a session that follows a lost one would be more than a busy home can do.
//!
//! What a session has under way, and its edge or its sender's home says once more to the next home, is among its newest rows: for
//! that no more is read than may lie above it ([`Reach`]), however much was written in the quarter of an hour before.
//!
//! Moments are of monotonic time: a clock that is set makes no message new. Of rows only the place in the log is known;
//! how far the tail reaches is counted from its end, and in rows.

use bytes::Bytes;
use compact_str::CompactString;
use smallvec::SmallVec;
use starling_store::{
    Direction, LogFilter, LogPage, LogRow, Origin, Page, Position, SharedStore, StoreError,
};
use starling_wire::credit;
use starling_xmpp::{BareJid, Jid, Stanza, ns};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How many rows of the tail are looked at, at most.
const MAX_ROWS: usize = 5_000;
/// How many bytes of them.
const MAX_BYTES: usize = 64 << 20;
/// How many in any case, however old they seem: clocks are set.
const MIN_ROWS: usize = 256;
/// How many are read first; then as many at a time as are about so many bytes. A row may be large, and many read at once.
const FIRST: usize = 16;
const PIECE: usize = 256 << 10;
/// How many at a time, however small they are.
const MOST: usize = 2_048;
/// How many rows of a session are above one of a stanza of it that has no answer yet: what was said behind it, one row each, and
/// as many again that another session of its account has said once more in its place.
const UNDER_WAY: usize = 2 * credit::MOST;
/// How long after the resume window a client may still come back with what it had sent.
pub(crate) const GRACE: Duration = Duration::from_secs(600);

/// A message as a client sees it: who sent it, under which id, to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    sender: BareJid,
    id: CompactString,
    with: BareJid,
    body: Option<Bytes>,
    /// Of one without an `origin-id`: the session that says it, and to whom it is.
    exact: Option<(u128, Option<Jid>)>,
}

impl Fingerprint {
    /// Of a message of this sender to this recipient; `None` without an `origin-id`.
    pub(crate) fn of(sender: &BareJid, with: &BareJid, stanza: &Stanza) -> Option<Self> {
        let id = origin_id(stanza)?;
        let body = stanza.payload.get(ns::CLIENT, "body").map(|body| Bytes::copy_from_slice(body.bytes()));
        Some(Self { sender: sender.clone(), id, with: with.clone(), body, exact: None })
    }

    /// Whether it has no `origin-id`.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact.is_some()
    }

    /// The same of any message: one without an `origin-id` is what it is word for word, within its session.
    pub(crate) fn of_any(session: u128, sender: &BareJid, with: &BareJid, stanza: &Stanza) -> Self {
        Self::of(sender, with, stanza).unwrap_or_else(|| Self {
            sender: sender.clone(),
            id: stanza.id.clone().unwrap_or_default(),
            with: with.clone(),
            body: Some(stanza.payload.bytes().clone()),
            exact: Some((session, stanza.to.clone())),
        })
    }
}

/// What a session may have said before and may say again: to homes before its present one, or at its very beginning, which is what
/// its client had under way in a session that it has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Before {
    /// Up to this sequence: what has an `origin-id`.
    pub(crate) through: u64,
    /// Above the first of these and up to the second: what has none. Its client was not told that it is handled.
    pub(crate) unheard: (u64, u64),
}

impl Before {
    /// Whether what was said under this sequence is among it.
    fn has(&self, message: &Fingerprint, sequence: u64) -> bool {
        let (after, through) = if message.exact.is_some() { self.unheard } else { (0, self.through) };
        sequence > after && sequence <= through
    }

    /// Whether any message may be one of them.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard.1 > 0
    }
}

/// The sender's own id of a message (XEP-0359 §3.2).
pub(crate) fn origin_id(stanza: &Stanza) -> Option<CompactString> {
    let child = stanza.payload.get(ns::SID, "origin-id")?;
    child.attribute("id").map(|id| CompactString::from(&*id))
}

/// Hashes remembered by [`Since`]; beyond that the tail is read once more.
const MAX_SINCE: usize = 8_192;

/// How far back the tail is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Reach {
    /// As far as there may be rows of stanzas that this session (of an origin) has under way, under their own origins.
    Session(u128),
    /// As far as anything may be said again.
    #[default]
    Whole,
}

/// What is there of a session.
#[derive(Debug, Default)]
struct Rows {
    /// The highest sequence.
    latest: u64,
    count: usize,
}

/// Rows that a resent message may already have, without what is in them.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    through: Duration,
    origins: HashSet<Origin>,
    /// By a hash under keys of its own, so wide that no two messages share one.
    fingerprints: HashMap<u128, SmallVec<[Origin; 1]>>,
    keys: [RandomState; 2],
    sessions: HashMap<u128, Rows>,
    /// Nothing older matters.
    whole: bool,
}

impl Recent {
    /// Nothing was written in that time.
    pub(crate) fn empty(through: Duration) -> Self {
        Self { through, whole: true, ..Self::default() }
    }

    /// Adds a row that is older than those before it. `owner` tells who sent the rows that went out.
    fn add(&mut self, owner: &BareJid, row: LogRow) {
        self.origins.insert(row.origin);
        let rows = self.sessions.entry(row.origin.session).or_default();
        (rows.latest, rows.count) = (row.origin.sequence.max(rows.latest), rows.count + 1);
        let Ok(stanza) = Stanza::decode(row.stanza) else { return };
        let (sender, with) = match row.direction {
            Direction::In => (&row.with, owner),
            Direction::Out => (owner, &row.with),
            Direction::Own => (owner, owner),
        };
        let message = Fingerprint::of_any(row.origin.session, sender, with, &stanza);
        let origins = self.fingerprints.entry(self.hash(&message)).or_default();
        if origins.is_empty() || message.exact.is_some() {
            origins.push(row.origin);
        }
    }

    fn hash(&self, fingerprint: &Fingerprint) -> u128 {
        let [one, two] = self.keys.each_ref().map(|key| u128::from(key.hash_one(fingerprint)));
        one << 64 | two
    }

    /// Whether nobody sends any more what could be in it.
    pub(crate) fn is_over(&self, now: Duration, window: Duration) -> bool {
        now >= self.through + window
    }

    /// Whether rows up to this moment are covered.
    pub(crate) fn covers(&self, moment: Duration) -> bool {
        self.through >= moment
    }

    /// Whether it reaches back so far.
    pub(crate) fn tells(&self, reach: Reach) -> bool {
        self.whole
            || match reach {
                Reach::Session(session) => {
                    self.sessions.get(&session).is_some_and(|rows| rows.count >= UNDER_WAY)
                }
                Reach::Whole => false,
            }
    }

    /// The origin under which a message was taken before. Of the session that says it now, only what it may have said [`Before`]. Of
    /// several that say the same the oldest: a client says again in order what it had said.
    pub(crate) fn find(&self, message: &Fingerprint, session: u128, before: Before) -> Option<Origin> {
        let is_it = |origin: &&Origin| origin.session != session || before.has(message, origin.sequence);
        self.fingerprints.get(&self.hash(message))?.iter().rev().find(is_it).copied()
    }

    /// Whether a row is there of what its session has said later.
    pub(crate) fn has_later(&self, origin: Origin) -> bool {
        self.sessions.get(&origin.session).is_some_and(|rows| rows.latest > origin.sequence)
    }

    /// Whether a row of this origin was written.
    pub(crate) fn has(&self, origin: Origin) -> bool {
        self.origins.contains(&origin)
    }
}

/// Rows that were decided after the tail was read, by hashes of what they are recognised by.
///
/// The tail is read when all rows before have landed. So a message that is neither in it nor in here has no row; one that is in
/// here only may have, if its commit is confirmed.
#[derive(Debug, Default)]
pub(crate) struct Since {
    /// With the session of each, or [`SEVERAL`].
    rows: HashMap<u64, u128>,
    /// Those of them that were decided while the tail is being read.
    during: HashMap<u64, u128>,
}

/// Messages of several sessions look the same.
const SEVERAL: u128 = u128::MAX;

impl Since {
    /// A row is decided. False: that are too many, and nothing is remembered but what a read that is under way does not have.
    pub(crate) fn add(
        &mut self,
        origin: Origin,
        message: &Fingerprint,
        reading: bool,
        hasher: &RandomState,
    ) -> bool {
        for hash in [hasher.hash_one(origin), hasher.hash_one(message)] {
            put(&mut self.rows, hash, origin.session);
            if reading {
                put(&mut self.during, hash, origin.session);
            }
        }
        let room = self.rows.len() < MAX_SINCE;
        if !room {
            self.rows = HashMap::new();
        }
        room
    }

    /// Whether the row of this message may be among them: one of this origin, or one that another session than the one that says
    /// it now has sent, or this one to a home before this.
    pub(crate) fn may_have(
        &self,
        origin: Origin,
        message: Option<&Fingerprint>,
        (session, before): (u128, Before),
        hasher: &RandomState,
    ) -> bool {
        if self.rows.is_empty() {
            return false;
        }
        let sent = |hash: u64| self.rows.get(&hash);
        sent(hasher.hash_one(origin)).is_some()
            || message
                .and_then(|message| sent(hasher.hash_one(message)))
                .is_some_and(|sender| *sender != session || before != Before::default())
    }

    /// Whether a row of this origin may be among them.
    pub(crate) fn has(&self, origin: Origin, hasher: &RandomState) -> bool {
        !self.rows.is_empty() && self.rows.contains_key(&hasher.hash_one(origin))
    }

    /// The tail is about to be read.
    pub(crate) fn begins(&mut self) {
        self.during = HashMap::new();
    }

    /// It has been read.
    pub(crate) fn ends(&mut self) {
        self.rows = std::mem::take(&mut self.during);
    }
}

fn put(rows: &mut HashMap<u64, u128>, hash: u64, session: u128) {
    let known = rows.entry(hash).or_insert(session);
    if *known != session {
        *known = SEVERAL;
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

/// Reads what [`Recent`] is made of: the newest rows, and more where these do not reach back as far as is asked for, which is
/// never further than `window` from the newest.
pub(crate) async fn read_tail(
    store: SharedStore,
    owner: BareJid,
    reach: Reach,
    window: Duration,
    through: Duration,
) -> Result<Recent, StoreError> {
    gather(&owner, reach, window, through, |filter, page| store.log_page(&owner, filter, page)).await
}

async fn gather<F: Future<Output = Result<LogPage, StoreError>>>(
    owner: &BareJid,
    reach: Reach,
    window: Duration,
    through: Duration,
    read: impl Fn(LogFilter, Page) -> F,
) -> Result<Recent, StoreError> {
    let mut recent = Recent { through, ..Recent::default() };
    let most = if reach == Reach::Whole { MOST } else { UNDER_WAY };
    let (mut below, mut from, mut limit) = (None, None, FIRST);
    let (mut seen, mut taken) = (0, 0);
    loop {
        let filter = LogFilter { below, ..LogFilter::default() };
        let page = read(filter, Page::Last(limit)).await?;
        let (oldest, newest) = (page.rows.first(), page.rows.last());
        from = from.or_else(|| newest.map(|newest| Position(newest.position.timestamp().minus(window).0)));
        below = page.reached.or_else(|| oldest.map(|oldest| oldest.position));
        seen += page.rows.len();
        let bytes: usize = page.rows.iter().map(|row| row.stanza.len()).sum();
        taken += bytes;
        let large = bytes / page.rows.len().max(1);
        limit = (PIECE / large.max(1)).clamp(1, most);
        for row in page.rows.into_iter().rev() {
            recent.add(owner, row);
        }
        let far = seen >= MIN_ROWS && below <= from;
        recent.whole = page.complete || below.is_none() || far || seen >= MAX_ROWS || taken >= MAX_BYTES;
        if recent.tells(reach) {
            return Ok(recent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_xmpp::{Element, MessageType};
    use std::cell::Cell;

    fn message(id: &str) -> Fingerprint {
        let jid = |local: &str| BareJid::parse(&format!("{local}@localhost")).unwrap();
        Fingerprint { sender: jid("alice"), id: id.into(), with: jid("bob"), body: None, exact: None }
    }

    fn of(session: u128, sequence: u64) -> Origin {
        Origin { session, sequence }
    }

    fn up_to(through: u64) -> Before {
        Before { through, unheard: (0, 0) }
    }

    #[test]
    fn only_what_was_decided_since_makes_another_read_worth_while() {
        let (hasher, mut since) = (RandomState::new(), Since::default());
        let (one, two) = (message("1"), message("2"));
        assert!(!since.may_have(of(1, 1), Some(&one), (1, up_to(0)), &hasher));
        assert!(since.add(of(1, 1), &one, false, &hasher));
        assert!(since.may_have(of(1, 1), None, (1, up_to(0)), &hasher), "refused, and sent again");
        assert!(since.may_have(of(2, 7), Some(&one), (2, up_to(0)), &hasher), "from another session");
        assert!(
            !since.may_have(of(1, 2), Some(&one), (1, up_to(0)), &hasher),
            "its own client says what is new"
        );
        assert!(
            since.may_have(of(1, 2), Some(&one), (1, up_to(1)), &hasher),
            "but for what it said to another home"
        );
        assert!(!since.may_have(of(2, 7), Some(&two), (2, up_to(0)), &hasher));
        assert!(since.add(of(2, 7), &one, false, &hasher));
        assert!(
            since.may_have(of(1, 2), Some(&one), (1, up_to(0)), &hasher)
                && since.may_have(of(2, 8), Some(&one), (2, up_to(0)), &hasher)
        );
        since.begins();
        assert!(since.add(of(3, 1), &two, true, &hasher));
        assert!(since.may_have(of(1, 1), None, (1, up_to(0)), &hasher), "until it has been read");
        since.ends();
        assert!(!since.may_have(of(1, 1), Some(&one), (1, up_to(0)), &hasher));
        assert!(since.may_have(of(3, 1), None, (3, up_to(0)), &hasher), "it was decided meanwhile");
    }

    #[tokio::test]
    async fn large_rows_are_read_a_few_at_a_time_and_not_kept() {
        const ROWS: u64 = 300;
        let jid = |local: &str| BareJid::parse(&format!("{local}@localhost")).unwrap();
        let (alice, bob) = (jid("alice"), jid("bob"));
        let said = |number: u64| {
            Stanza::message(MessageType::Chat)
                .child(Element::new(ns::CLIENT, "body").text("x".repeat(200_000)))
                .child(Element::new(ns::SID, "origin-id").attr("id", format!("id-{number}")))
        };
        let row = |number: u64| LogRow {
            owner: bob.clone(),
            position: Position(1_000_000 + number),
            origin: of(1, number),
            origin_id: Some("id".into()),
            direction: Direction::In,
            with: alice.clone(),
            archived: true,
            offline: true,
            expires: None,
            stanza: said(number).encode(),
        };
        let most = Cell::new(0);
        let read = |filter: LogFilter, page: Page| {
            let Page::Last(limit) = page else { panic!("{page:?}") };
            let end = filter.below.map_or(ROWS, |below| below.0 - 1_000_000);
            let begin = end.saturating_sub(limit as u64);
            most.set(most.get().max(end - begin));
            let rows = (begin..end).map(row).collect();
            std::future::ready(Ok(LogPage { rows, complete: begin == 0, reached: None }))
        };
        let recent =
            gather(&bob, Reach::Whole, Duration::from_secs(900), Duration::ZERO, read).await.unwrap();
        assert_eq!(most.get(), FIRST as u64, "and fewer as soon as it is known how large they are");
        assert_eq!((recent.origins.len(), recent.fingerprints.len()), (300, 300));
        let message = Fingerprint::of(&alice, &bob, &said(17)).unwrap();
        assert_eq!(recent.find(&message, 2, up_to(0)), Some(of(1, 17)));
        let other = Fingerprint::of(&alice, &bob, &said(301)).unwrap();
        assert_eq!(recent.find(&other, 2, up_to(0)), None);
    }

    /// What was read of a log of so many rows, in how many questions, and how many rows that were.
    async fn read_for(rows: u64, reach: Reach, of: impl Fn(u64) -> Origin) -> (Recent, u64, u64) {
        let bob = BareJid::parse("bob@localhost").unwrap();
        let row = |number: u64| LogRow {
            owner: bob.clone(),
            position: Position(1_000_000 + number),
            origin: of(number),
            origin_id: None,
            direction: Direction::Own,
            with: bob.clone(),
            archived: true,
            offline: false,
            expires: None,
            stanza: Stanza::message(MessageType::Chat).encode(),
        };
        let (asked, read) = (Cell::new(0), Cell::new(0));
        let read_page = |filter: LogFilter, page: Page| {
            let Page::Last(limit) = page else { panic!("{page:?}") };
            let end = filter.below.map_or(rows, |below| below.0 - 1_000_000);
            let begin = end.saturating_sub(limit as u64);
            asked.set(asked.get() + 1);
            read.set(read.get() + (end - begin));
            let rows = (begin..end).map(row).collect();
            std::future::ready(Ok(LogPage { rows, complete: begin == 0, reached: None }))
        };
        let window = Duration::from_secs(900);
        let recent = gather(&bob, reach, window, Duration::ZERO, read_page).await.unwrap();
        assert!(recent.tells(reach));
        (recent, asked.get(), read.get())
    }

    /// When a shard moves, all accounts that talk do this at once: each question more is time without a home.
    #[tokio::test]
    async fn small_rows_are_read_in_few_pieces_and_so_many_at_most() {
        let (_, asked, read) = read_for(10_000, Reach::Whole, |number| of(1, number)).await;
        assert!(asked <= 4, "{asked} questions");
        assert!((MAX_ROWS as u64..MAX_ROWS as u64 + MOST as u64).contains(&read), "{read}");
    }

    /// The time without a home is not to grow with what was written in the last quarter of an hour.
    #[tokio::test]
    async fn what_a_session_has_under_way_is_among_its_newest_rows() {
        const UNTIL: u64 = credit::MOST as u64;
        // Of a session that says every second row of the log.
        let second = |number: u64| of(u128::from(number % 2), number);
        for rows in [3_000, 100_000] {
            let (recent, _, read) = read_for(rows, Reach::Session(1), second).await;
            assert!(read <= 2 * 2 * UNDER_WAY as u64, "{read} of {rows}");
            assert!(recent.has(of(1, rows - 1)) && recent.has(of(1, rows + 1 - 2 * UNTIL)));
            assert!(recent.has_later(of(1, rows - 3)) && !recent.has_later(of(1, rows - 1)));
            assert!(!recent.tells(Reach::Whole) && !recent.tells(Reach::Session(7)));
        }
        // Nothing of it is there: all has to be looked at in which there might be.
        let (recent, _, read) = read_for(3_000, Reach::Session(7), second).await;
        assert!(recent.tells(Reach::Whole) && read == 3_000, "{read}");
        // What it has under way is far below what others have said since.
        let below = |number: u64| of(u128::from(number < 500), number);
        let (recent, ..) = read_for(3_000, Reach::Session(1), below).await;
        assert!(recent.has(of(1, 499)) && recent.has(of(1, 0)));
        // It was said once more by another session, out of order.
        let late = |number: u64| of(1, if number < 2_600 { 1_000 + number } else { number - 2_600 });
        let (recent, ..) = read_for(3_000, Reach::Session(1), late).await;
        assert!(recent.has(of(1, 3_599)) && recent.has(of(1, 399)));
    }

    #[test]
    fn what_is_remembered_of_rows_is_bounded() {
        let (hasher, mut since) = (RandomState::new(), Since::default());
        let adds = |n: &u64| since.add(of(1, *n), &message("1"), false, &hasher);
        let added = (0..MAX_SINCE as u64).take_while(adds).count();
        assert_eq!((added, since.rows.len()), (MAX_SINCE - 2, 0));
    }
}
