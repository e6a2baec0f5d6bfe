//! Prosody as a reference, from the Debian packages `prosody` and `prosody-modules`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Server, free_ports};

/// The command that runs Prosody in the foreground from the server's folder.
pub(super) fn command(server: &mut Server) -> Result<Command> {
    if server.starts == 1 {
        let [c2s, tls] = free_ports()?;
        server.targets[0].c2s = c2s;
        server.targets[0].c2s_tls = Some(tls);
    }
    let dir = server.directory();
    let config = format!(
        r#"pidfile = "{dir}/prosody.pid"; data_path = "{dir}/data"; interfaces = {{ "127.0.0.1" }}
c2s_require_encryption = true; authentication = "internal_hashed"; storage = "internal"
c2s_ports = {{ {c2s} }}; c2s_direct_tls_ports = {{ {tls} }}
ssl = {{ certificate = "{cert}", key = "{key}" }}
allow_registration = true; default_archive_policy = true; max_archive_query_results = 50
archive_expires_after = "1w"; smacks_hibernation_time = 60; registration_whitelist = {{ "127.0.0.1" }}
log = {{ {{ levels = {{ min = "info" }}, to = "console" }} }}
modules_disabled = {{ "limits", "s2s", "http" }}
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "blocklist", "carbons", "private", "smacks", "csi_simple",
  "ping", "register", "register_ibr", "time", "version", "offline", "posix", "mam" }}
VirtualHost "{domain}"
"#,
        dir = dir.display(),
        c2s = server.targets[0].c2s.port(),
        tls = server.targets[0].c2s_tls.context("no TLS port")?.port(),
        cert = server.certificate.chain.display(),
        key = server.certificate.key.display(),
        domain = server.targets[0].domain,
    );
    fs::create_dir_all(server.data())?;
    fs::write(dir.join("prosody.cfg.lua"), config)?;
    // It refuses to run as root, more or less: depending on the order in which it happens to load its modules.
    let mut command = if nix::unistd::geteuid().is_root() {
        let owned = Command::new("chown").arg("-R").arg("prosody:prosody").arg(dir).status()?;
        ensure!(owned.success(), "cannot give {} to the user prosody", dir.display());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "prosody", "--regid", "prosody", "--init-groups", "prosody"]);
        command
    } else {
        Command::new("prosody")
    };
    command.arg("--config").arg(dir.join("prosody.cfg.lua")).arg("-F");
    command.env("HOME", dir);
    Ok(command)
}
