//! Who this installation is: one process per data directory, and a number that stays the same from start to start.

use crate::obstacle::Obstacle;
use starling_store::Claim;
use starling_store_embedded::{DirectoryLock, LockError};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Held for as long as the process lives. The kernel lets go of it when that ends, however it ends.
///
/// The number says to a shared store that whoever reigned under it before is dead. Only the kernel that keeps the lock knows that,
/// and only of this very file: under another kernel (another machine, a restart, a pod that was moved with its volume
/// and its host name) or for a copy of the directory there is a new number, and the store's lease decides.
#[derive(Debug)]
pub struct Instance {
    number: u128,
    name: String,
    _lock: DirectoryLock,
}

impl Instance {
    /// Takes the directory, which is made if there is none.
    ///
    /// # Errors
    /// When another process has it, or when it cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, Obstacle> {
        std::fs::create_dir_all(data_dir).map_err(|error| not_usable(data_dir, &error))?;
        let path = data_dir.join("lock");
        let lock = DirectoryLock::take(&path).map_err(|error| match error {
            LockError::Held(pid) => in_use(data_dir, &pid),
            LockError::Io(error) => not_usable(&path, &error),
        })?;
        let number = number(data_dir, identity(lock.file()).as_deref())?;
        Ok(Self { number, name: process_name(), _lock: lock })
    }

    /// What it says of itself when it asks for a reign.
    pub fn claim(&self) -> Claim {
        Claim { instance: self.number, name: self.name.clone() }
    }
}

fn in_use(data_dir: &Path, pid: &str) -> Obstacle {
    Obstacle::new(format!("data_dir {} is in use by process {pid}", data_dir.display()))
        .because("a directory of data belongs to one running server")
        .advise("stop that process, or give this one another `data_dir`")
}

fn not_usable(path: &Path, error: &io::Error) -> Obstacle {
    Obstacle::new("the data directory cannot be used")
        .at(path.display())
        .because(error)
        .advise("make data_dir a directory of the user that the server runs as, or set data_dir to another")
}

/// What the lock is worth something for: this file, under this kernel. `None` where that cannot be told.
fn identity(lock: &File) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let file = lock.metadata().ok()?;
    let boot = boot.trim();
    (!boot.is_empty()).then(|| format!("{boot}-{:x}-{:x}", file.dev(), file.ino()))
}

/// The number of the directory; made, and on disk, before it is used for the first time.
fn number(data_dir: &Path, identity: Option<&str>) -> Result<u128, Obstacle> {
    let path = data_dir.join("instance");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let (number, of) = text.trim().split_once(' ').unwrap_or_else(|| (text.trim(), ""));
            match u128::from_str_radix(number, 16) {
                Ok(number) if number != 0 && identity == Some(of) => return Ok(number),
                Ok(number) if number != 0 => {}
                _ => return Err(damaged(&path)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(not_usable(&path, &error)),
    }
    let number = starling_node::ids::token().max(1);
    let text = format!("{number:032x} {}\n", identity.unwrap_or("unknown"));
    write(&path, &text).map_err(|error| not_usable(&path, &error))?;
    Ok(number)
}

fn damaged(path: &Path) -> Obstacle {
    Obstacle::new("the number of this installation cannot be read")
        .at(path.display())
        .because("it does not begin with hexadecimal digits")
        .advise("remove the file: a new number is made, and the next start waits until the lease of the last one has ended")
}

/// All of it or nothing, and still there after a crash.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new: PathBuf = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// This process, for people: host and number.
pub fn process_name() -> String {
    format!("{} (process {})", host(), std::process::id())
}

fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_process_and_one_number() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let first = Instance::take(&directory).unwrap();
        let refused = Instance::take(&directory).unwrap_err().to_string();
        assert!(refused.contains(&format!("in use by process {}", std::process::id())), "{refused}");
        let claim = first.claim();
        assert!(claim.name.contains(&std::process::id().to_string()));
        drop(first);
        assert_eq!(Instance::take(&directory).unwrap().claim(), claim);
        assert_ne!(Instance::take(&parent.path().join("c")).unwrap().claim().instance, claim.instance);
    }

    #[test]
    fn under_another_kernel_it_is_another_instance() {
        let directory = tempfile::tempdir().unwrap();
        let here = number(directory.path(), Some("one")).unwrap();
        assert_eq!(number(directory.path(), Some("one")).unwrap(), here);
        let there = number(directory.path(), Some("two")).unwrap();
        assert_ne!(there, here);
        assert_eq!(number(directory.path(), Some("two")).unwrap(), there);
        // Where nobody can tell, nothing is claimed.
        let unknown = number(directory.path(), None).unwrap();
        assert_ne!(number(directory.path(), None).unwrap(), unknown);
    }

    #[test]
    fn a_copy_is_another_instance() {
        let parent = tempfile::tempdir().unwrap();
        let (first, second) = (parent.path().join("first"), parent.path().join("second"));
        let claim = Instance::take(&first).unwrap().claim();
        std::fs::create_dir(&second).unwrap();
        for file in ["lock", "instance"] {
            std::fs::copy(first.join(file), second.join(file)).unwrap();
        }
        assert_ne!(Instance::take(&second).unwrap().claim().instance, claim.instance);
        assert_eq!(Instance::take(&first).unwrap().claim(), claim);
        std::fs::rename(&first, parent.path().join("third")).unwrap();
        assert_eq!(Instance::take(&parent.path().join("third")).unwrap().claim(), claim);
    }

    #[test]
    fn a_damaged_number_is_not_replaced_in_silence() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "not a number", "0 host"] {
            std::fs::write(directory.path().join("instance"), text).unwrap();
            assert!(
                Instance::take(directory.path()).unwrap_err().to_string().contains("hexadecimal"),
                "{text:?}"
            );
        }
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Instance::take(&file).unwrap_err().to_string().contains("cannot be used"));
    }
}
