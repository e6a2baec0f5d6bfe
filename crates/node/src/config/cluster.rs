//! Being one process of many.

use std::{path::PathBuf, time::Duration};

use super::section::section;

section! {
    /// A cluster: `starling router` and `starling edge`. `starling serve` takes none of these keys.
    pub struct Cluster {
        /// Name of the cluster, the same for all of its processes. It stands in their certificates.
        name: String = "starling".to_owned(), in part();
        /// Name of this process within the cluster. Its certificate has to allow it. Empty: the name of the host.
        node: Option<String> = None, in node();
        /// Where routers are, as "host:port"; a name may have many addresses, and a router's own may be among them. One
        /// that lives is enough: it tells where the others are.
        routers: Vec<String> = Vec::new(), in routers();
        /// Where other routers reach this one, as "host:port". Empty: `cluster.node` and the port of `listen.cluster`.
        advertise: Option<String> = None, in advertised();
        /// Into how many shards accounts are sorted: the same for all processes, and for ever.
        shards: u16 = 16, in 1..=1_024;
        /// How many routers found the cluster together. Fewer never do, so that a router that is cut off from the others does
        /// not found one of its own. Of no meaning once the cluster is there. 0: they wait for `starling ctl raft restore`.
        initial_routers: usize = 3, in 0..=64;
    }
    with {
        /// Certificates of the links between processes.
        tls: ClusterTls;
        /// How routers find out that one of them is lost.
        raft: ClusterRaft;
    }
}

impl Cluster {
    /// The name of this process.
    pub fn node_name(&self) -> String {
        let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let name = self.node.clone().or_else(host).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| "unknown".to_owned())
    }
}

section! {
    /// Certificates of the links between processes, as `starling cluster certificate` makes them. The files are read again
    /// when they change.
    pub struct ClusterTls {
        /// The authority of the cluster in PEM form; while one follows another, both.
        ca: Option<PathBuf> = None;
        /// Certificate of this process in PEM form, with the name starling://CLUSTER/ROLE/NODE.
        cert: Option<PathBuf> = None;
        /// The private key of `cluster.tls.cert` in PEM form.
        key: Option<PathBuf> = None;
    }
}

section! {
    /// How routers find out that one of them is lost. No promise rests upon these: they may differ between routers. A router
    /// whose process has ended is found by its closed connections, whatever stands here.
    pub struct ClusterRaft {
        /// How often a router tells the others that it lives and leads. What it may confirm without them it may for 270 ms,
        /// so of three such signs two may be lost.
        heartbeat: Duration = Duration::from_millis(75), in Duration::from_millis(25)..=Duration::from_millis(90);
        /// How long a router may be silent before its shards are taken over. Longer: a machine that is too busy keeps its
        /// shards, and one that is cut off is replaced later. It grows by itself, to three times as much, for a router that
        /// has been slow; time in which this process did not run is not counted.
        election: Duration = Duration::from_millis(300), in Duration::from_millis(300)..=Duration::from_secs(5);
    }
}

section! {
    /// How an edge leaves: after SIGTERM, or `starling ctl drain`.
    pub struct Drain {
        /// How long new clients are still accepted while the probe says already that this edge is not ready: until load
        /// balancers have noticed.
        lb_settle: Duration = Duration::from_secs(5), in Duration::ZERO..=Duration::from_secs(600);
        /// Over how long its clients are sent away, each at a time of its own.
        window: Duration = Duration::from_secs(30), in Duration::ZERO..=Duration::from_secs(86_400);
        /// A "host" or "host:port" to which clients that cannot resume are sent by `see-other-host`. Empty: they are told
        /// `system-shutdown`, as the others are.
        see_other_host: Option<String> = None, in other_host();
    }
}

fn part() -> fn(&String) -> Result<(), String> {
    |name| is_part(name)
}

fn node() -> fn(&Option<String>) -> Result<(), String> {
    |name| name.as_deref().map_or(Ok(()), is_part)
}

/// What can stand in the URI of a certificate.
pub(super) fn is_part(name: &str) -> Result<(), String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if (1..=255).contains(&name.len()) && name.chars().all(allowed) {
        Ok(())
    } else {
        Err("it stands in certificates: 1 to 255 letters, digits, -, _ and .".to_owned())
    }
}

fn routers() -> fn(&Vec<String>) -> Result<(), String> {
    |routers| {
        for (at, router) in routers.iter().enumerate() {
            if routers[..at].contains(router) {
                return Err(format!("{router} is there twice"));
            }
            reachable(router)?;
        }
        if routers.len() > MOST_ROUTERS {
            Err(format!("it has more than {MOST_ROUTERS} of them"))
        } else {
            Ok(())
        }
    }
}

fn advertised() -> fn(&Option<String>) -> Result<(), String> {
    |place| place.as_deref().map_or(Ok(()), reachable)
}

fn other_host() -> fn(&Option<String>) -> Result<(), String> {
    |place| match place.as_deref() {
        None => Ok(()),
        Some(place) => host_and_port(place, false).map(drop),
    }
}

/// `host:port` at which somebody can be.
fn reachable(place: &str) -> Result<(), String> {
    let host = host_and_port(place, true)?;
    match host.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            Err(format!("{place:?} is every address of a machine and none that others can reach"))
        }
        _ => Ok(()),
    }
}

/// The host.
fn host_and_port(place: &str, port_needed: bool) -> Result<&str, String> {
    let odd = || {
        let form = if port_needed { "\"host:port\"" } else { "\"host:port\" or \"host\"" };
        format!("{place:?} is not {form}; an IPv6 address stands in brackets")
    };
    let name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let (host, rest) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, rest),
        Some(_) => return Err(odd()),
        None => {
            let (host, rest) = place.split_at(place.find(':').unwrap_or(place.len()));
            if host.is_empty() || host.len() > 253 || !host.chars().all(name) {
                return Err(odd());
            }
            (host, rest)
        }
    };
    match rest.strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(host),
        None if rest.is_empty() && !port_needed => Ok(host),
        _ => Err(odd()),
    }
}

const MOST_ROUTERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_at_hosts_with_a_port() {
        for place in ["127.0.0.1:5270", "router-0.routers.svc:5270", "[::1]:5270", "a_b:1"] {
            assert_eq!(reachable(place), Ok(()), "{place}");
        }
        for place in [
            "",
            "127.0.0.1",
            ":5270",
            "::1:5270",
            "[::1]",
            "a:0",
            "a:70000",
            "a:x",
            "http://a:1",
            "a b:1",
            "0.0.0.0:5270",
            "[::]:5270",
            "[a]:1",
        ] {
            assert!(reachable(place).is_err(), "{place}");
        }
        assert!(routers()(&vec!["a:1".to_owned(), "a:1".to_owned()]).is_err());
        assert!(host_and_port("chat.example.org", false).is_ok() && host_and_port("a:x", false).is_err());
    }

    #[test]
    fn names_can_stand_in_certificates() {
        for (name, right) in [("router-0", true), ("a.b_c", true), ("", false), ("a/b", false), ("*", false)]
        {
            assert_eq!(is_part(name).is_ok(), right, "{name}");
        }
        let mut cluster = Cluster::default();
        assert!(!cluster.node_name().is_empty());
        cluster.node = Some("router-0".to_owned());
        assert_eq!(cluster.node_name(), "router-0");
    }
}
