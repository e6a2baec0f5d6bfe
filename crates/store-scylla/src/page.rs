//! Pages of a log: one read, or two where a page lies over the border of a bucket, at any size of the log.
//!
//! The buckets of an account that is in use are known, so a page begins in the right one. By peer the index says where rows
//! are; an entry whose row is not there, or is another one's by now, is passed over.

use crate::buckets::Buckets;
use crate::codec;
use crate::cql::{Bucket, BucketRow, Cql, Found, Level, Owner, Slice, Volume};
use crate::store::Inner;
use futures::future::try_join_all;
use starling_store::{Cursor, LogFilter, LogPage, LogRow, Page, Position, Result};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Partitions read side by side.
const ABREAST: usize = 8;
/// Rows, or entries of the index, of one read.
const MOST_ROWS: usize = 500;
/// Rows of the first read, and bytes of the further ones, about: by then it is known how large they are.
const FIRST_ROWS: usize = 256;
const MOST_BYTES: usize = 8 << 20;
/// Entries of the index of one read, at least: they are small.
const FEWEST_ENTRIES: usize = 64;
/// Positions asked for at once.
const POSITIONS: usize = 100;

/// What is to be known of an account to read its log.
struct View {
    owner: Owner,
    buckets: Buckets,
    cursor: Cursor,
    /// Up to here it is known which rows there are.
    sure: Position,
}

/// A search for rows from one end.
struct Search {
    filter: LogFilter,
    cursor: Cursor,
    newest: bool,
    /// One more than the page holds: it tells whether there are more.
    wanted: usize,
    now: Timestamp,
    /// In the order of the search.
    found: Vec<LogRow>,
    /// It was given up after everything up to this position had been looked at.
    reached: Option<Position>,
}

/// A partition to be searched, and the bounds within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch<T> {
    what: T,
    low: Position,
    high: Position,
    /// As far as is known.
    rows: usize,
}

impl<C: Cql> Inner<C> {
    /// One page.
    pub(crate) async fn log_page(&self, jid: BareJid, filter: LogFilter, page: Page) -> Result<LogPage> {
        let nothing = LogPage { complete: true, ..LogPage::default() };
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        let Some((mut low, high)) = filter.bounds() else { return Ok(nothing) };
        let Some(View { owner, buckets, cursor, sure }) = self.view(&jid, filter.offline, until).await?
        else {
            return Ok(nothing);
        };
        if filter.offline {
            // Everything up to there is done with.
            low = low.max(Position(cursor.through.0.saturating_add(1)));
        }
        let now = (self.now)();
        if filter.archived {
            low = low.max(eldest(&self.calls.settings, now));
        }
        // Somebody looks through the archive. Of what is under way he would see a part, and make sure of that part alone.
        let high = high.min(if filter.archived { sure } else { codec::HIGHEST });
        if low > high {
            return Ok(nothing);
        }
        let (limit, newest) = match page {
            Page::First(limit) => (limit, false),
            Page::Last(limit) => (limit, true),
        };
        let wanted = limit.saturating_add(1);
        let peer = filter.with.clone();
        let mut search = Search { filter, cursor, newest, wanted, now, found: Vec::new(), reached: None };
        match peer {
            None => self.search(&owner, &buckets, low, high, &mut search, until).await?,
            Some(peer) => self.search_peer(&owner, &peer, &buckets, low, high, &mut search, until).await?,
        }
        let mut rows = search.found;
        let reached = search.reached.filter(|_| rows.len() <= limit);
        let complete = rows.len() <= limit && reached.is_none();
        rows.truncate(limit);
        if newest {
            rows.reverse();
        }
        Ok(LogPage { rows, complete, reached })
    }

    /// The rows at these positions.
    pub(crate) async fn log_rows(&self, jid: BareJid, mut positions: Vec<Position>) -> Result<Vec<LogRow>> {
        let until = self.calls.deadline(self.calls.settings.read_deadline);
        positions.retain(|position| *position <= codec::HIGHEST);
        positions.sort_unstable();
        positions.dedup();
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let Some(View { owner, buckets, .. }) = self.view(&jid, false, until).await? else {
            return Ok(Vec::new());
        };
        let places =
            positions.into_iter().filter_map(|position| Some((position, buckets.holding(position)?.bucket)));
        let now = (self.now)();
        let mut rows = self.rows_at(&owner, places.collect(), until).await?;
        rows.retain(|row| !codec::has_ended(row, &self.calls.settings, now));
        rows.sort_unstable_by_key(|row| row.position);
        Ok(rows)
    }

    /// What is known of the account, or can be read; `None` where there is no account.
    async fn view(&self, jid: &BareJid, cursor: bool, until: Duration) -> Result<Option<View>> {
        let mut sure = codec::HIGHEST;
        if let Some(account) = self.owners.known(jid) {
            let lane = account.lane.lock();
            sure = lane.sure();
            if let Some(opened) = &lane.opened {
                let (owner, buckets) = (opened.owner.clone(), opened.buckets.clone());
                return Ok(Some(View { owner, buckets, cursor: opened.cursor.clone(), sure }));
            }
        }
        let row = self.calls.read(until, || self.calls.cql.account(jid, Level::Quorum)).await?;
        let Some(row) = row else { return Ok(None) };
        let owner = Owner { jid: jid.clone(), generation: row.generation };
        let buckets = Buckets::new(self.buckets(&owner, until).await?, 0, 0);
        let cursor = if cursor { self.cursor(&owner).await? } else { Cursor::default() };
        Ok(Some(View { owner, buckets, cursor, sure }))
    }

    async fn search(
        &self,
        owner: &Owner,
        buckets: &Buckets,
        low: Position,
        high: Position,
        search: &mut Search,
        until: Duration,
    ) -> Result<()> {
        let mut left =
            stretches(buckets.within(low..=high), low, high, search.newest, |row| row.bucket, buckets);
        let stop = self.stop(until);
        let mut chunk = 0;
        let mut bytes = buckets.usual_bytes();
        while !left.is_empty() && search.found.len() < search.wanted {
            if self.calls.cql.monotonic() >= stop {
                search.reached = left.front().map(|next| next.before(search.newest));
                break;
            }
            let missing = search.wanted - search.found.len();
            let most = most_rows(bytes);
            let some = if chunk * 2 > most { 1 } else { enough(&left, missing) };
            chunk = missing.max(chunk * 2).min(most);
            let reads = left.iter().take(some).map(|stretch| {
                let Stretch { what, low, high, .. } = *stretch;
                let slice = Slice { low, high, newest: search.newest, limit: chunk };
                self.rows(owner, what, slice, until)
            });
            for rows in try_join_all(reads).await? {
                let end = rows.last().map(Found::position);
                let more = rows.len() == chunk;
                let stored = || rows.iter().filter_map(Found::stored);
                let read = stored().map(|stored| codec::weight(&stored.row)).sum::<usize>();
                bytes = bytes.max(read / stored().count().max(1));
                let rows = rows.into_iter().filter_map(Found::into_stored);
                search.take(rows.map(|stored| stored.row), &self.calls.settings);
                if !go_on(&mut left, end.filter(|_| more), search.newest) {
                    break;
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // bounds and place of one search
    async fn search_peer(
        &self,
        owner: &Owner,
        peer: &BareJid,
        buckets: &Buckets,
        low: Position,
        high: Position,
        search: &mut Search,
        until: Duration,
    ) -> Result<()> {
        let stop = self.stop(until);
        let within = buckets.within(low..=high);
        let mut left = volumes(stretches(within, low, high, search.newest, |row| row.volume, buckets));
        while !left.is_empty() && search.found.len() < search.wanted {
            if self.calls.cql.monotonic() >= stop {
                search.reached = left.front().map(|next| next.before(search.newest));
                break;
            }
            let missing = search.wanted - search.found.len();
            let chunk = missing.clamp(FEWEST_ENTRIES, MOST_ROWS);
            let reads = left.iter().take(ABREAST).map(|stretch| {
                let Stretch { what, low, high, .. } = *stretch;
                let slice = Slice { low, high, newest: search.newest, limit: chunk };
                self.calls.read(until, move || self.calls.cql.peers(owner, peer, what, slice))
            });
            let mut entries = Vec::new();
            for mut some in try_join_all(reads).await? {
                let mut more = some.len() == chunk;
                // No more rows are fetched than may be wanted; the rest of the entries is read again if it is needed.
                let room = missing - entries.len();
                if some.len() > room {
                    some.truncate(room);
                    more = true;
                }
                let end = some.last().map(|(position, _)| *position);
                entries.extend(some);
                if !go_on(&mut left, end.filter(|_| more), search.newest) || entries.len() == missing {
                    break;
                }
            }
            // A bucket that is listed no more has been dropped.
            entries.retain(|(_, bucket)| within.iter().any(|row| row.bucket == *bucket));
            let mut rows = self.rows_at(owner, entries, until).await?;
            rows.sort_unstable_by_key(|row| row.position);
            if search.newest {
                rows.reverse();
            }
            search.take(rows.into_iter(), &self.calls.settings);
        }
        Ok(())
    }

    /// When a search of rows that are far between goes no further, so that what it has found is not lost.
    fn stop(&self, until: Duration) -> Duration {
        until.saturating_sub(self.calls.settings.read_deadline / 2)
    }

    /// Rows of one bucket. What cannot be read is passed over by whoever asks: it is not to stand in the way of the rest.
    pub(crate) async fn rows(
        &self,
        owner: &Owner,
        bucket: Bucket,
        slice: Slice,
        until: Duration,
    ) -> Result<Vec<Found>> {
        let rows = self.calls.read(until, || self.calls.cql.rows(owner, bucket, slice)).await?;
        self.count_unreadable(&rows);
        Ok(rows)
    }

    fn count_unreadable(&self, rows: &[Found]) {
        for row in rows {
            if let Found::Unreadable(position, column) = row {
                self.calls.settings.metrics.store_unreadable.inc();
                tracing::warn!(
                    event = "row_unreadable",
                    position = position.0,
                    column,
                    "a row of a log cannot be read and is passed over"
                );
            }
        }
    }

    /// The rows at these places that exist, in any order.
    async fn rows_at(
        &self,
        owner: &Owner,
        places: Vec<(Position, Bucket)>,
        until: Duration,
    ) -> Result<Vec<LogRow>> {
        let mut buckets: BTreeMap<Bucket, Vec<Position>> = BTreeMap::new();
        for (position, bucket) in places {
            buckets.entry(bucket).or_default().push(position);
        }
        let asked: Vec<_> = buckets
            .iter()
            .flat_map(|(bucket, positions)| positions.chunks(POSITIONS).map(move |some| (*bucket, some)))
            .collect();
        let mut rows = Vec::new();
        for some in asked.chunks(ABREAST) {
            let reads = some.iter().map(|(bucket, positions)| {
                self.calls.read(until, move || self.calls.cql.rows_at(owner, *bucket, positions.to_vec()))
            });
            for read in try_join_all(reads).await? {
                self.count_unreadable(&read);
                rows.extend(read.into_iter().filter_map(Found::into_stored).map(|stored| stored.row));
            }
        }
        Ok(rows)
    }
}

impl<T> Stretch<T> {
    /// The last position that was looked at before this stretch is.
    fn before(&self, newest: bool) -> Position {
        if newest { Position(self.high.0.saturating_add(1)) } else { Position(self.low.0.saturating_sub(1)) }
    }
}

impl Search {
    fn take(&mut self, rows: impl Iterator<Item = LogRow>, settings: &crate::settings::Settings) {
        let Self { filter, cursor, now, wanted, found, .. } = self;
        let rows = rows.filter(|row| filter.wants(row, cursor));
        let rows = rows.filter(|row| !codec::has_ended(row, settings, *now));
        let room = *wanted - found.len();
        found.extend(rows.take(room));
    }
}

/// Where archived rows that may still be shown begin. Below there is nothing to be found but what the servers keep of rows
/// that have ended, which a read from the oldest end would wade through.
fn eldest(settings: &crate::settings::Settings, now: Timestamp) -> Position {
    let Some(age) = settings.retention.max_age_secs else { return Position(0) };
    let age = age.max(settings.offline_lifetime.as_secs()).saturating_mul(1_000_000);
    Position(now.0.saturating_sub(age))
}

/// The parts of the bounds that lie in each bucket, in the order of the search.
fn stretches<T>(
    within: &[BucketRow],
    low: Position,
    high: Position,
    newest: bool,
    what: fn(&BucketRow) -> T,
    buckets: &Buckets,
) -> VecDeque<Stretch<T>> {
    let mut stretches = VecDeque::with_capacity(within.len());
    for (at, row) in within.iter().enumerate() {
        let low = if at == 0 { low } else { low.max(row.bucket.0) };
        let next = within.get(at + 1).map(|next| Position(next.bucket.0.0.saturating_sub(1)));
        let high = next.map_or(high, |next| next.min(high));
        let rows = buckets.rows_of(row.bucket) as usize;
        let stretch = Stretch { what: what(row), low, high, rows };
        if newest {
            stretches.push_front(stretch);
        } else {
            stretches.push_back(stretch);
        }
    }
    stretches
}

/// Neighbours of one volume are one stretch.
fn volumes(buckets: VecDeque<Stretch<Volume>>) -> VecDeque<Stretch<Volume>> {
    let mut volumes: VecDeque<Stretch<Volume>> = VecDeque::new();
    for next in buckets {
        match volumes.back_mut().filter(|last| last.what == next.what) {
            Some(last) => {
                last.low = last.low.min(next.low);
                last.high = last.high.max(next.high);
                last.rows += next.rows;
            }
            None => volumes.push_back(next),
        }
    }
    volumes
}

/// How many rows are read at once, where they have so many bytes; 0 is not known.
fn most_rows(bytes: usize) -> usize {
    MOST_BYTES.checked_div(bytes).map_or(FIRST_ROWS, |rows| rows.clamp(1, MOST_ROWS))
}

/// How many of the next buckets are likely to hold what is missing. The first is often read in part only: it counts as it is.
fn enough(left: &VecDeque<Stretch<Bucket>>, missing: usize) -> usize {
    let mut rows = 0;
    let mut some = 0;
    for stretch in left.iter().take(ABREAST) {
        some += 1;
        rows += stretch.rows;
        if rows >= missing {
            break;
        }
    }
    some
}

/// Passes over what was read of the first stretch: up to `end` where there is more. Whether the next stretch is what
/// follows.
fn go_on<T>(left: &mut VecDeque<Stretch<T>>, end: Option<Position>, newest: bool) -> bool {
    let Some(end) = end else {
        left.pop_front();
        return true;
    };
    let Some(first) = left.front_mut() else { return false };
    let next = if newest { end.0.checked_sub(1) } else { end.0.checked_add(1) };
    match next.map(Position) {
        Some(next) if newest && next >= first.low => first.high = next,
        Some(next) if !newest && next <= first.high => first.low = next,
        _ => {
            left.pop_front();
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use starling_store::testing::at;

    fn three() -> Buckets {
        let settings = Settings { bucket_rows: 3, volume_buckets: 2, ..Settings::default() };
        let mut buckets = Buckets::default();
        for secs in [10, 11, 12, 20, 21, 22, 30] {
            buckets.place(at(secs), 100, &settings);
        }
        buckets
    }

    fn below(secs: u64) -> Position {
        Position(at(secs).0 - 1)
    }

    fn of<T>(what: T, low: Position, high: Position, rows: usize) -> Stretch<T> {
        Stretch { what, low, high, rows }
    }

    #[test]
    fn what_has_ended_is_not_read_and_what_is_shown_is() {
        use starling_store::testing::{jid, row};
        let mut settings = Settings::default();
        let now = Timestamp::from_secs(10_000_000);
        assert_eq!(eldest(&settings, now), Position(0));
        for age in [1_000, 5_000_000] {
            settings.retention.max_age_secs = Some(age);
            let eldest = eldest(&settings, now);
            let has_ended = |position| {
                let row = row(&jid("a@x.org"), position, &jid("b@x.org"));
                let row = LogRow { archived: true, offline: true, ..row };
                codec::has_ended(&row, &settings, now)
            };
            assert!(!has_ended(eldest) && has_ended(Position(eldest.0 - 1)), "{age}");
        }
    }

    #[test]
    fn bounds_are_cut_at_the_borders_of_buckets() {
        let buckets = three();
        let cut = |low, high, newest| {
            stretches(buckets.within(low..=high), low, high, newest, |row| row.bucket, &buckets)
        };
        let [one, two, three] = [10, 20, 30].map(|secs| Bucket(at(secs)));
        assert_eq!(
            cut(at(5), at(99), false),
            [of(one, at(5), below(20), 3), of(two, at(20), below(30), 3), of(three, at(30), at(99), 1)]
        );
        assert_eq!(cut(at(12), at(21), true), [of(two, at(20), at(21), 3), of(one, at(12), below(20), 3)]);
        assert_eq!(cut(at(1), at(2), false), [of(one, at(1), at(2), 3)]);
    }

    #[test]
    fn buckets_of_a_volume_are_searched_as_one() {
        let buckets = three();
        for newest in [false, true] {
            let (low, high) = (at(5), at(99));
            let within = buckets.within(low..=high);
            let mut volumes = volumes(stretches(within, low, high, newest, |row| row.volume, &buckets));
            if newest {
                volumes.make_contiguous().reverse();
            }
            let [one, two] = [10, 30].map(|secs| Volume(at(secs)));
            assert_eq!(volumes, [of(one, at(5), below(30), 6), of(two, at(30), at(99), 1)]);
        }
    }

    #[test]
    fn a_read_is_bounded_in_bytes() {
        assert_eq!([0, 100, 8_192, 100_000, 1 << 20, 1 << 30].map(most_rows), [256, 500, 500, 83, 8, 1]);
    }

    #[test]
    fn as_many_buckets_are_read_as_are_likely_to_do() {
        let stretch = |rows| of(Bucket(at(1)), at(1), at(2), rows);
        let left = VecDeque::from([stretch(3), stretch(0), stretch(500), stretch(500)]);
        assert_eq!([1, 3, 4, 600].map(|missing| enough(&left, missing)), [1, 1, 3, 4]);
        assert_eq!(enough(&VecDeque::from([stretch(0); 20]), 5), ABREAST);
    }

    #[test]
    fn a_search_goes_on_behind_what_it_has_read() {
        let stretches = || VecDeque::from([of(1, at(10), at(20), 0), of(2, at(21), at(30), 0)]);
        let mut left = stretches();
        assert!(!go_on(&mut left, Some(at(15)), false));
        assert_eq!(left[0], of(1, Position(at(15).0 + 1), at(20), 0));
        assert!(go_on(&mut left, Some(at(20)), false), "that was the last position");
        assert_eq!(left.len(), 1);
        let mut left = stretches();
        assert!(!go_on(&mut left, Some(at(15)), true));
        assert_eq!(left[0], of(1, at(10), Position(at(15).0 - 1), 0));
        assert!(go_on(&mut left, Some(at(10)), true));
        assert!(go_on(&mut left, None, true));
        assert!(left.is_empty());
    }
}
