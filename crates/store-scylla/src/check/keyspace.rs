//! The keyspace: how many copies, where, and whether tombstones live as long as they must.

use super::{Finding, ask};
use crate::driver::connect::Connection;
use crate::migrations::{self, Copies, Keyspace, Nodes};
use crate::options::{Options, Replication};
use crate::schema::Table;
use scylla::statement::Statement;
use scylla::value::CqlValue;
use std::collections::BTreeMap;

/// What is to be said of it, and whether nothing can be read or written in it whatever is up.
pub(super) async fn look(options: &Options, connection: &Connection) -> (Vec<Finding>, bool) {
    let (local, nodes) = (connection.datacenter(), &connection.datacenters);
    let keyspace = match migrations::keyspace(connection, &options.keyspace).await {
        Ok(Some(keyspace)) => keyspace,
        Ok(None) => {
            let wanted = migrations::wanted(options, connection);
            return (vec![planned(&wanted, local, nodes)], false);
        }
        // The schema tells.
        Err(_) => return (Vec::new(), false),
    };
    if let Some(refusal) = keyspace.hopeless(&options.keyspace, local, nodes) {
        return (vec![Finding::bad(refusal.why, refusal.advice)], true);
    }
    let mut findings = copies(options, &keyspace, local, nodes);
    findings.push(consistency(keyspace.copies_in(local), local, connection.nodes()));
    findings.extend(durable(options, connection).await);
    findings.extend(graces(options, connection).await);
    (findings, false)
}

/// A keyspace that is yet to be made.
pub(super) fn planned(wanted: &Replication, local: &str, nodes: &BTreeMap<String, usize>) -> Finding {
    if let Some(refusal) = migrations::too_many(wanted, local, nodes) {
        return Finding::bad(refusal.why, refusal.advice);
    }
    let copies = wanted.0.get(local).copied().unwrap_or(0);
    let there = nodes.get(local).copied().unwrap_or(0);
    Finding::good(format!(
        "the keyspace would be made with {} in {local} on {}",
        Copies(copies),
        Nodes(there)
    ))
}

/// Whether a quorum answers now. `nodes` are all of the local datacenter, and those of them that are connected.
pub(super) fn consistency(copies: u32, local: &str, (all, up): (usize, usize)) -> Finding {
    let needed = migrations::quorum(copies) as usize;
    let down = all.saturating_sub(up);
    let text = format!("LOCAL_QUORUM and LOCAL_SERIAL need {needed} of {} in {local}", Copies(copies));
    // So many copies of one row may be on the nodes that are down.
    let left = (copies as usize).saturating_sub(down);
    if left < needed {
        return Finding::bad(
            format!("{text}: with {} down some rows have fewer", Nodes(down)),
            "start the nodes that are down (`nodetool status`), or replace them",
        );
    }
    Finding::good(text)
}

/// What its copies are worth. `nodes` are the nodes by datacenter, `local` is ours.
pub(super) fn copies(
    options: &Options,
    keyspace: &Keyspace,
    local: &str,
    nodes: &BTreeMap<String, usize>,
) -> Vec<Finding> {
    let name = &options.keyspace;
    let mut findings = Vec::new();
    if keyspace.strategy != "NetworkTopologyStrategy" {
        findings.push(Finding::doubtful(
            format!("the keyspace is replicated by {}, which knows no datacenters", keyspace.strategy),
            format!(
                "ALTER KEYSPACE {name} WITH replication = {{'class': 'NetworkTopologyStrategy', '{local}': 3}}, then repair"
            ),
        ));
    }
    let here = keyspace.copies_in(local);
    let there = nodes.get(local).copied().unwrap_or(0);
    let more = "ALTER KEYSPACE to 3 copies on at least 3 nodes, then repair on each of them";
    let text = format!("{} in {local} on {}", Copies(here), Nodes(there));
    findings.push(match here {
        copies if copies as usize > there => Finding::bad(
            format!("{text}: a copy without a node is a replica that is always down"),
            "add nodes, or ALTER KEYSPACE",
        ),
        0 | 1 => Finding::doubtful(
            format!("{text}: a node that is down stops the accounts on it, one that is lost loses them"),
            more,
        ),
        2 => Finding::doubtful(format!("{text}: both are needed for a quorum, so no node may be down"), more),
        _ => Finding::good(text),
    });
    if !options.replication.0.is_empty() && options.replication != keyspace.replication {
        findings.push(Finding::doubtful(
            format!(
                "the keyspace has the copies {} and store.replication says {}",
                keyspace.replication, options.replication
            ),
            "change one of them; after ALTER KEYSPACE, repair",
        ));
    }
    findings.extend(elsewhere(&keyspace.replication, nodes));
    findings
}

/// Copies in datacenters that there are not.
fn elsewhere(copies: &Replication, nodes: &BTreeMap<String, usize>) -> Option<Finding> {
    let gone = |name: &&String| *name != "*" && !nodes.contains_key(*name);
    let names: Vec<_> = copies.0.keys().filter(gone).cloned().collect();
    let names = names.join(", ");
    (!names.is_empty()).then(|| {
        Finding::doubtful(
            format!("the keyspace has copies in datacenters that have no node: {names}"),
            "ALTER KEYSPACE without them, or start their nodes",
        )
    })
}

async fn durable(options: &Options, connection: &Connection) -> Option<Finding> {
    let text = "SELECT durable_writes FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let rows = ask(connection, Statement::new(text), (&options.keyspace,)).await.ok()?;
    match rows.first()?.columns.first()? {
        Some(CqlValue::Boolean(false)) => Some(Finding::bad(
            "the keyspace has no durable writes: a restart loses what is in memory",
            format!("ALTER KEYSPACE {} WITH durable_writes = true", options.keyspace),
        )),
        _ => None,
    }
}

/// A tombstone that is forgotten before all copies have it brings back what it hid.
const GRACE: i32 = 864_000;

async fn graces(options: &Options, connection: &Connection) -> Option<Finding> {
    let text = "SELECT table_name, gc_grace_seconds FROM system_schema.tables WHERE keyspace_name = ?";
    let rows = ask(connection, Statement::new(text), (&options.keyspace,)).await.ok()?;
    let short = rows.iter().filter_map(|row| match row.columns.as_slice() {
        [Some(CqlValue::Text(table)), Some(CqlValue::Int(grace))] if *grace < GRACE => {
            Table::ALL.iter().find(|ours| ours.as_str() == table).map(|ours| ours.as_str())
        }
        _ => None,
    });
    let short = short.collect::<Vec<_>>().join(", ");
    (!short.is_empty()).then(|| {
        Finding::doubtful(
            format!("gc_grace_seconds is below ten days: {short}"),
            "set it to 864000 and repair at least once in that time: otherwise what was deleted may come back",
        )
    })
}
