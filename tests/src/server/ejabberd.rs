//! ejabberd as a reference, from the Debian package `ejabberd`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Server, free_ports};

/// The command that runs ejabberd in the foreground from the server's folder.
pub(super) fn command(server: &mut Server) -> Result<Command> {
    if server.starts == 1 {
        let [c2s, tls] = free_ports()?;
        server.targets[0].c2s = c2s;
        server.targets[0].c2s_tls = Some(tls);
    }
    let dir = server.directory();
    let config = format!(
        r#"hosts: ["{domain}"]
loglevel: warning
certfiles: ["{both}"]
shaper: {{}}
shaper_rules: {{}}
acl: {{local: {{user_regexp: ""}}}}
access_rules: {{local: {{allow: local}}, c2s: {{allow: all}}, register: {{allow: all}}}}
registration_timeout: infinity
auth_method: internal
auth_password_format: scram
default_db: mnesia
listen:
  - {{port: {c2s}, ip: "127.0.0.1", module: ejabberd_c2s, starttls_required: true, max_stanza_size: 262144}}
  - {{port: {tls}, ip: "127.0.0.1", module: ejabberd_c2s, tls: true, max_stanza_size: 262144}}
modules: {{mod_adhoc: {{}}, mod_blocking: {{}}, mod_caps: {{}}, mod_carboncopy: {{}}, mod_client_state: {{}},
  mod_disco: {{}}, mod_last: {{}}, mod_mam: {{assume_mam_usage: true, default: always}}, mod_offline: {{}},
  mod_ping: {{}}, mod_privacy: {{}}, mod_private: {{}}, mod_register: {{ip_access: all, access: register}},
  mod_roster: {{versioning: true}}, mod_stream_mgmt: {{resend_on_timeout: if_offline}}, mod_time: {{}},
  mod_version: {{}}}}
"#,
        domain = server.targets[0].domain,
        both = server.certificate.both.display(),
        c2s = server.targets[0].c2s.port(),
        tls = server.targets[0].c2s_tls.context("no TLS port")?.port(),
    );
    fs::create_dir_all(server.data())?;
    fs::write(dir.join("ejabberd.yml"), config)?;
    // Without a node name of its own there is no epmd to share with other nodes of this machine, and `erl` becomes the
    // server process itself, so that ending it ends all of it.
    let mut command = Command::new("erl");
    command.args(["-noinput", "+K", "true", "-mnesia", "dir"]);
    command.arg(format!("\"{}\"", server.data().display())).args(["-s", "ejabberd"]);
    command.env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu").env("HOME", dir);
    command.env("EJABBERD_CONFIG_PATH", dir.join("ejabberd.yml"));
    command.env("EJABBERD_LOG_PATH", dir.join("ejabberd.log"));
    command.env("ERL_CRASH_DUMP", dir.join("erl_crash.dump"));
    Ok(command)
}
