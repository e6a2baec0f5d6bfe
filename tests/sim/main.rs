//! The simulation: the server's own homes and store, on a model of everything around them, driven from a seed.
//!
//! Time is virtual, chance is the seed's, and nothing else decides: the same seed is the same run. Each run has a time of
//! faults and one of healing; then everything is read and judged by [`invariants`]. [`planted`] bugs show that it would
//! find what it is there to find.
//!
//! There are two worlds: one server after another over the store, and a cluster ([`cluster`]). `SIM_SEED=7` runs one seed of
//! the first and tells its story, `SIM_CLUSTER=7` one of the second. `SIM_SEEDS=1000` runs so many, half of them in each,
//! from `SIM_FROM`, until `SIM_FAILURES` of them have failed. `SIM_SURVEY=1000` tells which of so many seeds find each planted
//! bug, `SIM_PLANTED=NoEnd` plants one.

#![allow(clippy::disallowed_methods)] // the time that a run takes for those who wait for it

mod audit;
mod back_end;
mod client;
mod clock;
mod cluster;
mod edge;
mod invariants;
mod line;
mod peek;
mod plan;
mod planted;
mod promises;
mod records;
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
