//! The thread that writes: takes what is ready, writes it once, syncs once, tells everybody.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use starling_node::clock::SharedClock;

use super::{
    Groups, WalError, WalMetrics,
    coding::put_vote,
    live::Copied,
    places::Places,
    queue::{Next, Patience, Piece, Queue, Request},
    record::{self, Ends, Kind, NO_GROUP, put_log_id},
    segment::{self, RESERVE, SPARE, START},
};
use crate::disk::{DiskFile, SharedDisk};

/// Everything that the thread owns.
pub(crate) struct Writer {
    pub(crate) disk: SharedDisk,
    pub(crate) identity: u64,
    pub(crate) size: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) calm_after: Duration,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: WalMetrics,
    pub(crate) queue: Arc<Queue>,
    pub(crate) groups: Arc<Mutex<Groups>>,
    pub(crate) places: BTreeMap<u16, Places>,
    pub(crate) segments: BTreeSet<u64>,
    pub(crate) spares: Vec<String>,
    pub(crate) current: Current,
    /// The next segment, if it is made already.
    pub(crate) next: Option<Box<dyn DiskFile>>,
    /// Requests that did not fit into the last batch.
    pub(crate) left: VecDeque<Request>,
    /// Groups whose content is being written again, and the index that comes next.
    pub(crate) copying: VecDeque<(u16, Option<u64>)>,
    pub(crate) buffer: Vec<u8>,
}

/// The segment that is written to.
pub(crate) struct Current {
    pub(crate) number: u64,
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) size: usize,
    pub(crate) offset: usize,
    /// The number of the batch to come.
    pub(crate) batch: u64,
    /// Whether the end of the batch before is said.
    pub(crate) calm: bool,
    /// Where the next try to make the next segment is worth it.
    pub(crate) retry: usize,
}

/// How many segments more than twice the live bytes the log may take.
const SLACK: u64 = 4;
/// Old segments that are kept to be used again.
const SPARES: usize = 2;
/// How much of a group is written again with each batch.
const COPY: usize = 1 << 20;

impl Writer {
    /// Works until the queue is closed, or until the first error.
    pub(crate) fn run(mut self) -> Result<(), WalError> {
        loop {
            match self.queue.next(self.batch_bytes, self.patience()) {
                Next::Write(requests) => {
                    self.left.extend(requests);
                    self.write()?;
                    while !self.left.is_empty() {
                        self.write()?;
                    }
                    self.prepare();
                }
                Next::Calm => self.calm()?,
                Next::End => return self.calm(),
            }
        }
    }

    fn patience(&self) -> Patience {
        match (self.copying.is_empty(), self.current.calm) {
            (false, _) => Patience::None,
            (true, false) => Patience::Calm(self.calm_after),
            (true, true) => Patience::Endless,
        }
    }

    /// Writes one batch and tells those who waited for it.
    fn write(&mut self) -> Result<(), WalError> {
        let mut batch = self.take();
        if batch.pieces.is_empty() {
            batch.done(Ok(()));
            return Ok(());
        }
        let written = self.write_pieces(&batch.pieces);
        if let Err(error) = &written {
            batch.done(Err(error.clone()));
        } else {
            batch.done(Ok(()));
        }
        written
    }

    /// The next batch: pieces of requests, and something to be written again.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        let most = self.batch_bytes.min(capacity(self.size));
        while let Some(request) = self.left.front_mut() {
            while let Some(piece) = request.pieces.front() {
                if batch.room > 0 && batch.room + piece.room() > most {
                    return batch;
                }
                batch.room += piece.room();
                batch.pieces.extend(request.pieces.pop_front().map(|piece| (request.group, piece)));
            }
            batch.requests.extend(self.left.pop_front());
        }
        self.copy(&mut batch, most);
        batch
    }

    fn write_pieces(&mut self, pieces: &[(u16, Piece)]) -> Result<(), WalError> {
        let room: usize = pieces.iter().map(|(_, piece)| piece.room()).sum();
        if self.current.offset + room + RESERVE > self.current.size {
            self.turn()?;
        }
        self.buffer.clear();
        for (group, piece) in pieces {
            record::put(&mut self.buffer, piece.kind, *group, self.current.batch, &piece.body);
        }
        self.sync_batch(pieces.len())?;
        for (group, piece) in pieces {
            self.place(*group, piece);
        }
        Ok(())
    }

    /// Writes the buffer as a batch.
    fn sync_batch(&mut self, records: usize) -> Result<(), WalError> {
        let current = &mut self.current;
        record::seal(&mut self.buffer, record::seed(self.identity, current.number), Ends::Batch);
        let started = self.clock.monotonic();
        current.file.write_at(&self.buffer, current.offset as u64).map_err(WalError::io("write a batch"))?;
        current.file.sync().map_err(WalError::io("sync a batch"))?;
        let took = self.clock.monotonic().saturating_sub(started);
        current.offset += self.buffer.len();
        current.batch += 1;
        current.calm = false;
        self.metrics.sync.observe(took.as_secs_f64());
        self.metrics.syncs.inc();
        self.metrics.records.observe(records as f64);
        self.metrics.bytes.inc_by(self.buffer.len() as u64);
        Ok(())
    }

    /// Says that the last batch is durable, so that damage to it cannot be taken for a torn end. Not synced: it holds
    /// nothing, and the next batch goes on behind it.
    fn calm(&mut self) -> Result<(), WalError> {
        let current = &mut self.current;
        if current.calm || current.offset + RESERVE > current.size {
            current.calm = true;
            return Ok(());
        }
        self.buffer.clear();
        record::put(&mut self.buffer, Kind::Calm, NO_GROUP, current.batch, &[]);
        record::seal(&mut self.buffer, record::seed(self.identity, current.number), Ends::Nothing);
        current.file.write_at(&self.buffer, current.offset as u64).map_err(WalError::io("write a batch"))?;
        current.offset += self.buffer.len();
        current.calm = true;
        Ok(())
    }

    fn place(&mut self, group: u16, piece: &Piece) {
        let segment = self.current.number;
        let places = self.places.entry(group).or_default();
        match piece.kind {
            Kind::Append => places.append(piece.first, piece.last, segment),
            Kind::Copy => places.copy(piece.first, piece.last, segment),
            Kind::Vote => places.vote = Some(segment),
            Kind::Truncate => places.truncate(piece.first),
            Kind::Purge => {
                places.purge(piece.last);
                places.purge = Some(segment);
            }
            Kind::Mark => places.mark = Some(segment),
            Kind::Calm | Kind::Turn => {}
        }
    }

    /// Goes on in the next segment. What no group needs any more is free from then on.
    fn turn(&mut self) -> Result<(), WalError> {
        let next = self.current.number + 1;
        let file = match self.next.take() {
            Some(file) => file,
            None => self.make(next).map_err(WalError::io("make a segment"))?,
        };
        let floor = self.places.values().filter_map(Places::oldest).min().unwrap_or(self.current.number);
        let mut body = next.to_le_bytes().to_vec();
        body.extend_from_slice(&floor.to_le_bytes());
        self.buffer.clear();
        record::put(&mut self.buffer, Kind::Turn, NO_GROUP, self.current.batch, &body);
        // By itself, and durable before anything is in the next segment: what is there proves that it was said.
        self.sync_batch(1)?;
        let batch = self.current.batch;
        self.segments.insert(next);
        self.current =
            Current { number: next, file, size: self.size, offset: START, batch, calm: false, retry: 0 };
        self.free(floor).map_err(WalError::io("free a segment"))?;
        self.schedule();
        Ok(())
    }

    fn make(&mut self, number: u64) -> std::io::Result<Box<dyn DiskFile>> {
        let spare = self.spares.pop();
        segment::prepare(&*self.disk, spare.as_deref(), self.identity, number, self.size)
    }

    /// Makes the next segment in good time, so that a full disk is noticed before it stops the log.
    fn prepare(&mut self) {
        let current = &mut self.current;
        if self.next.is_some() || current.offset < (current.size / 2).max(current.retry) {
            return;
        }
        current.retry = current.offset + current.size / 16;
        let number = current.number + 1;
        match self.make(number) {
            Ok(file) => {
                self.next = Some(file);
                self.metrics.short_of_space.set(0);
            }
            Err(error) => {
                tracing::error!(event = "raft_log_no_room", %error, segment = number, "no room for the next segment of the raft log");
                self.metrics.short_of_space.set(1);
            }
        }
    }

    /// Gives segments below `floor` away.
    fn free(&mut self, floor: u64) -> std::io::Result<()> {
        while let Some(&oldest) = self.segments.first().filter(|&&oldest| oldest < floor) {
            let spare = format!("{SPARE}{oldest:016x}");
            if self.spares.len() < SPARES {
                self.disk.rename(&segment::name(oldest), &spare)?;
                self.spares.push(spare);
            } else {
                self.disk.remove(&segment::name(oldest))?;
            }
            self.segments.pop_first();
        }
        self.metrics.segments.set(i64::try_from(self.segments.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Has the groups written again that keep segments which are too far back.
    fn schedule(&mut self) {
        let live: usize = {
            let groups = self.groups.lock();
            groups.values().map(|group| group.live()).sum()
        };
        // In proportion to what lives: so half of what is written is new, however much there is.
        let keep = SLACK + 2 * (live / self.size) as u64;
        let current = self.current.number;
        for (&group, places) in &self.places {
            let far = places.oldest().is_some_and(|oldest| oldest + keep < current);
            if far && !self.copying.iter().any(|&(copying, _)| copying == group) {
                self.copying.push_back((group, None));
            }
        }
    }

    /// Adds the next part of what is to be written again.
    fn copy(&mut self, batch: &mut Batch, most: usize) {
        let Some((group, from)) = self.copying.pop_front() else { return };
        let Some(live) = self.groups.lock().get(&group).cloned() else { return };
        let bytes = COPY.min(most.saturating_sub(batch.room + RESERVE));
        let Some(Copied { vote, purged, mark, entries, rest }) = live.copy(from, bytes) else {
            // Its own requests come first; then it is its turn again.
            self.copying.push_back((group, from));
            return;
        };
        if let Some((body, ..)) = &entries
            && !batch.pieces.is_empty()
            && batch.room + body.len() + RESERVE > most
        {
            // One entry may be too large to share a batch.
            self.copying.push_front((group, from));
            return;
        }
        let mut add = |kind, body, first, last| batch.pieces.push((group, Piece { kind, body, first, last }));
        if let Some(vote) = vote {
            let mut body = Vec::new();
            put_vote(&mut body, &vote);
            add(Kind::Vote, body, 0, 0);
        }
        for (kind, id) in [(Kind::Mark, mark), (Kind::Purge, purged)] {
            if let Some(id) = id {
                let mut body = Vec::new();
                put_log_id(&mut body, &id);
                add(kind, body, id.index, id.index);
            }
        }
        if let Some((body, first, last)) = entries {
            add(Kind::Copy, body, first, last);
        }
        if rest.is_some() {
            self.copying.push_front((group, rest));
        }
    }
}

/// The longest batch that fits into a segment of that size.
fn capacity(size: usize) -> usize {
    size.saturating_sub(START + RESERVE)
}

/// The longest body of a record: it fits into a batch together with a group's vote, purge and mark.
pub(crate) fn longest(size: usize) -> usize {
    capacity(size).saturating_sub(2 * RESERVE)
}

/// What is written and synced together.
#[derive(Default)]
struct Batch {
    pieces: Vec<(u16, Piece)>,
    room: usize,
    /// The requests that are done with it.
    requests: Vec<Request>,
}

impl Batch {
    fn done(&mut self, result: Result<(), WalError>) {
        for request in self.requests.drain(..) {
            if let Some(done) = request.done {
                done(result.clone());
            }
        }
    }
}
