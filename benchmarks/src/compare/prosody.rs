//! Prosody as Debian has it, with its archive on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::peer::{DOMAIN, Kind, PREFIX, Site, as_user};
use crate::sasl::Keys;
use crate::target::{PASSWORD, user};

/// What Prosody 0.12 uses for new passwords.
const ITERATIONS: u32 = 10_000;

/// Writes the configuration and an account file for each account.
pub(super) fn prepare(dir: &Path, site: &Site) -> Result<Command> {
    let address = Kind::Prosody.address();
    let config = format!(
        r#"pidfile = "{dir}/prosody.pid"; data_path = "{dir}/data"; interfaces = {{ "{ip}" }}
network_backend = "epoll"; network_settings = {{ tcp_backlog = 1024 }}
c2s_require_encryption = true; authentication = "internal_hashed"; storage = "internal"
c2s_ports = {{ }}; c2s_direct_tls_ports = {{ {port} }}
ssl = {{ certificate = "{dir}/cert.pem", key = "{dir}/key.pem" }}
archive_expires_after = "1w"; default_archive_policy = true; max_archive_query_results = 50
log = {{ {{ levels = {{ min = "warn" }}, to = "console" }} }}
modules_disabled = {{ "limits", "s2s", "http" }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "blocklist", "bookmarks", "carbons", "pep", "private", "smacks",
  "vcard4", "vcard_legacy", "csi_simple", "ping", "time", "version", "offline", "posix", "mam" }}
VirtualHost "{DOMAIN}"
"#,
        dir = dir.display(),
        ip = address.ip(),
        port = address.port(),
    );
    fs::write(dir.join("prosody.cfg.lua"), config)?;
    let accounts = dir.join("data").join(DOMAIN.replace('.', "%2e")).join("accounts");
    fs::create_dir_all(&accounts)?;
    let salt = "starling-benchmark";
    let keys = Keys::derive(PASSWORD, salt.as_bytes(), ITERATIONS)?;
    let account = format!(
        "return {{\n[\"salt\"] = \"{salt}\";\n[\"iteration_count\"] = {ITERATIONS};\n\
         [\"stored_key\"] = \"{}\";\n[\"server_key\"] = \"{}\";\n}};\n",
        hex(&keys.stored()),
        hex(&keys.server()),
    );
    for number in 0..site.accounts {
        fs::write(accounts.join(format!("{}.dat", user(PREFIX, number))), &account)?;
    }
    let mut command = as_user(dir, "prosody", "prosody")?;
    command.arg("--config").arg(dir.join("prosody.cfg.lua")).arg("-F").env("HOME", dir);
    Ok(command)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
