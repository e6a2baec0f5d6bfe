//! A directory of the real file system.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{Disk, DiskFile};

/// A directory that this process alone uses, for as long as the value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, to sync it.
    handle: File,
    /// The kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

/// Taken for as long as a process uses the directory; never listed.
const LOCK: &str = "lock";

impl Directory {
    /// Opens the directory at `path` and makes it if there is none. `ResourceBusy` when another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process uses this directory",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let handle = File::open(path)?;
        // The new directory's own name lasts only when its parent is synced.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { path: path.to_owned(), handle, _lock: lock })
    }
}

impl Disk for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // What is no UTF-8 is none of ours.
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.path.join(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn reserve(&mut self, size: u64) -> io::Result<()> {
        if size > self.file.metadata()?.len() {
            allocate(&self.file, size)?;
        }
        self.file.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, size: u64) -> io::Result<()> {
    use nix::{
        errno::Errno,
        fcntl::{FallocateFlags, fallocate},
    };
    let length = i64::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        // Not every file system can; there a full disk is found out when it is written to.
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _size: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_read_renamed_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let disk = Directory::open(&place.path().join("inner")).unwrap();
        let mut file = disk.create("one").unwrap();
        file.reserve(8_192).unwrap();
        file.write_at(b"word", 100).unwrap();
        file.sync().unwrap();
        disk.rename("one", "two").unwrap();
        disk.sync().unwrap();
        assert_eq!(disk.names().unwrap(), ["two"]);
        let file = disk.open("two").unwrap();
        let mut read = [0xff; 6];
        file.read_at(&mut read, 99).unwrap();
        assert_eq!(&read, b"\0word\0");
        assert_eq!(file.size().unwrap(), 8_192);
        assert_eq!(file.read_at(&mut read, 8_190).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        disk.remove("two").unwrap();
        assert!(disk.names().unwrap().is_empty());
        assert_eq!(disk.open("two").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_process_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = Directory::open(place.path()).unwrap();
        assert_eq!(Directory::open(place.path()).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        Directory::open(place.path()).unwrap();
    }
}
