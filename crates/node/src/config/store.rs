//! Where data is kept, and how to speak with a server that keeps it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    section::section,
    value::{Input, Value, choice},
};

section! {
    /// Where data is kept. All keys but `kind` are for "scylla".
    pub struct Store {
        /// Which store: "embedded" is a directory in `data_dir`; "scylla" is a keyspace on ScyllaDB or Apache Cassandra.
        kind: StoreKind = StoreKind::Embedded;
        /// Servers to ask first, as "host:port" or "host" (port 9042); the others are learnt from them. Names are
        /// resolved. Give two or three of the local datacentre.
        contact_points: Vec<String> = vec!["127.0.0.1:9042".to_owned()], in contact_points();
        /// The keyspace. `starling migrate apply` makes it where there is none.
        keyspace: String = "starling".to_owned(), in keyspace();
        /// Copies of each row by datacentre, for making the keyspace. Empty: 3 in the local datacentre, fewer where it
        /// has fewer servers.
        replication: Replication = Replication::default();
        /// The datacentre whose servers are asked and whose quorum decides: the same for all servers that use the keyspace.
        /// Needed where there are several.
        local_datacenter: Option<String> = None;
        /// The role to log in as. Empty: no login.
        username: Option<String> = None;
        /// The file with the password of `store.username`, on its first line.
        password_file: Option<PathBuf> = None;
        /// How long a connection may take to be made, login and TLS included.
        connect_timeout: Duration = Duration::from_secs(3), in Duration::from_millis(50)..=Duration::from_secs(60);
        /// How long one attempt at a request may take; it is tried again within five seconds in all.
        request_timeout: Duration = Duration::from_secs(2), in Duration::from_millis(50)..=Duration::from_secs(5);
        /// Requests that wait for the servers' answers at a time.
        requests_in_flight: usize = 1_024, in 16..=32_768;
        /// Requests that wait until they may be sent; what is beyond gets `resource-constraint`.
        requests_waiting: usize = 8_192, in 16..=1_048_576;
        /// How long a read may take before a second server is asked too. "0s" never asks a second one.
        speculative_after: Duration = Duration::from_millis(100), in Duration::ZERO..=Duration::from_secs(5);
    }
    with {
        /// TLS to the servers.
        tls: StoreTls;
    }
}

section! {
    /// TLS to the servers of the store.
    pub struct StoreTls {
        /// Whether to speak TLS.
        enabled: bool = false;
        /// The authority that signed the servers' certificates, in PEM form.
        ca: Option<PathBuf> = None;
        /// What the servers' certificates must be made out to. Empty: each to the IP address by which it is reached. A
        /// DNS name: all to that name. "*": to anything, as long as the authority has signed it.
        server_name: Option<String> = None, in server_name();
        /// A certificate of our own to show, chain in PEM form. Empty: none is shown.
        cert: Option<PathBuf> = None;
        /// The private key of `store.tls.cert` in PEM form.
        key: Option<PathBuf> = None;
    }
}

choice! {
    /// A store.
    pub enum StoreKind {
        /// One directory, one process.
        #[default]
        Embedded = "embedded",
        /// A keyspace on CQL servers.
        Scylla = "scylla",
    }
    takes "\"embedded\" or \"scylla\""
}

/// Copies of each row, by datacentre.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replication(pub BTreeMap<String, u8>);

impl Value for Replication {
    const TAKES: &'static str =
        "a table such as { datacenter1 = 3 }, in text also datacenter1=3,datacenter2=3";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        let table = match input {
            Input::Toml(toml::Value::Table(table)) => table.clone(),
            _ => inline(input.text().ok_or("it is not a table")?)?,
        };
        let pair = |(datacentre, copies): (String, toml::Value)| {
            let copies = copies.as_integer().and_then(|copies| u8::try_from(copies).ok());
            let copies = copies.filter(|copies| (1..=MOST_COPIES).contains(copies));
            match copies {
                _ if !is_datacentre(&datacentre) => {
                    Err(format!("{datacentre:?} is not the name of a datacentre"))
                }
                Some(copies) => Ok((datacentre, copies)),
                None => Err(format!("{datacentre} has not a whole number of copies from 1 to {MOST_COPIES}")),
            }
        };
        table.into_iter().map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(datacentre, copies)| format!("{} = {copies}", toml_name(datacentre)))
            .collect();
        if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
    }
}

/// A table written in an argument or a variable, with or without its braces.
fn inline(text: &str) -> Result<toml::Table, String> {
    let text = text.trim();
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    if inner.contains(['\n', '\r']) {
        return Err("it is more than one line".to_owned());
    }
    let whole: toml::Table = format!("table = {{ {inner} }}")
        .parse()
        .map_err(|_| "it is not a list of pairs such as datacenter1 = 3".to_owned())?;
    Ok(whole.get("table").and_then(toml::Value::as_table).cloned().unwrap_or_default())
}

/// A name as a key of TOML.
fn toml_name(name: &str) -> String {
    let bare = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    if bare && !name.is_empty() { name.to_owned() } else { super::value::quoted(name) }
}

/// No quotes and nothing that would need them in a statement.
fn is_datacentre(name: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    (1..=64).contains(&name.len()) && name.chars().all(allowed)
}

fn contact_points() -> fn(&Vec<String>) -> Result<(), String> {
    |points| {
        for (at, point) in points.iter().enumerate() {
            if points[..at].contains(point) {
                return Err(format!("{point} is there twice"));
            }
            contact_point(point)?;
        }
        if points.len() > MOST_POINTS {
            Err(format!("it has more than {MOST_POINTS} of them"))
        } else {
            Ok(())
        }
    }
}

fn contact_point(point: &str) -> Result<(), String> {
    let odd =
        || Err(format!("{point:?} is not \"host:port\" or \"host\"; an IPv6 address stands in brackets"));
    let (host, port) = match point.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return odd(),
        },
        Some(_) => return odd(),
        None => match point.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (point, None),
        },
    };
    let name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let named = point.starts_with('[') || (!host.is_empty() && host.chars().all(name));
    let reached = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if named && reached && point.len() <= 255 { Ok(()) } else { odd() }
}

fn server_name() -> fn(&Option<String>) -> Result<(), String> {
    |name| match name.as_deref() {
        None | Some("*") => Ok(()),
        Some(name) => {
            let allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
            let named = name.len() <= 253 && name.chars().all(allowed) && name.contains(char::is_alphabetic);
            if named { Ok(()) } else { Err("it is neither a DNS name nor \"*\"".to_owned()) }
        }
    }
}

fn keyspace() -> fn(&String) -> Result<(), String> {
    |name| {
        let begins = name.starts_with(|letter: char| letter.is_ascii_lowercase());
        let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        if !begins || !name.chars().all(allowed) || name.len() > LONGEST_KEYSPACE {
            return Err(format!(
                "a keyspace has a name of 1 to {LONGEST_KEYSPACE} of a to z, 0 to 9 and _, a letter first"
            ));
        }
        if name == "system" || name.starts_with("system_") {
            return Err("the server keeps its own tables there".to_owned());
        }
        Ok(())
    }
}

/// As CQL has it.
const LONGEST_KEYSPACE: usize = 48;
const MOST_COPIES: u8 = 15;
const MOST_POINTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn replication(text: &str) -> Result<Replication, String> {
        Replication::parse(&Input::Text(text), &Replication::default())
    }

    #[test]
    fn replication_is_a_table_or_pairs() {
        let two = Replication(BTreeMap::from([("dc1".to_owned(), 3), ("dc.2".to_owned(), 2)]));
        for text in ["{ dc1 = 3, \"dc.2\" = 2 }", "dc1=3,\"dc.2\"=2", " {dc1=3,\"dc.2\"=2} "] {
            assert_eq!(replication(text).unwrap(), two, "{text}");
        }
        assert_eq!(two.show(), "{ \"dc.2\" = 2, dc1 = 3 }");
        assert_eq!(replication(&two.show()).unwrap(), two);
        assert_eq!(replication("{}").unwrap(), Replication::default());
        for text in
            ["dc1", "dc1=0", "dc1=16", "dc1=-1", "dc1=\"3\"", "\"d'c\"=1", "dc1=1\n[x]", "dc1=1}, y={"]
        {
            assert!(replication(text).is_err(), "{text}");
        }
    }

    #[test]
    fn contact_points_are_hosts_with_or_without_a_port() {
        for point in ["127.0.0.1:9042", "127.0.0.1", "db-1.example.org:19042", "[::1]:9042", "[::1]", "db_1"]
        {
            assert_eq!(contact_point(point), Ok(()), "{point}");
        }
        for point in
            ["", ":9042", "::1", "::1:9042", "a:", "a:0", "a:70000", "http://a:1", "a b:1", "[a]:1", "[::1]1"]
        {
            assert!(contact_point(point).is_err(), "{point}");
        }
        let twice = vec!["a:1".to_owned(), "a:1".to_owned()];
        assert!(contact_points()(&twice).is_err());
    }

    #[test]
    fn a_server_is_known_by_a_name_or_by_its_authority() {
        for (name, right) in
            [("db.example.org", true), ("*", true), ("*.a", false), ("10.0.0.1", false), ("a b", false)]
        {
            assert_eq!(server_name()(&Some(name.to_owned())).is_ok(), right, "{name}");
        }
        assert_eq!(server_name()(&None), Ok(()));
    }

    #[test]
    fn keyspaces_need_no_quotes() {
        for name in ["starling", "s2_x"] {
            assert_eq!(keyspace()(&name.to_owned()), Ok(()));
        }
        let long = "a".repeat(49);
        for name in ["", "Starling", "2s", "a-b", "a;drop", "system", "system_auth", &long] {
            assert!(keyspace()(&name.to_owned()).is_err(), "{name}");
        }
    }
}
