//! `docs/telemetry.md` names every metric and every label there is, and none that is not.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use starling_node::{
    Metrics,
    telemetry::metrics::{Consistency, DbCollection, DbOperation, DbResult, Outcome, StoreTable},
};

/// Name, type and labels of each family, from the text that is scraped.
fn families() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let metrics = Metrics::new();
    metrics.serves_clients();
    // The series of these exist only once they have been used.
    metrics.db_operation.at(DbOperation::Select, DbCollection::Log, DbResult::Ok);
    metrics.store_write.at(StoreTable::Log, Consistency::Disk, Outcome::Ok);
    let text = metrics.encode();
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let (Some((_, rest)), false) = (line.split_once('{'), line.starts_with('#')) {
            let labels = rest.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
            let labels = labels.filter(|name| *name != "le").map(str::to_owned);
            families.get_mut(&current).unwrap().1.extend(labels);
        }
    }
    families
}

#[test]
fn the_page_of_metrics_is_complete() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/telemetry.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
        Some((name.to_owned(), (kind.to_owned(), labels)))
    });
    let documented: BTreeMap<_, _> = rows.collect();
    let there = families();
    assert!(there.len() > 20, "{there:?}");
    assert_eq!(documented, there);
}
