//! Time that jumps from one event to the next, and tasks that run in it, one at a time, in an order of the seed's.
//!
//! Nothing else is needed to run what is written as futures: no thread, no runtime, no clock. The same seed gives the
//! same run.

use super::dice::Dice;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// What is to happen at a moment.
type Event = Box<dyn FnOnce() + Send>;

/// A world of its own. Clones are the same one.
#[derive(Clone)]
pub struct World(Arc<Mutex<Core>>);

/// A process in it: its tasks run until it is killed, and not while it is stopped.
#[derive(Clone)]
pub struct Process {
    world: World,
    id: u64,
}

struct Core {
    now: Duration,
    next: u64,
    due: BinaryHeap<Due>,
    tasks: BTreeMap<u64, Task>,
    ready: Vec<u64>,
    dead: BTreeSet<u64>,
    stopped: BTreeSet<u64>,
    dice: Dice,
}

/// The first of them is the largest.
struct Due {
    at: (Duration, u64),
    event: Event,
}

struct Task {
    process: u64,
    /// Absent while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    /// Listed as ready.
    ready: bool,
    waker: Waker,
}

struct TaskWaker {
    id: u64,
    world: Weak<Mutex<Core>>,
}

impl World {
    /// An empty one at time zero.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Core {
            now: Duration::ZERO,
            next: 0,
            due: BinaryHeap::new(),
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            dead: BTreeSet::new(),
            stopped: BTreeSet::new(),
            dice: Dice::new(seed),
        })))
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.0.lock().now
    }

    /// Numbers for somebody, of the same seed.
    pub fn dice(&self) -> Dice {
        self.0.lock().dice.split()
    }

    /// A new process.
    pub fn process(&self) -> Process {
        let mut core = self.0.lock();
        core.next += 1;
        Process { world: self.clone(), id: core.next }
    }

    /// Does something after this time.
    pub fn after(&self, time: Duration, event: impl FnOnce() + Send + 'static) {
        let mut core = self.0.lock();
        core.next += 1;
        let at = (core.now + time, core.next);
        core.due.push(Due { at, event: Box::new(event) });
    }

    /// Runs one task that is ready, or lets the time jump to the next event; false when there is neither.
    pub fn step(&self) -> bool {
        self.run_ready() || self.next_event(Duration::MAX)
    }

    /// Runs all there is up to this time, which it is then.
    pub fn run_until(&self, time: Duration) {
        while self.run_ready() || self.next_event(time) {}
        let mut core = self.0.lock();
        core.now = core.now.max(time);
    }

    /// Keeps the world going beside other tasks of a runtime: for tests that await what happens in it.
    pub async fn keep_going(self) {
        loop {
            self.step();
            tokio::task::yield_now().await;
        }
    }

    /// Runs a future to its end, and whatever else goes on meanwhile; `None` where it waits for ever.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (done, mut result) = oneshot::channel();
        self.process().spawn(future.map(|value| drop(done.send(value))).boxed());
        loop {
            if let Ok(Some(value)) = result.try_recv() {
                return Some(value);
            }
            if !self.step() {
                return None;
            }
        }
    }

    /// How many tasks there are that have not ended.
    pub fn tasks(&self) -> usize {
        self.0.lock().tasks.len()
    }

    /// Forgets everything. Without it events and tasks that refer to the world keep it alive.
    pub fn end(&self) {
        let (due, tasks) = {
            let mut core = self.0.lock();
            core.ready.clear();
            (std::mem::take(&mut core.due), std::mem::take(&mut core.tasks))
        };
        drop((due, tasks));
    }

    fn run_ready(&self) -> bool {
        let (id, mut future, waker) = {
            let mut core = self.0.lock();
            let Some((id, task)) = core.pick() else { return false };
            let Some(future) = task.future.take() else { return true };
            (id, future, task.waker.clone())
        };
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut core = self.0.lock();
        let rest = match (polled, core.tasks.get_mut(&id)) {
            (Poll::Pending, Some(task)) => task.future.replace(future),
            (Poll::Ready(()), Some(_)) => {
                core.tasks.remove(&id).and_then(|task| task.future).or(Some(future))
            }
            // Killed by what it did itself.
            (_, None) => Some(future),
        };
        drop(core);
        drop(rest);
        true
    }

    fn next_event(&self, until: Duration) -> bool {
        let event = {
            let mut core = self.0.lock();
            if core.due.peek().is_none_or(|due| due.at.0 > until) {
                return false;
            }
            let Some(Due { at: (time, _), event }) = core.due.pop() else { return false };
            core.now = time;
            event
        };
        event();
        true
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl Core {
    /// One of the ready tasks whose process runs.
    fn pick(&mut self) -> Option<(u64, &mut Task)> {
        if self.ready.is_empty() {
            return None;
        }
        let start = self.dice.place(self.ready.len());
        for step in 0..self.ready.len() {
            let place = (start + step) % self.ready.len();
            let id = self.ready[place];
            let runs = self.tasks.get(&id).is_none_or(|task| !self.stopped.contains(&task.process));
            if runs {
                self.ready.swap_remove(place);
                let task = self.tasks.get_mut(&id)?;
                task.ready = false;
                return Some((id, task));
            }
        }
        None
    }
}

impl Process {
    /// Where it runs.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Runs a task to its end, or that of the process.
    pub fn spawn(&self, future: BoxFuture<'static, ()>) {
        let mut core = self.world.0.lock();
        if core.dead.contains(&self.id) {
            drop(core);
            drop(future);
            return;
        }
        core.next += 1;
        let id = core.next;
        let waker = Waker::from(Arc::new(TaskWaker { id, world: Arc::downgrade(&self.world.0) }));
        core.tasks.insert(id, Task { process: self.id, future: Some(future), ready: true, waker });
        core.ready.push(id);
    }

    /// Resolves when so much time has passed.
    pub fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        self.world.after(time, move || done.send(()).unwrap_or_default());
        async move {
            if wait.await.is_err() {
                futures::future::pending().await
            }
        }
        .boxed()
    }

    /// Ends it: its tasks are gone, whatever they were doing.
    pub fn kill(&self) {
        let tasks: Vec<_> = {
            let mut core = self.world.0.lock();
            core.dead.insert(self.id);
            core.stopped.remove(&self.id);
            // Rising: what a future does when it is dropped is part of the run.
            let ids: Vec<_> =
                core.tasks.iter().filter(|(_, task)| task.process == self.id).map(|(id, _)| *id).collect();
            core.ready.retain(|id| ids.binary_search(id).is_err());
            ids.iter().filter_map(|id| core.tasks.remove(id)).collect()
        };
        drop(tasks);
    }

    /// Whether it was not killed.
    pub fn is_alive(&self) -> bool {
        !self.world.0.lock().dead.contains(&self.id)
    }

    /// Lets its tasks run no more until it goes on; time passes for it as for all.
    pub fn stop(&self) {
        self.world.0.lock().stopped.insert(self.id);
    }

    /// Lets it go on after a stop.
    pub fn go_on(&self) {
        self.world.0.lock().stopped.remove(&self.id);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let Some(world) = self.world.upgrade() else { return };
        let mut core = world.lock();
        let core = &mut *core;
        if let Some(task) = core.tasks.get_mut(&self.id)
            && !task.ready
        {
            task.ready = true;
            core.ready.push(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(seed: u64) -> Vec<(u64, u128)> {
        let world = World::new(seed);
        let said = Arc::new(Mutex::new(Vec::new()));
        for name in 0..20 {
            let (process, said) = (world.process(), said.clone());
            let task = process.clone();
            process.spawn(
                async move {
                    for turn in 0..3 {
                        task.sleep(Duration::from_millis(name % 3 + turn)).await;
                        said.lock().push((name, task.world().now().as_millis()));
                    }
                }
                .boxed(),
            );
        }
        while world.step() {}
        assert_eq!(world.tasks(), 0);
        said.lock().clone()
    }

    #[test]
    fn a_seed_decides_the_order_and_time_never_goes_back() {
        let (one, two) = (story(1), story(2));
        assert_eq!(one, story(1));
        assert_ne!(one, two);
        assert!(one.iter().map(|(_, at)| at).is_sorted());
        assert_eq!(one.len(), 60);
    }

    #[test]
    fn a_killed_process_does_nothing_more_and_a_stopped_one_waits() {
        let world = World::new(1);
        let count = Arc::new(Mutex::new([0; 2]));
        let processes = [world.process(), world.process()];
        for (index, process) in processes.iter().enumerate() {
            let (task, count) = (process.clone(), count.clone());
            process.spawn(
                async move {
                    loop {
                        task.sleep(Duration::from_secs(1)).await;
                        count.lock()[index] += 1;
                    }
                }
                .boxed(),
            );
        }
        world.run_until(Duration::from_millis(2_500));
        processes[0].kill();
        processes[1].stop();
        world.run_until(Duration::from_millis(5_500));
        assert_eq!(*count.lock(), [2, 2]);
        processes[1].go_on();
        world.run_until(Duration::from_millis(6_000));
        assert_eq!(*count.lock(), [2, 3]);
        assert_eq!(world.tasks(), 1);
        world.end();
    }

    #[test]
    fn a_future_that_waits_for_nothing_is_noticed() {
        let world = World::new(1);
        assert_eq!(world.run(futures::future::pending::<()>()), None);
        assert_eq!(world.run(async { 5 }), Some(5));
    }
}
