//! Plays every `tests/scripts/*.xmpp` and prints a line for each. Arguments choose scripts by a part of their name.
//!
//! Against Starling by default, on each of its stores, and against the edges of a cluster, each of a script's clients at
//! another one; `STARLING_REFERENCE=prosody,ejabberd` plays them against those
//! instead.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use starling_tests::Server;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::script::{Script, play, prepare};
use starling_tests::server::{Form, Kind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Scripts spend most of their time waiting, so several share a server at a time.
const AT_ONCE: usize = 8;
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "xmpp") {
            scripts.push(Script::load(&path)?);
        }
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));

    let mut report = Report::default();
    let references = references()?;
    for kind in &references {
        let server = Server::start_kind(*kind, &[]).await.context("starting the server")?;
        run(kind.name(), &Arc::new(server), chosen(kind.name(), &scripts), &mut report).await?;
    }
    if !references.is_empty() {
        return Ok(report.finish());
    }
    for (name, form) in Form::all() {
        let scripts = chosen(name, &scripts);
        let form = match form {
            Ok(form) => form,
            Err(why) => {
                skip(name, &scripts, &why, &mut report);
                continue;
            }
        };
        // Servers with different settings cannot be shared.
        let mut groups: BTreeMap<Vec<(String, String)>, Vec<Script>> = BTreeMap::new();
        for script in &scripts {
            groups.entry(script.settings.clone()).or_default().push(script.clone());
        }
        let mut before: Option<Server> = None;
        for (settings, scripts) in groups {
            let settings: Vec<(&str, &str)> =
                settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            // Tables take their time: a cluster is started again on those that it has.
            let server = match before.take().filter(|_| matches!(form, Form::Cluster(_))) {
                Some(mut server) => {
                    server.restart_with(&settings).await.context("starting the server again")?;
                    server
                }
                None => Server::start_as(&form, &settings).await.context("starting the server")?,
            };
            let server = Arc::new(server);
            run(name, &server, scripts, &mut report).await?;
            before = Arc::into_inner(server);
        }
    }
    Ok(report.finish())
}

/// Those that the command line asks for.
fn chosen(prefix: &str, scripts: &[Script]) -> Vec<Script> {
    scripts.iter().filter(|script| wanted(&format!("{prefix}::{}", script.name))).cloned().collect()
}

fn skip(prefix: &str, scripts: &[Script], why: &str, report: &mut Report) {
    for script in scripts {
        report.note(&format!("{prefix}::{}", script.name), Outcome::Skipped(why.to_owned()), Duration::ZERO);
    }
}

async fn run(prefix: &str, server: &Arc<Server>, scripts: Vec<Script>, report: &mut Report) -> Result<()> {
    let kind = server.kind();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for script in scripts {
        let name = format!("{prefix}::{}", script.name);
        if let Some((_, reason)) = script.skipped.iter().find(|(k, _)| *k == kind) {
            report.note(&name, Outcome::Skipped(reason.clone()), Duration::ZERO);
            continue;
        }
        let (server, room) = (server.clone(), room.clone());
        running.spawn(async move {
            let _turn = room.acquire_owned().await;
            let work = async {
                prepare(&script, &server).await?;
                play(&script, &server).await
            };
            (name, case(LIMIT, work).await)
        });
    }
    while let Some(done) = running.join_next().await {
        let (name, (outcome, took)) = done?;
        report.note(&name, outcome, took);
    }
    Ok(())
}

fn references() -> Result<Vec<Kind>> {
    let names = std::env::var("STARLING_REFERENCE").unwrap_or_default();
    let mut kinds = Vec::new();
    for name in names.split(',').filter(|n| !n.is_empty()) {
        match [Kind::Prosody, Kind::Ejabberd].into_iter().find(|k| k.name() == name) {
            Some(kind) => kinds.push(kind),
            None => bail!("STARLING_REFERENCE names an unknown server: {name}"),
        }
    }
    Ok(kinds)
}
