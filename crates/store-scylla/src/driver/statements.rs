//! Every statement there is, and how it is sent.

use super::failure::{Failure, Kind, of_prepare};
use super::second::Second;
use crate::schema::Table;
use futures::TryStreamExt;
use futures::stream::FuturesOrdered;
use scylla::client::{execution_profile::ExecutionProfileHandle, session::Session};
use scylla::frame::types::Consistency;
use scylla::statement::{Statement as Text, prepared::PreparedStatement};
use starling_node::telemetry::metrics::DbOperation;
use std::sync::Arc;

macro_rules! statements {
    ($( $Name:ident: $kind:ident $operation:ident $table:ident $text:literal; )+) => {
        /// A statement.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Statement { $( $Name, )+ }

        impl Statement {
            const ALL: &'static [Self] = &[$( Self::$Name, )+];

            pub(super) fn kind(self) -> Kind {
                match self { $( Self::$Name => Kind::$kind, )+ }
            }

            pub(super) fn operation(self) -> DbOperation {
                match self { $( Self::$Name => DbOperation::$operation, )+ }
            }

            pub(super) fn table(self) -> Table {
                match self { $( Self::$Name => Table::$table, )+ }
            }

            /// With `{k}` for the keyspace.
            fn text(self) -> &'static str {
                match self { $( Self::$Name => $text, )+ }
            }
        }
    };
}

statements! {
    PutData: Write Insert AccountData "INSERT INTO {k}.account_data (jid, generation, kind, name, number, body) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
    DropData: Write Delete AccountData "DELETE FROM {k}.account_data USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND kind = ? AND name = ?";
    DropKind: Write Delete AccountData "DELETE FROM {k}.account_data USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND kind = ?";
    DropAllData: Write Delete AccountData "DELETE FROM {k}.account_data USING TIMESTAMP ? WHERE jid = ? AND generation = ?";
    PutBucket: Write Insert LogBuckets "INSERT INTO {k}.log_buckets (jid, generation, bucket, volume, rows) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?";
    DropBuckets: Write Delete LogBuckets "DELETE FROM {k}.log_buckets USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND bucket >= ? AND bucket <= ?";
    DropAllBuckets: Write Delete LogBuckets "DELETE FROM {k}.log_buckets USING TIMESTAMP ? WHERE jid = ? AND generation = ?";
    PutRow: Write Insert Log "INSERT INTO {k}.log (jid, generation, bucket, position, nth, filled, safe, session, sequence, origin_id, direction, peer, archived, offline, expires, stanza) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    DropRows: Write Delete Log "DELETE FROM {k}.log USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND bucket = ? AND position >= ? AND position <= ?";
    DropAllRows: Write Delete Log "DELETE FROM {k}.log USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND bucket = ?";
    PutPeer: Write Insert LogByPeer "INSERT INTO {k}.log_by_peer (jid, generation, peer, volume, position, bucket) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?";
    DropPeers: Write Delete LogByPeer "DELETE FROM {k}.log_by_peer USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND peer = ? AND volume = ? AND position >= ? AND position <= ?";
    DropAllPeers: Write Delete LogByPeer "DELETE FROM {k}.log_by_peer USING TIMESTAMP ? WHERE jid = ? AND generation = ? AND peer = ? AND volume = ?";
    PutName: Write Insert AccountNames "INSERT INTO {k}.account_names (domain, slice, local) VALUES (?, ?, ?) USING TIMESTAMP ?";
    DropName: Write Delete AccountNames "DELETE FROM {k}.account_names USING TIMESTAMP ? WHERE domain = ? AND slice = ? AND local = ?";
    DropAllNames: Write Delete AccountNames "DELETE FROM {k}.account_names USING TIMESTAMP ? WHERE domain = ? AND slice = ?";
    PutPurge: Write Insert Purges "INSERT INTO {k}.purges (day, slice, jid, generation, since, removed) VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
    DropAllPurges: Write Delete Purges "DELETE FROM {k}.purges USING TIMESTAMP ? WHERE day = ? AND slice = ?";

    Data: Read Select AccountData "SELECT kind, name, number, body FROM {k}.account_data WHERE jid = ? AND generation = ?";
    Buckets: Read Select LogBuckets "SELECT bucket, volume, rows FROM {k}.log_buckets WHERE jid = ? AND generation = ? AND bucket <= ? LIMIT ?";
    RowsNewest: Read Select Log "SELECT position, nth, filled, safe, session, sequence, origin_id, direction, peer, archived, offline, expires, stanza FROM {k}.log WHERE jid = ? AND generation = ? AND bucket = ? AND position >= ? AND position <= ? LIMIT ?";
    RowsOldest: Read Select Log "SELECT position, nth, filled, safe, session, sequence, origin_id, direction, peer, archived, offline, expires, stanza FROM {k}.log WHERE jid = ? AND generation = ? AND bucket = ? AND position >= ? AND position <= ? ORDER BY position ASC LIMIT ?";
    RowsAt: Read Select Log "SELECT position, nth, filled, safe, session, sequence, origin_id, direction, peer, archived, offline, expires, stanza FROM {k}.log WHERE jid = ? AND generation = ? AND bucket = ? AND position IN ?";
    PeersNewest: Read Select LogByPeer "SELECT position, bucket FROM {k}.log_by_peer WHERE jid = ? AND generation = ? AND peer = ? AND volume = ? AND position >= ? AND position <= ? LIMIT ?";
    PeersOldest: Read Select LogByPeer "SELECT position, bucket FROM {k}.log_by_peer WHERE jid = ? AND generation = ? AND peer = ? AND volume = ? AND position >= ? AND position <= ? ORDER BY position ASC LIMIT ?";
    Names: Read Select AccountNames "SELECT local FROM {k}.account_names WHERE domain = ? AND slice = ? AND local > ? LIMIT ?";
    Purges: Read Select Purges "SELECT jid, generation, since, removed FROM {k}.purges WHERE day = ? AND slice = ? AND (jid, generation) > (?, ?) LIMIT ?";
    Account: Read Select Accounts "SELECT generation, credentials, created, disabled FROM {k}.accounts WHERE jid = ?";
    Setting: Read Select Cluster "SELECT body FROM {k}.cluster WHERE name = ?";
    Reign: Read Select Reigns "SELECT epoch, ceiling, instance, holder, grants FROM {k}.reigns WHERE name = ?";

    CreateAccount: Conditional Insert Accounts "INSERT INTO {k}.accounts (jid, generation, credentials, created, disabled) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS";
    SetCredentials: Conditional Update Accounts "UPDATE {k}.accounts SET credentials = ? WHERE jid = ? IF generation = ? AND credentials = ?";
    DeleteAccount: Conditional Delete Accounts "DELETE FROM {k}.accounts WHERE jid = ? IF generation = ?";
    CreateSetting: Conditional Insert Cluster "INSERT INTO {k}.cluster (name, body) VALUES (?, ?) IF NOT EXISTS";
    CreateReign: Conditional Insert Reigns "INSERT INTO {k}.reigns (name, epoch, ceiling, instance, holder, grants) VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS";
    SetReign: Conditional Update Reigns "UPDATE {k}.reigns SET epoch = ?, ceiling = ?, instance = ?, holder = ?, grants = ? WHERE name = ? IF epoch = ? AND grants = ?";
}

/// Rows of one page of an answer.
const PAGE: i32 = 200;

/// All statements, prepared in one session.
#[derive(Debug)]
pub(super) struct Statements(Vec<PreparedStatement>);

impl Statements {
    /// Prepares all of them.
    pub(super) async fn prepare(
        session: &Session,
        keyspace: &str,
        second: &Arc<Second>,
    ) -> Result<Self, Failure> {
        let reads = session.get_default_execution_profile_handle().pointee_to_builder();
        let reads =
            reads.speculative_execution_policy(Some(Arc::<Second>::clone(second))).build().into_handle();
        let mut all = FuturesOrdered::new();
        for statement in Statement::ALL {
            all.push_back(one(*statement, session, keyspace, &reads, second));
        }
        Ok(Self(all.try_collect().await?))
    }

    pub(super) fn at(&self, statement: Statement) -> &PreparedStatement {
        &self.0[statement as usize]
    }

    /// The same read, seeing what conditional writes have decided. Never made twice at once: it is a round of Paxos, and
    /// two of them keep each other waiting.
    pub(super) fn serial(&self, statement: Statement) -> PreparedStatement {
        let mut prepared = self.at(statement).clone();
        prepared.set_consistency(Consistency::LocalSerial);
        prepared.set_execution_profile_handle(None);
        prepared
    }
}

async fn one(
    statement: Statement,
    session: &Session,
    keyspace: &str,
    reads: &ExecutionProfileHandle,
    second: &Arc<Second>,
) -> Result<PreparedStatement, Failure> {
    let text = Text::new(statement.text().replace("{k}", keyspace)).with_page_size(PAGE);
    let mut prepared = session.prepare(text).await.map_err(|error| of_prepare(&error))?;
    prepared.set_is_idempotent(statement.kind() != Kind::Conditional);
    // Columns are named in every statement, so what it returns never changes.
    prepared.set_use_cached_result_metadata(true);
    if statement.kind() == Kind::Read {
        prepared.set_execution_profile_handle(Some(reads.clone()));
        prepared.set_history_listener(Arc::<Second>::clone(second));
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_stay_within_partitions_and_rules() {
        for statement in Statement::ALL {
            let text = statement.text();
            assert!(!text.contains("FILTERING"), "{text}");
            assert!(text.contains(&format!("{{k}}.{}", statement.table().as_str())), "{text}");
            let keys: &[&str] = match statement.table() {
                Table::Accounts => &["jid"],
                Table::AccountNames => &["domain", "slice"],
                Table::AccountData | Table::LogBuckets => &["jid", "generation"],
                Table::Log => &["jid", "generation", "bucket"],
                Table::LogByPeer => &["jid", "generation", "peer", "volume"],
                Table::Purges => &["day", "slice"],
                Table::Cluster | Table::Reigns => &["name"],
            };
            match statement.operation() {
                DbOperation::Insert => assert!(keys.iter().all(|key| text.contains(key)), "{text}"),
                _ => assert!(keys.iter().all(|key| text.contains(&format!("{key} = ?"))), "{text}"),
            }
            // What no condition guards says when it was decided, and what a condition guards never does.
            assert_eq!(text.contains("USING TIMESTAMP ?"), statement.kind() == Kind::Write, "{text}");
            assert_eq!(text.contains(" IF "), statement.kind() == Kind::Conditional, "{text}");
        }
    }
}
