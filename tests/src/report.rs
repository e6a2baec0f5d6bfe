//! Results of cases, told the way `cargo test` tells them, so that `make test` can add everything up.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::timeout;

/// How a case ended.
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not as it should; why.
    Failed(String),
    /// It was not run; why.
    Skipped(String),
}

/// Collects the outcomes of one run and prints a line for each.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
}

impl Report {
    /// Takes note of a case and prints it.
    pub fn note(&mut self, name: &str, outcome: Outcome, took: Duration) {
        match outcome {
            Outcome::Passed => {
                self.passed += 1;
                println!("test {name} ... ok ({} ms)", took.as_millis());
            }
            Outcome::Failed(why) => {
                println!("test {name} ... FAILED ({} ms)\n  {}", took.as_millis(), why.replace('\n', "\n  "));
                self.failed.push(name.to_owned());
            }
            Outcome::Skipped(why) => {
                self.skipped += 1;
                println!("test {name} ... skipped: {why}");
            }
        }
    }

    /// Prints the sum and gives the exit code of the process.
    pub fn finish(self) -> std::process::ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:\n    {}", self.failed.join("\n    "));
        }
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out",
            self.passed,
            self.failed.len(),
            self.skipped
        );
        if self.failed.is_empty() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
    }
}

/// Runs one case under a time limit.
pub async fn case(limit: Duration, work: impl Future<Output = Result<()>>) -> (Outcome, Duration) {
    let start = Instant::now();
    let outcome = match timeout(limit, work).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(format!("{error:#}")),
        Err(_) => Outcome::Failed(format!("not done after {limit:?}")),
    };
    (outcome, start.elapsed())
}

/// Whether the command line asks for this case: no names at all, or a part of this one.
pub fn wanted(name: &str) -> bool {
    let mut names = std::env::args().skip(1).filter(|a| !a.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|part| name.contains(&part))
}
