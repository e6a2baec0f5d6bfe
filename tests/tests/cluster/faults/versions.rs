//! Processes of two builds beside each other: an upgrade, and the way back.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::NotDone;
use super::processes::start_anew;
use crate::drill::Drill;
use crate::site::{EDGES, ROUTERS, Which};

/// Names the program of the version before.
pub(crate) const OLD: &str = "STARLING_OLD_BIN";

/// All are replaced by older ones, one after the other, and then by newer ones again; clients go on all the time. Routers
/// come first when it goes forward, as docs/cluster.md says, and last when it goes back.
pub(super) async fn all_are_upgraded_in_turn(drill: &mut Drill) -> Result<String> {
    let Some(built) = std::env::var_os(OLD).map(PathBuf::from) else {
        let why = format!(
            "NO TWO VERSIONS TRIED: {OLD} names no older `starling` (docs/chaos.md says how to make one)"
        );
        return Err(NotDone(why).into());
    };
    let (new, old) = (drill.site.file("starling"), drill.site.file("starling-old"));
    if !old.exists() {
        std::fs::copy(&built, &old).with_context(|| format!("{OLD}={}", built.display()))?;
    }
    ensure!(std::fs::read(&old)? != std::fs::read(&new)?, "{OLD} names the program that is to be tested");
    let order: Vec<Which> = (0..ROUTERS).map(Which::Router).chain((0..EDGES).map(Which::Edge)).collect();
    let begin = drill.run.now();
    for which in order.iter().rev() {
        replace(drill, *which, &new, &old).await?;
    }
    let back = drill.run.now();
    for which in &order {
        replace(drill, *which, &old, &new).await?;
    }
    Ok(format!("to the older in {:.1?}, to the newer in {:.1?}", back - begin, drill.run.now() - back))
}

/// One process ends, and comes back as another version of itself.
async fn replace(drill: &mut Drill, which: Which, from: &Path, to: &Path) -> Result<()> {
    let before = running(drill, to)?;
    drill.site.process(which).exchange(from, to)?;
    start_anew(drill, which).await.with_context(|| format!("{which:?} becomes {}", to.display()))?;
    let now = running(drill, to)?;
    ensure!(now == before + 1, "{now} processes run {}, and {before} did before {which:?}", to.display());
    Ok(())
}

/// How many processes run this program, as the kernel says.
fn running(drill: &Drill, program: &Path) -> Result<usize> {
    let pids = drill.site.all().filter_map(|process| process.pid());
    let programs = pids.map(|pid| std::fs::read_link(format!("/proc/{pid}/exe")));
    let programs = programs.collect::<std::io::Result<Vec<_>>>()?;
    Ok(programs.iter().filter(|one| *one == program).count())
}
