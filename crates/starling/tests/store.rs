//! What people read when the store on CQL servers cannot be used: no such server is needed for that.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::{
    fs::File,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

/// A directory with settings of a store that nobody serves.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(store: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let text = format!(
            "data_dir = {data:?}\n[listen]\nc2s = \"127.0.0.1:0\"\nc2s_tls = \"off\"\nadmin = \"off\"\n\
             [store]\nkind = \"scylla\"\nconnect_timeout = \"200ms\"\n{store}"
        );
        std::fs::write(dir.path().join("starling.toml"), text).unwrap();
        Self { dir }
    }

    /// At an address where nobody listens.
    fn without_a_server(more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::new(&format!("contact_points = [\"127.0.0.1:{port}\"]\n{more}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let settings = self.path("starling.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.args(arguments).arg("--config").arg(settings).env_clear().stdin(Stdio::null());
        command.output().unwrap()
    }

    /// What is said on standard error by a command that must fail with this code.
    fn refusal(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

const ASKING: [&[&str]; 4] =
    [&["serve"], &["migrate", "plan"], &["migrate", "apply"], &["migrate", "status"]];

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_was_tried() {
    let place = Place::without_a_server("");
    let settings = std::fs::read_to_string(place.path("starling.toml")).unwrap();
    let point = settings.lines().find_map(|line| line.strip_prefix("contact_points = [\"")).unwrap();
    let point = point.trim_end_matches("\"]");
    for command in ASKING {
        let said = place.refusal(1, command);
        assert_says(
            &said,
            &[
                "error: no CQL server can be reached",
                point,
                "starling.toml:9",
                "refused",
                "store.contact_points",
                "  do:",
            ],
        );
    }
    let output = place.run(&["check", "-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad: Vec<_> =
        findings.as_array().unwrap().iter().filter(|finding| finding["verdict"] == "bad").collect();
    assert_eq!(bad.len(), 1, "{findings:#}");
    assert_eq!(bad[0]["part"], "store");
    assert!(bad[0]["remedy"].is_string() && bad[0]["text"].as_str().unwrap().contains(point));
}

#[test]
fn a_name_that_is_nobodys_is_told() {
    let place = Place::new("contact_points = [\"cql.invalid:9042\"]\n");
    assert_says(
        &place.refusal(1, &["migrate", "status"]),
        &["no CQL server can be reached", "cql.invalid:9042"],
    );
}

#[test]
fn a_server_that_is_silent_or_speaks_something_else_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let chatting = TcpListener::bind("127.0.0.1:0").unwrap();
    let chats = chatting.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in chatting.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    for address in [silent.local_addr().unwrap(), chats] {
        let place = Place::new(&format!("contact_points = [\"{address}\"]\n"));
        let began = std::time::Instant::now();
        let said = place.refusal(1, &["serve"]);
        assert_says(&said, &["no CQL server can be reached", &address.to_string()]);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}

#[test]
fn what_no_server_would_take_is_refused_before_one_is_asked() {
    for (store, key) in [
        ("keyspace = \"star-ling\"\n", "store.keyspace"),
        ("keyspace = \"system_auth\"\n", "store.keyspace"),
        ("replication = { datacenter1 = 0 }\n", "store.replication"),
        ("replication = \"three\"\n", "store.replication"),
        ("contact_points = []\n", "store.contact_points"),
        ("contact_points = [\"http://127.0.0.1:9042\"]\n", "store.contact_points"),
        ("username = \"starling\"\n", "store.password_file"),
        ("tls.enabled = true\n", "store.tls.ca"),
    ] {
        let place = Place::new(store);
        for command in ASKING {
            assert_says(&place.refusal(2, command), &[key, "starling.toml:9", "  why:", "  do:"]);
        }
    }
}

#[test]
fn files_that_are_missing_or_wrong_are_named() {
    let none = Place::without_a_server("username = \"s\"\npassword_file = \"/does/not/exist\"\n");
    let empty = Place::without_a_server("username = \"s\"\npassword_file = \"/dev/null\"\n");
    let authority = Place::without_a_server("tls.enabled = true\ntls.ca = \"/does/not/exist.pem\"\n");
    let nonsense = Place::without_a_server("tls.enabled = true\ntls.ca = \"/dev/null\"\n");
    for command in ASKING {
        assert_says(&none.refusal(1, command), &["/does/not/exist (store.password_file)", "No such file"]);
        assert_says(&empty.refusal(1, command), &["/dev/null (store.password_file)", "empty"]);
        assert_says(&authority.refusal(1, command), &["TLS", "/does/not/exist.pem", "ca"]);
        assert_says(&nonsense.refusal(1, command), &["TLS", "/dev/null"]);
    }
    for place in [none, empty, authority, nonsense] {
        assert_eq!(place.run(&["check"]).status.code(), Some(2));
    }
}

#[test]
fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let chatting = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = chatting.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in chatting.incoming() {
            // What a server without TLS answers to a greeting that it cannot read.
            let _ = stream.and_then(|mut stream| stream.write_all(b"\x84\0\0\0\0\0\0\0\0"));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, certificate.cert.pem()).unwrap();
    let place =
        Place::new(&format!("contact_points = [\"{address}\"]\ntls.enabled = true\ntls.ca = {ca:?}\n"));
    let said = place.refusal(1, &["serve"]);
    assert_says(&said, &["no CQL server can be reached", &address.to_string()]);
}

#[test]
fn a_data_directory_has_one_server_whatever_the_store() {
    let place = Place::without_a_server("");
    std::fs::create_dir(place.path("data")).unwrap();
    let mut lock = File::create(place.path("data/lock")).unwrap();
    lock.try_lock().unwrap();
    write!(lock, "4711").unwrap();
    for kind in ["store.kind=scylla", "store.kind=embedded"] {
        let said = place.refusal(1, &["serve", "--set", kind]);
        assert_says(&said, &["in use by process 4711", "data_dir"]);
    }
}

#[test]
fn an_embedded_store_needs_no_migration() {
    let place = Place::without_a_server("");
    for command in ["plan", "apply", "status"] {
        let output = place.run(&["migrate", command, "--set", "store.kind=embedded"]);
        assert_eq!(output.status.code(), Some(0));
        assert_says(std::str::from_utf8(&output.stdout).unwrap(), &["nothing to migrate", "embedded"]);
        let output = place.run(&["migrate", command, "-o", "json", "--set", "store.kind=embedded"]);
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
    }
    assert!(!Path::new(&place.path("data")).exists(), "nothing was made");
}
