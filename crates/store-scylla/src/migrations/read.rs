//! What the server says of the keyspace and its versions.

use super::write::is_passing;
use super::{Applied, FAMILY, Kind, MigrateError, unanswered};
use crate::driver::connect::{ConnectError, Connection};
use crate::options::Replication;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::frame::types::Consistency;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A keyspace.
#[derive(Debug, Clone)]
pub(crate) struct Keyspace {
    /// Copies by datacenter; under SimpleStrategy, by the name `*`.
    pub(crate) replication: Replication,
    /// The last part of the strategy's name.
    pub(crate) strategy: String,
}

/// Between attempts to read the schema, in milliseconds: with the time that they take, until a dead node is known as such.
const PAUSES: [u64; 6] = [100, 500, 1_000, 2_000, 2_000, 2_000];

/// Asks, and again while what fails may pass: one node of three that has just died must keep no server from starting, and
/// a slow one nobody from migrating.
pub(super) async fn ask(
    connection: &Connection,
    statement: Statement,
    values: impl SerializeRow,
) -> Result<QueryResult, ExecutionError> {
    let mut pauses = PAUSES.iter();
    loop {
        match connection.session.query_unpaged(statement.clone(), &values).await {
            Err(error) if is_passing(&error) => match pauses.next() {
                Some(pause) => tokio::time::sleep(Duration::from_millis(*pause)).await,
                None => return Err(error),
            },
            answer => return answer,
        }
    }
}

/// The keyspace, if there is one.
pub(crate) async fn keyspace(connection: &Connection, name: &str) -> Result<Option<Keyspace>, MigrateError> {
    let text = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let answer =
        ask(connection, Statement::new(text), (name,)).await.map_err(|error| unanswered(WHAT, &error))?;
    let rows = answer.into_rows_result().map_err(|error| failed(&error))?;
    let row = rows.maybe_first_row::<(HashMap<String, String>,)>().map_err(|error| failed(&error))?;
    Ok(row.map(|(options,)| described(&options)))
}

fn described(options: &HashMap<String, String>) -> Keyspace {
    let class = options.get("class").map_or("", String::as_str);
    let strategy = class.rsplit('.').next().unwrap_or_default().to_owned();
    let copies = options.iter().filter(|(name, _)| *name != "class").filter_map(|(name, copies)| {
        // Transient copies are written `3/1`.
        let copies = copies.split('/').next()?.parse().ok()?;
        let name = if name == "replication_factor" { "*" } else { name };
        Some((name.to_owned(), copies))
    });
    Keyspace { replication: Replication(copies.collect::<BTreeMap<_, _>>()), strategy }
}

/// What has been applied, rising.
pub(crate) async fn applied(connection: &Connection, keyspace: &str) -> Result<Vec<Applied>, MigrateError> {
    let mut statement = Statement::new(format!(
        "SELECT version, name, kind, applied_at, checksum, applied_by FROM {keyspace}.schema_versions WHERE family = ?"
    ));
    statement.set_consistency(Consistency::LocalQuorum);
    let answer = match ask(connection, statement, (FAMILY,)).await {
        Ok(answer) => answer,
        // The table is not there yet.
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unanswered(WHAT, &error)),
    };
    let rows = answer.into_rows_result().map_err(|error| failed(&error))?;
    let mut found = Vec::new();
    // What somebody has put there by hand may have holes.
    type Row = (i32, Option<String>, Option<String>, Option<i64>, Option<String>, Option<String>);
    for row in rows.rows::<Row>().map_err(|error| failed(&error))? {
        let (version, name, kind, at, checksum, by) = row.map_err(|error| failed(&error))?;
        let kind = if kind.as_deref() == Some(Kind::Expand.as_str()) { Kind::Expand } else { Kind::Contract };
        let version = u32::try_from(version).map_err(|error| failed(&error))?;
        found.push(Applied {
            version,
            name: name.unwrap_or_default(),
            kind,
            at_millis: at.unwrap_or_default(),
            checksum: checksum.unwrap_or_default(),
            by: by.unwrap_or_default(),
        });
    }
    Ok(found)
}

const WHAT: &str = "the schema cannot be read";

fn failed(error: &dyn std::fmt::Display) -> MigrateError {
    ConnectError::Other(format!("{WHAT}: {error}")).into()
}
