//! Clients that others wrote: slixmpp and @xmpp/client, at fixed versions, each case a small program in
//! `tests/clients` with a fresh server, verified TLS and two accounts. `make clients` fetches the libraries.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use starling_tests::Server;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::{Kind, PASSWORD, Store};

const LIMIT: Duration = Duration::from_secs(60);

/// A library and how its cases are run.
struct Library {
    name: &'static str,
    folder: &'static str,
    ending: &'static str,
    interpreter: PathBuf,
    /// Where the cases are copied to, if the interpreter finds libraries beside them only.
    workplace: Option<PathBuf>,
    /// What must exist for the library to be there.
    proof: PathBuf,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = tests.join("../.cache/clients");
    let libraries = [
        Library {
            name: "slixmpp",
            folder: "slixmpp",
            ending: "py",
            interpreter: cache.join("python/bin/python"),
            workplace: None,
            proof: cache.join("python/installed.txt"),
        },
        Library {
            name: "xmppjs",
            folder: "xmppjs",
            ending: "mjs",
            interpreter: "node".into(),
            workplace: Some(cache.join("javascript/cases")),
            proof: cache.join("javascript/installed.json"),
        },
    ];
    let mut report = Report::default();
    for (place, store) in places() {
        for library in &libraries {
            let folder = tests.join("clients").join(library.folder);
            for program in programs(&folder, library)? {
                let stem = program.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
                let name = format!("{}::{stem}{place}", library.name);
                if !wanted(&name) {
                    continue;
                }
                let missing = match &store {
                    Err(why) => Some(why.clone()),
                    Ok(_) if library.proof.exists() => None,
                    Ok(_) => Some(format!("{} is not installed: run `make clients`", library.name)),
                };
                if let (Ok(place), None) = (&store, &missing) {
                    let (outcome, took) = case(LIMIT, run(library, &program, place)).await;
                    report.note(&name, outcome, took);
                } else {
                    report.note(&name, Outcome::Skipped(missing.unwrap_or_default()), Duration::ZERO);
                }
            }
        }
    }
    Ok(report.finish())
}

/// A server and its store.
type Place = (Kind, Store);

/// Where the cases run, with the end of their names: on every store of ours. `STARLING_REFERENCE` tries the cases
/// themselves on another server.
fn places() -> Vec<(&'static str, Result<Place, String>)> {
    let kind = match std::env::var("STARLING_REFERENCE").as_deref() {
        Ok("prosody") => Kind::Prosody,
        Ok("ejabberd") => Kind::Ejabberd,
        _ => {
            let ours = |store: Result<Store, String>| store.map(|store| (Kind::Starling, store));
            return vec![("", ours(Ok(Store::Embedded))), ("_on_cql", ours(Store::shared_cql()))];
        }
    };
    vec![("", Ok((kind, Store::Embedded)))]
}

/// The case programs of a library; those of the workplace, if it has one.
fn programs(folder: &Path, library: &Library) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let mut path = entry?.path();
        if path.extension().and_then(|e| e.to_str()) != Some(library.ending) {
            continue;
        }
        if let (Some(place), true) = (&library.workplace, library.proof.exists()) {
            fs::create_dir_all(place)?;
            let copy = place.join(path.file_name().context("a file has a name")?);
            fs::copy(&path, &copy)?;
            path = copy;
        }
        if path.file_stem().is_some_and(|stem| stem != "common") {
            programs.push(path);
        }
    }
    programs.sort();
    Ok(programs)
}

async fn run(library: &Library, program: &Path, (kind, store): &Place) -> Result<()> {
    let server = match kind {
        Kind::Starling => Server::start_on(store, &[]).await?,
        reference => Server::start_kind(*reference, &[]).await?,
    };
    for user in ["alice", "bob", "carol", "dave"] {
        server.add_user(user).await?;
    }
    let target = server.target();
    let tls = target.c2s_tls.context("no direct TLS address")?;
    let output = server.directory().join("client.log");
    let log = fs::File::create(&output)?;
    let mut child = Command::new(&library.interpreter)
        .arg(program)
        .env("XMPP_PORT", target.c2s.port().to_string())
        .env("XMPP_TLS_PORT", tls.port().to_string())
        .env("XMPP_CA", &server.certificate().authority)
        .env("XMPP_PASSWORD", PASSWORD)
        .env("NODE_EXTRA_CA_CERTS", &server.certificate().authority)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {}", library.interpreter.display()))?;
    let deadline = Instant::now() + LIMIT - Duration::from_secs(10);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("not done in time; it said:\n{}", tail(&output));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if !status.success() {
        bail!("{status}; it said:\n{}", tail(&output));
    }
    Ok(())
}

fn tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
