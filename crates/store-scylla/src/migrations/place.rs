//! The datacenter that a store belongs to.
//!
//! LOCAL_QUORUM and LOCAL_SERIAL say something within one datacenter only. Two servers in two of them would both reign,
//! and one that begins in another than the last would close over rows that have not arrived there. So it is written down
//! when the keyspace is made, decided over all datacenters and readable in each, and whoever starts elsewhere is refused.

use super::read::ask;
use super::{MigrateError, unanswered, write::insist};
use crate::driver::connect::{ConnectError, Connection};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::frame::types::{Consistency, SerialConsistency};
use scylla::statement::Statement;

/// The row of `cluster`.
const NAME: &str = "datacenter";

const WHAT: &str = "the datacenter of the store cannot be read";

/// Where the store belongs, if that was decided.
pub(super) async fn read(connection: &Connection, keyspace: &str) -> Result<Option<String>, MigrateError> {
    let mut statement = Statement::new(format!("SELECT body FROM {keyspace}.cluster WHERE name = ?"));
    statement.set_consistency(Consistency::LocalQuorum);
    let rows = match ask(connection, statement, (NAME,)).await {
        Ok(rows) => rows.into_rows_result(),
        // The table is not there yet.
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => {
            return Ok(None);
        }
        Err(error) => return Err(unanswered(WHAT, &error)),
    };
    let unreadable = || MigrateError::from(ConnectError::Other(WHAT.to_owned()));
    let rows = rows.map_err(|_| unreadable())?;
    let row = rows.maybe_first_row::<(Vec<u8>,)>().map_err(|_| unreadable())?;
    row.map(|(body,)| String::from_utf8(body).map_err(|_| unreadable())).transpose()
}

/// Decides that it belongs here, unless that was decided before; where it belongs.
pub(super) async fn settle(connection: &Connection, keyspace: &str) -> Result<String, MigrateError> {
    if let Some(there) = read(connection, keyspace).await? {
        return Ok(there);
    }
    let here = connection.datacenter();
    let text = format!("INSERT INTO {keyspace}.cluster (name, body) VALUES (?, ?) IF NOT EXISTS");
    send(connection, text, (NAME, here.as_bytes())).await?;
    Ok(read(connection, keyspace).await?.unwrap_or_else(|| here.to_owned()))
}

/// Decides that it belongs here and no longer there; whether it does.
pub(super) async fn replace(
    connection: &Connection,
    keyspace: &str,
    there: &str,
) -> Result<bool, MigrateError> {
    let here = connection.datacenter();
    let text = format!("UPDATE {keyspace}.cluster SET body = ? WHERE name = ? IF body = ?");
    send(connection, text, (here.as_bytes(), NAME, there.as_bytes())).await?;
    Ok(read(connection, keyspace).await?.is_some_and(|there| there == here))
}

/// Has it decided, over all datacenters. What came of it is in the row: an attempt that failed may have been the one.
async fn send(
    connection: &Connection,
    text: String,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<(), MigrateError> {
    let mut statement = Statement::new(text);
    statement.set_serial_consistency(Some(SerialConsistency::Serial));
    statement.set_consistency(Consistency::EachQuorum);
    insist(connection, "note the datacenter", statement, values).await
}
