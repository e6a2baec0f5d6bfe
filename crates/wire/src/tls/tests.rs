use super::*;
use starling_node::SystemClock;
use std::fs;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> u64 {
    SystemClock::shared().now_micros() / 1_000_000
}

fn authority(cluster: &str) -> Authority {
    Authority::create(cluster, now(), DAY).unwrap()
}

fn pair(authority: &Authority, identity: &str) -> Pair {
    authority.issue(&Identity::parse(identity).unwrap(), &[], now(), DAY).unwrap()
}

fn write(dir: &TempDir, ca: &str, pair: &Pair) -> Files {
    let path = |name| dir.path().join(name);
    fs::write(path("ca.pem"), ca).unwrap();
    fs::write(path("cert.pem"), &pair.cert).unwrap();
    fs::write(path("key.pem"), &pair.key).unwrap();
    Files { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") }
}

fn load(files: &Files) -> Result<Arc<Tls>, String> {
    let loaded = Tls::load(files.clone(), "one", Role::Router, SystemClock::shared());
    loaded.map_err(|error| error.to_string())
}

#[test]
fn identities_are_uris() {
    let uri = "starling://one/router/router-1.example";
    let identity = Identity::parse(uri).unwrap();
    assert_eq!(
        (identity.cluster.as_str(), identity.role, identity.to_string()),
        ("one", Role::Router, uri.to_owned())
    );
    assert!(identity.allows("router-1.example") && !identity.allows("router-2"));
    assert!(Identity::parse("starling://one/edge/*").unwrap().allows("anything"));
    for bad in [
        "starling://one/router/",
        "starling://one/router",
        "starling:///router/a",
        "starling://one/admin/a",
        "starling://one/router/a/b",
        "starling://*/edge/a",
        "https://one/edge/a",
        "starling://one/edge/a b",
        "starling://one/edge/a?b",
        "",
    ] {
        assert_eq!(Identity::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_ca_made_here_issues_what_is_accepted_here_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let first = authority("one");
    let files = write(&dir, &first.pair().cert, &pair(&first, "starling://one/router/a"));
    let tls = load(&files).unwrap();
    assert_eq!(tls.identity().name, "a");
    assert!(tls.not_after() > now() + 86_000 && tls.not_after() <= now() + 86_500);
    assert!(tls.left() > Duration::from_secs(86_000) && tls.left() <= DAY);
    let again = Authority::load(first.pair().clone()).unwrap();
    let files = write(&dir, &first.pair().cert, &pair(&again, "starling://one/router/*"));
    assert_eq!(load(&files).unwrap().identity().name, "*");
    assert!(!format!("{:?} {first:?}", first.pair()).contains("PRIVATE"));

    let leaf = pair(&first, "starling://one/router/a");
    assert!(Authority::load(leaf).unwrap_err().to_string().contains("not that of a CA"));
    let mixed = Pair { cert: first.pair().cert.clone(), key: authority("one").pair().key.clone() };
    assert!(Authority::load(mixed).unwrap_err().to_string().contains("not that of the CA"));
}

#[test]
fn wrong_files_are_named_with_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let ca = authority("one");
    let own = pair(&ca, "starling://one/router/a");
    let wrong = |ca_pem: &str, pair: &Pair, words: &[&str]| {
        let error = load(&write(&dir, ca_pem, pair)).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{error:?} does not say {word:?}");
        }
    };
    let ca_pem = &ca.pair().cert;
    wrong(
        ca_pem,
        &pair(&ca, "starling://two/router/a"),
        &["starling://two/router/a", "starling://one/router"],
    );
    wrong(ca_pem, &pair(&ca, "starling://one/edge/a"), &["starling://one/edge/a", "starling://one/router"]);
    wrong(ca_pem, &pair(&authority("one"), "starling://one/router/a"), &["cert.pem", "another CA"]);
    let identity = Identity::parse("starling://one/router/a").unwrap();
    let old = ca.issue(&identity, &[], now() - 100 * 86_400, DAY).unwrap();
    wrong(ca_pem, &old, &["cert.pem", "expired"]);
    let early = ca.issue(&identity, &[], now() + 2 * 86_400, DAY).unwrap();
    wrong(ca_pem, &early, &["cert.pem", "not valid yet"]);
    wrong("", &own, &["ca.pem", "no certificate"]);
    wrong("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &own, &["ca.pem"]);
    let other_key = Pair { cert: own.cert.clone(), key: pair(&ca, "starling://one/router/b").key };
    wrong(ca_pem, &other_key, &["key.pem"]);
    wrong(ca_pem, &Pair { cert: own.cert.clone(), key: String::new() }, &["key.pem"]);
    // A certificate that names nobody of ours, such as one for a web site.
    let mut params = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let plain = Pair { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    wrong(ca_pem, &plain, &["cert.pem", "starling://CLUSTER/ROLE/NAME"]);
    let missing = Files { ca: dir.path().join("none.pem"), ..write(&dir, ca_pem, &own) };
    assert!(load(&missing).unwrap_err().contains("none.pem"));
}

#[test]
fn files_are_read_again_and_the_old_stay_when_the_new_are_wrong() {
    let dir = TempDir::new().unwrap();
    let ca = authority("one");
    let files = write(&dir, &ca.pair().cert, &pair(&ca, "starling://one/router/a"));
    let tls = load(&files).unwrap();
    assert!(!tls.changed());
    std::thread::sleep(Duration::from_millis(20));
    // Both CAs while one follows the other.
    let next = authority("one");
    let both = format!("{}{}", ca.pair().cert, next.pair().cert);
    write(&dir, &both, &pair(&next, "starling://one/router/b"));
    assert!(tls.changed());
    tls.reload().unwrap();
    assert!(!tls.changed());
    assert_eq!(tls.identity().name, "b");
    fs::write(&files.cert, "nonsense").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(tls.identity().name, "b");
}
