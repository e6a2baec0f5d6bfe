//! The binary as scripts see it: what it prints, where, and how it ends.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ANY_PORTS: &str =
    "[listen]\nc2s = \"127.0.0.1:0\"\nc2s_tls = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";

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

    /// Starts `serve` and waits until it says how to go on.
    fn serve(&self) -> (Serving, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_starling"))
            .arg("serve")
            .arg("--config")
            .arg(self.path().join("starling.toml"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = Serving(child);
        while !said.contains("make an account:") {
            said.push_str(&lines.next().expect("the server ended").unwrap());
            said.push('\n');
        }
        // Who writes to a pipe that nobody reads would wait.
        std::thread::spawn(move || lines.for_each(drop));
        (serving, said)
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

/// A server that does not outlive its test.
struct Serving(Child);

impl Serving {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

#[test]
fn a_server_is_started_steered_and_stopped() {
    let place = Place::new(ANY_PORTS);
    let (mut serving, said) = place.serve();
    for line in [
        "listening c2s 127.0.0.1:",
        "listening c2s_tls 127.0.0.1:",
        "listening admin 127.0.0.1:",
        "certificate SHA-256 ",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.contains("starling.toml user add alice@localhost"), "{said}");
    let mode = std::fs::metadata(place.path().join("data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "what is kept is private");

    assert_eq!(
        stdout(&place.run(&["ctl", "user", "add", "alice@localhost"], "secret")),
        "added alice@localhost\n"
    );
    let again = place.run(&["ctl", "user", "add", "alice@localhost"], "secret");
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("there is such an account already") && stderr(&again).contains("user passwd")
    );
    let password = place.path().join("password");
    std::fs::write(&password, "other\n").unwrap();
    let set = place.run(
        &["ctl", "user", "passwd", "alice@localhost", "--password-file", password.to_str().unwrap()],
        "",
    );
    assert_eq!(set.status.code(), Some(0), "{}", stderr(&set));
    let users = place.path().join("users.csv");
    std::fs::write(&users, "jid,password\nbob@localhost,x\nalice@localhost,y\nbroken\neve@elsewhere,z\n")
        .unwrap();
    let imported = place.run(&["ctl", "user", "import", users.to_str().unwrap()], "");
    assert_eq!(imported.status.code(), Some(1));
    assert_eq!(stdout(&imported), "1 added, 1 changed, 2 failed\n");
    assert!(
        stderr(&imported).starts_with("line 4: ") && stderr(&imported).contains("\nline 5: "),
        "{}",
        stderr(&imported)
    );
    let listed = stdout(&place.run(&["ctl", "user", "list", "-o", "json"], ""));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["jid"], "alice@localhost");
    assert_eq!(listed[1]["jid"], "bob@localhost");
    let unsure = place.run(&["ctl", "user", "del", "bob@localhost"], "");
    assert_eq!(unsure.status.code(), Some(2));
    assert_eq!(place.run(&["ctl", "user", "del", "bob@localhost", "--yes"], "").status.code(), Some(0));
    assert_eq!(stdout(&place.run(&["ctl", "session", "list", "-o", "json"], "")), "[]\n");
    assert!(stdout(&place.run(&["ctl", "status"], "")).contains("domains    localhost"));
    assert_eq!(place.run(&["check"], "").status.code(), Some(0));

    let second = place.run(&["serve"], "");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use by process"), "{}", stderr(&second));

    serving.signal(Signal::SIGTERM);
    assert_eq!(serving.0.wait().unwrap().code(), Some(0));
    assert_eq!(place.run(&["ctl", "status"], "").status.code(), Some(1));
    assert!(!place.path().join("data/admin.sock").exists());
}

#[test]
fn a_reload_takes_new_domains_and_refuses_nonsense() {
    let place = Place::new(ANY_PORTS);
    let (serving, said) = place.serve();
    let admin = said.lines().find_map(|line| line.strip_prefix("listening admin ")).unwrap();
    let reloads = |result: &str, times: u32| {
        let line = format!("starling_config_reloads_total{{result=\"{result}\"}} {times}\n");
        let mut tries = 0;
        while !metrics(admin).contains(&line) {
            tries += 1;
            assert!(tries < 400, "{line}");
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    };
    let config = place.path().join("starling.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let add = |jid: &str| place.run(&["ctl", "user", "add", jid], "secret").status.code();
    assert_eq!(add("alice@two.test"), Some(1));
    std::fs::write(&config, format!("domains = [\"localhost\", \"two.test\"]\n{text}")).unwrap();
    serving.signal(Signal::SIGHUP);
    reloads("ok", 1);
    assert_eq!(add("alice@two.test"), Some(0));
    std::fs::write(&config, format!("domains = []\n{text}")).unwrap();
    serving.signal(Signal::SIGHUP);
    reloads("error", 1);
    std::fs::write(&config, &text).unwrap();
    assert!(stdout(&place.run(&["ctl", "status"], "")).contains("localhost, two.test"));
}

fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
