//! The store itself: opening, closing, and the calls of the trait handed to the threads that do them.

use crate::format::{self, FORMAT, Found};
use crate::lock::{DirectoryLock, LockError};
use crate::options::Options;
use crate::page;
use crate::queue::Queue;
use crate::read::{self, Readers, closed, question};
use crate::sweep::Sweeper;
use crate::tables::Tables;
use crate::writer::{self, Job, Reply, Shared, Writer, after_failure};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use starling_store::{
    AccountRow, AccountState, Batch, Claim, LogFilter, LogPage, LogRow, Now, Page, Position, Reign, Result,
    Retention, Store,
};
use starling_xmpp::{BareJid, Timestamp};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::{fs, io};
use tokio::sync::oneshot;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {directory} is in use by process {pid}: stop it first, or choose another data_dir")]
    InUse {
        /// Process id as written into the lock file.
        pid: String,
        /// Where.
        directory: PathBuf,
    },
    /// A later version of this program has written it.
    #[error(
        "the store in {directory} has format {found}, this program reads up to {FORMAT}: use a newer version of it"
    )]
    Newer {
        /// The format found.
        found: u32,
        /// Where.
        directory: PathBuf,
    },
    /// There is something else in the directory.
    #[error(
        "{directory} is not a store of this program (or its file `format` was lost): choose another data_dir"
    )]
    Foreign {
        /// Where.
        directory: PathBuf,
    },
    /// The directory cannot be used.
    #[error("cannot use {directory}: {cause}")]
    Io {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What is in it cannot be read back.
    #[error("cannot open the store in {directory}: {cause}")]
    Damaged {
        /// Where.
        directory: PathBuf,
        /// What was found.
        cause: String,
    },
}

/// The embedded store. Dropping it writes out what was handed in, stops its threads and lets go of the directory.
pub struct EmbeddedStore {
    now: Now,
    shared: Arc<Shared>,
    sweeper: Arc<Sweeper>,
    tables: Tables,
    // In the order of closing: nothing reads or writes when the tree is closed, nothing is open when the lock goes.
    readers: Option<Readers>,
    writer: Option<JoinHandle<()>>,
    _lock: Arc<DirectoryLock>,
}

/// How much the store does and holds; for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Commits acknowledged since it was opened, every other write included.
    pub commits: u64,
    /// Syncs they took.
    pub syncs: u64,
    /// Commits waiting now.
    pub queued: usize,
    /// Bytes on disk, journal included.
    pub disk_bytes: u64,
    /// Bytes of rows in memory that are not yet in their place on disk.
    pub buffered_bytes: u64,
    /// Removed accounts whose rows are still on disk.
    pub removals: u64,
}

impl EmbeddedStore {
    /// Opens the store in a directory, or makes one. Reads back what a crash left in the journal.
    pub fn open(options: &Options, now: Now) -> std::result::Result<Self, OpenError> {
        Self::open_with(options, now, Box::new(writer::sync))
    }

    /// With another way to sync, for tests of a failing disk.
    pub(crate) fn open_with(
        options: &Options,
        now: Now,
        sync: writer::Sync,
    ) -> std::result::Result<Self, OpenError> {
        let directory = options.directory.clone();
        let io = |cause| OpenError::Io { directory: directory.clone(), cause };
        let damaged = |cause: String| OpenError::Damaged { directory: directory.clone(), cause };
        fs::create_dir_all(&directory).map_err(io)?;
        let lock = match DirectoryLock::take(&directory.join("lock")) {
            Ok(lock) => Arc::new(lock),
            Err(LockError::Held(pid)) => return Err(OpenError::InUse { pid, directory }),
            Err(LockError::Io(cause)) => return Err(io(cause)),
        };
        let data = directory.join("data");
        match format::check(&directory, &data).map_err(io)? {
            Found::Known(_) => {}
            Found::Newer(found) => return Err(OpenError::Newer { found, directory }),
            Found::Foreign => return Err(OpenError::Foreign { directory }),
        }
        let tables = Tables::open(&data, options).map_err(|error| match error {
            fjall::Error::Io(cause) => io(cause),
            other => damaged(other.to_string()),
        })?;
        let shared = Shared::new(options);
        let reads = Arc::new(Queue::new(options.queue_reads.max(1), usize::MAX));
        let writer = Writer::new(tables.clone(), shared.clone(), reads.clone(), options, sync)
            .map_err(|error| damaged(error.to_string()))?;
        let writer =
            thread::Builder::new().name("store-write".to_owned()).spawn(|| writer.run()).map_err(io)?;
        let mut store = Self {
            now,
            shared,
            sweeper: Arc::default(),
            tables,
            readers: None,
            writer: Some(writer),
            _lock: lock,
        };
        store.readers = Some(Readers::start(&store.tables, options.readers, reads).map_err(io)?);
        Ok(store)
    }

    /// A write or sync has failed: nothing is acknowledged until the process is started again.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// What it does and holds now.
    pub fn figures(&self) -> Figures {
        Figures {
            commits: self.shared.commits.load(Ordering::Relaxed),
            syncs: self.shared.groups.load(Ordering::Relaxed),
            queued: self.shared.queue.len(),
            disk_bytes: self.tables.db.disk_space().unwrap_or_default(),
            buffered_bytes: self.tables.db.write_buffer_size(),
            removals: self.shared.purging.load(Ordering::Relaxed),
        }
    }

    fn write<T: Send + 'static>(&self, job: impl FnOnce(Reply<T>) -> Job) -> BoxFuture<'static, Result<T>> {
        if self.failed() {
            return ready(Err(after_failure())).boxed();
        }
        let (reply, answer) = oneshot::channel();
        let job = job(reply);
        let weight = job.weight();
        match self.shared.queue.push(job, weight) {
            Ok(()) => answer.map(|answer| answer.unwrap_or_else(|_| Err(closed()))).boxed(),
            Err(refused) => ready(Err(refused.into())).boxed(),
        }
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        match &self.readers {
            Some(readers) => readers.ask(read),
            None => ready(Err(closed())).boxed(),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // Readers first: one of them may be sweeping, and waits for the writer.
        self.readers = None;
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

impl Store for EmbeddedStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>> {
        self.write(|reply| Job::Commit(batch.writes, reply))
    }

    fn commits_together(&self) -> bool {
        true
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow, _: Reign) -> BoxFuture<'static, Result<()>> {
        self.write(|reply| Job::Create(jid.clone(), Box::new(row), reply))
    }

    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>> {
        let jid = jid.clone();
        self.read(move |tables| read::account(tables, &jid))
    }

    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>> {
        let domain = domain.to_owned();
        self.read(move |tables| read::accounts(tables, &domain, after.as_ref(), limit))
    }

    /// There is nothing to close but what is under way, which goes first. After a failed write nothing can be said of that
    /// before the next start.
    fn load(&self, jid: &BareJid, _: Reign) -> BoxFuture<'static, Result<Option<AccountState>>> {
        let jid = jid.clone();
        let read = move |tables: &Tables| read::load(tables, &jid);
        if self.failed() {
            return ready(Err(after_failure())).boxed();
        }
        if self.shared.queue.is_idle() {
            return self.read(read);
        }
        let (job, answer) = question(read);
        let job = Job::Read(job);
        let weight = job.weight();
        match self.shared.queue.push(job, weight) {
            Ok(()) => answer,
            Err(refused) => ready(Err(refused.into())).boxed(),
        }
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        let (owner, now) = (owner.clone(), (self.now)());
        self.read(move |tables| page::log_page(tables, &owner, &filter, page, now))
    }

    fn log_rows(&self, owner: &BareJid, positions: Vec<Position>) -> BoxFuture<'static, Result<Vec<LogRow>>> {
        let (owner, now) = (owner.clone(), (self.now)());
        self.read(move |tables| read::log_rows(tables, &owner, positions, now))
    }

    /// Whoever claims it: the directory is locked, so whoever reigned before is dead.
    fn open_reign(&self, _: Claim) -> BoxFuture<'static, Result<Reign>> {
        self.write(Job::Reign)
    }

    fn grant(&self, epoch: u64, ceiling: Position) -> BoxFuture<'static, Result<()>> {
        self.write(|reply| Job::Grant(epoch, ceiling, reply))
    }

    fn release(&self, _: u64) -> BoxFuture<'static, Result<()>> {
        ready(Ok(())).boxed()
    }

    /// The directory is locked.
    fn is_shared(&self) -> bool {
        false
    }

    fn secret(&self, name: &'static str) -> BoxFuture<'static, Result<[u8; 32]>> {
        self.write(|reply| Job::Secret(name, reply))
    }

    fn sweep(&self, now: Timestamp, retention: Retention) -> BoxFuture<'static, Result<u64>> {
        let (sweeper, shared) = (self.sweeper.clone(), self.shared.clone());
        self.read(move |tables| sweeper.sweep(tables, &shared, now, retention))
    }
}

#[cfg(test)]
mod tests;
