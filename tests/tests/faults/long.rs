//! The long run: one fault after the other, the server under test killed in between, and one history over it all.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_tests::cassandra::Cassandra;
use starling_tests::cql::{Faults, Refusal};
use starling_tests::crowd::Manners;

use crate::answers::ensure_used_again;
use crate::scene::Scene;

/// Messages a second, over all clients.
const RATE: u32 = 400;

/// How often it is measured how soon the store is used again: how busy the machine is changes from second to second.
const RETURNS: usize = 3;

/// How many messages the run has.
pub(crate) fn messages() -> Result<u64> {
    match std::env::var("FAULTS_MESSAGES") {
        Ok(text) => text.parse().with_context(|| format!("FAULTS_MESSAGES={text} is not a number")),
        Err(_) => Ok(10_000),
    }
}

/// Promises 1 to 4 hold over `FAULTS_MESSAGES` messages (10,000) while faults go on.
pub(crate) async fn the_history_holds_over_many_faults(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let wanted = messages()?;
    let mut scene = Scene::begin(nodes, seed, Manners::Rough).await?;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut back = Vec::new();
    let done = async {
        while scene.run.written() < wanted {
            trouble(nodes, &mut scene, &mut rng).await?;
        }
        nodes.proxy(0).heal();
        scene.load(RATE, Duration::from_secs(4)).await?;
        // Nothing that was left over may be in the way of what is measured.
        scene.run.quiet(Duration::from_millis(500), Duration::from_secs(20)).await;
        for _ in 0..RETURNS {
            scene.remark("nothing moves");
            nodes.proxy(0).set(Faults { stalled: true, ..Faults::default() });
            nodes.proxy(0).cut();
            // Few messages: not how fast the server works off what has gathered is measured, but when it begins.
            scene.load(RATE / 20, Duration::from_millis(2500)).await?;
            nodes.proxy(0).heal();
            back.push(scene.remark("all is well again"));
            scene.load(RATE / 4, Duration::from_millis(2500)).await?;
        }
        scene.run.trouble(false);
        scene.load(RATE, Duration::from_secs(2)).await
    };
    let done = done.await;
    nodes.proxy(0).heal();
    let written = scene.run.written();
    let verdict = scene.end(done).await?;
    verdict.ensure(nodes, |answers| {
        ensure!(written >= wanted, "only {written} messages were written");
        let taken = answers.taken(Duration::ZERO, Duration::MAX);
        ensure!(
            taken as u64 >= written / 3,
            "{taken} of {written} messages were taken: too few to prove a thing"
        );
        ensure_used_again(answers, &back)
    })
}

/// Something happens, and is over.
async fn trouble(nodes: &mut Cassandra, scene: &mut Scene, rng: &mut StdRng) -> Result<()> {
    let ms = |n: u64| Duration::from_millis(n);
    scene.run.trouble(true);
    scene.load(RATE, ms(rng.random_range(300..1500))).await?;
    match rng.random_range(0..12) {
        0 => {
            scene.remark("the node is killed");
            nodes.kill(0)?;
            nodes.proxy(0).cut();
            scene.load(RATE / 4, ms(rng.random_range(0..4000))).await?;
            nodes.restart(0).await?;
            scene.remark("the node answers");
        }
        1 => {
            scene.remark("the node is paused");
            nodes.pause(0)?;
            scene.load(RATE / 4, ms(rng.random_range(100..4000))).await?;
            nodes.resume(0)?;
            scene.remark("the node goes on");
        }
        2 => {
            scene.remark("all connections to the node are cut");
            nodes.proxy(0).cut();
        }
        3..6 => {
            kill_server(nodes, scene, rng).await?;
        }
        _ => {
            let share = rng.random_range(0.002..0.05);
            let kinds = [
                ("replies are lost", Faults { swallowed: share, ..Faults::default() }),
                ("requests are lost", Faults { lost: share, ..Faults::default() }),
                ("replies are disowned", Faults { disowned: share, ..Faults::default() }),
                (
                    "writes come late",
                    Faults { late: share, delay: ms(7000), reads: false, ..Faults::default() },
                ),
                ("connections break", Faults { cut: share / 10.0, ..Faults::default() }),
                ("the node has too much to do", Faults { refused: share * 10.0, ..Faults::default() }),
                (
                    "replicas are said to be dead",
                    Faults { refused: share, refusal: Refusal::Unavailable, ..Faults::default() },
                ),
                ("the node is slow", Faults { slow: 0.5, delay: ms(600), ..Faults::default() }),
                ("nothing moves", Faults { stalled: true, ..Faults::default() }),
            ];
            let (name, faults) = kinds[rng.random_range(0..kinds.len())].clone();
            scene.remark(name);
            nodes.proxy(0).set(faults);
            scene.load(RATE, ms(rng.random_range(500..3000))).await?;
            if rng.random_bool(0.3) {
                kill_server(nodes, scene, rng).await?;
            }
            nodes.proxy(0).heal();
        }
    }
    Ok(())
}

/// Kills the server under test, in the midst of whatever happens, and starts it on a store that is well.
async fn kill_server(nodes: &Cassandra, scene: &mut Scene, rng: &mut StdRng) -> Result<()> {
    scene.run.kill();
    scene.server.kill()?;
    scene.remark("the server is killed");
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
    nodes.proxy(0).heal();
    scene.server.restart().await.context("the server does not start again")?;
    scene.run.server_is_up(&scene.server)?;
    scene.remark("the server is started");
    Ok(())
}
