//! `[store]` as the CQL store wants it.

use crate::obstacle::Obstacle;
use starling_node::Config;
use starling_store_scylla::driver::connect::ConnectError;
use starling_store_scylla::options::{Names, Options, Password, Replication, Tls};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest password file that is read.
const LONGEST: u64 = 4_096;

/// How to reach the servers. Reads the password.
///
/// # Errors
/// A password file that cannot be read, or has no password.
pub fn options(config: &Config) -> Result<Options, Obstacle> {
    let store = &config.store;
    let tls = store.tls.enabled.then(|| Tls {
        ca: store.tls.ca.clone(),
        cert: store.tls.cert.clone(),
        key: store.tls.key.clone(),
        names: match store.tls.server_name.as_deref() {
            None => Names::Address,
            Some("*") => Names::Any,
            Some(name) => Names::Named(name.to_owned()),
        },
    });
    let copies =
        store.replication.0.iter().map(|(datacentre, copies)| (datacentre.clone(), (*copies).into()));
    Ok(Options {
        contact_points: store.contact_points.clone(),
        keyspace: store.keyspace.clone(),
        replication: Replication(copies.collect()),
        local_datacenter: store.local_datacenter.clone(),
        username: store.username.clone(),
        password: store.password_file.as_deref().map(password).transpose()?.unwrap_or_default(),
        tls,
        connect_timeout: store.connect_timeout,
        attempt_timeout: store.request_timeout,
        in_flight: store.requests_in_flight,
        waiting: store.requests_waiting,
        speculative_delay: Some(store.speculative_after).filter(|after| !after.is_zero()),
        ..Options::default()
    })
}

/// Why no server can be used, and what to do.
pub fn obstacle(config: &Config, error: &ConnectError) -> Obstacle {
    let store = &config.store;
    let points = store.contact_points.join(", ");
    let place = format!("{points} (store.contact_points from: {})", config.origin("store.contact_points"));
    // The texts of these begin with what is said here already.
    let why = match error {
        ConnectError::Unreachable { reason, .. } => reason.clone(),
        ConnectError::Login(reason) | ConnectError::Other(reason) => reason.clone(),
        other => other.to_string(),
    };
    let (what, advice) = match error {
        ConnectError::Options(_) => {
            ("the settings of the store are wrong", "see `starling config explain store`")
        }
        ConnectError::Tls(_) => {
            ("TLS to the CQL servers cannot be set up", "see `starling config explain store.tls`")
        }
        ConnectError::Unreachable { reason, .. } if reason.contains("certificate") => (
            "the CQL server is not the one that is expected",
            "see that `store.tls.ca` is the authority of its certificate and `store.tls.server_name` a name in it",
        ),
        ConnectError::Unreachable { .. } => (
            "no CQL server can be reached",
            "start one, or name those there are in `store.contact_points`; one that resets connections may want `store.tls`",
        ),
        ConnectError::Login(_) => (
            "the CQL server does not let this server in",
            "give a role that may log in as `store.username`, its password in `store.password_file`",
        ),
        ConnectError::Datacenter(_) => {
            ("the datacentre is not clear", "set `store.local_datacenter`; `starling check` looks closer")
        }
        ConnectError::Schema(refusal) => {
            return Obstacle::new("the tables of the store are not those of this version")
                .at(format!("keyspace {} at {points}", store.keyspace))
                .because(&refusal.why)
                .advise(&refusal.advice);
        }
        ConnectError::Denied(_) => (
            "the role may not do what the server needs",
            "GRANT SELECT ON KEYSPACE and GRANT MODIFY ON KEYSPACE to `store.username`",
        ),
        ConnectError::Other(_) => ("the CQL server cannot be used", "`starling check` looks closer"),
    };
    Obstacle::new(what).at(place).because(why).advise(advice)
}

/// The first line of the file.
fn password(path: &Path) -> Result<Password, Obstacle> {
    let trouble = |why: &dyn std::fmt::Display| {
        Obstacle::new("the password of the store cannot be read")
            .at(format!("{} (store.password_file)", path.display()))
            .because(why)
            .advise("put the password on the first line of that file, readable for the server's user alone")
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|error| trouble(&error))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(trouble(&"its first line is empty"));
    }
    Ok(Password::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn options_are_those_of_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let mut config = Config::default();
        assert!(options(&config).unwrap().check().is_ok());
        config.store.username = Some("starling".to_owned());
        config.store.password_file = Some(path.clone());
        config.store.speculative_after = Duration::ZERO;
        config.store.replication.0.insert("dc1".to_owned(), 3);
        config.store.tls.enabled = true;
        config.store.tls.ca = Some("ca.pem".into());
        config.store.tls.server_name = Some("*".to_owned());
        assert!(options(&config).unwrap_err().to_string().contains("store.password_file"));
        std::fs::write(&path, "\nsecret").unwrap();
        assert!(options(&config).unwrap_err().to_string().contains("empty"));
        std::fs::write(&path, "secret\nnot this\n").unwrap();
        let options = options(&config).unwrap();
        assert!(options.check().is_ok());
        assert_eq!(options.speculative_delay, None);
        assert_eq!(options.replication.0["dc1"], 3);
        assert_eq!(options.tls.map(|tls| tls.names), Some(Names::Any));
        assert_eq!(options.attempt_timeout, config.store.request_timeout);
    }
}
