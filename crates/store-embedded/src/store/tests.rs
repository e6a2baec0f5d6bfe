//! The suite of all back ends, and what only a store on disk can do.

use super::*;
use parking_lot::{Condvar, Mutex};
use starling_store::testing::{BackEnd, TestTime, account, append, at, batch, claim, jid, reign, row};
use starling_store::{SharedStore, StoreError, Write};
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

struct Embedded(TempDir);

impl Embedded {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> Options {
        Options::at(self.0.path())
    }

    fn try_open(&self) -> std::result::Result<EmbeddedStore, OpenError> {
        EmbeddedStore::open(&self.options(), TestTime::at(2_000).now())
    }
}

impl BackEnd for Embedded {
    async fn open(&mut self, now: Now, _: Retention) -> SharedStore {
        Arc::new(EmbeddedStore::open(&self.options(), now).unwrap())
    }
}

mod conformance {
    use super::Embedded;
    starling_store::conformance!(Embedded::new());
    starling_store::conformance!(sweeping: Embedded::new());
}

fn alice() -> BareJid {
    jid("alice@example.org")
}

fn write(secs: u64) -> Batch {
    batch(vec![append(row(&alice(), at(secs), &jid("bob@example.org")))])
}

async fn rows(store: &EmbeddedStore) -> Vec<Position> {
    let page = store.log_page(&alice(), LogFilter::default(), Page::First(usize::MAX)).await.unwrap();
    page.rows.iter().map(|row| row.position).collect()
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let back_end = Embedded::new();
    let store = back_end.try_open().unwrap();
    assert!(!store.is_shared(), "a cluster is told so, too");
    let error = back_end.try_open().err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(text.contains(back_end.0.path().to_str().unwrap()), "{text}");
    drop(store);
    back_end.try_open().unwrap();
}

#[test]
fn what_it_cannot_read_is_refused_and_left_alone() {
    let back_end = Embedded::new();
    drop(back_end.try_open().unwrap());
    let mark = back_end.0.path().join("format");
    let ours = fs::read(&mark).unwrap();
    fs::write(&mark, format!("starling embedded store, format {}\n", FORMAT + 1)).unwrap();
    let error = back_end.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Newer { found, .. } if found == FORMAT + 1));
    assert!(error.to_string().contains("newer version"), "{error}");
    fs::remove_file(&mark).unwrap();
    assert!(matches!(back_end.try_open().err().unwrap(), OpenError::Foreign { .. }));
    fs::write(&mark, ours).unwrap();
    back_end.try_open().unwrap();

    let file = back_end.0.path().join("file");
    fs::write(&file, "").unwrap();
    let error = EmbeddedStore::open(&Options::at(&file), TestTime::at(0).now()).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "a file is no directory");
}

/// A disk that is closed and opened by a test.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar, AtomicBool)>);

impl Gate {
    fn set(&self, closed: bool) {
        *self.0.0.lock() = closed;
        self.0.1.notify_all();
    }

    fn is_waited_for(&self) -> bool {
        self.0.2.load(Ordering::SeqCst)
    }

    fn sync(&self) -> writer::Sync {
        let gate = self.clone();
        Box::new(move |batch| {
            let mut closed = gate.0.0.lock();
            while *closed {
                gate.0.2.store(true, Ordering::SeqCst);
                gate.0.1.wait(&mut closed);
            }
            writer::sync(batch)
        })
    }
}

#[tokio::test]
async fn commits_share_syncs_and_are_refused_when_too_many_wait() {
    let back_end = Embedded::new();
    let gate = Gate::default();
    let options = Options { queue_commits: 100, ..back_end.options() };
    let store = EmbeddedStore::open_with(&options, TestTime::at(2_000).now(), gate.sync()).unwrap();
    store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
    let before = store.figures();

    gate.set(true);
    let first = store.commit(write(1));
    while store.figures().queued > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waiting: Vec<_> = (2..=101).map(|n| store.commit(write(n))).collect();
    assert_eq!(store.figures().queued, 100);
    assert!(matches!(store.commit(write(102)).await, Err(StoreError::Overloaded)));
    assert!(rows(&store).await.is_empty(), "what is not synced is not seen");
    gate.set(false);

    first.await.unwrap();
    for commit in waiting {
        commit.await.unwrap();
    }
    let after = store.figures();
    assert_eq!((after.commits - before.commits, after.syncs - before.syncs), (101, 2));
    assert_eq!(rows(&store).await, (1..=101).map(at).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_weight_of_what_waits_is_bounded() {
    let back_end = Embedded::new();
    let gate = Gate::default();
    let options = Options { queue_bytes: 100_000, ..back_end.options() };
    let store = EmbeddedStore::open_with(&options, TestTime::at(2_000).now(), gate.sync()).unwrap();
    store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
    gate.set(true);
    let large = |n| {
        let row =
            LogRow { stanza: vec![b'x'; 30_000].into(), ..row(&alice(), at(n), &jid("bob@example.org")) };
        batch(vec![append(row)])
    };
    let mut taken = vec![store.commit(large(1))];
    while store.figures().queued > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    taken.extend((2..=4).map(|n| store.commit(large(n))));
    assert!(matches!(store.commit(large(5)).await, Err(StoreError::Overloaded)));
    gate.set(false);
    for commit in taken {
        commit.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_after_a_failed_sync() {
    let back_end = Embedded::new();
    let broken = Arc::new(Mutex::new(false));
    let sync: writer::Sync = {
        let broken = broken.clone();
        Box::new(move |batch| {
            if *broken.lock() {
                return Err(fjall::Error::Io(io::Error::other("the disk is gone")));
            }
            writer::sync(batch)
        })
    };
    {
        let store = EmbeddedStore::open_with(&back_end.options(), TestTime::at(2_000).now(), sync).unwrap();
        store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
        store.commit(write(1)).await.unwrap();
        *broken.lock() = true;
        let together = [store.commit(write(2)), store.commit(write(3))];
        for commit in together {
            assert!(matches!(commit.await, Err(StoreError::Unavailable(_))));
        }
        assert!(store.failed());
        *broken.lock() = false;
        assert!(
            matches!(store.commit(write(4)).await, Err(StoreError::Unavailable(_))),
            "a disk is not trusted again"
        );
        assert!(store.create_account(&jid("bob@example.org"), account(2, "p"), Reign::NONE).await.is_err());
        assert!(store.open_reign(claim(1)).await.is_err());
        assert!(store.secret("name").await.is_err());
        assert!(store.load(&alice(), reign(1)).await.is_err(), "what was written is not known");
        assert_eq!(rows(&store).await, [at(1)], "reading goes on");
    }
    let store = back_end.try_open().unwrap();
    assert!(!store.failed());
    assert_eq!(rows(&store).await, [at(1)]);
    store.commit(write(5)).await.unwrap();
}

/// Keys that are left of an account that was removed.
fn left(store: &EmbeddedStore) -> usize {
    let tables = &store.tables;
    let keys = tables.accounts.iter().map(|entry| entry.key().unwrap());
    let accounts = keys.filter(|key| ![b'm', b'a'].contains(&key[0])).count();
    accounts + tables.log.len().unwrap() + tables.peers.len().unwrap()
}

fn wait_for_removals(store: &EmbeddedStore) {
    for _ in 0..10_000 {
        if store.figures().removals == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the removal does not end");
}

#[tokio::test]
async fn a_removed_account_leaves_no_row_on_disk() {
    let back_end = Embedded::new();
    let store = back_end.try_open().unwrap();
    fill(&store).await;
    assert!(left(&store) > 6_000);
    store.commit(batch(vec![Write::DeleteAccount(alice())])).await.unwrap();
    wait_for_removals(&store);
    assert_eq!(left(&store), 0);
}

#[tokio::test]
async fn an_account_made_again_is_another_whatever_its_generation() {
    let back_end = Embedded::new();
    let store = back_end.try_open().unwrap();
    fill(&store).await;
    store.commit(batch(vec![Write::DeleteAccount(alice())])).await.unwrap();
    store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
    assert!(rows(&store).await.is_empty());
    assert!(store.load(&alice(), reign(1)).await.unwrap().unwrap().roster.items.is_empty());
}

#[tokio::test]
async fn a_removal_cut_short_goes_on_at_the_next_start() {
    let back_end = Embedded::new();
    {
        let store = back_end.try_open().unwrap();
        fill(&store).await;
        // Dropped at once: the writer ends before it has taken away what it has marked.
        drop(store.commit(batch(vec![Write::DeleteAccount(alice())])));
    }
    {
        let tables = Tables::open(&back_end.0.path().join("data"), &back_end.options()).unwrap();
        assert!(tables.log.len().unwrap() > 1_000, "or this test tests nothing");
    }
    let store = back_end.try_open().unwrap();
    wait_for_removals(&store);
    assert!(store.account(&alice()).await.unwrap().is_none());
    assert_eq!(left(&store), 0);
}

/// 3,000 rows that end by themselves, a roster and a cursor.
async fn fill(store: &EmbeddedStore) {
    use starling_store::{Cursor, LogRow, RosterItem};
    store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
    let bob = jid("bob@example.org");
    for start in 0..3 {
        let rows = (0..1_000).map(|n| {
            let expires = Some(Timestamp::from_secs(9_000));
            append(LogRow { expires, ..row(&alice(), at(start * 1_000 + n + 1), &bob) })
        });
        store.commit(batch(rows.collect())).await.unwrap();
    }
    let cursor = Cursor { through: at(3), above: vec![] };
    let item = Box::new(RosterItem { version: 1, ..RosterItem::new(bob.clone()) });
    let writes = vec![
        Write::RosterItem(alice(), item),
        Write::RosterRemove(alice(), jid("carol@example.org"), 2),
        Write::Cursor(alice(), cursor),
    ];
    store.commit(batch(writes)).await.unwrap();
}

#[tokio::test]
async fn calls_on_a_store_that_closes_are_answered() {
    let back_end = Embedded::new();
    let gate = Gate::default();
    let store =
        EmbeddedStore::open_with(&back_end.options(), TestTime::at(2_000).now(), gate.sync()).unwrap();
    store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
    let commits: Vec<_> = (1..=50).map(|n| store.commit(write(n))).collect();
    let reads: Vec<_> = (1..=50).map(|_| store.load(&alice(), reign(1))).collect();
    drop(store);
    for commit in commits {
        commit.await.unwrap();
    }
    for read in reads {
        assert!(read.await.unwrap().is_some());
    }
    let store = back_end.try_open().unwrap();
    assert_eq!(rows(&store).await.len(), 50);
}

#[tokio::test]
async fn it_closes_while_it_sweeps() {
    let back_end = Embedded::new();
    let gate = Gate::default();
    let store =
        EmbeddedStore::open_with(&back_end.options(), TestTime::at(2_000).now(), gate.sync()).unwrap();
    fill(&store).await;
    gate.set(true);
    let sweep = store.sweep(Timestamp::from_secs(9_000), Retention::default());
    while !gate.is_waited_for() {
        thread::sleep(Duration::from_millis(1));
    }
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        gate.set(false);
    });
    // On the only thread of the runtime: nothing may wait for a task of it.
    drop(store);
    opener.join().unwrap();
    assert!(sweep.await.unwrap() > 1_000);
}

#[test]
fn it_can_be_used_from_a_runtime_it_was_not_opened_on() {
    let back_end = Embedded::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    let store = first.block_on(async { back_end.try_open().unwrap() });
    let second = runtime();
    drop(first);
    second.block_on(async {
        store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
        store.commit(write(1)).await.unwrap();
        assert_eq!(rows(&store).await.len(), 1);
    });
    drop(second);
    let store = {
        drop(store);
        back_end.try_open().unwrap()
    };
    runtime().block_on(async { store.commit(write(2)).await.unwrap() });
}

/// A worker of the tree that is busy finds its own queue full of requests to write memory out, and waits for room in it,
/// if every commit may make one: then memory and journal grow for as long as there are commits. Small buffers, one
/// commit a group and a disk that is never waited for get there within a second.
#[tokio::test]
async fn memory_and_journal_are_bounded_under_saturating_load() {
    const COMMITS: u64 = 25_000;
    const STANZA: usize = 6_000;
    const BUFFER: u64 = 1 << 20;
    /// The tree begins a new one at about this size, and needs the last one until what is in it is written out.
    const JOURNAL: u64 = 64 << 20;
    let back_end = Embedded::new();
    let options =
        Options { write_buffer_bytes: BUFFER, journal_bytes: JOURNAL, group_bytes: 1, ..back_end.options() };
    let sync: writer::Sync = Box::new(|batch| batch.commit());
    let store = EmbeddedStore::open_with(&options, TestTime::at(2_000).now(), sync).unwrap();
    store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
    let stanza = bytes::Bytes::from(vec![b'x'; STANZA]);
    let mut under_way = VecDeque::new();
    for n in 1..=COMMITS {
        let row = LogRow { stanza: stanza.clone(), ..row(&alice(), at(n), &jid("bob@example.org")) };
        under_way.push_back(store.commit(batch(vec![append(row)])));
        if n % 500 > 0 {
            continue;
        }
        for commit in under_way.drain(..under_way.len() / 2) {
            commit.await.unwrap();
        }
        let memory = store.figures().buffered_bytes;
        let journal = store.tables.db.journal_disk_space().unwrap();
        if memory > 8 * BUFFER || journal > 2 * JOURNAL + BUFFER {
            std::mem::forget(store); // closing it would wait for that worker
            panic!("after {n} commits: {memory} bytes in memory, {journal} in journals");
        }
    }
    for commit in under_way {
        commit.await.unwrap();
    }
    assert_eq!(store.load(&alice(), reign(1)).await.unwrap().unwrap().last, at(COMMITS));
}

/// Ends of the journal that a power cut may leave: the file cut anywhere, with zeros or rubbish after the cut.
#[tokio::test]
async fn a_torn_journal_gives_back_whole_commits() {
    let back_end = Embedded::new();
    let written = {
        let store = back_end.try_open().unwrap();
        store.create_account(&alice(), account(1, "p"), Reign::NONE).await.unwrap();
        for n in 1..=20 {
            let second = row(&alice(), Position(at(n).0 + 1), &jid("carol@example.org"));
            store.commit(batch([write(n).writes, vec![append(second)]].concat())).await.unwrap();
        }
        copy(back_end.0.path())
    };
    let journal = fs::read_dir(written.0.path().join("data")).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.filter(|path| path.extension().is_some_and(|end| end == "jnl")).max().unwrap();
    let bytes = fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut seen = std::collections::BTreeSet::new();
    for cut in (0..24).map(|step| used - step * 211).chain([used]) {
        for tail in [&[][..], &[0; 5_000], &[0xa5; 300]] {
            let torn = copy(written.0.path());
            let name = journal.file_name().unwrap();
            fs::write(torn.0.path().join("data").join(name), [&bytes[..cut], tail].concat()).unwrap();
            let store = torn.try_open().unwrap_or_else(|error| panic!("cut at {cut} of {used}: {error}"));
            let rows = rows(&store).await;
            let whole = rows.len() as u64 / 2;
            let want: Vec<_> = (1..=whole).flat_map(|n| [at(n), Position(at(n).0 + 1)]).collect();
            assert_eq!(rows, want, "cut at {cut} of {used}");
            assert!(cut < used || whole == 20);
            seen.insert(whole);
            // It goes on from there, and what it then says is kept.
            store.commit(write(100)).await.unwrap();
            drop(store);
            assert_eq!(self::rows(&torn.try_open().unwrap()).await.last(), Some(&at(100)));
        }
    }
    assert!(seen.len() > 3, "the cuts fell into different commits: {seen:?}");
}

fn copy(directory: &std::path::Path) -> Embedded {
    fn tree(from: &std::path::Path, to: &std::path::Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                tree(&entry.path(), &to)
            } else {
                fs::copy(entry.path(), to).map(drop).unwrap()
            }
        }
    }
    let copy = Embedded::new();
    tree(directory, copy.0.path());
    copy
}
