//! One node, and nothing else to turn to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use starling_tests::cassandra::Cassandra;
use starling_tests::cql::{Faults, Refusal};
use starling_tests::crowd::Manners;
use starling_tests::history::Kind;
use starling_tests::{Client, Login, Target};
use tokio::time::sleep;

use crate::answers::{Answers, ensure_all_served};
use crate::scene::Scene;
use crate::swarm::Swarm;

const RATE: u32 = 120;
/// Retries that a server may have saved up in good times, beyond one for ten requests.
const SAVED: u64 = 100;
/// When it is measured how soon a server is used again: no client should be waiting for its turn, and none behind what
/// a busy machine cannot work off.
const EAGER: u32 = 160;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// C20: gone at once, back after a while.
pub(crate) async fn c20_the_server_is_killed(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    scene.server.add_user("eve").await?;
    let (target, login) = (scene.server.target().clone(), scene.server.login("eve"));
    let mut bystander = login.connect(&target).await?;
    let mut back = Duration::ZERO;
    let mut outage = (Duration::ZERO, Duration::ZERO);
    let done = async {
        scene.load(RATE, secs(3)).await?;
        outage.0 = scene.remark("the node is killed");
        nodes.kill(0)?;
        nodes.proxy(0).cut();
        let (loaded, told) =
            tokio::join!(scene.load(RATE, secs(12)), ensure_told_to_wait(&mut bystander, &login, &target));
        loaded?;
        told?;
        outage.1 = scene.remark("the node is started");
        nodes.restart(0).await?;
        back = scene.remark("the node answers");
        scene.load(EAGER, secs(5)).await?;
        // The session of somebody who only asked lives too.
        bystander.ping().await?;
        scene.ensure_flat(outage.0 + secs(3), outage.1)
    };
    let done = done.await;
    let verdict = scene.end(done).await?;
    verdict.ensure_good(nodes, |answers| {
        ensure_nothing_taken(answers, outage)?;
        ensure_all_served(answers, back)
    })
}

/// C20: it takes connections and says nothing.
pub(crate) async fn c20_the_server_is_paused(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    let mut back = Duration::ZERO;
    let mut outage = (Duration::ZERO, Duration::ZERO);
    let done = async {
        scene.load(RATE, secs(3)).await?;
        outage.0 = scene.remark("the node is paused");
        nodes.pause(0)?;
        scene.load(RATE, secs(15)).await?;
        nodes.resume(0)?;
        outage.1 = scene.remark("the node goes on");
        back = outage.1;
        scene.load(EAGER, secs(5)).await?;
        scene.ensure_flat(outage.0 + secs(7), outage.1)
    };
    let done = done.await;
    let verdict = scene.end(done).await?;
    verdict.ensure_good(nodes, |answers| {
        ensure_nothing_taken(answers, outage)?;
        ensure_all_served(answers, back)
    })
}

/// C22: the sender of a write cannot know whether it was done.
pub(crate) async fn c22_replies_are_lost(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let none = Faults::default();
    let plans = [
        ("replies are lost", Faults { swallowed: 0.03, ..none.clone() }),
        ("requests are lost", Faults { lost: 0.03, ..none.clone() }),
        ("what was done is said to have timed out", Faults { disowned: 0.1, ..none.clone() }),
        ("what was not done is", Faults { refused: 0.1, refusal: Refusal::Timeout, ..none.clone() }),
        ("connections are cut", Faults { cut: 0.01, ..none.clone() }),
        ("all of these", Faults { swallowed: 0.02, lost: 0.02, disowned: 0.05, cut: 0.003, ..none }),
    ];
    bad_times(nodes, seed, plans, secs(4)).await
}

/// C22: what was given up is done later, up to well after the deadline.
pub(crate) async fn c22_writes_come_late(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let late = Faults { late: 0.03, delay: secs(8), reads: false, ..Faults::default() };
    let sometimes = Faults { late: 0.2, delay: secs(3), reads: false, ..Faults::default() };
    bad_times(nodes, seed, [("writes come 8 s late", late), ("writes come 3 s late", sometimes)], secs(10))
        .await
}

/// One bad time after the other, the same promises.
async fn bad_times<const N: usize>(
    nodes: &mut Cassandra,
    seed: u64,
    plans: [(&str, Faults); N],
    each: Duration,
) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    let mut back = Duration::ZERO;
    let proxy = nodes.proxy(0);
    let harmed = proxy.counts().harmed();
    let done = async {
        scene.load(RATE, secs(2)).await?;
        for (name, faults) in plans {
            let before = proxy.counts().harmed();
            scene.remark(name);
            proxy.set(faults);
            scene.load(RATE, each).await?;
            // All may still wait for an answer to what was done to them before.
            for _ in 0..5 {
                if proxy.counts().harmed() == before {
                    scene.load(RATE, secs(2)).await?;
                }
            }
            ensure!(proxy.counts().harmed() > before, "{name}: nothing happened");
        }
        proxy.heal();
        // What was sent before may still wait for its deadline.
        sleep(secs(5)).await;
        back = scene.remark("all is well again");
        scene.load(EAGER, secs(3)).await
    };
    let done = done.await;
    proxy.heal();
    let harmed = proxy.counts().harmed() - harmed;
    let verdict = scene.end(done).await?;
    verdict.ensure_good(nodes, |answers| {
        ensure!(harmed >= 20, "only {harmed} requests were harmed");
        ensure_all_served(answers, back)
    })
}

/// C23: errors and slow replies, and clients that go on as if there were none.
pub(crate) async fn c23_the_server_is_overloaded(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    let proxy = nodes.proxy(0);
    let mut back = Duration::ZERO;
    let mut retried = Vec::new();
    let done = async {
        scene.load(RATE, secs(2)).await?;
        let mut swarm = Swarm::start(&scene.server, 40).await?;
        let slow = Faults { slow: 0.3, delay: secs(2), ..Faults::default() };
        let refusing = Faults { refused: 0.5, slow: 0.5, delay: secs(1), ..Faults::default() };
        for (name, faults) in [("slow", slow), ("slow and refusing", refusing)] {
            let begin = scene.remark(format!("the node is {name}"));
            proxy.set(faults);
            // What is on the way to it is not slowed down.
            scene.load(RATE / 2, secs(3)).await?;
            let (before, told) = (proxy.counts().writes(), swarm.counts()?);
            scene.load(RATE / 2, secs(10)).await?;
            let (after, tells) = (proxy.counts().writes(), swarm.counts()?);
            println!(
                "  {name}: {} more messages of the swarm, {} refused",
                tells.0 - told.0,
                tells.1 - told.1
            );
            retried.push((name, after.0 - before.0, after.1 - before.1));
            scene.ensure_flat(begin + secs(3), scene.run.now())?;
        }
        proxy.heal();
        drop(swarm);
        sleep(secs(5)).await;
        back = scene.remark("all is well again");
        scene.load(EAGER, secs(3)).await
    };
    let done = done.await;
    proxy.heal();
    let verdict = scene.end(done).await?;
    verdict.ensure_good(nodes, |answers| {
        let (mut tried, mut again) = (0, 0);
        for (name, writes, repeated) in retried {
            println!("  {name}: {writes} writes, {repeated} of them retries");
            tried += writes - repeated;
            again += repeated;
        }
        ensure!(tried > 100, "only {tried} writes were tried");
        ensure!(again <= tried / 10 + SAVED, "{again} retries for {tried} writes");
        ensure_all_served(answers, back)
    })
}

/// A planted fault: a store that says "written" and has not. The judge must see it, or its silence means nothing.
pub(crate) async fn a_lying_store_is_found(nodes: &mut Cassandra, seed: u64) -> Result<()> {
    let mut scene = Scene::begin(nodes, seed, Manners::Smooth).await?;
    let done = async {
        scene.load(RATE, secs(2)).await?;
        scene.remark("the store lies");
        nodes.proxy(0).set(Faults { lied: 0.05, reads: false, ..Faults::default() });
        scene.load(RATE, secs(4)).await?;
        nodes.proxy(0).heal();
        anyhow::Ok(())
    };
    let done = done.await;
    nodes.proxy(0).heal();
    let mut verdict = scene.end(done).await?;
    if let Some(error) = verdict.broken() {
        return Err(error);
    }
    let found = verdict.violations.iter().filter(|v| v.kind == Kind::MissingRow).count();
    ensure!(found > 0, "rows were never written, and nobody noticed");
    println!("  {found} rows are missing, as they should");
    Ok(())
}

/// Who asks for what needs the store is told to come again, and nobody gets in on what is remembered of his password.
async fn ensure_told_to_wait(client: &mut Client, login: &Login, target: &Target) -> Result<()> {
    for (what, request) in [
        ("a contact", "<query xmlns='jabber:iq:roster'><item jid='bob@localhost'/></query>"),
        ("a blocked address", "<block xmlns='urn:xmpp:blocking'><item jid='bob@localhost'/></block>"),
        ("a page of the archive", "<query xmlns='urn:xmpp:mam:2'/>"),
    ] {
        let answer = client.iq(&format!("<iq type='set' id='{{id}}'>{request}</iq>")).await.context(what)?;
        let condition = answer.condition().unwrap_or_default();
        ensure!(condition == "wait resource-constraint", "{what}: {answer}");
    }
    let refused = login.connect(target).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("temporary-auth-failure"), "a login without a store: {refused:?}");
    Ok(())
}

/// While there was no store, nobody was told that anything was stored.
fn ensure_nothing_taken(answers: &Answers, (from, until): (Duration, Duration)) -> Result<()> {
    let taken = answers.taken(from + Duration::from_millis(100), until);
    ensure!(taken == 0, "{taken} messages were acknowledged while there was no store");
    let refused = answers.refused().filter(|a| from <= a.sent && a.sent <= until).count();
    ensure!(refused > 0, "no message was refused while there was no store");
    Ok(())
}
