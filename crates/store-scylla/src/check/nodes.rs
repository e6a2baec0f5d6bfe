//! Each node by itself: version, clock, how its commit log is synced, whether all have the same schema.

use super::{Finding, ask};
use crate::driver::connect::Connection;
use crate::schema::Dialect;
use scylla::cluster::NodeRef;
use scylla::frame::types::Consistency;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::Statement;
use scylla::value::{CqlValue, Row};
use starling_node::Clock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A node as it tells of itself.
#[derive(Debug, Default, Clone)]
pub(super) struct Facts {
    pub(super) at: String,
    pub(super) version: Option<String>,
    pub(super) schema: Option<String>,
    /// Milliseconds that its clock is ahead of ours, and how far that may be wrong.
    pub(super) ahead: Option<(i64, i64)>,
    /// `periodic`, `batch` or `group`.
    pub(super) sync: Option<String>,
    pub(super) period: Option<String>,
}

pub(super) async fn look(connection: &Connection, clock: &dyn Clock) -> Vec<Finding> {
    let state = connection.session.get_cluster_state();
    let mut all = Vec::new();
    for node in state.get_nodes_info().iter().filter(|node| node.is_connected()) {
        all.push(facts(connection, node, clock).await);
    }
    judge(connection.dialect, &all)
}

async fn facts(connection: &Connection, node: NodeRef<'_>, clock: &dyn Clock) -> Facts {
    let mut facts = Facts { at: node.address.to_string(), ..Facts::default() };
    let at_node = |text: &str| {
        let mut statement = Statement::new(text);
        statement.set_consistency(Consistency::One);
        let target = NodeIdentifier::Node(Arc::clone(node));
        statement.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(target, None)));
        statement
    };
    let mut version = "SELECT release_version, schema_version FROM system.local WHERE key = 'local'";
    if let Some(row) = first(ask(connection, at_node(version), ()).await) {
        (facts.version, facts.schema) = (text(&row, 0), text(&row, 1));
    }
    if connection.dialect == Dialect::Scylla {
        version = "SELECT version FROM system.versions WHERE key = 'local'";
        if let Some(row) = first(ask(connection, at_node(version), ()).await) {
            facts.version = text(&row, 0);
        }
    }
    let now = at_node("SELECT toUnixTimestamp(now()) FROM system.local WHERE key = 'local'");
    let before = clock.now_micros() / 1_000;
    let row = first(ask(connection, now, ()).await);
    let after = clock.now_micros() / 1_000;
    if let Some(CqlValue::BigInt(theirs)) = row.and_then(|row| row.columns.into_iter().next().flatten()) {
        let ours = i64::try_from(before.midpoint(after)).unwrap_or(i64::MAX);
        let span = i64::try_from(after.saturating_sub(before)).unwrap_or(i64::MAX);
        facts.ahead = Some((theirs.saturating_sub(ours), span / 2 + 1));
    }
    let table = match connection.dialect {
        Dialect::Cassandra => "system_views.settings",
        Dialect::Scylla => "system.config",
    };
    let setting = |name: &'static str| {
        ask(connection, at_node(&format!("SELECT value FROM {table} WHERE name = ?")), (name,))
    };
    facts.sync = first(setting("commitlog_sync").await).and_then(|row| text(&row, 0));
    for name in ["commitlog_sync_period", "commitlog_sync_period_in_ms"] {
        if facts.period.is_none() {
            facts.period = first(setting(name).await).and_then(|row| text(&row, 0));
        }
    }
    facts
}

fn first<E>(rows: Result<Vec<Row>, E>) -> Option<Row> {
    rows.ok()?.into_iter().next()
}

fn text(row: &Row, column: usize) -> Option<String> {
    match row.columns.get(column)?.as_ref()? {
        CqlValue::Text(text) | CqlValue::Ascii(text) => Some(text.trim_matches('"').to_owned()),
        CqlValue::Uuid(uuid) => Some(uuid.to_string()),
        _ => None,
    }
}

/// The oldest version of Apache Cassandra that is not doubted, and the one that the tests run on.
const OLDEST: (u32, u32) = (4, 1);

/// A node's clock may be wrong by so much, in milliseconds, before it matters, and before nothing works as it should.
const CLOCK: (i64, i64) = (500, 5_000);

pub(super) fn judge(dialect: Dialect, all: &[Facts]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let versions: BTreeSet<&str> = all.iter().filter_map(|facts| facts.version.as_deref()).collect();
    let names = versions.iter().copied().collect::<Vec<_>>().join(", ");
    let name = dialect.as_str();
    findings.push(match versions.len() {
        0 => Finding::doubtful(format!("{name} does not tell its version"), "let the role read system.local"),
        1 if dialect == Dialect::Cassandra && versions.iter().any(|version| is_older(version)) => {
            Finding::doubtful(
                format!("{name} {names} is older than what is tested (5.0)"),
                "upgrade it to 5.0",
            )
        }
        1 => Finding::good(format!("{name} {names}")),
        _ => Finding::doubtful(
            format!("nodes run different versions of {name}: {names}"),
            "finish the upgrade",
        ),
    });
    let schemas: BTreeSet<&str> = all.iter().filter_map(|facts| facts.schema.as_deref()).collect();
    if schemas.len() > 1 {
        findings.push(Finding::bad(
            format!("nodes disagree on the schema ({} versions of it)", schemas.len()),
            "wait a minute; then see `nodetool describecluster`, and restart the node that differs",
        ));
    }
    findings.push(clocks(all));
    findings.extend(commit_logs(dialect, all));
    findings
}

fn is_older(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < OLDEST
}

fn clocks(all: &[Facts]) -> Finding {
    // What the way there and back may hide does not count.
    let sure = |(ahead, span): (i64, i64)| (ahead.saturating_abs() - span).max(0) * ahead.signum();
    let worst = all.iter().filter_map(|facts| Some((sure(facts.ahead?), &facts.at)));
    let Some((ahead, at)) = worst.max_by_key(|(ahead, _)| ahead.saturating_abs()) else {
        return Finding::doubtful("the clocks of the nodes cannot be read", "let the role read system.local");
    };
    let which = if ahead < 0 { "behind" } else { "ahead of" };
    let text = format!("the clock of {at} is {} ms {which} ours", ahead.saturating_abs());
    let remedy =
        "run chrony or ntpd on all machines; timestamps decide which write holds, and lives end by them";
    match ahead.saturating_abs() {
        off if off > CLOCK.1 => Finding::bad(text, remedy),
        off if off > CLOCK.0 => Finding::doubtful(text, remedy),
        off => Finding::good(format!("clocks differ by at most {off} ms")),
    }
}

fn commit_logs(dialect: Dialect, all: &[Facts]) -> Vec<Finding> {
    let mut ways: BTreeMap<&str, Vec<&Facts>> = BTreeMap::new();
    for facts in all {
        ways.entry(facts.sync.as_deref().unwrap_or("")).or_default().push(facts);
    }
    let found = |(way, nodes): (&str, Vec<&Facts>)| {
        let period = nodes.iter().find_map(|facts| facts.period.as_deref());
        let which = format!("{} of {} nodes", nodes.len(), all.len());
        match way {
            "batch" | "group" => Finding::good(format!(
                "the commit log is synced before a write is confirmed ({way}, {which})"
            )),
            "periodic" => {
                let period =
                    period.map_or_else(String::new, |period| format!(" every {}", with_unit(period)));
                Finding::doubtful(
                    format!(
                        "the commit log is synced{period} only, after writes were confirmed ({which}): if as many \
                         machines as make a quorum lose power at the same moment, messages that were acknowledged are lost"
                    ),
                    match dialect {
                        Dialect::Cassandra => {
                            "set `commitlog_sync: group` and `commitlog_sync_group_window: 5ms` in \
                             cassandra.yaml, or keep the copies where they do not lose power together"
                        }
                        Dialect::Scylla => {
                            "set `commitlog_sync: batch` in scylla.yaml, or keep the copies where they do \
                             not lose power together"
                        }
                    },
                )
            }
            _ => Finding::doubtful(
                format!("how the commit log is synced cannot be read ({which})"),
                match dialect {
                    Dialect::Cassandra => {
                        "GRANT SELECT ON system_views.settings to the role, or see `commitlog_sync` in \
                         cassandra.yaml: `group` or `batch` is safe, `periodic` is not"
                    }
                    Dialect::Scylla => {
                        "GRANT SELECT ON system.config to the role, or see `commitlog_sync` in \
                         scylla.yaml: `batch` is safe, `periodic` is not"
                    }
                },
            ),
        }
    };
    ways.into_iter().map(found).collect()
}

fn with_unit(period: &str) -> String {
    if period.bytes().all(|byte| byte.is_ascii_digit()) { format!("{period}ms") } else { period.to_owned() }
}
