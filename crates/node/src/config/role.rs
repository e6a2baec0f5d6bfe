//! What a process of a cluster needs of its settings, beyond what every server does.

use super::{Config, ConfigErrors, StoreKind, error::ConfigError};

/// What a process is in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has homes.
    Router,
    /// It has sockets.
    Edge,
}

/// The largest stanza of a client that fits a message between processes in any form: its answers quote it, its canonical
/// form may be longer, and what forwards it wraps it.
pub const LARGEST_STANZA: usize = 512 << 10;
/// As much of one session can be told to its next home: several times that, for what waits to be queued goes there, too.
const LARGEST_QUEUE: usize = 16 << 20;
const LONGEST_QUEUE: usize = 50_000;
/// The longest list that is sent in one stanza.
const LONGEST_LIST: usize = 4_000;

impl Config {
    /// Whether a process of this role can be run with these settings.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check_role(&self, role: Role) -> Result<(), ConfigErrors> {
        let mut check = Check { config: self, errors: Vec::new() };
        check.seeds(role);
        check.certificates();
        check.sizes();
        match role {
            Role::Router => check.router(),
            Role::Edge => check.edge(),
        }
        if check.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(check.errors)) }
    }
}

struct Check<'a> {
    config: &'a Config,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    fn fail(
        &mut self,
        key: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let (what, why, advice) = (what.into(), why.into(), advice.into());
        self.errors.push(ConfigError { what, origin: self.config.origin(key), why, advice });
    }

    fn seeds(&mut self, role: Role) {
        let cluster = &self.config.cluster;
        let alone = role == Role::Router && cluster.initial_routers == 1;
        if cluster.routers.is_empty() && !alone {
            let why = match role {
                Role::Edge => "an edge has nobody to speak to",
                Role::Router => {
                    "a router alone never serves: it finds the others by these addresses, and founds a cluster with them"
                }
            };
            self.fail(
                "cluster.routers",
                "`cluster.routers` is empty",
                why,
                "name the routers, such as [\"router-0.example.net:5270\", \"router-1.example.net:5270\"], or one name with all their addresses",
            );
        }
        let name = cluster.node_name();
        if super::cluster::is_part(&name).is_err() {
            self.fail(
                "cluster.node",
                format!("this host is called {name:?}, which cannot be `cluster.node`"),
                "the name of a process stands in its certificate: letters, digits, -, _ and .",
                "set `cluster.node`",
            );
        }
    }

    fn certificates(&mut self) {
        let tls = &self.config.cluster.tls;
        let files = [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)];
        for key in
            files.iter().filter(|(_, file)| file.is_none()).map(|(name, _)| format!("cluster.tls.{name}"))
        {
            self.fail(
                &key,
                format!("`{key}` is not set"),
                "processes of a cluster speak only with those whose certificates they can check",
                "`starling cluster ca` and `starling cluster certificate` make the files; give their paths",
            );
        }
    }

    /// A stanza, a queue and a list have to fit what goes between processes.
    fn sizes(&mut self) {
        let limits = &self.config.limits;
        let bounds = [
            ("limits.xml.c2s.max_stanza_bytes", limits.xml.c2s.max_stanza_bytes, LARGEST_STANZA),
            ("limits.sm.max_unacked_bytes", limits.sm.max_unacked_bytes, LARGEST_QUEUE),
            ("limits.sm.max_unacked", limits.sm.max_unacked, LONGEST_QUEUE),
            ("limits.roster.max_items", limits.roster.max_items, LONGEST_LIST),
            ("limits.blocklist.max_items", limits.blocklist.max_items, LONGEST_LIST),
        ];
        for (key, value, most) in bounds {
            if value > most {
                self.fail(
                    key,
                    format!("`{key}` is {value}"),
                    format!(
                        "in a cluster it may be {most} at most: it has to fit the messages between processes"
                    ),
                    format!("set it to {most} or less, for all processes alike"),
                );
            }
        }
    }

    fn router(&mut self) {
        let config = self.config;
        if config.store.kind == StoreKind::Embedded {
            self.fail(
                "store.kind",
                "`store.kind` is \"embedded\"",
                "routers share one store, and a directory belongs to one process",
                "set `store.kind = \"scylla\"` and `store.contact_points`; for one process without such servers there is `starling serve`",
            );
        }
        if config.listen.cluster.is_off() {
            self.fail(
                "listen.cluster",
                "`listen.cluster` is \"off\"",
                "edges and other routers could not reach this router",
                "give an address such as \"0.0.0.0:5270\"",
            );
        }
        for address in config.listen.cluster.0.iter().filter(|address| address.port() != 0) {
            if config.listen.admin.0.contains(address) {
                self.fail(
                    "listen.cluster",
                    format!("`listen.cluster` and `listen.admin` are both {address}"),
                    "one address can serve only one of them",
                    "give one of them another port",
                );
            }
        }
        let (shards, requests) = (usize::from(config.cluster.shards), config.store.requests_in_flight);
        if shards > requests {
            self.fail(
                "cluster.shards",
                format!("`cluster.shards` is {shards}, and `store.requests_in_flight` {requests}"),
                "a router that leads all shards could not ask the store for each of them at a time",
                "raise `store.requests_in_flight`, or take fewer shards",
            );
        }
    }

    fn edge(&mut self) {
        if self.config.listen.c2s.is_off() && self.config.listen.c2s_tls.is_off() {
            self.fail(
                "listen.c2s",
                "`listen.c2s` and `listen.c2s_tls` are both \"off\"",
                "an edge is there for clients, and none could connect",
                "set one of them",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;

    const WHOLE: [&str; 6] = [
        "cluster.routers=a:1,b:2",
        "cluster.tls.ca=ca.pem",
        "cluster.tls.cert=cert.pem",
        "cluster.tls.key=key.pem",
        "cluster.node=one",
        "store.kind=scylla",
    ];

    fn whats(role: Role, sets: &[&str]) -> Vec<String> {
        let sets = WHOLE.iter().chain(sets).map(|set| (*set).to_owned()).collect();
        let config = Config::load(&Sources { sets, ..Sources::default() }).unwrap();
        let errors = config.check_role(role).err().map(|errors| errors.0).unwrap_or_default();
        errors.into_iter().map(|error| error.what).collect()
    }

    #[test]
    fn each_role_has_what_it_needs() {
        assert_eq!(whats(Role::Router, &[]), [""; 0]);
        // An edge has no store.
        assert_eq!(whats(Role::Edge, &["store.kind=embedded", "listen.cluster=off"]), [""; 0]);
        let nothing = Config::default().check_role(Role::Router).unwrap_err().0;
        let named: Vec<_> = nothing.iter().map(|error| error.what.as_str()).collect();
        assert_eq!(
            named,
            [
                "`cluster.routers` is empty",
                "`cluster.tls.ca` is not set",
                "`cluster.tls.cert` is not set",
                "`cluster.tls.key` is not set",
                "`store.kind` is \"embedded\"",
            ]
        );
    }

    #[test]
    fn nobody_is_alone_unless_that_is_said() {
        let empty = ["`cluster.routers` is empty"];
        assert_eq!(whats(Role::Router, &["cluster.routers=[]"]), empty);
        assert_eq!(whats(Role::Edge, &["cluster.routers=[]"]), empty);
        assert_eq!(whats(Role::Router, &["cluster.routers=[]", "cluster.initial_routers=1"]), [""; 0]);
        assert_eq!(whats(Role::Edge, &["cluster.routers=[]", "cluster.initial_routers=1"]), empty);
    }

    #[test]
    fn what_does_not_fit_a_message_is_refused() {
        for set in [
            "limits.xml.c2s.max_stanza_bytes=1MiB",
            "limits.sm.max_unacked_bytes=64MiB",
            "limits.sm.max_unacked=60000",
            "limits.roster.max_items=5000",
            "limits.blocklist.max_items=5000",
        ] {
            assert_eq!(whats(Role::Edge, &[set]).len(), 1, "{set}");
            assert_eq!(whats(Role::Router, &[set]).len(), 1, "{set}");
        }
    }

    #[test]
    fn addresses_fit_the_role() {
        for set in ["listen.cluster=off", "listen.cluster=127.0.0.1:5290", "cluster.shards=1024"] {
            assert_eq!(whats(Role::Edge, &[set]), [""; 0], "{set}");
            assert_eq!(whats(Role::Router, &[set, "store.requests_in_flight=100"]).len(), 1, "{set}");
        }
        assert_eq!(whats(Role::Edge, &["listen.c2s=off", "listen.c2s_tls=off"]).len(), 1);
    }
}
