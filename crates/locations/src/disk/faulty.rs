//! A disk in memory that can be killed, torn, filled up, slowed down, and made to fail: for tests.
//!
//! It keeps apart what was written and what was synced. A sync that fails forgets what it should have written, as real
//! systems do: the next one succeeds without it.

use std::{collections::BTreeMap, io, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    /// The names after each change since they were synced.
    changes: Vec<BTreeMap<String, u64>>,
    next: u64,
    plan: Plan,
    /// Calls that change something, so far.
    calls: u64,
    syncs: u64,
    dead: bool,
}

#[derive(Debug, Default, Clone)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Ranges that were written since the last sync.
    dirty: Vec<(usize, usize)>,
}

/// What is to go wrong.
#[derive(Debug, Default, Clone)]
pub struct Plan {
    /// The call, of those that change something, in the middle of which the process is killed.
    pub kill_at: Option<u64>,
    /// Calls that fail, with the error of that number.
    pub fail: BTreeMap<u64, i32>,
    /// The bytes that all files together can have.
    pub capacity: Option<usize>,
    /// How long each sync takes.
    pub sync_delay: Duration,
}

/// What a crash takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process only: what was written is there.
    Process,
    /// The power: of what was not synced, any sectors may be there or not, as the seed says.
    Power(u64),
}

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

impl FaultyDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what is to go wrong from now on.
    pub fn plan(&self, plan: Plan) {
        self.state.lock().plan = plan;
    }

    /// Calls that have changed something, and syncs among them.
    pub fn calls(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.calls, state.syncs)
    }

    /// Whether the process was killed.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// The disk as the next process finds it. This one is dead from now on.
    pub fn crash(&self, crash: Crash) -> Self {
        let mut state = self.state.lock();
        state.dead = true;
        let mut seed = match crash {
            Crash::Process => 0,
            Crash::Power(seed) => seed | 1,
        };
        let names = match crash {
            Crash::Process => state.names.clone(),
            Crash::Power(_) => {
                let kept = usize::try_from(random(&mut seed)).unwrap_or(0) % (state.changes.len() + 1);
                // A journal keeps the order of names.
                kept.checked_sub(1)
                    .map_or_else(|| state.synced_names.clone(), |last| state.changes[last].clone())
            }
        };
        let files = state.files.iter().map(|(&id, content)| (id, content.after(crash, &mut seed))).collect();
        let (synced_names, changes) = match crash {
            // The system still has all it had, and still has not synced it.
            Crash::Process => (state.synced_names.clone(), state.changes.clone()),
            Crash::Power(_) => (names.clone(), Vec::new()),
        };
        let next = State { files, synced_names, changes, names, next: state.next, ..State::default() };
        Self { state: Arc::new(Mutex::new(next)) }
    }

    /// Flips one bit of a file.
    pub fn flip(&self, name: &str, bit: usize) {
        self.change(name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }

    /// Changes the bytes of a file behind everybody's back.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let id = state.names[name];
        if let Some(content) = state.files.get_mut(&id) {
            change(&mut content.now);
            content.synced.clone_from(&content.now);
        }
    }

    /// A copy that shares nothing.
    pub fn fork(&self) -> Self {
        let state = self.state.lock();
        let copy = State {
            files: state.files.clone(),
            names: state.names.clone(),
            synced_names: state.synced_names.clone(),
            next: state.next,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state.lock();
        state
            .names
            .get(name)
            .and_then(|id| state.files.get(id))
            .map_or_else(Vec::new, |file| file.now.clone())
    }
}

/// A step of a generator that is good enough for tests.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty.push((offset, end));
    }

    fn sync(&mut self) {
        self.synced.resize(self.now.len(), 0);
        for (start, end) in self.dirty.drain(..) {
            let end = end.min(self.now.len());
            self.synced[start.min(end)..end].copy_from_slice(&self.now[start.min(end)..end]);
        }
    }

    fn after(&self, crash: Crash, seed: &mut u64) -> Self {
        if crash == Crash::Process {
            return self.clone();
        }
        let mut content = self.synced.clone();
        // Now and then all, now and then nothing, else any.
        let mode = random(seed) % 4;
        for sector in self.dirty.iter().flat_map(|&(start, end)| start / SECTOR..end.div_ceil(SECTOR)) {
            let kept = match mode {
                0 => false,
                1 => true,
                _ => random(seed).is_multiple_of(2),
            };
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(self.now.len());
            if kept && start < end {
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(&self.now[start..end]);
            }
        }
        Self { now: content.clone(), synced: content, dirty: Vec::new() }
    }
}

impl State {
    /// Counts a call that changes something; says whether it is the last one.
    fn call(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        self.calls += 1;
        if self.plan.kill_at == Some(self.calls) {
            self.dead = true;
            return Ok(true);
        }
        match self.plan.fail.get(&self.calls) {
            Some(&number) => Err(io::Error::from_raw_os_error(number)),
            None => Ok(false),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    fn fits(&self, more: usize) -> io::Result<()> {
        let used: usize = self.files.values().map(|content| content.now.len()).sum();
        match self.plan.capacity {
            Some(capacity) if used + more > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn renamed(&mut self) {
        self.changes.push(self.names.clone());
        // What nobody can name any more is free. Names that a crash brings back need their files.
        let (names, synced, changes) = (&self.names, &self.synced_names, &self.changes);
        self.files.retain(|id, _| {
            names
                .values()
                .chain(synced.values())
                .chain(changes.iter().flat_map(|change| change.values()))
                .any(|kept| kept == id)
        });
    }
}

fn killed() -> io::Error {
    io::Error::other("the process was killed")
}

impl Disk for FaultyDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        if state.call()? {
            return Err(killed());
        }
        state.next += 1;
        let id = state.next;
        state.files.insert(id, Content::default());
        state.names.insert(name.to_owned(), id);
        state.renamed();
        Ok(Box::new(FaultyFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state.lock();
        state.alive()?;
        let id = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let last = state.call()?;
        let id = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), id);
        state.renamed();
        if last { Err(killed()) } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let last = state.call()?;
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.renamed();
        if last { Err(killed()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let last = state.call()?;
        state.syncs += 1;
        if last {
            return Err(killed());
        }
        state.synced_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    id: u64,
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.alive()?;
        Ok(state.files[&self.id].now.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state.lock();
        state.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from =
            state.files[&self.id].now.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let last = state.call();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let grown = (offset + bytes.len()).saturating_sub(state.files[&self.id].now.len());
        state.fits(grown)?;
        let content = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        match last {
            Ok(false) => content.write(bytes, offset),
            // Some of it is written all the same.
            Ok(true) => content.write(&bytes[..bytes.len() / 2], offset),
            Err(ref error) if error.raw_os_error().is_some() => {
                content.write(&bytes[..bytes.len() / 2], offset)
            }
            Err(_) => {}
        }
        if last? { Err(killed()) } else { Ok(()) }
    }

    fn reserve(&mut self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let last = state.call()?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        state.fits(size.saturating_sub(state.files[&self.id].now.len()))?;
        let content = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        content.now.resize(size, 0);
        content.dirty.push((size, size));
        if last { Err(killed()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let delay = self.disk.state.lock().plan.sync_delay;
        thread::sleep(delay);
        let mut state = self.disk.state.lock();
        let last = state.call();
        state.syncs += 1;
        let content = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        match last {
            Ok(false) => content.sync(),
            Ok(true) => {}
            Err(ref error) if error.raw_os_error().is_some() => content.dirty.clear(),
            Err(_) => {}
        }
        if last? { Err(killed()) } else { Ok(()) }
    }
}
