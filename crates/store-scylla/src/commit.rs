//! Carrying out what lanes decide.

use crate::cql::Cql;
use crate::joint::Joint;
use crate::lane::{Commit, Flight, Job, Step, Writes};
use crate::load::not_begun;
use crate::owners::Account;
use crate::retry::Outcome;
use crate::settings::Settings;
use crate::store::Inner;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use starling_store::{Accounts, Batch, Position, Reign, Result, StoreError, Write};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many accounts are looked at in one go when a reign is over.
const LEFT_AT_ONCE: usize = 1_000;

/// A part of a batch: writes of one account that can be made side by side, or one that cannot.
enum Part {
    Writes(Writes),
    Whole(Write),
}

impl<C: Cql> Inner<C> {
    /// Begins a commit: everything of it that is in the order of the calls happens here.
    pub(crate) fn commit(self: &Arc<Self>, batch: Batch) -> BoxFuture<'static, Result<()>> {
        if batch.writes.is_empty() {
            return ready(Ok(())).boxed();
        }
        if self.fenced.load(Ordering::Relaxed) {
            return ready(Err(StoreError::Fenced)).boxed();
        }
        if self.is_full() {
            self.calls.settings.metrics.store_dropped.inc();
            for write in &batch.writes {
                self.owners.account(write.owner()).lane.lock().turns_away(batch.at);
            }
            return ready(Err(StoreError::Overloaded)).boxed();
        }
        let Batch { at, writes, traces, epoch, open } = batch;
        let parts = parts(writes, &self.calls.settings);
        let accounts: Vec<_> = parts.keys().map(|jid| self.owners.account(jid)).collect();
        let count = parts.values().map(Vec::len).sum();
        let (joint, answered) = Joint::new(count, accounts.clone());
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        for (account, parts) in accounts.iter().zip(parts.into_values()) {
            let before = account.lane.lock().newest();
            for (Turns { at, more }, part) in turns(parts.len(), before, at).zip(parts) {
                let joint = Arc::clone(&joint);
                let job = match part {
                    Part::Writes(writes) => {
                        let traces = traces.clone();
                        Job::Commit(Commit { at, open, epoch, writes, more, traces, until, joint })
                    }
                    Part::Whole(write) => self.whole(account, (epoch, at), write, until, joint),
                };
                self.enqueue(account, job);
            }
            self.pump(account);
        }
        answered
            .map(|answer| {
                answer.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is closed".to_owned())))
            })
            .boxed()
    }

    fn whole(
        self: &Arc<Self>,
        account: &Arc<Account>,
        (epoch, at): (u64, Position),
        write: Write,
        until: Duration,
        joint: Arc<Joint>,
    ) -> Job {
        let (inner, account) = (Arc::clone(self), Arc::clone(account));
        Job::Alone(Box::new(move || {
            async move {
                let refused = account.lane.lock().refuses(epoch);
                if let Some(error) = refused {
                    return joint.end(Outcome::Nothing(error));
                }
                let outcome = match write {
                    Write::Credentials(_, credentials) => {
                        inner.set_credentials(&account, *credentials, until).await
                    }
                    _ => inner.delete_account(&account, epoch, at, until).await,
                };
                if matches!(outcome, Outcome::Doubt(_)) {
                    account.lane.lock().doubt();
                }
                joint.end(outcome);
            }
            .boxed()
        }))
    }

    /// Runs something on an account with nothing beside it, in its turn.
    pub(crate) fn alone<T: Send + 'static>(
        self: &Arc<Self>,
        account: &Arc<Account>,
        task: BoxFuture<'static, Result<T>>,
    ) -> BoxFuture<'static, Result<T>> {
        if self.is_full() {
            self.calls.settings.metrics.store_dropped.inc();
            return ready(Err(StoreError::Overloaded)).boxed();
        }
        let (answer, answered) = futures::channel::oneshot::channel();
        let job = Job::Alone(Box::new(move || task.map(move |result| drop(answer.send(result))).boxed()));
        self.enqueue(account, job);
        self.pump(account);
        answered
            .map(|answer| {
                answer.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is closed".to_owned())))
            })
            .boxed()
    }

    fn enqueue(&self, account: &Account, job: Job) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        account.lane.lock().push(job);
    }

    fn is_full(&self) -> bool {
        self.calls.gate.is_full() || self.queued.load(Ordering::Relaxed) >= self.calls.settings.waiting
    }

    /// Starts all that may start.
    pub(crate) fn pump(self: &Arc<Self>, account: &Arc<Account>) {
        loop {
            let step = {
                let mut lane = account.lane.lock();
                lane.step(self.calls.cql.monotonic(), (self.now)(), &self.calls.settings)
            };
            match step {
                Step::Rest => return,
                Step::Tell(joint, outcome) => {
                    self.dequeued();
                    joint.end(outcome);
                }
                Step::Fly(flight) => {
                    flight.joints.iter().for_each(|_| self.dequeued());
                    let turn = Turn { inner: Arc::clone(self), account: Arc::clone(account), ended: false };
                    self.calls.cql.spawn(turn.fly(*flight).boxed());
                }
                Step::Alone(alone) => {
                    self.dequeued();
                    return self.run(account, alone());
                }
                Step::Open => {
                    let (inner, of) = (Arc::clone(self), Arc::clone(account));
                    return self.run(account, async move { inner.open(&of).await }.boxed());
                }
                Step::Mark => {
                    let (inner, of) = (Arc::clone(self), Arc::clone(account));
                    return self.run(account, async move { inner.mark(&of).await }.boxed());
                }
            }
        }
    }

    /// Runs what has the account to itself.
    fn run(self: &Arc<Self>, account: &Arc<Account>, task: BoxFuture<'static, ()>) {
        let turn = Turn { inner: Arc::clone(self), account: Arc::clone(account), ended: false };
        self.calls.cql.spawn(
            async move {
                task.await;
                turn.account.lane.lock().ended();
                turn.end();
            }
            .boxed(),
        );
    }

    /// Opens an account for the commits that wait.
    async fn open(&self, account: &Account) {
        // All that this reign has written to the account has ended, and is below what waits.
        let reign = account.lane.lock().reign_of_first();
        match self.load(account, reign.unwrap_or(Reign::NONE)).await {
            Ok(Some(_)) => {}
            Ok(None) => account.lane.lock().absent = true,
            Err(error) => self.fail_first(account, error),
        }
    }

    async fn mark(&self, account: &Account) {
        if let Err(error) = self.mark_data(account).await {
            self.fail_first(account, error);
        }
    }

    fn fail_first(&self, account: &Account, error: StoreError) {
        let failed = account.lane.lock().fail_first(not_begun(error));
        if let Some((joint, outcome)) = failed {
            self.dequeued();
            joint.end(outcome);
        }
    }

    /// A reign is over for these accounts: what is remembered of them is forgotten, a few at a time.
    pub(crate) fn leave(self: &Arc<Self>, epoch: u64, accounts: Accounts) {
        let inner = Arc::clone(self);
        let task = async move {
            for some in inner.owners.all().chunks(LEFT_AT_ONCE) {
                for account in some.iter().filter(|account| accounts(&account.jid)) {
                    account.lane.lock().leave(epoch);
                    inner.owners.weigh(account);
                    inner.pump(account);
                }
                inner.calls.cql.sleep(Duration::from_millis(1)).await;
            }
        };
        self.calls.cql.spawn(task.boxed());
    }

    fn dequeued(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    /// What was under way was dropped or panicked: nothing that waits behind it may go on as if it had ended.
    fn abandon(&self, account: &Account) {
        let jobs = {
            let mut lane = account.lane.lock();
            lane.doubt();
            lane.ended();
            lane.abandon()
        };
        for job in jobs {
            self.dequeued();
            if let Job::Commit(commit) = job {
                let why = "what was written before was broken off".to_owned();
                commit.joint.end(Outcome::Nothing(StoreError::Unavailable(why)));
            }
        }
    }
}

/// Work on an account; when it is dropped before its end the account is in doubt.
struct Turn<C: Cql> {
    inner: Arc<Inner<C>>,
    account: Arc<Account>,
    ended: bool,
}

impl<C: Cql> Turn<C> {
    async fn fly(self, flight: Flight) {
        let Flight { plan, until, joints } = flight;
        let (inner, account) = (&self.inner, &self.account);
        let outcome = inner.calls.write_all(plan.mutations, until).await;
        let mut trims = false;
        {
            let mut lane = account.lane.lock();
            lane.landed(!matches!(outcome, Outcome::Doubt(_)));
            match (&outcome, &mut lane.opened) {
                (Outcome::Written, Some(opened)) => {
                    opened.buckets.confirm(&plan.lists);
                    if let Some(cursor) = plan.cursor {
                        opened.cursor = cursor;
                    }
                    trims = plan.opens;
                }
                (Outcome::Doubt(_), _) => lane.doubt(),
                (Outcome::Nothing(_), _) => lane.leaves_out(),
                (Outcome::Written, None) => {}
            }
        }
        for joint in joints {
            joint.end(outcome.clone());
        }
        if trims {
            inner.trim(account, plan.at);
        }
        self.end();
    }

    fn end(mut self) {
        self.ended = true;
        self.inner.owners.weigh(&self.account);
        self.inner.pump(&self.account);
    }
}

impl<C: Cql> Drop for Turn<C> {
    fn drop(&mut self) {
        if !self.ended {
            self.inner.abandon(&self.account);
        }
    }
}

/// When a part of a batch takes its turn.
struct Turns {
    at: Position,
    /// Other parts follow.
    more: bool,
}

/// The timestamps of so many parts of a batch, rising up to that of the batch: two writes of one row must never have the
/// same, for the server would keep the larger one. Between `before`, the last one that the account was given, and the batch
/// there is room for them, since each row in it has a position of its own. Rows that were decided long before may not
/// have any; then it is the lowest there is, which is as good where no two parts change the same row.
fn turns(parts: usize, before: Position, at: Position) -> impl Iterator<Item = Turns> {
    (0..parts).rev().map(move |left| {
        let below = Position(at.0.saturating_sub(left as u64));
        Turns { at: below.max(Position(before.0.saturating_add(1))).min(at), more: left > 0 }
    })
}

/// The writes of a batch by account, in order, in parts that can be written at once.
fn parts(writes: Vec<Write>, settings: &Settings) -> BTreeMap<BareJid, Vec<Part>> {
    let mut accounts: BTreeMap<BareJid, Vec<Part>> = BTreeMap::new();
    for write in writes {
        if !accounts.contains_key(write.owner()) {
            accounts.insert(write.owner().clone(), Vec::new());
        }
        let Some(parts) = accounts.get_mut(write.owner()) else { continue };
        if matches!(write, Write::Credentials(..) | Write::DeleteAccount(_)) {
            parts.push(Part::Whole(write));
            continue;
        }
        let left = match parts.last_mut() {
            Some(Part::Writes(writes)) => writes.take(write, settings),
            _ => Some(write),
        };
        if let Some(write) = left {
            // What is not a row stands in one part: one mutation for all of it.
            let mut writes = match parts.last_mut() {
                Some(Part::Writes(before)) => before.split_off_data(),
                _ => Writes::default(),
            };
            writes.take(write, settings);
            parts.push(Part::Writes(writes));
        }
    }
    accounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::{Change, DataKind, Mutation, Owner, Partition};
    use crate::lane::Lane;
    use crate::log::{Opened, Plan};
    use bytes::Bytes;
    use starling_store::testing::{append, at, jid, row};
    use starling_store::{Cursor, DocKind, RosterItem};
    use starling_xmpp::Timestamp;

    /// A number below `below`, from a seed.
    fn roll(seed: &mut u64, below: u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) % below
    }

    /// Commits of one account as they come, and what is written for them.
    struct Shuttle {
        lane: Lane,
        settings: Settings,
        written: Vec<Mutation>,
        flights: Vec<Position>,
        aloft: Option<Plan>,
    }

    impl Shuttle {
        fn commit(&mut self, at: Position, list: Vec<Write>) {
            let parts = parts(list, &self.settings).into_values().next().unwrap();
            let (joint, _) = Joint::new(parts.len(), Vec::new());
            for (Turns { at, more }, part) in turns(parts.len(), self.lane.newest(), at).zip(parts) {
                let (joint, until) = (Arc::clone(&joint), Duration::from_secs(5));
                self.lane.push(match part {
                    Part::Writes(writes) => {
                        let (epoch, traces) = (0, Vec::new());
                        Job::Commit(Commit { at, open: None, epoch, writes, more, traces, until, joint })
                    }
                    Part::Whole(_) => Job::Alone(Box::new(|| ready(()).boxed())),
                });
            }
        }

        fn step(&mut self) -> bool {
            match self.lane.step(Duration::ZERO, Timestamp(0), &self.settings) {
                Step::Fly(flight) => {
                    self.flights.push(flight.plan.at);
                    self.written.extend(flight.plan.mutations.iter().cloned());
                    self.aloft = Some(flight.plan);
                }
                Step::Alone(_) => self.lane.ended(),
                Step::Rest => return false,
                _ => panic!("nothing else is to be done"),
            }
            true
        }

        fn land(&mut self, confirmed: bool) -> bool {
            let Some(plan) = self.aloft.take() else { return false };
            self.lane.landed(true);
            if confirmed && let Some(opened) = &mut self.lane.opened {
                opened.buckets.confirm(&plan.lists);
            }
            true
        }
    }

    /// Which row a change writes or removes.
    fn place(change: &Change) -> (DataKind, String) {
        match change {
            Change::PutData(row) => (row.kind, row.name.clone()),
            Change::DropData(kind, name) => (*kind, name.clone()),
            Change::PutBucket(row) => (DataKind::Mark, row.bucket.0.0.to_string()),
            Change::PutRow(stored, _) => (DataKind::Mark, stored.row.position.0.to_string()),
            Change::PutPeer(position, ..) => (DataKind::Mark, position.0.to_string()),
            other => panic!("no commit makes it: {other:?}"),
        }
    }

    fn write(seed: &mut u64, number: u64, kinds: u64) -> Write {
        let alice = jid("a@x.org");
        let contact = jid(&format!("c{}@x.org", roll(seed, 3)));
        match roll(seed, kinds) {
            0 => Write::Doc(alice, DocKind::BlockList, number.to_string().into()),
            1 | 2 => {
                let item = RosterItem { version: number, ..RosterItem::new(contact) };
                Write::RosterItem(alice, Box::new(item))
            }
            3 => Write::RosterRemove(alice, contact, number),
            4 => Write::Cursor(alice, Cursor { through: Position(number), above: vec![] }),
            11 => Write::Credentials(alice, Box::new(starling_store::testing::account(1, "p").credentials)),
            _ => append(row(&alice, Position(number), &contact)),
        }
    }

    #[test]
    fn no_row_is_written_twice_under_one_timestamp() {
        // In half of the stories rows were decided long before, so that their batch has no room for several timestamps.
        for (mut seed, tight) in (0..2_000).map(|seed| (seed, seed % 2 == 1)) {
            let mut opened = Opened::new(Owner { jid: jid("a@x.org"), generation: 7 }, 1, Position(5));
            opened.data_marked = true;
            let settings = Settings {
                window: 1 + roll(&mut seed, 4) as usize,
                bucket_rows: 1 + roll(&mut seed, 4) as u32,
                ..Settings::default()
            };
            let mut lane = Lane::default();
            lane.settle(Some(opened));
            let (written, flights) = (Vec::new(), Vec::new());
            let mut shuttle = Shuttle { lane, settings, written, flights, aloft: None };
            let (mut next, mut last) = (5, 5);
            for _ in 0..12 {
                match roll(&mut seed, 4) {
                    0 => drop(shuttle.step()),
                    1 => drop(shuttle.land(roll(&mut seed, 2) == 0)),
                    _ => {
                        // As a home does it: each write has a position of its own, without gaps when it is busy.
                        let list = (0..1 + roll(&mut seed, 8)).map(|_| {
                            next += 1;
                            write(&mut seed, next, if tight { 11 } else { 12 })
                        });
                        let list = list.collect();
                        last = if tight { last + 1 } else { next };
                        shuttle.commit(Position(last), list);
                    }
                }
            }
            while shuttle.step() || shuttle.land(true) {}
            let rises = |one: &Position, other: &Position| one < other || (tight && one == other);
            assert!(shuttle.flights.is_sorted_by(rises), "{:?}", shuttle.flights);
            let mut rows = BTreeMap::new();
            for Mutation { partition, at, changes, .. } in &shuttle.written {
                // The listing of a bucket may then be written twice: of two the larger one is the later one.
                for change in changes.iter().filter(|_| !tight || !matches!(partition, Partition::Buckets(_)))
                {
                    let before = rows.insert((partition.clone(), place(change), *at), change.clone());
                    assert!(before.is_none_or(|before| before == *change), "{change:?} twice at {at:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_row_stands_in_one_part_in_its_order() {
        let (alice, bob) = (jid("a@x.org"), jid("b@x.org"));
        let doc = |text: &'static str| Write::Doc(alice.clone(), DocKind::BlockList, Bytes::from(text));
        let message = |n| append(row(&alice, at(n), &bob));
        let writes = vec![message(1), doc("1"), message(2), message(3), doc("2"), message(4), doc("3")];
        let settings = Settings { window: 2, ..Settings::default() };
        let parts = parts(writes, &settings).remove(&alice).unwrap();
        let parts: Vec<Vec<Write>> = parts
            .into_iter()
            .map(|part| match part {
                Part::Writes(writes) => writes.list,
                Part::Whole(_) => panic!("nothing is whole"),
            })
            .collect();
        let docs: Vec<Vec<Bytes>> = parts
            .iter()
            .map(|part| {
                let docs = part.iter().filter_map(|write| match write {
                    Write::Doc(_, _, body) => Some(body.clone()),
                    _ => None,
                });
                docs.collect()
            })
            .collect();
        assert_eq!(docs, [vec![], vec![Bytes::from("1"), Bytes::from("2"), Bytes::from("3")]]);
        let rows = |part: &Vec<Write>| part.iter().filter(|write| matches!(write, Write::Append(_))).count();
        assert_eq!(parts.iter().map(rows).collect::<Vec<_>>(), [2, 2]);
    }
}
