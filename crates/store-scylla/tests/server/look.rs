//! What `starling check` sees.

use crate::world::{driver, options, raw};
use starling_node::SystemClock;
use starling_store_scylla::check::{self, Verdict};
use starling_store_scylla::options::Options;

async fn look(options: &Options) -> Vec<(Verdict, String)> {
    let findings = check::run(options, &SystemClock::new()).await;
    assert!(findings.iter().all(|finding| (finding.verdict == Verdict::Good) == finding.remedy.is_none()));
    findings.into_iter().map(|finding| (finding.verdict, finding.text)).collect()
}

pub(crate) async fn everything_is_looked_at(address: String) {
    let options = options(&address);
    driver(&options).await;
    let found = look(&options).await;
    for (verdict, words) in [
        (Verdict::Good, "nodes of datacenter datacenter1 are connected"),
        (Verdict::Doubtful, "lets everybody in"),
        (Verdict::Good, "Apache Cassandra "),
        (Verdict::Good, "clocks differ by at most"),
        (Verdict::Doubtful, "1 copy in datacenter1 on 1 node"),
        (Verdict::Good, "LOCAL_QUORUM and LOCAL_SERIAL need 1 of 1 copy"),
        (Verdict::Good, "fits version"),
    ] {
        let is = |(verdict_of, text): &(Verdict, String)| *verdict_of == verdict && text.contains(words);
        assert!(found.iter().any(is), "{words} is not in {found:#?}");
    }
    for words in ["the commit log is synced", "a quorum read takes", "a conditional write takes"] {
        assert!(
            found.iter().any(|(verdict, text)| *verdict < Verdict::Bad && text.contains(words)),
            "{found:#?}"
        );
    }
}

pub(crate) async fn what_is_missing_is_said(address: String) {
    let options = options(&address);
    let found = look(&options).await;
    assert!(
        found.iter().any(|(verdict, text)| *verdict == Verdict::Bad && text.contains("no keyspace")),
        "{found:#?}"
    );
    driver(&options).await;
    let text = format!(
        "ALTER KEYSPACE {} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': 9}}",
        options.keyspace
    );
    raw(&options).await.query_unpaged(text, ()).await.unwrap();
    let found = look(&options).await;
    let bad: Vec<_> = found.iter().filter(|(verdict, _)| *verdict == Verdict::Bad).collect();
    let words = "9 copies in datacenter1, which has 1 node: a quorum of 5 can never answer";
    assert!(bad.len() == 1 && bad[0].1.contains(words), "{found:#?}");
    let nobody = Options { contact_points: vec!["127.0.0.1:1".to_owned()], ..options };
    let found = look(&nobody).await;
    assert!(found.len() == 1 && found[0].1.contains("127.0.0.1:1"), "{found:#?}");
}
