//! What is to be known to reach a server: plain values, filled by whoever read the configuration.

use crate::Settings;
use starling_node::Metrics;
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};
use zeroize::Zeroizing;

/// How the server is reached and used.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes to begin with, as `host`, `host:port`, `[v6]:port`; the others are found through them. The port is 9042
    /// where none is given.
    pub contact_points: Vec<String>,
    /// The keyspace: letters, digits and `_`, at most 48.
    pub keyspace: String,
    /// How often rows are kept, by datacenter. Used when the keyspace is created, compared when it exists.
    pub replication: Replication,
    /// The datacenter that LOCAL_QUORUM means, the same for all servers of a store. `None`: the only one there is; of
    /// several none is guessed.
    pub local_datacenter: Option<String>,
    /// Name to log in with; `None` where the server asks for none.
    pub username: Option<String>,
    /// Its password.
    pub password: Password,
    /// TLS to the server; `None` is plain TCP.
    pub tls: Option<Tls>,
    /// For a connection, with its handshakes.
    pub connect_timeout: Duration,
    /// For one attempt of one statement.
    pub attempt_timeout: Duration,
    /// Requests under way at once; kept by the store above the driver.
    pub in_flight: usize,
    /// Requests that wait for one of these places; what comes beyond is refused as overload.
    pub waiting: usize,
    /// A read that has no answer after this time is sent to a second node too; `None` never.
    pub speculative_delay: Option<Duration>,
    /// Connections to each node; to each shard of a ScyllaDB node.
    pub connections: usize,
    /// Silence on a connection after which its node is asked for a sign of life, and the time it has for that.
    pub keep_alive: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            contact_points: vec!["127.0.0.1:9042".to_owned()],
            keyspace: "starling".to_owned(),
            replication: Replication::default(),
            local_datacenter: None,
            username: None,
            password: Password::default(),
            tls: None,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(2),
            in_flight: 1_024,
            waiting: 8_192,
            speculative_delay: Some(Duration::from_millis(100)),
            connections: 1,
            keep_alive: Duration::from_secs(3),
        }
    }
}

/// Copies by datacenter (`NetworkTopologyStrategy`), e.g. `{"dc1": 3}`. Empty: three copies, or as many as there are nodes
/// where they are fewer, in the local datacenter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replication(pub BTreeMap<String, u32>);

/// TLS to the server.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the authorities that are trusted; `None` refuses every server, there is no default list.
    pub ca: Option<PathBuf>,
    /// PEM file of our own certificate chain, where the server wants one.
    pub cert: Option<PathBuf>,
    /// PEM file of its private key.
    pub key: Option<PathBuf>,
    /// What the server's certificate must be made out to.
    pub names: Names,
}

/// What a server's certificate must be made out to. Nodes are found by address, so their names are not known by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Names {
    /// The node's IP address.
    #[default]
    Address,
    /// This DNS name, the same for all nodes.
    Named(String),
    /// Anything that the authority has signed.
    Any,
}

/// A secret: not shown, and wiped when it is dropped.
#[derive(Clone, Default)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// From text, e.g. of a file; line ends at its end do not belong to it.
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What is wrong with the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct OptionsError {
    /// The field.
    pub key: &'static str,
    /// What is wrong and what is right.
    pub problem: String,
}

impl Options {
    /// The highest number of copies in one datacenter.
    pub const MAX_COPIES: u32 = 16;

    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), OptionsError> {
        let wrong = |key, problem: &str| Err(OptionsError { key, problem: problem.to_owned() });
        if self.contact_points.is_empty() {
            return wrong("contact_points", "at least one is needed, e.g. \"10.0.0.1:9042\"");
        }
        if !is_keyspace(&self.keyspace) {
            return wrong("keyspace", "must be 1 to 48 of a-z, 0-9 and _, a letter first");
        }
        for (datacenter, copies) in &self.replication.0 {
            if !is_datacenter(datacenter) {
                return wrong("replication", "a datacenter's name has a character that no name has");
            }
            if !(1..=Self::MAX_COPIES).contains(copies) {
                return wrong("replication", "copies must be 1 to 16");
            }
        }
        if self.local_datacenter.as_deref().is_some_and(|name| !is_datacenter(name)) {
            return wrong("local_datacenter", "has a character that no name has");
        }
        if self.username.is_none() && !self.password.reveal().is_empty() {
            return wrong("username", "there is a password but no name");
        }
        match &self.tls {
            Some(tls) if tls.ca.is_none() => {
                return wrong("tls.ca", "is needed: the authority that signed the servers' certificates");
            }
            Some(tls) if tls.cert.is_some() != tls.key.is_some() => {
                return wrong("tls.key", "certificate and key are needed together");
            }
            _ => {}
        }
        if self.in_flight == 0 || self.connections == 0 {
            return wrong("in_flight", "must be above 0");
        }
        let short = Duration::from_millis(10);
        if self.attempt_timeout < short || self.connect_timeout < short || self.keep_alive < short {
            return wrong("attempt_timeout", "timeouts must be at least 10 ms");
        }
        Ok(())
    }

    /// What of it the store above the driver keeps to.
    pub fn settings(&self, metrics: Arc<Metrics>) -> Settings {
        let Self { attempt_timeout, in_flight, waiting, .. } = *self;
        Settings { attempt_timeout, in_flight, waiting, metrics, ..Settings::default() }
    }
}

/// Lower case only: names are then the same with and without quotes.
fn is_keyspace(name: &str) -> bool {
    (1..=48).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn is_datacenter(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut Options)) -> &'static str {
        let mut options = Options::default();
        change(&mut options);
        options.check().map_or_else(|error| error.key, |()| "")
    }

    #[test]
    fn defaults_are_right_and_mistakes_are_named() {
        assert_eq!(problem(|_| ()), "");
        assert_eq!(problem(|options| options.contact_points.clear()), "contact_points");
        for name in ["", "Starling", "1a", "a-b", "a; DROP KEYSPACE a", &"a".repeat(49)] {
            assert_eq!(problem(|options| options.keyspace = name.to_owned()), "keyspace", "{name}");
        }
        let copies = |name: &str, copies| Replication(BTreeMap::from([(name.to_owned(), copies)]));
        assert_eq!(problem(|options| options.replication = copies("dc1", 3)), "");
        assert_eq!(problem(|options| options.replication = copies("dc1", 0)), "replication");
        assert_eq!(problem(|options| options.replication = copies("dc'1", 1)), "replication");
        assert_eq!(problem(|options| options.password = Password::new("x".to_owned())), "username");
        assert_eq!(problem(|options| options.tls = Some(Tls::default())), "tls.ca");
        let tls = Tls { ca: Some("ca".into()), cert: Some("cert".into()), ..Tls::default() };
        assert_eq!(problem(|options| options.tls = Some(tls)), "tls.key");
    }

    #[test]
    fn the_password_is_not_shown() {
        let options = Options { password: Password::new("s3cret\r\n".to_owned()), ..Options::default() };
        assert_eq!(options.password.reveal(), "s3cret");
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
