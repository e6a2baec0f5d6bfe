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

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use starling_tests::Server;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::{Form, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use scene::{Case, Scene, nothing_panicked};

const AT_ONCE: usize = 6;
const LIMIT: Duration = Duration::from_secs(180);
/// What a server is set to.
type Settings = &'static [(&'static str, &'static str)];
/// How the names of cases end that run on a cluster.
const CLUSTER: &str = "_on_cluster";

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
    let cases = cases.concat();
    run("", &Store::Embedded, cases.clone(), &mut report).await?;
    // What reaches a store, once more on the other one; what needs a server of its own tests the edge.
    let mut stored = [stanzas::cases(), binding::cases(), roster::cases(), archive::cases()].concat();
    stored.retain(|case| case.settings.is_empty());
    match Store::shared_cql() {
        Ok(store) => run("_on_cql", &store, stored, &mut report).await?,
        Err(why) => skip("_on_cql", &stored, &why, &mut report),
    }
    match Form::cluster() {
        Ok(form) => run_on_cluster(&form, cases, &mut report).await?,
        Err(why) => skip(CLUSTER, &cases, &why, &mut report),
    }
    Ok(report.finish())
}

fn skip(ending: &str, cases: &[Case], why: &str, report: &mut Report) {
    for case in cases {
        let name = format!("{}{ending}", case.name);
        if wanted(&name) {
            report.note(&name, Outcome::Skipped(why.to_owned()), Duration::ZERO);
        }
    }
}

/// All of them, the connections of each at one edge after the other. Processes and tables are many: cases that need settings
/// of their own come after the others, one by one, and the cluster is started again for each such setting.
async fn run_on_cluster(form: &Form, mut cases: Vec<Case>, report: &mut Report) -> Result<()> {
    cases.retain(|case| wanted(&format!("{}{CLUSTER}", case.name)));
    let mut groups: BTreeMap<Settings, Vec<(usize, Case)>> = BTreeMap::new();
    for (number, one) in cases.into_iter().enumerate() {
        groups.entry(one.settings).or_default().push((number, one));
    }
    let mut before: Option<Server> = None;
    for (settings, cases) in groups {
        let server = match before.take() {
            Some(mut server) => {
                server.restart_with(settings).await?;
                server
            }
            None => Server::start_as(form, settings).await?,
        };
        let server = Arc::new(server);
        let room = Arc::new(Semaphore::new(if settings.is_empty() { AT_ONCE } else { 1 }));
        let mut running = JoinSet::new();
        for (number, one) in cases {
            let (server, room) = (server.clone(), room.clone());
            running.spawn(async move {
                let _turn = room.acquire_owned().await;
                let work = async {
                    let mut scene = Scene::new(server, number).await?;
                    (one.run)(&mut scene).await?;
                    scene.all_is_well().await
                };
                (one.name, case(LIMIT, work).await)
            });
        }
        while let Some(done) = running.join_next().await {
            let (name, (outcome, took)) = done?;
            report.note(&format!("{name}{CLUSTER}"), outcome, took);
        }
        before = Arc::into_inner(server);
    }
    if let Some(server) = before {
        let (outcome, took) = case(LIMIT, async { nothing_panicked(&server) }).await;
        report.note(&format!("nothing_panicked{CLUSTER}"), outcome, took);
    }
    Ok(())
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
