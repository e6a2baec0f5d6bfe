//! Clients that hold sessions and resume them at another edge.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::nodes::Cluster;
use crate::histogram::Histogram;
use crate::session::{Resumption, Session, Wish};
use crate::target::Target;
use crate::usage;

/// What sessions take, and how soon they are back after their edge was killed.
pub(super) struct StormReport {
    pub(super) sessions: usize,
    pub(super) opening: Duration,
    /// Bytes of Pss for each session, at the edge that has it and at all routers together.
    pub(super) edge_each: f64,
    pub(super) routers_each: f64,
    /// From the kill to `<resumed/>`.
    pub(super) back: Histogram,
    /// Who could not resume.
    pub(super) lost: usize,
}

/// How many connect at a time: the generator is one thread, more would only wait in line.
const AT_ONCE: usize = 256;
/// After that long a client that is not back never will be.
const PATIENCE: Duration = Duration::from_secs(60);

/// What clients have in common.
struct Crowd {
    /// When the edge was killed.
    killed: Cell<Option<Instant>>,
    back: RefCell<Histogram>,
    lost: Cell<usize>,
    door: Semaphore,
}

/// Opens sessions at the first edge, weighs them, kills it, and lets all come to the second.
pub(super) async fn storm(cluster: &mut Cluster, sessions: usize) -> Result<StormReport> {
    let doors = cluster.doors()?;
    let [first, second, ..] = doors.as_slice() else { bail!("two edges are needed") };
    let memory = |cluster: &Cluster| -> Result<(u64, u64)> {
        let routers = cluster.routers.iter().map(|router| usage::pss(router.pid()));
        Ok((usage::pss(cluster.edges[0].pid())?, routers.sum::<Result<u64>>()?))
    };
    let before = memory(cluster)?;
    let begin = Instant::now();
    let wish = Wish { managed: true, presence: true };
    let open: Vec<Session> = stream::iter(0..sessions)
        .map(|number| async move { Session::open(first, &first.user(number), "storm", wish).await })
        .buffer_unordered(32)
        .try_collect()
        .await?;
    let opening = begin.elapsed();
    let crowd = Rc::new(Crowd {
        killed: Cell::new(None),
        back: RefCell::new(Histogram::new()),
        lost: Cell::new(0),
        door: Semaphore::new(AT_ONCE),
    });
    let mut clients = JoinSet::new();
    for session in open {
        clients.spawn_local(client(session, second.clone(), crowd.clone()));
    }
    // What logins took is given back meanwhile, and presence has settled.
    sleep(Duration::from_secs(10)).await;
    ensure!(clients.try_join_next().is_none(), "a session ended by itself");
    let during = memory(cluster)?;

    crowd.killed.set(Some(Instant::now()));
    cluster.edges[0].kill()?;
    timeout(PATIENCE, async {
        while (crowd.back.borrow().count() as usize) + crowd.lost.get() < sessions {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .context("not all clients came back")?;
    drop(clients);
    let each = |now: u64, then: u64| now.saturating_sub(then) as f64 / sessions as f64;
    let back = crowd.back.borrow().clone();
    Ok(StormReport {
        sessions,
        opening,
        edge_each: each(during.0, before.0),
        routers_each: each(during.1, before.1),
        back,
        lost: crowd.lost.get(),
    })
}

/// Holds a session until its connection ends, and resumes it.
async fn client(mut session: Session, door: Rc<Target>, crowd: Rc<Crowd>) {
    let user = session.jid.split('@').next().unwrap_or_default().to_owned();
    // The end is what it waits for.
    let _ = session.idle().await;
    let (Some(killed), Some(resumption)) = (crowd.killed.get(), session.resumption()) else { return };
    drop(session);
    match come_back(&door, &user, &resumption, &crowd).await {
        Ok(mut session) => {
            crowd.back.borrow_mut().record(killed.elapsed());
            let _ = session.idle().await;
        }
        Err(error) => {
            if crowd.lost.replace(crowd.lost.get() + 1) == 0 {
                eprintln!("first that could not resume: {error:#}");
            }
        }
    }
}

async fn come_back(door: &Target, user: &str, resumption: &Resumption, crowd: &Crowd) -> Result<Session> {
    let mut tries = 0;
    loop {
        let permit = crowd.door.acquire().await?;
        let resumed = Session::resume(door, user, resumption).await;
        drop(permit);
        tries += 1;
        match resumed {
            Err(error)
                if tries < 20 && !error.chain().any(|cause| cause.to_string().contains("item-not-found")) =>
            {
                sleep(Duration::from_millis(100)).await;
            }
            resumed => return resumed,
        }
    }
}
