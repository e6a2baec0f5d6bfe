//! Binds through edges: clients that have authenticated bind at a fixed rate, and then as fast as they can.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::task::JoinSet;
use tokio::time::{interval_at, sleep};

use crate::histogram::Histogram;
use crate::session::Session;
use crate::target::Target;

/// What was measured.
pub(super) struct BindReport {
    /// From when a bind was due to its answer.
    pub(super) latency: Histogram,
    pub(super) failures: usize,
    pub(super) elapsed: Duration,
}

impl BindReport {
    pub(super) fn per_second(&self) -> f64 {
        self.latency.count() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Authenticates clients, a tick or two before their time is up, and binds them: all at once, or at a rate.
pub(super) async fn run(doors: &[Rc<Target>], clients: usize, rate: Option<f64>) -> Result<BindReport> {
    let ready: Vec<Session> = stream::iter(0..clients)
        .map(|number| {
            let door = &doors[number % doors.len()];
            async move { Session::authenticated(door, &door.user(number)).await }
        })
        .buffer_unordered(64)
        .try_collect()
        .await?;
    // What authentication left to do is done.
    sleep(Duration::from_millis(500)).await;
    let latency = Rc::new(RefCell::new(Histogram::new()));
    let mut binding = JoinSet::new();
    let begin = Instant::now();
    // Several to a tick: the runtime's timer is no finer than a millisecond.
    let tick = Duration::from_millis(2);
    let mut ticks = interval_at((begin + tick).into(), tick);
    let mut ready = ready.into_iter().enumerate().peekable();
    while ready.peek().is_some() {
        let mut due = begin;
        if rate.is_some() {
            ticks.tick().await;
            due = Instant::now();
        }
        let so_far = rate.map_or(f64::MAX, |rate| due.duration_since(begin).as_secs_f64() * rate);
        while let Some((number, mut session)) = ready.next_if(|(number, _)| (*number as f64) < so_far) {
            let latency = latency.clone();
            let due = rate.map_or(begin, |rate| begin + Duration::from_secs_f64(number as f64 / rate));
            binding.spawn_local(async move {
                let bound = session.bind("bind").await;
                if bound.is_ok() {
                    latency.borrow_mut().record(due.elapsed());
                }
                (bound, session)
            });
        }
    }
    let (mut failures, mut elapsed, mut sessions) = (0, Duration::ZERO, Vec::new());
    while let Some(done) = binding.join_next().await {
        let (bound, session) = done?;
        elapsed = begin.elapsed();
        sessions.push(session);
        if let Err(error) = bound {
            if failures == 0 {
                eprintln!("first failed bind: {error:#}");
            }
            failures += 1;
        }
    }
    let closing = stream::iter(sessions).for_each_concurrent(32, Session::close);
    closing.await;
    let latency = latency.borrow().clone();
    ensure!(latency.count() > 0, "nobody could bind");
    Ok(BindReport { latency, failures, elapsed })
}
