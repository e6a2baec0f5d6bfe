//! What callers are told when the server is away, slow or full, and what is left of an account that is no more.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use starling_node::Metrics;
use starling_store::testing::{Late, account, append, claim, jid, row};
use starling_store::{
    Batch, Cursor, DocKind, LogFilter, LogRow, Now, Page, Position, Reign, Result, Retention, Store,
    StoreError, Write,
};
use starling_store_scylla::cql::{
    Bucket, BucketRow, Change, Cql, Mutation, Owner, Partition, Slice, StoredRow, Volume,
};
use starling_store_scylla::model::{Connection, Faults, Model, Process, Reach, World};
use starling_store_scylla::{ScyllaStore, Settings};
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const EPOCH: u64 = 1_700_000_000_000_000;

struct Bench {
    world: World,
    model: Model,
    process: Process,
    store: Arc<ScyllaStore<Connection>>,
    metrics: Arc<Metrics>,
    reign: Reign,
    next: Position,
}

fn alice() -> BareJid {
    jid("alice@example.org")
}

fn bob() -> BareJid {
    jid("bob@example.org")
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let world = World::new(1);
        let clock = world.clone();
        let now: Now = Arc::new(move || Timestamp(EPOCH + u64::try_from(clock.now().as_micros()).unwrap()));
        let model = Model::seeded(&world, Arc::clone(&now));
        let process = world.process();
        let metrics = Arc::clone(&settings.metrics);
        let store = Arc::new(ScyllaStore::open(Arc::new(model.connect(&process)), settings, now));
        let begun = Arc::clone(&store);
        let reign = world.run(async move {
            let reign = begun.open_reign(claim(1)).await.unwrap();
            begun.grant(reign.epoch, Position(EPOCH * 2)).await.unwrap();
            begun.create_account(&alice(), account(7, "p"), reign).await.unwrap();
            reign
        });
        Self { reign: reign.unwrap(), world, model, process, store, metrics, next: Position(EPOCH) }
    }

    fn position(&mut self) -> Position {
        self.next.0 += 1;
        self.next
    }

    fn message(&mut self) -> Write {
        append(LogRow { offline: false, ..row(&alice(), self.position(), &bob()) })
    }

    /// Begins another process with another reign.
    fn again(&mut self, settings: Settings) {
        let world = self.world.clone();
        let now: Now = Arc::new(move || Timestamp(EPOCH + world.now().as_micros() as u64));
        let cql = Arc::new(self.model.connect(&self.process));
        self.store = Arc::new(ScyllaStore::open(cql, settings, now));
        let store = Arc::clone(&self.store);
        self.reign = self.world.run(async move { store.open_reign(claim(1)).await.unwrap() }).unwrap();
        self.next = self.next.max(self.reign.floor);
    }

    /// The outcome of a message and how long it took.
    fn send(&mut self) -> (Result<()>, Duration) {
        let message = self.message();
        self.commit(vec![message])
    }

    fn commit(&mut self, writes: Vec<Write>) -> (Result<()>, Duration) {
        let (begun, at) = (self.world.now(), self.position());
        let result =
            self.world.run(self.store.commit(Batch::under(self.reign.epoch, at, writes))).expect("an answer");
        (result, self.world.now() - begun)
    }

    fn load(&mut self) -> Result<()> {
        let reign = Reign { floor: self.position(), ..self.reign };
        self.world.run(self.store.load(&alice(), reign)).expect("an answer").map(drop)
    }

    fn rows(&self) -> usize {
        self.read(LogFilter::default())
    }

    /// What those see who look through the archive.
    fn archived(&self) -> usize {
        self.read(LogFilter { archived: true, ..LogFilter::default() })
    }

    fn read(&self, filter: LogFilter) -> usize {
        let page = self.store.log_page(&alice(), filter, Page::First(100_000));
        self.world.run(page).expect("an answer").unwrap().rows.len()
    }
}

#[test]
fn what_was_certainly_not_written_shuts_nothing() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.send().0.is_ok());
    bench.model.set_reach(Reach::Refusing);
    let (refused, time) = bench.send();
    assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
    assert!(time <= Duration::from_secs(5), "{time:?}");
    bench.model.set_reach(Reach::Up);
    bench.model.set_faults(Faults { overloads: 1_000, ..Faults::NONE });
    assert!(matches!(bench.send().0, Err(StoreError::Overloaded)));
    bench.model.set_faults(Faults::NONE);
    assert!(bench.send().0.is_ok(), "without a load");
    assert_eq!(bench.rows(), 2);
}

#[test]
fn who_is_refused_again_and_again_is_refused_soon() {
    let mut bench = Bench::new(Settings::default());
    bench.model.set_reach(Reach::Refusing);
    let times: Vec<_> = (0..100).map(|_| bench.send().1).collect();
    assert!(times[0] > Duration::from_secs(1), "at first it is tried for a while: {:?}", times[0]);
    assert!(times[99] < Duration::from_millis(200), "then twice: {:?}", times[99]);
    let retries = bench.metrics.store_retries.get();
    assert!(retries <= 300 + 100, "once for each of 300 writes, and what was saved: {retries}");
    bench.model.set_reach(Reach::Up);
    let (back, time) = bench.send();
    assert!(back.is_ok() && time < Duration::from_secs(1), "at once when it is back: {time:?}");
}

#[test]
fn what_is_in_doubt_shuts_the_account_until_it_is_loaded() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.send().0.is_ok());
    bench.model.set_reach(Reach::Silent);
    let (silent, time) = bench.send();
    assert!(matches!(silent, Err(StoreError::Unavailable(_))));
    assert!(time <= Duration::from_millis(5_001), "{time:?}");
    bench.model.set_reach(Reach::Up);
    let (shut, time) = bench.send();
    assert!(matches!(shut, Err(StoreError::Unavailable(_))) && time == Duration::ZERO, "{shut:?} {time:?}");
    bench.load().unwrap();
    assert!(bench.send().0.is_ok());
    assert_eq!(bench.rows(), 2);
}

/// A part of it could be made sure of by the look alone, and what came before that be lost.
#[test]
fn who_looks_through_the_archive_does_not_see_what_may_not_be_there() {
    for late in Late::ALL {
        let mut bench = Bench::new(Settings::default());
        bench.send().0.unwrap();
        bench.model.hold(Some(late));
        bench.send().0.unwrap_err();
        bench.model.hold(None);
        assert_eq!(bench.archived(), 1, "{late:?}");
        bench.model.arrive();
        bench.load().unwrap();
        let found = bench.rows();
        assert_eq!(bench.archived(), found, "{late:?}");
        if late == Late::Everywhere {
            assert_eq!(found, 2);
        }
        bench.send().0.unwrap();
        assert_eq!(bench.archived(), found + 1, "{late:?}");
    }
}

#[test]
fn a_load_that_fails_leaves_the_account_shut() {
    let mut bench = Bench::new(Settings::default());
    bench.model.set_reach(Reach::Silent);
    assert!(bench.send().0.is_err());
    assert!(matches!(bench.load(), Err(StoreError::Unavailable(_))));
    bench.model.set_reach(Reach::Up);
    assert!(matches!(bench.send().0, Err(StoreError::Unavailable(_))));
    bench.load().unwrap();
    assert!(bench.send().0.is_ok());
}

#[test]
fn one_replica_of_three_may_be_away() {
    let mut bench = Bench::new(Settings::default());
    bench.model.set_replica(1, false);
    for _ in 0..20 {
        assert!(bench.send().0.is_ok());
    }
    bench.load().unwrap();
    assert_eq!(bench.rows(), 20);
}

#[test]
fn a_cursor_that_one_replica_had_is_there_once_it_was_loaded() {
    for doubt in [false, true] {
        let mut bench = Bench::new(Settings::default());
        assert!(bench.send().0.is_ok());
        let cursor = Cursor { through: bench.next, above: vec![] };
        bench.model.hold(Some(Late::Somewhere));
        let (outcome, _) = bench.commit(vec![Write::Cursor(alice(), cursor.clone())]);
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        bench.model.hold(None);
        for replicas in [[0, 1], [1, 2]] {
            if !doubt {
                bench.again(Settings::default());
            }
            bench.model.pin(Some(replicas));
            let reign = Reign { floor: bench.position(), ..bench.reign };
            let state = bench.world.run(bench.store.load(&alice(), reign)).unwrap().unwrap();
            assert_eq!(state.unwrap().cursor, cursor, "{replicas:?}, in doubt: {doubt}");
        }
    }
}

#[test]
fn so_many_wait_and_no_more() {
    let settings = Settings { in_flight: 6, waiting: 5, ..Settings::default() };
    let mut bench = Bench::new(settings);
    let owners: Vec<_> = (0..20).map(|n| jid(&format!("user{n}@example.org"))).collect();
    let message = |bench: &mut Bench, owner: &BareJid| {
        let row = row(owner, bench.position(), &bob());
        Batch::under(bench.reign.epoch, bench.position(), vec![append(LogRow { offline: false, ..row })])
    };
    for owner in &owners {
        bench.world.run(bench.store.create_account(owner, account(1, "p"), bench.reign)).unwrap().unwrap();
        let first = message(&mut bench, owner);
        bench.world.run(bench.store.commit(first)).unwrap().unwrap();
    }
    bench.model.set_reach(Reach::Silent);
    let begun = bench.world.now();
    let batches: Vec<_> = owners.iter().map(|owner| message(&mut bench, owner)).collect();
    let commits: Vec<_> = batches.into_iter().map(|batch| bench.store.commit(batch)).collect();
    let outcomes = bench.world.run(futures::future::join_all(commits)).expect("answers");
    let count = |wanted: fn(&StoreError) -> bool| {
        outcomes.iter().filter(|outcome| outcome.as_ref().is_err_and(wanted)).count()
    };
    assert_eq!(count(|error| matches!(error, StoreError::Unavailable(_))), 3, "{outcomes:?}");
    assert_eq!(count(|error| matches!(error, StoreError::Overloaded)), 17, "nothing of them was sent");
    assert!(bench.metrics.store_dropped.get() >= 12, "beyond the three and the five at once");
    assert!(bench.world.now() - begun <= Duration::from_millis(5_001));
    assert_eq!((bench.metrics.store_in_flight.get(), bench.metrics.store_queue.get()), (0, 0));
    bench.model.set_reach(Reach::Up);
    assert!(bench.send().0.is_ok());
}

#[test]
fn what_waits_behind_doubt_is_refused_at_once() {
    let mut bench = Bench::new(Settings::default());
    assert!(bench.send().0.is_ok());
    bench.model.set_reach(Reach::Silent);
    let messages: Vec<_> = (0..300).map(|_| bench.message()).collect();
    let commits: Vec<_> = messages.into_iter().map(|message| (bench.position(), vec![message])).collect();
    let commits: Vec<_> = commits
        .into_iter()
        .map(|(at, writes)| bench.store.commit(Batch::under(bench.reign.epoch, at, writes)))
        .collect();
    let outcomes = bench.world.run(futures::future::join_all(commits)).expect("answers");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(StoreError::Unavailable(_)))));
    bench.model.set_reach(Reach::Up);
    bench.load().unwrap();
    assert_eq!(bench.rows(), 1, "the first of them was sent and lost, the others were never sent");
}

#[test]
fn faults_come_to_an_end() {
    let faults =
        Faults { lost_requests: 100, lost_answers: 100, overloads: 100, doubles: 100, ..Faults::NONE };
    let mut bench = Bench::new(Settings::default());
    bench.model.set_faults(faults);
    let (mut confirmed, mut shut) = (0, false);
    for _ in 0..300 {
        if shut {
            shut = bench.load().is_err();
            continue;
        }
        match bench.send().0 {
            Ok(()) => confirmed += 1,
            Err(StoreError::Overloaded) => {}
            Err(_) => shut = true,
        }
    }
    bench.model.set_faults(Faults::NONE);
    bench.load().unwrap();
    let rows = bench.rows();
    assert!(confirmed > 100 && rows >= confirmed && rows <= 300, "{confirmed} confirmed, {rows} there");
    assert!(bench.send().0.is_ok());
}

#[test]
fn an_account_that_is_removed_leaves_nothing() {
    let mut bench = Bench::new(Settings { bucket_rows: 10, volume_buckets: 2, ..Settings::default() });
    for _ in 0..35 {
        assert!(bench.send().0.is_ok());
    }
    // Positions run ahead of the clock where that was set back.
    bench.next.0 += 3_600_000_000;
    let doc = Write::Doc(alice(), DocKind::BlockList, "list".into());
    assert!(bench.commit(vec![doc]).0.is_ok());
    let owner = Owner { jid: alice(), generation: 7 };
    let cql = bench.model.connect(&bench.process);
    let buckets = bench.world.run(cql.buckets(&owner, None, 100)).unwrap().unwrap();
    assert_eq!(buckets.len(), 4);
    assert!(bench.commit(vec![Write::DeleteAccount(alice())]).0.is_ok());
    let now = || Timestamp(EPOCH);
    let retention = Retention::default();
    assert_eq!(bench.world.run(bench.store.sweep(now(), retention)).unwrap().unwrap(), 36);
    assert_eq!(bench.world.run(bench.store.sweep(now(), retention)).unwrap().unwrap(), 0);
    let slice = Slice { low: Position(0), high: Position(EPOCH * 2), newest: true, limit: 100 };
    let listed = |bench: &Bench| bench.world.run(cql.buckets(&owner, None, 100)).unwrap().unwrap();
    let late = Bucket(Position(EPOCH + 5_000));
    let late = BucketRow { bucket: late, volume: Volume(late.0), rows: 0 };
    let left = |bench: &Bench| {
        let mut left = bench.world.run(cql.data(&owner)).unwrap().unwrap().len();
        for bucket in buckets.iter().chain([&late]) {
            left += bench.world.run(cql.rows(&owner, bucket.bucket, slice)).unwrap().unwrap().len();
            left += bench.world.run(cql.peers(&owner, &bob(), bucket.volume, slice)).unwrap().unwrap().len();
        }
        left
    };
    assert_eq!((left(&bench), listed(&bench).len()), (0, 4));
    // What was under way arrives: by the list of buckets it is found.
    let row = StoredRow {
        row: row(&alice(), Position(EPOCH + 5_001), &bob()),
        nth: 1,
        filled: 1,
        safe: Position(EPOCH + 5_000),
    };
    for (partition, change) in [
        (Partition::Buckets(owner.clone()), Change::PutBucket(late)),
        (Partition::Log(owner.clone(), late.bucket), Change::PutRow(Box::new(row.clone()), None)),
        (
            Partition::Peer(owner.clone(), bob(), late.volume),
            Change::PutPeer(row.row.position, late.bucket, None),
        ),
    ] {
        let at = Position(EPOCH + 5_002);
        let write =
            cql.write(Mutation { partition, at, changes: vec![change], traces: Vec::new(), attempt: 1 });
        bench.world.run(write).unwrap().unwrap();
    }
    assert_eq!((left(&bench), listed(&bench).len()), (2, 5));
    let waiting = |bench: &Bench| {
        let day = (EPOCH / 86_400_000_000) as u32;
        let purges =
            (0..256).map(|slice| bench.world.run(cql.purges(day, slice, None, 10)).unwrap().unwrap());
        purges.map(|rows| rows.len()).sum::<usize>()
    };
    // By and by it comes to all days on which something can have been noted.
    let sweeps = |bench: &Bench, days: u64| {
        let now = Timestamp(EPOCH + days * 86_400_000_000);
        for _ in 0..120 {
            bench.world.run(bench.store.sweep(now, retention)).unwrap().unwrap();
        }
    };
    sweeps(&bench, 1);
    assert_eq!(waiting(&bench), 1, "looked at once more, when nothing is under way");
    assert_eq!(left(&bench), 2);
    sweeps(&bench, 2);
    assert_eq!((waiting(&bench), left(&bench), listed(&bench).len()), (0, 0, 0));
    let names = bench.store.accounts("example.org", None, 10);
    assert!(bench.world.run(names).unwrap().unwrap().is_empty());
}

/// A server's clock is an hour ahead when it removes an account; the next server's clock is right when it is made again.
#[test]
fn an_account_that_is_made_again_is_listed_whatever_clocks_say() {
    let world = World::new(1);
    let clock = |ahead: Arc<AtomicU64>| -> Now {
        let world = world.clone();
        let now = move || EPOCH + world.now().as_micros() as u64;
        Arc::new(move || Timestamp(now() + ahead.load(Ordering::Relaxed)))
    };
    let model = Model::seeded(&world, clock(Arc::default()));
    let open = |ahead: &Arc<AtomicU64>| {
        let cql = Arc::new(model.connect(&world.process()));
        let store = Arc::new(ScyllaStore::open(cql, Settings::default(), clock(Arc::clone(ahead))));
        let begun = Arc::clone(&store);
        let opened = world.run(async move {
            let reign = begun.open_reign(claim(1)).await.unwrap();
            let ceiling = Position((EPOCH + 10_000_000).max(reign.floor.0 + 1_000_000));
            begun.grant(reign.epoch, ceiling).await.unwrap();
            begun.create_account(&alice(), account(reign.epoch, "p"), reign).await.unwrap();
            reign
        });
        (store, opened.unwrap())
    };
    let ahead = Arc::<AtomicU64>::default();
    let (first, reign) = open(&ahead);
    ahead.store(3_600_000_000, Ordering::Relaxed);
    for generation in 100..150 {
        let delete = vec![Write::DeleteAccount(alice())];
        let at = Position(reign.floor.0.max(EPOCH) + generation);
        world.run(first.commit(Batch::under(reign.epoch, at, delete))).unwrap().unwrap();
        let listed = world.run(first.accounts("example.org", None, 10)).unwrap().unwrap();
        assert!(listed.is_empty());
        if generation < 149 {
            world.run(first.create_account(&alice(), account(generation, "p"), reign)).unwrap().unwrap();
        }
    }
    let (second, _) = open(&Arc::default());
    let listed = world.run(second.accounts("example.org", None, 10)).unwrap().unwrap();
    assert_eq!(listed, [alice()]);
}

#[test]
fn a_sweep_does_so_much_and_the_next_one_goes_on() {
    let mut bench = Bench::new(Settings::default());
    let owners: Vec<_> = (0..700).map(|n| jid(&format!("user{n}@example.org"))).collect();
    for owner in &owners {
        bench.world.run(bench.store.create_account(owner, account(1, "p"), bench.reign)).unwrap().unwrap();
        assert!(bench.commit(vec![Write::DeleteAccount(owner.clone())]).0.is_ok());
    }
    let sweep = |store: &ScyllaStore<Connection>| {
        let now = Timestamp(EPOCH + bench.world.now().as_micros() as u64);
        bench.world.run(store.sweep(now, Retention::default())).unwrap().unwrap()
    };
    assert_eq!([(); 5].map(|()| sweep(&bench.store)), [200, 200, 200, 100, 0]);
    // What was done is known by whoever comes next.
    let world = bench.world.clone();
    let now: Now = Arc::new(move || Timestamp(EPOCH + world.now().as_micros() as u64));
    let cql = Arc::new(bench.model.connect(&bench.process));
    let next = ScyllaStore::open(cql, Settings::default(), now);
    assert_eq!(sweep(&next), 0);
}

#[test]
fn buckets_beyond_the_retention_go_and_with_them_their_index() {
    let retention = Retention { max_age_secs: None, max_rows: Some(20) };
    let settings = Settings { bucket_rows: 10, retention, ..Settings::default() };
    let mut bench = Bench::new(settings);
    let begun = bench.next;
    for _ in 0..35 {
        assert!(bench.send().0.is_ok());
    }
    bench.world.run(bench.store.sweep(Timestamp(EPOCH), retention)).unwrap().unwrap();
    assert_eq!(bench.rows(), 25, "two buckets and what is in the newest");
    let owner = Owner { jid: alice(), generation: 7 };
    let cql = bench.model.connect(&bench.process);
    let listed = bench.world.run(cql.buckets(&owner, None, 100)).unwrap().unwrap();
    assert_eq!(listed.len(), 3);
    let first = Position(begun.0 + 1);
    let slice = Slice { low: Position(0), high: Position(EPOCH * 2), newest: false, limit: 100 };
    let entries = bench.world.run(cql.peers(&owner, &bob(), Volume(first), slice)).unwrap().unwrap();
    assert!(!entries.is_empty() && entries.iter().all(|(_, bucket)| *bucket != Bucket(first)));
    bench.load().unwrap();
    assert_eq!(bench.rows(), 25);
    let cursor = Write::Cursor(alice(), Cursor { through: bench.next, above: vec![] });
    assert!(bench.commit(vec![cursor]).0.is_ok());
}

#[test]
fn a_row_that_cannot_be_read_stands_in_nobodys_way() {
    let mut bench = Bench::new(Settings { bucket_rows: 40, ..Settings::default() });
    let begun = bench.next;
    for _ in 0..100 {
        assert!(bench.send().0.is_ok());
    }
    // Each message takes two positions. Every tenth, and all of the newest: more than a load reads at first.
    let nth = |n: u64| Position(begun.0 + 2 * n + 1);
    let damaged: Vec<_> = (0..80).step_by(10).chain(80..100).collect();
    damaged.iter().for_each(|n| bench.model.damage(nth(*n)));
    for limit in [1, 7, 100] {
        let mut found = 0;
        let mut filter = LogFilter::default();
        loop {
            let page = bench.store.log_page(&alice(), filter.clone(), Page::First(limit));
            let page = bench.world.run(page).unwrap().unwrap();
            found += page.rows.len();
            match page.rows.last() {
                Some(last) if !page.complete => filter.above = Some(last.position),
                _ => break,
            }
        }
        assert_eq!(found, 72, "in pages of {limit}");
    }
    let with = LogFilter { with: Some(bob()), ..LogFilter::default() };
    let page = bench.store.log_page(&alice(), with, Page::Last(50));
    assert_eq!(bench.world.run(page).unwrap().unwrap().rows.len(), 50);
    assert!(bench.metrics.store_unreadable.get() >= 28);
    let store = Arc::clone(&bench.store);
    bench.reign = bench.world.run(async move { store.open_reign(claim(1)).await.unwrap() }).unwrap();
    let top = bench.reign.floor.0.max(bench.next.0);
    bench.next = Position(top + 1);
    bench.load().unwrap();
    assert!(bench.send().0.is_ok());
    assert_eq!(bench.rows(), 73);
    let cql = bench.model.connect(&bench.process);
    let owner = Owner { jid: alice(), generation: 7 };
    let slice = Slice { low: Position(0), high: Position(EPOCH * 3), newest: false, limit: 1_000 };
    let buckets = bench.world.run(cql.buckets(&owner, None, 100)).unwrap().unwrap();
    let rows = buckets.iter().flat_map(|row| bench.world.run(cql.rows(&owner, row.bucket, slice)).unwrap());
    assert_eq!(rows.map(|rows| rows.len()).sum::<usize>(), 101, "they are still there");
}

#[test]
fn a_bucket_remembers_its_bytes_over_a_restart() {
    let settings = Settings { bucket_bytes: 1_000, ..Settings::default() };
    let mut bench = Bench::new(settings.clone());
    for _ in 0..20 {
        bench.again(settings.clone());
        bench.load().unwrap();
        assert!(bench.send().0.is_ok());
    }
    let cql = bench.model.connect(&bench.process);
    let owner = Owner { jid: alice(), generation: 7 };
    let buckets = bench.world.run(cql.buckets(&owner, None, 100)).unwrap().unwrap();
    assert!((3..10).contains(&buckets.len()), "{} buckets of 1,000 bytes", buckets.len());
}

#[test]
fn many_loads_at_once_come_to_an_end() {
    let mut bench = Bench::new(Settings { in_flight: 2, ..Settings::default() });
    let owners: Vec<_> = (0..12_000).map(|n| jid(&format!("user{n}@example.org"))).collect();
    for (n, owner) in owners.iter().enumerate() {
        bench
            .world
            .run(bench.store.create_account(owner, account(n as u64, "p"), bench.reign))
            .unwrap()
            .unwrap();
    }
    let store = Arc::clone(&bench.store);
    bench.reign = bench.world.run(async move { store.open_reign(claim(1)).await.unwrap() }).unwrap();
    let begun = bench.world.now();
    let loads = owners.into_iter().map(|owner| {
        let (store, reign, process) = (Arc::clone(&bench.store), bench.reign, bench.process.clone());
        async move {
            let (mut pause, mut tries) = (Duration::from_secs(1), 1);
            while store.load(&owner, reign).await.is_err() {
                process.sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(8));
                tries += 1;
            }
            tries
        }
    });
    let tries = bench.world.run(futures::future::join_all(loads.collect::<Vec<_>>())).expect("an end");
    let (time, tries) = (bench.world.now() - begun, tries.into_iter().sum::<u32>());
    assert!(time < Duration::from_secs(120), "{time:?}, {tries} tries of 12,000 loads");
}
