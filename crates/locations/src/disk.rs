//! The seam to the file system: one flat directory, and only what a log and its snapshots ask of it.
//!
//! It is narrow so that a test can stand in for a disk that tears writes, forgets what was not synced, fails or is full.
//! All calls block; the callers are threads of their own.

use std::{fmt::Debug, io, sync::Arc};

mod directory;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;

pub use directory::Directory;

/// One directory of files.
pub trait Disk: Debug + Send + Sync + 'static {
    /// The names of all files, in no order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A new, empty file; one of that name is emptied. Lasting only after [`Disk::sync`].
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// A file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, in place of a file of that name. Lasting only after [`Disk::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file away. Lasting only after [`Disk::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when all names are as durable as the disk can make them.
    fn sync(&self) -> io::Result<()>;
}

/// One file. Everything is at a given offset; there is no cursor.
pub trait DiskFile: Debug + Send {
    /// The size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills `into` with the bytes from `offset`; `UnexpectedEof` when there are fewer.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows if need be. Lasting only after [`DiskFile::sync`].
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Sets the size and sees to it that writes below it do not run out of space. New bytes are zero.
    fn reserve(&mut self, size: u64) -> io::Result<()>;

    /// Returns when all that was written (and the size) is as durable as the disk can make it. After an error nobody
    /// knows what the disk holds: a second call may succeed without having written anything.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory shared by many owners.
pub type SharedDisk = Arc<dyn Disk>;
