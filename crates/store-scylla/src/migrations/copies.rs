//! How many copies there are to be, against how many nodes there are.
//!
//! A server makes a keyspace with more copies than it has nodes without a word, and then confirms nothing in it.

use super::{Keyspace, fitness::Refusal};
use crate::driver::connect::Connection;
use crate::options::{Options, Replication};
use std::{collections::BTreeMap, fmt};

/// As the options say; otherwise three in the local datacenter, or as many as there are nodes.
pub(crate) fn wanted(options: &Options, connection: &Connection) -> Replication {
    if !options.replication.0.is_empty() {
        return options.replication.clone();
    }
    let nodes = connection.datacenters.get(&connection.datacenter).copied().unwrap_or(1);
    let copies = u32::try_from(nodes).unwrap_or(3).clamp(1, 3);
    Replication(BTreeMap::from([(connection.datacenter.clone(), copies)]))
}

/// So many copies are a quorum.
pub(crate) fn quorum(copies: u32) -> u32 {
    copies / 2 + 1
}

/// Why no keyspace can be made with these copies. `nodes` are the nodes by datacenter, `local` is ours.
pub(crate) fn too_many(
    wanted: &Replication,
    local: &str,
    nodes: &BTreeMap<String, usize>,
) -> Option<Refusal> {
    let there = || {
        let each: Vec<_> =
            nodes.iter().map(|(name, count)| format!("{name} with {}", Nodes(*count))).collect();
        each.join(", ")
    };
    for (name, copies) in &wanted.0 {
        let Some(count) = nodes.get(name).copied() else {
            let why = format!(
                "store.replication asks for {} in {name}, a datacenter that there is not: there is {}",
                Copies(*copies),
                there()
            );
            return Some(Refusal { why, advice: "name those there are in store.replication".to_owned() });
        };
        if *copies as usize > count {
            let why = format!(
                "store.replication asks for {} in {name}, which has {}: a copy without a node is a replica that is \
                 always down",
                Copies(*copies),
                Nodes(count)
            );
            let advice = format!("add nodes first, or set store.replication = {{ {name} = {count} }}");
            return Some(Refusal { why, advice });
        }
    }
    if wanted.0.get(local).is_none_or(|copies| *copies == 0) {
        let why = format!("store.replication has no copy in {local}, the local datacenter");
        let advice = "add it there, or set store.local_datacenter to one that has copies".to_owned();
        return Some(Refusal { why, advice });
    }
    None
}

impl Keyspace {
    /// Copies in a datacenter.
    pub(crate) fn copies_in(&self, datacenter: &str) -> u32 {
        let everywhere = self.replication.0.get("*").copied();
        self.replication.0.get(datacenter).copied().or(everywhere).unwrap_or(0)
    }

    /// Why nothing can be read or confirmed in it, whatever is up.
    pub(crate) fn hopeless(
        &self,
        name: &str,
        local: &str,
        nodes: &BTreeMap<String, usize>,
    ) -> Option<Refusal> {
        let (copies, count) = (self.copies_in(local), nodes.get(local).copied().unwrap_or(0));
        if copies == 0 {
            return Some(Refusal {
                why: format!("the keyspace {name} has no copy in {local}, the local datacenter"),
                advice: "set store.local_datacenter to one that has copies, or ALTER KEYSPACE, then repair"
                    .to_owned(),
            });
        }
        (quorum(copies) as usize > count).then(|| Refusal {
            why: format!(
                "the keyspace {name} has {} in {local}, which has {}: a quorum of {} can never answer",
                Copies(copies),
                Nodes(count),
                quorum(copies)
            ),
            advice: format!(
                "add nodes, or ALTER KEYSPACE {name} WITH replication = {{'class': 'NetworkTopologyStrategy', \
                 '{local}': {}}}, then repair",
                count.clamp(1, 3)
            ),
        })
    }
}

/// A number of copies, for people.
pub(crate) struct Copies(pub(crate) u32);

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "copy" } else { "copies" })
    }
}

/// A number of nodes, for people.
pub(crate) struct Nodes(pub(crate) usize);

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "node" } else { "nodes" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(all: &[(&str, usize)]) -> BTreeMap<String, usize> {
        all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn replication(all: &[(&str, u32)]) -> Replication {
        Replication(all.iter().map(|(name, copies)| ((*name).to_owned(), *copies)).collect())
    }

    #[test]
    fn no_keyspace_is_made_that_cannot_work() {
        let refused = |copies: &[(&str, u32)], there: &[(&str, usize)]| {
            too_many(&replication(copies), "dc1", &nodes(there)).map(|refusal| refusal.to_string())
        };
        assert_eq!(refused(&[("dc1", 3)], &[("dc1", 3)]), None);
        assert_eq!(refused(&[("dc1", 1)], &[("dc1", 3)]), None);
        assert_eq!(refused(&[("dc1", 3), ("dc2", 2)], &[("dc1", 3), ("dc2", 2)]), None);
        for (copies, there, words) in [
            (&[("dc1", 3)][..], &[("dc1", 1)][..], "3 copies in dc1, which has 1 node"),
            (&[("dc1", 3)], &[("dc1", 2)], "set store.replication = { dc1 = 2 }"),
            (&[("dc1", 3), ("dc2", 3)], &[("dc1", 3), ("dc2", 1)], "3 copies in dc2, which has 1 node"),
            (
                &[("dc1", 1), ("dc9", 1)],
                &[("dc1", 3)],
                "1 copy in dc9, a datacenter that there is not: there is dc1 with 3 nodes",
            ),
            (&[("dc2", 1)], &[("dc1", 3), ("dc2", 3)], "no copy in dc1"),
        ] {
            let refused = refused(copies, there).unwrap();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn a_keyspace_without_a_quorum_is_hopeless_and_one_that_lacks_a_copy_is_not() {
        let hopeless = |copies: &[(&str, u32)], count| {
            let keyspace = Keyspace { replication: replication(copies), strategy: String::new() };
            keyspace.hopeless("ks", "dc1", &nodes(&[("dc1", count)])).map(|refusal| refusal.to_string())
        };
        assert_eq!(hopeless(&[("dc1", 3)], 3), None);
        assert_eq!(hopeless(&[("dc1", 3)], 2), None);
        assert_eq!(hopeless(&[("*", 1)], 1), None);
        assert!(hopeless(&[("dc1", 3)], 1).unwrap().contains("a quorum of 2 can never answer"));
        assert!(hopeless(&[("*", 9)], 3).unwrap().contains("'dc1': 3}"));
        assert!(hopeless(&[("dc2", 3)], 3).unwrap().contains("no copy in dc1"));
    }
}
