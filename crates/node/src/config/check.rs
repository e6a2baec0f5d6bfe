//! How values fit together.

use super::{Config, StoreKind, error::ConfigError};

/// Adds what is wrong between values that are each right.
pub(super) fn together(config: &Config, errors: &mut Vec<ConfigError>) {
    domains(config, errors);
    certificates(config, errors);
    addresses(config, errors);
    orders(config, errors);
    store(config, errors);
}

fn domains(config: &Config, errors: &mut Vec<ConfigError>) {
    let mut fail = |what: String, why: &str, advice: &str| {
        errors.push(ConfigError {
            what,
            origin: config.origin("domains"),
            why: why.to_owned(),
            advice: advice.to_owned(),
        });
    };
    if config.domains.is_empty() {
        fail("`domains` is empty".to_owned(), "a server answers for at least one domain", "name your domain");
    }
    for (at, domain) in config.domains.iter().enumerate() {
        let odd =
            |letter: char| letter.is_whitespace() || letter.is_control() || "@/:\"'<>&".contains(letter);
        if domain.is_empty() || domain.len() > 1_023 || domain.contains(odd) {
            fail(
                format!("`domains` holds {domain:?}"),
                "that is not the name of a domain",
                "give names such as \"example.org\", without a port",
            );
        } else if config.domains[..at].iter().any(|earlier| earlier.eq_ignore_ascii_case(domain)) {
            fail(format!("`domains` holds {domain:?} twice"), "once is enough", "take one away");
        }
    }
}

fn certificates(config: &Config, errors: &mut Vec<ConfigError>) {
    let global = (String::new(), config.tls.cert.is_some(), config.tls.key.is_some());
    let single = config.tls.domains.0.iter();
    let single = single
        .map(|(domain, files)| (format!("domains.\"{domain}\"."), files.cert.is_some(), files.key.is_some()));
    for (place, cert, key) in std::iter::once(global).chain(single) {
        if cert == key {
            continue;
        }
        let (given, missing) = if cert { ("cert", "key") } else { ("key", "cert") };
        let given = format!("tls.{place}{given}");
        errors.push(ConfigError {
            what: format!("`{given}` is set without `tls.{place}{missing}`"),
            origin: config.origin(&given),
            why: "a certificate is of use only with its key".to_owned(),
            advice: format!("set `tls.{place}{missing}` too, or neither"),
        });
    }
    for domain in config.tls.domains.0.keys() {
        if !config.domains.iter().any(|known| known.eq_ignore_ascii_case(domain)) {
            let key = format!("tls.domains.\"{domain}\".cert");
            errors.push(ConfigError {
                what: format!("there is a certificate for {domain:?}, which is not in `domains`"),
                origin: config.origin(&key),
                why: "it would never be shown to anybody".to_owned(),
                advice: format!("add {domain:?} to `domains`, or take its certificate away"),
            });
        }
    }
}

fn addresses(config: &Config, errors: &mut Vec<ConfigError>) {
    let listen = &config.listen;
    let all =
        [("listen.c2s", &listen.c2s), ("listen.c2s_tls", &listen.c2s_tls), ("listen.admin", &listen.admin)];
    for (at, (key, addresses)) in all.iter().enumerate() {
        for address in addresses.0.iter().filter(|address| address.port() != 0) {
            for (other, theirs) in &all[..at] {
                if theirs.0.contains(address) {
                    errors.push(ConfigError {
                        what: format!("`{key}` and `{other}` are both {address}"),
                        origin: config.origin(key),
                        why: "one address can serve only one of them".to_owned(),
                        advice: "give one of them another port, or set it to \"off\"".to_owned(),
                    });
                }
            }
        }
    }
}

/// Pairs of which the first must not be above the second.
fn orders(config: &Config, errors: &mut Vec<ConfigError>) {
    let limits = &config.limits;
    let xml = &limits.xml;
    let pairs = [
        (
            ("limits.xml.pre_auth.max_stanza_bytes", xml.pre_auth.max_stanza_bytes),
            ("limits.xml.c2s.max_stanza_bytes", xml.c2s.max_stanza_bytes),
            "a stranger would be allowed more than a user",
        ),
        (
            ("limits.xml.pre_auth.max_elements", xml.pre_auth.max_elements),
            ("limits.xml.max_elements", xml.max_elements),
            "a stranger would be allowed more than a user",
        ),
    ];
    for ((low, lower), (high, higher), why) in pairs {
        // Only a value that somebody chose is held against another.
        let chosen = config.origins.contains_key(low) || config.origins.contains_key(high);
        if lower > higher && chosen {
            let key = if config.origins.contains_key(low) { low } else { high };
            errors.push(ConfigError {
                what: format!("`{low}` is above `{high}`"),
                origin: config.origin(key),
                why: why.to_owned(),
                advice: format!("lower `{low}` or raise `{high}`"),
            });
        }
    }
}

/// What a server of the store is reached with.
fn store(config: &Config, errors: &mut Vec<ConfigError>) {
    let store = &config.store;
    let tls = &store.tls;
    let mut fail = |key: &str, what: String, why: &str, advice: &str| {
        errors.push(ConfigError {
            what,
            origin: config.origin(key),
            why: why.to_owned(),
            advice: advice.to_owned(),
        });
    };
    let needs = |key: &str, other: &str| format!("`{key}` is set without `{other}`");
    match (&store.username, &store.password_file) {
        (Some(_), None) => fail(
            "store.username",
            needs("store.username", "store.password_file"),
            "nobody can log in without a password",
            "name the file that has the password on its first line",
        ),
        (None, Some(_)) => fail(
            "store.password_file",
            needs("store.password_file", "store.username"),
            "a password is of use only with its role",
            "set `store.username` to the role to log in as",
        ),
        _ => {}
    }
    let pair = [("store.tls.cert", &tls.cert), ("store.tls.key", &tls.key)];
    for ((given, there), (missing, other)) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        if there.is_some() && other.is_none() {
            let why = "a certificate is of use only with its key";
            fail(given, needs(given, missing), why, &format!("set `{missing}` too, or neither"));
        }
    }
    if tls.enabled && tls.ca.is_none() {
        fail(
            "store.tls.enabled",
            needs("store.tls.enabled", "store.tls.ca"),
            "any server could pass for one of the store's",
            "name the file with the authority that signed the servers' certificates",
        );
    }
    let of_tls = [
        ("store.tls.ca", tls.ca.is_some()),
        ("store.tls.cert", tls.cert.is_some()),
        ("store.tls.server_name", tls.server_name.is_some()),
    ];
    if let Some((key, _)) = of_tls.iter().find(|(_, given)| *given && !tls.enabled) {
        fail(
            key,
            needs(key, "store.tls.enabled"),
            "the servers would be spoken to in the clear",
            "set `store.tls.enabled = true`, or take `[store.tls]` away",
        );
    }
    if store.kind == StoreKind::Scylla && store.contact_points.is_empty() {
        fail(
            "store.contact_points",
            "`store.contact_points` is empty".to_owned(),
            "`store.kind` is \"scylla\", and no server of it is named",
            "name two or three servers, such as [\"10.0.0.1:9042\", \"10.0.0.2:9042\"]",
        );
    }
    let copies = &store.replication.0;
    if let Some(local) = store.local_datacenter.as_ref().filter(|local| !copies.contains_key(*local))
        && !copies.is_empty()
    {
        fail(
            "store.replication",
            format!("`store.replication` has no copies in {local:?}, which is `store.local_datacenter`"),
            "a quorum of the local datacentre has to confirm each write",
            "add it to `store.replication`, or name another local datacentre",
        );
    }
}
