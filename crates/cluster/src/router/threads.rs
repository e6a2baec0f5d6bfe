//! Threads of their own for Raft and its links.
//!
//! Whoever sleeps most of the time is called soon when there is something to do, however busy the machine is; whoever waits
//! in one row with homes and logins is not. Without these threads routers that have much to do take one another for dead.

use std::io;
use std::num::NonZero;
use tokio::runtime::{Builder, Handle, Runtime};

/// One that answers while the other is at work; where there is one core only, they would but wake each other.
const THREADS: usize = 2;
/// Reading and writing snapshots.
const BLOCKING: usize = 4;

/// They end with this; nothing is waited for.
pub(super) struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    /// Begins.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(THREADS, NonZero::get);
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(THREADS.min(cores))
            .max_blocking_threads(BLOCKING)
            .thread_name("raft")
            .enable_all();
        let runtime = builder.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// To run something there.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // To wait for them would block a thread of those that may not be blocked.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
