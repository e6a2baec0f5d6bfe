//! The keyspace: how many copies, where, and whether tombstones live as long as they must.

use super::{Finding, ask};
use crate::driver::connect::Connection;
use crate::migrations::{self, Keyspace};
use crate::options::{Options, Replication};
use crate::schema::Table;
use scylla::statement::Statement;
use scylla::value::CqlValue;
use std::collections::BTreeMap;

pub(super) async fn look(options: &Options, connection: &Connection) -> Vec<Finding> {
    let Ok(Some(keyspace)) = migrations::keyspace(connection, &options.keyspace).await else {
        // The schema tells.
        return Vec::new();
    };
    let mut findings = copies(options, &keyspace, connection.datacenter(), &connection.datacenters);
    findings.extend(durable(options, connection).await);
    findings.extend(graces(options, connection).await);
    findings
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
    let everywhere = keyspace.replication.0.get("*").copied();
    let here = keyspace.replication.0.get(local).copied().or(everywhere).unwrap_or(0);
    let there = nodes.get(local).copied().unwrap_or(0);
    let more = "ALTER KEYSPACE to 3 copies on at least 3 nodes, then repair on each of them";
    let text = format!("{here} copies in {local} on {there} nodes");
    findings.push(match here {
        0 => Finding::bad(
            format!("there is no copy in {local}, the local datacenter"),
            "set store.local_datacenter to one that has copies, or ALTER KEYSPACE, then repair",
        ),
        copies if copies as usize > there => {
            Finding::bad(format!("{text}: a copy without a node is a replica that is always down"), "add nodes, or ALTER KEYSPACE")
        }
        1 => Finding::doubtful(
            format!("one copy in {local}: a node that is down stops the accounts on it, one that is lost loses them"),
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
