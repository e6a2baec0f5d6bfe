//! From one schema to the next.
//!
//! Migrations are a list, each of them statements that may be run again: what was killed half way is begun anew. One that
//! expands adds what older servers do not look at, so they go on working; one that contracts removes what no server since a
//! given version needs. A server starts on a schema that has all it knows of, and beyond that only expansions.
//!
//! Whoever applies holds a lock: a row written by condition, which ends by itself when its holder is gone. All statements
//! go through one node, the same for everybody: two that create a table at the same moment through different nodes would
//! make two tables of one name.

pub mod list;
mod lock;
mod place;
mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::driver::connect::{ConnectError, Connection};
use crate::options::{Options, Replication};
use list::LIST;
use lock::Lock;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt, time::Duration};
use write::{Writer, create, create_keyspace, unanswered};

use read::applied;
pub(crate) use read::{Keyspace, keyspace};

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// From 1, rising by one.
    pub version: u32,
    /// What it brings, for people.
    pub name: &'static str,
    /// Whether older servers go on working after it.
    pub kind: Kind,
    /// In CQL, `{keyspace}` for the keyspace. Each may be run again.
    pub statements: &'static [&'static str],
}

/// What a migration does to servers of older versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it adds.
    Expand,
    /// They no longer work: it removes.
    Contract,
}

impl Kind {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }
}

impl Migration {
    /// Over everything that it is; 32 hexadecimal digits.
    pub fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.name, self.kind.as_str()].iter().chain(self.statements) {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn text(&self, statement: &str, keyspace: &str) -> String {
        statement.replace("{keyspace}", keyspace)
    }
}

/// A migration that has been applied, as the keyspace says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether servers that do not know it go on working.
    pub kind: Kind,
    /// When, in milliseconds since the epoch, by the clock of whoever applied it.
    pub at_millis: i64,
    /// Of what was applied.
    pub checksum: String,
    /// Who applied it: host and process.
    pub by: String,
}

/// How the schema stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// The copies of the keyspace; `None` where there is no keyspace.
    pub replication: Option<Replication>,
    /// What has been applied, rising.
    pub applied: Vec<Applied>,
    /// What this version knows and has not been applied, rising.
    pub pending: Vec<Migration>,
    /// Versions whose text is not what was applied under this number.
    pub changed: Vec<u32>,
    /// Who is applying now.
    pub held_by: Option<String>,
    /// The datacenter that the store belongs to; `None` before the first `apply`.
    pub datacenter: Option<String>,
    /// What a server of this version does on it.
    pub fitness: Fitness,
}

/// What a server of this version does on a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitness {
    /// It works.
    Fits,
    /// There is no keyspace.
    NoKeyspace,
    /// The first version that is missing.
    TooOld(u32),
    /// Versions and names of what was removed without this server knowing.
    TooNew(Vec<(u32, String)>),
}

/// What would be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Every statement in order, as it would be sent.
    pub statements: Vec<String>,
    /// The migrations they belong to.
    pub pending: Vec<Migration>,
    /// What somebody should know about it.
    pub remarks: Vec<String>,
}

/// What goes on while migrations are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Somebody else is applying; said once for each holder.
    Waiting {
        /// Host and process.
        holder: String,
    },
    /// The keyspace was created, with these copies.
    Created(Replication),
    /// The keyspace has other copies than the options say; it is left as it is.
    Differs {
        /// As the options say.
        wanted: Replication,
        /// As it is.
        there: Replication,
    },
    /// A statement of a migration is sent.
    Statement {
        /// Of the migration.
        version: u32,
        /// From 1.
        number: usize,
        /// Of so many.
        of: usize,
    },
    /// A migration is complete.
    Applied {
        /// Its version.
        version: u32,
        /// Its name.
        name: &'static str,
    },
}

/// Why migrations could not be applied or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MigrateError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nodes do not answer, or too few of them: it may be otherwise in a moment.
    #[error("{what}: {reason}")]
    Unanswered {
        /// What was asked.
        what: &'static str,
        /// What it failed with.
        reason: String,
    },
    /// Somebody else has been applying all the time that was to be waited.
    #[error("{holder} is applying migrations; waited {} s for it. Its lock ends {} s after it has gone", waited.as_secs(), lock::LIFE.as_secs())]
    Held {
        /// Host and process.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The lock was lost while migrations were applied: somebody else goes on with them.
    #[error("the lock was lost while migrations were applied: run `starling migrate status`")]
    Lost,
    /// A server of this version does not know the schema.
    #[error("{0}")]
    TooNew(String),
    /// A statement failed.
    #[error("{what}: {reason}")]
    Statement {
        /// What it was for.
        what: String,
        /// What it failed with.
        reason: String,
    },
}

/// How the schema stands.
///
/// # Errors
/// No session, or something cannot be read.
pub async fn status(options: &Options) -> Result<Status, MigrateError> {
    let connection = Connection::open(options).await?;
    state(&connection, &options.keyspace, LIST).await
}

/// What [`apply`] would do now.
///
/// # Errors
/// As [`status`].
pub async fn plan(options: &Options) -> Result<Plan, MigrateError> {
    let connection = Connection::open(options).await?;
    let status = state(&connection, &options.keyspace, LIST).await?;
    let mut plan = Plan { statements: Vec::new(), pending: status.pending.clone(), remarks: Vec::new() };
    let wanted = copies(options, &connection);
    match &status.replication {
        None => {
            plan.statements.push(create_keyspace(options, &wanted, connection.dialect.keyspace_options()))
        }
        Some(there) if !options.replication.0.is_empty() && *there != wanted => plan.remarks.push(format!(
            "the keyspace has the copies {there} and the configuration says {wanted}: it is left as it is; \
             change it with ALTER KEYSPACE, then repair"
        )),
        Some(_) => {}
    }
    if !status.pending.is_empty() {
        plan.statements.extend(BOOKS.map(|text| text.replace("{keyspace}", &options.keyspace)));
    }
    for migration in &status.pending {
        let texts = migration.statements.iter();
        plan.statements.extend(texts.map(|text| migration.text(text, &options.keyspace)));
        if migration.kind == Kind::Contract {
            let version = migration.version;
            plan.remarks.push(format!("servers that do not know version {version} stop working with it"));
        }
    }
    plan.remarks.extend(status.held_by.map(|holder| format!("{holder} is applying migrations now")));
    let changed = status.changed.iter();
    plan.remarks.extend(changed.map(|version| format!("version {version} was applied with another text")));
    Ok(plan)
}

/// Brings the schema to this version. `by` says who applies, `patience` how long to wait for somebody else who does.
/// Returns the migrations that it has applied.
///
/// # Errors
/// See [`MigrateError`]. It can be called again after any of them.
pub async fn apply(
    options: &Options,
    by: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Migration>, MigrateError> {
    apply_list(options, LIST, by, patience, progress).await
}

async fn apply_list(
    options: &Options,
    list: &[Migration],
    by: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Migration>, MigrateError> {
    let connection = Connection::open(options).await?;
    let writer = Writer::new(&connection);
    let wanted = copies(options, &connection);
    match keyspace(&connection, &options.keyspace).await? {
        None => {
            create(&writer, options, &connection, &wanted).await?;
            progress(Progress::Created(wanted));
        }
        Some(there) if !options.replication.0.is_empty() && there.replication != wanted => {
            progress(Progress::Differs { wanted, there: there.replication });
        }
        Some(_) => {}
    }
    for text in BOOKS {
        writer.send("create the books of the schema", text.replace("{keyspace}", &options.keyspace)).await?;
    }
    let lock = Lock::new(&connection.session, &options.keyspace, by);
    lock.acquire(patience, progress).await?;
    // Both are needed: the lock is kept alive while statements run, and what runs ends with it.
    let result = tokio::select! {
        result = migrate(&connection, &writer, options, list, by, progress) => result,
        () = lock.keep() => return Err(MigrateError::Lost),
    };
    lock.release().await;
    result
}

async fn migrate(
    connection: &Connection,
    writer: &Writer<'_>,
    options: &Options,
    list: &[Migration],
    by: &str,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Migration>, MigrateError> {
    let status = state(connection, &options.keyspace, list).await?;
    if let Fitness::TooNew(_) = &status.fitness {
        let known = list.last().map_or(0, |last| last.version);
        return Err(MigrateError::TooNew(status.fitness.text(&options.keyspace, known)));
    }
    for migration in &status.pending {
        let (version, of) = (migration.version, migration.statements.len());
        for (index, text) in migration.statements.iter().enumerate() {
            progress(Progress::Statement { version, number: index + 1, of });
            let what = format!("version {version}, statement {} of {of}", index + 1);
            writer.send(&what, migration.text(text, &options.keyspace)).await?;
        }
        writer.record(&options.keyspace, migration, by).await?;
        progress(Progress::Applied { version, name: migration.name });
    }
    let there = place::settle(connection, &options.keyspace).await?;
    if there != connection.datacenter {
        return Err(elsewhere(&there, &connection.datacenter).into());
    }
    Ok(status.pending)
}

/// What a server of this version does on the schema, and where the store belongs.
pub(crate) async fn standing(
    connection: &Connection,
    keyspace: &str,
) -> Result<(Fitness, Option<String>), MigrateError> {
    let status = state(connection, keyspace, LIST).await?;
    Ok((status.fitness, status.datacenter))
}

/// Makes sure that a server of this version works on the schema.
pub(crate) async fn demand(connection: &Connection, keyspace: &str) -> Result<(), ConnectError> {
    let mut pauses = PAUSES.iter();
    let status = loop {
        match state(connection, keyspace, LIST).await {
            Ok(status) => break status,
            Err(MigrateError::Connect(error)) => return Err(error),
            // One node of three that has just died must not keep a server from starting.
            Err(error @ MigrateError::Unanswered { .. }) => match pauses.next() {
                Some(pause) => tokio::time::sleep(Duration::from_millis(*pause)).await,
                None => return Err(ConnectError::Other(error.to_string())),
            },
            Err(error) => return Err(ConnectError::Other(error.to_string())),
        }
    };
    for version in status.changed {
        tracing::warn!(version, "the schema has a version whose text is not the one known here");
    }
    match (status.fitness, status.datacenter) {
        (Fitness::Fits, Some(there)) if there == connection.datacenter => Ok(()),
        (Fitness::Fits, Some(there)) => Err(elsewhere(&there, &connection.datacenter)),
        (Fitness::Fits, None) => Err(ConnectError::Schema(format!(
            "the schema of {keyspace} does not say which datacenter the store belongs to: run `starling migrate apply`"
        ))),
        (other, _) => Err(ConnectError::Schema(other.text(keyspace, newest()))),
    }
}

/// The store belongs to another datacenter than ours.
pub(crate) fn elsewhere(there: &str, here: &str) -> ConnectError {
    ConnectError::Datacenter(format!(
        "the store belongs to datacenter {there}, and this server would use {here}: set store.local_datacenter = \
         \"{there}\"; all servers of a store use the same one. `starling migrate move` makes it belong to {here}"
    ))
}

/// Makes the store belong to the datacenter that the options name; returns where it belonged. No server may run, and a
/// repair of this datacenter must have ended since the last one did: what has not arrived here is lost.
///
/// # Errors
/// As [`apply`], and where the store has no schema yet.
pub async fn move_here(
    options: &Options,
    by: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<String, MigrateError> {
    let connection = Connection::open(options).await?;
    let keyspace = &options.keyspace;
    let lock = Lock::new(&connection.session, keyspace, by);
    lock.acquire(patience, progress).await?;
    let result = relocate(&connection, keyspace).await;
    lock.release().await;
    result
}

async fn relocate(connection: &Connection, keyspace: &str) -> Result<String, MigrateError> {
    let Some(there) = place::read(connection, keyspace).await? else {
        let text = format!("there is no store in {keyspace}: run `starling migrate apply`");
        return Err(ConnectError::Schema(text).into());
    };
    if there != connection.datacenter && !place::replace(connection, keyspace, &there).await? {
        return Err(MigrateError::Lost);
    }
    Ok(there)
}

/// The newest version that is known here.
pub fn newest() -> u32 {
    LIST.last().map_or(0, |last| last.version)
}

impl Fitness {
    fn of(applied: &[Applied], list: &[Migration]) -> Self {
        let has = |version| applied.iter().any(|applied| applied.version == version);
        if let Some(missing) = list.iter().find(|migration| !has(migration.version)) {
            return Self::TooOld(missing.version);
        }
        let known = list.last().map_or(0, |last| last.version);
        let removed =
            applied.iter().filter(|applied| applied.version > known && applied.kind == Kind::Contract);
        let removed: Vec<_> = removed.map(|applied| (applied.version, applied.name.clone())).collect();
        if removed.is_empty() { Self::Fits } else { Self::TooNew(removed) }
    }

    /// For people, with the command to run; `known` is the newest version that is known.
    pub fn text(&self, keyspace: &str, known: u32) -> String {
        match self {
            Self::Fits => format!("the schema of {keyspace} fits version {known}"),
            Self::NoKeyspace => format!("there is no keyspace {keyspace}: run `starling migrate apply`"),
            Self::TooOld(missing) => format!(
                "the schema of {keyspace} is too old: it lacks version {missing} and this server needs {known}: \
                 run `starling migrate apply`"
            ),
            Self::TooNew(removed) => {
                let names: Vec<_> =
                    removed.iter().map(|(version, name)| format!("{version} ({name})")).collect();
                let names = names.join(", ");
                format!(
                    "the schema of {keyspace} is too new: version {names} removed what this server needs, which \
                     knows versions up to {known}: run a newer starling (`starling migrate status` shows both)"
                )
            }
        }
    }
}

async fn state(connection: &Connection, name: &str, list: &[Migration]) -> Result<Status, MigrateError> {
    let Some(Keyspace { replication, .. }) = keyspace(connection, name).await? else {
        return Ok(Status {
            replication: None,
            applied: Vec::new(),
            pending: list.to_vec(),
            changed: Vec::new(),
            held_by: None,
            datacenter: None,
            fitness: Fitness::NoKeyspace,
        });
    };
    let applied = applied(connection, name).await?;
    let is = |migration: &&Migration| !applied.iter().any(|applied| applied.version == migration.version);
    let pending: Vec<Migration> = list.iter().filter(is).copied().collect();
    let differs = |applied: &&Applied| {
        let known = list.iter().find(|migration| migration.version == applied.version);
        known.is_some_and(|migration| migration.checksum() != applied.checksum)
    };
    let changed = applied.iter().filter(differs).map(|applied| applied.version).collect();
    let fitness = Fitness::of(&applied, list);
    let held_by = Lock::new(&connection.session, name, "").holder().await?;
    let datacenter = place::read(connection, name).await?;
    Ok(Status { replication: Some(replication), applied, pending, changed, held_by, datacenter, fitness })
}

/// As the options say; otherwise three in the local datacenter, or as many as there are nodes.
fn copies(options: &Options, connection: &Connection) -> Replication {
    if !options.replication.0.is_empty() {
        return options.replication.clone();
    }
    let nodes = connection.datacenters.get(&connection.datacenter).copied().unwrap_or(1);
    let copies = u32::try_from(nodes).unwrap_or(3).clamp(1, 3);
    Replication(BTreeMap::from([(connection.datacenter.clone(), copies)]))
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

/// What is known of the schema, and who changes it. In place before everything else, hence without a version.
const BOOKS: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS {keyspace}.schema_versions (
    family text,
    version int,
    name text,
    kind text,
    applied_at bigint,
    checksum text,
    applied_by text,
    PRIMARY KEY ((family), version)
) WITH comment = 'migrations that were applied'
    AND speculative_retry = '100ms'",
    "CREATE TABLE IF NOT EXISTS {keyspace}.schema_lock (
    name text,
    holder text,
    ticket blob,
    PRIMARY KEY ((name))
) WITH comment = 'who applies migrations; conditional statements only'
    AND speculative_retry = '100ms'",
];

/// The one family there is.
const FAMILY: &str = "starling";

/// Between attempts to read the schema, in milliseconds: with the time that they take, until a dead node is known as such.
const PAUSES: [u64; 6] = [100, 500, 1_000, 2_000, 2_000, 2_000];
