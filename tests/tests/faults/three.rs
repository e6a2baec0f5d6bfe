//! Three nodes, of which one may fail: nobody notices.

use std::time::Duration;

use anyhow::{Result, ensure};
use starling_tests::cassandra::Cassandra;
use starling_tests::crowd::Manners;
use tokio::time::sleep;

use crate::answers::ensure_all_served;
use crate::scene::Scene;

const RATE: u32 = 100;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// C21: a node is killed and comes back, another stands still and goes on: no send fails.
pub(crate) async fn c21_one_of_three_fails(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    let [killed, paused] = [seed % 3, (seed + 1) % 3].map(|n| usize::try_from(n).unwrap_or(0));
    let done = async {
        scene.load(RATE, secs(3)).await?;
        scene.remark(format!("node {killed} is killed"));
        nodes.kill(killed)?;
        nodes.proxy(killed).cut();
        scene.load(RATE, secs(10)).await?;
        nodes.restart(killed).await?;
        scene.remark(format!("node {killed} answers"));
        let (loaded, seen) = tokio::join!(scene.load(RATE, secs(5)), nodes.see_each_other());
        loaded?;
        // Or there would be two that are not there.
        seen?;
        scene.remark(format!("node {paused} is paused"));
        nodes.pause(paused)?;
        scene.load(RATE, secs(10)).await?;
        nodes.resume(paused)?;
        scene.remark(format!("node {paused} goes on"));
        scene.load(RATE, secs(3)).await
    };
    let done = done.await;
    let verdict = scene.end(done).await?;
    verdict.ensure_good(nodes, |answers| {
        let refused: Vec<String> = answers.refused().map(ToString::to_string).collect();
        ensure!(refused.is_empty(), "{} sends failed, the first: {}", refused.len(), refused[0]);
        Ok(())
    })
}

/// C24: a node was away while others wrote (nobody keeps what it missed for it). Whoever asks a quorum finds everything,
/// also when one of those that have it is away in turn.
pub(crate) async fn c24_a_replica_has_missed_writes(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    let [missed, witness] = [seed % 3, (seed + 1) % 3].map(|n| usize::try_from(n).unwrap_or(0));
    let mut back = Duration::ZERO;
    let done = async {
        scene.remark(format!("node {missed} is killed"));
        nodes.kill(missed)?;
        nodes.proxy(missed).cut();
        scene.load(RATE, secs(8)).await?;
        sleep(secs(1)).await;
        nodes.restart(missed).await?;
        // The others must have noticed, or they would not ask it.
        nodes.see_each_other().await?;
        scene.remark(format!("node {missed} is back with a gap, node {witness} is killed"));
        nodes.kill(witness)?;
        nodes.proxy(witness).cut();
        sleep(secs(2)).await;
        back = scene.remark("every quorum has the gap in it");
        scene.load(5 * RATE, secs(4)).await
    };
    let done = done.await;
    // The archives are read, and the server loads all accounts anew, while every quorum has the gap in it.
    let verdict = scene.end(done).await?;
    verdict.ensure_good(nodes, |answers| ensure_all_served(answers, back))
}
