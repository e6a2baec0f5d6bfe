//! Threads for password hashes: each costs milliseconds, which no I/O thread has.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::oneshot;

/// A bounded queue with threads behind it.
pub(crate) struct HashPool {
    shared: Arc<Shared>,
}

/// The queue is full (or the pool is gone): `temporary-auth-failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    bound: usize,
    stopping: bool,
}

type Job = Box<dyn FnOnce() + Send>;

impl HashPool {
    /// `threads` threads, at most `bound` jobs waiting.
    pub(crate) fn new(threads: usize, bound: usize) -> std::io::Result<Self> {
        let state = State { jobs: VecDeque::new(), bound, stopping: false };
        let pool = Self { shared: Arc::new(Shared { state: Mutex::new(state), news: Condvar::new() }) };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name(format!("hash-{number}")).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// A new bound of the queue.
    pub(crate) fn configure(&self, bound: usize) {
        self.shared.state.lock().bound = bound;
    }

    /// Runs a job on one of the threads. Dropping the future leaves the job in the queue.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Full> {
        let (answer, result) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if state.jobs.len() >= state.bound {
                return Err(Full);
            }
            state.jobs.push_back(Box::new(move || {
                // Nobody waits for it any more: their connection has gone.
                if !answer.is_closed() {
                    let _ = answer.send(job());
                }
            }));
        }
        self.shared.news.notify_one();
        result.await.map_err(|_| Full)
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.news.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let job = {
                let mut state = self.state.lock();
                loop {
                    if state.stopping {
                        return;
                    }
                    if let Some(job) = state.jobs.pop_front() {
                        break job;
                    }
                    self.news.wait(&mut state);
                }
            };
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!(event = "hash_panicked", "a password hash panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_jobs_and_survives_one_that_panics() {
        let pool = HashPool::new(1, 4).unwrap();
        assert_eq!(pool.run(|| 2 + 2).await, Ok(4));
        assert_eq!(pool.run(|| -> u8 { panic!("planned") }).await, Err(Full));
        assert_eq!(pool.run(|| 5).await, Ok(5));
    }

    #[tokio::test]
    async fn refuses_what_does_not_fit() {
        let pool = Arc::new(HashPool::new(1, 1).unwrap());
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                pool.run(move || {
                    let _ = started.send(());
                    let _ = blocked.recv();
                })
                .await
            }
        });
        running.await.unwrap();
        let second = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(|| ()).await }
        });
        while pool.shared.state.lock().jobs.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| ()).await, Err(Full));
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(()));
        assert_eq!(second.await.unwrap(), Ok(()));
    }
}
