//! The log of one group, as openraft wants it.

use std::{
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use openraft::{
    AnyError, Entry, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{
    LogId, WalError,
    coding::{self, Typed},
    live::{Copied, Live},
    memory::{Encoded, Memory},
    queue::{Done, Piece, Queue, Request},
    record::{self, Kind, put_log_id},
    replay,
};

/// The log of one group. Clones are handles to the same log; openraft reads by them.
pub struct GroupLog<C: Typed> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: Typed> {
    number: u16,
    queue: Arc<Queue>,
    held: Arc<Held<C>>,
    /// The index up to which there is a durable snapshot.
    marked: watch::Sender<Option<u64>>,
    /// The longest body of a record.
    most: usize,
    patience: Duration,
}

/// What the writer sees of it.
struct Held<C: Typed> {
    memory: Mutex<Memory<C>>,
    /// Requests in the queue, which the writer has not taken yet. Raised with the memory locked.
    queued: AtomicUsize,
}

impl<C: Typed> Clone for GroupLog<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: Typed> Debug for GroupLog<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let memory = self.inner.held.memory.lock();
        f.debug_struct("GroupLog")
            .field("group", &self.inner.number)
            .field("vote", &memory.vote)
            .field("purged", &memory.purged)
            .field("last", &memory.last())
            .finish_non_exhaustive()
    }
}

/// The most that one answer to a lagging router holds.
const ANSWER: usize = 1 << 20;

impl<C: Typed> GroupLog<C> {
    /// The log from what was read of it at start.
    pub(crate) fn restore(
        number: u16,
        queue: Arc<Queue>,
        found: &replay::Group,
        snapshot: Option<LogId>,
        most: usize,
        patience: Duration,
    ) -> Result<Self, WalError> {
        // The log alone is no state: what it begins after must be in a snapshot.
        if found.purged.map(|purged| purged.index) > snapshot.map(|snapshot| snapshot.index) {
            return Err(WalError::SnapshotLost { group: number });
        }
        let mut memory = Memory::new(found.vote, found.purged, found.mark);
        for (id, encoded) in found.entries.values() {
            let entry = C::decode(bytes::Bytes::copy_from_slice(encoded)).filter(|entry| entry.log_id == *id);
            let entry = entry.ok_or(WalError::BadGroup { group: number, what: "an entry cannot be read" })?;
            memory.restore(entry, coding::framed(encoded));
        }
        let marked = watch::Sender::new(snapshot.map(|snapshot| snapshot.index));
        let held = Arc::new(Held { memory: Mutex::new(memory), queued: AtomicUsize::new(0) });
        Ok(Self { inner: Arc::new(Inner { number, queue, held, marked, most, patience }) })
    }

    pub(crate) fn live(&self) -> Arc<dyn Live> {
        Arc::clone(&self.inner.held) as Arc<dyn Live>
    }

    /// The bytes that the entries take on the disk: when it is time for a snapshot.
    pub fn bytes(&self) -> usize {
        self.inner.held.memory.lock().live()
    }

    /// The last log id of the log (the last purged one if it is empty).
    pub fn last(&self) -> Option<LogId> {
        self.inner.held.memory.lock().last()
    }

    /// Says that a snapshot up to `last` is durable, so that entries up to there may be purged. The file must be synced
    /// and have its name before.
    pub fn snapshot_durable(&self, last: LogId) {
        let mut memory = self.inner.held.memory.lock();
        if memory.mark < Some(last) {
            memory.mark = Some(last);
            let mut body = Vec::new();
            put_log_id(&mut body, &last);
            let piece = Piece { kind: Kind::Mark, body, first: last.index, last: last.index };
            self.push(&mut memory, [piece], None, None);
        }
        drop(memory);
        self.inner.marked.send_if_modified(|marked| {
            let more = *marked < Some(last.index);
            *marked = (*marked).max(Some(last.index));
            more
        });
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, WalError> {
        self.inner.queue.room(bytes).await
    }

    /// Queues a request. The memory is locked meanwhile: all requests of a group are queued in the order in which they
    /// changed it.
    fn push(
        &self,
        _memory: &mut Memory<C>,
        pieces: impl IntoIterator<Item = Piece>,
        done: Option<Done>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        self.inner.held.queued.fetch_add(1, Ordering::AcqRel);
        self.inner.queue.push(Request {
            group: self.inner.number,
            owner: self.live(),
            pieces: pieces.into_iter().collect(),
            done,
            _room: room,
        });
    }

    async fn append_all(
        &self,
        entries: impl IntoIterator<Item = Entry<C>>,
        callback: LogFlushed<C>,
    ) -> Result<(), WalError> {
        let encoded = Encoded::new(entries, self.inner.most)?;
        let room = self.room(encoded.room()).await?;
        let mut memory = self.inner.held.memory.lock();
        let pieces = memory.append(encoded)?;
        let done: Done = Box::new(move |result| callback.log_io_completed(result.map_err(io::Error::other)));
        self.push(&mut memory, pieces, Some(done), Some(room));
        Ok(())
    }

    async fn vote(&self, vote: Vote<u64>) -> Result<(), WalError> {
        let mut body = Vec::new();
        coding::put_vote(&mut body, &vote);
        let room = self.room(record::room(body.len())).await?;
        let (done, durable) = oneshot::channel();
        {
            let mut memory = self.inner.held.memory.lock();
            memory.vote = Some(vote);
            let done: Done = Box::new(move |result| drop(done.send(result)));
            let piece = Piece { kind: Kind::Vote, body, first: 0, last: 0 };
            self.push(&mut memory, [piece], Some(done), Some(room));
        }
        durable.await.unwrap_or_else(|_| Err(self.inner.queue.closed()))
    }

    async fn truncate_from(&self, from: u64) -> Result<(), WalError> {
        let body = from.to_le_bytes().to_vec();
        let room = self.room(record::room(body.len())).await?;
        let mut memory = self.inner.held.memory.lock();
        memory.truncate(from);
        self.push(
            &mut memory,
            [Piece { kind: Kind::Truncate, body, first: from, last: from }],
            None,
            Some(room),
        );
        Ok(())
    }

    /// openraft purges as soon as it has told the state machine to install a snapshot; that takes its time.
    async fn covered(&self, upto: u64) -> Result<(), WalError> {
        let mut marked = self.inner.marked.subscribe();
        let covered = marked.wait_for(|marked| *marked >= Some(upto));
        match tokio::time::timeout(self.inner.patience, covered).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WalError::NoSnapshot { upto }),
        }
    }

    async fn purge_upto(&self, upto: LogId) -> Result<(), WalError> {
        self.covered(upto.index).await?;
        let mut body = Vec::new();
        put_log_id(&mut body, &upto);
        let room = self.room(record::room(body.len())).await?;
        let mut memory = self.inner.held.memory.lock();
        memory.purge(upto);
        let piece = Piece { kind: Kind::Purge, body, first: upto.index, last: upto.index };
        self.push(&mut memory, [piece], None, Some(room));
        Ok(())
    }
}

impl<C: Typed> Live for Held<C> {
    fn taken(&self) {
        // Without the lock: who queues a request has the memory locked already.
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    fn copy(&self, from: Option<u64>, bytes: usize) -> Option<Copied> {
        let memory = self.memory.lock();
        (self.queued.load(Ordering::Acquire) == 0).then(|| memory.copy(from, bytes))
    }

    fn live(&self) -> usize {
        self.memory.lock().live()
    }
}

fn on_logs(error: WalError) -> StorageError<u64> {
    StorageIOError::write_logs(AnyError::new(&error)).into()
}

impl<C: Typed> RaftLogReader<C> for GroupLog<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<C>>, StorageError<u64>> {
        Ok(self.inner.held.memory.lock().entries(range, usize::MAX))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<C>>, StorageError<u64>> {
        let entries = self.inner.held.memory.lock().entries(start..end, ANSWER);
        // They are sent as what follows `start - 1`: others would be taken for them.
        if start < end && entries.first().map(|first| first.log_id.index) != Some(start) {
            let missing = AnyError::error("the entry is not in the log any more");
            return Err(StorageIOError::read_log_at_index(start, missing).into());
        }
        Ok(entries)
    }
}

impl<C: Typed> RaftLogStorage<C> for GroupLog<C> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<u64>> {
        let memory = self.inner.held.memory.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let saved = self.vote(*vote).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        Ok(self.inner.held.memory.lock().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.append_all(entries, callback).await.map_err(on_logs)
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        self.truncate_from(log_id.index).await.map_err(on_logs)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        self.purge_upto(log_id).await.map_err(on_logs)
    }
}
