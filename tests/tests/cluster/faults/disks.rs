//! Disks of routers that are lost or damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use tokio::time::sleep;

use crate::drill::Drill;
use crate::site::{ROUTERS, Which};

/// How long a router has to notice what is wrong with its disk.
const NOTICES: Duration = Duration::from_secs(3);

/// Who is where is told by the edges.
pub(super) async fn all_routers_lose_their_disks(drill: &mut Drill) -> Result<String> {
    for router in 0..ROUTERS {
        drill.site.kill(Which::Router(router))?;
    }
    for router in 0..ROUTERS {
        drill.site.wipe(Which::Router(router))?;
    }
    let time = drill.hold(0.0..2.0).await;
    Ok(format!("for {time:.1?}"))
}

/// One with an empty disk takes the place of one that is gone.
pub(super) async fn a_router_is_replaced(drill: &mut Drill) -> Result<String> {
    let router = drill.any_router();
    drill.site.kill(Which::Router(router))?;
    drill.site.wipe(Which::Router(router))?;
    let time = drill.hold(0.0..3.0).await;
    Ok(format!("router-{router} after {time:.1?}"))
}

pub(super) async fn a_bit_flips_in_the_log(drill: &mut Drill) -> Result<String> {
    damage(drill, |content, at| {
        content[at] ^= 1 << (at % 8);
    })
    .await
}

pub(super) async fn the_log_loses_its_end(drill: &mut Drill) -> Result<String> {
    damage(drill, |content, at| content.truncate(at)).await
}

/// Damages a file while its router is away. Either that does no harm, or the router says so and ends: then it is started
/// with an empty disk.
async fn damage(drill: &mut Drill, how: impl FnOnce(&mut Vec<u8>, usize)) -> Result<String> {
    let router = drill.any_router();
    let which = Which::Router(router);
    drill.site.kill(which)?;
    let mut files = Vec::new();
    list(&drill.site.data(which), &mut files)?;
    files.sort();
    ensure!(!files.is_empty(), "router-{router} has no files");
    let file = &files[drill.rng.random_range(0..files.len())];
    let mut content = fs::read(file).with_context(|| format!("{}", file.display()))?;
    // Behind that, nothing was ever written.
    let end = content.iter().rposition(|byte| *byte != 0).context("an empty file")?;
    let at = drill.rng.random_range(0..=end);
    how(&mut content, at);
    fs::write(file, content)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    drill.site.begin(which)?;
    let mut waited = Duration::ZERO;
    let noticed = loop {
        if drill.site.process(which).ended()?.is_some() {
            break true;
        }
        if waited >= NOTICES {
            break false;
        }
        waited += Duration::from_millis(50);
        sleep(Duration::from_millis(50)).await;
    };
    let end = if noticed {
        let tail = drill.site.process(which).tail();
        ensure!(!tail.contains("panicked"), "router-{router} with damage at {at} of {name}: {tail}");
        drill.site.process(which).bury();
        drill.site.wipe(which)?;
        "it refused and was given an empty disk"
    } else {
        "it went on"
    };
    Ok(format!("router-{router}, byte {at} of {name}: {end}"))
}

/// All files in a folder that have content.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() && fs::read(entry.path())?.iter().any(|byte| *byte != 0) {
            files.push(entry.path());
        }
    }
    Ok(())
}
