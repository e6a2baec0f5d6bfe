//! Clocks of machines that are wrong, and are put right again at once.
//!
//! Only what tells the time is off. What measures time goes on, as it does where a clock is set.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use tokio::time::sleep;

use super::NotDone;
use crate::drill::Drill;
use crate::site::{EDGES, ROUTERS, Which};

const HOUR: i64 = 3_600_000;
/// How long a process may take to be ready, on a busy machine.
const READY: Duration = Duration::from_secs(15);
const NO_COMPILER: &str = "no `cc` here to build what sets clocks off";

/// Positions and ids are made from the clock of the home: they must not run back.
pub(super) async fn a_routers_clock_jumps(drill: &mut Drill) -> Result<String> {
    if !drill.site.has_clocks() {
        return Err(NotDone(NO_COMPILER.to_owned()).into());
    }
    let (router, ahead) = (drill.leader(), drill.rng.random_bool(0.5));
    let before = drill.site.wrong_times(Which::Router(router))?;
    drill.site.off(Which::Router(router), if ahead { HOUR } else { -HOUR })?;
    let time = drill.hold(1.0..3.0).await;
    drill.was_told_wrong(Which::Router(router), before)?;
    let mut told =
        format!("router-{router}, an hour {}, for {time:.1?}", if ahead { "ahead" } else { "back" });
    if drill.rng.random_bool(0.5) {
        // Its shards go to those whose clocks are right.
        drill.site.kill(Which::Router(router))?;
        drill.hold(0.5..2.0).await;
        told.push_str(", then killed");
    }
    Ok(told)
}

pub(super) async fn an_edges_clock_jumps(drill: &mut Drill) -> Result<String> {
    if !drill.site.has_clocks() {
        return Err(NotDone(NO_COMPILER.to_owned()).into());
    }
    let (edge, ahead) = (drill.any_edge(), drill.rng.random_bool(0.5));
    let which = Which::Edge(edge);
    let before = drill.site.wrong_times(which)?;
    drill.site.off(which, if ahead { HOUR } else { -HOUR })?;
    let mut told = format!("edge-{edge}, an hour {}", if ahead { "ahead" } else { "back" });
    if drill.rng.random_bool(0.5) {
        // Certificates have to be good for it, too.
        drill.site.kill(which)?;
        drill.site.begin(which)?;
        if let Err(error) = drill.site.ready(READY).await {
            drill.note(format!("edge-{edge} started with a wrong clock and {error:#}"), false);
        }
        told.push_str(", started so");
    }
    let time = drill.hold(1.0..4.0).await;
    drill.was_told_wrong(which, before)?;
    Ok(format!("{told}, for {time:.1?}"))
}

/// All run away from each other, by half a second, and jump back.
pub(super) async fn clocks_drift(drill: &mut Drill) -> Result<String> {
    const STEPS: u32 = 25;
    if !drill.site.has_clocks() {
        return Err(NotDone(NO_COMPILER.to_owned()).into());
    }
    let all = (0..ROUTERS).map(Which::Router).chain((0..EDGES).map(Which::Edge));
    let drifts: Vec<(Which, i64)> = all.map(|which| (which, drill.rng.random_range(-500..=500))).collect();
    let time = Duration::from_secs_f64(drill.rng.random_range(2.0..5.0) * drill.pace);
    let before: Vec<u64> =
        drifts.iter().map(|(which, _)| drill.site.wrong_times(*which)).collect::<Result<_>>()?;
    for step in 1..=STEPS {
        for (which, by) in &drifts {
            drill.site.off(*which, by * i64::from(step) / i64::from(STEPS))?;
        }
        sleep(time / STEPS).await;
    }
    for ((which, by), before) in drifts.iter().zip(before) {
        if *by != 0 {
            drill.was_told_wrong(*which, before)?;
        }
    }
    let by: Vec<String> = drifts.iter().map(|(_, by)| by.to_string()).collect();
    Ok(format!("by {} ms in {time:.1?}", by.join(", ")))
}
