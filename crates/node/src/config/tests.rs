use std::{io::Write, path::PathBuf};

use proptest::prelude::*;

use super::*;

/// A file that lives as long as the value.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigErrors> {
    let file = file(text);
    Config::load(&Sources {
        file: Some(file.path().to_owned()),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
    })
}

fn is_line(origin: &Origin, wanted: usize) -> bool {
    matches!(origin, Origin::File { line, .. } if *line == wanted)
}

/// The errors of a broken file, with the name of the file made the same on every run.
fn broken(text: &str) -> String {
    let file = file(text);
    let name = file.path().display().to_string();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    Config::load(&sources).unwrap_err().to_string().replace(&name, "x.toml")
}

#[test]
fn defaults_are_valid_and_as_documented() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.domains, ["localhost"]);
    assert_eq!(config.listen.c2s.to_string(), "0.0.0.0:5222, [::]:5222");
    assert_eq!(config.listen.c2s_tls.to_string(), "0.0.0.0:5223, [::]:5223");
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:5290");
    assert!(!config.registration.enabled);
    assert_eq!(config.limits.xml.pre_auth.max_stanza_bytes, 8_192);
    assert_eq!(config.limits.xml.c2s.max_stanza_bytes, 262_144);
    assert_eq!(config.limits.sm.resume_timeout.as_secs(), 300);
    assert_eq!(config.limits.rate.c2s_bytes, crate::Rate::per_second(32_768));
    assert_eq!(config.auth.mechanisms.first().map(String::as_str), Some("SCRAM-SHA-512-PLUS"));
    assert!((1..=4).contains(&config.router.worker_count()));
}

#[test]
fn reads_a_whole_file() {
    let config = load(
        r#"
            domains = ["example.org", "example.net"]
            data_dir = "/srv/starling"
            [listen]
            c2s = ["127.0.0.1:0", "[::1]:0"]
            c2s_tls = "off"
            admin = "127.0.0.1:9999"
            s2s = "off"
            [tls]
            cert = "a.pem"
            key = "a.key"
            [tls.domains."example.net"]
            cert = "b.pem"
            key = "b.key"
            [registration]
            enabled = true
            [limits.xml]
            max_depth = 64
            c2s.max_stanza_bytes = "1 MiB"
            [limits.stream]
            idle = "1h"
            send_timeout = 20
            [limits.auth]
            failures_per_ip_window = 100
            failures_per_account_window = "5/min"
            [limits.conn]
            unauth_total = 50
            [session]
            conflict = "refuse"
            [archive]
            max_age_days = 30
            max_rows_per_account = "unlimited"
            default = "roster"
        "#,
        &[],
        &[],
    )
    .unwrap();
    assert_eq!(config.domains, ["example.org", "example.net"]);
    assert_eq!(config.listen.c2s.0.len(), 2);
    assert!(config.listen.c2s_tls.is_off());
    assert_eq!(config.tls.domains.0["example.net"].key, Some(PathBuf::from("b.key")));
    assert!(config.registration.enabled);
    assert_eq!((config.limits.xml.max_depth, config.limits.xml.c2s.max_stanza_bytes), (64, 1 << 20));
    assert_eq!(config.limits.stream.idle.as_secs(), 3_600);
    assert_eq!(config.limits.stream.send_timeout.as_secs(), 20);
    assert_eq!(config.limits.auth.failures_per_ip_window, crate::Rate::per_hour(100));
    assert_eq!(config.limits.auth.failures_per_account_window, crate::Rate::per_minute(5));
    assert_eq!(config.limits.conn.unauth_total, Some(50));
    assert_eq!(config.session.conflict, Conflict::Refuse);
    assert_eq!((config.archive.max_age_days, config.archive.max_rows_per_account), (Some(30), None));
    assert_eq!(config.archive.default, ArchiveDefault::Roster);
}

#[test]
fn environment_and_set_reach_every_kind_of_value() {
    let config = load(
        "",
        &[
            ("STARLING__DOMAINS", "a.example, b.example"),
            ("STARLING__LISTEN__C2S", "127.0.0.1:1111,127.0.0.1:2222"),
            ("STARLING__REGISTRATION__ENABLED", "true"),
            ("STARLING__LIMITS__RATE__C2S_STANZAS", "1000"),
            ("STARLING__TELEMETRY__SAMPLE__MESSAGE", "0.5"),
            ("STARLING__TLS__CERT", ""),
            ("HOME", "/nowhere"),
        ],
        &[
            "limits.sm.ack_timeout=500ms",
            r#"tls.domains."a.example".cert=a.pem"#,
            r#"tls.domains."a.example".key = a.key"#,
            r#"auth.mechanisms=["SCRAM-SHA-256", "PLAIN"]"#,
            "listen.c2s_tls=off",
        ],
    )
    .unwrap();
    assert_eq!(config.domains, ["a.example", "b.example"]);
    assert_eq!(config.listen.c2s.0.len(), 2);
    assert!(config.registration.enabled);
    assert_eq!(config.limits.rate.c2s_stanzas, crate::Rate::per_second(1_000));
    assert_eq!(config.telemetry.sample.message, 0.5);
    assert_eq!(config.tls.cert, None);
    assert_eq!(config.limits.sm.ack_timeout.as_millis(), 500);
    assert_eq!(config.tls.domains.0["a.example"].cert, Some(PathBuf::from("a.pem")));
    assert_eq!(config.auth.mechanisms, ["SCRAM-SHA-256", "PLAIN"]);
    assert!(config.listen.c2s_tls.is_off());
    assert_eq!(config.origin("domains"), Origin::Env("STARLING__DOMAINS".to_owned()));
    assert_eq!(config.origin("limits.sm.ack_timeout"), Origin::Set("limits.sm.ack_timeout".to_owned()));
    assert_eq!(config.origin("data_dir"), Origin::Default);
}

proptest! {
    /// Whatever subset of layers gives a value, the strongest of them wins.
    #[test]
    fn the_strongest_layer_wins(
        in_file in prop::option::of(8_usize..500),
        in_env in prop::option::of(8_usize..500),
        in_set in prop::option::of(8_usize..500),
    ) {
        let text = in_file.map_or(String::new(), |value| format!("[limits.xml]\nmax_depth = {value}"));
        let env: Vec<_> = in_env.iter().map(|value| value.to_string()).collect();
        let env: Vec<_> = env.iter().map(|value| ("STARLING__LIMITS__XML__MAX_DEPTH", value.as_str())).collect();
        let sets: Vec<_> = in_set.iter().map(|value| format!("limits.xml.max_depth={value}")).collect();
        let sets: Vec<_> = sets.iter().map(String::as_str).collect();
        let config = load(&text, &env, &sets).unwrap();
        let wanted = in_set.or(in_env).or(in_file).unwrap_or(32);
        prop_assert_eq!(config.limits.xml.max_depth, wanted);
        let origin = config.origin("limits.xml.max_depth");
        match (in_set, in_env, in_file) {
            (Some(_), _, _) => prop_assert!(matches!(origin, Origin::Set(_))),
            (None, Some(_), _) => prop_assert!(matches!(origin, Origin::Env(_))),
            (None, None, Some(_)) => prop_assert!(is_line(&origin, 2)),
            (None, None, None) => prop_assert_eq!(origin, Origin::Default),
        }
    }

    /// No text in any place makes the reader panic.
    #[test]
    fn survives_any_text(text in ".{0,200}", name in "STARLING__[A-Z_.]{0,40}", set in ".{0,60}") {
        let _ = load(&text, &[(&name, &text)], &[&set]);
    }

    /// What is shown can be read again and is the same.
    #[test]
    fn what_is_shown_reads_back(depth in 8_usize..500, millis in 100_u64..100_000, rate in 1_u64..5_000, domain in "[a-z]{1,12}\\.example") {
        let sets = [
            format!("limits.xml.max_depth={depth}"),
            format!("limits.sm.ack_timeout={millis}ms"),
            format!("limits.rate.c2s_stanzas={rate}/s"),
            format!("domains={domain}"),
            format!("tls.domains.\"{domain}\".cert=x.pem"),
            format!("tls.domains.\"{domain}\".key=x.key"),
        ];
        let sets: Vec<_> = sets.iter().map(String::as_str).collect();
        let config = load("", &[], &sets).unwrap();
        let again = load(&config.show(), &[], &[]).unwrap();
        prop_assert!(again.changed(&config).is_empty(), "{:?}", again.changed(&config));
    }
}

#[test]
fn every_default_is_within_its_own_bounds_and_reads_back() {
    let shown = Config::default().show();
    let again = load(&shown, &[], &[]).unwrap();
    assert_eq!(again.changed(&Config::default()), Vec::<String>::new());
}

#[test]
fn every_key_has_a_text_and_can_be_found() {
    let keys = Config::keys();
    assert!(keys.len() > 70, "{}", keys.len());
    for key in &keys {
        assert!(key.text.ends_with('.') && key.text.len() > 5, "{}: {}", key.path, key.text);
        let path: Vec<String> = key.path.split('.').map(str::to_owned).collect();
        assert_eq!(suggest::place(&path, &keys), suggest::Place::Key, "{}", key.path);
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let errors = load(
        "domain = 5\n[limits.xml]\nmax_depth = 1\n",
        &[("STARLING__LIMITS__SM__MAX_UNAKED", "3")],
        &["session.conflict=fight", "nonsense"],
    )
    .unwrap_err();
    assert_eq!(errors.0.len(), 5, "{errors}");
}

#[test]
fn tells_a_reload_what_changed() {
    let old = Config::default();
    let new = load(
        "domains = ['a.example']\n[limits.sm]\nmax_unacked = 40\n[tls.domains.'a.example']\ncert = 'c'\nkey = 'k'",
        &[],
        &["telemetry.log.level=debug"],
    )
    .unwrap();
    let changed = old.changed(&new);
    let (now, later): (Vec<_>, Vec<_>) = changed.into_iter().partition(|key| Key::reloadable(key));
    assert_eq!(
        now,
        ["domains", "telemetry.log.level", "tls.domains.\"a.example\".cert", "tls.domains.\"a.example\".key"]
    );
    assert_eq!(later, ["limits.sm.max_unacked"]);
}

#[test]
fn shows_values_with_their_sources() {
    let file = file("[limits.sm]\nmax_unacked = 500\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        env: vec![("STARLING__DOMAINS".to_owned(), "example.org".to_owned())],
        sets: vec!["telemetry.otlp_endpoint=http://me:secret@127.0.0.1:4317".to_owned()],
    };
    let shown = Config::load(&sources).unwrap().show();
    let lines: Vec<String> =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "domains = [\"example.org\"] # environment variable STARLING__DOMAINS".to_owned(),
        "data_dir = \"./data\" # default".to_owned(),
        "[limits.xml.pre_auth]".to_owned(),
        format!("max_unacked = 500 # file {}:2", file.path().display()),
        "otlp_endpoint = \"http://***@127.0.0.1:4317\" # --set telemetry.otlp_endpoint".to_owned(),
        "idle = \"15m\" # default".to_owned(),
        "rate_per_ip = \"20/s\" # default".to_owned(),
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{shown}");
    }
    assert!(!shown.contains("secret"));
}

#[test]
fn a_missing_file_says_so() {
    let sources = Sources { file: Some("/does/not/exist.toml".into()), ..Sources::default() };
    let text = Config::load(&sources).unwrap_err().to_string();
    assert!(
        text.contains("the configuration file cannot be read\n  where: file /does/not/exist.toml\n"),
        "{text}"
    );
}

/// What each broken file is answered with, word for word. `STARLING_BLESS=1` writes the answers anew.
#[test]
fn broken_files_are_explained() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/broken");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    cases.sort();
    assert!(cases.len() >= 24, "{}", cases.len());
    for case in cases {
        let said = broken(&std::fs::read_to_string(&case).unwrap()) + "\n";
        let golden = case.with_extension("txt");
        if std::env::var_os("STARLING_BLESS").is_some() {
            std::fs::write(&golden, &said).unwrap();
        }
        assert_eq!(said, std::fs::read_to_string(&golden).unwrap(), "{}", case.display());
    }
}

/// The page in the documentation is what the keys say. `STARLING_BLESS=1` writes it anew.
#[test]
fn the_reference_is_up_to_date() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let wanted = reference();
    if std::env::var_os("STARLING_BLESS").is_some() {
        std::fs::write(&page, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&page).unwrap();
    assert!(found == wanted, "docs/configuration.md is stale: run this test with STARLING_BLESS=1");
}

#[test]
fn arguments_may_be_quoted_as_in_the_file() {
    let sets = [
        "listen.c2s=\"127.0.0.1:0\"",
        "domains='a.example'",
        "archive.default=\"never\"",
        "limits.stream.idle=\"5s\"",
    ];
    let config = load("", &[("STARLING__LISTEN__ADMIN", "\"off\"")], &sets).unwrap();
    assert_eq!(config.listen.c2s.to_string(), "127.0.0.1:0");
    assert_eq!(config.domains, ["a.example"]);
    assert_eq!(config.archive.default, ArchiveDefault::Never);
    assert_eq!(config.limits.stream.idle.as_secs(), 5);
    assert!(config.listen.admin.is_off());
}

#[test]
fn a_store_is_named_in_any_layer() {
    let config = load(
        "[store]\nkind = \"embedded\"\nreplication = { eu = 3 }\n[store.tls]\nenabled = true\nca = \"ca.pem\"\n",
        &[("STARLING__STORE__KIND", "scylla"), ("STARLING__STORE__CONTACT_POINTS", "10.0.0.1:9042,db2")],
        &["store.username=starling", "store.password_file=/run/secret", "store.local_datacenter="],
    )
    .unwrap();
    let store = &config.store;
    assert_eq!(store.kind, StoreKind::Scylla);
    assert_eq!(store.contact_points, ["10.0.0.1:9042", "db2"]);
    assert_eq!(store.replication.0, BTreeMap::from([("eu".to_owned(), 3)]));
    assert_eq!((store.username.as_deref(), store.local_datacenter.as_deref()), (Some("starling"), None));
    assert!(store.tls.enabled && !Key::reloadable("store.kind"));
    let table = load("[store.replication]\neu = 3\n", &[], &["store.local_datacenter=eu"]).unwrap();
    assert_eq!(table.store.replication, store.replication);
    let set = load("", &[], &["store.replication={ eu = 3 }"]).unwrap();
    assert_eq!(set.store.replication, store.replication);
    assert_eq!(load(&config.show(), &[], &[]).unwrap().store, config.store);
}
