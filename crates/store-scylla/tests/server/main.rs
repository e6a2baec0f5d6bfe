//! On a real CQL server: `STARLING_TEST_CQL=address:9042`. Without one every case is skipped, says so and is counted.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests read the clock themselves

mod cases;
mod drive;
mod faults;
mod look;
mod migrate;
mod proxy;
mod world;

use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// A case that takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let listing = std::env::args().any(|word| word == "--list");
    let all = cases::all();
    let chosen = all
        .into_iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part)));
    let address = std::env::var("STARLING_TEST_CQL").unwrap_or_default();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, case) in chosen {
        if listing {
            println!("{name}: test");
        } else if address.is_empty() {
            println!("test {name} ... skipped: STARLING_TEST_CQL names no CQL server");
            skipped += 1;
        } else {
            let begun = Instant::now();
            let case = case(address.clone());
            let case = async move { tokio::time::timeout(LIMIT, case).await };
            let ended = runtime.block_on(AssertUnwindSafe(case).catch_unwind());
            runtime.block_on(world::tidy());
            if matches!(ended, Ok(Ok(()))) {
                println!("test {name} ... ok ({:.1} s)", begun.elapsed().as_secs_f64());
                passed += 1;
            } else {
                println!("test {name} ... FAILED");
                failed += 1;
            }
        }
    }
    if !listing {
        let word = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out"
        );
    }
    std::process::exit(i32::from(failed > 0));
}
