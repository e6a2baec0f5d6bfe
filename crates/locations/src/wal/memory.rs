//! A group's log in memory: all reads come from here.

use std::{
    collections::VecDeque,
    ops::{Bound, RangeBounds},
};

use openraft::{Entry, Vote};

use super::{
    LogId, WalError,
    coding::{Typed, put_entry},
    live::Copied,
    queue::Piece,
    record::Kind,
};

/// The live content of one group.
pub(crate) struct Memory<C: Typed> {
    pub(crate) vote: Option<Vote<u64>>,
    pub(crate) purged: Option<LogId>,
    /// The last log id of the newest durable snapshot.
    pub(crate) mark: Option<LogId>,
    entries: VecDeque<Held<C>>,
    /// The bytes that all entries take in records.
    live: usize,
}

struct Held<C: Typed> {
    entry: Entry<C>,
    size: usize,
}

/// Bodies of entries are closed when they are this long.
const BODY: usize = 1 << 20;

impl<C: Typed> Memory<C> {
    pub(crate) fn new(vote: Option<Vote<u64>>, purged: Option<LogId>, mark: Option<LogId>) -> Self {
        Self { vote, purged, mark, entries: VecDeque::new(), live: 0 }
    }

    /// Adds an entry that was read from the disk.
    pub(crate) fn restore(&mut self, entry: Entry<C>, size: usize) {
        self.live += size;
        self.entries.push_back(Held { entry, size });
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The index of the first entry, if there is one.
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|held| held.entry.log_id.index)
    }

    /// The log id of the last entry, or of the last that was purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|held| held.entry.log_id).or(self.purged)
    }

    /// Puts entries that follow one another, `records` of which say what is to be written, in place of all from the
    /// first one's index on.
    pub(crate) fn append(&mut self, entries: Encoded<C>) -> Result<VecDeque<Piece>, WalError> {
        let Encoded { held, pieces } = entries;
        let Some(first) = held.first().map(|held| held.entry.log_id.index) else {
            return Ok(pieces);
        };
        if let Some(last) = self.last()
            && first > last.index + 1
        {
            return Err(WalError::Hole { first, last: last.index });
        }
        self.truncate(first);
        self.live += held.iter().map(|held| held.size).sum::<usize>();
        self.entries.extend(held);
        Ok(pieces)
    }

    /// Takes all entries from an index on away.
    pub(crate) fn truncate(&mut self, from: u64) {
        while let Some(held) = self.entries.pop_back_if(|held| held.entry.log_id.index >= from) {
            self.live -= held.size;
        }
    }

    /// Takes all entries up to a log id away.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while let Some(held) = self.entries.pop_front_if(|held| held.entry.log_id.index <= upto.index) {
            self.live -= held.size;
        }
        self.purged = self.purged.max(Some(upto));
    }

    /// Copies of the entries in a range, at most about `bytes` of them, but one at least.
    pub(crate) fn entries(&self, range: impl RangeBounds<u64>, bytes: usize) -> Vec<Entry<C>> {
        let Some(base) = self.first() else { return Vec::new() };
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let offset = |index: u64| {
            usize::try_from(index.saturating_sub(base))
                .map_or(self.entries.len(), |at| at.min(self.entries.len()))
        };
        let (start, end) = (offset(start), offset(end));
        let mut size = 0;
        let wanted = self.entries.range(start..end.max(start)).take_while(|held| {
            let fits = size == 0 || size + held.size <= bytes;
            size += held.size;
            fits
        });
        wanted.map(|held| held.entry.clone()).collect()
    }

    /// The live content from an index on, to be written again.
    pub(crate) fn copy(&self, from: Option<u64>, bytes: usize) -> Copied {
        let mut copied = match from {
            Some(_) => Copied::default(),
            None => Copied { vote: self.vote, purged: self.purged, mark: self.mark, ..Copied::default() },
        };
        let entries = self.entries(from.unwrap_or(0).., bytes);
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            let (first, last) = (first.log_id.index, last.log_id.index);
            let mut body = Vec::new();
            for entry in &entries {
                put_entry(&mut body, entry);
            }
            copied.entries = Some((body, first, last));
            copied.rest = self.last().filter(|end| end.index > last).map(|_| last + 1);
        }
        copied
    }
}

/// Entries and the records for them: made before the log is locked.
pub(crate) struct Encoded<C: Typed> {
    held: Vec<Held<C>>,
    pieces: VecDeque<Piece>,
}

impl<C: Typed> Encoded<C> {
    /// Encodes entries; `most` is the longest body that a segment can take.
    pub(crate) fn new(entries: impl IntoIterator<Item = Entry<C>>, most: usize) -> Result<Self, WalError> {
        let mut encoded = Self { held: Vec::new(), pieces: VecDeque::new() };
        let mut body = Vec::new();
        let mut first = None;
        for entry in entries {
            let index = entry.log_id.index;
            if let Some(held) = encoded.held.last()
                && held.entry.log_id.index + 1 != index
            {
                return Err(WalError::Hole { first: index, last: held.entry.log_id.index });
            }
            let before = body.len();
            let size = put_entry(&mut body, &entry);
            if size > most {
                return Err(WalError::TooLarge { bytes: size });
            }
            // One that does not fit any more begins the next body.
            if before > 0 && body.len() > BODY.min(most) {
                let rest = body.split_off(before);
                encoded.close(std::mem::replace(&mut body, rest), first.take(), index - 1);
            }
            first.get_or_insert(index);
            encoded.held.push(Held { entry, size });
        }
        if let Some(last) = encoded.held.last().map(|held| held.entry.log_id.index) {
            encoded.close(body, first, last);
        }
        Ok(encoded)
    }

    fn close(&mut self, body: Vec<u8>, first: Option<u64>, last: u64) {
        let first = first.unwrap_or(last);
        self.pieces.push_back(Piece { kind: Kind::Append, body, first, last });
    }

    /// The bytes of all records.
    pub(crate) fn room(&self) -> usize {
        self.pieces.iter().map(Piece::room).sum()
    }
}
