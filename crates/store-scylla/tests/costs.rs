//! What calls cost: statements, and how many of them wait for each other. On a server where every attempt takes a second,
//! and some are not answered before they are carried out long after.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_store::testing::{account, append, claim, jid, row};
use starling_store::{
    AccountRow, Batch, Cursor, LogFilter, LogRow, Now, Page, Position, Reign, RosterItem, Store, StoreError,
    Write,
};
use starling_store_scylla::cql::{
    Answer, Bucket, BucketRow, Cql, DataRow, Found, Level, Mutation, Owner, Partition, PurgeRow, ReignRow,
    Slice, Volume,
};
use starling_store_scylla::model::{Connection, Model, Process, World};
use starling_store_scylla::{ScyllaStore, Settings};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const EPOCH: u64 = 1_700_000_000_000_000;

/// A server that takes its time and counts.
struct Slow {
    inner: Arc<Connection>,
    process: Process,
    calls: Arc<Mutex<Vec<String>>>,
    late: Arc<Mutex<Late>>,
}

/// Calls of this name are not answered; they are kept.
#[derive(Default)]
struct Late {
    name: Option<&'static str>,
    kept: Vec<BoxFuture<'static, ()>>,
}

impl Slow {
    fn call<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        call: impl FnOnce(&Connection) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let name = name.into();
        let mut late = self.late.lock();
        let (inner, sleep) = (Arc::clone(&self.inner), self.process.sleep(Duration::from_millis(999)));
        if late.name.is_some_and(|late| late == name) {
            late.kept.push(async move { drop(call(&inner).await) }.boxed());
            return futures::future::pending().boxed();
        }
        self.calls.lock().push(name);
        async move {
            sleep.await;
            call(&inner).await
        }
        .boxed()
    }
}

impl Cql for Slow {
    fn write(&self, mutation: Mutation) -> Answer<()> {
        let name = match mutation.partition {
            Partition::Data(_) => "write data",
            Partition::Buckets(_) => "write buckets",
            Partition::Log(..) => "write log",
            Partition::Peer(..) => "write peer",
            Partition::Names(..) => "write names",
            Partition::Purges(..) => "write purges",
        };
        self.call(name, |inner| inner.write(mutation))
    }

    fn data(&self, owner: &Owner) -> Answer<Vec<DataRow>> {
        let owner = owner.clone();
        self.call("data", move |inner| inner.data(&owner))
    }

    fn buckets(&self, owner: &Owner, from: Option<Bucket>, limit: usize) -> Answer<Vec<BucketRow>> {
        let owner = owner.clone();
        self.call("buckets", move |inner| inner.buckets(&owner, from, limit))
    }

    fn rows(&self, owner: &Owner, bucket: Bucket, slice: Slice) -> Answer<Vec<Found>> {
        let owner = owner.clone();
        self.call("rows", move |inner| inner.rows(&owner, bucket, slice))
    }

    fn rows_at(&self, owner: &Owner, bucket: Bucket, positions: Vec<Position>) -> Answer<Vec<Found>> {
        let owner = owner.clone();
        self.call("rows at", move |inner| inner.rows_at(&owner, bucket, positions))
    }

    fn peers(
        &self,
        owner: &Owner,
        peer: &BareJid,
        volume: Volume,
        slice: Slice,
    ) -> Answer<Vec<(Position, Bucket)>> {
        let (owner, peer) = (owner.clone(), peer.clone());
        self.call("peers", move |inner| inner.peers(&owner, &peer, volume, slice))
    }

    fn names(&self, domain: &str, slice: u16, after: Option<&str>, limit: usize) -> Answer<Vec<String>> {
        let (domain, after) = (domain.to_owned(), after.map(str::to_owned));
        self.call("names", move |inner| inner.names(&domain, slice, after.as_deref(), limit))
    }

    fn purges(&self, day: u32, slice: u16, after: Option<&Owner>, limit: usize) -> Answer<Vec<PurgeRow>> {
        let after = after.cloned();
        self.call("purges", move |inner| inner.purges(day, slice, after.as_ref(), limit))
    }

    fn account(&self, jid: &BareJid, level: Level) -> Answer<Option<AccountRow>> {
        let jid = jid.clone();
        self.call("account", move |inner| inner.account(&jid, level))
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow) -> Answer<bool> {
        let jid = jid.clone();
        self.call("create account", move |inner| inner.create_account(&jid, row))
    }

    fn set_credentials(&self, owner: &Owner, before: Credentials, after: Credentials) -> Answer<bool> {
        let owner = owner.clone();
        self.call("set credentials", move |inner| inner.set_credentials(&owner, before, after))
    }

    fn delete_account(&self, owner: &Owner) -> Answer<bool> {
        let owner = owner.clone();
        self.call("delete account", move |inner| inner.delete_account(&owner))
    }

    fn setting(&self, name: &str, level: Level) -> Answer<Option<Bytes>> {
        let name = name.to_owned();
        self.call("setting", move |inner| inner.setting(&name, level))
    }

    fn create_setting(&self, name: &str, value: Bytes) -> Answer<bool> {
        let name = name.to_owned();
        self.call("create setting", move |inner| inner.create_setting(&name, value))
    }

    fn reign(&self) -> Answer<Option<ReignRow>> {
        self.call("reign", Cql::reign)
    }

    fn set_reign(&self, before: Option<(u64, u64)>, after: ReignRow) -> Answer<bool> {
        self.call("set reign", move |inner| inner.set_reign(before, after))
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(time)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }
}

struct Bench {
    world: World,
    model: Model,
    store: Arc<ScyllaStore<Slow>>,
    calls: Arc<Mutex<Vec<String>>>,
    late: Arc<Mutex<Late>>,
    next: Position,
    reign: Reign,
}

/// The statements of a call in order of their names, and how many of them were one behind the other.
#[derive(Debug, PartialEq)]
struct Cost(Vec<String>, u64);

fn cost<const N: usize>(names: [&str; N], rounds: u64) -> Cost {
    Cost(names.map(str::to_owned).into(), rounds)
}

fn alice() -> BareJid {
    jid("alice@example.org")
}

fn peer(n: u64) -> BareJid {
    jid(&format!("peer{n}@example.org"))
}

impl Bench {
    fn new() -> Self {
        let world = World::new(1);
        let model = Model::seeded(&world, Self::clock(&world));
        let late = Arc::<Mutex<Late>>::default();
        let (store, calls) = Self::open(&world, &model, &late, 1_024);
        let reign = Reign { epoch: 0, floor: Position(0) };
        let mut bench = Self { world, model, store, calls, late, next: Position(EPOCH), reign };
        bench.reign();
        let create = bench.store.create_account(&alice(), account(7, "p"), bench.reign);
        assert_eq!(bench.costs(create).1.1, 3, "look, claim and name, make");
        bench
    }

    fn clock(world: &World) -> Now {
        let world = world.clone();
        Arc::new(move || Timestamp(EPOCH + u64::try_from(world.now().as_micros()).unwrap()))
    }

    fn open(
        world: &World,
        model: &Model,
        late: &Arc<Mutex<Late>>,
        in_flight: usize,
    ) -> (Arc<ScyllaStore<Slow>>, Arc<Mutex<Vec<String>>>) {
        let process = world.process();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let inner = Arc::new(model.connect(&process));
        let slow = Slow { inner, process, calls: Arc::clone(&calls), late: Arc::clone(late) };
        let (read_deadline, commit_deadline) = (Duration::from_secs(60), Duration::from_secs(10));
        let settings = Settings { read_deadline, commit_deadline, in_flight, ..Settings::default() };
        (Arc::new(ScyllaStore::open(Arc::new(slow), settings, Self::clock(world))), calls)
    }

    /// Begins another process with another reign.
    fn again(&mut self) {
        (self.store, self.calls) = Self::open(&self.world, &self.model, &self.late, 1_024);
        self.reign();
    }

    fn reign(&mut self) {
        let reign = self.store.open_reign(claim(1));
        self.reign = self.costs(reign).0.unwrap();
        let ceiling = Position(self.next.0 + 10_000_000_000);
        let grant = self.store.grant(self.reign.epoch, ceiling);
        assert_eq!(self.costs(grant).1, cost(["set reign"], 1));
        self.next = self.next.max(self.reign.floor);
    }

    fn position(&mut self) -> Position {
        self.next.0 += 1;
        self.next
    }

    fn costs<T: Send + 'static>(&self, call: BoxFuture<'static, T>) -> (T, Cost) {
        let begun = self.world.now();
        let result = self.world.run(call).expect("it ends");
        let rounds = (self.world.now() - begun).as_millis() as u64 / 999;
        let mut calls = std::mem::take(&mut *self.calls.lock());
        calls.sort_unstable();
        (result, Cost(calls, rounds))
    }

    fn commit(&mut self, writes: Vec<Write>) -> Cost {
        let at = self.position();
        let (result, cost) = self.costs(self.store.commit(Batch::under(self.reign.epoch, at, writes)));
        result.unwrap();
        cost
    }

    fn message(&mut self, with: &BareJid) -> Write {
        append(LogRow { offline: false, ..row(&alice(), self.position(), with) })
    }

    fn load(&mut self) -> Cost {
        let reign = Reign { floor: self.position(), ..self.reign };
        let (state, cost) = self.costs(self.store.load(&alice(), reign));
        state.unwrap().unwrap();
        cost
    }

    fn page(&self, filter: LogFilter, page: Page) -> (Vec<LogRow>, Cost) {
        let (page, cost) = self.costs(self.store.log_page(&alice(), filter, page));
        (page.unwrap().rows, cost)
    }

    /// From now on calls of this name are late.
    fn delay(&self, name: Option<&'static str>) {
        self.late.lock().name = name;
    }

    /// What was late is carried out.
    fn arrive(&self) {
        let kept = std::mem::take(&mut self.late.lock().kept);
        self.world.run(futures::future::join_all(kept)).expect("it is done");
    }

    /// So many messages with ten peers.
    fn fill(&mut self, messages: u64) -> Vec<Position> {
        let mut positions = Vec::new();
        for n in 0..messages / 250 {
            let writes: Vec<_> = (0..250).map(|m| self.message(&peer((n * 250 + m) % 10))).collect();
            positions.extend(writes.iter().map(|write| match write {
                Write::Append(row) => row.position,
                _ => Position(0),
            }));
            self.commit(writes);
        }
        positions
    }
}

#[test]
fn a_message_is_two_writes_and_waits_for_nothing() {
    let mut bench = Bench::new();
    let first = bench.message(&peer(1));
    assert_eq!(bench.commit(vec![first]), cost(["write buckets", "write log", "write peer"], 1));
    let next = bench.message(&peer(1));
    assert_eq!(bench.commit(vec![next]), cost(["write log", "write peer"], 1));
    let cursor = Write::Cursor(alice(), Cursor { through: bench.next, above: vec![] });
    assert_eq!(bench.commit(vec![cursor]), cost(["write data"], 1));
    bench.again();
    let loaded = bench.load();
    assert!(loaded.1 <= 7 && loaded.0.len() <= 14, "{loaded:?}");
    let data = loaded.0.iter().filter(|name| *name == "write data").count();
    assert_eq!(data, 3, "the claim, that it begins, and the marks with the cursor: {loaded:?}");
    let after = bench.message(&peer(1));
    assert_eq!(bench.commit(vec![after]), cost(["write log", "write peer"], 1), "the first one of a reign");
    let again = bench.load();
    assert_eq!(again, cost(["account", "buckets", "data", "rows"], 3), "loaded again within the reign");
}

#[test]
fn a_roster_change_is_one_write_after_the_first_of_a_reign() {
    let mut bench = Bench::new();
    let change =
        |n| vec![Write::RosterItem(alice(), Box::new(RosterItem { version: n, ..RosterItem::new(peer(n)) }))];
    assert_eq!(bench.commit(change(1)), cost(["data", "write data", "write data"], 3));
    assert_eq!(bench.commit(change(2)), cost(["write data"], 1));
}

#[test]
fn a_page_is_one_read_or_two_at_any_size() {
    let mut bench = Bench::new();
    for messages in [1_000, 20_000] {
        let positions = bench.fill(messages);
        for at in [0, 1, 400, 1, positions.len() - 60, positions.len() - 1] {
            let middle = positions[at];
            let below = LogFilter { below: Some(middle), archived: true, ..LogFilter::default() };
            let above = LogFilter { above: Some(middle), archived: true, ..LogFilter::default() };
            for (filter, page) in [(below, Page::Last(50)), (above, Page::First(50))] {
                let (_, cost) = bench.page(filter.clone(), page);
                assert!(cost.1 <= 2 && cost.0.len() <= 3, "{messages}: {filter:?} {cost:?}");
                let (_, cost) = bench.page(LogFilter { with: Some(peer(3)), ..filter }, page);
                assert!(cost.1 <= 2 && cost.0.len() <= 4, "{messages} by peer: {cost:?}");
            }
        }
        let (rows, cost) = bench.page(LogFilter::default(), Page::Last(50));
        assert_eq!((rows.len(), cost.1), (50, 1));
        let (rows, cost) =
            bench.page(LogFilter { with: Some(peer(99)), ..LogFilter::default() }, Page::Last(50));
        assert_eq!((rows.len(), cost.1), (0, 1), "nobody");
    }
    // The newest bucket holds a few rows only: what is missing is read beside it.
    bench.fill(4_000);
    let some: Vec<_> = (0..4).map(|_| bench.message(&peer(1))).collect();
    let newest = bench.commit(some);
    assert_eq!(newest.1, 1);
    let (rows, spent) = bench.page(LogFilter::default(), Page::Last(50));
    assert_eq!((rows.len(), spent), (50, cost(["rows", "rows"], 1)));
    bench.again();
    let (rows, spent) = bench.page(LogFilter::default(), Page::First(50));
    assert_eq!((rows.len(), spent.1), (50, 3), "of an account that was not loaded: who, where, what");
    bench.load();
    let (rows, spent) = bench.page(LogFilter::default(), Page::First(50));
    assert_eq!((rows.len(), spent), (50, cost(["rows"], 1)));
}

#[test]
fn a_search_that_takes_long_comes_forward() {
    let mut bench = Bench::new();
    let positions = bench.fill(100_000);
    let last = LogRow { offline: true, ..row(&alice(), bench.position(), &peer(1)) };
    bench.commit(vec![append(last.clone())]);
    let mut filter = LogFilter { offline: true, ..LogFilter::default() };
    let mut found = Vec::new();
    for _ in 0..20 {
        let begun = bench.world.now();
        let page = bench.store.log_page(&alice(), filter.clone(), Page::First(50));
        let page = bench.costs(page).0.unwrap();
        assert!(bench.world.now() - begun < Duration::from_secs(60));
        found.extend(page.rows);
        let Some(reached) = page.reached else {
            assert!(page.complete);
            assert_eq!(found, [last]);
            return;
        };
        assert!(!page.complete && filter.above.is_none_or(|above| above < reached), "it goes on");
        assert!(positions.contains(&reached));
        filter.above = Some(reached);
    }
    panic!("without end");
}

#[test]
fn the_lease_is_renewed_past_all_that_waits() {
    let mut bench = Bench::new();
    (bench.store, bench.calls) = Bench::open(&bench.world, &bench.model, &bench.late, 1);
    bench.reign();
    bench.load();
    // After a grant without an answer nobody knows what the row is, until it is read.
    bench.delay(Some("set reign"));
    let ceiling = Position(bench.next.0 + 20_000_000_000);
    let grant = bench.store.grant(bench.reign.epoch, ceiling);
    assert!(bench.costs(grant).0.is_err());
    bench.delay(Some("write log"));
    let message = bench.message(&peer(1));
    let at = bench.position();
    let commit = bench.store.commit(Batch::under(bench.reign.epoch, at, vec![message]));
    bench.world.run_until(bench.world.now() + Duration::from_secs(1));
    bench.calls.lock().clear();
    let grant = bench.store.grant(bench.reign.epoch, ceiling);
    let (granted, cost) = bench.costs(grant);
    granted.unwrap();
    assert_eq!(cost.1, 2, "read and changed, though the only place is taken: {cost:?}");
    assert!(bench.costs(commit).0.is_err());
}

#[test]
fn a_removal_in_doubt_is_ended_by_the_next_load() {
    for again in [false, true] {
        let mut bench = Bench::new();
        let message = bench.message(&peer(1));
        bench.commit(vec![message]);
        bench.delay(Some("delete account"));
        let at = bench.position();
        let removed =
            bench.store.commit(Batch::under(bench.reign.epoch, at, vec![Write::DeleteAccount(alice())]));
        assert!(matches!(bench.costs(removed).0, Err(StoreError::Unavailable(_))));
        bench.delay(None);
        if again {
            bench.again();
        }
        let reign = Reign { floor: bench.position(), ..bench.reign };
        let loaded = bench.costs(bench.store.load(&alice(), reign)).0.unwrap();
        assert!(loaded.is_none(), "it takes place now, or at any time");
        bench.arrive();
        let made = bench.store.create_account(&alice(), account(8, "p"), bench.reign);
        bench.costs(made).0.unwrap();
        bench.arrive();
        assert!(bench.costs(bench.store.account(&alice())).0.unwrap().is_some());
    }
}

#[test]
fn a_removal_that_was_not_begun_does_not_take_place() {
    let mut bench = Bench::new();
    bench.delay(Some("write data"));
    let at = bench.position();
    let removed =
        bench.store.commit(Batch::under(bench.reign.epoch, at, vec![Write::DeleteAccount(alice())]));
    assert!(matches!(bench.costs(removed).0, Err(StoreError::Unavailable(_))));
    bench.delay(None);
    bench.load();
    bench.arrive();
    for _ in 0..2 {
        bench.again();
        bench.load();
    }
}

#[test]
fn the_note_of_a_removal_is_above_what_closed_the_account() {
    // A load that closes again has a floor of its own, which may be higher than the position that the home gives next.
    let closed_above = |bench: &mut Bench, by: u64| {
        bench.again();
        let reign = Reign { floor: Position(bench.next.0 + by), ..bench.reign };
        bench.costs(bench.store.load(&alice(), reign)).0.unwrap().unwrap();
    };
    let remove = |bench: &mut Bench, late| {
        bench.delay(Some(late));
        let at = bench.position();
        let removed =
            bench.store.commit(Batch::under(bench.reign.epoch, at, vec![Write::DeleteAccount(alice())]));
        assert!(matches!(bench.costs(removed).0, Err(StoreError::Unavailable(_))));
        bench.delay(None);
    };
    for above in [1, 2, 1_000] {
        let mut bench = Bench::new();
        closed_above(&mut bench, above);
        remove(&mut bench, "delete account");
        bench.again();
        let loaded = bench.costs(bench.store.load(&alice(), bench.reign)).0.unwrap();
        assert!(loaded.is_none(), "closed {above} above: it takes place now, or at any time");

        let mut bench = Bench::new();
        closed_above(&mut bench, above);
        remove(&mut bench, "write data");
        bench.load();
        bench.arrive();
        bench.again();
        bench.load();
    }
}

#[test]
fn nothing_is_written_below_a_closing_that_had_no_answer() {
    for above in [1, 2, 1_000] {
        let mut bench = Bench::new();
        bench.load();
        let bob = peer(1);
        bench.commit(vec![Write::RosterItem(alice(), Box::new(RosterItem::new(bob.clone())))]);
        bench.again();
        let floor = Position(bench.next.0 + above);
        let load = bench.store.load(&alice(), Reign { floor, ..bench.reign });
        let late = Arc::clone(&bench.late);
        // All but the marks are there by then.
        let marks = Duration::from_millis(5 * 999 + 500);
        bench.world.after(marks, move || late.lock().name = Some("write data"));
        assert!(bench.costs(load).0.is_err());
        bench.delay(None);
        bench.arrive();
        // They are there, too: the next load has nothing to close.
        let (state, Cost(calls, _)) = bench.costs(bench.store.load(&alice(), bench.reign));
        assert!(state.unwrap().is_some());
        assert!(!calls.iter().any(|call| call.starts_with("write")), "{calls:?}");
        let mut refused = 0;
        let sent = loop {
            let at = bench.position();
            let item = Write::RosterItem(alice(), Box::new(RosterItem::new(peer(2))));
            let writes = vec![append(LogRow { offline: false, ..row(&alice(), at, &bob) }), item];
            match bench.costs(bench.store.commit(Batch::under(bench.reign.epoch, at, writes))).0 {
                Ok(()) => break at,
                Err(StoreError::Overloaded) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!((refused, bench.model.torn()), (above, 0));
        bench.again();
        bench.load();
        let (rows, _) = bench.page(LogFilter::default(), Page::First(10));
        assert_eq!(rows.iter().map(|row| row.position).collect::<Vec<_>>(), [sent]);
    }
}

#[test]
fn an_account_that_is_made_late_is_no_conflict() {
    let bench = Bench::new();
    bench.delay(Some("create account"));
    let bob = jid("bob@example.org");
    let made = bench.store.create_account(&bob, account(9, "p"), bench.reign);
    let late = Arc::clone(&bench.late);
    let (world, kept) = (bench.world.clone(), Arc::clone(&bench.late));
    bench.world.after(Duration::from_millis(5_030), move || {
        late.lock().name = None;
        let kept = std::mem::take(&mut kept.lock().kept);
        world.process().spawn(futures::future::join_all(kept).map(drop).boxed());
    });
    assert!(bench.costs(made).0.is_ok(), "it is ours");
}
