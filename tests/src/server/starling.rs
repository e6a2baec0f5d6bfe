//! How the tests start and steer `starling serve`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::timeout;

use super::Server;
use super::cluster::Cluster;

/// Settings in place of limits that would stop a test which opens many connections from one address.
pub const WIDE: &[(&str, &str)] = &[
    ("limits.conn.per_ip", "10000"),
    ("limits.conn.unauth_per_ip", "5000"),
    ("limits.conn.unauth_total", "5000"),
    ("limits.conn.rate_per_ip", "100000/s"),
    ("limits.auth.failures_per_ip_window", "100000/h"),
    ("limits.auth.failures_per_account_window", "100000/h"),
    ("limits.rate.c2s_bytes", "100000000/s"),
    ("limits.rate.c2s_bytes_burst", "100000000"),
    ("limits.rate.c2s_stanzas", "100000/s"),
    ("limits.rate.c2s_stanzas_burst", "100000"),
    ("limits.rate.distinct_recipients", "100000/s"),
    ("limits.registration.per_ip_per_hour", "100000"),
    // Accounts are made and logged in by the hundred, and a build for tests hashes slowly.
    ("auth.iterations", "4096"),
];

/// The binary under test: `STARLING_BIN`, or the newest of the debug and release builds.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STARLING_BIN") {
        return Ok(PathBuf::from(path));
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let built = |profile: &str| target.join(profile).join("starling");
    ["debug", "release"]
        .map(built)
        .into_iter()
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .context("no starling binary: run `cargo build --bin starling` or set STARLING_BIN")
}

/// The command that serves from the server's folder; a restart keeps the ports of the first start.
pub(super) fn command(server: &Server) -> Result<Command> {
    configure(server)?;
    let mut command = Command::new(binary()?);
    command.arg("serve").arg("--config").arg(server.directory().join("starling.toml"));
    with_settings(server, &mut command);
    Ok(command)
}

/// Adds what every server of the tests is set to, and what this one is.
pub(super) fn with_settings(server: &Server, command: &mut Command) {
    let wide = WIDE.iter().map(|(k, v)| (*k, *v));
    for (key, value) in wide.chain(server.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()))) {
        command.arg("--set").arg(format!("{key}={value}"));
    }
}

fn configure(server: &Server) -> Result<()> {
    let (dir, target) = (server.directory(), &server.targets[0]);
    let tls = target.c2s_tls.unwrap_or(target.c2s);
    let admin = server.admin.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let mut config = format!(
        "domains = [\"{domain}\"]\ndata_dir = {data:?}\n\n[listen]\nc2s = \"{c2s}\"\nc2s_tls = \"{tls}\"\n\
         admin = \"{admin}\"\n\n[tls]\ncert = {cert:?}\nkey = {key:?}\n",
        domain = target.domain,
        data = server.data(),
        c2s = target.c2s,
        cert = server.certificate.chain,
        key = server.certificate.key,
    );
    config.extend(server.keyspace.iter().map(|keyspace| keyspace.config()));
    fs::create_dir_all(server.data())?;
    fs::write(dir.join("starling.toml"), config)?;
    Ok(())
}

/// Makes the keyspace and its tables.
pub(super) async fn migrate(server: &Server) -> Result<()> {
    configure(server)?;
    run(server, &["migrate", "apply"], &[], "").await.map(|_| ())
}

/// Takes the addresses from the lines `listening c2s 127.0.0.1:40123`; true once all that we asked for are there.
pub(super) fn read_addresses(server: &mut Server, log: &str) -> Result<bool> {
    let address = |name: &str| {
        log.lines().find_map(|line| {
            let mut words = line.split_whitespace().skip_while(|w| *w != "listening").skip(1);
            (words.next() == Some(name)).then(|| words.next())??.parse().ok()
        })
    };
    let (Some(c2s), Some(tls), Some(admin)) = (address("c2s"), address("c2s_tls"), address("admin")) else {
        return Ok(false);
    };
    server.targets[0].c2s = c2s;
    server.targets[0].c2s_tls = Some(tls);
    server.admin = Some(admin);
    Ok(true)
}

pub(super) async fn add_user(server: &Server, user: &str, password: &str) -> Result<()> {
    let jid = format!("{user}@{}", server.domain());
    ctl(server, &["user", "add", &jid], password).await.map(|_| ())
}

pub(super) async fn ctl(server: &Server, arguments: &[&str], input: &str) -> Result<String> {
    run(server, &["ctl"], arguments, input).await
}

/// Runs `starling` with the configuration of this server, of the routers of a cluster in turn.
pub(super) async fn run(
    server: &Server,
    command: &[&str],
    arguments: &[&str],
    input: &str,
) -> Result<String> {
    let shown = format!("starling {} {}", command.join(" "), arguments.join(" "));
    let mut process = Command::new(binary()?);
    let config = match &server.cluster {
        Some(_) => {
            let turn = server.turns[1].fetch_add(1, Relaxed) % Cluster::routers().count();
            Cluster::routers().nth(turn).context("no router")?
        }
        None => "starling".to_owned(),
    };
    process.args(command).arg("--config").arg(server.directory().join(format!("{config}.toml")));
    process.args(arguments);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = process.spawn().with_context(|| format!("cannot run {process:?}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that needs no input may have ended already.
            let _ = stdin.write_all(input.as_bytes());
        }
        anyhow::Ok(child.wait_with_output()?)
    });
    let Ok(output) = timeout(Duration::from_secs(60), run).await else { bail!("{shown} takes too long") };
    let output = output??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{shown}: {}; {printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}
