//! Judgements on facts.

use super::nodes::{Facts, judge};
use super::*;
use crate::migrations::Keyspace;
use crate::options::Replication;
use crate::schema::Dialect;
use std::collections::BTreeMap;

fn healthy() -> Facts {
    Facts {
        at: "10.0.0.1:9042".to_owned(),
        version: Some("5.0.9".to_owned()),
        schema: Some("a".to_owned()),
        ahead: Some((3, 1)),
        sync: Some("group".to_owned()),
        period: None,
    }
}

fn worst(all: &[Facts]) -> (Verdict, String) {
    let findings = judge(Dialect::Cassandra, all);
    assert!(findings.iter().all(|finding| (finding.verdict == Verdict::Good) == finding.remedy.is_none()));
    let worst = findings.into_iter().max_by_key(|finding| finding.verdict).unwrap();
    (worst.verdict, worst.text)
}

#[test]
fn nodes_as_they_should_be_are_good() {
    assert_eq!(worst(&[healthy(), healthy()]).0, Verdict::Good);
}

#[test]
fn what_is_wrong_with_a_node_is_said() {
    for (change, verdict, words) in [
        ((|facts| facts.version = Some("3.11.4".to_owned())) as fn(&mut Facts), Verdict::Doubtful, "3.11.4"),
        (|facts| facts.schema = Some("b".to_owned()), Verdict::Bad, "disagree"),
        (|facts| facts.ahead = Some((-700, 100)), Verdict::Doubtful, "600 ms behind"),
        (|facts| facts.ahead = Some((9_000, 1)), Verdict::Bad, "8999 ms ahead"),
        (|facts| facts.sync = Some("periodic".to_owned()), Verdict::Doubtful, "1 of 2 nodes"),
        (|facts| facts.sync = None, Verdict::Doubtful, "cannot be read"),
        (|facts| facts.version = Some("5.0.2".to_owned()), Verdict::Doubtful, "different versions"),
    ] {
        let mut other = healthy();
        change(&mut other);
        let alone = other.clone();
        let all = [healthy(), other];
        let found = if words == "3.11.4" { worst(&[alone]) } else { worst(&all) };
        assert!(found.0 == verdict && found.1.contains(words), "{found:?} {words}");
    }
    // What the way may hide is not held against a clock.
    let slow = Facts { ahead: Some((700, 650)), ..healthy() };
    assert_eq!(worst(&[slow]).0, Verdict::Good);
}

#[test]
fn copies_are_judged_against_nodes() {
    let options = Options::default();
    let judge = |class: &str, copies: &[(&str, u32)], nodes: &[(&str, usize)]| {
        let copies = copies.iter().map(|(name, copies)| ((*name).to_owned(), *copies)).collect();
        let keyspace = Keyspace { strategy: class.to_owned(), replication: Replication(copies) };
        let nodes: BTreeMap<_, _> = nodes.iter().map(|(name, nodes)| ((*name).to_owned(), *nodes)).collect();
        let findings = keyspace::copies(&options, &keyspace, "dc1", &nodes);
        findings.into_iter().map(|finding| finding.verdict).max().unwrap()
    };
    let topology = "NetworkTopologyStrategy";
    assert_eq!(judge(topology, &[("dc1", 3)], &[("dc1", 3)]), Verdict::Good);
    assert_eq!(judge(topology, &[("dc1", 3)], &[("dc1", 2)]), Verdict::Bad);
    assert_eq!(judge(topology, &[("dc1", 1)], &[("dc1", 3)]), Verdict::Doubtful);
    assert_eq!(judge(topology, &[("dc1", 2)], &[("dc1", 3)]), Verdict::Doubtful);
    assert_eq!(judge(topology, &[("dc1", 3), ("dc9", 3)], &[("dc1", 3)]), Verdict::Doubtful);
    assert_eq!(judge("SimpleStrategy", &[("*", 3)], &[("dc1", 3)]), Verdict::Doubtful);
    let configured =
        Options { replication: Replication(BTreeMap::from([("dc1".to_owned(), 5)])), ..Options::default() };
    let replication = Replication(BTreeMap::from([("dc1".to_owned(), 3)]));
    let keyspace = Keyspace { strategy: topology.to_owned(), replication };
    let found = keyspace::copies(&configured, &keyspace, "dc1", &BTreeMap::from([("dc1".to_owned(), 3)]));
    assert!(
        found
            .iter()
            .any(|finding| finding.text.contains("{\"dc1\": 3} and store.replication says {\"dc1\": 5}"))
    );
}

#[test]
fn a_quorum_is_counted_on_what_is_up() {
    let judge = |copies, nodes| keyspace::consistency(copies, "dc1", nodes).verdict;
    assert_eq!(judge(1, (1, 1)), Verdict::Good);
    assert_eq!(judge(3, (3, 2)), Verdict::Good);
    assert_eq!(judge(3, (5, 4)), Verdict::Good);
    assert_eq!(judge(3, (5, 3)), Verdict::Bad);
    assert_eq!(judge(1, (3, 2)), Verdict::Bad);
}

#[test]
fn a_keyspace_that_is_not_there_is_judged_as_it_would_be_made() {
    let nodes = BTreeMap::from([("dc1".to_owned(), 1)]);
    let planned = |copies| {
        let wanted = Replication(BTreeMap::from([("dc1".to_owned(), copies)]));
        keyspace::planned(&wanted, "dc1", &nodes)
    };
    assert_eq!(planned(1).text, "the keyspace would be made with 1 copy in dc1 on 1 node");
    assert!(planned(3).verdict == Verdict::Bad && planned(3).text.contains("which has 1 node"));
}

#[test]
fn who_listens_matters_beyond_this_machine() {
    let at = |point: &str| {
        let options = Options { contact_points: vec![point.to_owned()], ..Options::default() };
        access(&options).iter().filter(|finding| finding.text.contains("not encrypted")).count()
    };
    for near in ["127.0.0.1", "127.0.0.9:9042", "localhost:9042", "[::1]:9042", "::1"] {
        assert_eq!(at(near), 0, "{near}");
    }
    for far in ["10.0.0.1:9042", "cql.example.net", "[2001:db8::1]:9042", "2001:db8::1"] {
        assert_eq!(at(far), 1, "{far}");
    }
}
