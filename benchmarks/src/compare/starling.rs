//! Starling, from the release build, with its defaults but for the limits that one address would run into.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::archive;
use super::peer::{DOMAIN, Kind, PREFIX, Site, end, spawn, wait_for_port};
use crate::store::subject::Place;
use crate::target::{PASSWORD, user};

/// All load comes from few addresses, and from clients that write faster than people.
pub(crate) const LIMITS: &str = r#"
[limits.conn]
per_ip = 100000
unauth_per_ip = 100000
unauth_total = 100000
rate_per_ip = "1000000/s"

[limits.rate]
c2s_bytes = "1000000000/s"
c2s_bytes_burst = 1000000000
c2s_stanzas = "1000000/s"
c2s_stanzas_burst = 1000000
distinct_recipients = "1000000/s"
"#;

/// Makes the accounts with a server on all cores, which is then stopped: the measured one starts on its own core.
pub(super) async fn prepare(dir: &Path, site: &Site, kind: Kind) -> Result<Command> {
    let (binary, address) = (binary(site, kind)?, kind.address());
    let mut text = format!(
        "domains = [\"{DOMAIN}\"]\ndata_dir = {:?}\n\n[listen]\nc2s = \"off\"\nc2s_tls = \"{address}\"\n\
         admin = \"{}\"\n\n[tls]\ncert = {:?}\nkey = {:?}\n{LIMITS}",
        dir.join("data"),
        kind.admin(),
        dir.join("cert.pem"),
        dir.join("key.pem"),
    );
    if let Some(cql) = site.cql.as_ref().filter(|_| kind == Kind::Cql) {
        text += &format!(
            "\n[store]\nkind = \"scylla\"\ncontact_points = [{:?}]\nkeyspace = {:?}\n",
            cql.address, cql.keyspace
        );
    }
    fs::write(dir.join("starling.toml"), text)?;
    if kind == Kind::Cql {
        run(command(dir, binary, site, &["migrate", "apply"])).await?;
    }
    if let Some(archives) = &site.archives {
        let folder = dir.join("data/store");
        let place = match &site.cql {
            Some(cql) if kind == Kind::Cql => Place::Cql(cql),
            _ => Place::Folder(&folder),
        };
        fs::create_dir_all(dir.join("data"))?;
        archive::fill(place, archives).await?;
    }
    let mut csv = String::from("jid,password\n");
    for number in 0..site.accounts {
        csv += &format!("{}@{DOMAIN},{PASSWORD}\n", user(PREFIX, number));
    }
    fs::write(dir.join("accounts.csv"), csv)?;

    let mut server = spawn(dir, command(dir, binary, site, &["serve"]), None)?;
    let made = async {
        wait_for_port(address, &mut server, dir).await?;
        let mut import = command(dir, binary, site, &["ctl", "user", "import"]);
        import.arg(dir.join("accounts.csv"));
        run(import).await
    }
    .await;
    end(&mut server).await;
    made?;
    serve(dir, site, kind)
}

/// Starts the server on what [`prepare`] has made.
pub(super) fn serve(dir: &Path, site: &Site, kind: Kind) -> Result<Command> {
    Ok(command(dir, binary(site, kind)?, site, &["serve"]))
}

fn binary(site: &Site, kind: Kind) -> Result<&Path> {
    let binary = match kind {
        Kind::Baseline => site.baseline.as_deref().context("--baseline names the other build")?,
        Kind::Starling | Kind::Cql => &site.starling,
        Kind::Prosody | Kind::Ejabberd => bail!("only Starling can be started again on its data"),
    };
    ensure!(binary.is_file(), "there is no {}: cargo build --release --bin starling", binary.display());
    Ok(binary)
}

/// Runs a command to its end, off this thread.
pub(crate) async fn run(mut command: Command) -> Result<()> {
    command.stdin(Stdio::null());
    let name = format!("{command:?}");
    let done = tokio::task::spawn_blocking(move || command.output()).await?;
    let done = done.with_context(|| format!("cannot run {name}"))?;
    ensure!(
        done.status.success(),
        "{name}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

fn command(dir: &Path, binary: &Path, site: &Site, words: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.arg("--config").arg(dir.join("starling.toml"));
    for setting in &site.settings {
        command.arg("--set").arg(setting);
    }
    command.args(words);
    command
}
