//! `docs/cluster.md` names every metric that a router or an edge has beside those of `docs/telemetry.md`, and none that is not.

use crate::site::Site;
use starling_cluster::EdgeNode;
use starling_node::{SystemClock, Telemetry};
use std::collections::BTreeSet;
use std::time::Duration;

type Names = BTreeSet<String>;

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What stands in the first column of the tables below a heading, without labels and as it is scraped.
fn documented(page: &str, heading: &str) -> Names {
    let below = page.split_once(&format!("## {heading}\n")).unwrap().1;
    let section = below.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').step_by(2));
    let bare = |name: &str| name.split('{').next().unwrap().trim_end_matches("_total").to_owned();
    names.map(bare).filter(|name| !name.is_empty()).collect()
}

/// What a process has that the page of all processes does not name.
fn own(telemetry: &Telemetry) -> Names {
    let of_all = page("telemetry.md");
    let text = telemetry.metrics.encode();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let own = families.filter(|name| !of_all.contains(&format!("| `{name}` |")));
    own.map(str::to_owned).collect()
}

fn value(telemetry: &Telemetry, name: &str) -> Option<u64> {
    let text = telemetry.metrics.encode();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_a_cluster_are_those_of_its_page() {
    let mut site = Site::empty(3).await;
    let (router, edge) = (Telemetry::off(), Telemetry::off());
    site.run_with(0, router.clone()).await;
    for number in 1..3 {
        site.run(number).await;
    }
    site.settled(Duration::from_secs(30)).await;
    let node = EdgeNode::start(site.edge_config("edge-1"), edge.clone()).await.unwrap();
    let page = page("cluster.md");
    assert_eq!(documented(&page, "Metrics of an edge"), own(&edge));
    // A family of labels is not scraped before one of them has a value.
    let unlabelled: Names = ["starling_links_refused", "starling_shard_home"].map(str::to_owned).into();
    assert_eq!(documented(&page, "Metrics of a router"), &own(&router) | &unlabelled);
    // The authority of these tests makes them for a day, and the clock goes on.
    let now = SystemClock::shared().now_micros() / 1_000_000;
    for telemetry in [&router, &edge] {
        let end = value(telemetry, "starling_cluster_certificate_expiry_timestamp_seconds").unwrap();
        assert!((now + 80_000..=now + 86_400).contains(&end), "{end}, and it is {now}");
    }
    // Of what is not there, 0 would be an alarm.
    let of_clients = |telemetry| value(telemetry, "starling_tls_certificate_expiry_timestamp_seconds");
    assert!(of_clients(&router).is_none() && of_clients(&edge) > Some(now));
    node.stop().await;
}
