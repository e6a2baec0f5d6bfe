//! One process per directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Held while the store is open. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

/// Why the lock was not had.
#[derive(Debug)]
pub enum LockError {
    /// Somebody has it; the text is what they wrote into it, normally a process id.
    Held(String),
    /// The file cannot be opened, locked or written.
    Io(io::Error),
}

impl DirectoryLock {
    /// Locks this file, which is made if there is none, and writes into it who has it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&mut file))),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let write = || -> io::Result<File> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())?;
            Ok(file)
        };
        Ok(Self { file: write().map_err(LockError::Io)? })
    }

    /// The file that is locked.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let pid = match file.take(32).read_to_string(&mut text) {
        Ok(_) => text.trim(),
        Err(_) => "",
    };
    if pid.is_empty() { "unknown".to_owned() } else { pid.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_holder_and_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let lock = DirectoryLock::take(&path).unwrap();
        let Err(LockError::Held(pid)) = DirectoryLock::take(&path) else { panic!("it is held") };
        assert_eq!(pid, std::process::id().to_string());
        drop(lock);
        DirectoryLock::take(&path).unwrap();
    }
}
