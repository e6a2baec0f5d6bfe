//! The binary as scripts see it: what it prints, where, and how it ends.

#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::write(dir.path().join("starling.toml"), format!("data_dir = {data:?}\n{config}")).unwrap();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(arguments)
            .arg("--config")
            .arg(self.path().join("starling.toml"))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn version_is_text_or_json() {
    let place = Place::new("");
    assert!(stdout(&place.run(&["version"], "")).starts_with("starling 0."));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&place.run(&["version", "--json"], ""))).unwrap();
    assert_eq!(json["name"], "starling");
}

#[test]
fn config_show_names_the_source_of_each_value() {
    let place = Place::new("domains = [\"example.org\"]\n");
    let output = place.run(&["config", "show", "--set", "limits.sm.max_unacked=77"], "");
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let line = |begin: &str| text.lines().find(|line| line.starts_with(begin)).unwrap().to_owned();
    assert!(line("domains").contains("starling.toml:2"), "{text}");
    assert!(line("max_unacked").contains("--set limits.sm.max_unacked"), "{text}");
    assert!(!text.contains('\x1b'));
}

#[test]
fn wrong_settings_end_with_2_and_say_all_that_is_wrong() {
    let place = Place::new("domian = [\"a\"]\n[limits.xml]\nmax_depth = 0\n");
    for command in [&["serve"][..], &["config", "show"], &["ctl", "user", "list"], &["check"]] {
        let output = place.run(command, "");
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let text = stdout(&output) + &stderr(&output);
        assert!(text.contains("did you mean `domains`?"), "{text}");
        assert!(text.contains("limits.xml.max_depth"), "{text}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let place = Place::new("");
    for command in [&["surve"][..], &["ctl", "user", "add"], &["ctl", "user", "list", "-o", "yaml"]] {
        assert_eq!(place.run(command, "").status.code(), Some(2), "{command:?}");
    }
    let output = place.run(&["ctl", "user", "add", "not an account"], "secret");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not an account"), "{}", stderr(&output));
}

#[test]
fn ctl_says_when_no_server_runs_and_how_to_start_one() {
    let place = Place::new("");
    for command in
        [&["ctl", "user", "add", "alice@localhost"][..], &["ctl", "session", "list"], &["ctl", "status"]]
    {
        let output = place.run(command, "secret\n");
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(text.contains("error: no server is running"), "{text}");
        assert!(text.contains("admin.sock") && text.contains("starling.toml:1"), "{text}");
        assert!(text.contains("serve`"), "{text}");
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn check_tells_good_doubtful_and_bad_apart() {
    let listen = "[listen]\nc2s = \"127.0.0.1:0\"\nc2s_tls = \"off\"\nadmin = \"off\"\n";
    let good = Place::new(listen);
    let output = good.run(&["check"], "");
    assert!(stdout(&output).contains("0 bad"), "{}", stdout(&output));
    let doubtful = Place::new(&format!("domains = [\"example.org\"]\n{listen}"));
    let output = doubtful.run(&["check"], "");
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let bad = Place::new(&format!("{listen}[tls]\ncert = \"/none.pem\"\nkey = \"/none.key\"\n"));
    let output = bad.run(&["check", "-o", "json"], "");
    assert_eq!(output.status.code(), Some(2));
    let findings: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let bad = findings.as_array().unwrap().iter().find(|finding| finding["verdict"] == "bad").unwrap();
    assert_eq!(bad["part"], "tls");
    assert!(bad["remedy"].is_string());
}

#[test]
fn config_explain_knows_every_key() {
    let place = Place::new("");
    let output = place.run(&["config", "explain", "limits.conn"], "");
    assert!(stdout(&output).contains("limits.conn.per_ip\n"));
    assert_eq!(place.run(&["config", "explain", "nothing"], "").status.code(), Some(2));
}
