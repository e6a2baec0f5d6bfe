//! One at a time: a row by condition that ends by itself. It is decided in the datacenter that the store belongs to, so
//! nobody waits for another one.

use super::{MigrateError, Progress, unanswered};
use crate::driver::connect::ConnectError;
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, FirstRowError, RequestAttemptError};
use scylla::frame::types::{Consistency, SerialConsistency};
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use scylla::value::{CqlValue, Row};
use starling_node::ids;
use std::time::Duration;

/// How long a lock outlives its holder.
pub(super) const LIFE: Duration = Duration::from_secs(60);

/// For one statement: nobody waits for it but who migrates, and new nodes are slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(15);

/// How often it is asked for.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Lock<'a> {
    session: &'a Session,
    keyspace: &'a str,
    holder: &'a str,
    ticket: [u8; 16],
}

impl<'a> Lock<'a> {
    pub(super) fn new(session: &'a Session, keyspace: &'a str, holder: &'a str) -> Self {
        Self { session, keyspace, holder, ticket: ids::bytes() }
    }

    /// Waits for it, saying who has it.
    pub(super) async fn acquire(
        &self,
        patience: Duration,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), MigrateError> {
        let text = format!(
            "INSERT INTO {}.schema_lock (name, holder, ticket) VALUES ('apply', ?, ?) IF NOT EXISTS USING TTL {}",
            self.keyspace,
            LIFE.as_secs()
        );
        let mut said = None;
        let mut waited = Duration::ZERO;
        loop {
            if self.decide(&text, (self.holder, self.ticket.as_slice())).await? {
                return Ok(());
            }
            let holder = self.holder().await?;
            if let Some(holder) = &holder
                && said.as_ref() != Some(holder)
            {
                progress(Progress::Waiting { holder: holder.clone() });
                said = Some(holder.clone());
            }
            if waited >= patience {
                let holder = holder.or(said).unwrap_or_else(|| "somebody else".to_owned());
                return Err(MigrateError::Held { holder, waited });
            }
            tokio::time::sleep(PAUSE).await;
            waited += PAUSE;
        }
    }

    /// Renews it; ends when it is somebody else's.
    pub(super) async fn keep(&self) {
        let text = format!(
            "UPDATE {}.schema_lock USING TTL {} SET holder = ?, ticket = ? WHERE name = 'apply' IF ticket = ?",
            self.keyspace,
            LIFE.as_secs()
        );
        let ticket = self.ticket.as_slice();
        let mut failures = 0;
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.decide(&text, (self.holder, ticket, ticket)).await {
                Ok(true) => failures = 0,
                Ok(false) => return,
                // It has ended by then.
                Err(_) if failures == 2 => return,
                Err(_) => failures += 1,
            }
        }
    }

    /// Gives it back. If that fails it ends by itself.
    pub(super) async fn release(&self) {
        let text = format!("DELETE FROM {}.schema_lock WHERE name = 'apply' IF ticket = ?", self.keyspace);
        if let Err(error) = self.decide(&text, (self.ticket.as_slice(),)).await {
            tracing::warn!(event = "schema_lock_left", %error, seconds = LIFE.as_secs(), "the lock on the schema could not be given back");
        }
    }

    /// Who has it.
    pub(super) async fn holder(&self) -> Result<Option<String>, MigrateError> {
        Ok(self.read().await?.map(|(holder, _)| holder))
    }

    async fn read(&self) -> Result<Option<(String, Vec<u8>)>, MigrateError> {
        let text = format!("SELECT holder, ticket FROM {}.schema_lock WHERE name = 'apply'", self.keyspace);
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(PATIENCE));
        statement.set_consistency(Consistency::LocalSerial);
        let rows = match self.session.query_unpaged(statement, ()).await {
            Ok(rows) => rows.into_rows_result().map_err(|error| failed(&error))?,
            // The table is not there yet.
            Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => {
                return Ok(None);
            }
            Err(error) => return Err(unanswered(WHAT, &error)),
        };
        rows.maybe_first_row::<(String, Vec<u8>)>().map_err(|error| failed(&error))
    }

    /// Whether it holds afterwards that the lock is ours.
    async fn decide(&self, text: &str, values: impl SerializeRow) -> Result<bool, MigrateError> {
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(PATIENCE));
        statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        statement.set_consistency(Consistency::LocalQuorum);
        let rows = match self.session.query_unpaged(statement, values).await {
            Ok(rows) => rows.into_rows_result().map_err(|error| failed(&error))?,
            // It may have been decided: what was is in the row.
            Err(_) => return Ok(self.read().await?.is_some_and(|(_, ticket)| ticket == self.ticket)),
        };
        decided(&rows).map_err(|error| failed(&error))
    }
}

/// Whether a conditional statement was done.
pub(super) fn decided(rows: &QueryRowsResult) -> Result<bool, FirstRowError> {
    let column = rows.column_specs().get_by_name("[applied]").map(|(index, _)| index);
    let row = rows.first_row::<Row>()?;
    Ok(matches!(column.and_then(|index| row.columns.get(index)), Some(Some(CqlValue::Boolean(true)))))
}

const WHAT: &str = "the lock on the schema cannot be read";

fn failed(error: &dyn std::fmt::Display) -> MigrateError {
    ConnectError::Other(format!("{WHAT}: {error}")).into()
}
