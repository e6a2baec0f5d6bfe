//! The simulation: the server's own homes and store, on a model of everything around them, driven from a seed.
//!
//! Time is virtual, chance is the seed's, and nothing else decides: the same seed is the same run. Each run has a time of
//! faults and one of healing; then everything is read and judged by [`invariants`]. [`planted`] bugs show that it would
//! find what it is there to find.
//!
//! `SIM_SEED=7` runs one seed and tells its story. `SIM_SEEDS=1000` runs so many, from `SIM_FROM`. `SIM_SURVEY=1000` tells
//! which of so many seeds find each planted bug.

#![allow(clippy::disallowed_methods)] // the time that a run takes for those who wait for it

mod audit;
mod back_end;
mod client;
mod clock;
mod edge;
mod invariants;
mod line;
mod peek;
mod plan;
mod planted;
mod promises;
mod report;
mod run;
mod server;
mod speech;
mod stage;

use std::process::ExitCode;

/// A run is thousands of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    report::main()
}
