//! Logins: connect, handshake, authenticate, bind, leave; again and again.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::join_all;

use crate::histogram::Histogram;
use crate::session::{Session, Wish};
use crate::target::Target;
use crate::usage::{Spent, Stopwatch};

/// How many accounts log in, how often.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LoginArguments {
    /// Accounts that take turns
    #[arg(long, default_value_t = 200)]
    pub(crate) accounts: usize,
    /// Logins at a time
    #[arg(long, default_value_t = 16)]
    pub(crate) concurrency: usize,
    /// Seconds to measure
    #[arg(long, default_value_t = 8)]
    pub(crate) seconds: u64,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct LoginReport {
    pub(crate) logins: u64,
    pub(crate) failures: u64,
    pub(crate) elapsed: Duration,
    pub(crate) spent: Spent,
    pub(crate) latency: Histogram,
}

impl LoginReport {
    pub(crate) fn per_second(&self) -> f64 {
        self.logins as f64 / self.elapsed.as_secs_f64()
    }

    /// Logins per second of server CPU.
    pub(crate) fn per_cpu_second(&self) -> Option<f64> {
        self.spent.server.map(|cpu| self.logins as f64 / cpu.as_secs_f64())
    }
}

/// Logs each account in once, so that its keys are derived, and then measures.
pub(crate) async fn run(target: &Target, arguments: &LoginArguments) -> Result<LoginReport> {
    let LoginArguments { accounts, concurrency, seconds } = *arguments;
    ensure!(accounts >= concurrency && concurrency > 0, "each login at a time needs an account of its own");
    // A failure here is one of setting up, so it ends the run.
    for outcome in join_all((0..concurrency).map(|first| async move {
        for number in (first..accounts).step_by(concurrency) {
            Session::open(target, &target.user(number), "login", Wish::default()).await?.close().await;
        }
        anyhow::Ok(())
    }))
    .await
    {
        outcome?;
    }

    let latency = RefCell::new(Histogram::new());
    let failures = RefCell::new(0);
    let watch = Stopwatch::start(&target.watched)?;
    let start = Instant::now();
    let deadline = start + Duration::from_secs(seconds);
    join_all((0..concurrency).map(|first| {
        let (latency, failures) = (&latency, &failures);
        async move {
            for number in (first..accounts).step_by(concurrency).cycle() {
                let begin = Instant::now();
                if begin > deadline {
                    break;
                }
                match Session::open(target, &target.user(number), "login", Wish::default()).await {
                    Ok(session) => {
                        latency.borrow_mut().record(begin.elapsed());
                        session.close().await;
                    }
                    Err(error) => {
                        if failures.replace_with(|count| *count + 1) == 0 {
                            eprintln!("first failed login: {error:#}");
                        }
                    }
                }
            }
        }
    }))
    .await;
    let latency = latency.into_inner();
    Ok(LoginReport {
        logins: latency.count(),
        failures: failures.into_inner(),
        elapsed: start.elapsed(),
        spent: watch.spent()?,
        latency,
    })
}
