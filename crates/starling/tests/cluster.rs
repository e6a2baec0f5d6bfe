//! The roles of a cluster as scripts see them, without the others: what is refused, and how.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ANY_PORTS: &str = "[listen]\nc2s = \"127.0.0.1:0\"\nc2s_tls = \"off\"\nadmin = \"127.0.0.1:0\"\ncluster = \"127.0.0.1:0\"\n";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.args(arguments).current_dir(self.0.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Makes an authority, and a certificate in a directory of that name.
    fn certificate(&self, role: &str, node: &str) {
        if !self.path("ca").exists() {
            assert!(self.run(&["cluster", "ca", "--out", "ca"]).status.success());
        }
        let made = self.run(&[
            "cluster",
            "certificate",
            "--ca",
            "ca",
            "--role",
            role,
            "--node",
            node,
            "--out",
            node,
        ]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Settings of a process that has the certificate of that name.
    fn config(&self, node: &str, more: &str) -> String {
        let data = self.path("data");
        let file = |name: &str| self.path(node).join(name);
        let text = format!(
            "data_dir = {data:?}\n{ANY_PORTS}{more}\n[cluster.tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
            file("ca.pem"),
            file("cert.pem"),
            file("key.pem")
        );
        std::fs::write(self.path("starling.toml"), text).unwrap();
        "starling.toml".to_owned()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_a_role_lacks_is_told_at_once() {
    let place = Place::new();
    for (role, lacks) in [
        ("edge", &["`cluster.routers` is empty", "`cluster.tls.key` is not set"][..]),
        (
            "router",
            &["`cluster.routers` is empty", "`store.kind` is \"embedded\"", "`cluster.tls.ca` is not set"],
        ),
    ] {
        let refused = place.run(&[role, "--set", "data_dir=data"]);
        assert_eq!(refused.status.code(), Some(2), "{role}");
        for word in lacks {
            assert!(said(&refused).contains(word), "{role}: {}", said(&refused));
        }
        assert_eq!(place.run(&["check", "--role", role, "--set", "data_dir=data"]).status.code(), Some(2));
    }
    assert!(!Path::new("data").exists());
}

#[test]
fn a_certificate_of_something_else_is_refused_with_both_names() {
    let place = Place::new();
    place.certificate("router", "one");
    place.certificate("edge", "two");
    let seeds = "[cluster]\nnode = \"one\"\nrouters = [\"127.0.0.1:1\"]\n";
    let config = place.config("one", seeds);
    let refused = place.run(&["edge", "--config", &config]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("starling://starling/router/one"), "{}", said(&refused));
    let config = place.config("two", seeds);
    let refused = place.run(&["edge", "--config", &config]);
    let text = said(&refused);
    assert!(text.contains("starling://starling/edge/two") && text.contains("called one"), "{text}");
    let config = place.config("two", &seeds.replace("one", "two"));
    let checked = place.run(&["check", "--role", "edge", "--config", &config, "-o", "json"]);
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains("for starling://starling/edge/two") && !text.contains("\"bad\""), "{text}");
}

#[test]
fn a_certificate_of_another_cluster_is_refused_with_both_names() {
    let place = Place::new();
    place.certificate("edge", "one");
    let config =
        place.config("one", "[cluster]\nname = \"other\"\nnode = \"one\"\nrouters = [\"127.0.0.1:1\"]\n");
    let refused = place.run(&["edge", "--config", &config]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    for word in ["starling://starling/edge/one", "starling://other/edge", "do:", "cluster.name"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_router_that_others_do_not_find_is_told() {
    let place = Place::new();
    place.certificate("router", "one");
    let check = |advertise: &str| {
        let cluster = format!(
            "[cluster]\nnode = \"one\"\nadvertise = \"{advertise}\"\nrouters = [\"127.0.0.1:5271\", \"127.0.0.1:5272\"]\n"
        );
        let config = place.config("one", &cluster);
        let checked = place.run(&["check", "--role", "router", "--config", &config, "-o", "json"]);
        String::from_utf8_lossy(&checked.stdout).into_owned()
    };
    assert!(check("127.0.0.1:5273").contains("127.0.0.1:5273, which is not among cluster.routers"));
    assert!(check("no.such.host.invalid:1").contains("cannot be looked up"));
    let fine = check("127.0.0.1:5272");
    assert!(!fine.contains("not among") && !fine.contains("looked up"), "{fine}");
}

#[test]
fn an_edge_alone_serves_nobody_and_ends_when_it_is_told() {
    let place = Place::new();
    place.certificate("edge", "lone");
    let config = place.config("lone", "[cluster]\nnode = \"lone\"\nrouters = [\"127.0.0.1:1\"]\n");
    let mut child = place
        .command(&["edge", "--config", &config])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
    let waits = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("waiting_for_routers")));
    let waits = waits.expect("it ended").unwrap();
    assert!(
        waits.contains("127.0.0.1:1") && waits.contains("refused"),
        "whom it asked, and why in vain: {waits}"
    );
    std::thread::spawn(move || log.for_each(drop));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(!said(&ended).contains("listening c2s"), "{}", said(&ended));
}
