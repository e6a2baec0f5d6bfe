//! Starling, from the release build, with its defaults but for the limits that one address would run into.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::peer::{DOMAIN, Kind, PREFIX, Site, end, spawn, wait_for_port};
use crate::target::{PASSWORD, user};

/// All load comes from few addresses, and from clients that write faster than people.
const LIMITS: &str = r#"
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
pub(super) async fn prepare(dir: &Path, site: &Site) -> Result<Command> {
    ensure!(
        site.starling.is_file(),
        "there is no {}: cargo build --release --bin starling",
        site.starling.display()
    );
    let address = Kind::Starling.address();
    let text = format!(
        "domains = [\"{DOMAIN}\"]\ndata_dir = {:?}\n\n[listen]\nc2s = \"off\"\nc2s_tls = \"{address}\"\n\
         admin = \"off\"\n\n[tls]\ncert = {:?}\nkey = {:?}\n{LIMITS}",
        dir.join("data"),
        dir.join("cert.pem"),
        dir.join("key.pem"),
    );
    fs::write(dir.join("starling.toml"), text)?;
    let mut csv = String::from("jid,password\n");
    for number in 0..site.accounts {
        csv += &format!("{}@{DOMAIN},{PASSWORD}\n", user(PREFIX, number));
    }
    fs::write(dir.join("accounts.csv"), csv)?;

    let mut server = spawn(dir, command(dir, site, &["serve"]), None)?;
    let made = async {
        wait_for_port(address, &mut server, dir).await?;
        let mut import = command(dir, site, &["ctl", "user", "import"]);
        import.arg(dir.join("accounts.csv")).stdin(Stdio::null());
        let done = import.output().context("cannot import accounts")?;
        ensure!(
            done.status.success(),
            "cannot import accounts: {}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        anyhow::Ok(())
    }
    .await;
    end(&mut server).await;
    made?;
    Ok(command(dir, site, &["serve"]))
}

fn command(dir: &Path, site: &Site, words: &[&str]) -> Command {
    let mut command = Command::new(&site.starling);
    command.arg("--config").arg(dir.join("starling.toml"));
    for setting in &site.settings {
        command.arg("--set").arg(setting);
    }
    command.args(words);
    command
}
