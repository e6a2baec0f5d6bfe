//! The thread that writes: takes what is ready, makes one batch of it, syncs once, answers in order.

mod answers;
mod group;
mod known;
mod purge;

use crate::keys::{self, Account, Class};
use crate::options::Options;
use crate::queue::Queue;
use crate::read::Read;
use crate::records::{Entries, decode_numbers};
use crate::tables::{Tables, engine};
use answers::Answers;
use fjall::{OwnedWriteBatch, PersistMode};
use group::Group;
use known::KnownAccounts;
use purge::Purges;
use starling_store::{AccountRow, Position, Reign, Result, StoreError, Write};
use starling_xmpp::BareJid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::oneshot;

/// One thing to write, with whom to tell.
pub(crate) enum Job {
    Commit(Vec<Write>, Reply<()>),
    Create(BareJid, Box<AccountRow>, Reply<()>),
    Reign(Reply<Reign>),
    Grant(u64, Position, Reply<()>),
    Secret(&'static str, Reply<[u8; 32]>),
    Forget(Forget, Reply<u64>),
    /// For the readers, once all before it is written.
    Read(Read),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What a sweep found to be removed.
#[derive(Debug, Default)]
pub(crate) struct Forget {
    /// [`Shared::late`] when the sweep began to look: if it has moved, what the sweep saw may have changed.
    pub(crate) seen: u64,
    pub(crate) rows: Vec<Victim>,
    /// Entries of the expiry index whose rows are gone.
    pub(crate) stale: Vec<Vec<u8>>,
    /// How many archived rows an account has up to a position; `None` if that is no longer known.
    pub(crate) counts: Vec<(Account, Option<Count>)>,
}

/// A row to be removed.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) account: Account,
    pub(crate) class: Class,
    pub(crate) position: Position,
    pub(crate) entries: Entries,
}

/// So many archived rows up to and including a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    pub(crate) rows: u64,
    pub(crate) through: Position,
}

/// What the writer's thread and its callers have in common.
pub(crate) struct Shared {
    pub(crate) queue: Queue<Job>,
    /// Set for good by the first failed write or sync.
    pub(crate) failed: AtomicBool,
    /// Rises when a row is written elsewhere than at the end of its log, or an account is removed; once when that is
    /// decided and once when it is visible.
    pub(crate) late: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) purging: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(options.queue_commits.max(1), options.queue_bytes.max(1)),
            failed: AtomicBool::new(false),
            late: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            groups: AtomicU64::new(0),
            purging: AtomicU64::new(0),
        })
    }
}

/// What a removed row takes in memory until that is on disk, in bytes, about.
const REMOVAL: usize = 256;

/// Writes a batch to the disk and syncs it. A value, so that a test can put a slow or failing disk in its place.
pub(crate) type Sync = Box<dyn FnMut(OwnedWriteBatch) -> fjall::Result<()> + Send>;

/// The real one: journal, sync, then visible to readers.
pub(crate) fn sync(batch: OwnedWriteBatch) -> fjall::Result<()> {
    batch.durability(Some(PersistMode::SyncData)).commit()
}

/// The thread's own state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    reads: Arc<Queue<Read>>,
    tables: Tables,
    known: KnownAccounts,
    purges: Purges,
    next_account: u64,
    reign: Reign,
    group_bytes: usize,
    /// Bytes of rows in memory, about, and how many are enough.
    grown: u64,
    full: u64,
    settled: u64,
    sync: Sync,
    answers: Answers,
}

impl Writer {
    /// Reads what the writer has to know. Removals that a crash cut short go on from here.
    pub(crate) fn new(
        tables: Tables,
        shared: Arc<Shared>,
        reads: Arc<Queue<Read>>,
        options: &Options,
        sync: Sync,
    ) -> Result<Self> {
        let number = |key: &[u8]| tables.accounts.get(key).map_err(engine);
        let next_account = match number(keys::NEXT_ACCOUNT)? {
            Some(value) => decode_numbers::<1>(&value, "account number")?[0],
            None => 1,
        };
        let [epoch, ceiling] = match number(keys::REIGN)? {
            Some(value) => decode_numbers(&value, "reign")?,
            None => [0, 0],
        };
        let purges = Purges::unfinished(&tables)?;
        shared.purging.store(purges.len(), Ordering::Relaxed);
        Ok(Self {
            known: KnownAccounts::new(options.known_accounts),
            reign: Reign { epoch, floor: Position(ceiling) },
            group_bytes: options.group_bytes.max(1),
            grown: 0,
            settled: 0,
            full: options.write_buffer_bytes.max(1 << 20),
            shared,
            reads,
            tables,
            purges,
            next_account,
            sync,
            answers: Answers::new(),
        })
    }

    /// Until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let _end = End(self.shared.clone());
        let mut jobs = Vec::new();
        loop {
            let failed = self.shared.failed.load(Ordering::Relaxed);
            let idle = self.purges.is_empty() || failed;
            let open = self.shared.queue.drain(&mut jobs, self.group_bytes, idle);
            if jobs.is_empty() && !open {
                return;
            }
            let slice = if jobs.is_empty() { purge::SLICE } else { purge::SLICE / 8 };
            if !jobs.is_empty() {
                self.group(&mut jobs);
            }
            if !self.purges.is_empty() {
                self.purge(slice);
            }
        }
    }

    fn group(&mut self, jobs: &mut Vec<Job>) {
        if self.shared.failed.load(Ordering::Relaxed) {
            jobs.drain(..).for_each(|job| job.refuse(&after_failure()));
            return;
        }
        self.known.age();
        let weight = jobs.iter().map(Job::weight).sum::<usize>();
        let mut group = Group::new(self);
        for job in jobs.drain(..) {
            group.take(job);
        }
        let done = group.finish();
        let outcome = match done.batch {
            Some(batch) => (self.sync)(batch).map_err(|error| self.fail(&error)),
            None => Ok(()),
        };
        if done.late {
            self.shared.late.fetch_add(1, Ordering::SeqCst);
        }
        if outcome.is_ok() {
            self.purges.extend(done.removed);
            self.shared.purging.store(self.purges.len(), Ordering::Relaxed);
            self.shared.commits.fetch_add(done.answers.len() as u64, Ordering::Relaxed);
            self.shared.groups.fetch_add(u64::from(!done.answers.is_empty()), Ordering::Relaxed);
            for read in done.reads {
                // Where the readers have gone, the store is being closed.
                if let Some(read) = self.reads.hand_on(read) {
                    read(&self.tables);
                }
            }
        }
        self.answers.give(done.answers, outcome);
        self.grow(weight);
    }

    /// So many bytes more are in memory; once they are enough they go to their place on disk.
    fn grow(&mut self, bytes: usize) {
        self.grown += bytes as u64;
        if self.grown >= self.full {
            self.grown = 0;
            self.settled += 1;
            if let Err(error) = self.tables.settle(self.settled) {
                self.fail(&error);
            }
        }
    }

    fn purge(&mut self, rows: usize) {
        self.grow(rows * REMOVAL);
        match self.purges.slice(&self.tables, rows) {
            Ok(Some(batch)) => {
                // Not synced: the mark that begins a removal is, and what a crash undoes is done again.
                if let Err(error) = batch.durability(Some(PersistMode::Buffer)).commit() {
                    self.fail(&error);
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(event = "removal_failed", %error, "cannot remove the rows of a removed account, left for the next start")
            }
        }
        self.shared.purging.store(self.purges.len(), Ordering::Relaxed);
    }

    fn fail(&self, error: &fjall::Error) -> StoreError {
        self.shared.failed.store(true, Ordering::SeqCst);
        tracing::error!(event = "write_failed", %error, "a write or sync failed, nothing is acknowledged from now on: check the disk and restart");
        StoreError::Unavailable(error.to_string())
    }
}

impl Job {
    /// Roughly how many bytes it holds.
    pub(crate) fn weight(&self) -> usize {
        const FIXED: usize = 256;
        match self {
            Self::Commit(batch, _) => batch.iter().map(|write| FIXED + weight(write)).sum(),
            _ => FIXED,
        }
    }

    fn refuse(self, error: &StoreError) {
        match self {
            Self::Commit(_, reply) | Self::Create(_, _, reply) | Self::Grant(_, _, reply) => {
                answer(reply, Err(error.clone()))
            }
            Self::Reign(reply) => answer(reply, Err(error.clone())),
            Self::Secret(_, reply) => answer(reply, Err(error.clone())),
            Self::Forget(_, reply) => answer(reply, Err(error.clone())),
            Self::Read(_) => {}
        }
    }
}

fn weight(write: &Write) -> usize {
    match write {
        Write::Append(row) => row.stanza.len(),
        Write::Doc(_, _, body) => body.len(),
        Write::RosterItem(_, item) => item.pending_in.as_ref().map_or(0, bytes::Bytes::len),
        Write::Cursor(_, cursor) => cursor.above.len() * 16,
        Write::Credentials(..) | Write::DeleteAccount(_) | Write::RosterRemove(..) => 0,
    }
}

/// Whoever asked may have gone.
fn answer<T>(reply: Reply<T>, result: Result<T>) {
    drop(reply.send(result));
}

/// What commits get after a failed write.
pub(crate) fn after_failure() -> StoreError {
    StoreError::Unavailable("an earlier write failed".to_owned())
}

/// When the thread ends, however it ends, nobody waits for it.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
        self.0.queue.close();
        let mut left = Vec::new();
        self.0.queue.drain(&mut left, usize::MAX, false);
        left.into_iter().for_each(|job| job.refuse(&after_failure()));
    }
}
