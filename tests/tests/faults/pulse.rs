//! A client of the store beside the server under test: it asks one small thing all the time, and knows when there was a
//! store and how long one had to wait for it.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use starling_tests::cql::Connection;
use starling_tests::crowd::Run;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// No proxy touches it: what it does wrong to the server's requests says nothing of the store.
const STATEMENT: &str = "SELECT release_version FROM system.local";
/// How long after an answer the next question is due.
const REST: Duration = Duration::from_millis(50);

/// A question that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    /// When it was to be asked. That it was asked late says that the machine has too much to do.
    pub(crate) due: Duration,
    pub(crate) answered: Duration,
}

/// The client, while it is kept, and beside it a clock, and somebody who uses the disk as a store does.
pub(crate) struct Pulse {
    beats: Arc<Mutex<Vec<Beat>>>,
    ticks: Arc<Mutex<Vec<Beat>>>,
    syncs: Arc<Mutex<Vec<Beat>>>,
    tasks: [JoinHandle<()>; 3],
}

impl Pulse {
    /// Reads on the way that the server under test takes.
    pub(crate) fn start(run: Arc<Run>, addresses: Vec<SocketAddr>) -> Self {
        let beats = Arc::<Mutex<Vec<Beat>>>::default();
        let ticks = Arc::<Mutex<Vec<Beat>>>::default();
        let syncs = Arc::<Mutex<Vec<Beat>>>::default();
        let (disk, synced) = (run.clone(), syncs.clone());
        let syncing = tokio::spawn(async move {
            let Ok(file) = tempfile::tempfile().map(Arc::new) else { return };
            loop {
                let due = disk.now() + REST;
                sleep(REST).await;
                let file = file.clone();
                let write = move || file.write_all_at(&[0; 512], 0).and_then(|()| file.sync_data());
                if !matches!(tokio::task::spawn_blocking(write).await, Ok(Ok(()))) {
                    return;
                }
                synced.lock().push(Beat { due, answered: disk.now() });
            }
        });
        let (noted, clock, ticked) = (beats.clone(), run.clone(), ticks.clone());
        let ticking = tokio::spawn(async move {
            loop {
                let due = clock.now() + REST;
                sleep(REST).await;
                ticked.lock().push(Beat { due, answered: clock.now() });
            }
        });
        let asking = tokio::spawn(async move {
            // A store that is not there is tried again, at the next address.
            for address in addresses.iter().cycle() {
                let due = run.now() + REST;
                sleep(REST).await;
                let _ = ask(&run, *address, due, &noted).await;
            }
        });
        Self { beats, ticks, syncs, tasks: [asking, ticking, syncing] }
    }

    /// All that was answered so far.
    pub(crate) fn beats(&self) -> Vec<Beat> {
        self.beats.lock().clone()
    }

    /// Moments at which we wanted to be woken, and were: how busy the machine is, whether there is a store or not.
    pub(crate) fn ticks(&self) -> Vec<Beat> {
        self.ticks.lock().clone()
    }

    /// Small writes to the disk: how long a commit log has to wait for it, whoever keeps it busy.
    pub(crate) fn syncs(&self) -> Vec<Beat> {
        self.syncs.lock().clone()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Asks until there is no answer.
async fn ask(run: &Run, address: SocketAddr, mut due: Duration, beats: &Mutex<Vec<Beat>>) -> Result<()> {
    let mut connection = Connection::open(address).await.context("no store")?;
    loop {
        connection.run(STATEMENT).await?;
        let answered = run.now();
        beats.lock().push(Beat { due, answered });
        due = answered + REST;
        sleep(REST).await;
    }
}
