//! ejabberd as Debian has it, with its archive in Mnesia, its default. That archive slows down as it grows.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use base64::prelude::{BASE64_STANDARD, Engine};

use super::peer::{DOMAIN, Kind, PREFIX, Site, as_user};
use crate::sasl::Keys;
use crate::target::PASSWORD;

/// What ejabberd 23.01 uses for new passwords.
const ITERATIONS: u32 = 4_096;

/// What the server prints when it has its accounts. Until then nobody may try one: it remembers who was unknown.
pub(super) const READY: &str = "accounts are there";

/// Writes the configuration; accounts are put into Mnesia by the server itself, once it is up.
pub(super) fn prepare(dir: &Path, site: &Site) -> Result<Command> {
    let address = Kind::Ejabberd.address();
    let config = format!(
        r#"hosts: ["{DOMAIN}"]
loglevel: warning
certfiles: ["{dir}/both.pem"]
shaper: {{}}
shaper_rules: {{}}
acl: {{local: {{user_regexp: ""}}}}
access_rules: {{local: {{allow: local}}, c2s: {{allow: all}}}}
auth_method: internal
auth_password_format: scram
default_db: mnesia
listen:
  - {{port: {port}, ip: "{ip}", module: ejabberd_c2s, tls: true, max_stanza_size: 262144, backlog: 1024}}
modules: {{mod_adhoc: {{}}, mod_blocking: {{}}, mod_caps: {{}}, mod_carboncopy: {{}}, mod_client_state: {{}},
  mod_disco: {{}}, mod_last: {{}}, mod_mam: {{assume_mam_usage: true, default: always}}, mod_offline: {{}},
  mod_ping: {{}}, mod_privacy: {{}}, mod_private: {{}}, mod_pubsub: {{plugins: [flat, pep]}},
  mod_roster: {{versioning: true}}, mod_stream_mgmt: {{resend_on_timeout: if_offline}}, mod_time: {{}},
  mod_vcard: {{search: false}}, mod_version: {{}}}}
"#,
        dir = dir.display(),
        ip = address.ip(),
        port = address.port(),
    );
    fs::write(dir.join("ejabberd.yml"), config)?;
    fs::create_dir_all(dir.join("data"))?;
    // Without this file Erlang asks the machine's resolver for its own name.
    fs::write(dir.join("inetrc"), "{lookup,[file]}.\n")?;
    let salt = b"starling-benchmark";
    let keys = Keys::derive(PASSWORD, salt, ITERATIONS)?;
    let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let accounts = format!(
        "{{ok, _}} = application:ensure_all_started(ejabberd), \
         [ok = mnesia:dirty_write({{passwd, {{iolist_to_binary([\"{PREFIX}\", integer_to_list(N)]), <<\"{DOMAIN}\">>}}, \
         {{scram, <<\"{}\">>, <<\"{}\">>, <<\"{}\">>, sha, {ITERATIONS}}}}}) || N <- lists:seq(0, {})], \
         io:format(\"{READY}~n\").",
        encode(&keys.stored()),
        encode(&keys.server()),
        encode(salt),
        site.accounts - 1,
    );
    // Started by hand there is no node name, hence no epmd to share, and `erl` becomes the server process itself.
    let mut command = as_user(dir, "ejabberd", "erl")?;
    command.args(["-noinput", "+K", "true", "+P", "1000000", "+Q", "200000", "-mnesia", "dir"]);
    command.arg(format!("\"{}\"", dir.join("data").display())).args(["-s", "ejabberd", "-eval", &accounts]);
    command
        .env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu")
        .env("HOME", dir)
        .env("ERL_INETRC", dir.join("inetrc"));
    command.env("EJABBERD_CONFIG_PATH", dir.join("ejabberd.yml"));
    command.env("EJABBERD_LOG_PATH", dir.join("ejabberd.log"));
    command.env("ERL_CRASH_DUMP", dir.join("erl_crash.dump"));
    Ok(command)
}
