//! A reign that is asleep, or dead, or cut off in the middle of anything, while another one takes over: what the new one
//! finds when it loads an account is what stays, whatever arrives later and whatever the old one still does.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_store::testing::{account, append, claim, jid, row};
use starling_store::{
    AccountState, Batch, DocKind, LogFilter, LogRow, Now, Page, Position, Reign, Result, Roster, RosterItem,
    Store, StoreError, Write,
};
use starling_store_scylla::model::{Connection, Dice, Faults, Model, Process, World};
use starling_store_scylla::{ScyllaStore, Settings};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where the clock of a world begins, in microseconds.
const EPOCH: u64 = 1_700_000_000_000_000;
const SEEDS: u64 = 150;
/// Of the longer stories.
const FEWER: u64 = 50;

/// A process with a store.
#[derive(Clone)]
struct Node {
    process: Process,
    store: Arc<ScyllaStore<Connection>>,
    last: Arc<Mutex<Position>>,
    reign: Arc<Mutex<Option<Reign>>>,
}

/// What an account is.
#[derive(Debug, Clone, Default, PartialEq)]
struct View {
    rows: BTreeMap<Position, LogRow>,
    roster: Roster,
    docs: BTreeMap<DocKind, bytes::Bytes>,
}

fn alice() -> BareJid {
    jid("alice@example.org")
}

fn clock(world: &World) -> Now {
    let world = world.clone();
    Arc::new(move || Timestamp(EPOCH + u64::try_from(world.now().as_micros()).unwrap()))
}

impl Node {
    fn new(world: &World, model: &Model) -> Self {
        let process = world.process();
        let settings = Settings { bucket_rows: 4, volume_buckets: 2, ..Settings::default() };
        let store = ScyllaStore::open(Arc::new(model.connect(&process)), settings, clock(world));
        Self { process, store: Arc::new(store), last: Arc::default(), reign: Arc::default() }
    }

    /// The same process with the reign of a shard, which others have given.
    fn under(&self, reign: Reign) -> Self {
        Self { last: Arc::default(), reign: Arc::new(Mutex::new(Some(reign))), ..self.clone() }
    }

    /// A position of this reign.
    fn position(&self) -> Position {
        let now = EPOCH + u64::try_from(self.process.world().now().as_micros()).unwrap();
        let floor = self.reign.lock().map_or(Position(0), |reign| reign.floor);
        let mut last = self.last.lock();
        *last = Position(now.max(last.0 + 1).max(floor.0 + 1));
        *last
    }

    fn reign_now(&self) -> Reign {
        self.reign.lock().unwrap()
    }

    fn epoch(&self) -> u64 {
        self.reign_now().epoch
    }

    async fn reign(&self, instance: u128) {
        loop {
            match self.store.open_reign(claim(instance)).await {
                Ok(reign) => {
                    *self.reign.lock() = Some(reign);
                    break;
                }
                Err(_) => self.process.sleep(Duration::from_millis(100)).await,
            }
        }
        self.grant().await.expect("it has just begun");
    }

    /// An hour ahead: more than any run takes.
    async fn grant(&self) -> Result<()> {
        let reign = self.reign.lock().unwrap();
        loop {
            let ceiling = Position(self.position().0 + 3_600_000_000);
            match self.store.grant(reign.epoch, ceiling).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Fenced) => return Err(StoreError::Fenced),
                Err(_) => self.process.sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// What a load finds, and the position of the newest row by its account.
    async fn look(&self) -> Result<(View, Position)> {
        let epoch = self.reign.lock().unwrap().epoch;
        let state = loop {
            let reign = Reign { epoch, floor: self.position() };
            match self.store.load(&alice(), reign).await {
                Ok(state) => break state.expect("there is an account"),
                Err(StoreError::Fenced) => return Err(StoreError::Fenced),
                Err(_) => self.process.sleep(Duration::from_millis(100)).await,
            }
        };
        let AccountState { roster, docs, last, .. } = state;
        let rows = self.rows(LogFilter::default()).await;
        Ok((View { rows, roster, docs }, last))
    }

    async fn load(&self) -> View {
        let (view, last) = self.look().await.unwrap();
        assert_eq!(last, view.rows.keys().next_back().copied().unwrap_or_default());
        view
    }

    async fn rows(&self, mut filter: LogFilter) -> BTreeMap<Position, LogRow> {
        let mut rows = BTreeMap::new();
        loop {
            match self.store.log_page(&alice(), filter.clone(), Page::Last(10_000)).await {
                Ok(page) => {
                    rows.extend(page.rows.into_iter().map(|row| (row.position, row)));
                    filter.below = page.reached;
                    if page.complete {
                        return rows;
                    }
                }
                Err(_) => self.process.sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// A few writes of any kind.
fn writes(dice: &mut Dice, node: &Node, version: &mut u64) -> Vec<Write> {
    let peers = ["bob@example.org", "carol@example.org", "dave@example.org"].map(jid);
    let some = dice.within(1..4);
    let mut one = |dice: &mut Dice| match dice.place(6) {
        0 => {
            *version += 1;
            let contact = peers[dice.place(3)].clone();
            let name = Some(version.to_string().into());
            let item = RosterItem { version: *version, name, ..RosterItem::new(contact) };
            Write::RosterItem(alice(), Box::new(item))
        }
        1 => {
            *version += 1;
            Write::RosterRemove(alice(), peers[dice.place(3)].clone(), *version)
        }
        2 => {
            *version += 1;
            let kind = DocKind::ALL[dice.place(2)];
            Write::Doc(alice(), kind, version.to_string().into_bytes().into())
        }
        _ => append(row(&alice(), node.position(), &peers[dice.place(3)])),
    };
    (0..some).map(|_| one(dice)).collect()
}

fn appended(writes: &[Write]) -> impl Iterator<Item = &LogRow> {
    writes.iter().filter_map(|write| match write {
        Write::Append(row) => Some(&**row),
        _ => None,
    })
}

impl View {
    fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::Append(row) => drop(self.rows.insert(row.position, (**row).clone())),
                Write::RosterItem(_, item) => self.roster.put((**item).clone()),
                Write::RosterRemove(_, contact, version) => {
                    self.roster.remove(contact, *version, Write::MAX_REMOVED);
                }
                Write::Doc(_, kind, body) => drop(self.docs.insert(*kind, body.clone())),
                _ => {}
            }
        }
    }
}

/// The rows of each commit, in the order of the calls, and how it ended, once it has.
type Story = Arc<Mutex<Vec<(Vec<LogRow>, Option<bool>)>>>;

/// Works on, whatever happens, until it finds that it was followed.
async fn old_reign(node: Node, mut dice: Dice, mut version: u64, story: Story) {
    let pause = [20, 100, 400, 2_000][dice.place(4)];
    'loads: while node.look().await.is_ok() {
        let mut under_way: Vec<BoxFuture<'static, Result<()>>> = Vec::new();
        for _ in 0..200 {
            node.process.sleep(Duration::from_millis(dice.within(0..pause))).await;
            let writes = writes(&mut dice, &node, &mut version);
            let number = {
                let mut story = story.lock();
                story.push((appended(&writes).cloned().collect(), None));
                story.len() - 1
            };
            let story = Arc::clone(&story);
            let commit = node.store.commit(Batch::under(node.epoch(), node.position(), writes));
            let commit = commit.map(move |outcome| {
                story.lock()[number].1 = Some(outcome.is_ok());
                outcome
            });
            under_way.push(commit.boxed());
            if dice.place(3) == 0 {
                for outcome in futures::future::join_all(under_way.drain(..)).await {
                    match outcome {
                        Err(StoreError::Unavailable(_)) => continue 'loads,
                        Err(StoreError::Fenced) => return,
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Writes, reads and loads, and knows at all times what is there.
async fn new_reign(node: Node, mut dice: Dice, mut version: u64, mut view: View) -> View {
    for _ in 0..40 {
        node.process.sleep(Duration::from_millis(dice.within(0..500))).await;
        match dice.place(5) {
            0 => assert_eq!(node.rows(LogFilter::default()).await, view.rows, "read"),
            1 => {
                let bob = jid("bob@example.org");
                let mut rows = view.rows.clone();
                rows.retain(|_, row| row.with == bob);
                let with = LogFilter { with: Some(bob), ..LogFilter::default() };
                assert_eq!(node.rows(with).await, rows, "read by peer");
            }
            2 => assert_eq!(node.load().await, view, "loaded again"),
            _ => {
                let writes = writes(&mut dice, &node, &mut version);
                match node.store.commit(Batch::under(node.epoch(), node.position(), writes.clone())).await {
                    Ok(()) => view.apply(&writes),
                    Err(StoreError::Overloaded) => {}
                    Err(_) => {
                        let mut most = view.clone();
                        most.apply(&writes);
                        let loaded = node.load().await;
                        assert!(view.rows.iter().all(|row| loaded.rows.get(row.0) == Some(row.1)));
                        assert!(loaded.rows.iter().all(|row| most.rows.get(row.0) == Some(row.1)));
                        assert!(loaded.roster == view.roster || loaded.roster == most.roster);
                        view = loaded;
                    }
                }
            }
        }
    }
    view
}

/// What was confirmed is there, and of the rest a beginning.
fn assert_prefix(
    view: &View,
    counted: &[(Vec<LogRow>, Option<bool>)],
    story: &[(Vec<LogRow>, Option<bool>)],
) {
    for row in counted.iter().filter(|(_, outcome)| *outcome == Some(true)).flat_map(|(rows, _)| rows) {
        assert_eq!(view.rows.get(&row.position), Some(row), "confirmed, and not found");
    }
    let found = |row: &LogRow| view.rows.contains_key(&row.position);
    let missing = story.iter().position(|(rows, outcome)| *outcome != Some(false) && !rows.iter().all(found));
    if let Some(missing) = missing {
        let behind = story[missing..].iter().flat_map(|(rows, _)| rows);
        assert!(!behind.into_iter().any(found), "found, but not what was decided before it");
    }
}

fn story(seed: u64) {
    let world = World::new(seed);
    let model = Model::seeded(&world, clock(&world));
    let mut dice = world.dice();
    let first = Node::new(&world, &model);
    let begun = first.clone();
    world.run(async move {
        begun.reign(1).await;
        begun.store.create_account(&alice(), account(seed + 1, "p"), begun.reign_now()).await.unwrap();
    });
    // Often the first reign finds the account as an earlier one has left it, and has not written to it before.
    let first = if dice.place(2) == 0 {
        let again = Node::new(&world, &model);
        let begun = again.clone();
        world.run(async move { begun.reign(1).await });
        again
    } else {
        first
    };
    model.set_faults(Faults::of(&mut dice));
    let told = Story::default();
    first.process.spawn(old_reign(first.clone(), world.dice(), 0, Arc::clone(&told)).boxed());
    world.run_until(world.now() + Duration::from_millis(dice.within(0..6_000)));
    let wakes = match dice.place(4) {
        0 => {
            first.process.kill();
            None
        }
        // It never knew that it was asleep.
        1 | 2 => {
            first.process.stop();
            Some(Duration::from_millis(dice.within(10_000..16_000)))
        }
        // It is well, and merely could not renew its lease.
        _ => None,
    };
    if let Some(wakes) = wakes {
        let first = first.clone();
        world.after(wakes, move || first.process.go_on());
    }
    let second = Node::new(&world, &model);
    let begun = second.clone();
    let before = Arc::clone(&told);
    let taken = async move {
        // What was confirmed while the lease held: later confirmations do not count.
        let counted = before.lock().clone();
        begun.reign(2).await;
        let view = begun.load().await;
        assert_prefix(&view, &counted, &before.lock());
        view
    };
    let view = world.run(taken).expect("it takes over");
    let wakes = dice.within(0..3_000);
    let old = first.clone();
    world.after(Duration::from_millis(wakes), move || old.process.go_on());
    let dice = world.dice();
    let running = new_reign(second.clone(), dice, 1_000, view);
    let view = world.run(running).expect("it goes on");
    model.set_faults(Faults::NONE);
    world.run_until(world.now() + Duration::from_secs(600));
    first.process.kill();
    let still = second.clone();
    let read =
        world.run(async move { (still.rows(LogFilter::default()).await, still.load().await) }).unwrap();
    assert_eq!(read.0, view.rows, "read in the end");
    assert_eq!(read.1, view, "loaded in the end");
    let third = Node::new(&world, &model);
    let begun = third.clone();
    let last = world.run(async move {
        begun.reign(2).await;
        begun.load().await
    });
    assert_eq!(last.unwrap(), view, "by the next reign");
    second.process.kill();
    third.process.kill();
    world.end();
}

/// A shard with one account goes through the processes of a cluster, and comes back to some. All that reigned before work on,
/// in the same stores, until they find that they were followed.
fn wandering(seed: u64) {
    let world = World::new(seed);
    let model = Model::seeded(&world, clock(&world));
    let mut dice = world.dice();
    let nodes = [0, 1, 2].map(|_| Node::new(&world, &model));
    // As locations give them: each begins above all that the one before can have been granted.
    let reign =
        |number: u64| Reign { epoch: 3 << 40 | number, floor: Position(EPOCH + number * 3_600_000_000) };
    let mut place = 0;
    let mut home = nodes[place].under(reign(0));
    let begun = home.clone();
    let created = world.run(async move {
        begun.store.create_account(&alice(), account(seed + 1, "p"), begun.reign_now()).await
    });
    created.unwrap().unwrap();
    model.set_faults(Faults::of(&mut dice));
    let mut view = View::default();
    let mut asleep: [Duration; 3] = Default::default();
    for number in 1..=4 {
        let told = Story::default();
        let working = old_reign(home.clone(), world.dice(), number * 20_000, Arc::clone(&told));
        home.process.spawn(working.boxed());
        world.run_until(world.now() + Duration::from_millis(dice.within(0..4_000)));
        if dice.place(3) == 0 {
            let nap = Duration::from_millis(dice.within(1_000..16_000));
            home.process.stop();
            asleep[place] = world.now() + nap;
            let wakes = home.process.clone();
            world.after(nap, move || wakes.go_on());
        }
        // One of them is awake, by then.
        let first = asleep.into_iter().min().unwrap_or_default();
        world.run_until(world.now().max(first));
        let awake: Vec<_> = (0..3).filter(|place| asleep[*place] <= world.now()).collect();
        if dice.place(2) == 0 {
            home.store.leave(home.epoch(), Arc::new(|_| true));
        }
        place = awake[dice.place(awake.len())];
        home = nodes[place].under(reign(number));
        let (begun, counted) = (home.clone(), told.lock().clone());
        let found = world.run(async move { begun.load().await }).expect("it takes over");
        assert_prefix(&found, &counted, &told.lock());
        assert!(view.rows.iter().all(|row| found.rows.get(row.0) == Some(row.1)), "seen before");
        let running = new_reign(home.clone(), world.dice(), number * 20_000 + 10_000, found);
        view = world.run(running).expect("it goes on");
    }
    model.set_faults(Faults::NONE);
    world.run_until(world.now() + Duration::from_secs(600));
    let read = world.run(async move { (home.rows(LogFilter::default()).await, home.load().await) }).unwrap();
    assert_eq!(read.0, view.rows, "read in the end");
    assert_eq!(read.1, view, "loaded in the end");
    let last = Node::new(&world, &model).under(reign(5));
    let begun = last.clone();
    assert_eq!(world.run(async move { begun.load().await }).unwrap(), view, "by the next reign");
    assert_eq!(model.torn(), 0, "{:?}", model.tear());
    last.process.kill();
    nodes.iter().for_each(|node| node.process.kill());
    world.end();
}

/// The second reign is put to sleep while it closes, and the first works on. What the third finds stays when the second wakes
/// up and ends what it had begun.
fn asleep_while_it_closes(seed: u64) {
    let world = World::new(seed);
    let model = Model::seeded(&world, clock(&world));
    let mut dice = world.dice();
    let nodes = [0, 1, 2].map(|_| Node::new(&world, &model));
    let reign =
        |number: u64| Reign { epoch: 3 << 40 | number, floor: Position(EPOCH + number * 3_600_000_000) };
    let [first, second, third] = [0, 1, 2].map(|number: u64| nodes[number as usize].under(reign(number)));
    let begun = first.clone();
    let created = world.run(async move {
        begun.store.create_account(&alice(), account(seed + 1, "p"), begun.reign_now()).await
    });
    created.unwrap().unwrap();
    let working = first.clone();
    let mut moments = world.dice();
    first.process.spawn(
        async move {
            loop {
                working.process.sleep(Duration::from_micros(moments.within(0..2_000))).await;
                let row = append(row(&alice(), working.position(), &jid("bob@example.org")));
                let batch = Batch::under(working.epoch(), working.position(), vec![row]);
                working.store.commit(batch).await.unwrap();
            }
        }
        .boxed(),
    );
    world.run_until(world.now() + Duration::from_millis(dice.within(0..30)));
    let closing = second.clone();
    second.process.spawn(async move { drop(closing.look().await) }.boxed());
    world.run_until(world.now() + Duration::from_micros(dice.within(0..10_000)));
    second.process.stop();
    world.run_until(world.now() + Duration::from_millis(dice.within(0..10)));
    if dice.place(2) == 0 {
        first.process.kill();
    }
    let begun = third.clone();
    let found = world.run(async move { begun.load().await }).expect("it takes over");
    second.process.go_on();
    world.run_until(world.now() + Duration::from_secs(10));
    first.process.kill();
    second.process.kill();
    let still = third.clone();
    let read =
        world.run(async move { (still.rows(LogFilter::default()).await, still.load().await) }).unwrap();
    assert_eq!(read.0, found.rows, "read in the end");
    assert_eq!(read.1, found, "loaded in the end");
    assert_eq!(model.torn(), 0, "{:?}", model.tear());
    third.process.kill();
    world.end();
}

fn each_seed(seeds: u64, run: fn(u64)) {
    let first = std::env::var("STARLING_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..seeds, |seed| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "STARLING_SEED={seed}");
    }
}

#[test]
fn what_a_new_reign_finds_stays() {
    each_seed(SEEDS, story);
}

#[test]
fn a_shard_that_wanders_loses_nothing_and_finds_nothing_late() {
    each_seed(FEWER, wandering);
}

#[test]
fn a_reign_that_is_asleep_while_it_closes_deletes_nothing_that_the_next_one_has_found() {
    each_seed(SEEDS, asleep_while_it_closes);
}
