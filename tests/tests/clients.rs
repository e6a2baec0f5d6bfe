//! Clients that others wrote: slixmpp and @xmpp/client, at fixed versions, each case a small program in
//! `tests/clients` with a fresh server, verified TLS and fresh accounts. `make clients` fetches the libraries.
//!
//! Once more against a cluster, one for all: every connection is made to another edge than the one before, so clients
//! resume elsewhere, and accounts are deleted and made again for the next case.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use starling_tests::Server;
use starling_tests::client::Target;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::{Form, Kind, PASSWORD, Store};

const LIMIT: Duration = Duration::from_secs(120);

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
    for (place, form) in places() {
        let mut shared = None;
        for library in &libraries {
            let folder = tests.join("clients").join(library.folder);
            for program in programs(&folder, library)? {
                let stem = program.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
                let name = format!("{}::{stem}{place}", library.name);
                if !wanted(&name) {
                    continue;
                }
                let missing = match &form {
                    Err(why) => Some(why.clone()),
                    Ok(_) if library.proof.exists() => None,
                    Ok(_) => Some(format!("{} is not installed: run `make clients`", library.name)),
                };
                if let (Ok(form), None) = (&form, &missing) {
                    let work = async {
                        let server = with_accounts(shared.take(), form).await?;
                        run(library, &program, &server).await?;
                        // It is used again only after a case that left it well.
                        shared = matches!(form, (_, Form::Cluster(_))).then_some(server);
                        Ok(())
                    };
                    let (outcome, took) = case(LIMIT, work).await;
                    report.note(&name, outcome, took);
                } else {
                    report.note(&name, Outcome::Skipped(missing.unwrap_or_default()), Duration::ZERO);
                }
            }
        }
    }
    Ok(report.finish())
}

/// A server and its form.
type Place = (Kind, Form);

/// Where the cases run, with the end of their names: in every form of ours. `STARLING_REFERENCE` tries the cases
/// themselves on another server.
fn places() -> Vec<(&'static str, Result<Place, String>)> {
    let alone = Form::Alone(Store::Embedded);
    let kind = match std::env::var("STARLING_REFERENCE").as_deref() {
        Ok("prosody") => Kind::Prosody,
        Ok("ejabberd") => Kind::Ejabberd,
        _ => {
            let ours = |form: Result<Form, String>| form.map(|form| (Kind::Starling, form));
            let on_cql = Store::shared_cql().map(Form::Alone);
            return vec![
                ("", ours(Ok(alone))),
                ("_on_cql", ours(on_cql)),
                ("_on_cluster", ours(Form::cluster())),
            ];
        }
    };
    vec![("", Ok((kind, alone)))]
}

/// A server that nobody has used: a new one, or one whose accounts are made anew.
async fn with_accounts(used: Option<Server>, (kind, form): &Place) -> Result<Server> {
    const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
    let server = match (used, kind) {
        (Some(server), _) => {
            for user in USERS {
                server.ctl(&["user", "del", "--yes", &format!("{user}@localhost")], "").await?;
            }
            server
        }
        (None, Kind::Starling) => Server::start_as(form, &[]).await?,
        (None, reference) => Server::start_kind(*reference, &[]).await?,
    };
    for user in USERS {
        server.add_user(user).await?;
    }
    Ok(server)
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

async fn run(library: &Library, program: &Path, server: &Server) -> Result<()> {
    let ports = |of: fn(&Target) -> Option<SocketAddr>| {
        let port = |target| Some(of(target)?.port().to_string());
        let ports: Option<Vec<String>> = server.targets().iter().map(port).collect();
        anyhow::Ok(ports.context("no direct TLS address")?.join(" "))
    };
    let output = server.directory().join("client.log");
    let log = fs::File::create(&output)?;
    let mut child = Command::new(&library.interpreter)
        .arg(program)
        .env("XMPP_PORTS", ports(|target| Some(target.c2s))?)
        .env("XMPP_TLS_PORTS", ports(|target| target.c2s_tls)?)
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
