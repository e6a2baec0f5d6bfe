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
use starling_store::{Batch, Position, Reign, Result, StoreError, Write};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
            return ready(Err(StoreError::Overloaded)).boxed();
        }
        let Batch { at, writes, traces } = batch;
        let trace = traces.first().copied();
        let parts = parts(writes, &self.calls.settings);
        let accounts: Vec<_> = parts.keys().map(|jid| self.owners.account(jid)).collect();
        let count = parts.values().map(Vec::len).sum();
        let (joint, answered) = Joint::new(count, accounts.clone());
        let until = self.calls.deadline(self.calls.settings.commit_deadline);
        for (account, parts) in accounts.iter().zip(parts.into_values()) {
            let last = parts.len().saturating_sub(1);
            for (n, part) in parts.into_iter().enumerate() {
                let job = match part {
                    Part::Writes(writes) => {
                        // What flies with an earlier part of this batch must not get the timestamp of the last.
                        let at = if n == last { at } else { writes.newest_row().unwrap_or(at).min(at) };
                        Job::Commit(Commit { at, writes, trace, until, joint: Arc::clone(&joint) })
                    }
                    Part::Whole(write) => self.whole(account, at, write, until, Arc::clone(&joint)),
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
        at: Position,
        write: Write,
        until: Duration,
        joint: Arc<Joint>,
    ) -> Job {
        let (inner, account) = (Arc::clone(self), Arc::clone(account));
        Job::Alone(Box::new(move || {
            async move {
                if account.lane.lock().is_uncertain() {
                    let why = "what was written before is in doubt".to_owned();
                    return joint.end(Outcome::Nothing(StoreError::Unavailable(why)));
                }
                let outcome = match write {
                    Write::Credentials(_, credentials) => {
                        inner.set_credentials(&account, *credentials, until).await
                    }
                    _ => inner.delete_account(&account, at, until).await,
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
        let mut reign = self.reign.lock().unwrap_or(Reign { epoch: 0, floor: Position(0) });
        // All that this reign has written to the account has ended, and is below what waits.
        if let Some(floor) = account.lane.lock().below_first() {
            reign.floor = reign.floor.max(floor);
        }
        match self.load(account, reign).await {
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
            lane.landed();
            match (&outcome, &mut lane.opened) {
                (Outcome::Written, Some(opened)) => {
                    opened.buckets.confirm(&plan.lists);
                    if let Some(cursor) = plan.cursor {
                        opened.cursor = cursor;
                    }
                    trims = plan.opens;
                }
                (Outcome::Doubt(_), _) => lane.doubt(),
                _ => {}
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
            // All parts have one timestamp: what is not a row may stand in one of them only, or the later of two changes to
            // one place might lose.
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
    use bytes::Bytes;
    use starling_store::DocKind;
    use starling_store::testing::{append, at, jid, row};

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
