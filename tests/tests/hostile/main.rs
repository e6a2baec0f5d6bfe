//! Hostile input: every case sends something that must not work, sees the error that the standards ask for, and then
//! shows that a good client on the same server noticed nothing. The letters and numbers in the names are the rows of our
//! list: X for XML, T for streams and TLS, A for authentication, S for stanzas, R, H for roster and archive.
#![allow(clippy::disallowed_methods)]

mod archive;
mod auth;
mod binding;
mod content;
mod limits;
mod roster;
mod scene;
mod stanzas;
mod streams;
mod tls;
mod xml;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use starling_tests::Server;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::Store;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use scene::{Case, Scene, nothing_panicked};

const AT_ONCE: usize = 6;
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut report = Report::default();
    let cases = [
        xml::cases(),
        limits::cases(),
        content::cases(),
        streams::cases(),
        tls::cases(),
        auth::cases(),
        stanzas::cases(),
        binding::cases(),
        roster::cases(),
        archive::cases(),
    ];
    run("", &Store::Embedded, cases.concat(), &mut report).await?;
    // What reaches a store, once more on the other one; what needs a server of its own tests the edge.
    let mut cases = [stanzas::cases(), binding::cases(), roster::cases(), archive::cases()].concat();
    cases.retain(|case| case.settings.is_empty());
    match Store::shared_cql() {
        Ok(store) => run("_on_cql", &store, cases, &mut report).await?,
        Err(why) => {
            for case in cases.iter().filter(|case| wanted(&format!("{}_on_cql", case.name))) {
                let name = format!("{}_on_cql", case.name);
                report.note(&name, Outcome::Skipped(why.clone()), Duration::ZERO);
            }
        }
    }
    Ok(report.finish())
}

async fn run(ending: &'static str, store: &Store, mut cases: Vec<Case>, report: &mut Report) -> Result<()> {
    cases.retain(|case| wanted(&format!("{}{ending}", case.name)));
    if cases.is_empty() {
        return Ok(());
    }
    let shared = Arc::new(Server::start_on(store, &[]).await?);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for (number, one) in cases.into_iter().enumerate() {
        let (shared, room, store) = (shared.clone(), room.clone(), store.clone());
        running.spawn(async move {
            let _turn = room.acquire_owned().await;
            let work = async {
                let (server, own) = match one.settings {
                    [] => (shared, false),
                    settings => (Arc::new(Server::start_on(&store, settings).await?), true),
                };
                let mut scene = Scene::new(server.clone(), number).await?;
                (one.run)(&mut scene).await?;
                scene.all_is_well().await?;
                if own { nothing_panicked(&server) } else { Ok(()) }
            };
            (one.name, case(LIMIT, work).await)
        });
    }
    while let Some(done) = running.join_next().await {
        let (name, (outcome, took)) = done?;
        report.note(&format!("{name}{ending}"), outcome, took);
    }
    let (outcome, took) = case(LIMIT, async { nothing_panicked(&shared) }).await;
    report.note(&format!("nothing_panicked{ending}"), outcome, took);
    Ok(())
}
