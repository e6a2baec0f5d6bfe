//! Reading the log at start: all segments in order, into what each group has.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Vote;

use super::{
    LogId, WalError,
    coding::{self, framed, put_encoded, take_entry},
    live::{Copied, Live},
    places::Places,
    record::{self, Fields, Kind, NO_GROUP, Record},
    segment::{self, START},
};
use crate::disk::Disk;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) groups: BTreeMap<u16, Group>,
    /// The numbers of all segments that have files, the one that is written to being the last.
    pub(crate) segments: BTreeSet<u64>,
    /// The oldest segment that is needed.
    pub(crate) floor: u64,
    /// Where the log ends.
    pub(crate) end: End,
    /// Whether the next segment is made already.
    pub(crate) prepared: bool,
}

/// Where the log ends, and how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Behind the last whole record of that segment.
    pub(crate) segment: u64,
    pub(crate) offset: usize,
    /// The batch of the last record.
    pub(crate) batch: u64,
    /// Whether that record was the last of its batch.
    pub(crate) ended: bool,
    /// Where the last batch is: segment, begin, end. All before it was synced.
    pub(crate) last: (u64, usize, usize),
    /// The end of what a torn batch has left behind `offset`.
    pub(crate) litter: usize,
}

/// What one group has on the disk.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) vote: Option<Vote<u64>>,
    pub(crate) purged: Option<LogId>,
    pub(crate) mark: Option<LogId>,
    /// Log id and encoding by index.
    pub(crate) entries: BTreeMap<u64, (LogId, Box<[u8]>)>,
    pub(crate) places: Places,
}

/// Reads all segments.
pub(crate) fn replay(disk: &dyn Disk, identity: u64) -> Result<Replayed, WalError> {
    let names = disk.names().map_err(WalError::io("list its segments"))?;
    let segments: BTreeSet<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    let first = *segments.first().ok_or(WalError::Missing { segment: 1 })?;
    let mut replayed = Replayed::from(first);
    // What is wrong below the floor, which only a later segment knows.
    let mut below = (first > 1).then_some(WalError::Missing { segment: first - 1 });
    let mut number = first;
    loop {
        let error = match replayed.segment(disk, identity, number) {
            Ok(Some(floor)) => {
                replayed.floor = floor;
                number += 1;
                continue;
            }
            Ok(None) => match replayed.follows(disk, identity, number, &segments) {
                Ok(()) => break,
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !error.is_lost() || segments.range(number + 1..).next().is_none() {
            return Err(error);
        }
        // It may be on its way out: the last turn says whether it is still needed.
        below = Some(error);
        number += 1;
        replayed = Replayed::from(number);
    }
    let last = number;
    // Whole from here on; what could not be read lies below.
    let whole = replayed.segments.first().copied().unwrap_or(last);
    if let Some(error) = below
        && replayed.floor.min(last.saturating_sub(1)).max(1) < whole
    {
        return Err(error);
    }
    for (&group, content) in &replayed.groups {
        content.check().map_err(|what| WalError::BadGroup { group, what })?;
    }
    Ok(replayed)
}

/// A segment's bytes, and whether its header is right.
fn load(disk: &dyn Disk, identity: u64, number: u64) -> Result<(Result<(), WalError>, Vec<u8>), WalError> {
    let file = disk.open(&segment::name(number)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => WalError::Missing { segment: number },
        _ => WalError::io("open a segment")(error),
    })?;
    let size = file.size().map_err(WalError::io("read a segment"))?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(MOST)];
    file.read_at(&mut bytes, 0).map_err(WalError::io("read a segment"))?;
    let header = match bytes.first_chunk::<START>() {
        None => Err(damaged(number, 0, "it has no header")),
        Some(header) => segment::check(header, identity, number, bytes.len()),
    };
    Ok((header, bytes))
}

/// No segment is larger.
const MOST: usize = 1 << 30;

/// The first whole record of a batch after `batch` that lies anywhere behind `from`: its batch and its offset.
fn next_batch(bytes: &[u8], from: usize, seed: u32, batch: u64) -> Option<(u64, usize)> {
    (from..bytes.len()).step_by(record::ALIGN).find_map(|at| {
        // Batches are counted: a number far away is no number of a batch.
        let (record, _) =
            record::read_if(&bytes[at..], seed, |found| found > batch && found - batch < 1 << 40)?;
        Some((record.batch, at))
    })
}

fn damaged(segment: u64, offset: usize, what: &'static str) -> WalError {
    WalError::Damaged { segment, offset: offset as u64, what }
}

impl Replayed {
    /// Before the first segment that is read: as after a whole batch.
    fn from(first: u64) -> Self {
        Self { floor: first, end: End { ended: true, ..End::default() }, ..Self::default() }
    }

    /// Reads one segment. Returns the floor that its turn names, or `None` if the log ends in it.
    fn segment(&mut self, disk: &dyn Disk, identity: u64, number: u64) -> Result<Option<u64>, WalError> {
        let (header, bytes) = load(disk, identity, number)?;
        header?;
        let seed = record::seed(identity, number);
        let first = self.segments.is_empty();
        self.segments.insert(number);
        let mut at = START;
        while let Some((record, room)) = record::read(&bytes[at..], seed) {
            let anything = first && at == START;
            let follows = match self.end.ended {
                true => record.batch == self.end.batch + 1,
                false => record.batch == self.end.batch,
            };
            if !anything && !follows {
                break;
            }
            if anything || self.end.ended {
                self.end.last = (number, at, at);
            }
            at += room;
            self.end.last.2 = at;
            self.end = End {
                segment: number,
                offset: at,
                batch: record.batch,
                ended: record.ends_batch,
                ..self.end
            };
            if record.kind == Kind::Turn {
                return self.turn(&record, number, at).map(Some);
            }
            self.apply(&record, number).map_err(|what| damaged(number, at - room, what))?;
        }
        if self.end.segment != number {
            // Nothing has been written to it yet.
            self.end = End { segment: number, offset: START, ..self.end };
        }
        self.tear(&bytes, seed)?;
        Ok(None)
    }

    /// Looks at what follows the segment that the log seems to end in: at most one that holds nothing yet.
    fn follows(
        &mut self,
        disk: &dyn Disk,
        identity: u64,
        number: u64,
        segments: &BTreeSet<u64>,
    ) -> Result<(), WalError> {
        let Some(&next) = segments.range(number + 1..).next() else { return Ok(()) };
        let unsaid =
            damaged(number, self.end.offset, "it does not say that the log goes on in another segment");
        if segments.last() != Some(&(number + 1)) {
            return Err(unsaid);
        }
        let (header, bytes) = load(disk, identity, next)?;
        match next_batch(&bytes, START.min(bytes.len()), record::seed(identity, next), 0) {
            Some(_) => Err(unsaid),
            None => {
                self.prepared = header.is_ok();
                Ok(())
            }
        }
    }

    fn turn(&self, record: &Record<'_>, number: u64, at: usize) -> Result<u64, WalError> {
        let mut fields = Fields(record.body);
        let said = fields.u64().zip(fields.u64());
        match said {
            Some((next, floor)) if next == number + 1 && floor <= number && record.ends_batch => Ok(floor),
            _ => Err(damaged(number, at, "a turn leads nowhere")),
        }
    }

    /// Tells a torn end from damage: what a batch was followed by was synced.
    fn tear(&mut self, bytes: &[u8], seed: u32) -> Result<(), WalError> {
        let End { segment, offset, batch, ended, .. } = self.end;
        // The batch that has what follows the end, if anything whole does.
        let torn = if ended { batch + 1 } else { batch };
        let mut at = offset;
        self.end.litter = offset;
        // Of the torn batch there may be more.
        while let Some((found, begins)) = next_batch(bytes, at, seed, torn - 1) {
            if found > torn {
                return Err(damaged(segment, offset, "a record is not what was written, and later ones are"));
            }
            let room = record::read(&bytes[begins..], seed).map_or(record::ALIGN, |(_, room)| room);
            at = begins + room;
            self.end.litter = at;
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record<'_>, segment: u64) -> Result<(), &'static str> {
        if record.kind == Kind::Calm {
            return Ok(());
        }
        if record.group == NO_GROUP {
            return Err("a record of no group");
        }
        let group = self.groups.entry(record.group).or_default();
        group.apply(record, segment)
    }
}

impl Group {
    fn apply(&mut self, record: &Record<'_>, segment: u64) -> Result<(), &'static str> {
        let mut fields = Fields(record.body);
        match record.kind {
            Kind::Append | Kind::Copy => return self.entries(record, segment),
            Kind::Vote => {
                self.vote = Some(coding::vote(record.body).ok_or("no vote")?);
                self.places.vote = Some(segment);
                return Ok(());
            }
            Kind::Truncate => {
                let from = fields.u64().ok_or("no index")?;
                self.truncate(from);
            }
            Kind::Purge => {
                let upto = fields.log_id().ok_or("no log id")?;
                self.entries.retain(|&index, _| index > upto.index);
                self.purged = self.purged.max(Some(upto));
                self.places.purge(upto.index);
                self.places.purge = Some(segment);
            }
            Kind::Mark => {
                self.mark = self.mark.max(Some(fields.log_id().ok_or("no log id")?));
                self.places.mark = Some(segment);
            }
            Kind::Calm | Kind::Turn => return Err("a record out of place"),
        }
        fields.end().ok_or("a body that is too long")
    }

    fn entries(&mut self, record: &Record<'_>, segment: u64) -> Result<(), &'static str> {
        let mut fields = Fields(record.body);
        let mut range: Option<(u64, u64)> = None;
        while !fields.0.is_empty() {
            let (id, encoded) = take_entry(&mut fields).ok_or("no entry")?;
            match (&mut range, record.kind) {
                (None, Kind::Append) => self.truncate(id.index),
                (Some((_, last)), _) if *last + 1 != id.index => return Err("entries out of order"),
                _ => {}
            }
            range = Some((range.map_or(id.index, |(first, _)| first), id.index));
            // What was purged since may come again with a record that was still in the queue.
            if self.purged.is_some_and(|purged| id.index <= purged.index) {
                continue;
            }
            let before = self.entries.insert(id.index, (id, encoded.into()));
            if before.is_some_and(|(before, _)| before != id) {
                return Err("a copy is another entry");
            }
        }
        let (first, last) = range.ok_or("no entries")?;
        match record.kind {
            Kind::Append => self.places.append(first, last, segment),
            _ => self.places.copy(first, last, segment),
        }
        if let Some(purged) = self.purged {
            self.places.purge(purged.index);
        }
        Ok(())
    }

    fn truncate(&mut self, from: u64) {
        self.entries.split_off(&from);
        self.places.truncate(from);
    }

    /// Whether the entries are a whole.
    fn check(&self) -> Result<(), &'static str> {
        let mut expected = self.purged.map(|purged| purged.index + 1);
        for &index in self.entries.keys() {
            if expected.is_some_and(|expected| expected != index) {
                return Err("an entry is missing");
            }
            expected = Some(index + 1);
        }
        Ok(())
    }
}

/// A group that nobody has asked for yet.
impl Live for Group {
    fn taken(&self) {}

    fn copy(&self, from: Option<u64>, bytes: usize) -> Option<Copied> {
        let mut copied = match from {
            Some(_) => Copied::default(),
            None => Copied { vote: self.vote, purged: self.purged, mark: self.mark, ..Copied::default() },
        };
        let mut body = Vec::new();
        for (&index, (id, encoded)) in self.entries.range(from.unwrap_or(0)..) {
            if !body.is_empty() && body.len() + framed(encoded) > bytes {
                copied.rest = Some(index);
                break;
            }
            put_encoded(&mut body, id, encoded);
            let first = copied.entries.as_ref().map_or(index, |&(_, first, _)| first);
            copied.entries = Some((Vec::new(), first, index));
        }
        if let Some((entries, ..)) = &mut copied.entries {
            *entries = body;
        }
        Some(copied)
    }

    fn live(&self) -> usize {
        self.entries.values().map(|(_, encoded)| framed(encoded)).sum()
    }
}
