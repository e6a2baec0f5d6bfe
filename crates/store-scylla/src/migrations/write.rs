//! Statements that change the schema.

use super::lock::PATIENCE;
use super::{FAMILY, MigrateError, Migration};
use crate::driver::connect::{AGREEMENT, ConnectError, Connection};
use crate::options::{Options, Replication};
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::frame::types::Consistency;
use scylla::policies::load_balancing::{
    LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy,
};
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use std::{sync::Arc, time::Duration};

/// Sends statements to one node, the same one for everybody who applies.
pub(super) struct Writer<'a> {
    connection: &'a Connection,
    policy: Option<Arc<dyn LoadBalancingPolicy>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        let state = connection.session.get_cluster_state();
        let connected = state.get_nodes_info().iter().filter(|node| node.is_connected());
        let first = connected.min_by_key(|node| node.host_id);
        let policy = first.map(|node| {
            let target = NodeIdentifier::Node(Arc::clone(node));
            SingleTargetLoadBalancingPolicy::new(target, None) as Arc<dyn LoadBalancingPolicy>
        });
        Self { connection, policy }
    }

    /// Until it is done, a few times: each may be run again.
    pub(super) async fn send(&self, what: &str, text: String) -> Result<(), MigrateError> {
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(AGREEMENT));
        statement.set_load_balancing_policy(self.policy.clone());
        insist(self.connection, what, statement, ()).await
    }

    /// Notes that a migration is complete.
    pub(super) async fn record(
        &self,
        keyspace: &str,
        migration: &Migration,
        by: &str,
    ) -> Result<(), MigrateError> {
        let mut statement = Statement::new(format!(
            "INSERT INTO {keyspace}.schema_versions (family, version, name, kind, applied_at, checksum, applied_by) \
             VALUES (?, ?, ?, ?, toUnixTimestamp(now()), ?, ?)"
        ));
        statement.set_consistency(Consistency::LocalQuorum);
        let version = i32::try_from(migration.version).unwrap_or(i32::MAX);
        let values =
            (FAMILY, version, migration.name, migration.kind.as_str(), migration.checksum(), by.to_owned());
        insist(self.connection, &format!("note version {}", migration.version), statement, values).await
    }
}

const TRIES: u64 = 4;

/// Sends a statement that may be done more than once, again while what fails may pass: nobody waits for it but who
/// migrates, and servers that have just made tables are slow.
pub(super) async fn insist(
    connection: &Connection,
    what: &str,
    mut statement: Statement,
    values: impl SerializeRow,
) -> Result<(), MigrateError> {
    if statement.get_request_timeout().is_none() {
        statement.set_request_timeout(Some(PATIENCE));
    }
    let mut reason = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(attempt)).await;
        }
        match connection.session.query_unpaged(statement.clone(), &values).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                reason = error.to_string();
                if !is_passing(&error) {
                    break;
                }
            }
        }
    }
    Err(MigrateError::Statement { what: what.to_owned(), reason })
}

/// A question that failed.
pub(super) fn unanswered(what: &'static str, error: &ExecutionError) -> MigrateError {
    if let ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Unauthorized, _)) = error {
        ConnectError::Denied(what.to_owned()).into()
    } else if is_passing(error) {
        MigrateError::Unanswered { what, reason: error.to_string() }
    } else {
        ConnectError::Other(format!("{what}: {error}")).into()
    }
}

/// Whether the same statement may succeed a little later.
pub(super) fn is_passing(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => !matches!(
            error,
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::Unauthorized
                | DbError::ConfigError
                | DbError::AlreadyExists { .. }
                | DbError::ProtocolError
        ),
        ExecutionError::BadQuery(_) => false,
        _ => true,
    }
}

/// Servers that know nothing of tablets refuse to be told to do without: they have none.
pub(super) async fn create(
    writer: &Writer<'_>,
    options: &Options,
    connection: &Connection,
    copies: &Replication,
) -> Result<(), MigrateError> {
    let what = "create the keyspace";
    let more = connection.dialect.keyspace_options();
    let sent = writer.send(what, create_keyspace(options, copies, more)).await;
    match sent {
        Err(MigrateError::Statement { .. }) if !more.is_empty() => {
            writer.send(what, create_keyspace(options, copies, "")).await
        }
        sent => sent,
    }
}

pub(super) fn create_keyspace(options: &Options, copies: &Replication, more: &str) -> String {
    let copies: String = copies.0.iter().map(|(name, copies)| format!(", '{name}': {copies}")).collect();
    let keyspace = &options.keyspace;
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy'{copies}}} \
         AND durable_writes = true{more}"
    )
}
